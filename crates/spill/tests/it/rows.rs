//! Rows of every kind that the engine must group, sort and compare.
#![cfg(feature = "engine")]

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) key: Option<i64>,
    pub(crate) float: Option<f64>,
    pub(crate) text: Option<String>,
}

/// A few keys, texts and numbers again and again, none and numbers that are no number among them.
pub(crate) fn row() -> impl Strategy<Value = Row> {
    let float = prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), Just(-f64::NAN), Just(1.5)];
    let fields = (prop::option::of(-3..30_i64), prop::option::of(float), prop::option::of("[a-c]{0,2}"));
    fields.prop_map(|(key, float, text)| Row { key, float, text })
}

/// The rows, numbered by `seq`; `pad` makes them wide, so that few of them fill a lease.
pub(crate) fn table(rows: &[Row]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.key)));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.float)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|row| row.text.as_deref())));
    let pad: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| pad(row.key))));
    let seq: ArrayRef = Arc::new(Int64Array::from_iter_values((0..).take(rows.len())));
    let columns = [
        ("key", keys, true),
        ("float", floats, true),
        ("text", texts, true),
        ("pad", pad, false),
        ("seq", seq, false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// A wide text that says the key.
pub(crate) fn pad(key: Option<i64>) -> String {
    format!("{:0>400}", key.unwrap_or(-99) + 100)
}
