//! What a flow keeps from run to run, told and changed.

use serde_json::{Value, json};

use crate::job::{Job, ndjson};
use crate::stalled::Stalled;

/// Numbers that pass once in all runs.
const ONCE: &str = r#"
name: once
source: { files: { paths: ["in.ndjson"], schema: { n: int64 } } }
stages: [{ unseen: { keys: [n] } }]
sink: { ndjson: { path: out } }
"#;

fn exported(job: &Job, words: &str) -> Value {
    let done = job.run(&format!("state flow.yaml export {words}")).exits(0);
    serde_json::from_str(&done.stdout).unwrap()
}

fn rows_out(job: &Job, words: &str) -> Value {
    job.run(&format!("run flow.yaml --report report.json {words}")).exits(0);
    job.report()["rows_out"].clone()
}

#[test]
fn a_flow_that_never_ran_has_no_state_and_gets_none_by_asking() {
    let job = Job::with_flow(ONCE);
    let done = job.run("state flow.yaml").exits(0);
    assert!(
        done.stdout.contains("once") && done.stdout.contains("none has committed anything"),
        "{}",
        done.stdout
    );
    let told = exported(&job, "");
    assert_eq!((&told["flows"][0]["last_run"], &told["flows"][0]["steps"]), (&Value::Null, &json!({})));
    job.run("state flow.yaml reset").exits(0).says(&["nothing is forgotten"]);
    assert!(!job.path(".aqueduct").exists());
}

#[test]
fn what_is_kept_is_told_and_a_reset_lets_seen_rows_pass_again() {
    let job = Job::with_flow(ONCE);
    job.write("in.ndjson", ndjson(0..1200));
    assert_eq!(rows_out(&job, ""), 1200);
    let shown = job.run("state flow.yaml show").exits(0).stdout;
    for word in ["finished; 1,200 rows in, 1,200 rows out", "1,200 keys seen", "in 1 files"] {
        assert!(shown.contains(word), "`{word}` is missing in: {shown}");
    }
    let told = exported(&job, "");
    let flow = &told["flows"][0];
    assert_eq!((&flow["flow"], &flow["last_run"]["status"]), (&json!("once"), &json!("finished")));
    assert_eq!(flow["last_run"]["run_id"], job.report()["run_id"]);
    assert_eq!(flow["positions"], json!({}), "all was read to its end");
    assert_eq!(flow["steps"]["unseen"]["seen"]["runs"][0]["keys"], 1200);

    assert_eq!(rows_out(&job, ""), 0);
    job.run("state flow.yaml reset unsen").exits(2).says(&["no step `unsen`", "did you mean `unseen`?"]);
    job.run("state flow.yaml reset source").exits(0).says(&["nothing is forgotten"]);
    assert_eq!(rows_out(&job, ""), 0);
    for words in ["reset unseen", "reset"] {
        job.run(&format!("state flow.yaml {words}")).exits(0).says(&["forgotten what is kept by `unseen`"]);
        assert_eq!(exported(&job, "")["flows"][0]["steps"], json!({}));
        assert_eq!(rows_out(&job, ""), 1200);
    }
    job.run("verify out").exits(0);
}

// S2.8, S2.12
#[test]
fn of_keys_seen_it_is_told_when_how_often_and_from_where() {
    let job = Job::with_flow(
        r#"
name: feeds
sources:
  a: { files: { paths: ["a.ndjson"], schema: { n: int64, feed_url: string } } }
  b: { files: { paths: ["b.ndjson"], schema: { n: int64, feed_url: string } } }
stages: { unseen: { input: [a, b], unseen: { keys: [n], sightings: true } } }
sinks: { out: { input: unseen, ndjson: { path: out } } }
"#,
    );
    let rows = |feed: &str, numbers: std::ops::Range<i64>| -> String {
        numbers.map(|n| format!("{{\"n\":{n},\"feed_url\":\"https://me:hunter2@{feed}/\"}}\n")).collect()
    };
    job.write("a.ndjson", rows("a", 0..3000));
    job.write("b.ndjson", rows("b", 2000..5000));
    job.run("state flow.yaml export unseen").exits(2).says(&["has recorded no sightings"]);
    for n_runs in 1..=2 {
        assert_eq!(rows_out(&job, ""), if n_runs == 1 { 5000 } else { 0 });
        let told = job.run("state flow.yaml export unseen").exits(0).stdout;
        let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["keys"]), (5000, &json!({"n": 0})));
        let shared = lines.iter().find(|line| line["keys"]["n"] == 2500).unwrap();
        assert_eq!((&shared["count"], shared["from"].as_array().unwrap().len()), (&json!(2 * n_runs), 2));
        assert!(!told.contains("hunter2"));
        let counts: u64 = lines.iter().map(|line| line["count"].as_u64().unwrap()).sum();
        assert_eq!(counts, 6000 * n_runs);
    }
    assert!(job.run("state flow.yaml").exits(0).stdout.contains("12,000 sightings"));
}

