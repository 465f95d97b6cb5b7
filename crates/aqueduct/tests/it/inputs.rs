//! Bad servers, and inputs that do not fit or do not come, each by its number among the inputs that a run must stand.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use aqueduct_testkit::http::{Answer, Gate, Limits, Server};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::job::{Job, ndjson};

const MEMORY_BYTES: u64 = 64_000_000;
/// What a process may take beside its `memory`.
const BESIDE_BYTES: u64 = 64 << 20;

/// Into `out.ndjson` from one URL.
fn job_over(url: &str, options: &str) -> Job {
    Job::with_flow(&format!(
        "name: net\nmemory: 64MB\nsource: {{ files: {{ paths: [\"{url}\"], {options} }} }}\nsink: {{ ndjson: {{ path: out.ndjson }} }}\n"
    ))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

// reliability 1: nobody listens; once somebody does, the same flow goes through
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_leaves_the_output_and_when_it_is_up_the_flow_runs() {
    let server = Server::start().await;
    let job = job_over(&server.file("/a.ndjson", ndjson(0..10)), "schema: { n: int64 }, retries: 0");
    job.run("run flow.yaml").exits(0);
    let (address, before) = (server.address(), job.files("."));
    drop(server);
    job.run("run flow.yaml").exits(1).says(&[
        "error: ",
        "step: source",
        "/a.ndjson",
        "tries: 1",
        "retries: 0",
    ]);
    assert_eq!((job.numbers("out.ndjson"), job.files(".")), (Some((0..10).collect()), before));
    let limits = Limits { max_connections: 100, max_request_bytes: 1 << 20, keeps_requests: true };
    let server = loop {
        match Server::bind(address, limits).await {
            Ok(server) => break server,
            // The one before is still going.
            Err(_) => tokio::task::yield_now().await,
        }
    };
    server.file("/a.ndjson", ndjson(10..30));
    job.run("run flow.yaml").exits(0);
    assert_eq!(job.numbers("out.ndjson"), Some((10..30).collect()));
}

// reliability 7: a length that is too short cuts a row, which is an error and no shorter file
#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_is_too_short_is_never_a_shorter_file() {
    let server = Server::start().await;
    let url = server.route("/a.ndjson", |_| {
        let body = ndjson(0..10);
        Answer::new(200).header("Content-Length", body.len() - 3).send(body)
    });
    let job = job_over(&url, "schema: { n: int64 }, retries: 1");
    job.run("run flow.yaml").exits(1).says(&["error: ", "/a.ndjson", "row 10"]);
    assert_eq!(job.files("."), ["flow.yaml"]);
}

// reliability 11: the page on which one is to log in, with 200, in the place of a file
#[tokio::test(flavor = "multi_thread")]
async fn a_login_page_is_named_whatever_was_expected() {
    let server = Server::start().await;
    for name in ["a.ndjson", "a.json", "a.csv", "a.parquet", "a.arrow"] {
        let url = server.route(&format!("/{name}"), |_| {
            let page =
                "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>Log in</body></html>\n";
            Answer::ok(page).header("Content-Type", "text/html; charset=utf-8")
        });
        let job = job_over(&url, "retries: 0");
        job.run("run flow.yaml").exits(1).says(&["error: ", name, "HTML page"]);
        assert_eq!(job.files("."), ["flow.yaml"], "{name}");
    }
}

// reliability 14: encodings of the transfer: a bomb, one that breaks off, two of them
#[tokio::test(flavor = "multi_thread")]
async fn encoded_bodies_are_bounded_whole_or_errors() {
    let server = Server::start().await;
    let rows = gzip(ndjson(0..1000).as_bytes());
    let cut = rows[..rows.len() - 9].to_vec();
    // Members one after the other are one file (RFC 1952); blank lines are no rows.
    let bomb = gzip(&vec![b'\n'; 8 << 20]).repeat(20);
    let twice = gzip(&rows);
    let good = rows.clone();
    for (path, coding, body) in [
        ("/good.ndjson", "gzip", good),
        ("/cut.ndjson", "gzip", cut),
        ("/bomb.ndjson", "gzip", bomb),
        ("/twice.ndjson", "gzip, gzip", twice),
    ] {
        server.route(path, move |_| Answer::ok(body.clone()).header("Content-Encoding", coding));
    }
    let job = job_over(&server.url("/good.ndjson"), "schema: { n: int64 }, retries: 0");
    job.run("run flow.yaml").exits(0);
    assert_eq!(job.numbers("out.ndjson"), Some((0..1000).collect()));
    for (path, told) in
        [("/cut.ndjson", "cut.ndjson"), ("/bomb.ndjson", "1000"), ("/twice.ndjson", "gzip, gzip")]
    {
        let job = job_over(&server.url(path), "schema: { n: int64 }, retries: 0");
        let done = job.run("run flow.yaml").exits(1).says(&["error: ", path, told]);
        assert!(done.peak_rss_bytes <= MEMORY_BYTES + BESIDE_BYTES, "{path}: {} bytes", done.peak_rss_bytes);
        assert_eq!(job.files("."), ["flow.yaml"], "{path}");
    }
}

