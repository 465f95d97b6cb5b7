//! Text files through the whole reader.

use std::sync::Arc;

use aqueduct_core::{ErrorKind, Result};
use aqueduct_formats::write::TextCompression;
use aqueduct_formats::{Format, declared_schema, decode};
use aqueduct_primitives::{Budget, ByteCount};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::{Member, Reader, options, packed, stream_of, zip};

fn rows(n: u64) -> Vec<Value> {
    let country = |n: u64| if n.is_multiple_of(2) { "DE" } else { "FR" };
    let row =
        |n: u64| json!({ "id": n, "country": country(n), "score": n as f64 / 8.0, "city": "Łódź 東京" });
    (0..n).map(row).collect()
}

fn text_of(kind: &str, rows: &[Value]) -> String {
    let fields = |row: &Value, by: &str| {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        row.as_object().unwrap().values().map(text).collect::<Vec<_>>().join(by)
    };
    let lines = |by: &str| {
        let head = ["id", "country", "score", "city"].join(by);
        rows.iter().fold(head + "\n", |text, row| text + &fields(row, by) + "\n")
    };
    match kind {
        "csv" => lines(","),
        "tsv" => lines("\t"),
        "json" => json!(rows).to_string(),
        _ => rows.iter().map(|row| format!("{row}\n")).collect(),
    }
}

// S0.3: every text format in every compression, found by `auto`.
#[tokio::test]
async fn every_format_in_every_compression_is_read_alike() {
    let rows = rows(3000);
    for (kind, plain, gz, zst, bz2, xz, archive) in [
        ("csv", "a.csv", "a.csv.gz", "a.csv.zst", "a.csv.bz2", "a.csv.xz", "a.csv.zip"),
        ("tsv", "a.tsv", "a.tsv.gz", "a.tsv.zst", "a.tsv.bz2", "a.tsv.xz", "a.tsv.zip"),
        ("json", "a.json", "a.json.gz", "a.json.zst", "a.json.bz2", "a.json.xz", "a.json.zip"),
        ("ndjson", "a.ndjson", "download", "a.ndjson.zst", "a.ndjson.bz2", "a.ndjson.xz", "a.zip"),
    ] {
        let text = text_of(kind, &rows);
        let bytes = text.as_bytes();
        let member = format!("in/{plain}");
        for (name, body) in [
            (plain, bytes.to_vec()),
            (gz, packed(bytes, TextCompression::Gzip)),
            (zst, packed(bytes, TextCompression::Zstd)),
            (bz2, packed(bytes, TextCompression::Bzip2)),
            (xz, packed(bytes, TextCompression::Xz)),
            (archive, zip(&[Member::new(&member, bytes)])),
        ] {
            let outcome = Reader::new(name, json!({})).stream(&body).await;
            assert!(outcome.error.is_none() && outcome.rejects.is_empty(), "{name}: {:?}", outcome.error);
            assert!(outcome.rows() == rows, "{name}");
        }
    }
}

