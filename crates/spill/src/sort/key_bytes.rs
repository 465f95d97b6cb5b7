//! What keys take at most, told before they are made: a wide text is a key as wide.

use std::ops::Range;
use std::slice::from_ref;

use arrow::array::{ArrayRef, AsArray, OffsetSizeTrait};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;

/// A text is put down in parts, each with a byte behind it, the last one filled up: arrow-row's `variable`.
const BESIDE_TEXT: u64 = 37;
const TEXT_PARTS: u64 = 8;
/// Where one of many keys begins.
const OFFSET: u64 = size_of::<usize>() as u64;
/// The widest value of a fixed width, where a type does not tell.
const WIDEST_FIXED: usize = 32;

/// At most so many bytes are in the keys of some rows by one column, and are needed to make them.
pub(super) fn most_key_bytes(column: &ArrayRef, rows: Range<usize>) -> u64 {
    let n_rows = rows.len() as u64;
    match column.data_type() {
        DataType::Null | DataType::Boolean => 2 * n_rows,
        DataType::Utf8 => of_texts(n_rows, spanned(column.as_string::<i32>().offsets(), rows)),
        DataType::LargeUtf8 => of_texts(n_rows, spanned(column.as_string::<i64>().offsets(), rows)),
        DataType::Binary => of_texts(n_rows, spanned(column.as_binary::<i32>().offsets(), rows)),
        DataType::LargeBinary => of_texts(n_rows, spanned(column.as_binary::<i64>().offsets(), rows)),
        DataType::FixedSizeBinary(n) => n_rows * (1 + u64::from(n.unsigned_abs())),
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            of_lists(n_rows, from_ref(list.values()), enclosed(list.offsets(), rows))
        }
        DataType::LargeList(_) => {
            let list = column.as_list::<i64>();
            of_lists(n_rows, from_ref(list.values()), enclosed(list.offsets(), rows))
        }
        DataType::Map(..) => {
            let map = column.as_map();
            of_lists(n_rows, map.entries().columns(), enclosed(map.offsets(), rows))
        }
        DataType::FixedSizeList(_, n) => {
            let n = usize::try_from(*n).unwrap_or(0);
            let values = rows.start * n..rows.end * n;
            n_rows + copied(values.len(), most_key_bytes(column.as_fixed_size_list().values(), values))
        }
        DataType::Struct(_) => {
            let of_column = |column| most_key_bytes(column, rows.clone());
            n_rows + copied(rows.len(), column.as_struct().columns().iter().map(of_column).sum())
        }
        other => n_rows * (1 + other.primitive_width().unwrap_or(WIDEST_FIXED) as u64),
    }
}

fn enclosed<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, rows: Range<usize>) -> Range<usize> {
    offsets[rows.start].as_usize()..offsets[rows.end].as_usize()
}

fn spanned<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, rows: Range<usize>) -> u64 {
    enclosed(offsets, rows).len() as u64
}

fn of_texts(n: u64, n_bytes: u64) -> u64 {
    n_bytes + n_bytes / TEXT_PARTS + BESIDE_TEXT * n
}

/// Each element is a key of its own, which is put down as a text.
fn of_lists(n_rows: u64, columns: &[ArrayRef], elements: Range<usize>) -> u64 {
    let n_elements = elements.len();
    let of_column = |column| most_key_bytes(column, elements.clone());
    let keys = columns.iter().map(of_column).sum();
    2 * n_rows + of_texts(n_elements as u64, keys) + keys + OFFSET * n_elements as u64
}

/// Keys that are made apart, and then put where they belong.
fn copied(n: usize, keys: u64) -> u64 {
    2 * keys + OFFSET * n as u64
}
