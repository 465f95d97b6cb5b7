//! The sliding window, as the server counts.

use aqueduct_testkit::http::{Answer, Gate, Request, Server};

use crate::job::{Done, Job, ndjson};

/// The number in `/NUMBER.ndjson`.
fn number(request: &Request) -> i64 {
    request.path.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// A flow over `/0.ndjson`, `/1.ndjson`, …: their URLs are the lines of a list.
fn job_over(server: &Server, n_urls: usize, flow: &str) -> Job {
    let job = Job::with_flow(flow);
    job.write_all("list.txt", (0..n_urls).map(|file| server.url(&format!("/{file}.ndjson\n"))));
    job
}

// S0.1, S0.3
#[tokio::test(flavor = "multi_thread")]
async fn of_673_files_never_more_than_10_are_open() {
    let (server, gate) = (Server::start().await, Gate::closed());
    let opened = gate.clone();
    server.route("*", move |request| {
        let body = ndjson([number(request)]);
        Answer::new(200).header("Content-Length", body.len()).wait_for(&opened).send(body)
    });
    let flow = r#"
name: window
memory: 64MB
source: { files: { paths: { file: list.txt }, schema: { n: int64 }, window: 10 } }
sink: { ndjson: { path: out.ndjson } }
"#;
    let job = job_over(&server, 673, flow);
    let run = job.start("run flow.yaml");
    server.until_bodies(10).await;
    gate.open();
    run.wait().exits(0);
    assert_eq!(job.numbers("out.ndjson"), Some((0..673).collect()));
    assert_eq!((server.peak_bodies(), server.n_requests()), (10, 673));
}

// S0.4
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_slow_sink_no_new_request_starts() {
    let (server, opened) = (Server::start().await, Gate::closed());
    let all_open = opened.clone();
    server.route("*", move |_| {
        // Far more than there is between a source and a pipe that nobody reads.
        let rows = format!("{{\"text\":\"{}\"}}\n", "x".repeat(1000)).repeat(10_000);
        Answer::new(200).header("Content-Length", rows.len()).wait_for(&all_open).send(rows)
    });
    let flow = r#"
name: slow
memory: 64MB
source: { files: { paths: { file: list.txt }, schema: { text: string }, window: 4 } }
sink: { stdout: {} }
"#;
    let job = job_over(&server, 100, flow);
    let mut run = job.start("run flow.yaml");
    server.until_bodies(4).await;
    opened.open();
    for _ in 0..1000 {
        assert!(run.line().starts_with("{\"text\":"));
    }
    // None of the four has left whole at the far end.
    assert_eq!(server.n_requests(), 4);
    run.signal(rustix::process::Signal::INT);
    run.wait().exits(130);
    server.until_connections(0).await;
}

// S0.10, S1.8
#[tokio::test(flavor = "multi_thread")]
async fn an_early_stop_closes_every_connection_while_the_sink_still_writes() {
    let (server, opened, never) = (Server::start().await, Gate::closed(), Gate::closed());
    let all_open = opened.clone();
    server.route("*", move |_| {
        let rows = format!("{{\"text\":\"{}\"}}\n", "x".repeat(1000)).repeat(1000);
        let answer = Answer::new(200).header("Content-Length", rows.len() * 2).wait_for(&all_open);
        answer.send(rows.clone()).wait_for(&never).send(rows)
    });
    let flow = r#"
name: early
memory: 64MB
source: { files: { paths: { file: list.txt }, schema: { text: string }, window: 4 } }
stages: [{ limit: 300 }]
sink: { stdout: {} }
"#;
    let job = job_over(&server, 100, flow);
    let mut run = job.start("run flow.yaml");
    server.until_bodies(4).await;
    opened.open();
    // The pipe holds fewer rows than there are, and nobody reads it yet.
    server.until_connections(0).await;
    assert!(run.is_running());
    assert_eq!(run.wait().exits(0).stdout.lines().count(), 300);
    assert_eq!(server.n_requests(), 4);
}

/// The first 100 rows of a list of so many URLs; each has ten rows.
fn first_rows_of(server: &Server, n_urls: usize) -> Done {
    let flow = r#"
name: list
memory: 32MB
source: { files: { paths: { file: list.txt }, schema: { n: int64 }, window: 10 } }
stages: [{ limit: 100 }]
sink: { ndjson: { path: out.ndjson } }
"#;
    let job = job_over(server, n_urls, flow);
    let done = job.run("run flow.yaml").exits(0);
    assert_eq!(job.numbers("out.ndjson").map(|rows| rows.len()), Some(100));
    done
}

// S0.2
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_a_million_urls_costs_no_more_memory_than_one_of_ten() {
    /// What two runs of the same flow may differ by.
    const NOISE_BYTES: u64 = 4 << 20;
    let server = Server::start().await;
    server.route("*", |request| Answer::ok(ndjson(number(request)..number(request) + 10)));
    let few = first_rows_of(&server, 10).peak_rss_bytes;
    let many = first_rows_of(&server, 1_000_000).peak_rss_bytes;
    assert!(many <= few + NOISE_BYTES, "{few} bytes with 10 URLs, {many} with 1,000,000");
}