// S0.4
#[tokio::test]
async fn rows_and_rejects_are_counted_through_all_blocks() {
    let mut lines: Vec<String> = rows(40_000).iter().map(Value::to_string).collect();
    let bad = [3, 4, 20_000, 39_999];
    bad.iter().for_each(|at| lines[*at] = r#"{"id": "twelve"}"#.to_owned());
    let text = lines.join("\n");
    let mut reader = Reader::new("https://host/a.ndjson", json!({"infer_rows": 2}));
    reader.origin = true;
    let outcome = reader.stream(text.as_bytes()).await;
    assert!(outcome.error.is_none());
    assert_eq!((outcome.rows_read, outcome.n_rows()), (40_000, 39_996));
    let place = |at: &usize| lines[..*at].iter().map(|line| line.len() + 1).sum::<usize>() as u64;
    let expected: Vec<_> = bad.iter().map(|at| (*at as u64 + 1, Some(place(at)))).collect();
    let found: Vec<_> = outcome.rejects.iter().map(|bad| (bad.row, bad.byte)).collect();
    assert_eq!(found, expected);
    for row in outcome.rows() {
        assert_eq!(row["_row"].as_u64(), row["id"].as_u64().map(|id| id + 1));
        assert_eq!(row["_file"], "https://host/a.ndjson");
    }
    let most = outcome.batches.iter().map(|batch| batch.num_rows()).max();
    assert!(most.is_some_and(|most| most <= 8192), "{most:?}");
}

#[tokio::test]
async fn a_member_of_a_zip_begins_anew_and_its_rows_go_on() {
    let archive = zip(&[
        Member::new("a.csv", b"id,name\n1,a\n"),
        Member::new("folder/", b""),
        Member::new("b.csv", b"name,id\nb,2\nc,x\n"),
        Member::new("empty.csv", b""),
    ]);
    let mut reader = Reader::new("both.zip", json!({"schema": {"id": "int64", "name": "string"}}));
    reader.origin = true;
    let outcome = reader.stream(&archive).await;
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    let expected = [
        json!({"id": 1, "name": "a", "_file": "both.zip", "_row": 1}),
        json!({"id": 2, "name": "b", "_file": "both.zip", "_row": 2}),
    ];
    assert_eq!(outcome.rows(), expected);
    assert_eq!((outcome.rejects[0].row, outcome.rejects[0].byte), (3, Some(12)));
}

// The acceptance case of the 100 MB line, in small; I7
#[tokio::test]
async fn a_large_record_takes_its_memory_from_the_lane_and_gives_it_back() {
    let pad = "x".repeat(3_000_000);
    let text = format!("{{\"a\": 1}}\n{{\"a\": 2, \"pad\": \"{pad}\"}}\n{{\"a\": 3}}\n");
    let read = async |large: u64| {
        let mut reader = Reader::new("a.ndjson", json!({"schema": {"a": "int64", "pad": "string"}}));
        reader.large = Budget::new("large", ByteCount::mib(large));
        let outcome = reader.stream(text.as_bytes()).await;
        let numbers: Vec<Value> = outcome.rows().iter().map(|row| row["a"].clone()).collect();
        let error = outcome.error;
        drop(outcome.batches);
        (numbers, error, reader.large.total().saturating_sub(reader.large.free()))
    };
    let (numbers, error, held) = read(16).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(numbers, [json!(1), json!(2), json!(3)]);
    assert_eq!(held, ByteCount::ZERO);
    let (_, error, held) = read(1).await;
    let error = error.unwrap();
    assert_eq!((error.kind(), held), (ErrorKind::Limit, ByteCount::ZERO));
    assert!(error.message().contains("`memory`") && error.context("file") == Some("a.ndjson"), "{error}");
}

#[tokio::test]
async fn the_memory_of_a_large_record_goes_with_its_rows_and_with_nothing_else() {
    let pad = "x".repeat(3_000_000);
    let small: Vec<String> = (1..200).map(|n| format!("{{\"a\": {n}, \"pad\": \"y\"}}")).collect();
    let large = format!("{{\"a\": 0, \"pad\": \"{pad}\"}}");
    for (name, text) in [
        ("a.ndjson", format!("{large}\n{}\n", small.join("\n"))),
        ("a.json", format!("[{large},{}]", small.join(","))),
    ] {
        let reader = Reader::new(name, json!({"schema": {"a": "int64", "pad": "string"}}));
        let schema = declared_schema(&options(reader.options.clone()), None).unwrap().unwrap();
        let mut rows = decode(stream_of(text.as_bytes(), 5000), reader.spec(schema), &reader.tasks);
        let first = rows.next().await.unwrap().unwrap();
        assert_eq!(first.records.num_rows(), 1, "{name}");
        assert!(first.reservation.size() >= aqueduct_core::retained_bytes(&first.records), "{name}");
        let held = reader.large.total().saturating_sub(reader.large.free());
        assert_eq!(held, first.reservation.size(), "{name}");
        let mut n_rows = 0;
        while let Some(rest) = rows.next().await {
            n_rows += rest.unwrap().records.num_rows();
        }
        assert_eq!(n_rows, 199, "{name}: the rest passes while the first is held");
    }
}

#[tokio::test]
async fn an_endless_line_is_an_error_after_the_rows_before_it() {
    let line = Bytes::from("x".repeat(100_000));
    let head = std::iter::once(Bytes::from_static(b"{\"a\": 1}\n"));
    let endless =
        futures::stream::iter(head.chain(std::iter::repeat(line)).map(Ok::<_, aqueduct_core::Error>));
    let reader = Reader::new("a.ndjson", json!({"schema": {"a": "int64"}, "max_record_bytes": "2MB"}));
    let schema = declared_schema(&options(reader.options.clone()), None).unwrap().unwrap();
    let outcome =
        crate::support::collect(decode(Box::pin(endless), reader.spec(schema), &reader.tasks)).await;
    assert_eq!(outcome.n_rows(), 1);
    let error = outcome.error.unwrap();
    assert_eq!((error.kind(), error.context("max_record_bytes")), (ErrorKind::Limit, Some("2MB")));
    assert_eq!(error.context("byte"), Some("9"));
}

// A row goes on within a second, though no block is full.
#[tokio::test]
async fn rows_go_on_while_the_input_waits() {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes>>(1);
    let body = Box::pin(futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|bytes| (bytes, receiver))
    }));
    let reader = Reader::new("-", json!({"format": "ndjson", "schema": {"a": "int64"}}));
    let schema = declared_schema(&options(reader.options.clone()), Some(Format::Ndjson)).unwrap().unwrap();
    let mut rows = decode(body, reader.spec(schema), &reader.tasks);
    for n in 0..3 {
        sender.send(Ok(Bytes::from(format!("{{\"a\": {n}}}\n")))).await.unwrap();
        let decoded = rows.next().await.unwrap().unwrap();
        assert_eq!(decoded.records.num_rows(), 1);
    }
    drop(sender);
    assert!(rows.next().await.is_none());
}

