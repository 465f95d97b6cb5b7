//! The program `aqueduct` with one source more: `own-source run flow.yaml`.

use std::process::ExitCode;

fn main() -> ExitCode {
    aqueduct::cli_main(aqueduct::registry().with_sources(&[&own_source::primes::FACTORY]))
}
