//! Rows by their weight: how much memory each takes, where to cut many of them, and a copy of some that keeps nothing
//! of the others.

use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch, RecordBatchOptions, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use crate::{Error, Result};

/// What a row takes at least: its place in a block, its bits of validity.
const LEAST: u64 = 8;
/// What a view takes, and what it holds itself of its value.
const VIEW: u64 = 16;
const HELD_IN_VIEW: u64 = 12;

/// The bytes of each row, by what is in it and not by the buffers it lies in: rows of a slice weigh what they weigh
/// in the whole. Exact up to a few bytes for validity; each row weighs a value of a dictionary as if it were its own;
/// a union or a run-end encoded column weighs its mean.
pub fn row_bytes(records: &RecordBatch) -> Vec<u64> {
    let mut bytes = vec![LEAST; records.num_rows()];
    records.columns().iter().for_each(|column| add(column, &mut bytes));
    bytes
}

/// The bytes of each element of one array, as of the only column of a row.
pub fn element_bytes(array: &ArrayRef) -> Vec<u64> {
    let mut bytes = vec![LEAST; array.len()];
    add(array, &mut bytes);
    bytes
}

/// Neighbours that weigh at most `most` together, as many as go, in order; a row that weighs more is alone.
pub fn runs(row_bytes: &[u64], most: u64) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut first, mut n_bytes) = (0, 0_u64);
    for (row, bytes) in row_bytes.iter().enumerate() {
        n_bytes = n_bytes.saturating_add(*bytes);
        if n_bytes > most && row > first {
            runs.push(first..row);
            (first, n_bytes) = (row, *bytes);
        }
    }
    if first < row_bytes.len() {
        runs.push(first..row_bytes.len());
    }
    runs
}

/// Some rows in buffers of their own: a slice would keep all of its batch alive. What views and dictionaries point
/// at is shared, and stays.
///
/// # Errors
/// There are no such rows, which is a bug of the caller.
pub fn copied(records: &RecordBatch, rows: Range<usize>) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let places = UInt64Array::from_iter_values(rows.start as u64..rows.end as u64);
    let columns = records.columns().iter().map(|column| take(column, &places, None));
    columns
        .collect::<Result<Vec<_>, ArrowError>>()
        .and_then(|columns| RecordBatch::try_new_with_options(records.schema(), columns, &options))
        .map_err(|error| Error::bug("copy rows", "rows cannot be copied").with_source(error))
}

/// Adds the bytes of each element of an array: column by column where that is quick.
fn add(array: &ArrayRef, bytes: &mut [u64]) {
    match array.data_type() {
        DataType::Utf8 => add_spans(array.as_string::<i32>().offsets(), bytes),
        DataType::LargeUtf8 => add_spans(array.as_string::<i64>().offsets(), bytes),
        DataType::Binary => add_spans(array.as_binary::<i32>().offsets(), bytes),
        DataType::LargeBinary => add_spans(array.as_binary::<i64>().offsets(), bytes),
        DataType::Struct(_) => array.as_struct().columns().iter().for_each(|column| add(column, bytes)),
        other => match width(other) {
            Some(each) => bytes.iter_mut().for_each(|bytes| *bytes += each),
            None => {
                bytes.iter_mut().enumerate().for_each(|(at, bytes)| *bytes += of_range(array, at..at + 1))
            }
        },
    }
}

fn add_spans<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, bytes: &mut [u64]) {
    for (bytes, n) in bytes.iter_mut().zip(offsets.lengths()) {
        *bytes += n as u64 + size_of::<O>() as u64;
    }
}

/// The bytes of some neighbouring elements, without a look at each where offsets tell.
fn of_range(array: &ArrayRef, at: Range<usize>) -> u64 {
    match array.data_type() {
        DataType::Utf8 => of_lists(array.as_string::<i32>().offsets(), at, of_bytes),
        DataType::LargeUtf8 => of_lists(array.as_string::<i64>().offsets(), at, of_bytes),
        DataType::Binary => of_lists(array.as_binary::<i32>().offsets(), at, of_bytes),
        DataType::LargeBinary => of_lists(array.as_binary::<i64>().offsets(), at, of_bytes),
        DataType::Utf8View => array.slice(at.start, at.len()).as_string_view().lengths().map(of_view).sum(),
        DataType::BinaryView => array.slice(at.start, at.len()).as_binary_view().lengths().map(of_view).sum(),
        DataType::List(_) => of_list(array.as_list::<i32>(), at),
        DataType::LargeList(_) => of_list(array.as_list::<i64>(), at),
        DataType::Map(..) => {
            let map = array.as_map();
            let columns = map.entries().columns();
            of_lists(map.offsets(), at, |at| columns.iter().map(|column| of_range(column, at.clone())).sum())
        }
        DataType::FixedSizeList(_, n) => {
            let n = usize::try_from(*n).unwrap_or(0);
            of_range(array.as_fixed_size_list().values(), at.start * n..at.end * n)
        }
        DataType::Struct(_) => {
            array.as_struct().columns().iter().map(|column| of_range(column, at.clone())).sum()
        }
        DataType::Dictionary(..) => of_dictionary(&array.slice(at.start, at.len())),
        other => width(other).unwrap_or_else(|| mean(array)) * at.len() as u64,
    }
}

