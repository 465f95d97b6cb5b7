//! How much memory each row of a batch takes, so that blocks are cut by bytes where rows are of uneven width.

use arrow::array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;

/// What a row takes at least: its place in a block, its bits of validity.
const LEAST: u64 = 8;

/// The bytes of each row. Exact for what has no views and no dictionaries inside, up to a few bytes for validity; a
/// type that is not known weighs its column's mean.
pub(crate) fn row_bytes(records: &RecordBatch) -> Vec<u64> {
    let mut bytes = vec![LEAST; records.num_rows()];
    for column in records.columns() {
        add(column, &mut bytes);
    }
    bytes
}

/// Adds the bytes of each element of an array.
fn add(array: &ArrayRef, bytes: &mut [u64]) {
    match array.data_type() {
        DataType::Null => {}
        DataType::Utf8 => add_spans(array.as_string::<i32>().offsets(), bytes),
        DataType::LargeUtf8 => add_spans(array.as_string::<i64>().offsets(), bytes),
        DataType::Binary => add_spans(array.as_binary::<i32>().offsets(), bytes),
        DataType::LargeBinary => add_spans(array.as_binary::<i64>().offsets(), bytes),
        DataType::List(_) => add_list(array.as_list::<i32>(), bytes),
        DataType::LargeList(_) => add_list(array.as_list::<i64>(), bytes),
        DataType::Map(..) => {
            let map = array.as_map();
            let entries: ArrayRef = std::sync::Arc::new(map.entries().clone());
            add_children(&entries, map.offsets(), bytes);
        }
        DataType::FixedSizeList(_, n) => {
            let list = array.as_fixed_size_list();
            let n = usize::try_from(*n).unwrap_or(0);
            let mut of_children = vec![0; list.values().len()];
            add(list.values(), &mut of_children);
            for (bytes, children) in bytes.iter_mut().zip(of_children.chunks(n.max(1))) {
                *bytes += children.iter().sum::<u64>();
            }
        }
        DataType::Struct(_) => array.as_struct().columns().iter().for_each(|column| add(column, bytes)),
        DataType::Boolean => bytes.iter_mut().for_each(|bytes| *bytes += 1),
        other => {
            let each = match other.primitive_width() {
                Some(width) => width as u64,
                None => mean(array),
            };
            bytes.iter_mut().for_each(|bytes| *bytes += each);
        }
    }
}

fn add_spans<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, bytes: &mut [u64]) {
    for (bytes, n) in bytes.iter_mut().zip(offsets.lengths()) {
        *bytes += n as u64 + size_of::<O>() as u64;
    }
}

fn add_list<O: OffsetSizeTrait>(list: &GenericListArray<O>, bytes: &mut [u64]) {
    add_children(list.values(), list.offsets(), bytes);
}

fn add_children<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &OffsetBuffer<O>, bytes: &mut [u64]) {
    let mut of_children = vec![0; values.len()];
    add(values, &mut of_children);
    for (bytes, span) in bytes.iter_mut().zip(offsets.windows(2)) {
        let children = of_children.get(span[0].as_usize()..span[1].as_usize()).unwrap_or_default();
        *bytes += children.iter().sum::<u64>() + size_of::<O>() as u64;
    }
}

/// A column's bytes by its rows.
fn mean(array: &ArrayRef) -> u64 {
    let whole = RecordBatch::try_from_iter([("column", std::sync::Arc::clone(array))]);
    let n_bytes = whole.map_or(0, |records| aqueduct_core::retained_bytes(&records).get());
    n_bytes / array.len().max(1) as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::{Field, Int32Type};

    use super::*;

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
    }

    #[test]
    fn a_slice_weighs_its_own_rows() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(500), "a".into(), "bb".into()]));
        let records = RecordBatch::try_from_iter([("t", text)]).unwrap().slice(1, 2);
        assert_eq!(row_bytes(&records), [LEAST + 5, LEAST + 6]);
    }
}
