use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
    Int64Array, Int64Builder, ListArray, MapBuilder, StringArray, StringBuilder, TimestampMicrosecondArray,
    TimestampSecondArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Fields, Int8Type};
use serde_json::json;

use super::*;

fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .unwrap()
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn numbers(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

/// A point at 2, 3.
fn point() -> Vec<u8> {
    [&[1_u8, 1, 0, 0, 0][..], &2_f64.to_le_bytes(), &3_f64.to_le_bytes()].concat()
}

fn structs(columns: Vec<(&str, ArrayRef)>, nulls: Option<Vec<bool>>) -> ArrayRef {
    let fields: Fields =
        columns.iter().map(|(name, of)| Field::new(*name, of.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    Arc::new(StructArray::new(fields, columns, nulls.map(NullBuffer::from)))
}

#[test]
fn values_of_all_kinds_are_what_json_calls_them() {
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("k");
    map.values().append_value(1);
    map.append(true).unwrap();
    let dictionary: DictionaryArray<Int8Type> = ["d"].into_iter().collect();
    let batch = rows(vec![
        ("bool", Arc::new(BooleanArray::from(vec![true]))),
        ("int", Arc::new(Int64Array::from(vec![-7]))),
        ("uint", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        ("float", numbers(&[Some(1.5)])),
        ("text", texts(&[Some("t")])),
        ("bytes", Arc::new(BinaryArray::from(vec![&b"\x01\x02"[..]]))),
        ("time", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("UTC"))),
        ("second", Arc::new(TimestampSecondArray::from(vec![1]))),
        ("day", Arc::new(Date32Array::from(vec![1]))),
        ("decimal", Arc::new(Decimal128Array::from(vec![125]).with_precision_and_scale(5, 2).unwrap())),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None])]))),
        ("map", Arc::new(map.finish())),
        ("dictionary", Arc::new(dictionary)),
        ("nothing", texts(&[None])),
        ("proj:geometry", Arc::new(BinaryArray::from(vec![point().as_slice()]))),
    ]);
    let expected = json!({
        "bool": true, "int": -7, "uint": u64::MAX, "float": 1.5, "text": "t", "bytes": "AQI=",
        "time": "1970-01-01T00:00:01.500Z", "second": "1970-01-01T00:00:01Z", "day": "1970-01-02", "decimal": 1.25,
        "list": [1, null], "map": {"k": 1}, "dictionary": "d",
        "proj:geometry": {"type": "Point", "coordinates": [2.0, 3.0]},
    });
    assert_eq!(row_to_json(&batch, 0).unwrap(), expected);
}

#[test]
fn an_item_is_made_of_its_columns() {
    let asset = structs(
        vec![("href", texts(&[Some("a"), None])), ("title", texts(&[None, None]))],
        Some(vec![true, false]),
    );
    let batch = rows(vec![
        ("stac_version", texts(&[Some("1.1.0"), Some("1.1.0")])),
        ("id", texts(&[Some("one"), Some("two")])),
        ("geometry", Arc::new(BinaryArray::from_opt_vec(vec![Some(point().as_slice()), None]))),
        (
            "bbox",
            structs(
                vec![
                    ("xmin", numbers(&[Some(2.0), None])),
                    ("ymin", numbers(&[Some(3.0), None])),
                    ("zmin", numbers(&[None, None])),
                    ("xmax", numbers(&[Some(2.0), None])),
                    ("ymax", numbers(&[Some(3.0), None])),
                    ("zmax", numbers(&[None, None])),
                ],
                Some(vec![true, false]),
            ),
        ),
        ("assets", structs(vec![("data", asset)], None)),
        ("datetime", Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None]).with_timezone("UTC"))),
        ("gsd", numbers(&[Some(10.0), None])),
        (FILE, texts(&[Some("f"), Some("f")])),
    ]);
    assert!(is_item_layout(batch.schema_ref()));
    assert_eq!(
        row_to_item(&batch, 0).unwrap(),
        json!({
            "type": "Feature", "stac_version": "1.1.0", "id": "one",
            "geometry": {"type": "Point", "coordinates": [2.0, 3.0]}, "bbox": [2.0, 3.0, 2.0, 3.0],
            "assets": {"data": {"href": "a"}},
            "properties": {"datetime": "1970-01-01T00:00:00Z", "gsd": 10.0},
        })
    );
    assert_eq!(
        row_to_item(&batch, 1).unwrap(),
        json!({
            "type": "Feature", "stac_version": "1.1.0", "id": "two", "geometry": null, "assets": {},
            "properties": {"datetime": null},
        })
    );
}

#[test]
fn items_without_any_assets_have_an_empty_object_of_them() {
    let batch = rows(vec![("id", texts(&[Some("one")])), ("stac_version", texts(&[Some("1.1.0")]))]);
    assert!(is_item_layout(batch.schema_ref()));
    assert_eq!(row_to_item(&batch, 0).unwrap()["assets"], json!({}));
    let plain = rows(vec![("id", texts(&[Some("one")])), ("properties", texts(&[None]))]);
    assert!(!is_item_layout(plain.schema_ref()));
}

#[test]
fn what_json_cannot_say_is_told_where_it_is() {
    let nested = structs(vec![("a/b", numbers(&[Some(f64::INFINITY)]))], None);
    let wrong = row_to_json(&rows(vec![("s", nested)]), 0).unwrap_err();
    assert_eq!((wrong.pointer.as_str(), wrong.message.as_str()), ("/s/a~1b", "inf is no number of JSON"));
    let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some([Some(1.0), Some(f64::NAN)])]);
    assert_eq!(row_to_item(&rows(vec![("l", Arc::new(list))]), 0).unwrap_err().pointer, "/properties/l/1");
    let geometry: ArrayRef = Arc::new(BinaryArray::from(vec![&b"no geometry"[..]]));
    assert_eq!(row_to_item(&rows(vec![("geometry", geometry)]), 0).unwrap_err().pointer, "/geometry");
    let time: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MAX]));
    assert_eq!(row_to_json(&rows(vec![("t", time)]), 0).unwrap_err().pointer, "/t");
}

#[test]
fn texts_that_are_json_are_read() {
    let metadata = HashMap::from([(EXTENSION.to_owned(), JSON_TEXT.to_owned())]);
    let field = Field::new("extra", DataType::Utf8, true).with_metadata(metadata);
    let texts = texts(&[Some(r#"{"a": [1]}"#), Some("{")]);
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![texts]).unwrap();
    assert_eq!(row_to_json(&batch, 0).unwrap(), json!({"extra": {"a": [1]}}));
    assert_eq!(row_to_json(&batch, 1).unwrap_err().pointer, "/extra");
}
