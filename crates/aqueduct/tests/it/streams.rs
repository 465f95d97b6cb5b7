//! Standard output and standard error that are full, closed, or read by nobody.

use std::fs::File;
use std::process::Stdio;

use crate::job::{Job, finish, ndjson};

// reliability 58: standard output is full
#[test]
fn a_full_standard_output_is_an_error_that_names_it() {
    let job = Job::with_flow("name: full\nsource: { generate: { rows: 1000 } }\nsink: { stdout: {} }\n");
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut command = job.command("run flow.yaml");
    let done = command.stdin(Stdio::null()).stdout(full()).stderr(Stdio::piped()).output().unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{told}");
    assert!(told.contains("standard output") && told.contains("No space left"), "{told}");
}

/// Rows of which some are bad, and each of those is told.
fn talkative() -> Job {
    let job = Job::with_flow(
        r#"
name: talk
execution: { on_error: skip, max_rejected: 100% }
source: { files: { paths: { file: list.txt }, schema: { n: int64 } } }
sink: { ndjson: { path: out.ndjson } }
"#,
    );
    job.write("a.ndjson", ndjson(0..100) + "bad\nbad\n" + &ndjson(100..200));
    // Each file that is not there has its line on standard error: more than a pipe holds.
    let gone = (0..3000).map(|n| format!("gone/{n}.ndjson\n"));
    job.write_all("list.txt", std::iter::once("a.ndjson\n".to_owned()).chain(gone));
    job
}

// reliability 58: nobody can be told anything, and the work is done
#[test]
fn closed_and_full_streams_for_messages_change_nothing() {
    for before in ["exec >/dev/full 2>/dev/full", "exec >&- 2>&-", "exec <&- >&- 2>&-"] {
        let job = talkative();
        finish(job.command_after(before, "-v run flow.yaml")).exits(0);
        assert_eq!(job.numbers("out.ndjson"), Some((0..200).collect()), "{before}");
    }
}

// reliability 58: a terminal that takes no more
#[test]
fn a_terminal_that_nobody_reads_does_not_hold_up_the_work() {
    let job = talkative();
    let mut command = job.command("run flow.yaml");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let unread = child.stderr.take();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(job.numbers("out.ndjson"), Some((0..200).collect()));
    drop(unread);
}