// The rows before an error come before it; tasks end when the stream is dropped.
#[tokio::test]
async fn an_error_of_the_body_comes_after_its_rows_and_a_drop_stops_the_tasks() {
    let failing = || {
        let error = aqueduct_core::Error::new(ErrorKind::Io, "read", "cut");
        let items = [Ok(Bytes::from_static(b"{\"a\": 1}\n{\"a\"")), Err(error)];
        Box::pin(futures::stream::iter(items))
    };
    let reader = Reader::new("a.ndjson", json!({"schema": {"a": "int64"}}));
    let schema = declared_schema(&options(reader.options.clone()), None).unwrap().unwrap();
    let outcome =
        crate::support::collect(decode(failing(), reader.spec(Arc::clone(&schema)), &reader.tasks)).await;
    assert_eq!(outcome.error.unwrap().kind(), ErrorKind::Io);
    let endless = Box::pin(futures::stream::repeat_with(|| Ok(Bytes::from_static(b"{\"a\": 1}\n"))));
    let mut rows = decode(endless, reader.spec(schema), &reader.tasks);
    assert!(rows.next().await.is_some());
    drop(rows);
    reader.tasks.join().await;
    assert_eq!(reader.tasks.n_running(), 0);
}

#[tokio::test]
async fn text_is_lines_and_binary_is_pieces() {
    let outcome = Reader::new("a.txt", json!({})).stream("one\r\n\nthree".as_bytes()).await;
    assert_eq!(outcome.rows(), [json!({"line": "one"}), json!({"line": ""}), json!({"line": "three"})]);
    let body = packed(&vec![7; 600_000], TextCompression::None);
    let mut reader = Reader::new("a.gz", json!({"format": "binary"}));
    reader.origin = true;
    let schema = declared_schema(&options(reader.options.clone()), Some(Format::Binary)).unwrap().unwrap();
    let outcome =
        crate::support::collect(decode(stream_of(&body, 400_000), reader.spec(schema), &reader.tasks)).await;
    let mut next = 0;
    for batch in &outcome.batches {
        let offsets = arrow::array::AsArray::as_primitive::<arrow::datatypes::UInt64Type>(batch.column(1));
        let bytes = arrow::array::AsArray::as_binary::<i32>(batch.column(2));
        assert_eq!(offsets.value(0), next);
        assert!(bytes.value(0).len() <= 256 << 10);
        next += bytes.value(0).len() as u64;
    }
    assert_eq!(next, 600_000);
}

#[tokio::test]
async fn columns_are_inferred() {
    let reader = Reader::new("a.ndjson", json!({}));
    let infer = |name, text: &'static str, more: Value| {
        let tasks = reader.tasks.clone();
        async move {
            let options = options(more);
            let schema = aqueduct_formats::infer(
                stream_of(text.as_bytes(), 10),
                name,
                &options,
                Default::default(),
                &tasks,
            )
            .await
            .unwrap();
            let types =
                schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type()));
            types.collect::<Vec<_>>().join("; ")
        }
    };
    let text = "{\"a\":1,\"b\":null,\"c\":[1]}\nnot json\n{\"a\":1.5,\"c\":[2.5],\"d\":{\"e\":true}}\n{\"d\":{\"f\":\"x\"}}\n";
    let types = infer("a.ndjson", text, json!({})).await;
    assert_eq!(types, "a: Float64; b: Utf8; c: List(Float64); d: Struct(\"e\": Boolean, \"f\": Utf8)");
    let types = infer("a.csv", "a,b,c,d,e\n1,2,,007,true\n2,2.5,,1,FALSE\n", json!({})).await;
    assert_eq!(types, "a: Int64; b: Float64; c: Utf8; d: Utf8; e: Boolean");
    let types = infer("a.csv", "1,x\n2,y\n", json!({"csv": {"header": false}})).await;
    assert_eq!(types, "column_1: Int64; column_2: Utf8");
    assert_eq!(infer("a.csv", "", json!({})).await, "");
    assert_eq!(infer("a.csv", "id,name\n", json!({})).await, "id: Utf8; name: Utf8");
    assert_eq!(infer("a.ndjson", "{\"a\":1}\n{\"a\":\"x\"}\n", json!({"infer_rows": 1})).await, "a: Int64");
    assert_eq!(
        infer("a.ndjson", "{\"a\":1}\n{\"a\":\"x\"}\n", json!({"infer_rows": "all"})).await,
        "a: Utf8"
    );
    assert_eq!(
        infer("a.csv", "x", json!({"schema": {"b": "date", "a": "int8"}})).await,
        "b: Date32; a: Int8"
    );
}