#[test]
fn what_cannot_be_set_is_refused_by_name_and_nothing_is_changed() {
    let job = Job::with_flow(ONCE);
    job.write("in.ndjson", ndjson(0..3));
    job.run("run flow.yaml").exits(0);
    let before = exported(&job, "");
    for (words, told) in [
        ("set unseen.seen.format=7", "`unseen` keeps keys it has seen, which cannot be set"),
        ("set source.since=7", "no step of this flow keeps a value that can be set"),
        ("set", "`set` needs STEP.FIELD=VALUE"),
        ("set since", "expected STEP.FIELD=VALUE"),
        ("show more", "`more` is too much"),
    ] {
        job.run(&format!("state flow.yaml {words}")).exits(2).says(&[told]);
    }
    assert_eq!(exported(&job, ""), before);
}

#[test]
fn each_entry_of_a_matrix_has_a_state_of_its_own() {
    let job = Job::with_flow(
        &ONCE
            .replace("name: once", "name: once\nmatrix: [{ part: a }, { part: b }]")
            .replace("in.ndjson", "${part}.ndjson")
            .replace("path: out", "path: \"out/${part}\""),
    );
    job.write("a.ndjson", ndjson(0..3));
    job.write("b.ndjson", ndjson(0..4));
    job.run("run flow.yaml").exits(0);
    let told = exported(&job, "");
    let keys =
        |told: &Value, at: usize| told["flows"][at]["steps"]["unseen"]["seen"]["runs"][0]["keys"].clone();
    assert_eq!((keys(&told, 0), keys(&told, 1)), (3.into(), 4.into()));
    assert_eq!(told["flows"][1]["entry"], json!({ "part": "b" }));
    job.run("state flow.yaml reset unseen --only part=b").exits(0).says(&["once (part=b)"]);
    let told = exported(&job, "");
    assert_eq!((keys(&told, 0), keys(&told, 1)), (3.into(), Value::Null));
}

#[test]
fn a_log_of_a_newer_version_is_refused_and_left_as_it_is() {
    let job = Job::with_flow(ONCE);
    job.write("in.ndjson", ndjson(0..3));
    job.run("run flow.yaml").exits(0);
    let log = ".aqueduct/flows/once/log";
    let last = job.files(".aqueduct/flows/once").into_iter().rfind(|name| name.starts_with("log/"));
    let name = format!(".aqueduct/flows/once/{}", last.unwrap());
    let record = job.read(&name);
    let body = record.lines().next().unwrap().replacen("\"version\":1", "\"version\":99", 1);
    let hash = blake3::hash(body.as_bytes()).to_hex();
    job.write(&name, format!("{body}\n{hash}\n"));
    let before = job.files(log);
    for words in ["show", "export", "reset", "set a.b=1"] {
        job.run(&format!("state flow.yaml {words}")).exits(2).says(&["newer aqueduct"]);
    }
    assert_eq!(job.files(log), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_under_way_is_told_and_not_changed_and_an_unfinished_run_is_dropped_only_by_a_reset_of_all() {
    let stalled = Stalled::after_a_run().await;
    let run = stalled.start("run flow.yaml").await;
    let process = format!("process {}", run.pid());
    stalled.job.run("state flow.yaml").exits(0);
    for words in ["reset", "reset source", "set a.b=1"] {
        stalled.job.run(&format!("state flow.yaml {words}")).exits(4).says(&["running already", &process]);
    }
    run.signal(rustix::process::Signal::TERM);
    run.wait().exits(130);
    let shown = stalled.job.run("state flow.yaml").exits(0).stdout;
    assert!(shown.contains("not finished, the next run goes on with it"), "{shown}");
    assert!(shown.contains("files: 1 done"), "{shown}");
    stalled
        .job
        .run("state flow.yaml reset source")
        .exits(2)
        .says(&["is not finished", "run flow.yaml --fresh"]);
    stalled.job.run("state flow.yaml reset").exits(0).says(&["will not be gone on with"]);
    let status = exported(&stalled.job, "")["flows"][0]["last_run"]["status"].clone();
    assert_eq!(status, "dropped");
    stalled.open();
    stalled.job.run("run flow.yaml --report report.json").exits(0);
    let report = stalled.job.report();
    assert_eq!((&report["resumed_from"], &report["rows_in"]), (&Value::Null, &20.into()));
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
}

#[test]
fn no_secret_is_told() {
    let job = Job::with_flow(
        &ONCE.replace("name: once", "name: once\nstate: \"${WHERE}\"\nsecrets: { WHERE: { env: WHERE } }"),
    );
    job.write("in.ndjson", ndjson(0..3));
    for words in ["run flow.yaml", "state flow.yaml", "state flow.yaml export"] {
        let mut command = job.command(words);
        command.env("WHERE", "hunter2");
        let done = crate::job::finish(command).exits(0);
        assert!(!done.stdout.contains("hunter2") && !done.stderr.contains("hunter2"), "{}", done.stdout);
        assert!(!words.contains("state") || done.stdout.contains("***"), "{}", done.stdout);
    }
}
