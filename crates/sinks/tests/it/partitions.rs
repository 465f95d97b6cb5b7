//! Partitions: each row once, in the folder of its value, few files whatever the order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aqueduct_core::{ErrorKind, Part, Scratch};
use aqueduct_primitives::ByteCount;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::json;

use crate::support::{Place, configure, files_below, ids, parquet, rows};

/// The ids in each folder.
fn by_folder(parts: &[Part]) -> BTreeMap<String, Vec<i64>> {
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for part in parts {
        let (folder, _) = part.name.rsplit_once('/').unwrap();
        found.entry(folder.to_owned()).or_default().extend(ids(&parquet(part)));
    }
    found
}

fn expected(n_rows: i64, n_keys: i64) -> BTreeMap<String, Vec<i64>> {
    let mut expected: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for id in 0..n_rows {
        expected.entry(format!("key=k{}", (id * 7919) % n_keys)).or_default().push(id);
    }
    expected
}

#[tokio::test]
async fn each_row_is_in_the_folder_of_its_value() {
    let place = Place::new(ByteCount::mib(32));
    let batches: Vec<_> = (0..10).map(|n| rows(n * 1000, 1000, 7)).collect();
    let parts =
        place.write("parquet", json!({ "path": "out", "partition_by": ["key"] }), &batches).await.unwrap();
    assert_eq!(parts.len(), 7);
    assert_eq!(by_folder(&parts), expected(10_000, 7));
    let columns = parquet(&parts[0]).schema();
    assert_eq!(
        columns.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(),
        ["id", "text"]
    );

    let place = Place::new(ByteCount::mib(32));
    let options = json!({ "path": "out", "partition_by": ["key"], "partition_columns": true });
    let parts = place.write("parquet", options, &batches).await.unwrap();
    assert_eq!(parquet(&parts[0]).num_columns(), 3);
}

// S0.4: 3000 shuffled values through a memory of 2 MiB: one file a value, nothing beyond the share
#[tokio::test]
async fn many_values_make_one_file_each_in_little_memory() {
    let place = Place::new(ByteCount::mib(4));
    let batches: Vec<_> = (0..30).map(|n| rows(n * 1000, 1000, 3001)).collect();
    let options = json!({ "path": "out", "partition_by": ["key"], "max_partitions": 5000 });
    let parts = place.write("parquet", options, &batches).await.unwrap();
    assert_eq!(parts.len(), 3001);
    assert_eq!(by_folder(&parts), expected(30_000, 3001));
    assert!(place.cx.share().peak() <= ByteCount::mib(2));
    assert_eq!(place.cx.share().free(), place.cx.share().total());
    assert!(place.cx.metrics().spilled_bytes.get() > 0);
    assert_eq!(files_below(place.dir.path()).len(), 3001, "no waiting rows are left on disk");
    let disk = &place.cx.scratch().disk;
    assert!(disk.peak() > ByteCount::kib(100), "{}", disk.peak());
    assert_eq!(disk.free(), disk.total());
}

#[tokio::test]
async fn waiting_rows_take_no_more_of_the_disk_than_the_run_may() {
    let disk = Scratch::new(std::env::temp_dir(), ByteCount::kib(100));
    let place = Place::with(ByteCount::mib(4), |run| run.scratch = disk);
    let batches: Vec<_> = (0..30).map(|n| rows(n * 1000, 1000, 3001)).collect();
    let options = json!({ "path": "out", "partition_by": ["key"], "max_partitions": 5000 });
    let error = place.write("parquet", options, &batches).await.unwrap_err();
    assert_eq!((error.kind(), error.context("limit")), (ErrorKind::Limit, Some("100KiB")));
    assert!(error.message().contains("execution.spill.max_bytes"), "{error}");
    let disk = &place.cx.scratch().disk;
    assert_eq!((disk.free(), disk.peak() <= disk.total()), (disk.total(), true));
}

