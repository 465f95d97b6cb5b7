//! Rejected items, run through their flow once more.

use rustix::process::Signal;
use serde_json::Value;

use crate::job::{Job, ndjson};

const FLOW: &str = r#"
name: rows
execution: { on_error: dead_letter }
source: { files: { paths: ["in.*"], schema: { n: int64, text: string } } }
sink: { ndjson: { path: out } }
"#;

/// The rows in the output, by `n`.
fn rows(job: &Job) -> Vec<Value> {
    let parts = job.files("out").into_iter().filter(|name| name.ends_with(".ndjson"));
    let mut rows: Vec<_> = parts.flat_map(|part| job.rows(&format!("out/{part}")).unwrap()).collect();
    rows.sort_by_key(|row| row["n"].as_i64());
    rows
}

fn numbers(job: &Job) -> Vec<i64> {
    rows(job).iter().map(|row| row["n"].as_i64().unwrap()).collect()
}

/// The letters in the folder of rejected items, by the file's name.
fn letters(job: &Job) -> Vec<String> {
    job.files("rejected").into_iter().filter(|name| name.ends_with(".ndjson")).collect()
}

/// Mends what stands in the only file of letters, and gives its name.
fn mend(job: &Job, bad: &str, good: &str) -> String {
    let [name] = letters(job).try_into().unwrap();
    let path = format!("rejected/{name}");
    let text = job.read(&path);
    assert!(text.contains(bad), "{text}");
    job.write(&path, text.replace(bad, good));
    path
}

#[test]
fn mended_records_are_added_once_and_what_is_still_bad_is_kept_aside_again() {
    let job = Job::with_flow(FLOW);
    job.write("in.ndjson", ndjson(0..3) + "{\"n\": \"ten\"}\n{\"n\": 11,\n");
    job.run("run flow.yaml").exits(0);
    assert_eq!(numbers(&job), [0, 1, 2]);
    let path = mend(&job, "\\\"ten\\\"", "10");
    job.run("replay rejected flow.yaml").exits(0).says(&["2 to replay, 0 replayed before", "mode append"]);
    assert_eq!(numbers(&job), [0, 1, 2, 10]);
    assert_eq!(letters(&job).len(), 2, "the other one is kept aside once more");
    job.run(&format!("replay {path} flow.yaml")).exits(0).says(&["0 to replay, 2 replayed before"]);
    assert_eq!(numbers(&job), [0, 1, 2, 10]);
    job.run("verify out").exits(0);
    let told = job.run("state flow.yaml").exits(0).stdout;
    assert!(told.contains("2 replayed letters"), "{told}");
    // Nothing of a replay is left but its outcome.
    job.run("clean flow.yaml").exits(0).says(&["removed 0 files and folders"]);
    // Nor does a reset of what steps keep let them come twice.
    job.run("state flow.yaml reset").exits(0);
    job.run(&format!("replay {path} flow.yaml")).exits(0).says(&["2 replayed before"]);
}

