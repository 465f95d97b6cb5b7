//! Far more rows than memory, all of them, and all memory back.

use std::fmt::Write;
use std::path::Path;

use aqueduct_sources::primitives::{Budget, ByteCount};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use files_as_stream::{Rows, read};
use futures::StreamExt;
use serde_json::json;

const MEMORY: ByteCount = ByteCount::mb(16);
const N_FILES: i64 = 8;
const ROWS_PER_FILE: i64 = 50_000;

/// Files of about 5 MB each, whose `id`s go on from one to the next.
fn write_files(folder: &Path) {
    for file in 0..N_FILES {
        let mut text = String::new();
        for id in file * ROWS_PER_FILE..(file + 1) * ROWS_PER_FILE {
            writeln!(text, "{{\"id\":{id},\"text\":\"{}\"}}", "x".repeat(80)).unwrap();
        }
        std::fs::write(folder.join(format!("{file}.ndjson")), text).unwrap();
    }
}

async fn open(folder: &Path, memory: &Budget) -> Rows {
    let options = json!({"paths": ["*.ndjson"], "order": "listed", "window": 3});
    read(options, folder.to_path_buf(), memory).await.unwrap()
}

async fn check_all_is_back(cx: aqueduct_sources::core::Context) {
    cx.tasks().join().await;
    assert_eq!((cx.flow().free(), cx.share().free()), (cx.flow().total(), cx.share().total()));
}

#[tokio::test]
async fn every_row_comes_once_and_in_order_through_less_memory_than_there_is_data() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    let memory = Budget::new("memory", MEMORY);
    let mut rows = open(folder.path(), &memory).await;
    let mut next_id = 0;
    while let Some(batch) = rows.batches.next().await {
        let batch = batch.unwrap();
        for id in batch.records().column(0).as_primitive::<Int64Type>().values() {
            assert_eq!(*id, next_id);
            next_id += 1;
        }
    }
    assert_eq!(next_id, N_FILES * ROWS_PER_FILE);
    assert!(rows.cx.flow().peak() > ByteCount::ZERO);
    check_all_is_back(rows.cx).await;
}

#[tokio::test]
async fn an_early_stop_gives_everything_back() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    let memory = Budget::new("memory", MEMORY);
    let mut rows = open(folder.path(), &memory).await;
    assert!(rows.batches.next().await.unwrap().unwrap().num_rows() > 0);
    drop(rows.batches);
    check_all_is_back(rows.cx).await;
}

#[tokio::test]
async fn a_wrong_option_and_a_missing_file_are_named() {
    let memory = Budget::new("memory", MEMORY);
    let wrong = read(json!({"paths": ["a"], "windw": 3}), ".".into(), &memory).await.err().unwrap();
    assert!(wrong.to_string().contains("windw"), "{wrong}");
    let missing = read(json!({"paths": ["gone.csv"]}), ".".into(), &memory).await.err().unwrap();
    assert!(missing.chain().contains("gone.csv"), "{}", missing.chain());
}