/// Sixteen values with a file open, then one value with more rows than fit in memory, among many small ones.
#[tokio::test]
async fn one_large_value_among_small_ones_is_written_as_it_is_read() {
    let place = Place::new(ByteCount::mib(3));
    let n_rows = 120_000_i64;
    let key = |id: i64| if id < 100 || id % 100 == 0 { format!("k{id}") } else { "large".to_owned() };
    let batch = |first: i64| {
        let ids = first..first + 2000;
        RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from_iter_values(ids.clone())) as ArrayRef),
            ("key", Arc::new(StringArray::from_iter_values(ids.clone().map(key)))),
            ("x", Arc::new(Float64Array::from_iter_values(ids.map(|id| (id as f64).sin())))),
        ])
        .unwrap()
    };
    let batches: Vec<_> = (0..n_rows / 2000).map(|n| batch(n * 2000)).collect();
    let options = json!({ "path": "out", "partition_by": ["key"], "max_partitions": 5000 });
    let parts = place.write("parquet", options, &batches).await.unwrap();
    let found = by_folder(&parts);
    assert_eq!(found.len(), parts.len(), "one file a value");
    let large: Vec<i64> = (0..n_rows).filter(|id| key(*id) == "large").collect();
    assert!(found["key=large"] == large, "all rows of the large value, in order");
    assert_eq!(found.values().map(Vec::len).sum::<usize>(), 120_000);
    assert!(place.cx.share().peak() <= place.cx.share().total());
}

#[tokio::test]
async fn more_partitions_than_allowed_are_an_error_that_names_the_limit() {
    let place = Place::new(ByteCount::mib(16));
    let options = json!({ "path": "out", "partition_by": ["key"], "max_partitions": 10 });
    let error = place.write("ndjson", options, &[rows(0, 100, 50)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert_eq!(error.context("max_partitions"), Some("10"));
    assert!(error.context("partition").unwrap().starts_with("key=k"), "{error}");
}

// 38: values that look like paths, missing ones, numbers; by two columns
#[tokio::test]
async fn hostile_values_stay_inside_the_output() {
    let long = "x".repeat(300);
    let values = [Some("../../up"), Some("/etc/passwd"), Some("a\0b"), Some(long.as_str()), Some(""), None];
    let numbers = Int64Array::from_iter((0..6).map(|n| (n != 3).then_some(n)));
    let records = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from_iter_values(0..6)) as ArrayRef, false),
        ("value", Arc::new(StringArray::from(values.to_vec())), true),
        ("n", Arc::new(numbers), true),
    ])
    .unwrap();
    let place = Place::new(ByteCount::mib(16));
    let options = json!({ "path": "out", "partition_by": ["value", "n"] });
    let parts = place.write("csv", options, &[records]).await.unwrap();
    assert_eq!(parts.len(), 6);
    assert_eq!(parts.iter().map(|part| part.name.clone()).collect::<BTreeSet<_>>().len(), 6);
    for part in &parts {
        assert_eq!(part.name.split('/').count(), 3, "{}", part.name);
        assert!(part.name.split('/').all(|step| step.len() < 255 && step != ".."), "{}", part.name);
        assert!(part.staged.canonicalize().unwrap().starts_with(place.dir.path().canonicalize().unwrap()));
    }
    let is_named = |name: &str| parts.iter().any(|part| part.name.starts_with(name));
    assert!(is_named("value=..%2F..%2Fup/n=0/") && is_named("value=__HIVE_DEFAULT_PARTITION__/n=5/"));
}

#[test]
fn columns_to_partition_by_must_be_there_and_have_a_text() {
    let schema = rows(0, 1, 1).schema();
    let fit = |items: serde_json::Value| {
        let config = configure("parquet", json!({ "path": "out", "partition_by": items })).unwrap();
        config.fit(&schema).into_iter().map(|problem| (problem.pointer, problem.message)).collect::<Vec<_>>()
    };
    assert!(fit(json!(["key"])).is_empty());
    let wrong = fit(json!(["key", "txt"]));
    assert_eq!(wrong[0].0, "/partition_by/1");
    assert!(wrong[0].1.contains("text"), "{}", wrong[0].1);
    assert!(fit(json!(["id", "key", "text"]))[0].1.contains("no column is left"));
}

#[cfg(feature = "expr")]
#[tokio::test]
async fn an_expression_makes_folders_too() {
    let place = Place::new(ByteCount::mib(16));
    let options = json!({ "path": "out", "partition_by": ["id % 3 as rest"] });
    let parts = place.write("parquet", options, &[rows(0, 30, 7)]).await.unwrap();
    let found = by_folder(&parts);
    assert_eq!(found["rest=1"], (0..10).map(|n| n * 3 + 1).collect::<Vec<_>>());
    assert_eq!(parquet(&parts[0]).num_columns(), 3, "no column of the rows is left out");
}
