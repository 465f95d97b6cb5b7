//! Outputs in an object store: a server that speaks S3, and the binary beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use aqueduct_testkit::s3::{ACCESS_KEY_ID, S3Server, SECRET_ACCESS_KEY, Wrong};
use rustix::process::Signal;
use serde_json::Value;

use crate::job::{Job, ndjson, values};

/// A test that waits longer hangs.
const AT_MOST: Duration = Duration::from_secs(60);

pub(crate) fn flow(server: &S3Server, sink: &str) -> String {
    format!(
        "name: shipped\nmemory: 64MB\nstorage: {}\nhttp: {{ retries: 1 }}\ncommit: {{ bytes: 300B }}\n\
         source: {{ files: {{ paths: [\"in/*.ndjson\"], schema: {{ n: int64 }}, window: 1 }} }}\nsink: {sink}\n",
        server.storage()
    )
}

/// Files of 20 rows, from this number on.
pub(crate) fn night(job: &Job, first: i64, n_files: i64) {
    let _ = std::fs::remove_dir_all(job.path("in"));
    for file in 0..n_files {
        let start = first + file * 20;
        job.write(&format!("in/{start:05}.ndjson"), ndjson(start..start + 20));
    }
}

/// The rows that the manifest of an output lists; each object below the output must be listed.
pub(crate) fn rows(server: &S3Server, output: &str) -> Vec<i64> {
    let manifest = format!("{output}/_aqueduct/manifest.json");
    let objects = server.objects(&format!("{output}/"));
    let (_, text) = objects.iter().find(|(key, _)| *key == manifest).unwrap();
    let manifest: Value = serde_json::from_slice(text).unwrap();
    let listed: BTreeSet<_> =
        manifest["parts"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap()).collect();
    let mut rows = Vec::new();
    let mut there = BTreeSet::new();
    for (key, bytes) in objects.iter().filter(|(key, _)| !key.contains("/_aqueduct/")) {
        there.insert(key.strip_prefix(&format!("{output}/")).unwrap());
        let text = std::str::from_utf8(bytes).unwrap();
        rows.extend(values(text).iter().map(|row| row["n"].as_i64().unwrap()));
    }
    assert_eq!(there, listed, "the objects are those that the manifest lists");
    rows.sort_unstable();
    rows
}

/// Nothing is staged any more, in the store and on this machine.
pub(crate) fn is_tidy(server: &S3Server, job: &Job) {
    let staged: Vec<_> = server.objects("_aqueduct/").into_iter().map(|(key, _)| key).collect();
    assert_eq!(staged, [] as [String; 0]);
    let flow_dir = job.path(".aqueduct/flows/shipped");
    let outgoing =
        job.files(".aqueduct/flows/shipped").into_iter().filter(|name| name.starts_with("outgoing"));
    assert_eq!(outgoing.collect::<Vec<_>>(), [] as [String; 0], "{}", flow_dir.display());
}

const NDJSON: &str = "{ ndjson: { path: \"s3://lake/out/\", file_bytes: 200B, mode: MODE } }";

pub(crate) fn sink(mode: &str) -> String {
    NDJSON.replace("MODE", mode)
}

#[test]
fn what_is_written_to_a_store_is_replaced_added_to_and_proved() {
    let server = S3Server::start().unwrap();
    let job = Job::with_flow(&flow(&server, &sink("replace")));
    night(&job, 0, 5);
    job.run("run flow.yaml --report report.json").exits(0);
    assert_eq!(rows(&server, "out"), (0..100).collect::<Vec<_>>());
    assert_eq!(job.report()["outputs"][0]["rows"], 100);
    is_tidy(&server, &job);

    night(&job, 1000, 3);
    job.run("run flow.yaml").exits(0);
    assert_eq!(rows(&server, "out"), (1000..1060).collect::<Vec<_>>());
    let mut verify = job.command("verify s3://lake/out");
    verify
        .env("AWS_ENDPOINT_URL", server.endpoint())
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "us-east-1");
    verify.env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
    let proved = crate::job::finish(verify).exits(0);
    assert!(proved.stdout.starts_with("ok: ") && proved.stdout.contains("60 rows"), "{}", proved.stdout);

    let added = Job::with_flow(&flow(&server, &sink("append").replace("out/", "added")));
    night(&added, 0, 4);
    added.run("run flow.yaml").exits(0);
    night(&added, 500, 2);
    added.run("run flow.yaml").exits(0);
    assert_eq!(rows(&server, "added"), (0..80).chain(500..540).collect::<Vec<_>>());
    assert_eq!(server.n_uploads(), 0);
}

