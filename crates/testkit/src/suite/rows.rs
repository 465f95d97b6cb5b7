//! Rows as text, to be compared.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{Objection, Verdict};

/// Each row of a batch as one text: the values of its columns with a tab between, null as nothing.
pub fn texts(records: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("");
    let columns = records.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
    let columns = match columns.collect::<Result<Vec<_>, _>>() {
        Ok(columns) => columns,
        Err(error) => return vec![format!("a column has no text: {error}"); records.num_rows()],
    };
    let row = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>();
    (0..records.num_rows()).map(|at| row(at).join("\t")).collect()
}

/// Whether these are the rows that were expected, in their order if that counts.
pub(crate) fn same_rows(found: &[String], expected: &[String], is_ordered: bool) -> Verdict {
    if found == expected {
        return Ok(());
    }
    let mut balance: BTreeMap<&str, i64> = BTreeMap::new();
    found.iter().for_each(|row| *balance.entry(row).or_default() += 1);
    expected.iter().for_each(|row| *balance.entry(row).or_default() -= 1);
    let told = match balance.iter().find(|(_, n)| **n != 0) {
        Some((row, n)) if *n > 0 => format!("`{row}` came {n} times too often"),
        Some((row, n)) => format!("`{row}` is missing {} times", -n),
        None if !is_ordered => return Ok(()),
        None => "they come in another order".into(),
    };
    let (n_found, n_expected) = (found.len(), expected.len());
    Err(Objection::Wrong(format!("{n_found} rows where {n_expected} were expected: {told}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn rows_are_texts_with_tabs() {
        let columns: [(&str, ArrayRef); 2] = [
            ("n", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("t", Arc::new(StringArray::from(vec!["a", "b"]))),
        ];
        assert_eq!(texts(&RecordBatch::try_from_iter(columns).unwrap()), ["1\ta", "\tb"]);
    }

    #[test]
    fn what_differs_is_named() {
        let rows = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let told = |found: &[&str], is_ordered| match same_rows(&rows(found), &rows(&["a", "b"]), is_ordered)
        {
            Err(Objection::Wrong(told)) => told,
            _ => String::new(),
        };
        assert_eq!(told(&["b", "a"], false), "");
        assert!(told(&["b", "a"], true).contains("another order"));
        assert!(told(&["b"], false).contains("`a` is missing"));
        assert!(told(&["a", "b", "b"], false).contains("`b` came 1 times too often"));
    }
}
