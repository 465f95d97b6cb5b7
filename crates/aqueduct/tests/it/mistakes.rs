//! Mistakes in a flow: all told at once, each with its place, and nothing touched.

use crate::job::{Job, ndjson};

const MISTAKES: &str = r#"
name: mistakes
execution:
  batchsize: 10
source:
  files: { paths: ["in.ndjson"], window: many }
stages:
  - filter: "n > ${FLOOR_THAT_NOBODY_GIVES}"
  - limt: 5
sink: { parquet: { path: out } }
"#;

#[test]
fn every_mistake_is_told_with_its_place_and_what_to_write() {
    let job = Job::with_flow(MISTAKES);
    for command in ["check flow.yaml", "run flow.yaml"] {
        let done = job.run(command).exits(2);
        assert_eq!(done.stdout, "");
        done.says_in_a_line(&[
            "flow.yaml:4:3: execution.batchsize: unknown key",
            "did you mean `batch_size`",
        ])
        .says_in_a_line(&["flow.yaml:6:42: source.files.window: found the text `many`", "a whole number"])
        .says_in_a_line(&["flow.yaml:8:13: stages.0.filter", "FLOOR_THAT_NOBODY_GIVES", "--set"])
        .says_in_a_line(&["flow.yaml:9:5: stages.1", "`limt`", "did you mean `limit`"]);
        assert_eq!(job.files("."), ["flow.yaml"]);
    }
}

#[test]
fn a_column_that_is_not_there_is_found_when_the_file_is_seen() {
    let job = Job::with_flow(
        r#"
name: columns
source: { files: { paths: ["in.ndjson"] } }
stages: [{ filter: "number > 1" }]
sink: { ndjson: { path: out.ndjson } }
"#,
    );
    job.write("in.ndjson", ndjson(0..3));
    job.run("run flow.yaml").exits(2).says_in_a_line(&[
        "flow.yaml:4:",
        "unknown column `number`",
        "there are: n",
    ]);
    assert_eq!(job.files("."), ["flow.yaml", "in.ndjson"]);
}

#[test]
fn a_flow_that_is_not_there_and_a_wrong_word_are_told() {
    let job = Job::new();
    job.run("run gone.yaml").exits(2).says(&["gone.yaml", "no such file"]);
    job.run("rnu gone.yaml").exits(2).says(&["rnu", "run"]);
    job.run("run gone.yaml --memory much").exits(2).says(&["--memory", "much"]);
    assert_eq!(job.files(""), [""; 0]);
}