// MEM-6: pieces of what is sent lie in memory beside the rows
#[test]
fn what_is_sent_to_a_store_stays_within_the_memory_of_the_run() {
    const MEMORY_BYTES: u64 = 64_000_000;
    const BESIDE_BYTES: u64 = 64 << 20;
    let server = S3Server::start().unwrap();
    for (commit, file_bytes) in [("{}", "1GB"), ("{ bytes: 50MB }", "20MB")] {
        let job = Job::with_flow(&format!(
            "name: large\nmemory: 64MB\nstorage: {}\ncommit: {commit}\n\
             source: {{ generate: {{ rows: 2000000, columns: {{ id: sequence, text: {{ len: 100 }} }} }} }}\n\
             sink: {{ ndjson: {{ path: \"s3://lake/{file_bytes}/\", file_bytes: {file_bytes} }} }}\n",
            server.storage()
        ));
        let done = job.run("run flow.yaml --report report.json").exits(0);
        assert_eq!(job.report()["outputs"][0]["rows"], 2_000_000);
        let peak = done.peak_rss_bytes;
        println!("{file_bytes}: {peak} bytes resident");
        assert!(peak <= MEMORY_BYTES + BESIDE_BYTES, "{file_bytes}: {peak} bytes");
    }
    assert_eq!(server.n_uploads(), 0);
}

#[test]
fn rows_are_merged_and_partitions_replaced_in_a_store() {
    let server = S3Server::start().unwrap();
    for (mode, expected) in [("merge, keys: [n]", 60), ("replace_partitions", 40)] {
        let path = format!("s3://lake/{}", &mode[..5]);
        let text = flow(
            &server,
            &format!("{{ parquet: {{ path: \"{path}\", partition_by: [\"n / 20 as d\"], mode: {mode} }} }}"),
        );
        let job = Job::with_flow(&text.replace("name: shipped", &format!("name: {}", &mode[..5])));
        night(&job, 0, 2);
        job.run("run flow.yaml").exits(0);
        // Half of a partition again, and a new one.
        job.write("in/00000.ndjson", ndjson(20..40));
        job.write("in/00020.ndjson", ndjson(60..80));
        job.run("run flow.yaml").exits(0).says(&[mode.split(',').next().unwrap()]);
        let back = Job::with_flow(&format!(
            "name: back\nstorage: {}\nsource: {{ files: {{ paths: [\"{path}/\"] }} }}\nsink: {{ ndjson: {{ path: back.ndjson }} }}\n",
            server.storage()
        ));
        back.run("run flow.yaml").exits(0);
        let mut numbers = back.numbers("back.ndjson").unwrap();
        numbers.dedup();
        assert_eq!(numbers, (0..40).chain(60..80).collect::<Vec<_>>(), "{mode} {expected}");
    }
}

/// What a run asks a store for, and what of it a kill may come before or after.
const REQUESTS: [(&str, &str, usize); 10] = [
    ("POST", "?uploads", 0),
    ("PUT", "partNumber=", 1),
    ("PUT", "/parts-", 0),
    ("PUT", "/manifest-", 0),
    ("POST", "?uploadId=", 1),
    ("PUT", "/out/_aqueduct/manifest.json", 0),
    ("POST", "?delete", 0),
    ("POST", "?delete", 1),
    ("POST", "?delete", 2),
    ("POST", "?delete", 3),
];

#[test]
fn a_run_that_is_killed_at_a_request_goes_on_and_loses_nothing() {
    for mode in ["replace", "append"] {
        for (method, part, nth) in REQUESTS {
            for wrong in [Wrong::HeldBefore, Wrong::HeldAfter] {
                let case = format!("{mode}, killed at {method} {part} {nth}, {wrong:?}");
                let server = S3Server::start().unwrap();
                let job = Job::with_flow(&flow(&server, &sink(mode)));
                night(&job, 0, 3);
                job.run("run flow.yaml").exits(0);
                night(&job, 100, 6);
                server.plan_nth(method, part, nth, wrong);
                let run = job.start("run flow.yaml");
                assert!(
                    server.holds_within(AT_MOST),
                    "{case}: there was no such request: {:?}",
                    server.seen()
                );
                run.signal(Signal::KILL);
                run.wait();
                server.forget_plans();
                // What is committed is made public; what is not is read again. A run that was complete is followed by another.
                job.run("run flow.yaml").exits(0);
                let now = rows(&server, "out");
                let night: Vec<_> = (100..220).collect();
                let twice: Vec<_> = night.iter().flat_map(|n| [*n, *n]).collect();
                let old: Vec<_> = (0..60).collect();
                let expected = match mode {
                    "replace" => vec![night],
                    // The first run was complete, and the input was read once more.
                    _ => vec![[old.clone(), night].concat(), [old, twice].concat()],
                };
                assert!(expected.contains(&now), "{case}: {now:?}");
                let was_complete = matches!(part, "?uploadId=" | "?delete") || part.starts_with("/out");
                assert!(mode == "replace" || now.len() == 180 || was_complete, "{case}: {} rows", now.len());
                is_tidy(&server, &job);
            }
        }
    }
}

