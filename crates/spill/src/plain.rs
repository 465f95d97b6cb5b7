//! Rows of plain types, so that what they weigh is what they hold: views and dictionaries share it with others.

use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::rows::{element_bytes, row_bytes, runs};
use aqueduct_core::{Error, ErrorKind, Problem, Result};
use aqueduct_primitives::ByteCount;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, RunArray, UInt64Array};
use arrow::compute::{can_cast_types, cast, take};
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Int16Type, Int32Type, Int64Type, RunEndIndexType, Schema, SchemaRef,
};
use arrow::error::ArrowError;

/// The same columns without views and dictionaries, at any depth.
pub(crate) fn plain_schema(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema.fields().iter().map(plain_field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// [`plain_schema`], if rows of all columns can be made so.
///
/// # Errors
/// Those columns whose rows cannot.
pub(crate) fn bind_plain(schema: &Schema) -> Result<SchemaRef, Vec<Problem>> {
    let plain = plain_schema(schema);
    let cannot = |(from, to): &(&FieldRef, &FieldRef)| {
        shares(to.data_type()) || !can_cast_types(from.data_type(), to.data_type())
    };
    let problem = |(from, _): (&FieldRef, &FieldRef)| {
        let (name, kind) = (from.name(), from.data_type());
        let message = format!("column `{name}` is {kind}, which cannot be spilled; cast or drop it before");
        Problem::at("", message)
    };
    let pairs = schema.fields().iter().zip(plain.fields());
    let problems: Vec<_> = pairs.filter(cannot).map(problem).collect();
    if problems.is_empty() { Ok(plain) } else { Err(problems) }
}

/// Whether values of a type may share what they hold with others.
pub(crate) fn shares(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..) => true,
        DataType::ListView(_) | DataType::LargeListView(_) | DataType::RunEndEncoded(..) => true,
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            shares(field.data_type())
        }
        DataType::Map(entries, _) => shares(entries.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| shares(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| shares(field.data_type())),
        _ => false,
    }
}

fn plain_field(field: &FieldRef) -> FieldRef {
    match plain_type(field.data_type()) {
        same if same == *field.data_type() => Arc::clone(field),
        plain => Arc::new(Field::clone(field).with_data_type(plain)),
    }
}

/// Unions stay as they are: Arrow cannot change what is in them.
fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        DataType::List(item) | DataType::ListView(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, n) => DataType::FixedSizeList(plain_field(item), *n),
        DataType::Map(entries, is_sorted) => DataType::Map(plain_field(entries), *is_sorted),
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
    columns
        .and_then(|columns| RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options))
        .map_err(do_not_fit)
}

/// [`plain_rows`] in pieces that weigh at most `most` when they are plain, or are one row: a value that many rows
/// share is one in the batch and many in plain rows, which may weigh a hundred times as much. A piece is made when it
/// is asked for. Columns that are plain already are one piece, whatever it weighs, and are not copied.
///
/// # Errors
/// The columns are not of one length.
pub(crate) fn plain_pieces(
    columns: Vec<ArrayRef>,
    n_rows: usize,
    schema: &SchemaRef,
    most: ByteCount,
) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let is_plain = |(column, field): (&ArrayRef, &FieldRef)| column.data_type() == field.data_type();
    let pieces = match columns.iter().zip(schema.fields()).all(is_plain) {
        true => std::iter::once(0..n_rows).collect(),
        false => runs(&plain_row_bytes(&columns, n_rows)?, most.get()),
    };
    Ok(pieces.into_iter().map(move |rows| {
        let part = |(column, field): (&ArrayRef, &FieldRef)| part(column, field.data_type(), &rows);
        let parts: Result<Vec<_>, _> = columns.iter().zip(schema.fields()).map(part).collect();
        plain_rows(parts.map_err(do_not_fit)?, rows.len(), schema)
    }))
}

/// Some rows of a column. A cast of a list looks at all that it holds, also at what a slice leaves out.
fn part(column: &ArrayRef, plain: &DataType, rows: &Range<usize>) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..) => {}
        kind if kind == plain => {}
        _ => return take(column, &UInt64Array::from_iter_values(rows.start as u64..rows.end as u64), None),
    }
    Ok(column.slice(rows.start, rows.len()))
}

/// What each row will weigh when it is plain. Inside of lists, what is run-end encoded weighs its mean.
fn plain_row_bytes(columns: &[ArrayRef], n_rows: usize) -> Result<Vec<u64>> {
    let (shared, plain): (Vec<_>, Vec<_>) = columns.iter().partition(|column| shares(column.data_type()));
    let field = |column: &&ArrayRef| Field::new("", column.data_type().clone(), true);
    let schema = Schema::new(plain.iter().map(field).collect::<Fields>());
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    let plain = plain.into_iter().cloned().collect();
    let plain = RecordBatch::try_new_with_options(Arc::new(schema), plain, &options).map_err(do_not_fit)?;
    let mut bytes = row_bytes(&plain);
    shared.into_iter().for_each(|column| add(&plain_bytes(column), &mut bytes));
    Ok(bytes)
}

/// The bytes of each value of a column that shares them: what many values point at is looked at only once.
fn plain_bytes(column: &ArrayRef) -> Vec<u64> {
    let with_offset = |length: u32| u64::from(length) + size_of::<i32>() as u64;
    match column.data_type() {
        DataType::Utf8View => column.as_string_view().lengths().map(with_offset).collect(),
        DataType::BinaryView => column.as_binary_view().lengths().map(with_offset).collect(),
        DataType::Dictionary(..) if !column.as_any_dictionary().values().is_empty() => {
            let dictionary = column.as_any_dictionary();
            let values = element_bytes(dictionary.values());
            dictionary.normalized_keys().into_iter().map(|key| values[key]).collect()
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => of_runs(column.as_run::<Int16Type>()),
            DataType::Int32 => of_runs(column.as_run::<Int32Type>()),
            _ => of_runs(column.as_run::<Int64Type>()),
        },
        DataType::Struct(_) => {
            let mut bytes = vec![0; column.len()];
            column.as_struct().columns().iter().for_each(|column| add(&plain_bytes(column), &mut bytes));
            bytes
        }
        _ => element_bytes(column),
    }
}

