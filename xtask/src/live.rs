//! A run that serves a stream of events, and its clients, each a process: what `soak swarm` and `bench sse` share.

mod clients;
pub(crate) mod kernel;
mod server;

pub(crate) use clients::{Clients, program};
pub(crate) use server::{PATIENCE, Server, free_address};
