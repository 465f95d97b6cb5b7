//! Outputs that are updated night after night: partitions replaced, rows merged by their keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::File;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;

use crate::job::Job;

/// A row of the tests: key, day, version, what was written.
type Row = (i64, String, i64, String);

const SOURCE: &str = "source: { files: { paths: [\"in/*.ndjson\"], \
                      schema: { id: int64, day: string, at: int64, note: string } } }";

fn flow(sink: &str) -> String {
    format!("name: nightly\nmemory: 64MB\n{SOURCE}\nsink: {{ parquet: {{ path: lake, {sink} }} }}\n")
}

/// The input of one night, in the place of the night before.
fn night(job: &Job, rows: &[Row]) {
    let text = rows.iter().fold(String::new(), |mut text, (id, day, at, note)| {
        writeln!(text, "{{\"id\":{id},\"day\":\"{day}\",\"at\":{at},\"note\":\"{note}\"}}").unwrap();
        text
    });
    job.write("in/new.ndjson", text);
}

fn row(id: i64, day: &str, at: i64, note: &str) -> Row {
    (id, day.into(), at, note.into())
}

/// All rows of the output, by file. The day stands in the folder's name.
fn by_file(job: &Job) -> BTreeMap<String, Vec<Row>> {
    let files = job.files("lake").into_iter().filter(|name| name.ends_with(".parquet"));
    files.map(|name| (name.clone(), rows_of(job, &name))).collect()
}

fn rows_of(job: &Job, name: &str) -> Vec<Row> {
    let reader = SerializedFileReader::new(File::open(job.path("lake").join(name)).unwrap()).unwrap();
    let day_in_name = name.split_once('/').map(|(folder, _)| folder.strip_prefix("day=").unwrap().to_owned());
    let mut rows = Vec::new();
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        let text = |at| row.get_string(at).unwrap().clone();
        let day = day_in_name.clone().unwrap_or_else(|| text(1));
        let after = if day_in_name.is_some() { 1 } else { 2 };
        rows.push((row.get_long(0).unwrap(), day, row.get_long(after).unwrap(), text(after + 1)));
    }
    rows
}

fn rows(job: &Job) -> BTreeSet<Row> {
    let all: Vec<_> = by_file(job).into_values().flatten().collect();
    let set: BTreeSet<_> = all.iter().cloned().collect();
    assert_eq!(set.len(), all.len(), "a row is there twice: {all:?}");
    set
}

#[test]
fn a_day_is_replaced_and_the_others_stay_as_they_are() {
    let job = Job::with_flow(&flow("partition_by: [day], mode: replace_partitions"));
    night(
        &job,
        &[row(1, "mon", 1, "a"), row(2, "tue", 1, "a"), row(3, "tue", 1, "a"), row(4, "wed", 1, "a")],
    );
    job.run("run flow.yaml").exits(0).says(&["mode replace_partitions", "the others stay"]);
    let first: BTreeSet<_> = by_file(&job).into_keys().collect();

    night(&job, &[row(2, "tue", 2, "b"), row(9, "thu", 2, "b")]);
    job.run("run flow.yaml --report report.json").exits(0);
    let second: BTreeSet<_> = by_file(&job).into_keys().collect();
    let stayed: Vec<_> = first.intersection(&second).map(|name| &name[..7]).collect();
    assert_eq!(stayed, ["day=mon", "day=wed"], "other days are the same files");
    let expected =
        [row(1, "mon", 1, "a"), row(2, "tue", 2, "b"), row(4, "wed", 1, "a"), row(9, "thu", 2, "b")];
    assert_eq!(rows(&job), expected.into());
    assert_eq!((&job.report()["mode"], &job.report()["rows_out"]), (&"replace_partitions".into(), &2.into()));
    job.run("verify lake").exits(0);

    // The same day again is the same output.
    job.run("run flow.yaml").exits(0);
    assert_eq!(rows(&job).len(), 4);
    // A night without rows changes nothing.
    night(&job, &[]);
    let before = by_file(&job);
    job.run("run flow.yaml").exits(0);
    assert_eq!(by_file(&job), before);
    job.run("verify lake").exits(0);
}

