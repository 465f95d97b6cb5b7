//! Items of STAC through the whole reader.

use std::sync::Arc;

use aqueduct_formats::write::TextCompression;
use aqueduct_formats::{DecodedLimits, infer_file, timestamp};
use aqueduct_primitives::{Budget, ByteCount};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Float32Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type};
use serde_json::{Value, json};

use crate::support::{Member, MemoryFile, Reader, options, packed, zip};

fn item(n: u64) -> Value {
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": n.to_string(),
        "geometry": {"type": "Point", "coordinates": [n, 2]},
        "properties": {"datetime": "2026-01-31T01:02:03Z", "n": n},
        "links": [], "assets": {},
    })
}

fn items(n: u64) -> Vec<Value> {
    (0..n).map(item).collect()
}

#[tokio::test]
async fn every_kind_of_file_gives_the_same_rows() {
    let items = items(2000);
    let lines: String = items.iter().map(|item| format!("{item}\n")).collect();
    let list = Value::Array(items.clone()).to_string();
    let collection = json!({"type": "FeatureCollection", "links": [], "features": items}).to_string();
    let member = Member::new("in/a.jsonl", lines.as_bytes());
    let expected = Reader::new("a.ndjson", json!({"format": "stac"})).stream(lines.as_bytes()).await.rows();
    assert_eq!(expected.len(), 2000);
    for (name, body) in [
        ("a", lines.as_bytes().to_vec()),
        ("a.json", list.as_bytes().to_vec()),
        ("a.geojson", collection.as_bytes().to_vec()),
        ("a.geojson.gz", packed(collection.as_bytes(), TextCompression::Gzip)),
        ("a.zip", zip(&[member])),
    ] {
        let mut reader = Reader::new(name, json!({"format": "stac"}));
        let outcome = reader.stream(&body).await;
        assert!(outcome.error.is_none() && outcome.rejects.is_empty(), "{name}: {:?}", outcome.error);
        assert!(outcome.rows() == expected, "{name}");
        assert!(outcome.batches.iter().all(|batch| batch.schema().field(4).name() == "geometry"));
        reader.skip = 1234;
        let left = reader.stream(&body).await;
        assert!(left.rows() == expected[1234..], "{name}");
    }
}

// A line that is broken is a row like any bad row where the name says that records are lines.
#[tokio::test]
async fn a_broken_line_is_its_own_affair() {
    let text = format!("{}\n{{\"id\": [\n{}\n", item(1), item(2));
    let mut reader = Reader::new("a.ndjson", json!({"format": "stac"}));
    reader.origin = true;
    let outcome = reader.stream(text.as_bytes()).await;
    assert_eq!((outcome.n_rows(), outcome.rejects.len(), outcome.rows_read), (2, 1, 3));
    assert_eq!(
        (outcome.rejects[0].row, outcome.rejects[0].byte),
        (2, Some(item(1).to_string().len() as u64 + 1))
    );
    assert_eq!(outcome.rows()[1]["_row"], 3);
}

