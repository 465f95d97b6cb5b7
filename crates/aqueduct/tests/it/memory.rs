//! One `memory:` line, and what the process takes.

use crate::job::{Done, Job, ndjson};

const MEMORY_BYTES: u64 = 64_000_000;
/// What a process may take beside its `memory`.
const BESIDE_BYTES: u64 = 64 << 20;

// MEM-6
#[test]
fn the_peak_stays_within_the_rule_however_long_the_input() {
    let job = Job::new();
    job.write(
        "make.yaml",
        r#"
name: make
memory: 64MB
vars: { rows: 400000 }
source:
  generate:
    rows: ${rows}
    columns: { id: sequence, ts: timestamp, text: { len: 40 }, key: { cardinality: 1000 }, x: float }
sink: { ndjson: { path: "in.ndjson", mode: replace } }
"#,
    );
    job.write(
        "flow.yaml",
        r#"
name: keep
memory: 64MB
source: { files: { paths: ["in.ndjson"] } }
stages: [{ filter: "x < 0.9" }]
sink: { parquet: { path: out } }
"#,
    );
    for rows in [400_000, 4_000_000] {
        within(&job.run(&format!("run make.yaml --set rows={rows}")).exits(0));
        within(&job.run("run flow.yaml --report report.json").exits(0));
        let report = job.report();
        assert_eq!(report["rows_in"], rows);
        assert!((1..=MEMORY_BYTES).contains(&report["memory_peak_bytes"].as_u64().unwrap()));
    }
}

#[track_caller]
fn within(done: &Done) {
    assert!(done.peak_rss_bytes <= MEMORY_BYTES + BESIDE_BYTES, "{} bytes", done.peak_rss_bytes);
}

#[test]
fn the_reports_peak_is_the_kernels() {
    let job = Job::with_flow(
        r#"
name: peak
memory: 64MB
source: { generate: { rows: 300000, columns: { id: sequence, text: { len: 100 } } } }
sink: { parquet: { path: out } }
"#,
    );
    let done = job.run("run flow.yaml --report report.json").exits(0);
    let told = job.report()["rss_peak_bytes"].as_u64().unwrap();
    let difference = told.abs_diff(done.peak_rss_bytes);
    assert!(difference * 100 <= done.peak_rss_bytes, "{told} told, {} counted", done.peak_rss_bytes);
}

/// The size in `… would do is SIZE`, in MB.
fn smallest_mb(told: &str) -> u64 {
    let size = told.split("would do is ").nth(1).unwrap_or_else(|| panic!("no size in: {told}"));
    let size = size.split_whitespace().next().unwrap().trim_end_matches('.');
    size.strip_suffix("MB").unwrap_or_else(|| panic!("not in MB: {told}")).parse().unwrap()
}

// MEM-4
#[test]
fn the_smallest_memory_that_a_refusal_names_works_and_less_is_refused() {
    let steps = [
        ("files: { paths: [\"in.ndjson\"] }", "limit: 5", "parquet: { path: out.parquet }"),
        (
            "files: { paths: [\"in.ndjson\"] }",
            "filter: \"n > 1\"",
            "ndjson: { path: out, compression: gzip }",
        ),
        (
            "files: { paths: [\"in.ndjson\"] }",
            "filter: \"n < 20\"",
            "parquet: { path: out, partition_by: [n], partition_columns: true }",
        ),
        ("generate: { rows: 1000 }", "limit: 100", "csv: { path: out.csv }"),
    ];
    for (source, stage, sink) in steps {
        let job = Job::with_flow(&format!(
            "name: small\nmemory: 1KB\nsource: {{ {source} }}\nstages: [{{ {stage} }}]\nsink: {{ {sink} }}\n"
        ));
        job.write("in.ndjson", ndjson(0..2000));
        let refused = job.run("run flow.yaml").exits(2).says(&["flow.yaml:2:9: memory: 1KB is too little"]);
        assert_eq!(job.files("."), ["flow.yaml", "in.ndjson"]);
        let smallest = smallest_mb(&refused.stderr);
        let less = smallest * 900;
        job.run(&format!("run flow.yaml --memory {less}KB")).exits(2).says(&["too little", "step `"]);
        assert_eq!(job.files("."), ["flow.yaml", "in.ndjson"]);
        job.run(&format!("run flow.yaml --memory {smallest}MB")).exits(0);
    }
}
