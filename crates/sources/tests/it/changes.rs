//! Files that change while they are read: an error that names both versions, or one that asks to begin again.

use std::sync::Arc;

use aqueduct_core::{Error, ReadAgain, Result};
use aqueduct_sources::files::FACTORY;
use aqueduct_testkit::http::{Answer, Server};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::{Room, ndjson};

const BEFORE: &str = "\"tag-before\"";
const AFTER: &str = "\"tag-after\"";

/// Of the first version the first answer is cut off in its middle; from then on the second is there.
fn changing(server: &Server, path: &str, before: impl Into<Bytes>, after: impl Into<Bytes>) -> String {
    let (before, after) = (before.into(), after.into());
    server.route(path, move |request| match request.nth {
        1 => Answer::file(request, &before, BEFORE).cut_after(before.len() / 2),
        _ => Answer::file(request, &after, AFTER),
    })
}

fn reading(paths: impl Into<Value>, on_change: &str) -> Value {
    json!({"paths": [paths.into()], "schema": {"n": "int64"}, "on_change": on_change})
}

/// The error that reading ends with, in whatever phase.
async fn fails(room: &Room, options: Value) -> Error {
    reads(room, options).await.unwrap_err()
}

async fn reads(room: &Room, options: Value) -> Result<usize> {
    let mut batches = room.stream(&FACTORY, options).await?;
    let mut n_rows = 0;
    while let Some(batch) = batches.next().await {
        n_rows += batch?.num_rows();
    }
    Ok(n_rows)
}

/// It asks to begin again, for this file and these versions.
#[track_caller]
fn asks_again(error: &Error, file: &str, was: &str, is: &str) {
    let again = error.cause::<ReadAgain>().unwrap_or_else(|| panic!("{error:?}"));
    assert!(again.file.ends_with(file), "{again:?}");
    assert!(again.change.was.contains(was) && again.change.is.contains(is), "{again:?}");
    let told = error.chain();
    assert!([file, was, is].iter().all(|part| told.contains(part)), "{told}");
}

fn parquet(numbers: std::ops::Range<i64>) -> Vec<u8> {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

// reliability 5
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_is_an_error_of_its_own_unless_it_is_to_be_read_again() {
    for (on_change, is_again) in [("fail", false), ("reread", true)] {
        let (room, server) = (Room::new(), Server::start().await);
        let url = changing(&server, "/a.ndjson", ndjson(0..5000), ndjson(0..6000));
        let error = fails(&room, reading(url, on_change)).await;
        let told = error.chain();
        assert!(["/a.ndjson", BEFORE, AFTER].iter().all(|part| told.contains(part)), "{told}");
        match is_again {
            true => asks_again(&error, "/a.ndjson", BEFORE, AFTER),
            false => assert!(error.cause::<ReadAgain>().is_none(), "{told}"),
        }
        room.check_all_is_back().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn to_read_it_again_is_no_matter_of_the_policy_for_bad_files() {
    for (on_change, n_rejected) in [("fail", 1), ("reread", 0)] {
        let ((room, kept), server) = (Room::tolerant(), Server::start().await);
        let url = changing(&server, "/a.ndjson", ndjson(0..5000), ndjson(0..6000));
        let read = reads(&room, reading(url, on_change)).await;
        assert_eq!((read.is_err(), kept.all().len()), (n_rejected == 0, n_rejected), "{on_change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_its_columns_are_looked_for_is_read_again() {
    let (room, server) = (Room::new(), Server::start().await);
    let url = changing(&server, "/a.ndjson", ndjson(0..500), ndjson(0..600));
    let error = fails(&room, json!({"paths": [url], "on_change": "reread"})).await;
    asks_again(&error, "/a.ndjson", BEFORE, AFTER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_read_by_range_is_read_again() {
    let (room, server) = (Room::new(), Server::start().await);
    let (before, after) = (Bytes::from(parquet(0..5000)), Bytes::from(parquet(1..5001)));
    let url = server.route("/a.parquet", move |request| match request.nth {
        1 => Answer::file(request, &before, BEFORE),
        _ => Answer::file(request, &after, AFTER),
    });
    let error = fails(&room, reading(url, "reread")).await;
    asks_again(&error, "/a.parquet", BEFORE, AFTER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_file_that_is_written_to_is_read_again() {
    let room = Room::new();
    // More than the reader can hold ahead of whoever takes its rows.
    let text = ndjson(0..4_000_000);
    room.write("a.ndjson", &text);
    let mut batches = room.stream(&FACTORY, reading("a.ndjson", "reread")).await.unwrap();
    drop(batches.next().await.unwrap().unwrap());
    let file = std::fs::File::options().write(true).open(room.path().join("a.ndjson")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let error = loop {
        if let Err(error) = batches.next().await.unwrap() {
            break error;
        }
    };
    asks_again(&error, "a.ndjson", &format!("{} bytes", text.len()), "1970-01-01");
}

/// Rows of it may be committed by the time it is read again, and then nothing says of which version they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_versions_have_no_names_is_not_read_again() {
    let (room, server) = (Room::new(), Server::start().await);
    let url = server.route("/a.ndjson", |request| match request.nth {
        1 => Answer::ok(ndjson(0..5000)).cut_after(20_000),
        _ => Answer::ok(ndjson(0..6000)),
    });
    let error = fails(&room, reading(url, "reread")).await;
    assert!(error.cause::<ReadAgain>().is_none(), "{error:?}");
    assert!(error.chain().contains("changed while it was read"), "{error:?}");
}
