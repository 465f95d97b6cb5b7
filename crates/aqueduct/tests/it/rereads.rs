//! Files that change while they are read: rows of two versions never stand in one output.

use aqueduct_testkit::http::{Answer, Gate, Server};
use bytes::Bytes;
use rustix::process::Signal;
use serde_json::Value;

use crate::job::{Job, ndjson};

const BEFORE: &str = "\"tag-before\"";
const AFTER: &str = "\"tag-after\"";

fn range(rows: std::ops::Range<i64>) -> Vec<i64> {
    rows.collect()
}

/// Reads `/a.ndjson` of a server, into these sinks.
fn job_over(server: &Server, on_change: &str, stages: &str, sinks: &str) -> Job {
    let flow = r#"
name: changing
source: { files: { paths: ["BASE/a.ndjson"], schema: { n: int64 }, retries: 1, on_change: POLICY } }
stages: [STAGES]
SINKS
"#;
    let flow = flow.replace("BASE", &server.url("")).replace("POLICY", on_change);
    Job::with_flow(&flow.replace("STAGES", stages).replace("SINKS", sinks))
}

const ONE_FILE: &str = "sink: { ndjson: { path: out.ndjson } }";

/// Of the first version the first answer is cut off in its middle; from then on the second is there.
async fn changing() -> Server {
    let server = Server::start().await;
    let (before, after) = (Bytes::from(ndjson(0..5000)), Bytes::from(ndjson(3000..9000)));
    server.route("/a.ndjson", move |request| match request.nth {
        1 => Answer::file(request, &before, BEFORE).cut_after(before.len() / 2),
        _ => Answer::file(request, &after, AFTER),
    });
    server
}

// reliability 5
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_is_read_again_and_its_new_version_is_there_once() {
    let two = "sinks: { one: { input: filter, ndjson: { path: out.ndjson } }, two: { input: filter, csv: { path: two } } }";
    for (stages, sinks, n_sinks) in [
        ("", ONE_FILE, 1),
        // What a global stage has taken in is dropped, and of two that were told of the change one is enough.
        ("{ sort: { by: [n] } }", ONE_FILE, 1),
        ("{ filter: \"n >= 0\" }", two, 2),
    ] {
        let server = changing().await;
        let job = job_over(&server, "reread", stages, sinks);
        job.run("run flow.yaml --report report.json")
            .exits(0)
            .says_in_a_line(&["WARN", "changed while it was read", "/a.ndjson", "tag-before", "tag-after"])
            .says(&["1 times begun again"]);
        assert_eq!(job.numbers("out.ndjson"), Some(range(3000..9000)), "{stages} {sinks}");
        let report = job.report();
        assert_eq!((&report["rereads"], &report["status"]), (&1.into(), &"done".into()), "{report}");
        assert_eq!(
            (&report["rows_in"], &report["rows_out"]),
            (&6000.into(), &(6000 * n_sinks).into()),
            "{report}"
        );
        assert_eq!(report["resumed_from"], Value::Null);
        // The version that was, cut off; that it is another now; the version that is.
        assert_eq!(server.asked("/a.ndjson").len(), 3);
    }
}