fn add(more: &[u64], bytes: &mut [u64]) {
    bytes.iter_mut().zip(more).for_each(|(bytes, more)| *bytes += more);
}

fn of_runs<R: RunEndIndexType>(runs: &RunArray<R>) -> Vec<u64> {
    let values = element_bytes(runs.values());
    let of_row = |row| values.get(runs.get_physical_index(row)).copied().unwrap_or_default();
    (0..runs.len()).map(of_row).collect()
}

fn do_not_fit(error: ArrowError) -> Error {
    Error::new(ErrorKind::Data, "convert rows", "rows do not fit their columns").with_source(error)
}

#[cfg(test)]
mod tests {
    use aqueduct_core::retained_bytes;
    use arrow::array::{
        DictionaryArray, Int32Array, ListArray, MapArray, StringArray, StringViewArray, StructArray,
        UnionArray,
    };
    use arrow::buffer::OffsetBuffer;

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
    fn one(name: &str, column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([(name, column)]).unwrap()
    }

    /// Three keys, of two texts.
    fn keyed(texts: [&str; 2]) -> ArrayRef {
        Arc::new(DictionaryArray::<Int32Type>::from_iter([texts[0], texts[1], texts[0]]))
    }

    fn map_of(values: ArrayRef) -> ArrayRef {
        let keys: ArrayRef = Arc::new(StringViewArray::from(vec!["x", "y", "z"]));
        let fields = Fields::from(vec![
            Field::new("keys", keys.data_type().clone(), false),
            Field::new("values", values.data_type().clone(), true),
        ]);
        let entries = StructArray::new(fields.clone(), vec![keys, values], None);
        let entry = Arc::new(Field::new("entries", DataType::Struct(fields), false));
        Arc::new(MapArray::new(entry, OffsetBuffer::from_lengths([2, 1]), entries, None, false))
    }

    #[test]
    fn maps_become_plain_and_unions_that_share_are_a_problem() {
        let records = one("m", map_of(keyed(["a", "b"])));
        let schema = bind_plain(&records.schema()).unwrap();
        let plain = plain_rows(records.columns().to_vec(), 2, &schema).unwrap();
        let entries = plain.column(0).as_map().entries();
        assert_eq!(entries.column(0).as_string::<i32>().value(2), "z");
        assert_eq!(entries.column(1).as_string::<i32>().value(1), "b");

        let fields = [(0, Arc::new(Field::new("views", DataType::Utf8View, true)))].into_iter().collect();
        let views: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
        let union = UnionArray::try_new(fields, vec![0].into(), None, vec![views]).unwrap();
        let problems = bind_plain(&one("u", Arc::new(union)).schema()).unwrap_err();
        assert!(problems[0].message.starts_with("column `u` is Union"), "{problems:?}");
    }

    /// Pieces of at most 30 kB of a column with a few texts of 10 kB.
    fn pieces(column: ArrayRef) -> Vec<RecordBatch> {
        let n_rows = column.len();
        let schema = plain_schema(&one("c", Arc::clone(&column)).schema());
        let pieces = plain_pieces(vec![column], n_rows, &schema, ByteCount::new(30_000)).unwrap();
        pieces.collect::<Result<_>>().unwrap()
    }

    #[test]
    fn what_many_rows_share_is_made_plain_piece_by_piece() {
        let (a, b) = ("a".repeat(10_000), "b".repeat(10_000));
        let dictionary =
            DictionaryArray::<Int32Type>::from_iter((0..100).map(|n| if n % 2 == 0 { &*a } else { &*b }));
        let lists = |values: ArrayRef| -> ArrayRef {
            let item = Arc::new(Field::new("item", values.data_type().clone(), true));
            Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([1; 100]), values, None))
        };
        let inside = Arc::new(Field::new("inside", dictionary.data_type().clone(), true));
        let runs = RunArray::try_new(&Int32Array::from(vec![50, 100]), &StringArray::from(vec![&*a, &*b]));
        let columns: [ArrayRef; 4] = [
            lists(Arc::new(dictionary.clone())),
            Arc::new(StructArray::from(vec![(inside, Arc::new(dictionary.clone()) as ArrayRef)])),
            Arc::new(runs.unwrap()),
            Arc::new(dictionary),
        ];
        for column in columns {
            let pieces = pieces(Arc::clone(&column));
            assert_eq!(pieces.len(), 50, "{}", column.data_type());
            assert!(
                pieces.iter().all(|piece| retained_bytes(piece).get() < 30_000),
                "{}",
                column.data_type()
            );
            let schema = pieces[0].schema();
            let whole = plain_rows(vec![column], 100, &schema).unwrap();
            assert_eq!(arrow::compute::concat_batches(&schema, &pieces).unwrap(), whole);
        }
    }

    #[test]
    fn what_is_plain_is_one_piece_and_what_is_empty_has_none() {
        let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..100).map(|_| "x".repeat(10_000))));
        assert_eq!(pieces(Arc::clone(&text)), [one("c", text)]);
        assert!(pieces(keyed(["a", "b"]).slice(0, 0)).is_empty());
        let nulls: DictionaryArray<Int32Type> = [None::<&str>; 2].into_iter().collect();
        assert_eq!(pieces(Arc::new(nulls))[0].column(0).null_count(), 2);
    }
}
