//! A state and an output that do not fit each other any more.

use std::process::Command;

use crate::job::{Job, ndjson};

/// Copies a folder.
fn copy(job: &Job, from: &str, to: &str) {
    let done = Command::new("cp").arg("-a").args([job.path(from), job.path(to)]).status().unwrap();
    assert!(done.success());
}

// reliability 55: the state of the week before beside the output of today
#[test]
fn a_state_of_the_week_before_is_refused_and_no_row_comes_twice() {
    for stages in ["", "stages: [{ unseen: { keys: [n] } }]"] {
        let job = Job::with_flow(&format!(
            r#"
name: nights
source: {{ files: {{ paths: ["in.ndjson"], schema: {{ n: int64 }} }} }}
{stages}
sink: {{ ndjson: {{ path: out, mode: append }} }}
"#
        ));
        job.write("in.ndjson", ndjson(0..10));
        job.run("run flow.yaml").exits(0);
        copy(&job, ".aqueduct", "kept");
        job.write("in.ndjson", ndjson(10..20));
        job.run("run flow.yaml").exits(0);
        std::fs::remove_dir_all(job.path(".aqueduct")).unwrap();
        copy(&job, "kept", ".aqueduct");
        for _ in 0..2 {
            job.run("run flow.yaml").exits(1).says(&["error: ", "out", "--full-refresh"]);
            assert_eq!(job.numbers_in("out"), (0..20).collect::<Vec<_>>(), "{stages}");
        }
        job.run("run flow.yaml --full-refresh").exits(0);
        assert_eq!(job.numbers_in("out"), (10..20).collect::<Vec<_>>(), "{stages}");
    }
}

/// Removes the part of the first day, and gives its path.
fn remove_a_part(job: &Job) -> String {
    let part = job.files("out").into_iter().find(|name| name.contains("part-")).unwrap();
    std::fs::remove_file(job.path("out").join(&part)).unwrap();
    part
}

// reliability 56: where something stays, whatever is gone is missed before anything is added
#[test]
fn a_part_that_was_deleted_is_named_and_nothing_goes_on_without_it() {
    for mode in ["append", "replace_partitions", "merge, keys: [n]"] {
        let job = Job::with_flow(&format!(
            r#"
name: nights
source: {{ files: {{ paths: ["in.ndjson"], schema: {{ n: int64, day: string }} }} }}
sink: {{ parquet: {{ path: out, partition_by: [day], mode: {mode} }} }}
"#
        ));
        job.write("in.ndjson", "{\"n\":1,\"day\":\"mon\"}\n{\"n\":2,\"day\":\"tue\"}\n");
        job.run("run flow.yaml").exits(0);
        copy(&job, "out", "kept");
        let part = remove_a_part(&job);
        let before = job.files(".");
        job.write("in.ndjson", "{\"n\":3,\"day\":\"tue\"}\n");
        for _ in 0..2 {
            job.run("run flow.yaml").exits(1).says(&["error: ", &part, "is gone", "--full-refresh"]);
            assert_eq!(job.files("."), before, "{mode}");
        }
        std::fs::copy(job.path("kept").join(&part), job.path("out").join(&part)).unwrap();
        job.run("run flow.yaml").exits(0);
        job.run("verify out").exits(0);
        let is_there = job.files("out").contains(&part);
        assert!(is_there, "{mode}: a day that did not come stays as it is");
        // Or what is gone is gone.
        remove_a_part(&job);
        job.run("run flow.yaml").exits(1);
        job.run("run flow.yaml --full-refresh").exits(0);
        job.run("verify out").exits(0);
        let parts = job.files("out").into_iter().filter(|name| name.contains("part-"));
        assert_eq!(parts.count(), 1, "{mode}");
    }
}

// reliability 56: all of it is replaced anyway
#[test]
fn an_output_of_which_a_part_was_deleted_is_replaced() {
    let job = Job::with_flow(
        r#"
name: whole
source: { files: { paths: ["in.ndjson"], schema: { n: int64 } } }
sink: { ndjson: { path: out } }
"#,
    );
    job.write("in.ndjson", ndjson(0..10));
    job.run("run flow.yaml").exits(0);
    remove_a_part(&job);
    job.write("in.ndjson", ndjson(10..20));
    job.run("run flow.yaml").exits(0);
    assert_eq!(job.numbers_in("out"), (10..20).collect::<Vec<_>>());
    job.run("verify out").exits(0);
}
