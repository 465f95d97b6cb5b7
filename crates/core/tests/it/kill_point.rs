//! Processes that end at their kill points.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use aqueduct_core::kill_point;
use rustix::process::Signal;

/// Set in the process that passes the points.
const PASSES: &str = "AQUEDUCT_TEST_PASSES_POINTS";

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn passes_two_points() {
    if env::var_os(PASSES).is_some() {
        for _ in 0..2 {
            kill_point("one");
            kill_point("other");
        }
    }
}

/// How a process ends that passes the points.
fn passing(armed: &str) -> ExitStatus {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "kill_point::passes_two_points", "--ignored"]);
    command.env(PASSES, "1").env("AQUEDUCT_KILL_AT", armed);
    command.stdout(Stdio::null()).status().unwrap()
}

#[test]
fn a_process_dies_at_the_point_that_it_is_told_and_at_no_other() {
    let kill = cfg!(debug_assertions).then_some(Signal::KILL.as_raw());
    for armed in ["one", "other", "other:2"] {
        assert_eq!(passing(armed).signal(), kill, "{armed}");
    }
    for armed in ["", "none", "one:3", "one:0", "other:"] {
        assert!(passing(armed).success(), "{armed}");
    }
}
