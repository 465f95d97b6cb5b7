//! The binary `aqueduct`.

use std::process::ExitCode;

/// Gives memory back soon, so that what the budget counts is what the process takes.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    aqueduct::cli_main(aqueduct::registry())
}
