//! Parquet and Arrow files, honest and hostile.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aqueduct_core::ErrorKind;
use aqueduct_formats::{DecodeSpec, declared_schema, decode_file};
use aqueduct_primitives::{Budget, ByteCount};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::{FileMetaData, ParquetMetaData, ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use crate::support::{MemoryFile, Reader, collect, options};

fn batch(from: i64, n: i64) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + n));
    let scores: ArrayRef = Arc::new(Float64Array::from_iter(
        (from..from + n).map(|n| (n % 3 != 0).then_some(f64::from(i32::try_from(n).unwrap()) / 8.0)),
    ));
    let words: ArrayRef =
        Arc::new(StringArray::from_iter_values((from..from + n).map(|n| format!("word {n}"))));
    RecordBatch::try_from_iter([("id", ids), ("score", scores), ("word", words)]).unwrap()
}

fn parquet_file(batches: &[RecordBatch], rows_in_group: usize) -> Vec<u8> {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows_in_group))
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(8 << 10)
        .set_write_batch_size(256)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn arrow_file(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

/// A file whose footer claims integers of so many bits.
fn arrow_file_with_integers_of(bits: i32) -> Vec<u8> {
    let mut bytes = arrow_file(&[batch(0, 10)]);
    let trailer = bytes.last_chunk().unwrap();
    let end = bytes.len() - trailer.len();
    let start = end - arrow_ipc::reader::read_footer_length(*trailer).unwrap();
    let footer = arrow_ipc::root_as_footer(&bytes[start..end]).unwrap();
    let int = footer.schema().unwrap().fields().unwrap().get(0).type_as_int().unwrap();
    let at = int._tab.loc() + usize::from(int._tab.vtable().get(arrow_ipc::Int::VT_BITWIDTH));
    bytes[start + at..][..4].copy_from_slice(&bits.to_le_bytes());
    bytes
}

#[tokio::test]
async fn a_schema_that_makes_the_library_panic_is_an_error_of_its_file() {
    let reader = Reader::new("a.arrow", json!({}));
    assert!(reader.file(MemoryFile::new(arrow_file_with_integers_of(64))).await.error.is_none());
    let error = reader.file(MemoryFile::new(arrow_file_with_integers_of(7))).await.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    assert!(error.message().contains("gave up on this file"), "{error}");
}

// reliability 11: what a server answers to whoever has not logged in
#[tokio::test]
async fn a_web_page_in_the_place_of_a_columnar_file_is_named() {
    let long = format!("<!DOCTYPE html><html><body>{}</body></html>", "Log in. ".repeat(1000));
    for (name, format) in [("a.parquet", "parquet"), ("a.arrow", "arrow")] {
        for page in [long.as_str(), "<html>"] {
            for options in [json!({}), json!({"schema": {"id": "int64"}})] {
                let reader = Reader::new(name, options);
                let error = reader.file(MemoryFile::new(page.to_owned())).await.error.unwrap();
                assert_eq!(error.kind(), ErrorKind::Data, "{error}");
                assert!(error.message().contains("found an HTML page"), "{name}: {error}");
                assert!(error.message().contains(format) && error.context("file") == Some(name), "{error}");
            }
        }
        // What is no page is damaged, or cannot be read.
        let error = Reader::new(name, json!({})).file(MemoryFile::new(vec![b'<'; 5000])).await.error.unwrap();
        assert!(error.message().contains("damaged"), "{error}");
        let unreadable = MemoryFile::failing_below(long.clone(), u64::MAX);
        let error = Reader::new(name, json!({})).file(unreadable).await.error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    }
}

fn ids(rows: &[Value]) -> Vec<i64> {
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn parquet_and_arrow_are_read_in_order_and_counted() {
    let batches = [batch(0, 10_000), batch(10_000, 5000)];
    for (name, bytes) in [
        ("a.parquet", parquet_file(&batches, 4000)),
        ("a.arrow", arrow_file(&batches)),
        ("unnamed", parquet_file(&batches, 4000)),
    ] {
        let mut reader = Reader::new(name, json!({}));
        (reader.origin, reader.batch_rows) = (true, 1000);
        let outcome = reader.file(MemoryFile::new(bytes)).await;
        assert!(outcome.error.is_none(), "{name}: {:?}", outcome.error);
        assert!(outcome.batches.iter().all(|batch| batch.num_rows() <= 1000), "{name}");
        let rows = outcome.rows();
        assert_eq!(ids(&rows), (0..15_000).collect::<Vec<_>>(), "{name}");
        assert!(rows.iter().all(|row| row["_row"].as_i64() == row["id"].as_i64().map(|id| id + 1)), "{name}");
        assert_eq!(rows[1], json!({"id": 1, "score": 0.125, "word": "word 1", "_file": name, "_row": 2}));
    }
}

/// The same file with another number of rows in its footer, of the file and of its only row group.
fn with_rows(file: &[u8], of_file: i64, of_group: i64) -> Vec<u8> {
    let bytes = bytes::Bytes::copy_from_slice(file);
    let footer = ParquetMetaDataReader::new().parse_and_finish(&bytes).unwrap();
    let had = footer.file_metadata();
    let (created_by, pairs) = (had.created_by().map(str::to_owned), had.key_value_metadata().cloned());
    let schema = had.schema_descr_ptr();
    let file_part = FileMetaData::new(had.version(), of_file, created_by, pairs, schema, None);
    let group = footer.row_group(0).clone().into_builder().set_num_rows(of_group).build().unwrap();
    let n = u32::from_le_bytes(*file[file.len() - 8..].first_chunk::<4>().unwrap()) as usize;
    let mut changed = file[..file.len() - 8 - n].to_vec();
    let footer = ParquetMetaData::new(file_part, vec![group]);
    ParquetMetaDataWriter::new(&mut changed, &footer).finish().unwrap();
    changed
}

#[tokio::test]
async fn a_footer_that_miscounts_its_rows_loses_none_in_silence() {
    let file = parquet_file(&[batch(0, 100)], 1000);
    let outcome = Reader::new("a.parquet", json!({})).file(MemoryFile::new(with_rows(&file, 0, 100))).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(ids(&outcome.rows()), (0..100).collect::<Vec<_>>());
    let outcome = Reader::new("a.parquet", json!({})).file(MemoryFile::new(with_rows(&file, 120, 120))).await;
    let error = outcome.error.expect("rows are missing");
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(format!("{error:?}").contains("120"), "{error:?}");
}

// A row group need not be in memory whole.
#[tokio::test]
async fn a_large_row_group_is_read_in_small_ranges() {
    let bytes = parquet_file(&[batch(0, 300_000)], 1_000_000);
    let mut reader = Reader::new("a.parquet", json!({}));
    reader.memory = ByteCount::kib(256);
    let file = MemoryFile::new(bytes.clone());
    let outcome = reader.file(Arc::clone(&file) as _).await;
    assert_eq!(outcome.n_rows(), 300_000);
    let largest = file.largest_read.load(Ordering::Relaxed);
    assert!(largest <= 64 << 10, "{largest} of {} bytes at once", bytes.len());
}

#[tokio::test]
async fn columns_are_fitted_by_name_and_lossy_values_are_rejects() {
    let schema = json!({"word": "string", "score": "int64", "missing": "bool", "id": "int16"});
    let reader = Reader::new("a.parquet", json!({"schema": schema}));
    for bytes in [parquet_file(&[batch(32_760, 16)], 100), arrow_file(&[batch(32_760, 16)])] {
        let mut reader = Reader { options: reader.options.clone(), ..Reader::new("a.x", json!({})) };
        reader.origin = true;
        let outcome = reader.file(MemoryFile::new(bytes)).await;
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
        let rows = outcome.rows();
        // Scores are whole where the id is a multiple of 8, or null; ids go to 32767.
        assert_eq!(ids(&rows), [32_760, 32_763, 32_766]);
        assert_eq!(rows[0]["missing"], Value::Null);
        assert_eq!(rows[1]["_row"], 4);
        assert_eq!((outcome.rows_read, outcome.rejects.len()), (16, 13));
        assert_eq!(outcome.rejects[0].column.as_deref(), Some("score"));
        assert!(outcome.rejects[0].message.ends_with("expected int64"), "{}", outcome.rejects[0].message);
    }
}

#[tokio::test]
async fn columns_that_nobody_declared_go_by_the_policy() {
    let bytes = parquet_file(&[batch(1, 2)], 100);
    let read = |policy: &'static str| {
        let file = MemoryFile::new(bytes.clone());
        async move {
            Reader::new("a.parquet", json!({"schema": {"id": "string"}, "new_fields": policy}))
                .file(file)
                .await
        }
    };
    assert_eq!(read("fail").await.error.unwrap().context("column"), Some("score"));
    assert_eq!(read("ignore").await.rows(), [json!({"id": "1"}), json!({"id": "2"})]);
    let extra = read("extra").await.rows();
    assert_eq!(extra[0]["_extra"], json!("{\"score\":0.125,\"word\":\"word 1\"}"));
}

#[tokio::test]
async fn texts_are_parsed_as_in_csv() {
    let days: ArrayRef = Arc::new(StringArray::from(vec![Some("01/02/2026 10:00"), None, Some("never")]));
    let bytes = arrow_file(&[RecordBatch::try_from_iter([("at", days)]).unwrap()]);
    let options = json!({"schema": {"at": "timestamp('%d/%m/%Y %H:%M', 'Europe/Paris')"}});
    let outcome = Reader::new("a.arrow", options).file(MemoryFile::new(bytes)).await;
    assert_eq!(outcome.rows(), [json!({"at": "2026-02-01T09:00:00Z"}), json!({"at": null})]);
    assert_eq!((outcome.rejects[0].row, outcome.rejects[0].reason), (3, "type"));
}

// reliability 34: errors, no panics, no aborts
#[tokio::test]
async fn damaged_files_are_errors() {
    let parquet = parquet_file(&[batch(0, 3000)], 1000);
    let arrow = arrow_file(&[batch(0, 300)]);
    for (name, bytes) in [("a.parquet", parquet), ("a.arrow", arrow)] {
        for n in (0..bytes.len()).step_by(997) {
            let outcome = Reader::new(name, json!({})).file(MemoryFile::new(bytes[..n].to_vec())).await;
            assert!(outcome.error.is_some(), "{name} cut at {n}");
        }
        for at in (0..bytes.len()).rev().take(2000).chain((0..bytes.len()).step_by(613)) {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0xff;
            let outcome = Reader::new(name, json!({})).file(MemoryFile::new(wrong)).await;
            let kind = outcome.error.map(|error| error.kind());
            assert!(
                matches!(kind, None | Some(ErrorKind::Data | ErrorKind::Limit)),
                "{name} changed at {at}: {kind:?}"
            );
        }
    }
    let mut lying = b"PAR1".to_vec();
    lying.extend([0xff, 0xff, 0xff, 0xff]);
    lying.extend(b"PAR1");
    let error = Reader::new("a.parquet", json!({})).file(MemoryFile::new(lying)).await.error.unwrap();
    assert_eq!((error.kind(), error.context("file")), (ErrorKind::Data, Some("a.parquet")));
}

#[tokio::test]
async fn an_arrow_batch_is_cut_around_its_wide_row() {
    let texts = (0..2001).map(|n| if n == 1000 { "x".repeat(5_000_000) } else { format!("text {n}") });
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let rows = RecordBatch::try_from_iter([("text", texts)]).unwrap();
    let outcome = Reader::new("a.arrow", json!({})).file(MemoryFile::new(arrow_file(&[rows]))).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(outcome.batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [1000, 1, 1000]);
}

#[tokio::test]
async fn an_arrow_batch_beyond_the_memory_is_refused() {
    let bytes = arrow_file(&[batch(0, 100_000)]);
    let mut reader = Reader::new("a.arrow", json!({}));
    reader.memory = ByteCount::kib(256);
    reader.large = Budget::new("large", ByteCount::kib(512));
    let error = reader.file(MemoryFile::new(bytes.clone())).await.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Limit);
    reader.large = Budget::new("large", ByteCount::mib(32));
    assert_eq!(reader.file(MemoryFile::new(bytes)).await.n_rows(), 100_000);
    assert_eq!(reader.large.free(), reader.large.total());
}