/// What each element takes, whatever it holds.
fn width(data_type: &DataType) -> Option<u64> {
    match data_type {
        DataType::Null => Some(0),
        DataType::Boolean => Some(1),
        DataType::FixedSizeBinary(n) => u64::try_from(*n).ok(),
        other => other.primitive_width().map(|width| width as u64),
    }
}

fn of_list<O: OffsetSizeTrait>(list: &GenericListArray<O>, at: Range<usize>) -> u64 {
    of_lists(list.offsets(), at, |at| of_range(list.values(), at))
}

/// Offsets, and the elements that they enclose.
fn of_lists<O: OffsetSizeTrait>(
    offsets: &OffsetBuffer<O>,
    at: Range<usize>,
    of_elements: impl Fn(Range<usize>) -> u64,
) -> u64 {
    let enclosed = offsets[at.start].as_usize()..offsets[at.end].as_usize();
    (at.len() * size_of::<O>()) as u64 + of_elements(enclosed)
}

fn of_bytes(bytes: Range<usize>) -> u64 {
    bytes.len() as u64
}

fn of_view(length: u32) -> u64 {
    VIEW + Some(u64::from(length)).filter(|length| *length > HELD_IN_VIEW).unwrap_or(0)
}

fn of_dictionary(array: &ArrayRef) -> u64 {
    let dictionary = array.as_any_dictionary();
    let (values, keys) = (dictionary.values(), dictionary.keys());
    let of_keys = width(keys.data_type()).unwrap_or_default() * keys.len() as u64;
    if values.is_empty() {
        return of_keys;
    }
    let of_value = |key: usize| of_range(values, key..key + 1);
    of_keys + dictionary.normalized_keys().into_iter().map(of_value).sum::<u64>()
}

/// A column's bytes by its rows.
fn mean(array: &ArrayRef) -> u64 {
    let n_bytes = array.to_data().get_slice_memory_size().unwrap_or_default();
    n_bytes as u64 / array.len().max(1) as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, ListArray, StringArray, StringViewArray, StructArray};
    use arrow::datatypes::{Field, Int32Type};

    use super::*;
    use crate::retained_bytes;

    #[test]
    fn wide_rows_weigh_what_they_hold_wherever_it_is() {
        let wide = "x".repeat(1000);
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", &wide, "b"]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
            Some(vec![Some(1); 500]),
            None,
            Some(vec![]),
        ]));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(
            Arc::new(Field::new("inside", DataType::Utf8, true)),
            Arc::clone(&text),
        )]));
        let records =
            RecordBatch::try_from_iter([("t", text), ("n", numbers), ("l", list), ("s", nested)]).unwrap();
        let bytes = row_bytes(&records);
        assert!((2010..2060).contains(&bytes[0]), "{bytes:?}");
        assert!((2010..2060).contains(&bytes[1]), "{bytes:?}");
        assert!(bytes[2] < 50, "{bytes:?}");
        for first in 0..3 {
            assert_eq!(row_bytes(&records.slice(first, 3 - first)), bytes[first..]);
        }
    }

    #[test]
    fn a_slice_weighs_its_own_rows() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(500), "a".into(), "bb".into()]));
        let records = RecordBatch::try_from_iter([("t", text)]).unwrap().slice(1, 2);
        assert_eq!(row_bytes(&records), [LEAST + 5, LEAST + 6]);
    }

    #[test]
    fn views_and_dictionaries_weigh_what_they_point_at() {
        let wide = "x".repeat(500);
        let views: ArrayRef = Arc::new(StringViewArray::from(vec!["short", &wide, "short"]));
        let records = RecordBatch::try_from_iter([("v", views)]).unwrap();
        assert_eq!(row_bytes(&records.slice(1, 2)), [LEAST + VIEW + 500, LEAST + VIEW]);
        let keyed: DictionaryArray<Int32Type> = ["a", &wide, "a"].into_iter().collect();
        let records = RecordBatch::try_from_iter([("d", Arc::new(keyed) as ArrayRef)]).unwrap();
        assert_eq!(row_bytes(&records.slice(1, 2)), [LEAST + 4 + 4 + 500, LEAST + 4 + 4 + 1]);
    }

    #[test]
    fn runs_take_as_many_neighbours_as_go_and_a_wide_row_alone() {
        assert_eq!(runs(&[3, 3, 3, 20, 1, 1], 9), [0..3, 3..4, 4..6]);
        assert_eq!(runs(&[20, 20], 9), [0..1, 1..2]);
        assert!(runs(&[], 9).is_empty());
    }

    #[test]
    fn a_copy_keeps_nothing_of_the_other_rows() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(100_000), "a".into(), "bb".into()]));
        let records = RecordBatch::try_from_iter([("t", text)]).unwrap();
        let copy = copied(&records, 1..3).unwrap();
        assert_eq!(copy, records.slice(1, 2));
        assert!(retained_bytes(&copy).get() < 1000);
        let no_columns = records.project(&[]).unwrap();
        assert_eq!(copied(&no_columns, 1..3).unwrap().num_rows(), 2);
    }
}
