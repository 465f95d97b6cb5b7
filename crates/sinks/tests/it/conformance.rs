//! What every sink promises, tried on each. A new sink gets a row in the table [`fixtures`].

use std::sync::Arc;

use aqueduct_core::Positions;
use aqueduct_testkit::sink_suite::{Fixture, Reading};
use aqueduct_testkit::suite::texts;
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt64Array};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

aqueduct_testkit::sink_suite!(aqueduct_sinks::ALL, fixtures);

/// One row a fixture; a sink may have several.
fn fixtures() -> Vec<Fixture> {
    let folder = || json!({"path": "out"});
    let file = |name: &str| json!({"path": name});
    let by_key = || json!({"path": "out", "partition_by": ["key"]});
    vec![
        table("parquet", "a folder", folder(), parquet_rows),
        table("parquet", "one file", file("all.parquet"), parquet_rows),
        table("parquet", "more values than open files", by_key(), |name, bytes| {
            with_key(name, parquet_rows(name, bytes))
        }),
        items("a folder", folder()),
        items("one file", file("all.geoparquet")),
        items(
            "a folder for each collection",
            json!({"path": "out", "partition_by": ["collection"], "partition_columns": true}),
        ),
        table("ndjson", "a folder, small files", json!({"path": "out", "file_bytes": "20KB"}), ndjson_rows),
        table("ndjson", "one file", file("all.ndjson"), ndjson_rows),
        table("csv", "a folder", folder(), csv_rows),
        table("csv", "one file", file("all.csv"), csv_rows),
        table("json", "a folder", folder(), json_rows),
        table("json", "one file", file("all.json"), json_rows),
        table("arrow", "a folder", folder(), arrow_rows),
        table("arrow", "one file", file("all.arrow"), arrow_rows),
        whole_files(),
        without_parts("stdout"),
        without_parts("discard"),
        without_parts("sse"),
    ]
}

fn table(
    component: &'static str,
    variant: &'static str,
    options: Value,
    read: fn(&str, &[u8]) -> Vec<String>,
) -> Fixture {
    let batches = (0..4).map(|n| (crate::support::rows(n * 300, 300, 40), Positions::default()));
    Fixture { component, variant, options, batches: batches.collect(), reading: Reading::Rows(read) }
}

/// Rows that are STAC items.
fn items(variant: &'static str, options: Value) -> Fixture {
    let batches = (0..4).map(|n| (crate::support::items(n * 300, 300, 5), Positions::default()));
    let reading = Reading::Rows(parquet_rows);
    Fixture { component: "stac_geoparquet", variant, options, batches: batches.collect(), reading }
}

/// Few rows: `stdout` prints them among the words of the test.
pub(crate) fn without_parts(component: &'static str) -> Fixture {
    let batches = (0..2).map(|n| (crate::support::rows(n, 1, 1), Positions::default()));
    let reading = Reading::NoParts;
    Fixture { component, variant: "", options: json!({}), batches: batches.collect(), reading }
}

fn parquet_rows(_: &str, bytes: &[u8]) -> Vec<String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).unwrap();
    reader.build().unwrap().flat_map(|batch| texts(&batch.unwrap())).collect()
}

/// Rows `id, text` and the key that is in the name of their folder.
fn with_key(name: &str, rows: Vec<String>) -> Vec<String> {
    let key = name.strip_prefix("key=").and_then(|name| name.split_once('/')).unwrap().0;
    rows.iter().map(|row| row.replacen('\t', &format!("\t{key}\t"), 1)).collect()
}

fn arrow_rows(_: &str, bytes: &[u8]) -> Vec<String> {
    let reader = arrow_ipc::reader::FileReader::try_new(std::io::Cursor::new(bytes), None).unwrap();
    reader.flat_map(|batch| texts(&batch.unwrap())).collect()
}

fn ndjson_rows(_: &str, bytes: &[u8]) -> Vec<String> {
    let lines = std::str::from_utf8(bytes).unwrap().lines();
    lines.map(|line| object_row(&serde_json::from_str(line).unwrap())).collect()
}

fn json_rows(_: &str, bytes: &[u8]) -> Vec<String> {
    let rows: Vec<Value> = serde_json::from_slice(bytes).unwrap();
    rows.iter().map(object_row).collect()
}

fn object_row(row: &Value) -> String {
    format!("{}\t{}\t{}", row["id"], row["key"].as_str().unwrap(), row["text"].as_str().unwrap())
}

fn csv_rows(_: &str, bytes: &[u8]) -> Vec<String> {
    let mut lines = std::str::from_utf8(bytes).unwrap().lines();
    assert_eq!(lines.next(), Some("id,key,text"));
    lines.map(|line| line.replace(',', "\t")).collect()
}

/// Two files, each complete before a seal may come.
fn whole_files() -> Fixture {
    let piece = |file: &str, offset: u64, bytes: &str| {
        let columns: [(&str, ArrayRef); 3] = [
            ("_file", Arc::new(StringArray::from(vec![file]))),
            ("_offset", Arc::new(UInt64Array::from(vec![offset]))),
            ("bytes", Arc::new(BinaryArray::from(vec![bytes.as_bytes()]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let batches = vec![
        (piece("https://x.org/a.zip", 0, "first "), Positions::default()),
        (piece("https://x.org/a.zip", 6, "second"), Positions::done("https://x.org/a.zip")),
        (piece("https://x.org/b.zip", 0, "third "), Positions::default()),
        (piece("https://x.org/b.zip", 6, "fourth"), Positions::done("https://x.org/b.zip")),
    ];
    let reading = Reading::Whole(vec!["first second".into(), "third fourth".into()]);
    Fixture { component: "files", variant: "", options: json!({"path": "out"}), batches, reading }
}
