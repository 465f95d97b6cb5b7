//! Servers that answer wrongly, break off, or send more than they may.

use std::io::Write;

use aqueduct_testkit::http::{Answer, Server};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::job::{Job, ndjson};

const MEMORY_BYTES: u64 = 64_000_000;
/// What a process may take beside its `memory`.
const BESIDE_BYTES: u64 = 64 << 20;

/// Into `out.ndjson` from URLs below `base`.
fn job_over(base: &str, paths: &str) -> Job {
    let flow = r#"
name: net
memory: 64MB
source:
  files: { paths: [PATHS], format: ndjson, schema: { n: int64 }, retries: 1, order: listed }
sink: { ndjson: { path: out.ndjson } }
"#;
    let urls: Vec<_> = paths.split_whitespace().map(|path| format!("\"{base}{path}\"")).collect();
    Job::with_flow(&flow.replace("PATHS", &urls.join(", ")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_404_is_told_with_its_url_and_is_not_asked_again() {
    let server = Server::start().await;
    server.file("/good.ndjson", ndjson(0..3));
    let job = job_over(&server.url(""), "/good.ndjson /gone.ndjson");
    job.run("run flow.yaml").exits(1).says(&["error: ", "/gone.ndjson", "404"]);
    assert_eq!(server.asked("/gone.ndjson").len(), 1);
    assert_eq!(job.files("."), ["flow.yaml"]);
    job.run("run flow.yaml --set execution.on_error=skip --report report.json").exits(0);
    assert_eq!(job.numbers("out.ndjson"), Some(vec![0, 1, 2]));
    assert_eq!(job.report()["files_rejected"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_taken_up_again_where_it_was() {
    let server = Server::start().await;
    let body = bytes::Bytes::from(ndjson(0..20_000));
    let half = body.len() / 2;
    for (path, is_reset) in [("/reset.ndjson", true), ("/cut.ndjson", false)] {
        let body = body.clone();
        server.route(path, move |request| {
            let answer = Answer::file(request, &body, "\"v1\"");
            match (request.nth, is_reset) {
                (1, true) => answer.reset_after(half),
                (1, false) => answer.cut_after(half),
                _ => answer,
            }
        });
    }
    let job = job_over(&server.url(""), "/reset.ndjson /cut.ndjson");
    job.run("run flow.yaml --report report.json").exits(0);
    let twice: Vec<_> = (0..20_000).flat_map(|n| [n, n]).collect();
    assert!(job.numbers("out.ndjson") == Some(twice), "rows are missing or there twice");
    assert_eq!(job.report()["retries"], 2);
    for path in ["/reset.ndjson", "/cut.ndjson"] {
        let asked = server.asked(path);
        assert_eq!(asked.len(), 2, "{path}");
        assert!(asked[1].range_start().is_some_and(|first| first > 0), "{path}: {:?}", asked[1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stays_short_is_an_error_and_the_output_stays_as_it_was() {
    let server = Server::start().await;
    let job = job_over(&server.url(""), "/a.ndjson");
    server.file("/a.ndjson", ndjson(0..10));
    job.run("run flow.yaml").exits(0);
    let before = job.files(".");
    // Cut at the end of a line: what came would parse.
    let body = ndjson(10..1000);
    let line_end = ndjson(10..500).len();
    for is_reset in [false, true] {
        let body = body.clone();
        server.route("/a.ndjson", move |_| {
            let answer = Answer::ok(body.clone());
            if is_reset { answer.reset_after(line_end) } else { answer.cut_after(line_end) }
        });
        job.run("run flow.yaml").exits(1).says(&["error: ", "/a.ndjson"]);
        assert_eq!(job.numbers("out.ndjson"), Some((0..10).collect()));
        assert_eq!(job.files("."), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzip_bomb_is_stopped_and_named() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    // Blank lines are no rows: nothing but the ratio can end this.
    packed.write_all(&vec![b'\n'; 8 << 20]).unwrap();
    let packed = packed.finish().unwrap();
    // Members one after the other are one file (RFC 1952); this one unpacks to 160 MiB.
    let bomb = packed.repeat(20);
    assert!((160 << 20) / bomb.len() > 1000, "no bomb: {} bytes", bomb.len());
    let server = Server::start().await;
    server.file("/bomb.ndjson.gz", bomb);
    let job = job_over(&server.url(""), "/bomb.ndjson.gz");
    let done = job.run("run flow.yaml").exits(1).says(&["error: ", "/bomb.ndjson.gz", "1000"]);
    assert!(done.peak_rss_bytes <= MEMORY_BYTES + BESIDE_BYTES, "{} bytes", done.peak_rss_bytes);
    assert_eq!(job.files("."), ["flow.yaml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_stops_at_max_bytes() {
    let server = Server::start().await;
    let line = ndjson([1]).repeat(8192);
    let endless = server.route("/endless.ndjson", move |_| {
        Answer::new(200).chunks(std::iter::repeat_n(&line, 1000)).last_chunk()
    });
    let job = Job::with_flow(
        &r#"
name: endless
source: { files: { paths: ["URL"], schema: { n: int64 }, max_bytes: 1MB } }
sink: { ndjson: { path: out.ndjson } }
"#
        .replace("URL", &endless),
    );
    job.run("run flow.yaml").exits(1).says(&["/endless.ndjson", "max_bytes", "1MB"]);
    assert_eq!(job.files("."), ["flow.yaml"]);
}