#[test]
fn rows_with_known_keys_take_each_others_place_and_only_their_partitions_are_written() {
    let job = Job::with_flow(&flow("partition_by: [day], mode: merge, keys: [id], by: [at]"));
    job.run("check flow.yaml").exits(0);
    night(
        &job,
        &[row(1, "mon", 1, "a"), row(2, "tue", 1, "a"), row(3, "wed", 1, "a"), row(4, "wed", 5, "a")],
    );
    job.run("run flow.yaml").exits(0).says(&["mode merge"]);
    let first = by_file(&job);

    // Key 2 moves to another day and leaves its own empty; key 4 comes older than it is; key 5 comes twice.
    night(
        &job,
        &[row(2, "mon", 2, "b"), row(4, "wed", 4, "old"), row(5, "thu", 1, "x"), row(5, "thu", 2, "y")],
    );
    job.run("run flow.yaml --report report.json").exits(0);
    let expected = [
        row(1, "mon", 1, "a"),
        row(2, "mon", 2, "b"),
        row(3, "wed", 1, "a"),
        row(4, "wed", 5, "a"),
        row(5, "thu", 2, "y"),
    ];
    assert_eq!(rows(&job), expected.into());
    assert!(by_file(&job).keys().all(|name| !name.starts_with("day=tue")), "a day without rows has no files");
    assert_eq!(job.report()["rows_duplicate"], 2, "what came and did not stay: {:?}", job.report());
    job.run("verify lake").exits(0);

    night(&job, &[row(6, "fri", 1, "z")]);
    let before = by_file(&job);
    job.run("run flow.yaml").exits(0);
    let after = by_file(&job);
    assert!(before.iter().all(|(name, rows)| after.get(name) == Some(rows)), "no other day was written");
    assert_eq!(after.len(), before.len() + 1);
    assert_ne!(first, after);
}

#[test]
fn without_a_column_that_says_so_the_row_that_came_last_is_the_newest() {
    for sink in ["mode: merge, keys: [id]", "mode: merge, keys: [id, day], partition_by: [day]"] {
        let job = Job::with_flow(&flow(sink));
        night(&job, &[row(1, "mon", 9, "a"), row(2, "mon", 9, "a")]);
        job.run("run flow.yaml").exits(0);
        night(&job, &[row(1, "mon", 1, "b"), row(1, "mon", 0, "c"), row(3, "tue", 0, "c")]);
        job.run("run flow.yaml").exits(0);
        let expected = [row(1, "mon", 0, "c"), row(2, "mon", 9, "a"), row(3, "tue", 0, "c")];
        assert_eq!(rows(&job), expected.into(), "{sink}");
        job.run("run flow.yaml --full-refresh").exits(0);
        assert_eq!(rows(&job), [row(1, "mon", 0, "c"), row(3, "tue", 0, "c")].into(), "{sink}");
    }
}

#[test]
fn one_file_is_merged_whole() {
    let text = flow("mode: merge, keys: [id], by: [at]").replace("path: lake,", "path: lake/all.parquet,");
    let job = Job::with_flow(&text);
    night(&job, &[row(1, "mon", 1, "a"), row(2, "tue", 1, "a")]);
    job.run("run flow.yaml").exits(0);
    night(&job, &[row(2, "wed", 2, "b")]);
    job.run("run flow.yaml").exits(0);
    assert_eq!(rows(&job), [row(1, "mon", 1, "a"), row(2, "wed", 2, "b")].into());
    night(&job, &[]);
    job.run("run flow.yaml").exits(0);
    assert_eq!(rows(&job).len(), 2, "a night without rows changes nothing");
}