// reliability 5
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_fails_the_run_with_both_versions_unless_it_is_to_be_read_again() {
    let server = changing().await;
    let job = job_over(&server, "fail", "", ONE_FILE);
    job.run("run flow.yaml --report report.json").exits(1).says(&[
        "error: ",
        "/a.ndjson",
        "changed while it was read",
        "tag-before",
        "tag-after",
    ]);
    assert_eq!(job.files("."), ["flow.yaml", "report.json"]);
    assert_eq!((&job.report()["rereads"], &job.report()["status"]), (&0.into(), &"failed".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_all_the_time_is_an_error_in_the_end() {
    let server = Server::start().await;
    server.route("/a.ndjson", |request| {
        let n_rows = 5000 + i64::try_from(request.nth).unwrap();
        let body = Bytes::from(ndjson(0..n_rows));
        Answer::file(request, &body, &format!("\"tag-{}\"", request.nth)).cut_after(20_000)
    });
    let job = job_over(&server, "reread", "", ONE_FILE);
    job.run("run flow.yaml --report report.json").exits(1).says_in_a_line(&[
        "error: ",
        "/a.ndjson",
        "tag-5",
        "tag-6",
        "3 times",
    ]);
    assert_eq!(job.files("."), ["flow.yaml", "report.json"]);
    let report = job.report();
    assert_eq!((&report["rereads"], &report["status"]), (&2.into(), &"failed".into()), "{report}");
    assert!(report["error"].as_str().unwrap().contains("3 times"), "{report}");
    assert_eq!(server.asked("/a.ndjson").len(), 6, "two a attempt");
}

/// What was rejected in an attempt that was dropped is not among what was rejected.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_rejected_before_a_file_changed_is_dropped_with_its_rows() {
    let server = Server::start().await;
    let before = Bytes::from("bad\n".repeat(100) + &ndjson(0..5000));
    let after = Bytes::from(ndjson(0..1000) + &"worse\n".repeat(3));
    server.route("/a.ndjson", move |request| match request.nth {
        1 => Answer::file(request, &before, BEFORE).cut_after(before.len() / 2),
        _ => Answer::file(request, &after, AFTER),
    });
    let job = job_over(&server, "reread", "", ONE_FILE);
    job.run("run flow.yaml --set execution.on_error=dead_letter --report report.json").exits(0);
    let report = job.report();
    assert_eq!((&report["rows_rejected"], &report["rows_out"]), (&3.into(), &1000.into()), "{report}");
    let letters = job.files("rejected").into_iter().filter(|name| !name.starts_with("_aqueduct"));
    let letters: Vec<_> = letters.flat_map(|name| job.rows(&format!("rejected/{name}")).unwrap()).collect();
    assert_eq!(letters.len(), 3, "{letters:?}");
}

/// Two files, one after the other, whose rows are committed every second. The second waits in the middle until a gate is
/// opened, and breaks off there; from then on it is another.
struct Second {
    job: Job,
    server: Server,
    gate: Gate,
}

impl Second {
    /// So much of the second file comes before it changes.
    async fn after(before: String) -> Self {
        let (server, gate) = (Server::start().await, Gate::closed());
        server.file("/a.ndjson", ndjson(0..10));
        let (waits, new) = (gate.clone(), Bytes::from(ndjson(20..40)));
        server.route("/b.ndjson", move |request| match (request.method.as_str(), request.nth) {
            ("GET", 1) => Answer::new(200)
                .header("ETag", BEFORE)
                .header("Content-Length", 10_000)
                .send(before.clone())
                .wait_for(&waits)
                .hang_up(),
            _ => Answer::file(request, &new, AFTER),
        });
        let flow = r#"
name: second
commit: { every: 1s }
source:
  files: { paths: ["BASE/a.ndjson", "BASE/b.ndjson"], schema: { n: int64 }, window: 1, order: listed, retries: 1, on_change: reread }
sink: { ndjson: { path: out, mode: append } }
"#;
        let job = Job::with_flow(&flow.replace("BASE", &server.url("")));
        Self { job, server, gate }
    }

    fn numbers(&self) -> Vec<i64> {
        if self.job.path("out").exists() { self.job.numbers_in("out") } else { Vec::new() }
    }

    /// Waits until so many rows are public.
    async fn until_public(&self, n_rows: usize) {
        while self.numbers().len() < n_rows {
            tokio::task::yield_now().await;
        }
    }

    fn methods(&self, path: &str) -> Vec<String> {
        self.server.asked(path).into_iter().map(|request| request.method).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_stays_and_is_not_read_again() {
    let second = Second::after("{\"n\":1".into()).await;
    let run = second.job.start("run flow.yaml --report report.json");
    second.until_public(10).await;
    second.gate.open();
    run.wait().exits(0).says(&["tag-before", "tag-after"]);
    assert_eq!(second.numbers(), [range(0..10), range(20..40)].concat());
    let report = second.job.report();
    assert_eq!((&report["rereads"], &report["rows_out"]), (&1.into(), &30.into()), "{report}");
    assert_eq!(report["resumed_from"], Value::Null, "it is one run");
    assert_eq!(second.methods("/a.ndjson"), ["GET", "HEAD"], "asked only whether it has changed");
    second.job.run("verify out").exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_committed_cannot_be_taken_back() {
    let second = Second::after(ndjson(10..15)).await;
    let run = second.job.start("run flow.yaml --report report.json");
    second.until_public(15).await;
    second.gate.open();
    run.wait().exits(1).says_in_a_line(&[
        "error: ",
        "/b.ndjson",
        "cannot be taken back",
        "tag-before",
        "tag-after",
    ]);
    assert_eq!(second.numbers(), range(0..15), "what was committed stays");
    assert_eq!(second.job.report()["status"], "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_after_a_kill_is_read_as_it_is_unless_rows_of_it_are_committed() {
    for (before, n_public, is_fine) in [("{\"n\":1".to_owned(), 10, true), (ndjson(10..15), 15, false)] {
        let second = Second::after(before).await;
        let run = second.job.start("run flow.yaml");
        second.until_public(n_public).await;
        run.signal(Signal::KILL);
        drop(run);
        second.server.until_connections(0).await;
        let done = second.job.run("run flow.yaml --report report.json");
        match is_fine {
            true => {
                done.exits(0).says(&["going on"]);
                assert_eq!(second.numbers(), [range(0..10), range(20..40)].concat());
                assert_eq!(second.job.report()["rereads"], 0, "it was whole when it was read");
            }
            false => {
                done.exits(1).says(&["/b.ndjson", "cannot be taken back", "tag-before", "tag-after"]);
                assert_eq!(second.numbers(), range(0..15));
            }
        }
    }
}

#[test]
fn what_cannot_be_taken_back_is_refused_with_its_place() {
    for (flow, told) in [
        (
            "name: x\nsource: { files: { paths: [a.ndjson], on_change: reread } }\nsink: { stdout: {} }\n",
            ["flow.yaml:2:50: source.files.on_change", "`sink` gives them away"],
        ),
        (
            "name: x\nsources:\n  a: { files: { paths: [a.ndjson], on_change: reread } }\n  b: { stdin: { format: ndjson } }\n\
             sinks: { o: { input: [a, b], ndjson: { path: out } } }\n",
            ["flow.yaml:3:47: sources.a.files.on_change", "what `b` has read cannot be read again"],
        ),
        (
            "name: x\nsource: { files: { paths: [a.ndjson], on_change: never } }\nsink: { stdout: {} }\n",
            ["flow.yaml:2:50: source.files.on_change", "reread"],
        ),
    ] {
        let job = Job::with_flow(flow);
        job.write("a.ndjson", ndjson(0..3));
        for command in ["check flow.yaml", "run flow.yaml"] {
            let done = job.run(command).exits(2);
            assert_eq!(done.stdout, "");
            done.says_in_a_line(&told);
        }
        assert_eq!(job.files("."), ["a.ndjson", "flow.yaml"]);
    }
}
