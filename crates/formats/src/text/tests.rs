//! Text through blocks of any size and pieces of any size gives what a simple reader gives of the whole.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::Result;
use aqueduct_primitives::{Budget, ByteCount, Reservation, Tasks};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::blocks::{Cutting, read_blocks};
use super::plan;
use super::rows::decode_part;
use crate::unpack::Unpacker;
use crate::{
    Compression, DecodeSpec, DecodedLimits, LargeRecords, ReadOptions, RowReject, declared_schema,
    output_schema,
};

/// Memory for large records.
struct Room(Budget);

#[async_trait]
impl LargeRecords for Room {
    async fn reserve(&self, _held: ByteCount, more: ByteCount) -> Result<Reservation> {
        Ok(self.0.reserve(more).await?)
    }
}

pub(crate) struct Read {
    pub(crate) rows: Vec<Value>,
    pub(crate) rejects: Vec<RowReject>,
    pub(crate) error: Option<aqueduct_core::Error>,
}

/// Reads `text`, which comes in pieces of `piece` bytes, in blocks of `block` bytes. Columns that are not declared are
/// inferred.
pub(crate) fn read(text: &[u8], options: Value, piece: usize, block: usize) -> Read {
    let options: ReadOptions = serde_json::from_value(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(read_with(text, options, piece.max(1), block.max(1)))
}

/// Reads `text` at once, as a file of this name.
pub(crate) fn read_named(name: &str, text: &str, options: Value) -> Read {
    let options: ReadOptions = serde_json::from_value(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(read_file(name, text.as_bytes(), options, 1 << 20, 1 << 20))
}

async fn read_with(text: &[u8], options: ReadOptions, piece: usize, block: usize) -> Read {
    read_file("test", text, options, piece, block).await
}

fn cutting_of(spec: &DecodeSpec, block_bytes: usize) -> Cutting {
    Cutting {
        name: Arc::clone(&spec.name),
        options: Arc::clone(&spec.options),
        block_bytes,
        large_records: Arc::clone(&spec.large_records),
        flush_after: spec.flush_after,
        planner: plan::planner(spec, 1 << 20),
    }
}

fn spec_of(name: &str, schema: SchemaRef, options: ReadOptions) -> DecodeSpec {
    DecodeSpec {
        name: name.into(),
        schema,
        options: Arc::new(options),
        origin: false,
        batch_rows: 3,
        batch_bytes: ByteCount::mib(1),
        memory: ByteCount::mib(1),
        large_records: Arc::new(Room(Budget::new("large", ByteCount::mib(64)))),
        limits: DecodedLimits::default(),
        flush_after: Duration::from_secs(60),
        after: None,
        skip: 0,
    }
}

async fn read_file(name: &str, text: &[u8], options: ReadOptions, piece: usize, block: usize) -> Read {
    let tasks = Tasks::new(2);
    let pieces: Vec<Result<Bytes>> =
        text.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let body = Box::pin(futures::stream::iter(pieces));
    let limits = DecodedLimits::default();
    let schema = match declared_schema(&options, None).unwrap() {
        Some(schema) => schema,
        None => {
            let body = Box::pin(futures::stream::iter([Ok(Bytes::copy_from_slice(text))]));
            crate::infer(body, name, &options, limits, &tasks).await.unwrap()
        }
    };
    let unpacker = Unpacker::of_stream(body, name, Some(Compression::None), limits, &tasks).await.unwrap();
    let spec = spec_of(name, schema, options);
    let (sender, mut receiver) = mpsc::channel(1);
    let _reader = tasks.spawn(read_blocks(unpacker, cutting_of(&spec, block), sender));
    let mut read = Read { rows: Vec::new(), rejects: Vec::new(), error: None };
    let mut n_rows = 0;
    while let Some(next) = receiver.recv().await {
        let mut next = match next {
            Ok(block) => Some(block),
            Err(error) => {
                read.error = Some(error);
                break;
            }
        };
        while let Some(block) = next.take() {
            let part = decode_part(block).unwrap();
            next = part.rest;
            let n = (part.n_good + part.rejects.len()) as u64;
            read.rejects
                .extend(part.rejects.into_iter().map(|bad| RowReject { row: bad.row + n_rows, ..bad }));
            n_rows += n;
            let schema = output_schema(&spec.schema, &spec.options, false);
            let batch = arrow::array::RecordBatch::try_new(schema, part.columns).unwrap();
            read.rows.extend(rows_of(&batch));
        }
    }
    read
}

fn rows_of(batch: &arrow::array::RecordBatch) -> Vec<Value> {
    let mut writer = arrow_json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow_json::writer::LineDelimited>(Vec::new());
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    let text = String::from_utf8(writer.into_inner()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn schema() -> Value {
    json!({"id": "int64", "x": "float64", "name": "string", "ok": "bool", "tags": "list<string>",
           "geo": "struct<lat: float64, deep: struct<n: int32>>"})
}

fn value() -> impl Strategy<Value = Value> {
    let name = "[a-z é😀\"\\\\,\n\t\r{}\\[\\]]{0,12}";
    (any::<Option<i64>>(), any::<Option<i32>>(), proptest::option::of(name), any::<Option<bool>>(),
     proptest::option::of(proptest::collection::vec(proptest::option::of(name), 0..4)),
     proptest::option::of((any::<Option<i16>>(), proptest::option::of(any::<Option<i32>>()))))
        .prop_map(|(id, x, name, ok, tags, geo)| {
            let geo = geo.map(|(lat, deep)| json!({"lat": lat.map(|n| f64::from(n) / 8.0), "deep": deep.map(|n| json!({"n": n}))}));
            json!({"id": id, "x": x.map(|n| f64::from(n) / 16.0), "name": name, "ok": ok, "tags": tags, "geo": geo})
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    // S0.5: whatever the pieces and blocks.
    #[test]
    fn ndjson_is_what_serde_json_reads(rows in proptest::collection::vec(value(), 0..12), piece in 1usize..90, block in 1usize..200, gap in "(\n|\r\n|\n\n| \n)", bom in any::<bool>()) {
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        let text = format!("{}{}", if bom { "\u{feff}" } else { "" }, lines.join(&gap));
        let read = read(text.as_bytes(), json!({"format": "ndjson", "schema": schema()}), piece, block);
        prop_assert!(read.error.is_none() && read.rejects.is_empty(), "{:?} {:?}", read.error, read.rejects);
        prop_assert_eq!(read.rows, rows);
    }

    #[test]
    fn a_json_array_is_what_serde_json_reads(rows in proptest::collection::vec(value(), 0..12), piece in 1usize..90, block in 1usize..200, depth in 0usize..3, is_pretty in any::<bool>()) {
        let pointer = ["", "/a", "/a/b~1\"c"][depth];
        let inner = json!(rows);
        let document = [inner.clone(), json!({"z": [{"a": [1, "]"]}], "a": inner, "t": 1}), json!({"a": {"x\\": "{", "b/\"c": inner}})][depth].clone();
        let text = if is_pretty { serde_json::to_string_pretty(&document).unwrap() } else { document.to_string() };
        let read = read(text.as_bytes(), json!({"format": "json", "schema": schema(), "records": pointer}), piece, block);
        prop_assert!(read.error.is_none() && read.rejects.is_empty(), "{:?} {:?}", read.error, read.rejects);
        prop_assert_eq!(read.rows, rows);
    }

    #[test]
    fn csv_is_what_the_csv_crate_reads(rows in proptest::collection::vec(proptest::collection::vec("[a-c \"';,\n\r\té#]{0,8}", 3), 0..12), piece in 1usize..60, block in 1usize..120, crlf in any::<bool>()) {
        let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let mut writer = csv::WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
        writer.write_record(["a", "b", "c"]).unwrap();
        rows.iter().for_each(|row| writer.write_record(row).unwrap());
        let text = writer.into_inner().unwrap();
        let read = read(&text, json!({"format": "csv", "schema": {"c": "string", "a": "string", "b": "string"}}), piece, block);
        let expected: Vec<Value> = rows.iter().map(|row| json!({"c": row[2], "a": row[0], "b": row[1]})).collect();
        prop_assert!(read.error.is_none() && read.rejects.is_empty(), "{:?} {:?}", read.error, read.rejects);
        prop_assert_eq!(read.rows, expected);
    }

    // S0.4: nothing is lost without being told, whatever the bytes are.
    #[test]
    fn any_bytes_are_rows_or_rejects(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..30), 0..12), piece in 1usize..40, block in 1usize..80) {
        let mut text = lines.join(&b'\n');
        text.insert(0, b'x');
        let n_lines = text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
        let read = read(&text, json!({"format": "ndjson", "schema": {"a": "int64"}, "new_fields": "ignore"}), piece, block);
        prop_assert_eq!(read.rows.len() + read.rejects.len(), n_lines);
        for reject in &read.rejects {
            let at = usize::try_from(reject.byte.unwrap()).unwrap();
            prop_assert!(text[at..].starts_with(&reject.raw));
        }
    }

    #[test]
    fn arrow_json_reads_the_same(rows in proptest::collection::vec(value(), 1..12)) {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let options = json!({"format": "ndjson", "schema": schema()});
        let parsed: ReadOptions = serde_json::from_value(options.clone()).unwrap();
        let schema = declared_schema(&parsed, None).unwrap().unwrap();
        let reader = arrow_json::ReaderBuilder::new(schema).build(text.as_bytes()).unwrap();
        let oracle: Vec<Value> = reader.flat_map(|batch| rows_of(&batch.unwrap())).collect();
        prop_assert_eq!(read(text.as_bytes(), options, 64, 64).rows, oracle);
    }
}

/// Row, byte, column and reason.
type Told = (u64, u64, String, &'static str);

/// The good rows and the rejects of a text.
fn rejects(text: &str, options: Value) -> (Vec<Value>, Vec<Told>) {
    let read = read(text.as_bytes(), options, 7, 40);
    assert!(read.error.is_none(), "{:?}", read.error);
    let short = |bad: RowReject| (bad.row, bad.byte.unwrap(), bad.column.unwrap_or_default(), bad.reason);
    (read.rows, read.rejects.into_iter().map(short).collect())
}

// S0.4, reliability 31, 32
#[test]
fn bad_rows_are_told_with_row_byte_column_and_reason() {
    let lines = [
        r#"{"id": 1}"#,
        r#"{"id": "twelve"}"#,
        "",
        r#"{"id": 3, "geo": {"deep": {"n": 1.5}}}"#,
        r#"{"id": 4, "tags": ["a", {"b": 1}, true]}"#,
        r#"{"id": 5, "new": 1}"#,
        "not json",
        r#"{"id": 6}"#,
        r#"{"id": 7, "id": 8}"#,
        r#"[1]"#,
        r#"{"id": 9223372036854775808}"#,
        r#"{"x": 1e400}"#,
        r#"{"id": 8} x"#,
        r#"{"name": "\ud800"}"#,
    ];
    let starts: Vec<u64> = lines
        .iter()
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len() as u64 + 1;
            Some(start)
        })
        .collect();
    let (rows, bad) = rejects(&lines.join("\n"), json!({"format": "ndjson", "schema": schema()}));
    let ids: Vec<_> = rows.iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [json!(1), json!(4), json!(6)]);
    assert_eq!(rows[1]["tags"], json!(["a", "{\"b\": 1}", "true"]));
    let expected = [
        (2, starts[1], "id", "type"),
        (3, starts[3], "geo.deep.n", "type"),
        (5, starts[5], "new", "new field"),
        (6, starts[6], "", "json"),
        (8, starts[8], "id", "json"),
        (9, starts[9], "", "json"),
        (10, starts[10], "id", "type"),
        (11, starts[11], "x", "type"),
        (12, starts[12], "", "json"),
        (13, starts[13], "name", "utf8"),
    ];
    assert_eq!(bad, expected.map(|(row, byte, column, reason)| (row, byte, column.to_owned(), reason)));
}

#[test]
fn a_bad_value_is_told_with_both_types() {
    let read = read(br#"{"id": "twelve"}"#, json!({"format": "ndjson", "schema": {"id": "int64"}}), 9, 9);
    assert_eq!(read.rejects[0].message, "found a string \"twelve\", expected int64");
    assert_eq!(read.rejects[0].raw, br#"{"id": "twelve"}"#);
}

#[test]
fn csv_rows_of_the_wrong_length_or_type_are_rejected() {
    let text = "id,name\n1,a\n2\n3,b,c\nx,d\n\"4\",\"e\"\n\"5\"x,f\n6,\0\n";
    let options = json!({"format": "csv", "schema": {"id": "int64", "name": "string"}});
    let (rows, bad) = rejects(text, options);
    assert_eq!(rows, [json!({"id": 1, "name": "a"}), json!({"id": 4, "name": "e"})]);
    let expected = [
        (2, 12, "", "csv"),
        (3, 14, "", "csv"),
        (4, 20, "id", "type"),
        (6, 32, "", "csv"),
        (7, 39, "", "utf8"),
    ];
    assert_eq!(bad, expected.map(|(row, byte, column, reason)| (row, byte, column.to_owned(), reason)));
}

#[test]
fn nulls_of_csv_are_empty_fields_or_what_the_user_says() {
    let text = "a,b\n,\nNA,NA\n1,x\n";
    let options = json!({"format": "csv", "schema": {"a": "int64", "b": "string"}, "csv": {"null": "NA"}});
    let (rows, bad) = rejects(text, options);
    assert_eq!(rows, [json!({"a": null, "b": ""}), json!({"a": null, "b": null}), json!({"a": 1, "b": "x"})]);
    assert!(bad.is_empty());
}

#[test]
fn new_fields_are_kept_as_json_where_asked() {
    let text = "{\"id\": 1, \"new\": [1, {\"a\": null}], \"geo\": {\"alt\": 3, \"lat\": 1}}\n{\"id\": 2}\n";
    let options = json!({"format": "ndjson", "schema": {"id": "int64", "geo": "struct<lat: float64>"}, "new_fields": "extra"});
    let (rows, _) = rejects(text, options);
    let extra: Map<String, Value> = serde_json::from_str(rows[0]["_extra"].as_str().unwrap()).unwrap();
    assert_eq!(Value::Object(extra), json!({"new": [1, {"a": null}], "geo.alt": 3}));
    assert_eq!(rows[1]["_extra"], Value::Null);
    let (rows, _) =
        rejects("b,id\nx\"y,1\n", json!({"format": "csv", "schema": {"id": "int64"}, "new_fields": "extra"}));
    assert_eq!(rows[0], json!({"id": 1, "_extra": "{\"b\":\"x\\\"y\"}"}));
}

#[test]
fn every_type_is_read_from_json_and_from_csv() {
    let types = [
        ("int8", "-5", json!(-5)),
        ("uint64", "18446744073709551615", json!(18_446_744_073_709_551_615u64)),
        ("float32", "0.5", json!(0.5)),
        ("bool", "true", json!(true)),
        ("date", "2026-01-31", json!("2026-01-31")),
        ("timestamp", "2026-01-31T01:02:03Z", json!("2026-01-31T01:02:03Z")),
        ("timestamp('%d/%m/%Y %H:%M','Europe/Paris')", "31/01/2026 02:02", json!("2026-01-31T01:02:00Z")),
        ("decimal(10,2)", "12.50", json!("12.50")),
        ("decimal(50,1)", "1.5", json!("1.5")),
        ("binary", "aGk=", json!("6869")),
        ("list<int16>", "[1,null]", json!([1, null])),
        ("struct<a: bool>", "{\"a\":false}", json!({"a": false})),
    ];
    for (name, text, expected) in types {
        let quoted = matches!(name.split('(').next(), Some("date" | "timestamp" | "binary"));
        let in_json = if quoted { format!("{{\"v\":\"{text}\"}}") } else { format!("{{\"v\":{text}}}") };
        let in_csv = format!("v\n\"{}\"\n", text.replace('"', "\"\""));
        for (format, text) in [("ndjson", in_json), ("csv", in_csv)] {
            let read = read(text.as_bytes(), json!({"format": format, "schema": {"v": name}}), 5, 9);
            assert!(read.rejects.is_empty(), "{name} {format}: {:?}", read.rejects);
            let value = &read.rows[0]["v"];
            let text_of = |value: &Value| value.to_string().trim_matches('"').to_owned();
            let number = |value: &Value| text_of(value).parse::<f64>().ok();
            let is_same = *value == expected
                || text_of(value) == text_of(&expected)
                || number(value).is_some_and(|value| number(&expected) == Some(value));
            assert!(is_same, "{name} {format}: {value}");
        }
    }
}

#[test]
fn values_out_of_range_are_rejected() {
    for (name, text) in [
        ("int8", "128"),
        ("uint8", "-1"),
        ("int64", "1.5"),
        ("float64", "9007199254740993"),
        ("decimal(4,1)", "1.25"),
        ("decimal(4,1)", "12345"),
        ("date", "\"2026-13-01\""),
        ("bool", "1"),
        ("binary", "\"?\""),
    ] {
        let line = format!("{{\"v\":{text}}}");
        let read = read(line.as_bytes(), json!({"format": "ndjson", "schema": {"v": name}}), 64, 64);
        assert_eq!(read.rejects.len(), 1, "{name} {text}: {:?}", read.rows);
        assert_eq!(read.rejects[0].reason, "type");
    }
}

// reliability T7, 30
#[test]
fn deep_lines_are_rows_like_any_bad_row() {
    for (column, new_fields) in [("id", "fail"), ("other", "ignore"), ("name", "extra")] {
        let deep = format!("{{\"{column}\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let text = format!("{{\"id\": 1}}\n{deep}\n{{\"id\": 2}}\n");
        let options = json!({"format": "ndjson", "schema": {"id": "int64", "name": "string"}, "new_fields": new_fields});
        let read = read(text.as_bytes(), options, 1 << 16, 1 << 16);
        assert_eq!((read.rows.len(), read.rejects.len()), (2, 1));
        assert_eq!(read.rejects[0].row, 2);
    }
}

#[test]
fn short_text_cannot_stand_for_much_memory() {
    let fields: Vec<String> = (0..500).map(|n| format!("f{n}: int64")).collect();
    let options = json!({"format": "ndjson", "schema": {"a": format!("list<struct<{}>>", fields.join(", "))}, "max_record_bytes": "1MiB"});
    let line = format!("{{\"a\": [{}{{}}]}}", "{},".repeat(100_000));
    let read = read(line.as_bytes(), options, 1 << 20, 1 << 20);
    assert_eq!(read.rejects[0].reason, "too long");
}

// reliability 43; I7
#[test]
fn a_record_without_end_is_an_error_that_names_the_limit() {
    let text = format!("{{\"a\": 1}}\n{{\"a\": \"{}", "x".repeat(100_000));
    for format in ["ndjson", "json", "csv"] {
        let options = json!({"format": format, "schema": {"a": "int64"}, "max_record_bytes": "10KB", "csv": {"header": false}});
        let error = read(text.as_bytes(), options, 1000, 1000).error.unwrap();
        assert_eq!(error.kind(), aqueduct_core::ErrorKind::Limit);
        assert_eq!(error.context("max_record_bytes"), Some("10KB"));
    }
}

#[test]
fn documents_that_are_none_are_errors() {
    for (text, pointer) in [
        ("[{\"a\": 1}", ""),
        ("{\"b\": []}", "/a"),
        ("[]", "/a"),
        ("{\"a\": 3}", "/a"),
        ("]", ""),
        ("{\"a\": [}", "/a"),
    ] {
        let options = json!({"format": "json", "schema": {"a": "int64"}, "records": pointer});
        assert!(read(text.as_bytes(), options, 3, 9).error.is_some(), "{text}");
    }
}

#[test]
fn an_object_is_one_record_and_documents_may_follow_each_other() {
    let options = json!({"format": "json", "schema": {"a": "int64"}});
    let (rows, _) = rejects("{\"a\": 1}\n{\"a\": 2} [{\"a\": 3}]", options);
    assert_eq!(rows, [json!({"a": 1}), json!({"a": 2}), json!({"a": 3})]);
    let options = json!({"format": "json", "schema": {"a": "int64"}, "records": "/x"});
    assert_eq!(rejects("{\"x\": {\"a\": 1}, \"y\": 2}", options).0, [json!({"a": 1})]);
}

#[test]
fn values_passed_over_take_no_memory() {
    let text = format!("{{\"meta\": \"{}\", \"rows\": [{{\"a\": 1}}]}}", "x".repeat(1_000_000));
    let options =
        json!({"format": "json", "schema": {"a": "int64"}, "records": "/rows", "max_record_bytes": "1KiB"});
    assert_eq!(rejects(&text, options).0, [json!({"a": 1})]);
}

// reliability 11, 33
#[test]
fn what_is_something_else_is_named_and_what_is_empty_is_empty() {
    let options = || json!({"format": "ndjson", "schema": {"a": "int64"}});
    let error = read(b"<!DOCTYPE html><html>", options(), 64, 64).error.unwrap();
    assert!(error.message().contains("HTML page"), "{error}");
    assert!(read(b"\xff\xfe{\0", options(), 64, 64).error.unwrap().message().contains("UTF-16"));
    for (format, text) in
        [("ndjson", ""), ("csv", ""), ("csv", "a\n"), ("csv", "\u{feff}a"), ("json", " \n"), ("json", "[]")]
    {
        let read = read(text.as_bytes(), json!({"format": format, "schema": {"a": "int64"}}), 4, 64);
        assert!(read.error.is_none() && read.rows.is_empty() && read.rejects.is_empty(), "{format} {text:?}");
    }
}

#[test]
fn headers_that_mislead_are_errors() {
    for (text, word) in [("a,a\n1,2\n", "twice"), ("a,b\n1,2\n", "no column"), ("b,c\n1,2\n", "no column")] {
        let read = read(text.as_bytes(), json!({"format": "csv", "schema": {"a": "int64"}}), 64, 64);
        assert!(read.error.unwrap().message().contains(word), "{text}");
    }
}

#[test]
fn comments_and_lines_without_text_are_no_rows() {
    let text = "# made by hand\n\na;b\n#1;2\n\n3;4\r\n";
    let options = json!({"format": "csv", "schema": {"a": "int64", "b": "int64"}, "csv": {"delimiter": ";", "comment": "#"}});
    assert_eq!(rejects(text, options).0, [json!({"a": 3, "b": 4})]);
}

/// When blocks go on, in milliseconds, of a feed that gives a line every so often, and how many lines are in each.
async fn blocks_of_a_feed(every: Duration, flush_after: Duration, n_lines: usize) -> Vec<(u128, usize)> {
    let tasks = Tasks::new(2);
    let started = Instant::now();
    let feed = futures::stream::iter(1..=n_lines).then(move |n| async move {
        tokio::time::sleep(every).await;
        Ok(Bytes::from(format!("{{\"n\":{n}}}\n")))
    });
    let (body, limits) = (Box::pin(feed), DecodedLimits::default());
    let unpacker = Unpacker::of_stream(body, "feed", Some(Compression::None), limits, &tasks).await.unwrap();
    let options: ReadOptions =
        serde_json::from_value(json!({"format": "ndjson", "schema": {"n": "int64"}})).unwrap();
    let schema = declared_schema(&options, None).unwrap().unwrap();
    let spec = DecodeSpec { flush_after, ..spec_of("feed", schema, options) };
    let (sender, mut receiver) = mpsc::channel(1);
    let _reader = tasks.spawn(read_blocks(unpacker, cutting_of(&spec, 1 << 20), sender));
    let mut blocks = Vec::new();
    while let Some(block) = receiver.recv().await {
        let n_lines = block.unwrap().bytes.iter().filter(|byte| **byte == b'\n').count();
        blocks.push((started.elapsed().as_millis(), n_lines));
    }
    blocks
}

// S1.1: what is live goes on at once
#[tokio::test(start_paused = true)]
async fn a_record_waits_no_longer_than_it_may_whether_more_comes_or_not() {
    let millis = Duration::from_millis;
    let alone = blocks_of_a_feed(millis(1000), millis(30), 2).await;
    assert_eq!(alone, [(1030, 1), (2000, 1)]);
    // Each line comes before the one before it is late: that puts nothing off.
    let trickle = blocks_of_a_feed(millis(20), millis(30), 6).await;
    assert!(trickle.windows(2).all(|two| two[1].0 - two[0].0 <= 50), "{trickle:?}");
    assert_eq!((trickle[0], trickle.iter().map(|(_, n)| n).sum::<usize>()), ((50, 2), 6), "{trickle:?}");
    // What comes at once stays together.
    assert_eq!(blocks_of_a_feed(millis(0), millis(30), 500).await.len(), 1);
}
