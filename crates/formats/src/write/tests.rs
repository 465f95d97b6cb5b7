//! Each format read back by a reader of its own.

use std::io::Read;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::*;

fn rows() -> RecordBatch {
    let times = TimestampMicrosecondArray::from(vec![Some(1_700_000_000_123_456), None]).with_timezone("UTC");
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
    let points = StructArray::from(vec![(
        Arc::new(Field::new("x", DataType::Float64, true)),
        Arc::new(Float64Array::from(vec![0.5, 2.0])) as ArrayRef,
    )]);
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![1, -2])) as ArrayRef, false),
        ("score", Arc::new(Float64Array::from(vec![f64::NAN, 1.5])), true),
        ("city", Arc::new(StringArray::from(vec![Some("Köln, \"am\"\nRhein"), None])), true),
        ("seen", Arc::new(times), true),
        ("raw", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None])), true),
        ("good", Arc::new(BooleanArray::from(vec![Some(true), None])), true),
        ("list", Arc::new(lists), true),
        ("point", Arc::new(points), true),
    ])
    .unwrap()
}

fn written(format: &WriteFormat, batches: &[RecordBatch], schema: SchemaRef) -> Vec<u8> {
    let mut encoder = format.encoder(schema, Vec::new(), ByteCount::mib(4)).unwrap();
    for batch in batches {
        encoder.write(batch).unwrap();
    }
    encoder.finish().unwrap()
}

fn two_batches(format: &WriteFormat) -> Vec<u8> {
    let rows = rows();
    written(format, &[rows.slice(0, 1), rows.slice(1, 1)], rows.schema())
}

fn expected() -> Value {
    json!([
        {"id": 1, "score": null, "city": "Köln, \"am\"\nRhein", "seen": "2023-11-14T22:13:20.123456Z",
         "raw": "AP8=", "good": true, "list": [1, null], "point": {"x": 0.5}},
        {"id": -2, "score": 1.5, "city": null, "seen": null, "raw": null, "good": null, "list": null,
         "point": {"x": 2.0}},
    ])
}

#[test]
fn ndjson_and_json_say_times_in_utc_nan_as_null_and_bytes_in_base64() {
    let lines = two_batches(&WriteFormat::Ndjson(TextCompression::None));
    let lines: Vec<Value> =
        lines.split_inclusive(|b| *b == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(Value::Array(lines), expected());
    let array = two_batches(&WriteFormat::Json(TextCompression::None));
    assert_eq!(serde_json::from_slice::<Value>(&array).unwrap(), expected());
}

#[test]
fn csv_has_a_header_and_says_nested_values_as_json() {
    let text = String::from_utf8(two_batches(&WriteFormat::Csv(TextCompression::None))).unwrap();
    assert_eq!(
        text,
        "id,score,city,seen,raw,good,list,point\n\
         1,NaN,\"Köln, \"\"am\"\"\nRhein\",2023-11-14T22:13:20.123456Z,AP8=,true,\"[1,null]\",\"{\"\"x\"\":0.5}\"\n\
         -2,1.5,,,,,,\"{\"\"x\"\":2.0}\"\n"
    );
}

#[test]
fn no_rows_still_make_a_whole_file() {
    let schema = rows().schema();
    let empty = |format: WriteFormat| written(&format, &[], Arc::clone(&schema));
    assert_eq!(empty(WriteFormat::Ndjson(TextCompression::None)), b"");
    assert_eq!(empty(WriteFormat::Json(TextCompression::None)), b"[]");
    assert_eq!(empty(WriteFormat::Csv(TextCompression::None)), b"id,score,city,seen,raw,good,list,point\n");
    let parquet = bytes::Bytes::from(empty(WriteFormat::Parquet(ParquetOptions::default())));
    let reader = ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap();
    assert_eq!(reader.schema().fields(), schema.fields());
    assert_eq!(reader.build().unwrap().count(), 0);
}

#[test]
fn compressed_text_is_read_by_the_usual_tools() {
    let plain = two_batches(&WriteFormat::Ndjson(TextCompression::None));
    let packed = |compression| two_batches(&WriteFormat::Ndjson(compression));
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed(TextCompression::Gzip)[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain);
    for (compression, magic) in [
        (TextCompression::Zstd, &b"\x28\xb5\x2f\xfd"[..]),
        (TextCompression::Bzip2, b"BZh"),
        (TextCompression::Xz, b"\xfd7zXZ\0"),
    ] {
        assert!(packed(compression).starts_with(magic), "{compression:?}");
    }
}

#[test]
fn arrow_files_read_back_equal() {
    for compression in [ArrowCompression::None, ArrowCompression::Lz4, ArrowCompression::Zstd] {
        let file = std::io::Cursor::new(two_batches(&WriteFormat::Arrow(compression)));
        let reader = arrow_ipc::reader::FileReader::try_new(file, None).unwrap();
        let batches: Vec<_> = reader.map(Result::unwrap).collect();
        let whole = arrow::compute::concat_batches(&rows().schema(), &batches).unwrap();
        assert_eq!(whole.column(0), rows().column(0));
        assert_eq!(whole.column(6), rows().column(6));
    }
}

fn read_parquet(file: Vec<u8>) -> (RecordBatch, Vec<i64>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(file)).unwrap();
    let schema = Arc::clone(reader.schema());
    let group_rows = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    (arrow::compute::concat_batches(&schema, &batches).unwrap(), group_rows)
}

