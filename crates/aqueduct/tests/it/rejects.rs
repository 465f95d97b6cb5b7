//! Bad rows and bad files under each policy.

use serde_json::Value;

use crate::job::{Job, ndjson};

const FLOW: &str = r#"
name: rows
source:
  files: { paths: ["in.ndjson"], schema: { n: int64 } }
sink: { ndjson: { path: out.ndjson } }
"#;

/// 200 good rows; the bad ones stand in lines 51 and 152.
fn job_with_bad_rows() -> Job {
    let job = Job::with_flow(FLOW);
    let (broken, mistyped) = ("{\"n\": 1,\n", "{\"n\": \"ten\"}\n");
    let text = [&ndjson(0..50), broken, &ndjson(50..150), mistyped, &ndjson(150..200)].concat();
    job.write("in.ndjson", text);
    job
}

fn counts(report: &Value) -> [i64; 3] {
    ["rows_in", "rows_rejected", "rows_out"].map(|key| report[key].as_i64().unwrap())
}

#[test]
fn fail_names_the_first_bad_row_and_writes_nothing() {
    let job = job_with_bad_rows();
    let done = job.run("run flow.yaml --report report.json").exits(1);
    done.says(&["error: ", "in.ndjson", "row 51"]);
    assert_eq!(job.report()["status"], "failed");
    assert_eq!(job.files("."), ["flow.yaml", "in.ndjson", "report.json"]);
}

#[test]
fn skip_counts_what_it_leaves_out() {
    let job = job_with_bad_rows();
    let done = job.run("run flow.yaml --set execution.on_error=skip --report report.json").exits(0);
    done.says_in_a_line(&["in.ndjson", "row 51"]).says_in_a_line(&["in.ndjson", "row 152", "int64"]);
    assert_eq!(job.numbers("out.ndjson"), Some((0..200).collect()));
    assert_eq!(counts(&job.report()), [202, 2, 200]);
    assert!(!job.path("rejected").exists());
}

#[test]
fn dead_letter_keeps_each_with_its_reason_its_place_and_its_text() {
    let job = job_with_bad_rows();
    job.run("run flow.yaml --set execution.on_error=dead_letter --report report.json").exits(0);
    assert_eq!(job.numbers("out.ndjson"), Some((0..200).collect()));
    assert_eq!(counts(&job.report()), [202, 2, 200]);
    let kept = job.files("rejected");
    assert_eq!(kept.len(), 1, "{kept:?}");
    let mut letters = job.rows(&format!("rejected/{}", kept[0])).unwrap();
    letters.sort_by_key(|letter| letter["origin"]["row"].as_i64());
    let of = |key: &str| letters.iter().map(|letter| letter[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("raw"), ["{\"n\": 1,", "{\"n\": \"ten\"}"]);
    assert_eq!(letters.iter().map(|letter| &letter["origin"]["row"]).collect::<Vec<_>>(), [51, 152]);
    assert!(letters.iter().all(|letter| letter["origin"]["file"].as_str().unwrap().contains("in.ndjson")));
    assert!(letters.iter().all(|letter| letter["reason"].is_string()), "{letters:?}");
}

#[test]
fn more_than_max_rejected_fails_the_run_before_its_commit() {
    let job = job_with_bad_rows();
    let policy = "--set execution.on_error=skip --set execution.max_rejected";
    job.run(&format!("run flow.yaml {policy}=1")).exits(1).says(&["max_rejected", "in.ndjson", "row 152"]);
    assert_eq!(job.files("."), ["flow.yaml", "in.ndjson"]);
    job.run(&format!("run flow.yaml {policy}=2")).exits(0);
    assert_eq!(job.numbers("out.ndjson"), Some((0..200).collect()));
}

#[test]
fn all_rejected_is_never_an_empty_output() {
    let job = Job::with_flow(FLOW);
    job.write("in.ndjson", "x\ny\nz\n");
    job.run("run flow.yaml --set execution.on_error=skip --set execution.max_rejected=100%")
        .exits(1)
        .says(&["rejected", "max_rejected"]);
    assert_eq!(job.files("."), ["flow.yaml", "in.ndjson"]);
}

#[test]
fn what_a_stage_rejects_is_judged_as_what_a_source_does() {
    let job = Job::with_flow(
        r#"
name: stage
execution: { on_error: skip, max_rejected: 10% }
source: { files: { paths: ["in.ndjson"], schema: { n: string } } }
stages: [{ cast: { n: int64 } }]
sink: { ndjson: { path: out.ndjson } }
"#,
    );
    let rows =
        |n_bad: i64| (0..2000).map(move |n| if n < n_bad { "{\"n\":\"x\"}\n" } else { "{\"n\":\"1\"}\n" });
    for (n_bad, told) in [(2000, "all that step `cast` read"), (201, "201 of 2000 rows of step `cast`")] {
        job.write_all("in.ndjson", rows(n_bad).map(str::to_owned));
        job.run("run flow.yaml").exits(1).says(&[told, "max_rejected: 10%"]);
        assert_eq!(job.numbers("out.ndjson"), None);
    }
    job.write_all("in.ndjson", rows(200).map(str::to_owned));
    job.run("run flow.yaml").exits(0);
    assert_eq!(job.numbers("out.ndjson").map(|rows| rows.len()), Some(1800));
}

#[test]
fn strict_commits_and_ends_with_3() {
    let job = job_with_bad_rows();
    job.run("run flow.yaml --strict --set execution.on_error=skip").exits(3);
    assert_eq!(job.numbers("out.ndjson"), Some((0..200).collect()));
}

#[test]
fn a_step_may_have_a_policy_and_a_folder_of_its_own() {
    let job = job_with_bad_rows();
    job.write("flow.yaml", FLOW.replace("\nsink", "\n  dead_letter: aside/\nsink"));
    job.run("run flow.yaml").exits(0);
    assert_eq!((job.files("aside").len(), job.path("rejected").exists()), (1, false));
}

#[test]
fn a_missing_file_is_named_and_the_others_go_on_if_the_flow_says_so() {
    let job = Job::with_flow(&FLOW.replace("[\"in.ndjson\"]", "[\"a.ndjson\", \"gone/b.ndjson\"]"));
    job.write("a.ndjson", ndjson(0..5));
    job.run("run flow.yaml").exits(1).says(&["error: ", "gone/b.ndjson", "no such file"]);
    assert_eq!(job.files("."), ["a.ndjson", "flow.yaml"]);
    job.run("run flow.yaml --set execution.on_error=dead_letter --report report.json").exits(0);
    assert_eq!(job.numbers("out.ndjson"), Some((0..5).collect()));
    assert_eq!(job.report()["files_rejected"], 1);
    let kept = job.files("rejected");
    assert!(job.read(&format!("rejected/{}", kept[0])).contains("gone/b.ndjson"));
}