fn parquet() -> Vec<u8> {
    let (ids, geometry): (ArrayRef, ArrayRef) =
        (Arc::new(StringArray::from(vec!["a", "b"])), Arc::new(BinaryArray::from_vec(vec![b"x", b"y"])));
    let times: ArrayRef =
        Arc::new(TimestampMillisecondArray::from(vec![Some(1500), None]).with_timezone("UTC"));
    let rows =
        RecordBatch::try_from_iter([("id", ids), ("geometry", geometry), ("datetime", times)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test]
async fn parquet_is_read_as_it_is_with_instants_in_microseconds() {
    for name in ["a.parquet", "download", "a.json"] {
        let reader = Reader::new(name, json!({"format": "stac"}));
        let outcome = reader.file(MemoryFile::new(parquet())).await;
        assert!(outcome.error.is_none(), "{name}: {:?}", outcome.error);
        let batch = &outcome.batches[0];
        assert_eq!(*batch.schema().field(2).data_type(), timestamp(), "{name}");
        let times = batch.column(2).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        assert_eq!((times.value(0), times.len()), (1_500_000, 2));
        let read = reader.stream_then_file(&parquet(), batch.schema()).await;
        assert!(read.error.is_none() && read.n_rows() == 2, "{name}: {:?}", read.error);
    }
}

/// Boxes as rustac and earlier versions of stac-geoparquet write them.
#[tokio::test]
async fn boxes_of_parquet_are_laid_out_as_items_have_them() {
    let side = |numbers: [f32; 3]| -> ArrayRef { Arc::new(Float32Array::from(numbers.to_vec())) };
    let fields =
        [("xmax", [3., 3., 3.]), ("xmin", [1., 1., 1.]), ("ymax", [4., 4., 4.]), ("ymin", [2., 2., 2.])];
    let sides =
        fields.map(|(name, numbers)| (Arc::new(Field::new(name, DataType::Float32, true)), side(numbers)));
    let in_order: ArrayRef = Arc::new(StructArray::from(sides.to_vec()));
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>([
        Some([1., 2., 3., 4.].map(Some).to_vec()),
        None,
        Some([1., 2., 0., 3., 4., 9.].map(Some).to_vec()),
        Some(vec![Some(1.)]),
    ]));
    let flat = json!({"xmin": 1.0, "ymin": 2.0, "xmax": 3.0, "ymax": 4.0});
    let level = json!({"xmin": 1.0, "ymin": 2.0, "zmin": null, "xmax": 3.0, "ymax": 4.0, "zmax": null});
    let high = json!({"xmin": 1.0, "ymin": 2.0, "zmin": 0.0, "xmax": 3.0, "ymax": 4.0, "zmax": 9.0});
    for (boxes, expected, n_bad) in [
        (in_order, vec![flat.clone(), flat.clone(), flat.clone()], 0),
        (lists, vec![level, Value::Null, high], 1),
    ] {
        let ids: ArrayRef = Arc::new(StringArray::from(vec!["a"; boxes.len()]));
        let rows = RecordBatch::try_from_iter([("id", ids), ("bbox", boxes)]).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        let file = MemoryFile::new(writer.into_inner().unwrap());
        let outcome = Reader::new("a.parquet", json!({"format": "stac"})).file(file).await;
        assert!(outcome.error.is_none() && outcome.rejects.len() == n_bad, "{:?}", outcome.error);
        let read: Vec<_> = outcome.rows().iter().map(|row| row["bbox"].clone()).collect();
        assert_eq!(read, expected);
        assert!(outcome.rejects.iter().all(|reject| reject.message.contains("a box of 4 or 6 numbers")));
    }
}

// reliability 26: a geometry of many points, in small blocks; an item over the limit of a record
#[tokio::test]
async fn a_large_geometry_takes_the_lane_for_large_records() {
    let n = 200_000;
    let positions = "[12.345678,45.678901],".repeat(n);
    let text = item(1).to_string().replace(
        "{\"type\":\"Point\",\"coordinates\":[1,2]}",
        &format!("{{\"coordinates\":[{positions}[0,0]],\"type\":\"LineString\"}}"),
    );
    assert!(text.len() > 4_000_000);
    let text = format!("[{},{text}]", item(0));
    let read = async |max: &'static str| {
        let mut reader =
            Reader::new("a.json", json!({"format": "stac", "max_record_bytes": max, "infer_rows": 1}));
        reader.large = Budget::new("large", ByteCount::mib(32));
        reader.stream(text.as_bytes()).await
    };
    let outcome = read("8MB").await;
    assert!(outcome.error.is_none() && outcome.rejects.is_empty(), "{:?}", outcome.error);
    let rows: usize = outcome.batches.iter().map(RecordBatch::num_rows).sum();
    let last = outcome.batches.iter().rfind(|batch| batch.num_rows() > 0).unwrap();
    let wkb = last.column_by_name("geometry").unwrap().as_binary::<i32>();
    assert_eq!((rows, wkb.value(wkb.len() - 1).len()), (2, 9 + 16 * (n + 1)));
    let error = read("2MB").await.error.unwrap();
    assert_eq!(error.context("max_record_bytes"), Some("2MB"));
}

#[tokio::test]
async fn declared_columns_drive_the_reader() {
    let schema = json!({
        "id": "string", "geometry": "binary", "n": "float32",
        "bbox": "struct<xmin: float64, ymin: float64, zmin: float64, xmax: float64, ymax: float64, zmax: float64>",
    });
    let with_box = |n: u64, numbers: Value| {
        let mut item = item(n);
        item.as_object_mut().unwrap().insert("bbox".into(), numbers);
        item
    };
    let text = format!("{}{}", with_box(1, json!([1, 2, 3, 4])), with_box(2, json!([1, 2, 3, 4, 5, 6])));
    let reader = Reader::new("a.json", json!({"format": "stac", "schema": schema, "new_fields": "ignore"}));
    let outcome = reader.stream(text.as_bytes()).await;
    assert!(outcome.error.is_none() && outcome.rejects.is_empty(), "{:?}", outcome.rejects);
    let rows = outcome.rows();
    assert_eq!(
        rows[0]["bbox"],
        json!({"xmin": 1.0, "ymin": 2.0, "zmin": null, "xmax": 3.0, "ymax": 4.0, "zmax": null})
    );
    assert_eq!((&rows[1]["bbox"]["zmax"], &rows[1]["n"]), (&json!(6.0), &json!(2.0)));
    let (file, options) = (MemoryFile::new(item(1).to_string()), options(json!({"format": "stac"})));
    let inferred = infer_file(file, "a.json", &options, DecodedLimits::default(), &reader.tasks);
    assert_eq!(inferred.await.unwrap().fields().len(), 10, "no assets, no column of them");
}
