//! `files` over local files.

use std::collections::BTreeSet;
use std::sync::Arc;

use aqueduct_core::{ErrorKind, Planning, Positions, RejectedItem, SourceFactory};
use aqueduct_primitives::ByteCount;
use aqueduct_sources::files::FACTORY;
use arrow::array::{ArrayRef, Int64Array, ListBuilder, RecordBatch, StringBuilder};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use crate::support::{Room, ends_a_file, ndjson, next, numbers, texts};

#[tokio::test(flavor = "multi_thread")]
async fn listed_order_is_file_after_file_and_row_after_row() {
    let room = Room::new();
    for file in 0..8 {
        room.write(&format!("in/{file}.ndjson"), ndjson((0..300).map(|n| file * 1000 + n)));
    }
    let options = json!({"paths": ["in/*.ndjson"], "order": "listed", "origin": true, "window": 4});
    let rows = room.read(&FACTORY, options).await.unwrap();
    let expected: Vec<i64> = (0..8).flat_map(|file| (0..300).map(move |n| file * 1000 + n)).collect();
    assert_eq!(numbers(&rows, "n"), expected);
    let counted: Vec<i64> = (0..8).flat_map(|_| 1..=300).collect();
    assert_eq!(numbers(&rows, "_row"), counted);
    assert!(texts(&rows, "_file")[2399].ends_with("7.ndjson"));
    assert_eq!(room.cx.metrics().files_done.get(), 8);
    room.check_all_is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_files_are_counted_once() {
    let room = Room::new();
    let text = ndjson(0..5000);
    room.write("a.ndjson", &text);
    room.read(&FACTORY, json!({"paths": ["a.ndjson"]})).await.unwrap();
    let metrics = room.cx.metrics();
    assert_eq!(metrics.bytes.get(), text.len() as u64);
    assert_eq!((metrics.files_total.get(), metrics.files_done.get()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_may_be_mixed_in_one_list() {
    let room = Room::new();
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
    let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let path = |name: &str| std::fs::File::create(room.path().join(name)).unwrap();
    let mut parquet = parquet::arrow::ArrowWriter::try_new(path("a.parquet"), rows.schema(), None).unwrap();
    parquet.write(&rows).unwrap();
    parquet.close().unwrap();
    let mut arrow = arrow_ipc::writer::FileWriter::try_new(path("b.arrow"), &rows.schema()).unwrap();
    arrow.write(&rows).unwrap();
    arrow.finish().unwrap();
    room.write("c.ndjson", ndjson(0..100));
    let options = json!({"paths": ["a.parquet", "b.arrow", "c.ndjson"], "order": "listed"});
    let read = room.read(&FACTORY, options).await.unwrap();
    assert_eq!(numbers(&read, "n"), (0..3).flat_map(|_| 0..100).collect::<Vec<_>>());
    room.check_all_is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_files_are_passed_over_in_search_of_columns() {
    let room = Room::new();
    room.write("a.ndjson", "");
    room.write("b.ndjson", ndjson(0..3));
    room.write("c.ndjson", "");
    let rows = room.read(&FACTORY, json!({"paths": ["*.ndjson"]})).await.unwrap();
    assert_eq!(numbers(&rows, "n"), [0, 1, 2]);
    assert_eq!(room.cx.metrics().files_done.get(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_read_is_an_error_unless_allowed() {
    let room = Room::new();
    let error = room.open(&FACTORY, json!({"paths": ["no/*.csv"]})).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.context("looked_for"), Some("no/*.csv"));
    let rows = room.read(&FACTORY, json!({"paths": ["no/*.csv"], "allow_empty": true})).await.unwrap();
    assert!(rows.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_ends_the_run_or_is_one_bad_file() {
    let options = || json!({"paths": ["nowhere/gone.ndjson", "good.ndjson"]});
    let strict = Room::new();
    strict.write("good.ndjson", ndjson(0..3));
    let error = strict.read(&FACTORY, options()).await.unwrap_err();
    assert!(error.chain().contains("gone.ndjson"), "{}", error.chain());
    strict.check_all_is_back().await;

    let (tolerant, kept) = Room::tolerant();
    tolerant.write("good.ndjson", ndjson(0..3));
    let rows = tolerant.read(&FACTORY, options()).await.unwrap();
    assert_eq!(numbers(&rows, "n"), [0, 1, 2]);
    let kept = kept.all();
    assert_eq!((kept.len(), kept[0].item, kept[0].reason), (1, RejectedItem::File, "missing"));
    assert!(kept[0].origin.file.ends_with("gone.ndjson"));
    tolerant.check_all_is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_go_to_the_policy_with_their_place() {
    let (room, kept) = Room::tolerant();
    room.write("in.ndjson", "{\"n\":1}\nnot json\n{\"n\":\"two\"}\n{\"n\":3}\n");
    let options = json!({"paths": ["in.ndjson"], "schema": {"n": "int64"}});
    let rows = room.read(&FACTORY, options).await.unwrap();
    assert_eq!(numbers(&rows, "n"), [1, 3]);
    let places: Vec<_> = kept.all().iter().map(|kept| (kept.origin.row, kept.origin.byte)).collect();
    assert_eq!(places, [(Some(2), Some(8)), (Some(3), Some(17))]);
    assert_eq!(room.cx.metrics().rows_rejected.get(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_done_are_not_read_again() {
    let room = Room::new();
    for file in 0..3 {
        room.write(&format!("{file}.ndjson"), ndjson([file]));
    }
    let options = json!({"paths": ["*.ndjson"], "order": "listed", "schema": {"n": "int64"}});
    let mut batches = room.stream(&FACTORY, options.clone()).await.unwrap();
    let mut done = Positions::default();
    loop {
        let batch = next(&mut batches).await;
        done.merge(batch.positions().clone());
        if ends_a_file(&batch) {
            break;
        }
    }
    drop(batches);
    let source = room.open(&FACTORY, options).await.unwrap();
    let rest: Vec<_> = source
        .run(room.cx.clone(), done)
        .map_ok(|batch| batch.records().clone())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(numbers(&rest, "n"), [1, 2]);
    room.check_all_is_back().await;
}

// MEM-2
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_stops_early_gets_everything_back() {
    let room = Room::new();
    for file in 0..6 {
        room.write(&format!("{file}.ndjson"), ndjson(0..200_000));
    }
    for order in ["any", "listed"] {
        let options = json!({"paths": ["*.ndjson"], "order": order, "window": 3});
        let mut batches = room.stream(&FACTORY, options).await.unwrap();
        let held = next(&mut batches).await;
        drop(batches);
        drop(held);
        room.check_all_is_back().await;
    }
}

// S0.2, S0.4
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_a_million_files_is_read_as_it_is_needed() {
    let room = Room::new();
    room.write("a.ndjson", ndjson([7]));
    room.write("list.txt", "a.ndjson\n".repeat(1_000_000));
    let options = json!({"paths": {"file": "list.txt"}, "window": 2});
    let mut batches = room.stream(&FACTORY, options).await.unwrap();
    for _ in 0..20 {
        drop(next(&mut batches).await);
    }
    // The list has 9 MB, and is read in blocks of at most 1 MiB, one of them ahead.
    let n_bytes = room.cx.metrics().bytes.get();
    assert!(n_bytes < 4 << 20, "{n_bytes}");
    assert!(room.cx.metrics().files_total.get() < 30);
    drop(batches);
    room.check_all_is_back().await;
}

// S0.4, S0.12
#[tokio::test(flavor = "multi_thread")]
async fn a_file_keeps_its_place_until_its_last_batch_is_dropped() {
    let room = Room::new();
    for file in 0..20 {
        room.write(&format!("{file}.ndjson"), ndjson([file]));
    }
    let options = json!({"paths": ["*.ndjson"], "window": 3, "schema": {"n": "int64"}});
    let mut batches = room.stream(&FACTORY, options).await.unwrap();
    let mut held = Vec::new();
    while held.iter().filter(|batch| ends_a_file(batch)).count() < 3 {
        held.push(next(&mut batches).await);
    }
    for _ in 0..200 {
        assert!(futures::poll!(batches.next()).is_pending(), "nothing comes while three files are held");
        tokio::task::yield_now().await;
    }
    assert_eq!(room.cx.metrics().files_total.get(), 3);
    drop(held);
    assert_eq!(batches.try_fold(0, |n, batch| async move { Ok(n + batch.num_rows()) }).await.unwrap(), 17);
    room.check_all_is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_keeps_every_batch_still_sees_the_end() {
    let room = Room::new();
    room.write("a.ndjson", ndjson(0..10));
    for order in ["any", "listed"] {
        let options = json!({"paths": ["a.ndjson"], "order": order});
        let batches = room.stream(&FACTORY, options).await.unwrap();
        let kept: Vec<aqueduct_core::Batch> = batches.try_collect().await.unwrap();
        assert_eq!(kept.iter().map(aqueduct_core::Batch::num_rows).sum::<usize>(), 10);
    }
    room.check_all_is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn size_and_digest_of_a_list_are_checked() {
    let (room, kept) = Room::tolerant();
    room.write("a.ndjson", "{\"n\":1}\n");
    room.write("b.ndjson", "{\"n\":2}\n");
    room.write("c.ndjson", "{\"n\":3}\n");
    room.write(
        "list.txt",
        "8 9A760BD8D19F5F33076348D83BE57F66 a.ndjson\n\
         9 9a760bd8d19f5f33076348d83be57f66 b.ndjson\n\
         8 00000000000000000000000000000000 other.txt\n\
         8 00000000000000000000000000000000 c.ndjson\n",
    );
    let options = json!({
        "list": {"url": "list.txt", "match": "ndjson$", "column": 3, "size_column": 1, "md5_column": 2},
        "schema": {"n": "int64"}, "order": "listed",
    });
    let rows = room.read(&FACTORY, options).await.unwrap();
    assert_eq!(numbers(&rows, "n")[0], 1);
    let told: Vec<_> = kept.all().into_iter().map(|kept| (kept.origin.file, kept.message)).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    let of = |name: &str| &told.iter().find(|(file, _)| file.ends_with(name)).unwrap().1;
    assert!(of("b.ndjson").contains("size") && of("b.ndjson").contains("expected: 9, actual: 8"), "{told:?}");
    assert!(of("c.ndjson").contains("md5") && of("c.ndjson").contains("expected: 0000"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_in_order_and_unchanged() {
    let room = Room::new();
    let data: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    room.write("a.bin", &data);
    let rows = room.read(&FACTORY, json!({"paths": ["a.bin"], "format": "binary"})).await.unwrap();
    let mut read = Vec::new();
    for batch in rows.iter().filter(|batch| batch.num_rows() > 0) {
        let bytes: &arrow::array::BinaryArray =
            arrow::array::AsArray::as_binary(batch.column_by_name("bytes").unwrap());
        for bytes in bytes.iter().flatten() {
            assert!(bytes.len() <= 256 << 10);
            read.extend_from_slice(bytes);
        }
    }
    assert_eq!(read, data);
    room.check_all_is_back().await;
}

#[test]
fn columns_of_local_files_are_known_before_a_run() {
    let room = Room::new();
    room.write("a.ndjson", ndjson(0..3));
    let planning = Planning {
        base_dir: room.path().to_owned(),
        batch_rows: 8192,
        batch_bytes: ByteCount::mib(1),
        max_concurrency: 10,
    };
    let names = |options| -> Option<BTreeSet<String>> {
        let schema = FACTORY.configure(options).unwrap().known_schema(&planning).unwrap()?;
        Some(schema.fields().iter().map(|field| field.name().clone()).collect())
    };
    assert_eq!(names(json!({"paths": ["a.ndjson"], "origin": true})).unwrap().len(), 3);
    assert_eq!(names(json!({"paths": ["gone.ndjson"]})), None);
    assert_eq!(names(json!({"paths": ["http://127.0.0.1:1/a.ndjson"]})), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_memory_for_one_file_says_so() {
    let room =
        Room::with(|_| {}, |step| step.share = aqueduct_primitives::Budget::new("share", ByteCount::kib(16)));
    room.write("a.ndjson", ndjson(0..3));
    let error = room.open(&FACTORY, json!({"paths": ["a.ndjson"]})).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.message().contains("`memory`"));
}

// S0.4: the rows of a large record wait for nothing that the rest of its block holds.
#[tokio::test(flavor = "multi_thread")]
async fn large_records_pass_although_two_of_them_do_not_fit_at_once() {
    let blob = "x".repeat(11_900_000);
    let mut records = Vec::new();
    for n in 0..3 {
        records.push(format!("{{\"n\":{n},\"blob\":\"{blob}\"}}"));
        records
            .extend((0..500).map(|small| format!("{{\"n\":{},\"blob\":\"small\"}}", 1000 * (n + 1) + small)));
    }
    let expected: Vec<i64> =
        (0..3).flat_map(|n| [n].into_iter().chain((0..500).map(move |m| 1000 * (n + 1) + m))).collect();
    let room = Room::new();
    room.write("a.ndjson", records.join("\n"));
    room.write("a.json", format!("[{}]", records.join(",\n")));
    for name in ["a.ndjson", "a.json"] {
        let options = json!({"paths": [name], "max_record_bytes": 12_000_000, "schema": {"n": "int64", "blob": "string"}});
        let mut batches = room.stream(&FACTORY, options).await.unwrap();
        let mut seen = Vec::new();
        while let Some(batch) = batches.next().await {
            let batch = batch.unwrap();
            assert!(batch.reserved() <= ByteCount::mb(13), "{}", batch.reserved());
            seen.extend(numbers(&[batch.records().clone()], "n"));
        }
        assert_eq!(seen, expected, "{name}");
        drop(batches);
        room.check_all_is_back().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_beyond_all_memory_is_rejected_by_name_and_the_others_pass() {
    let (room, kept) = Room::tolerant();
    // Of the second row there is one text in the file, in a dictionary, and four thousand in memory.
    let mut texts = ListBuilder::new(StringBuilder::new());
    for n_times in [1, 4000, 1] {
        texts.append_value(std::iter::repeat_n(Some("b".repeat(10_000)), n_times));
    }
    let columns: [(&str, ArrayRef); 2] =
        [("n", Arc::new(Int64Array::from_iter_values(0..3))), ("texts", Arc::new(texts.finish()))];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(room.path().join("a.parquet")).unwrap();
    let mut parquet = parquet::arrow::ArrowWriter::try_new(file, rows.schema(), None).unwrap();
    parquet.write(&rows).unwrap();
    parquet.close().unwrap();
    let read = room.read(&FACTORY, json!({"paths": ["a.parquet"]})).await.unwrap();
    assert_eq!(numbers(&read, "n"), [0, 2]);
    let kept = kept.all();
    assert_eq!((kept.len(), kept[0].item, kept[0].origin.row), (1, RejectedItem::Row, Some(2)));
    assert!(
        kept[0].origin.file.ends_with("a.parquet") && kept[0].message.contains("set `memory` to"),
        "{kept:?}"
    );
    room.check_all_is_back().await;
}
