//! What a run leaves in its output, and what its report says of it.

use std::fs::File;

use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::job::{Job, ndjson};

/// Rows of all Parquet files below a folder, as their footers say.
fn parquet_rows(job: &Job, folder: &str) -> i64 {
    let rows = |name: String| {
        let file = File::open(job.path(&format!("{folder}/{name}"))).unwrap();
        SerializedFileReader::new(file).unwrap().metadata().file_metadata().num_rows()
    };
    job.files(folder).into_iter().filter(|name| name.ends_with(".parquet")).map(rows).sum()
}

#[test]
fn the_report_adds_up_and_says_what_lies_there() {
    let job = Job::with_flow(
        r#"
name: sums
source: { files: { paths: ["in/*.ndjson"] } }
stages: [{ filter: "n < 700" }, { with: { third: "n % 3" } }]
sink: { parquet: { path: out, partition_by: [third] } }
"#,
    );
    job.write("in/a.ndjson", ndjson(0..500));
    job.write("in/b.ndjson", ndjson(500..1000));
    job.run("run flow.yaml --report report.json").exits(0);
    let report = job.report();
    let count = |key: &str| report[key].as_i64().unwrap();
    assert_eq!((report["flow"].as_str(), report["status"].as_str()), (Some("sums"), Some("done")));
    assert_eq!((count("rows_in"), count("rows_filtered"), count("rows_out")), (1000, 300, 700));
    assert_eq!(count("bytes_in"), i64::try_from(ndjson(0..1000).len()).unwrap());
    let names: Vec<_> = report["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
    assert_eq!(names, ["source", "filter", "with", "sink"]);
    let outputs = report["outputs"].as_array().unwrap();
    assert_eq!((outputs.len(), &outputs[0]["path"], &outputs[0]["rows"]), (1, &"out".into(), &700.into()));
    assert_eq!(parquet_rows(&job, "out"), 700);
    let size =
        |name: &String| File::open(job.path(&format!("out/{name}"))).unwrap().metadata().unwrap().len();
    let data = job.files("out").into_iter().filter(|name| name.ends_with(".parquet"));
    let on_disk: u64 = data.collect::<Vec<_>>().iter().map(size).sum();
    assert_eq!(report["bytes_out"], on_disk);
}

#[test]
fn a_second_run_replaces_what_the_first_one_wrote() {
    let job = Job::with_flow(
        r#"
name: again
source: { files: { paths: ["in.ndjson"] } }
sink: { parquet: { path: out } }
"#,
    );
    for rows in [0..50, 50..57] {
        job.write("in.ndjson", ndjson(rows.clone()));
        job.run("run flow.yaml").exits(0);
        assert_eq!(parquet_rows(&job, "out"), i64::try_from(rows.count()).unwrap());
        let strange = |name: &String| !name.ends_with(".parquet") && !name.starts_with("_aqueduct/");
        assert_eq!(job.files("out").into_iter().find(strange), None);
    }
}

#[test]
fn every_sink_gets_every_row_of_its_step() {
    let job = Job::with_flow(
        r#"
name: graph
sources:
  a: { files: { paths: ["a.ndjson"] } }
  b: { files: { paths: ["b.ndjson"] } }
stages:
  all: { input: [a, b], filter: "n >= 0" }
  few: { input: all, filter: "n < 3" }
sinks:
  one: { input: all, ndjson: { path: one.ndjson } }
  two: { input: all, ndjson: { path: two.ndjson } }
  three: { input: few, ndjson: { path: three.ndjson } }
"#,
    );
    job.write("a.ndjson", ndjson(-5..100));
    job.write("b.ndjson", ndjson(100..200));
    job.run("run flow.yaml").exits(0);
    for name in ["one.ndjson", "two.ndjson"] {
        assert_eq!(job.numbers(name), Some((0..200).collect()), "{name}");
    }
    assert_eq!(job.numbers("three.ndjson"), Some((0..3).collect()));
}

#[test]
fn a_matrix_runs_once_an_entry_and_a_failed_one_lets_the_others_finish() {
    let job = Job::with_flow(
        r#"
name: matrix
matrix: { part: [a, gone, b] }
source: { files: { paths: ["${part}.ndjson"] } }
sink: { ndjson: { path: "out/${part}.ndjson" } }
"#,
    );
    job.write("a.ndjson", ndjson(0..2));
    job.write("b.ndjson", ndjson(2..5));
    job.run("run flow.yaml --report report.json").exits(1).says(&["gone.ndjson"]);
    let report = job.report();
    let entries = report["entries"].as_array().unwrap();
    let times =
        entries.iter().flat_map(|entry| ["started", "finished"].map(|key| entry[key].as_str().unwrap()));
    assert!(entries.len() == 3 && times.is_sorted(), "each begins when its turn comes: {report}");
    assert_eq!(job.numbers("out/a.ndjson"), Some(vec![0, 1]));
    assert_eq!(job.numbers("out/b.ndjson"), Some(vec![2, 3, 4]));
    assert!(!job.path("out/gone.ndjson").exists());
    job.run("run flow.yaml --only part=b").exits(0);
}