#[test]
fn a_reply_that_is_lost_and_a_refusal_cost_nothing_but_tries() {
    for (method, part, nth) in REQUESTS {
        for wrong in [Wrong::ReplyLost, Wrong::Refused(500), Wrong::Refused(503)] {
            let server = S3Server::start().unwrap();
            let job = Job::with_flow(&flow(&server, &sink("replace")));
            night(&job, 0, 2);
            job.run("run flow.yaml").exits(0);
            night(&job, 100, 3);
            server.plan_nth(method, part, nth, wrong);
            let done = job.run("run flow.yaml");
            if done.stderr.contains("error") {
                // It was one try too few: the next run goes on.
                job.run("run flow.yaml").exits(0);
            }
            assert_eq!(
                rows(&server, "out"),
                (100..160).collect::<Vec<_>>(),
                "{method} {part} {wrong:?}: {}",
                done.stderr
            );
            is_tidy(&server, &job);
        }
    }
}

#[test]
fn what_cannot_be_made_public_is_said_and_made_so_by_the_next_run() {
    let server = S3Server::start().unwrap();
    let job = Job::with_flow(&flow(&server, &sink("replace")));
    night(&job, 0, 2);
    job.run("run flow.yaml").exits(0);
    night(&job, 100, 2);
    // A part that is gone is neither staged nor public: the store has dropped it.
    server.plan("POST", "?uploadId=", usize::MAX, Wrong::Refused(404));
    job.run("run flow.yaml").exits(1).says(&["s3://lake/out", "part-", "neither staged nor public"]);
    assert_eq!(rows(&server, "out"), (0..40).collect::<Vec<_>>(), "what was there stays");
    server.forget_plans();
    server.plan("PUT", "/out/_aqueduct/manifest.json", usize::MAX, Wrong::Refused(503));
    job.run("run flow.yaml").exits(1).says(&["s3://lake/out/_aqueduct/manifest.json"]);
    server.forget_plans();
    job.run("run flow.yaml").exits(0);
    assert_eq!(rows(&server, "out"), (100..140).collect::<Vec<_>>());
    is_tidy(&server, &job);
}

#[test]
fn rows_that_the_store_has_dropped_are_told_and_a_full_refresh_goes_on() {
    let server = S3Server::start().unwrap();
    let job = Job::with_flow(&flow(&server, &sink("replace")));
    night(&job, 0, 2);
    server.plan("POST", "?uploadId=", usize::MAX, Wrong::Refused(503));
    job.run("run flow.yaml").exits(1);
    server.forget_plans();
    server.expire_uploads();
    job.run("run flow.yaml").exits(1).says(&["part-", "neither staged nor public", "--full-refresh"]);
    night(&job, 100, 2);
    job.run("run flow.yaml --full-refresh").exits(0).says(&["is let go of"]);
    assert_eq!(rows(&server, "out"), (100..140).collect::<Vec<_>>());
    is_tidy(&server, &job);
    job.run("run flow.yaml").exits(0);
}

#[test]
fn what_aqueduct_did_not_write_is_never_replaced() {
    let server = S3Server::start().unwrap();
    let writer = Job::with_flow(&flow(&server, &sink("append").replace("out/", "out")));
    night(&writer, 0, 1);
    writer.run("run flow.yaml").exits(0);
    server.put("out/precious.csv", b"mine");
    night(&writer, 100, 1);
    writer.run("run flow.yaml").exits(1).says(&["s3://lake/out/precious.csv", "no run of aqueduct wrote"]);
    assert_eq!(server.objects("out/precious.csv"), [("out/precious.csv".to_owned(), b"mine".to_vec())]);
    let bucket = Job::with_flow(&flow(&server, "{ ndjson: { path: \"s3://lake\" } }"));
    night(&bucket, 0, 1);
    bucket.run("check flow.yaml").exits(2).says(&["s3://BUCKET/NAME"]);
}
