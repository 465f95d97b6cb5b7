//! What killed and forgotten runs leave behind goes, and nothing else.

use rustix::process::Signal;

use crate::job::{Job, ndjson};
use crate::stalled::Stalled;

/// Every file of a job, its state among them.
fn all_files(job: &Job) -> Vec<String> {
    let mut files = job.files(".");
    if job.path(".aqueduct").is_dir() {
        files.extend(job.files(".aqueduct").into_iter().map(|name| format!(".aqueduct/{name}")));
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_is_cleared_away_and_the_output_and_the_log_stay() {
    let stalled = Stalled::after_a_run().await;
    let job = &stalled.job;
    job.run("clean flow.yaml").exits(0).says(&["removed 0 files and folders"]);
    let clean_before = all_files(job);
    let run = stalled.start("run flow.yaml").await;
    let process = format!("process {}", run.pid());
    job.run("clean flow.yaml").exits(4).says(&["left as it is: stalled: ", "running already", &process]);
    job.run("clean").exits(0).says(&["left as it is: stalled: ", &process]);
    run.signal(Signal::KILL);
    drop(run);
    stalled.server.until_connections(0).await;
    let killed = all_files(job);
    assert!(killed.iter().any(|name| name.contains("stage-")), "{killed:?}");
    let told = job.run("clean flow.yaml --dry-run").exits(0).says(&[
        "would remove",
        "stage-",
        "flows/stalled/runs/",
    ]);
    assert_eq!(all_files(job), killed);
    let removed = job.run("clean").exits(0);
    assert_eq!(
        removed.stderr.replace("removed ", "would remove ").lines().count(),
        told.stderr.lines().count()
    );
    let left = all_files(job);
    assert!(
        left.iter().all(|name| !name.contains("stage-") && !name.contains("flows/stalled/runs/")),
        "{left:?}"
    );
    let logs = |files: &[String]| files.iter().filter(|name| name.contains("/log/")).count();
    assert_eq!((logs(&left), logs(&clean_before)), (logs(&killed), logs(&killed) - 1));
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
    job.run("verify out").exits(0);
    stalled.open();
    job.run("run flow.yaml").exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_unfinished_run_goes_on_with_stays() {
    let stalled = Stalled::after_a_run().await;
    let run = stalled.start("run flow.yaml").await;
    run.signal(Signal::TERM);
    run.wait().exits(130);
    stalled.server.until_connections(0).await;
    let before = all_files(&stalled.job);
    stalled.job.run("clean flow.yaml").exits(0).says(&["removed 0 files and folders"]);
    assert_eq!(all_files(&stalled.job), before);
    stalled.open();
    stalled.job.run("run flow.yaml --report report.json").exits(0).says(&["going on"]);
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
    assert_ne!(stalled.job.report()["resumed_from"], serde_json::Value::Null);
}

#[test]
fn links_are_not_followed_and_a_folder_without_state_stays_without() {
    let job = Job::with_flow(
        "name: x\nsource: { files: { paths: [in.ndjson], schema: { n: int64 } } }\nsink: { ndjson: { path: out } }\n",
    );
    job.run("clean").exits(0).says(&["removed 0 files and folders"]);
    job.run("clean flow.yaml").exits(0);
    assert!(!job.path(".aqueduct").exists());
    job.write("in.ndjson", ndjson(0..3));
    job.run("run flow.yaml").exits(0);
    job.write("mine/runs/r1/notes.txt", "mine");
    let state = job.path(".aqueduct/flows");
    std::os::unix::fs::symlink(job.path("mine"), state.join("linked")).unwrap();
    std::os::unix::fs::symlink(job.path("mine/runs"), state.join("x/runs")).unwrap_or_else(|_| {
        // The run has left the folder.
        std::fs::remove_dir_all(state.join("x/runs")).unwrap();
        std::os::unix::fs::symlink(job.path("mine/runs"), state.join("x/runs")).unwrap();
    });
    for words in ["clean", "clean flow.yaml"] {
        job.run(words).exits(0).says(&["removed 0 files and folders"]);
    }
    assert_eq!(job.read("mine/runs/r1/notes.txt"), "mine");
    job.run("clean nothing.yaml").exits(2);
}
