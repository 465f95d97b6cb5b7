//! `files`: bytes as they were, a file complete only when its source says so.

use std::sync::Arc;

use aqueduct_core::{Batch, ErrorKind, Positions};
use aqueduct_primitives::ByteCount;
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt64Array};
use serde_json::json;

use crate::support::{Place, checked, configure, free, rows};

fn piece(file: &str, offset: u64, bytes: &[u8]) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("_file", Arc::new(StringArray::from(vec![file])) as ArrayRef),
        ("_offset", Arc::new(UInt64Array::from(vec![offset]))),
        ("bytes", Arc::new(BinaryArray::from(vec![bytes]))),
    ])
    .unwrap()
}

fn done(file: &str) -> Batch {
    Batch::only_positions(piece("", 0, b"").schema(), Positions::done(file))
}

#[tokio::test]
async fn interleaved_files_come_out_unchanged() {
    let place = Place::new(ByteCount::mib(8));
    let (a, b) = ("https://x.org/a.zip?sig=1", "https://x.org/d/b.zip");
    let mut sink = place.open("files", json!({ "path": "out" }), &piece("", 0, b"")).await.unwrap();
    for batch in
        [free(piece(a, 0, b"first ")), free(piece(b, 0, b"")), free(piece(a, 6, b"second")), done(b), done(a)]
    {
        sink.write(batch).await.unwrap();
    }
    let mut parts = sink.seal().await.unwrap();
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    let found: Vec<_> = parts.iter().map(|part| (part.name.as_str(), checked(part))).collect();
    assert_eq!(found, [("a.zip", b"first second".to_vec()), ("b.zip", Vec::new())]);
    assert_eq!(place.cx.metrics().bytes.get(), 12);
}

#[tokio::test]
async fn a_file_that_did_not_end_is_left_out() {
    let place = Place::new(ByteCount::mib(8));
    let mut sink = place.open("files", json!({ "path": "out" }), &piece("", 0, b"")).await.unwrap();
    sink.write(free(piece("half.zip", 0, b"half"))).await.unwrap();
    sink.write(free(piece("whole.zip", 0, b"whole"))).await.unwrap();
    sink.write(done("whole.zip")).await.unwrap();
    let parts = sink.seal().await.unwrap();
    assert_eq!(parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), ["whole.zip"]);
}

#[tokio::test]
async fn two_files_of_one_name_are_an_error_that_names_both() {
    let place = Place::new(ByteCount::mib(8));
    let mut sink = place.open("files", json!({ "path": "out" }), &piece("", 0, b"")).await.unwrap();
    sink.write(free(piece("https://x.org/1/a.zip", 0, b"1"))).await.unwrap();
    let error = sink.write(free(piece("https://x.org/2/a.zip", 0, b"2"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("/1/a.zip") && error.to_string().contains("/2/a.zip"), "{error}");
}

#[tokio::test]
async fn a_template_tells_them_apart() {
    let place = Place::new(ByteCount::mib(8));
    let options = json!({ "path": "out", "name": "copies/{_file}.bin" });
    let mut sink = place.open("files", options, &piece("", 0, b"")).await.unwrap();
    for file in ["https://x.org/1/a.zip", "../../etc/passwd"] {
        sink.write(free(piece(file, 0, b"1")).with_positions(Positions::done(file))).await.unwrap();
    }
    let parts = sink.seal().await.unwrap();
    assert_eq!(parts[0].name, "copies/https%3A%2F%2Fx.org%2F1%2Fa.zip.bin");
    assert_eq!(parts[1].name, "copies/%2E.%2F..%2Fetc%2Fpasswd.bin");
}

#[tokio::test]
async fn a_file_with_a_hole_is_an_error() {
    let place = Place::new(ByteCount::mib(8));
    let mut sink = place.open("files", json!({ "path": "out" }), &piece("", 0, b"")).await.unwrap();
    sink.write(free(piece("a.zip", 0, b"1234"))).await.unwrap();
    let error = sink.write(free(piece("a.zip", 5, b"6"))).await.unwrap_err();
    assert_eq!((error.context("expected_offset"), error.context("found_offset")), (Some("4"), Some("5")));
}

#[test]
fn it_takes_pieces_of_files_only() {
    let config = configure("files", json!({ "path": "out", "name": "{nmae}" })).unwrap();
    let problems = config.fit(&rows(0, 1, 1).schema());
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(configure("files", json!({ "path": "out", "name": "same" })).is_err());
}
