//! `chaos`: flows against a server that misbehaves as its script says, and scripts that are wrong.

use rustix::process::Signal;

use crate::job::{Done, Job, Running, ndjson};

/// A folder with a script and the file that it serves; the server runs in it.
fn serving(script: &str) -> (Job, Running, String) {
    let job = Job::new();
    job.write("data/a.ndjson", ndjson(0..5000));
    job.write("chaos.yaml", script);
    let mut server = job.start("chaos chaos.yaml");
    let url = server.line().trim().to_owned();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    (job, server, url)
}

/// Runs a flow that copies this URL.
fn copy(job: &Job, url: &str, code: i32) -> Done {
    job.write(
        "flow.yaml",
        format!(
            "
name: copy
http: {{ retries: 8 }}
source: {{ files: {{ paths: [\"{url}\"], format: ndjson, schema: {{ n: int64 }} }} }}
sink: {{ ndjson: {{ path: out.ndjson }} }}
"
        ),
    );
    job.run("run flow.yaml --report report.json").exits(code)
}

#[test]
fn a_flow_gets_every_row_in_spite_of_a_scripted_server_which_ends_with_0() {
    let (job, server, url) = serving(
        "
routes:
  - path: /a.ndjson
    file: data/a.ndjson
    faults:
      - { status: 503, retry_after: 10ms, times: 2 }
      - { cut_at: 1000 }
      - { reset_at: 3KB }
      - { ignore_range: true, delay: 10ms }
",
    );
    copy(&job, &format!("{url}/a.ndjson"), 0);
    assert_eq!(job.numbers("out.ndjson"), Some((0..5000).collect()));
    assert!(job.report()["retries"].as_u64().unwrap() >= 3, "{}", job.report());
    server.signal(Signal::TERM);
    let done = server.wait().exits(0);
    let told: Vec<_> = done.stderr.lines().collect();
    assert!(told.len() >= 5, "{}", done.stderr);
    assert!(told[0].starts_with("GET /a.ndjson: 503, fault 1, request 1 of it"), "{}", done.stderr);
    assert!(told[1].contains("503, fault 1, request 2"), "{}", done.stderr);
    assert!(told[2].contains("200, fault 2"), "{}", done.stderr);
    assert!(told[3].contains("bytes=1000-: 206, fault 3"), "{}", done.stderr);
}

#[test]
fn what_no_client_may_believe_fails_and_leaves_nothing() {
    let faults = [
        "{ length_off_by: 10, always: true }",
        "{ length: negative, always: true }",
        "{ length: twice, always: true }",
        "{ chunked: cut, always: true }",
        "{ raw: \"HTTP/1.1 what\\r\\n\\r\\n\", always: true }",
        "{ raw: \"no HTTP at all\", always: true }",
        "{ header_bytes: 1MB, always: true }",
        "{ n_headers: 10000, always: true }",
        "{ redirect: /0, always: true }",
        "{ status: 404, always: true }",
    ];
    let routes: String = faults
        .iter()
        .enumerate()
        .map(|(n, fault)| format!("  - {{ path: /{n}, file: data/a.ndjson, faults: [{fault}] }}\n"))
        .collect();
    let (job, server, url) = serving(&format!("routes:\n{}", routes.replace("redirect: /0", "redirect: /8")));
    for (n, fault) in faults.iter().enumerate() {
        job.write(
            "flow.yaml",
            format!(
                "
name: copy
http: {{ retries: 0 }}
source: {{ files: {{ paths: [\"{url}/{n}\"], format: ndjson, schema: {{ n: int64 }} }} }}
sink: {{ ndjson: {{ path: out.ndjson }} }}
"
            ),
        );
        let done = job.run("run flow.yaml");
        assert!(done.stderr.contains("error: "), "{fault}: {}", done.stderr);
        done.exits(1);
        assert_eq!(job.rows("out.ndjson"), None, "{fault}");
    }
    server.signal(Signal::INT);
    server.wait().exits(0);
}

#[test]
fn hops_lead_to_the_file_in_the_end_and_with_another_etag_it_is_read_from_its_start() {
    let (job, server, url) = serving(
        "
routes:
  - { path: /hops, file: data/a.ndjson, faults: [{ hops: 3 }] }
  - { path: \"/lake/*\", folder: data, faults: [{ cut_at: 2000 }, { etag: changing }] }
",
    );
    copy(&job, &format!("{url}/hops"), 0);
    assert_eq!(job.numbers("out.ndjson").map(|numbers| numbers.len()), Some(5000));
    copy(&job, &format!("{url}/lake/a.ndjson"), 0);
    assert_eq!(job.numbers("out.ndjson"), Some((0..5000).collect()));
    server.signal(Signal::TERM);
    server.wait().exits(0).says_in_a_line(&["GET /lake/a.ndjson bytes=2000-: 200", "fault 2"]);
}

#[test]
fn a_wrong_script_is_told_with_its_place_and_serves_nothing() {
    let job = Job::new();
    job.write("chaos.yaml", "routes:\n  - { path: /a, body: x, faults: [{ cutt_at: 3 }] }\n");
    let done = job.run("chaos chaos.yaml").exits(2).says(&["chaos.yaml:2:37: ", "cut_at"]);
    assert_eq!(done.stdout, "");
    job.run("chaos gone.yaml").exits(2).says(&["gone.yaml", "no such file"]);
}
