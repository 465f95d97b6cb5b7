//! Runs that serve what they write, and a server of flows, as clients see them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::Signal;

use crate::job::{Job, Running, ndjson, start_fed};

/// Rows of standard input as events.
const FLOW: &str = "
name: live
source: { stdin: { format: ndjson, schema: { n: int64 } } }
sink: { sse: { queue: 100 OPTIONS } }
";

/// Where runs of a folder listen.
const SOCKET: &str = "live.sock";

fn job(options: &str) -> Job {
    Job::with_flow(&FLOW.replace("OPTIONS", options))
}

/// The socket of a program, once it listens.
fn connect(job: &Job, running: &mut Running) -> UnixStream {
    loop {
        match UnixStream::connect(job.path(SOCKET)) {
            Ok(client) => return client,
            Err(error) => assert!(running.is_running(), "it ended, and never listened: {error}"),
        }
        std::thread::yield_now();
    }
}

/// Asks; the answer comes.
fn ask(mut client: UnixStream, line: &str, headers: &str, body: &str) -> UnixStream {
    let length = body.len();
    let request =
        format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    client.write_all(request.as_bytes()).unwrap();
    client
}

/// All that comes until the other side hangs up, or is killed.
fn rest(mut client: UnixStream) -> String {
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(n_bytes @ 1..) = client.read(&mut piece) {
        text.extend_from_slice(&piece[..n_bytes]);
    }
    String::from_utf8(text).unwrap()
}

/// What a client gets of a run that is fed these rows, and that ends; whether it was killed. `last` is the last event that
/// the client has had.
fn events_of(job: &Job, mut command: Command, last: u64, rows: std::ops::Range<i64>) -> (String, bool) {
    command.args(["run", "flow.yaml", "--listen", &format!("unix:{SOCKET}")]);
    let (mut running, mut input) = start_fed(command);
    let client = connect(job, &mut running);
    let client = ask(client, "GET /streams/live", &format!("Last-Event-ID: {last}\r\n"), "");
    input.write_all(ndjson(rows).as_bytes()).unwrap();
    drop(input);
    let text = rest(client);
    (text, running.wait().was_killed())
}

/// The numbers of events.
fn ids(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
}

// S1.1, S1.8; contract "sse": numbers go on across runs, `unix:PATH`
#[test]
fn numbers_of_events_go_on_from_run_to_run() {
    let job = job("");
    let (first, _) = events_of(&job, job.command(""), 0, 0..3);
    assert_eq!(ids(&first), [1, 2, 3]);
    assert!(first.contains("event: end\n"), "{first}");
    let (second, _) = events_of(&job, job.command(""), 3, 3..6);
    assert_eq!(ids(&second), [4, 5, 6]);
    assert!(!second.contains("restart") && !second.contains("lagged"), "{second}");
}

// decision 18, reliability.md 27; contract "sse": `announce: committed`
#[test]
fn of_rows_that_wait_for_their_commit_a_crash_shows_all_or_none() {
    for (point, seen_again) in [("commit.record.drafted:2", false), ("commit.finish.recorded", true)] {
        let job = job(", announce: committed");
        let mut killed = job.command("");
        killed.env("AQUEDUCT_KILL_AT", point);
        let (before, was_killed) = events_of(&job, killed, 0, 0..3);
        assert!(was_killed && ids(&before).is_empty(), "{point}: {before}");
        let (after, _) = events_of(&job, job.command(""), 0, 3..5);
        let data: Vec<_> = after.lines().filter_map(|line| line.strip_prefix("data: {\"n\":")).collect();
        let expected: &[&str] = if seen_again { &["0}", "1}", "2}", "3}", "4}"] } else { &["3}", "4}"] };
        assert_eq!(
            data.iter().filter(|data| data.len() == 2).collect::<Vec<_>>(),
            expected.iter().collect::<Vec<_>>(),
            "{point}: {after}"
        );
        assert_eq!(ids(&after), (1..=expected.len() as u64).collect::<Vec<_>>(), "{point}");
    }
}

// contract "sse" and "serve": what others can reach has a token
#[test]
fn what_others_can_reach_without_a_token_is_a_mistake() {
    let job = job("");
    job.run("run flow.yaml --listen 0.0.0.0:0").exits(2).says(&["0.0.0.0:0", "`token`"]);
    job.run("serve . --listen 0.0.0.0:0").exits(2).says(&["0.0.0.0:0", "--token-file"]);
    assert_eq!(job.files("."), ["flow.yaml"]);
}

// S1.15; contract "serve"
#[test]
fn a_server_at_a_socket_runs_flows_and_ends_when_told() {
    let job = Job::new();
    job.write(
        "flows/a.yaml",
        "name: a\nsource: { generate: { rows: 10 } }\nsink: { ndjson: { path: out.ndjson } }\n",
    );
    let mut running = job.start(&format!("serve flows --listen unix:{SOCKET}"));
    let started =
        ask(connect(&job, &mut running), "POST /runs", "Connection: close\r\n", "{\"flow\": \"a\"}");
    let started = rest(started);
    let (_, after) = started.split_once("location: /runs/").expect(&started);
    let id = after.split_whitespace().next().unwrap();
    let told = rest(ask(connect(&job, &mut running), &format!("GET /runs/{id}/events"), "", ""));
    assert!(told.contains("event: complete\n"), "{told}");
    running.signal(Signal::INT);
    running.wait().exits(0);
    assert_eq!(job.rows("flows/out.ndjson").map(|rows| rows.len()), Some(10));
}

// contract "Steps": `--once` ignores `every`
#[test]
fn a_flow_with_a_schedule_runs_once_when_told_to() {
    let job = Job::with_flow(
        "name: often\nevery: 1h\nsource: { generate: { rows: 3 } }\nsink: { ndjson: { path: out.ndjson } }\n",
    );
    job.run("run flow.yaml --once").exits(0);
    assert_eq!(job.rows("out.ndjson").map(|rows| rows.len()), Some(3));
}

// contract "Steps": `notify` changes no exit code
#[test]
fn that_nobody_takes_a_report_changes_no_exit_code() {
    let job = Job::with_flow(
        "name: told\nnotify: { url: 'http://127.0.0.1:1/T0/hunter2', on: [failed] }\n\
         source: { files: { paths: [gone.ndjson], schema: { n: int64 } } }\nsink: { ndjson: { path: out.ndjson } }\n",
    );
    let done = job.run("run flow.yaml").exits(1).says(&["gone.ndjson", "nobody was told how the run ended"]);
    assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
}