#[test]
fn parquet_reads_back_equal_in_every_compression() {
    use ParquetCompression::{Gzip, Lz4, None, Snappy, Zstd};
    for compression in [None, Zstd, Snappy, Gzip, Lz4] {
        let options = ParquetOptions { compression, ..ParquetOptions::default() };
        let (read, groups) = read_parquet(two_batches(&WriteFormat::Parquet(options)));
        assert_eq!(groups, [2]);
        for column in [0, 2, 3, 4, 5, 6, 7] {
            assert_eq!(read.column(column), rows().column(column), "{compression:?}");
        }
    }
}

fn numbers(n_rows: i64) -> RecordBatch {
    let column = |column: i64| -> (String, ArrayRef) {
        let values = (0..n_rows).map(|row| row * 7919 + column);
        (format!("c{column}"), Arc::new(Int64Array::from_iter_values(values)))
    };
    RecordBatch::try_from_iter((0..20).map(column)).unwrap()
}

#[test]
fn row_groups_end_by_rows_and_by_bytes() {
    let rows = numbers(10_000);
    let by_rows = ParquetOptions { row_group_rows: Some(4000), ..ParquetOptions::default() };
    let (read, groups) =
        read_parquet(written(&WriteFormat::Parquet(by_rows), std::slice::from_ref(&rows), rows.schema()));
    assert_eq!(groups, [4000, 4000, 2000]);
    assert_eq!(read, rows);

    let by_bytes = ParquetOptions { row_group_bytes: ByteCount::kib(64), ..ParquetOptions::default() };
    let batches: Vec<_> = (0..100).map(|n| rows.slice(n * 100, 100)).collect();
    let (read, groups) = read_parquet(written(&WriteFormat::Parquet(by_bytes), &batches, rows.schema()));
    assert!(groups.len() > 5, "{groups:?}");
    assert_eq!(read, rows);
}

// MEM-3
#[test]
fn a_flushed_parquet_writer_holds_next_to_nothing() {
    let rows = numbers(20_000);
    let format = WriteFormat::Parquet(ParquetOptions::default());
    let mut encoder = format.encoder(rows.schema(), std::io::sink(), ByteCount::mib(4)).unwrap();
    encoder.write(&rows).unwrap();
    assert!(encoder.memory() > ByteCount::kib(500), "{}", encoder.memory());
    encoder.flush().unwrap();
    assert!(encoder.memory() < ByteCount::kib(64), "{}", encoder.memory());
}

struct FullDisk;

impl Write for FullDisk {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_named_whatever_the_format() {
    for format in [
        WriteFormat::Ndjson(TextCompression::Gzip),
        WriteFormat::Json(TextCompression::None),
        WriteFormat::Csv(TextCompression::None),
        WriteFormat::Arrow(ArrowCompression::None),
        WriteFormat::Parquet(ParquetOptions::default()),
    ] {
        let write = || {
            let mut encoder = format.encoder(rows().schema(), FullDisk, ByteCount::mib(1))?;
            encoder.write(&rows())?;
            encoder.finish()
        };
        let error = write().err().unwrap();
        assert_eq!(error.kind(), aqueduct_core::ErrorKind::DiskFull, "{format:?}: {error:?}");
        assert!(error.to_string().contains("no space"), "{error}");
    }
}

#[test]
fn columns_that_a_format_lacks_are_told_before_any_row() {
    let schema = Arc::new(Schema::new(vec![Field::new(
        "wait",
        DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
        true,
    )]));
    assert!(WriteFormat::Parquet(ParquetOptions::default()).check(&schema).is_err());
    assert!(WriteFormat::Ndjson(TextCompression::None).check(&rows().schema()).is_ok());
}

fn texts(texts: &[String]) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    RecordBatch::try_from_iter([("text", column)]).unwrap()
}

