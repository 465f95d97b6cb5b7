//! The columns that say where a row came from.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, UInt64Array};

/// Adds `_file` and `_row` for `n_good` rows that follow `n_before` others. `bad` are the rows among them
/// that are missing, counted from 1 behind `n_before`, in order.
pub(crate) fn with_origin(
    mut columns: Vec<ArrayRef>,
    name: &str,
    n_before: u64,
    n_good: usize,
    bad: &[u64],
) -> Vec<ArrayRef> {
    let mut bad = bad.iter().peekable();
    let mut row = 0;
    let rows = std::iter::repeat_with(|| {
        row += 1;
        while bad.next_if(|bad| **bad == row).is_some() {
            row += 1;
        }
        n_before + row
    });
    columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(name, n_good))));
    columns.push(Arc::new(UInt64Array::from_iter_values(rows.take(n_good))));
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;

    #[test]
    fn rows_are_counted_around_the_bad_ones() {
        let columns = with_origin(Vec::new(), "a.csv", 10, 4, &[1, 3, 4]);
        assert_eq!(columns[1].as_primitive::<UInt64Type>().values(), &[12, 15, 16, 17]);
        assert_eq!(columns[0].as_string::<i32>().value(3), "a.csv");
    }
}
