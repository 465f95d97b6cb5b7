//! Flow files, planner, runner, reports and the command line, as a library.
//!
//! Knows factories, not files: which sources, stages and sinks there are stands in the
//! [`Registry`](aqueduct_core::Registry) that it is given, so that a program of one's own runs flows over
//! components of its own.

mod chaos;
mod cli;
mod demo;
pub mod describe;
pub mod flow;
mod ledger;
mod lock;
mod logging;
pub mod plan;
mod process_memory;
mod progress;
pub mod report;
mod run;
mod serve;
mod stderr;

pub use cli::{cli_main, cli_main_from};
