//! What goes to standard output, and what does not.

use crate::job::{Job, ndjson, values};

#[test]
fn new_writes_a_flow_that_checks_and_says_so_on_standard_error() {
    let job = Job::new();
    let done = job.run("new").exits(0).says(&["flow.yaml"]);
    assert_eq!(done.stdout, "");
    job.run("check flow.yaml").exits(0);
    job.write("flow.yaml", "# mine\n");
    job.run("new").exits(2).says(&["flow.yaml"]);
    assert_eq!(job.read("flow.yaml"), "# mine\n");
}

#[test]
fn the_stdout_sink_writes_rows_and_nothing_else_does() {
    let job = Job::with_flow(
        r#"
name: pipe
source: { files: { paths: ["in.ndjson"] } }
sink: { stdout: {} }
"#,
    );
    job.write("in.ndjson", ndjson(0..500));
    for progress in ["auto", "plain", "json", "none"] {
        let done = job.run(&format!("run flow.yaml -v --progress {progress}")).exits(0);
        let numbers: Vec<_> = values(&done.stdout).iter().map(|row| row["n"].as_i64().unwrap()).collect();
        assert_eq!(numbers, (0..500).collect::<Vec<_>>());
    }
    let quiet = job.run("run flow.yaml -q").exits(0);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn the_runs_report_has_the_id_that_stands_in_the_output() {
    let job = Job::with_flow(
        r#"
name: identity
source: { generate: { rows: 3 } }
sink: { ndjson: { path: "out-${run.id}.ndjson" } }
"#,
    );
    job.run("run flow.yaml --report report.json").exits(0);
    let id = job.report()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(job.rows(&format!("out-{id}.ndjson")).map(|rows| rows.len()), Some(3), "{:?}", job.files("."));
    let told = job.run(&format!("runs {id}")).exits(0).stdout;
    assert!(told.contains(&id) && told.contains("identity"), "{told}");
}

#[test]
fn the_demo_needs_no_network_and_loses_no_row() {
    let job = Job::new();
    let done = job.run("demo --files 20 --memory 64MB --progress none").exits(0);
    for figure in ["files", "rows read", "requests made again", "wall time", "memory limit", "allocated"] {
        assert!(done.stdout.contains(figure), "{figure}: {}", done.stdout);
    }
    assert_eq!(job.files("."), [""; 0]);
}
