//! Steps that panic, whatever stands around them: the run fails and says which step it was, what was public stays, memory and
//! disk are given back, and the next run is right.

use crate::job::Job;
use crate::panicking::run;

/// Rows of the first run, and of those after it.
const FEW: i64 = 5000;
const MANY: i64 = 20_000;

/// A flow of these stages, each with its `input`, from the step `source`; the last one is called `last`.
fn job_of(stages: &str) -> Job {
    Job::with_flow(&format!(
        r#"
name: panics
memory: 128MB
vars: {{ rows: {FEW} }}
source:
  panicking:
    rows: ${{rows}}
    columns: {{ n: sequence, lon: float, lat: float }}
stages:
{stages}
sinks:
  out: {{ input: last, panicking: {{ path: out }} }}
"#
    ))
}

/// From now on the flow has many rows.
fn has_many(job: &Job) {
    let flow = job.read("flow.yaml");
    job.write("flow.yaml", flow.replace(&format!("rows: {FEW} "), &format!("rows: {MANY} ")));
}

/// A run of few rows; then at each of these panics, `WHO PLACE…`, a run of many fails, names the step and changes nothing; and
/// one without a panic gives these numbers.
#[track_caller]
fn fails_at_each(job: &Job, panics: &[&str], step: &str, expected: impl Iterator<Item = i64>) {
    run(job, "", "run flow.yaml").exits(0);
    has_many(job);
    let (files, rows) = (job.files("."), job.numbers_in("out"));
    assert!(!rows.is_empty());
    for panic in panics {
        let mut words = panic.split_whitespace();
        let told = format!("{} at {}", words.next().unwrap(), words.next().unwrap());
        let done = run(job, panic, "run flow.yaml").exits(1);
        done.says_in_a_line(&["error: ", "panicked: ", &told, &format!("step: {step}")]);
        assert!(job.files(".") == files, "{panic}: {:?}", job.files("."));
        assert!(job.numbers_in("out") == rows, "{panic}: other rows are public");
    }
    run(job, "", "run flow.yaml").exits(0);
    assert!(job.numbers_in("out").into_iter().eq(expected), "after {panics:?}");
    run(job, "", "verify out").exits(0);
}

/// The stage that panics, before and after another one.
#[track_caller]
fn fails_around(stage: &str, expected: fn(&i64) -> bool) {
    let before = format!("  p: {{ input: source, panicking: {{}} }}\n  last: {{ input: p, {stage} }}");
    let after = format!("  one: {{ input: source, {stage} }}\n  last: {{ input: one, panicking: {{}} }}");
    let places = ["stage bind", "stage run", "stage first", "stage end", "stage drop", "stage first drop"];
    for (stages, step) in [(before, "p"), (after, "last")] {
        fails_at_each(&job_of(&stages), &places, step, (0..MANY).filter(expected));
    }
}

// reliability 48
#[test]
fn around_streaming_stages() {
    fails_around("filter: \"n % 2 = 0\"", |n| n % 2 == 0);
    fails_around("select: [n]", |_| true);
}

// reliability 48: what was seen by a run that panicked was not seen
#[test]
fn around_unseen() {
    fails_around("unseen: { keys: [n] }", |_| true);
}

// reliability 48
#[test]
fn around_sort() {
    fails_around("sort: { by: [\"n desc\"] }", |_| true);
}

// reliability 48
#[test]
fn around_dedup() {
    fails_around("dedup: { keys: [n] }", |_| true);
}

// reliability 48
#[test]
fn around_aggregate() {
    fails_around("aggregate: { by: [n], columns: { c: \"count(*)\" } }", |_| true);
}

// reliability 48
#[test]
fn around_sql() {
    fails_around("sql: \"SELECT n FROM input WHERE n % 2 = 0\"", |n| n % 2 == 0);
    fails_around("sql: \"SELECT max(n) AS n FROM input GROUP BY n / 2\"", |n| n % 2 == 1);
}

// reliability 48
#[test]
fn around_tile() {
    fails_around("tile: { lon: lon, lat: lat, max_rows: 1000 }", |_| true);
}

// reliability 48
#[test]
fn around_a_join() {
    let right = "generate: { rows: 10000, columns: { n: sequence } }";
    fails_around(&format!("join: {{ with: {{ {right} }}, on: [n], how: semi }}"), |n| *n < 10_000);
}

