//! Rows of plain types, so that what they weigh is what they hold: views and dictionaries share it with others.

use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Result};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

/// The same columns without views and dictionaries, at any depth.
pub(crate) fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema.fields().iter().map(plain_field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn plain_field(field: &FieldRef) -> FieldRef {
    match plain_type(field.data_type()) {
        same if same == *field.data_type() => Arc::clone(field),
        plain => Arc::new(Field::clone(field).with_data_type(plain)),
    }
}

fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        DataType::List(item) | DataType::ListView(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, n) => DataType::FixedSizeList(plain_field(item), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain_field).collect()),
        other => other.clone(),
    }
}

/// Columns as the types of a schema; those that have them already are taken over.
pub(crate) fn plain_rows(columns: Vec<ArrayRef>, n_rows: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let fit = |(column, field): (ArrayRef, &FieldRef)| match column.data_type() == field.data_type() {
        true => Ok(column),
        false => cast(&column, field.data_type()),
    };
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    let columns: Result<Vec<_>, _> = columns.into_iter().zip(schema.fields()).map(fit).collect();
    let rows: Result<_, arrow::error::ArrowError> = columns
        .and_then(|columns: Vec<_>| RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options));
    rows.map_err(|error| {
        Error::new(ErrorKind::Data, "convert rows", "rows do not fit their columns").with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, DictionaryArray, StringViewArray, StructArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn views_and_dictionaries_become_plain_at_any_depth() {
        let views: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b"]));
        let keyed: DictionaryArray<Int32Type> = ["x", "x"].into_iter().collect();
        let inside = Arc::new(Field::new("inside", DataType::Utf8View, true));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(inside, Arc::clone(&views))]));
        let records =
            RecordBatch::try_from_iter([("v", views), ("d", Arc::new(keyed) as ArrayRef), ("s", nested)])
                .unwrap();
        let schema = plain_schema(&records.schema());
        let plain = plain_rows(records.columns().to_vec(), 2, &schema).unwrap();
        assert_eq!(plain.column(0).as_string::<i32>().value(1), "b");
        assert_eq!(plain.column(1).as_string::<i32>().value(1), "x");
        assert_eq!(plain.column(2).as_struct().column(0).as_string::<i32>().value(0), "a");
        assert_eq!(plain_schema(&schema), schema);
    }
}