#[test]
fn merges_of_more_than_memory_holds_agree_with_a_map() {
    let job =
        Job::with_flow(&flow("partition_by: [day], mode: merge, keys: [id], by: [at], file_bytes: 2MB"));
    let mut expected: BTreeMap<i64, Row> = BTreeMap::new();
    let mut seed = 7_u64;
    for at in 0..3_i64 {
        let mut lines = Vec::new();
        for _ in 0..60_000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let id = i64::try_from(seed >> 33).unwrap() % 90_000;
            let row = row(id, &format!("d{}", (seed >> 20) % 5), at, &format!("{:0>600}", seed >> 24));
            lines.push(row.clone());
            expected.insert(id, row);
        }
        night(&job, &lines);
        job.run("run flow.yaml --report report.json").exits(0);
        assert!(job.report()["spilled_bytes"].as_u64() > Some(30_000_000), "it was more than memory holds");
    }
    assert_eq!(rows(&job), expected.into_values().collect());
    job.run("verify lake").exits(0);
}

#[test]
fn modes_that_cannot_be_are_told_at_their_place() {
    let refused = |sink: &str, words: &[&str]| {
        let job = Job::with_flow(&format!("name: x\n{SOURCE}\nsink: {{ {sink} }}\n"));
        job.write("in/new.ndjson", "");
        job.run("check flow.yaml").exits(2).says_in_a_line(words);
    };
    refused("parquet: { path: lake, mode: replace_partitions }", &["flow.yaml:3:", "partition_by"]);
    refused("parquet: { path: lake, mode: merge }", &["flow.yaml:3:", "keys"]);
    refused("parquet: { path: lake, keys: [id] }", &["sink.parquet.keys", "mode: merge"]);
    refused("ndjson: { path: lake, mode: merge }", &["sink.ndjson.mode", "parquet"]);
    refused("parquet: { path: lake, mode: merge, keys: [idd] }", &["sink.parquet.keys", "`id`"]);
}

#[test]
fn rows_that_are_there_with_other_columns_are_not_merged_with() {
    let job = Job::with_flow(&flow("mode: merge, keys: [id]"));
    night(&job, &[row(1, "mon", 1, "a")]);
    job.run("run flow.yaml").exits(0);
    let narrow = job.read("flow.yaml").replace(", note: string", "").replace("nightly", "narrow");
    job.write("narrow.yaml", narrow);
    job.write("in/new.ndjson", "{\"id\":1,\"day\":\"mon\",\"at\":2}\n");
    job.run("run narrow.yaml").exits(1).says(&["note", "part-"]);
    assert_eq!(rows(&job), [row(1, "mon", 1, "a")].into(), "what was there is still there");
}

/// An output that is added to: columns as they are, a new one, one less, and one of another type.
#[test]
fn columns_that_come_are_added_and_types_that_change_are_refused_before_a_byte_is_written() {
    let flow = |schema: &str, more: &str| {
        format!(
            "name: log\nsource: {{ files: {{ paths: [\"in.ndjson\"], schema: {{ {schema} }} }} }}\n\
             sink: {{ parquet: {{ path: lake, mode: append{more} }} }}\n"
        )
    };
    let job = Job::with_flow(&flow("id: int64", ""));
    job.write("in.ndjson", "{\"id\":1}\n");
    job.run("run flow.yaml").exits(0);
    job.write("flow.yaml", flow("id: int64, note: string", ""));
    job.write("in.ndjson", "{\"id\":2,\"note\":\"x\"}\n");
    job.run("run flow.yaml").exits(0);
    // What is there has the note now, though not every row of it.
    job.write("flow.yaml", flow("id: int64", ""));
    job.write("in.ndjson", "{\"id\":3}\n");
    job.run("run flow.yaml").exits(0);

    let before = job.files("lake");
    let refused = |schema: &str, more: &str, words: &[&str]| {
        job.write("flow.yaml", flow(schema, more));
        job.write("in.ndjson", "{\"id\":\"4\",\"note\":1,\"more\":true}\n");
        job.run("run flow.yaml").exits(2).says_in_a_line(words);
        assert_eq!(job.files("lake"), before);
    };
    refused("id: string", "", &["flow.yaml:3:", "`id`", "Utf8", "Int64"]);
    refused("id: int64, note: int64", "", &["`note`", "Int64", "Utf8"]);
    refused("id: string, more: bool", ", evolve: freeze", &["`more`", "evolve"]);
    job.run("verify lake").exits(0);

    let text = flow("id: int64", "").replace("parquet:", "arrow:");
    job.write("flow.yaml", text);
    job.write("in.ndjson", "{\"id\":4}\n");
    job.run("run flow.yaml").exits(2).says(&["parquet", "arrow"]);
    assert_eq!(job.files("lake"), before);
}