/// The texts of a file, and of each row group how many rows it has and whether they were written as ever.
fn read_texts(file: Vec<u8>) -> (Vec<String>, Vec<(i64, bool)>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(file.clone())).unwrap();
    let group = |group: &parquet::file::metadata::RowGroupMetaData| {
        let column = group.column(0);
        let is_plain = column.dictionary_page_offset().is_none() && column.statistics().is_none();
        assert_eq!(is_plain, column.compression() == parquet::basic::Compression::UNCOMPRESSED);
        (group.num_rows(), !is_plain)
    };
    let groups = reader.metadata().row_groups().iter().map(group).collect();
    let (rows, _) = read_parquet(file);
    let column = rows.column(0).as_any().downcast_ref::<StringArray>().unwrap();
    (column.iter().map(|text| text.unwrap().to_owned()).collect(), groups)
}

fn small_texts(n_rows: usize) -> Vec<String> {
    (0..n_rows).map(|n| format!("small {}", n % 3)).collect()
}

// S0.4
#[test]
fn a_row_that_is_large_for_the_memory_is_held_once_and_its_neighbours_are_written_as_ever() {
    let (small, large) = (small_texts(100), vec!["x".repeat(3_000_000)]);
    let format = WriteFormat::Parquet(ParquetOptions::default());
    let mut encoder = format.encoder(texts(&small).schema(), Vec::new(), ByteCount::mib(4)).unwrap();
    encoder.write(&texts(&small)).unwrap();
    encoder.write(&texts(&large)).unwrap();
    assert!(encoder.memory() < ByteCount::mb(4), "{}", encoder.memory());
    encoder.write(&texts(&small)).unwrap();
    let (read, groups) = read_texts(encoder.finish().unwrap());
    assert_eq!(groups, [(100, true), (1, false), (100, true)]);
    assert_eq!(read, [small.clone(), large, small].concat());
}

#[test]
fn a_large_row_among_small_ones_is_found_and_they_are_written_as_ever() {
    let texts_of = |at: usize| {
        let mut all = small_texts(8192);
        all[at] = "x".repeat(3_000_000);
        all
    };
    let format = WriteFormat::Parquet(ParquetOptions::default());
    for at in [0, 5000, 8191] {
        let all = texts_of(at);
        let (read, groups) = read_texts(written(&format, &[texts(&all)], texts(&all).schema()));
        let (before, after) = (i64::try_from(at).unwrap(), i64::try_from(8191 - at).unwrap());
        let expected = [(before, true), (1, false), (after, true)];
        assert_eq!(groups, expected.into_iter().filter(|group| group.0 > 0).collect::<Vec<_>>());
        assert!(read == all);
    }
}

#[test]
fn large_rows_between_small_ones_do_not_have_a_row_group_each() {
    let all: Vec<String> = (0..40).flat_map(|_| ["small".to_owned(), "x".repeat(1_100_000)]).collect();
    let format = WriteFormat::Parquet(ParquetOptions::default());
    let (read, groups) = read_texts(written(&format, &[texts(&all)], texts(&all).schema()));
    assert!(groups.len() <= 41, "{groups:?}");
    assert!(read == all);
}

#[test]
fn small_rows_of_a_slice_are_not_taken_for_large_ones() {
    let all: Vec<String> = (0..1665).map(|n| format!("{n:05000}")).collect();
    let batches: Vec<_> = all.chunks(333).map(texts).collect();
    let options = ParquetOptions { row_group_rows: Some(1000), ..ParquetOptions::default() };
    let file = written(&WriteFormat::Parquet(options), &batches, batches[0].schema());
    let (read, groups) = read_texts(file);
    assert_eq!(groups, [(1000, true), (665, true)]);
    assert!(read == all);
}