#[test]
fn fields_of_csv_go_by_the_header_that_their_letter_has() {
    let job = Job::with_flow(FLOW);
    job.write("in.csv", "text,n\na,1\nb,x\n\"c\nd\",y\n");
    job.write("in.2.csv", "n,text\n5,e\nz,f\n");
    job.run("run flow.yaml").exits(0);
    let [name] = letters(&job).try_into().unwrap();
    let path = format!("rejected/{name}");
    let text = job.read(&path).replace("b,x", "b,2").replace(",y", ",3").replace("z,f", "6,f");
    job.write(&path, text);
    job.run("replay rejected flow.yaml").exits(0).says(&["3 to replay"]);
    let told: Vec<_> = rows(&job)
        .iter()
        .map(|row| (row["n"].to_string(), row["text"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [("1", "a"), ("2", "b"), ("3", "c\nd"), ("5", "e"), ("6", "f")];
    assert_eq!(told, expected.map(|(n, text)| (n.to_owned(), text.to_owned())));
}

#[test]
fn a_row_that_a_stage_rejected_goes_to_that_stage_and_a_file_that_was_missing_is_read() {
    let job = Job::with_flow(
        r#"
name: both
execution: { on_error: dead_letter }
source: { files: { paths: ["in.ndjson", "late.ndjson"], schema: { n: string } } }
stages: [{ cast: { n: int64 } }]
sink: { ndjson: { path: out } }
"#,
    );
    job.write("in.ndjson", "{\"n\":\"1\"}\n{\"n\":\"two\"}\n");
    job.run("run flow.yaml").exits(0);
    assert_eq!(numbers(&job), [1]);
    mend(&job, "two", "2");
    job.write("late.ndjson", "{\"n\":\"3\"}\n");
    job.run("replay rejected flow.yaml").exits(0).says(&["2 to replay"]);
    assert_eq!(numbers(&job), [1, 2, 3]);
    job.run("replay rejected flow.yaml").exits(0).says(&["0 to replay, 2 replayed before"]);
    assert_eq!(numbers(&job), [1, 2, 3]);
}

#[test]
fn what_cannot_be_replayed_is_named_and_stays() {
    let job = Job::with_flow(FLOW);
    job.write("in.ndjson", ndjson(0..3) + "{\"n\": \"" + &"x".repeat(70_000) + "\"}\n");
    job.run("run flow.yaml").exits(0);
    let done = job.run("replay rejected flow.yaml").exits(1);
    done.says_in_a_line(&["stays: rejected/", ":1: ", "cut at 65536 bytes", "in.ndjson, row 4"]);
    let letter = |raw: &str, more: &str| {
        format!(
            "{{\"step\":\"source\",\"reason\":\"json\",\"raw\":\"{raw}\",\"origin\":{{\"file\":\"in.ndjson\"{more}}}}}\n"
        )
    };
    let lines = [
        "no letter\n".to_owned(),
        letter("", ",\"row\":7"),
        letter("", "").replace("in.ndjson", "https://***@host/a"),
        letter("{}", "").replace("in.ndjson", "a.parquet"),
        letter("{}", "").replace("source", "sauce"),
        letter("{\\\"n\\\":9}", ""),
    ];
    job.write("mine.ndjson", lines.concat());
    let done = job
        .run("replay mine.ndjson flow.yaml")
        .exits(0)
        .says(&["1 to replay, 0 replayed before, 5 that cannot be"]);
    for (n, told) in [
        (1, "no letter"),
        (2, "broke off before row 7"),
        (3, "without its secret"),
        (4, "does not tell which format"),
        (5, "no step `sauce`"),
    ] {
        assert!(
            done.stderr
                .lines()
                .any(|line| line.contains(&format!("mine.ndjson:{n}: ")) && line.contains(told)),
            "{told}"
        );
    }
    assert_eq!(numbers(&job), [0, 1, 2, 9]);
}

#[test]
fn a_record_never_says_that_it_stood_in_a_letter_and_a_row_of_a_stage_says_where_it_stood() {
    let job = Job::with_flow(&FLOW.replace("source: { files: {", "source: { files: { origin: true,"));
    job.write("in.ndjson", ndjson(0..3) + "x\n");
    job.run("run flow.yaml").exits(0);
    job.run("replay rejected flow.yaml").exits(2).says(&["`source` adds `_file` and `_row`"]);

    let job = Job::with_flow(
        &FLOW
            .replace("source: { files: {", "source: { files: { origin: true,")
            .replace("sink:", "stages: [{ cast: { text: int64 } }]\nsink:"),
    );
    job.write("in.ndjson", "{\"n\":1,\"text\":\"5\"}\n{\"n\":2,\"text\":\"six\"}\n");
    job.run("run flow.yaml").exits(0);
    mend(&job, "six", "6");
    job.run("replay rejected flow.yaml").exits(0);
    let mended = &rows(&job)[1];
    assert_eq!(
        (&mended["text"], &mended["_file"], &mended["_row"]),
        (&6.into(), &"in.ndjson".into(), &2.into())
    );
}

#[test]
fn a_flow_into_one_file_and_one_with_several_entries_are_refused_and_nothing_is_touched() {
    let job = Job::with_flow(&FLOW.replace("path: out", "path: out.ndjson"));
    job.write("in.ndjson", ndjson(0..3) + "x\n");
    job.run("run flow.yaml").exits(0);
    let before = job.files(".");
    job.run("replay rejected flow.yaml").exits(2).says(&["`sink` writes one file", "out.ndjson"]);
    let entries = FLOW
        .replace("name: rows", "name: rows\nmatrix: [{ part: a }, { part: b }]")
        .replace("path: out", "path: \"out/${part}\"");
    job.write("flow.yaml", entries);
    job.run("replay rejected flow.yaml").exits(2).says(&["--only KEY=VALUE"]);
    job.run("replay nothing flow.yaml --only part=a").exits(2).says(&["cannot read letters in nothing"]);
    assert_eq!(job.files("."), before);
}

#[test]
fn a_key_that_was_seen_is_not_replayed_into_the_output_and_one_that_was_not_is_remembered() {
    let job = Job::with_flow(&FLOW.replace("sink:", "stages: [{ unseen: { keys: [n] } }]\nsink:"));
    job.write("in.ndjson", ndjson(0..3) + "{\"n\": \"2\"\n{\"n\": \"4\"\n");
    job.run("run flow.yaml").exits(0);
    let [name] = letters(&job).try_into().unwrap();
    let path = format!("rejected/{name}");
    let text = job.read(&path).replace("\\\"2\\\"", "2}").replace("\\\"4\\\"", "4}");
    job.write(&path, text);
    job.run("replay rejected flow.yaml").exits(0);
    assert_eq!(numbers(&job), [0, 1, 2, 4]);
    job.write("in.ndjson", ndjson(3..6));
    job.run("run flow.yaml").exits(0);
    assert_eq!(numbers(&job), [0, 1, 2, 3, 4, 5]);
}

/// Killed while a file that failed is fetched again, and stopped; then left alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_or_stopped_was_not_and_is_made_again() {
    let stalled = crate::stalled::Stalled::after_a_run().await;
    let job = &stalled.job;
    // As if the second file had failed, and a row of the first.
    let url = stalled.server.url("/1.ndjson");
    let file =
        format!("{{\"step\":\"source\",\"reason\":\"io\",\"raw\":\"\",\"origin\":{{\"file\":\"{url}\"}}}}\n");
    let row = "{\"step\":\"source\",\"reason\":\"type\",\"raw\":\"{\\\"n\\\":99}\",\"origin\":{\"file\":\"0.ndjson\",\"row\":3}}\n";
    job.write("letters.ndjson", file + row);
    for signal in [Signal::KILL, Signal::TERM] {
        let run = stalled.start("replay letters.ndjson flow.yaml").await;
        run.signal(signal);
        let done = run.wait();
        if signal == Signal::TERM {
            done.exits(130).says(&["the outputs are as they were"]);
        }
        stalled.server.until_connections(0).await;
        assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
    }
    stalled.open();
    job.run("replay letters.ndjson flow.yaml").exits(0).says(&["2 to replay"]);
    let expected: Vec<_> = (0..10).chain((10..20).flat_map(|n| [n, n])).chain([99]).collect();
    assert_eq!(stalled.numbers(), expected);
    job.run("replay letters.ndjson flow.yaml").exits(0).says(&["0 to replay, 2 replayed before"]);
    assert_eq!(stalled.numbers(), expected);
    job.run("verify out").exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_is_running_or_not_finished_is_not_replayed() {
    let stalled = crate::stalled::Stalled::after_a_run().await;
    stalled.job.write(
        "letters.ndjson",
        "{\"step\":\"source\",\"reason\":\"io\",\"raw\":\"{}\",\"origin\":{\"file\":\"a.ndjson\"}}\n",
    );
    let run = stalled.start("run flow.yaml").await;
    stalled.job.run("replay letters.ndjson flow.yaml").exits(4).says(&["running already"]);
    run.signal(Signal::TERM);
    run.wait().exits(130);
    stalled.job.run("replay letters.ndjson flow.yaml").exits(2).says(&["is not finished", "--fresh"]);
}
