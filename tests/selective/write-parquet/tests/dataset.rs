//! What is written is read back with another reader.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_sinks::primitives::{Budget, ByteCount};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use futures::stream;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;
use write_parquet::write;

const MEMORY: ByteCount = ByteCount::mb(16);

/// Rows with a number, and a key that is its last digit.
fn rows(first: i64, n_rows: i64) -> RecordBatch {
    let ids = first..first + n_rows;
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone()))),
        ("key", Arc::new(StringArray::from_iter_values(ids.clone().map(|id| format!("k{}", id % 10))))),
        (
            "text",
            Arc::new(StringArray::from_iter_values(
                ids.map(|id| format!("{:x}", id * 0x9E37_79B9).repeat(5)),
            )),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn ids(file: &Path) -> Vec<i64> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap().build().unwrap();
    reader.flat_map(|batch| batch.unwrap()["id"].as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn each_row_is_once_in_the_folder_of_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = folder.path().join("out");
    let memory = Budget::new("memory", MEMORY);
    let batches = stream::iter((0..100).map(|batch| rows(batch * 5000, 5000)));
    let options = json!({"partition_by": ["key"]});
    let parts = write(batches, rows(0, 1).schema(), options, &dataset, &memory).await.unwrap();

    let files = files_below(&dataset);
    assert_eq!(files.len(), parts.len());
    let mut read = Vec::new();
    for file in &files {
        let folder = file.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let of_file = ids(file);
        assert!(of_file.iter().all(|id| folder == format!("key=k{}", id % 10)), "{}", file.display());
        read.extend(of_file);
    }
    read.sort_unstable();
    assert!(read.into_iter().eq(0..500_000), "a row is missing or there twice");
    assert_eq!(parts.iter().map(|part| part.rows).sum::<u64>(), 500_000);
    assert_eq!(memory.free(), memory.total());
}

#[tokio::test]
async fn a_column_that_is_not_there_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Budget::new("memory", MEMORY);
    let options = json!({"partition_by": ["kee"]});
    let rows = rows(0, 5);
    let (schema, dataset) = (rows.schema(), folder.path().join("out"));
    let error = write(stream::iter([rows]), schema, options, &dataset, &memory).await.unwrap_err();
    assert!(error.to_string().contains("kee"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "not even a folder is left");
}

#[tokio::test]
async fn rows_that_do_not_fit_in_the_middle_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Budget::new("memory", MEMORY);
    // The last batch alone is more than the memory.
    let batches = stream::iter([rows(0, 5000), rows(5000, 500_000)]);
    let (schema, dataset) = (rows(0, 1).schema(), folder.path().join("out"));
    let error = write(batches, schema, json!({}), &dataset, &memory).await.unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "not even a folder is left");
    assert_eq!(memory.free(), memory.total());
}

#[tokio::test]
async fn a_folder_that_is_there_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (memory, dataset) = (Budget::new("memory", MEMORY), folder.path().join("out"));
    std::fs::create_dir(&dataset).unwrap();
    let rows = rows(0, 5);
    let schema = rows.schema();
    let error = write(stream::iter([rows]), schema, json!({}), &dataset, &memory).await.unwrap_err();
    assert!(error.to_string().contains("out"), "{error}");
    assert_eq!(files_below(folder.path()), Vec::<PathBuf>::new());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside it");
}