#[test]
fn another_day_that_was_given_replaces_nothing_unless_that_was_chosen() {
    let flow = "name: daily\nsource: { files: { paths: [\"in/${day}.ndjson\"] } }\nsink: { ndjson: { path: out } }\n";
    let job = Job::with_flow(flow);
    job.write("in/mon.ndjson", "{\"n\":1}\n");
    job.write("in/tue.ndjson", "{\"n\":2}\n");
    let numbers = || {
        let files = job.files("out").into_iter().filter(|name| name.ends_with(".ndjson"));
        files.flat_map(|name| job.numbers(&format!("out/{name}")).unwrap()).collect::<Vec<_>>()
    };
    job.run("run flow.yaml --set day=mon").exits(0);
    job.run("run flow.yaml --set day=mon").exits(0);
    job.run("run flow.yaml --set day=tue").exits(1).says(&[
        "day=mon",
        "day=tue",
        "mode: append",
        "replace_partitions",
        "--full-refresh",
        "out",
    ]);
    assert_eq!(numbers(), [1]);
    job.run("run flow.yaml --set day=tue --full-refresh").exits(0);
    assert_eq!(numbers(), [2]);
    job.run("run flow.yaml --set day=mon").exits(1);
    job.write("flow.yaml", flow.replace("path: out", "path: out, mode: replace"));
    job.run("run flow.yaml --set day=mon").exits(0);
    assert_eq!(numbers(), [1]);
    job.write("flow.yaml", flow.replace("path: out", "path: \"by/${day}\""));
    job.run("run flow.yaml --set day=mon").exits(0);
    job.run("run flow.yaml --set day=tue").exits(0);
    assert_eq!(job.files("by").iter().filter(|name| name.ends_with(".ndjson")).count(), 2);
}

#[test]
fn rows_that_were_rejected_are_merged_when_they_are_replayed() {
    let flow = |cast: &str| {
        format!(
            "name: nightly\nexecution: {{ on_error: dead_letter, max_rejected: 100 }}\n\
             source: {{ files: {{ paths: [\"in/*.ndjson\"], schema: {{ id: int64, day: string, raw: string, note: string }} }} }}\n\
             stages: [{{ with: {{ at: \"{cast}(raw AS BIGINT)\" }} }}, {{ select: [id, day, at, note] }}]\n\
             sink: {{ parquet: {{ path: lake, partition_by: [day], mode: merge, keys: [id] }} }}\n"
        )
    };
    let job = Job::with_flow(&flow("CAST"));
    let line = |id: u64, raw: &str, note: &str| {
        format!("{{\"id\":{id},\"day\":\"mon\",\"raw\":\"{raw}\",\"note\":\"{note}\"}}\n")
    };
    job.write("in/new.ndjson", line(1, "1", "a") + &line(2, "2", "a"));
    job.run("run flow.yaml").exits(0);
    job.write("in/new.ndjson", line(1, "7 o'clock", "b") + &line(3, "3", "b"));
    job.run("run flow.yaml").exits(0);
    assert_eq!(rows(&job), [row(1, "mon", 1, "a"), row(2, "mon", 2, "a"), row(3, "mon", 3, "b")].into());
    job.write("flow.yaml", flow("7 * TRY_CAST").replace("(raw AS BIGINT)", "(left(raw, 1) AS BIGINT)"));
    job.run("replay rejected flow.yaml").exits(0);
    assert_eq!(rows(&job), [row(1, "mon", 49, "b"), row(2, "mon", 2, "a"), row(3, "mon", 3, "b")].into());
    job.run("replay rejected flow.yaml").exits(0);
    assert_eq!(rows(&job).len(), 3);
}
