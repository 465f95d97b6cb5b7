//! The demonstration: a server on this machine with generated files, some of them slow, some failing once.

mod data;
mod server;

pub(crate) use data::{ROWS_PER_FILE, interval};
pub(crate) use server::DemoServer;
