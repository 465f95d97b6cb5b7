//! Files that are read on from somewhere in the middle.

use std::sync::Arc;

use aqueduct_formats::write::TextCompression;
use aqueduct_formats::{Format, declared_schema, decode};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use serde_json::{Value, json};

use crate::support::{Member, MemoryFile, Outcome, Reader, collect, options, packed, stream_of, zip};

/// The good rows with their numbers, and the numbers of the bad ones.
fn told(outcome: &Outcome) -> (Vec<Value>, Vec<u64>) {
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    (outcome.rows(), outcome.rejects.iter().map(|reject| reject.row).collect())
}

/// What is left after each place is what stood after it, and is told with the same numbers.
async fn check(name: &'static str, given: Value, bytes: &[u8]) {
    let mut reader = Reader::new(name, given);
    (reader.origin, reader.batch_rows) = (true, 7);
    let is_parquet = std::path::Path::new(name).extension().is_some_and(|suffix| suffix == "parquet");
    let read = async |reader: &Reader| match is_parquet {
        true => reader.file(MemoryFile::new(bytes.to_vec())).await,
        false => {
            let schema = declared_schema(&options(reader.options.clone()), None).unwrap().unwrap();
            reader.stream_then_file(bytes, schema).await
        }
    };
    let whole = read(&reader).await;
    let (rows, rejected) = told(&whole);
    let n_rows = whole.rows_read;
    assert!(n_rows >= 40, "{name}: {n_rows} rows");
    assert_eq!(n_rows, (rows.len() + rejected.len()) as u64);
    for skip in 0..=n_rows {
        reader.skip = skip;
        let left = read(&reader).await;
        let expected: Vec<Value> =
            rows.iter().filter(|row| row["_row"].as_u64().unwrap() > skip).cloned().collect();
        let expected_rejected: Vec<u64> = rejected.iter().copied().filter(|row| *row > skip).collect();
        assert_eq!(told(&left), (expected, expected_rejected), "{name} after {skip} rows");
        assert_eq!(left.rows_read, n_rows - skip);
    }
}

fn lines(good: impl Fn(u64) -> String, bad: &str) -> String {
    (0..50).map(|n| if n % 5 == 0 || n % 7 == 1 { format!("{bad}\n") } else { good(n) + "\n" }).collect()
}

// CKP-1
#[tokio::test]
async fn every_place_of_a_file_can_be_gone_on_from() {
    let schema = || json!({"schema": {"n": "int64"}});
    let ndjson = lines(|n| format!("{{\"n\":{n}}}"), "{\"n\":\"x\"}");
    let csv = "n\n".to_owned() + &lines(|n| n.to_string(), "x");
    check("a.ndjson", schema(), ndjson.as_bytes()).await;
    check("a.csv", schema(), csv.as_bytes()).await;
    check("a.csv.gz", schema(), &packed(csv.as_bytes(), TextCompression::Gzip)).await;
    let members = ["a.csv", "b.csv"].map(|name| Member::new(name, csv.as_bytes()));
    check("a.csv.zip", schema(), &zip(&members)).await;
    // One that must be read from a disk from its second member on.
    let [first, second] = members;
    let second = Member { is_stored: true, has_descriptor: true, ..second };
    check("a.csv.zip", schema(), &zip(&[first, second])).await;
    let texts = (0..50).map(|n| if n % 5 == 0 || n % 7 == 1 { "x".into() } else { n.to_string() });
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    check("a.parquet", schema(), &writer.into_inner().unwrap()).await;
}

// CKP-1
#[tokio::test]
async fn a_binary_file_goes_on_at_a_byte_however_it_is_cut() {
    let body: Vec<u8> = (0..10_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut reader = Reader::new("a.bin", json!({"format": "binary"}));
    let schema = declared_schema(&options(reader.options.clone()), Some(Format::Binary)).unwrap().unwrap();
    for (skip, piece) in [(0, 40_000), (1, 999), (4000, 1000), (4000, 999), (39_999, 7000), (40_000, 999)] {
        reader.skip = skip;
        let spec = reader.spec(Arc::clone(&schema));
        let left = collect(decode(stream_of(&body, piece), spec, &reader.tasks)).await;
        let mut at = usize::try_from(skip).unwrap();
        for batch in &left.batches {
            let offsets = batch.column(1).as_primitive::<arrow::datatypes::UInt64Type>();
            let bytes = batch.column(2).as_binary::<i32>().value(0);
            assert_eq!(offsets.value(0), at as u64);
            assert_eq!(bytes, &body[at..at + bytes.len()]);
            at += bytes.len();
        }
        assert_eq!((at, left.rows_read), (body.len(), body.len() as u64 - skip));
    }
    // An empty file has one piece, and that only once.
    for (skip, n_pieces) in [(0, 1), (1, 0)] {
        reader.skip = skip;
        let spec = reader.spec(Arc::clone(&schema));
        let left = collect(decode(stream_of(&[], 1), spec, &reader.tasks)).await;
        assert_eq!((left.batches.len(), left.rows_read), (n_pieces, n_pieces as u64));
    }
}
