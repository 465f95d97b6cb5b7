//! Flow files, planner, runner, reports and the command line, as a library.

pub mod describe;
pub mod flow;
pub mod plan;
