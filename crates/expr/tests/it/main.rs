//! Expressions over real rows, against what SQL says and against oracles.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]

mod limits;
mod names;
mod oracle;
mod values;

use std::sync::Arc;

use aqueduct_expr::{Expr, ExprError};
use arrow::array::{ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Int64Type, SchemaRef};

/// Three rows: `id`, `country`, `score`, `GlobalEventID`, `tags` (lists), `geo` (structs).
fn rows() -> RecordBatch {
    let lat: ArrayRef = Arc::new(Float64Array::from(vec![48.8, 52.5, 0.0]));
    let lon: ArrayRef = Arc::new(Float64Array::from(vec![2.3, 13.4, 0.0]));
    let geo = StructArray::from(vec![
        (Arc::new(Field::new("lat", DataType::Float64, true)), lat),
        (Arc::new(Field::new("Lon", DataType::Float64, true)), lon),
    ]);
    let tags =
        ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)]), None, Some(vec![])]);
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        ("country", Arc::new(StringArray::from(vec![Some("FR"), Some("DE"), None]))),
        ("score", Arc::new(Float64Array::from(vec![Some(0.5), None, Some(2.0)]))),
        ("GlobalEventID", Arc::new(Int64Array::from(vec![10, 20, 30]))),
        ("tags", Arc::new(tags)),
        ("geo", Arc::new(geo)),
    ])
    .unwrap()
}

fn evaluate(sql: &str) -> ArrayRef {
    let rows = rows();
    let expr = Expr::parse(sql, &rows.schema()).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let values = expr.evaluate(&rows).unwrap();
    assert_eq!(values.data_type(), expr.data_type(), "{sql}: the type is as declared");
    values
}

fn error(sql: &str) -> ExprError {
    let schema: SchemaRef = rows().schema();
    let error = Expr::parse(sql, &schema).map(|expr| expr.sql().to_owned()).unwrap_err();
    assert!(!error.message().contains('\n') && !error.message().ends_with('.'), "one line: {error:?}");
    error
}