// reliability 15: `1` and `0` differ by one bit
#[tokio::test(flavor = "multi_thread")]
async fn one_bit_flipped_is_told_with_both_digests() {
    let server = Server::start().await;
    server.file("/list.txt", format!("8 9a760bd8d19f5f33076348d83be57f66 {}\n", server.url("/a.ndjson")));
    server.file("/a.ndjson", ndjson([0]));
    let job = Job::with_flow(&format!(
        "
name: digest
source:
  files:
    list: {{ url: \"{}\", column: 3, size_column: 1, md5_column: 2 }}
    schema: {{ n: int64 }}
sink: {{ ndjson: {{ path: out.ndjson }} }}
",
        server.url("/list.txt")
    ));
    job.run("run flow.yaml").exits(1).says(&[
        "error: ",
        "/a.ndjson",
        "md5",
        "expected: 9a760bd8d19f5f33076348d83be57f66",
        "actual: ",
    ]);
    assert_eq!(job.files("."), ["flow.yaml"]);
    server.file("/a.ndjson", ndjson([1]));
    job.run("run flow.yaml").exits(0);
    assert_eq!(job.numbers("out.ndjson"), Some(vec![1]));
}

// reliability 43: one row of 12 MB among 20,000 small ones
#[test]
fn one_huge_row_among_small_ones_passes_within_the_memory() {
    let job = job_over("in.ndjson", "schema: { n: int64, text: string }");
    let huge = || {
        std::iter::once("{\"n\":10000,\"text\":\"".to_owned())
            .chain(std::iter::repeat_n("x".repeat(1_000_000), 12))
            .chain(std::iter::once("\"}\n".to_owned()))
    };
    job.write_all("in.ndjson", [ndjson(0..10_000)].into_iter().chain(huge()).chain([ndjson(10_001..20_001)]));
    let done = job.run("run flow.yaml --report report.json").exits(0);
    assert!(done.peak_rss_bytes <= MEMORY_BYTES + BESIDE_BYTES, "{} bytes", done.peak_rss_bytes);
    assert!(job.numbers("out.ndjson") == Some((0..20_001).collect()));
    assert!(job.report()["memory_peak_bytes"].as_u64().unwrap() <= MEMORY_BYTES);
    // One of 17 MB is more than a row may have.
    let job = job_over("in.ndjson", "schema: { n: int64, text: string }");
    let huge = std::iter::once("{\"n\":1,\"text\":\"".to_owned())
        .chain(std::iter::repeat_n("x".repeat(1_000_000), 17));
    job.write_all("in.ndjson", [ndjson([0])].into_iter().chain(huge).chain(["\"}\n".to_owned()]));
    let done = job.run("run flow.yaml").exits(1).says(&["error: ", "in.ndjson", "max_record_bytes", "16MiB"]);
    assert!(done.peak_rss_bytes <= MEMORY_BYTES + BESIDE_BYTES, "{} bytes", done.peak_rss_bytes);
    assert_eq!(job.files("."), ["flow.yaml", "in.ndjson"]);
}

// reliability 45: the first of all is the slowest: order is kept, and no more is asked for meanwhile than the window has
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_slow_first_file_order_is_kept_and_no_more_than_the_window_is_asked_for() {
    const WINDOW: i64 = 4;
    let (server, gate) = (Server::start().await, Gate::closed());
    let (is_open, ran_ahead) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let last_asked = tokio::sync::watch::Sender::new(0);
    for file in 0..40 {
        let (waits, opened, too_early) = (gate.clone(), Arc::clone(&is_open), Arc::clone(&ran_ahead));
        let asked = last_asked.clone();
        server.route(&format!("/{file}.ndjson"), move |_| {
            if file >= WINDOW && !opened.load(SeqCst) {
                too_early.store(true, SeqCst);
            }
            asked.send_modify(|last| *last = file.max(*last));
            let body = ndjson(file * 100..file * 100 + 100);
            let answer = Answer::new(200).header("Content-Length", body.len());
            if file == 0 { answer.wait_for(&waits).send(body) } else { answer.send(body) }
        });
    }
    let urls: Vec<_> =
        (0..40).map(|file| format!("\"{}\"", server.url(&format!("/{file}.ndjson")))).collect();
    let job = Job::with_flow(&format!(
        "
name: order
memory: 64MB
source: {{ files: {{ paths: [{}], schema: {{ n: int64 }}, window: {WINDOW}, order: listed }} }}
sink: {{ ndjson: {{ path: out.ndjson }} }}
",
        urls.join(", ")
    ));
    let run = job.start("run flow.yaml");
    last_asked.subscribe().wait_for(|last| *last >= WINDOW - 1).await.unwrap();
    // All but the first were sent: whoever runs ahead has every chance to.
    server.until_bodies(1).await;
    is_open.store(true, SeqCst);
    gate.open();
    run.wait().exits(0);
    let rows = job.rows("out.ndjson").unwrap();
    assert!(rows.iter().map(|row| row["n"].as_i64().unwrap()).eq(0..4000));
    assert!(!ran_ahead.load(SeqCst), "a file beyond the window was asked for before the first had come");
}

// reliability 46: from one source over two branches to one step, and one of them gives nothing, or ends early
#[test]
fn a_diamond_with_a_dead_branch_ends() {
    let dead =
        [("filter: \"n < 0\"", 0, 0), ("limit: 1", 1, 1), ("sort: { by: [\"n desc\"] }", 100_000, 100_000)];
    for (branch, n_joined, n_alone) in dead {
        for how in ["semi", "inner"] {
            let job = Job::with_flow(&format!(
                r#"
name: diamond
memory: 64MB
source: {{ generate: {{ rows: 100000, columns: {{ n: sequence, text: {{ len: 50 }} }} }} }}
stages:
  one: {{ input: source, {branch} }}
  other: {{ input: source, select: [n] }}
  both: {{ input: other, join: {{ with: one, on: [n], how: {how} }} }}
sinks:
  joined: {{ input: both, ndjson: {{ path: joined.ndjson, allow_empty: true }} }}
  alone: {{ input: one, ndjson: {{ path: alone.ndjson, allow_empty: true }} }}
  all: {{ input: other, ndjson: {{ path: all.ndjson }} }}
"#
            ));
            job.run("run flow.yaml --report report.json").exits(0);
            let n_rows = |sink: &str| {
                let report = job.report();
                let steps = report["steps"].as_array().unwrap();
                steps.iter().find(|step| step["name"] == sink).unwrap()["rows_out"].as_u64().unwrap()
            };
            assert_eq!(
                [n_rows("joined"), n_rows("alone"), n_rows("all")],
                [n_joined, n_alone, 100_000],
                "{branch}, {how}"
            );
        }
    }
}

// reliability 49: 256 sources in one flow
#[test]
fn a_flow_of_256_sources_gives_the_rows_of_all() {
    let sources: String = (0..256)
        .map(|n| format!("  s{n}: {{ generate: {{ rows: 100, columns: {{ n: sequence }} }} }}\n"))
        .collect();
    let names: Vec<_> = (0..256).map(|n| format!("s{n}")).collect();
    let job = Job::with_flow(&format!(
        "name: many\nmemory: 1GB\nsources:\n{sources}stages:\n  all: {{ input: [{}], select: [n] }}\nsinks:\n  out: {{ input: all, ndjson: {{ path: out.ndjson }} }}\n",
        names.join(", ")
    ));
    job.run("run flow.yaml").exits(0);
    let expected: Vec<_> = (0..100).flat_map(|n| std::iter::repeat_n(n, 256)).collect();
    assert!(job.numbers("out.ndjson") == Some(expected));
}
