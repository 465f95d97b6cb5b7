//! A program that is nothing but a child process of these sources.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    aqueduct_core::worker::serve(aqueduct_sources::WORKER_TASKS, &words)
}