/// A column of numbers in one page, of 8 bytes each, without a dictionary and packed by nothing.
fn file_with_one_page(n_rows: i64) -> Vec<u8> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n_rows));
    let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_data_page_size_limit(usize::MAX)
        .set_data_page_row_count_limit(usize::MAX)
        .set_max_row_group_row_count(None)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test]
async fn pages_larger_than_the_readers_memory_take_theirs_from_the_lane() {
    let bytes = file_with_one_page(2_000_000);
    let mut reader = Reader::new("a.parquet", json!({}));
    reader.large = Budget::new("large", ByteCount::mib(8));
    let error = reader.file(MemoryFile::new(bytes.clone())).await.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error:?}");
    assert!(error.message().contains("raise `memory`"), "{error}");
    let claimed: u64 = error.context("page_bytes").unwrap().parse().unwrap();
    assert!(
        (32_000_000..32_100_000).contains(&claimed),
        "what one page takes packed and unpacked: {claimed}"
    );

    reader.large = Budget::new("large", ByteCount::mib(32));
    let outcome = reader.file(MemoryFile::new(bytes)).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(outcome.n_rows(), 2_000_000);
    assert!(reader.large.peak() >= ByteCount::new(15_000_000), "{}", reader.large.peak());
    assert_eq!(reader.large.free(), reader.large.total());
}