// reliability 48: the panic is on the right side of the join
#[test]
fn beside_a_join() {
    let job = job_of(
        "  p: { input: source, panicking: {} }\n  last: { input: source, join: { with: p, on: [n], how: semi } }",
    );
    fails_at_each(&job, &["stage run", "stage first", "stage end", "stage drop"], "p", 0..MANY);
}

// reliability 48: one step is read by two
#[test]
fn before_two_readers() {
    let job = job_of("  last: { input: source, panicking: {} }");
    let flow = job.read("flow.yaml") + "  other: { input: last, ndjson: { path: other } }\n";
    job.write("flow.yaml", flow);
    fails_at_each(&job, &["stage run", "stage first", "stage end", "stage drop"], "last", 0..MANY);
}

// reliability 48: the step behind wants no more rows, and all that it wanted has come
#[test]
fn in_the_drop_of_rows_that_nobody_wants_any_more() {
    let job = job_of("  p: { input: source, panicking: {} }\n  last: { input: p, limit: 10 }");
    fails_at_each(&job, &["stage drop"], "p", 0..10);
}

// reliability 48
#[test]
fn in_sources() {
    let places = ["open", "run", "first", "second", "end", "drop", "first drop"]
        .map(|place| format!("source {place}"));
    let places: Vec<_> = places.iter().map(String::as_str).collect();
    for stage in ["filter: \"n >= 0\"", "sort: { by: [\"n desc\"] }"] {
        let job = job_of(&format!("  last: {{ input: source, {stage} }}"));
        fails_at_each(&job, &places, "source", 0..MANY);
    }
}

// reliability 48
#[test]
fn in_sinks() {
    let places = ["fit", "open", "write", "seal", "drop", "write drop", "write abort"]
        .map(|place| format!("sink {place}"));
    let places: Vec<_> = places.iter().map(String::as_str).collect();
    for stage in ["filter: \"n >= 0\"", "sort: { by: [\"n desc\"] }"] {
        let job = job_of(&format!("  last: {{ input: source, {stage} }}"));
        fails_at_each(&job, &places, "out", 0..MANY);
    }
}

// reliability 48: of two sinks one panics, and the other has all its rows
#[test]
fn in_one_of_two_sinks() {
    let job = job_of("  last: { input: source, filter: \"n >= 0\" }");
    let flow = job.read("flow.yaml") + "  other: { input: source, ndjson: { path: other } }\n";
    job.write("flow.yaml", flow);
    fails_at_each(&job, &["sink write", "sink seal", "sink drop"], "out", 0..MANY);
    assert!(job.numbers_in("other") == (0..MANY).collect::<Vec<_>>());
}

// reliability 48: what the run committed before stays, and the next one goes on from there
#[test]
fn after_a_commit_of_the_same_run() {
    let job = job_of("  last: { input: source, panicking: {} }");
    let flow = job.read("flow.yaml").replace("path: out", "path: out, mode: append");
    job.write("flow.yaml", flow.replace("memory:", "commit: { every: 10ms }\nmemory:"));
    has_many(&job);
    run(&job, "source commit", "run flow.yaml").exits(1).says_in_a_line(&[
        "error: ",
        "source at commit",
        "step: source",
    ]);
    let committed = job.numbers_in("out");
    let n_committed = i64::try_from(committed.len()).unwrap();
    assert!((1..MANY).contains(&n_committed) && committed.into_iter().eq(0..n_committed));
    run(&job, "", "run flow.yaml").exits(0).says(&["going on"]);
    assert!(job.numbers_in("out") == (0..MANY).collect::<Vec<_>>());
    run(&job, "", "verify out").exits(0);
}

// reliability 48: while it says what is to be committed
#[test]
fn amid_a_commit() {
    let job = job_of("  last: { input: source, panicking: {} }");
    fails_at_each(&job, &["stage keep"], "last", 0..MANY);
}

// reliability 48: before there is a run
#[test]
fn in_a_flow_that_is_checked() {
    let job = job_of("  last: { input: source, panicking: {} }");
    let flow = job.read("flow.yaml");
    run(&job, "stage configure", "run flow.yaml").exits(1).says_in_a_line(&["error: ", "stage at configure"]);
    job.write("flow.yaml", flow.replacen("panicking:", "generate:", 1));
    for words in ["check flow.yaml", "run flow.yaml"] {
        run(&job, "stage bind", words).exits(2).says_in_a_line(&["flow.yaml:10:", "panicked: stage at bind"]);
    }
    assert_eq!(job.files("."), ["flow.yaml"]);
}
