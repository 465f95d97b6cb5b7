//! What outputs hold after runs that add, remember, refresh and go on.

use aqueduct_testkit::http::{Answer, Gate, Server};
use rustix::process::Signal;
use tokio::sync::watch;

use crate::job::{Job, ndjson};

/// The numbers in a folder of NDJSON parts, sorted.
fn numbers(job: &Job, folder: &str) -> Vec<i64> {
    let parts = job.files(folder).into_iter().filter(|name| name.ends_with(".ndjson"));
    let mut numbers: Vec<_> =
        parts.flat_map(|part| job.numbers(&format!("{folder}/{part}")).unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn range(rows: std::ops::Range<i64>) -> Vec<i64> {
    rows.collect()
}

#[test]
fn rows_are_added_to_those_of_earlier_runs_and_a_full_refresh_replaces_them() {
    let job = Job::with_flow(
        r#"
name: nights
source: { files: { paths: ["in.ndjson"] } }
sink: { ndjson: { path: out, mode: append } }
"#,
    );
    for (night, so_far) in [(0..10, 10), (10..25, 25), (25..30, 30)] {
        job.write("in.ndjson", ndjson(night));
        job.run("run flow.yaml --report report.json").exits(0).says(&["mode append"]);
        assert_eq!(numbers(&job, "out"), range(0..so_far));
        assert_eq!(job.report()["mode"], "append");
    }
    job.run("run flow.yaml --full-refresh").exits(0);
    assert_eq!(numbers(&job, "out"), range(25..30));
    job.write("in.ndjson", ndjson(30..33));
    job.run("run flow.yaml").exits(0);
    assert_eq!(numbers(&job, "out"), range(25..33));
    job.run("verify out").exits(0);
}

#[test]
fn a_full_refresh_that_was_killed_goes_on_or_begins_anew_and_has_all_rows() {
    for is_staged in [true, false] {
        let job = Job::with_flow(
            r#"
name: refreshed
execution: { batch_size: 100 }
commit: { every: 10ms }
source: { generate: { rows: 2000, columns: { n: sequence } } }
stages: [{ throttle: { rows: 100, per: 20ms } }, { unseen: { keys: [n] } }]
sink: { ndjson: { path: out } }
"#,
        );
        job.run("run flow.yaml").exits(0);
        let mut killed = job.command("run flow.yaml --full-refresh");
        killed.env("AQUEDUCT_KILL_AT", "commit.epoch.recorded:3");
        assert!(crate::job::finish(killed).was_killed());
        if !is_staged {
            std::fs::remove_dir_all(job.path("_aqueduct/out")).unwrap();
        }
        job.run("run flow.yaml").exits(0);
        assert_eq!(numbers(&job, "out"), range(0..2000), "staged: {is_staged}");
        job.run("run flow.yaml").exits(0);
        assert_eq!(numbers(&job, "out"), range(0..2000), "and nothing is new then");
    }
}

#[test]
fn one_file_is_not_added_to() {
    let flow = "name: x\nsource: { generate: { rows: 3 } }\nsink: { parquet: { path: out.parquet, mode: append } }\n";
    Job::with_flow(flow).run("run flow.yaml").exits(2).says(&[
        "flow.yaml:3:",
        "appending needs a folder",
        "sink.parquet.mode",
    ]);
}

#[test]
fn what_was_seen_is_remembered_with_the_commit_and_forgotten_with_a_failed_run() {
    let job = Job::with_flow(
        r#"
name: once
source: { files: { paths: ["in.ndjson"] } }
stages: [{ unseen: { keys: [n] } }]
sink: { ndjson: { path: out } }
"#,
    );
    job.write("in.ndjson", ndjson(0..100));
    job.run("run flow.yaml").exits(0).says(&["mode append", "`unseen`"]);
    job.write("in.ndjson", ndjson(50..150) + "broken\n");
    job.run("run flow.yaml").exits(1);
    assert_eq!(numbers(&job, "out"), range(0..100));
    job.write("in.ndjson", ndjson(50..150));
    job.run("run flow.yaml --report report.json").exits(0);
    assert_eq!((&job.report()["rows_out"], &job.report()["rows_duplicate"]), (&50.into(), &50.into()));
    assert_eq!(numbers(&job, "out"), range(0..150));
    job.run("run flow.yaml --full-refresh").exits(0);
    assert_eq!(numbers(&job, "out"), range(50..150));
}

/// Downloads that are stopped half-way: files that are whole are not fetched again, the one under way is.
#[tokio::test(flavor = "multi_thread")]
async fn downloads_go_on_with_the_file_that_was_under_way() {
    let (server, gate) = (Server::start().await, Gate::closed());
    server.file("/0.bin", vec![7_u8; 300_000]);
    let (half, waits, asked) = (vec![9_u8; 300_000], gate.clone(), watch::Sender::new(0));
    let (was_asked, mut is_asked) = (asked.clone(), asked.subscribe());
    server.route("/1.bin", move |request| {
        let answer = Answer::new(200).header("ETag", "\"one\"").header("Content-Length", 2 * half.len());
        match request.method.as_str() {
            "HEAD" => answer,
            _ => {
                was_asked.send_modify(|n| *n += 1);
                answer.send(half.clone()).wait_for(&waits).send(half.clone())
            }
        }
    });
    let flow = r#"
name: downloads
source: { files: { paths: ["BASE/0.bin", "BASE/1.bin"], format: binary, window: 1 } }
sink: { files: { path: out } }
"#;
    let job = Job::with_flow(&flow.replace("BASE", &server.url("")));
    let run = job.start("run flow.yaml");
    is_asked.changed().await.unwrap();
    run.signal(Signal::TERM);
    run.wait().exits(130);
    server.until_connections(0).await;
    gate.open();
    let n_before = server.asked("/0.bin").len();
    job.run("run flow.yaml").exits(0).says(&["going on"]);
    assert!(server.asked("/0.bin")[n_before..].iter().all(|one| one.method == "HEAD"), "fetched once");
    let sizes = ["out/0.bin", "out/1.bin"].map(|name| std::fs::metadata(job.path(name)).unwrap().len());
    assert_eq!(sizes, [300_000, 600_000]);
    job.run("verify out").exits(0);
}