#[tokio::test]
async fn small_pages_take_nothing_from_the_lane() {
    let mut reader = Reader::new("a.parquet", json!({}));
    reader.large = Budget::new("large", ByteCount::new(1));
    let outcome = reader.file(MemoryFile::new(parquet_file(&[batch(0, 100_000)], 20_000))).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(outcome.n_rows(), 100_000);
}

#[tokio::test]
async fn who_reads_no_more_leaves_no_page_waiting_for_memory() {
    let mut reader = Reader::new("a.parquet", json!({}));
    reader.large = Budget::new("large", ByteCount::mib(32));
    let _all = reader.large.reserve(reader.large.total()).await.unwrap();
    let schema = declared_schema(&options(json!({"schema": {"id": "int64"}})), None).unwrap().unwrap();
    let mut rows =
        decode_file(MemoryFile::new(file_with_one_page(2_000_000)), reader.spec(schema), &reader.tasks);
    assert!(futures::poll!(rows.next()).is_pending());
    while reader.large.n_waiting() == 0 {
        assert!(futures::poll!(rows.next()).is_pending());
        tokio::task::yield_now().await;
    }
    drop(rows);
    reader.tasks.cancel();
    reader.tasks.join().await;
}

// What went wrong on the way to the file is not the file's fault.
#[tokio::test]
async fn a_file_that_cannot_be_read_is_not_called_damaged() {
    let bytes = parquet_file(&[batch(0, 100_000)], 1_000_000);
    let file = MemoryFile::failing_below(bytes, 50_000);
    let error = Reader::new("a.parquet", json!({})).file(file).await.error.unwrap();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Io, "the line is down"), "{error:?}");
}

#[tokio::test]
async fn a_stream_of_parquet_asks_for_a_disk() {
    let bytes = parquet_file(&[batch(0, 10)], 100);
    let reader = Reader::new("download", json!({"schema": {"id": "int64"}, "new_fields": "ignore"}));
    let schema = declared_schema(&options(reader.options.clone()), None).unwrap().unwrap();
    let outcome = reader.stream_then_file(&bytes, Arc::clone(&schema)).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(outcome.n_rows(), 10);
    let spec = DecodeSpec { name: "a.parquet".into(), ..reader.spec(schema) };
    assert_eq!(collect(decode_file(MemoryFile::new(bytes), spec, &reader.tasks)).await.n_rows(), 10);
}
