//! Global stages: more rows than memory, whatever happens on the way.

use rustix::process::Signal;

use crate::job::Job;

const MEMORY_BYTES: u64 = 32_000_000;
/// What a process may take beside its `memory`.
const BESIDE_BYTES: u64 = 64 << 20;

/// Ids, each twice, and a key that says nothing of their order: more than memory holds.
const ROWS: &str = r#"
memory: 32MB
source: { generate: { rows: 400000, columns: { n: sequence, text: { len: 100 }, key: { cardinality: 1000 } } } }
"#;

/// What is left in the folder for spilled rows.
fn spilled(job: &Job) -> Vec<String> {
    let folder = job.path(".aqueduct/spill");
    if folder.exists() { job.files(".aqueduct/spill") } else { Vec::new() }
}

// S3.5, MEM-5
#[test]
fn three_global_stages_in_a_row_keep_to_one_memory() {
    let job = Job::with_flow(&format!(
        r#"
name: three
{ROWS}
stages:
  - with: {{ id: "n / 2" }}
  - sort: {{ by: [key, "n desc"] }}
  - dedup: {{ keys: [id], keep: last, by: [n] }}
  - sort: {{ by: ["key desc", id] }}
  - select: [key, id, n]
sink: {{ ndjson: {{ path: out.ndjson }} }}
"#
    ));
    let done = job.run("run flow.yaml --report report.json").exits(0);
    assert!(done.peak_rss_bytes <= MEMORY_BYTES + BESIDE_BYTES, "{} bytes", done.peak_rss_bytes);
    let report = job.report();
    assert!(report["spilled_bytes"].as_u64().unwrap() > MEMORY_BYTES, "{report}");
    let sort = &report["steps"][2];
    // The disk has room, so rows lie on it as they are in memory.
    assert!(sort["spilled_raw_bytes"].as_u64().unwrap() > MEMORY_BYTES, "{sort}");
    assert!(report["memory_peak_bytes"].as_u64().unwrap() <= MEMORY_BYTES, "{report}");
    assert_eq!(
        (&report["rows_in"], &report["rows_duplicate"], &report["rows_out"]),
        (&400_000.into(), &200_000.into(), &200_000.into())
    );
    let rows = job.rows("out.ndjson").unwrap();
    let place = |row: &serde_json::Value| {
        assert_eq!(
            row["n"].as_i64().unwrap(),
            2 * row["id"].as_i64().unwrap() + 1,
            "the last of its id: {row}"
        );
        (std::cmp::Reverse(row["key"].to_string()), row["id"].as_i64().unwrap())
    };
    assert!(rows.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])));
    assert_eq!(spilled(&job), Vec::<String>::new());
}

// A query that gives rows while it takes some stands between two sorts: all three are at work at once.
#[test]
fn a_query_between_two_sorts_does_not_hold_them_up() {
    let job = Job::with_flow(&format!(
        r#"
name: between
{ROWS}
stages:
  - sort: {{ by: [key, "n desc"] }}
  - sql: "SELECT n, key FROM input WHERE n % 2 = 0"
  - sort: {{ by: ["n desc"] }}
sink: {{ ndjson: {{ path: out.ndjson }} }}
"#
    ));
    let done = job.run("run flow.yaml").exits(0);
    assert!(done.peak_rss_bytes <= MEMORY_BYTES + BESIDE_BYTES, "{} bytes", done.peak_rss_bytes);
    let rows = job.rows("out.ndjson").unwrap();
    let numbers = rows.iter().map(|row| row["n"].as_i64().unwrap());
    assert!(numbers.eq((0..400_000).rev().filter(|n| n % 2 == 0)));
}

#[test]
fn a_source_joins_itself() {
    let job = Job::with_flow(&format!(
        r#"
name: itself
memory: 32MB
{}
stages:
  small: {{ input: source, filter: "n < 10" }}
  both: {{ input: source, join: {{ with: small, on: [key], how: semi }} }}
  counted: {{ input: both, aggregate: {{ columns: {{ n: "count(*)", first: "min(n)" }} }} }}
sinks: {{ out: {{ input: counted, ndjson: {{ path: out.ndjson }} }} }}
"#,
        ROWS.trim().trim_start_matches("memory: 32MB")
    ));
    job.run("run flow.yaml").exits(0);
    let counted = job.rows("out.ndjson").unwrap();
    // A key has a thousandth of the rows, and so have the keys of the first ten.
    let n = counted[0]["n"].as_i64().unwrap();
    assert!((400..=10_000).contains(&n), "{counted:?}");
    assert_eq!(counted[0]["first"], 0);
}

#[test]
fn after_a_kill_amid_spilled_rows_the_next_run_clears_up() {
    let job = Job::new();
    let flow = |sink: &str| {
        format!("name: killed\n{ROWS}\nstages: [{{ sort: {{ by: [\"n desc\"] }} }}]\nsink: {{ {sink} }}\n")
    };
    job.write("flow.yaml", flow("stdout: {}"));
    let mut run = job.start("run flow.yaml");
    // The first row comes out when all went in.
    assert!(run.line().contains("399999"));
    assert!(spilled(&job).len() > 1, "{:?}", spilled(&job));
    run.signal(Signal::KILL);
    drop(run);
    assert!(spilled(&job).len() > 1, "a killed process leaves what it has spilled");
    job.write("flow.yaml", flow("parquet: { path: out }"));
    job.run("run flow.yaml --report report.json").exits(0);
    assert_eq!(job.report()["rows_out"], 400_000);
    assert_eq!(spilled(&job), Vec::<String>::new());
}

#[test]
fn more_on_disk_than_there_may_be_fails_the_run_and_publishes_nothing() {
    let job = Job::with_flow(&format!(
        "name: full\nexecution: {{ spill: {{ max_bytes: 1MB }} }}\n{ROWS}\nstages: [{{ sort: {{ by: [key] }} }}]\nsink: {{ parquet: {{ path: out }} }}\n"
    ));
    job.run("run flow.yaml").exits(1).says(&["execution.spill.max_bytes", "step: sort", "limit_bytes: 1MB"]);
    assert!(!job.path("out").exists());
    assert_eq!(spilled(&job), Vec::<String>::new());
}
