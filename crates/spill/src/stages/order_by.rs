//! `b desc nulls last`: a column to sort by, as SQL writes it.

use aqueduct_core::{Problem, find_column};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Schema};

use crate::SortKey;
use crate::sort::has_order;

/// A column, which way, and where nulls go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrderBy {
    column: String,
    options: SortOptions,
}

/// What may stand behind a column, as a message says it.
const EXPECTED: &str = "expected `column [asc|desc] [nulls first|last]`";

impl OrderBy {
    /// Reads one. Without `desc` it is ascending; nulls come last unless it says otherwise, whichever way.
    ///
    /// # Errors
    /// Something else stands there.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lower = text.trim_end().to_ascii_lowercase();
        let (rest, nulls_first) = match () {
            () if lower.ends_with(" nulls first") => (cut(text, " nulls first"), true),
            () if lower.ends_with(" nulls last") => (cut(text, " nulls last"), false),
            () => (text.trim(), false),
        };
        let lower = rest.to_ascii_lowercase();
        let (column, descending) = match () {
            () if lower.ends_with(" desc") => (cut(rest, " desc"), true),
            () if lower.ends_with(" asc") => (cut(rest, " asc"), false),
            () => (rest, false),
        };
        let column = column.trim();
        if column.is_empty() {
            return Err(format!("no column in `{text}`; {EXPECTED}"));
        }
        Ok(Self { column: column.to_owned(), options: SortOptions { descending, nulls_first } })
    }

    /// The key over these columns.
    pub(crate) fn bind(&self, schema: &Schema, pointer: &str) -> Result<SortKey, Problem> {
        let column = find_column(schema, &self.column, pointer)?;
        check_order(schema.field(column).data_type(), &self.column, pointer)?;
        Ok(SortKey { column, options: self.options })
    }
}

/// Whether values of a type have an order.
pub(crate) fn check_order(kind: &DataType, column: &str, pointer: &str) -> Result<(), Problem> {
    if has_order(kind) {
        return Ok(());
    }
    Err(Problem::at(pointer, format!("values of column `{column}` have no order: they are {kind}")))
}

/// Without an end that is there.
fn cut<'a>(text: &'a str, end: &str) -> &'a str {
    let text = text.trim_end();
    text.get(..text.len() - end.len()).unwrap_or_default().trim_end()
}

/// All of a list; the problems name the place of each.
pub(crate) fn parse_all(texts: &[String], pointer: &str) -> Result<Vec<OrderBy>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut orders = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        match OrderBy::parse(text) {
            Ok(order) => orders.push(order),
            Err(message) => problems.push(Problem::at(format!("{pointer}/{n}"), message)),
        }
    }
    if texts.is_empty() {
        problems.push(Problem::at(pointer, format!("no column to sort by; {EXPECTED}")));
    }
    if problems.is_empty() { Ok(orders) } else { Err(problems) }
}

/// The keys of all of them over these columns; the problems name the place of each.
pub(crate) fn bind_all(
    orders: &[OrderBy],
    schema: &Schema,
    pointer: &str,
) -> Result<Vec<SortKey>, Vec<Problem>> {
    let bind = |(n, order): (usize, &OrderBy)| order.bind(schema, &format!("{pointer}/{n}"));
    let (keys, problems): (Vec<_>, Vec<_>) = orders.iter().enumerate().map(bind).partition(Result::is_ok);
    if problems.is_empty() {
        return Ok(keys.into_iter().flatten().collect());
    }
    Err(problems.into_iter().filter_map(Result::err).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_and_nulls_are_read_in_any_case() {
        let of = |text| {
            let order = OrderBy::parse(text).unwrap();
            (order.column, order.options.descending, order.options.nulls_first)
        };
        assert_eq!(of("a"), ("a".into(), false, false));
        assert_eq!(of(" a ASC "), ("a".into(), false, false));
        assert_eq!(of("b desc nulls last"), ("b".into(), true, false));
        assert_eq!(of("b Nulls First"), ("b".into(), false, true));
        assert_eq!(of("two words DESC  NULLS FIRST").0, "two words");
        assert_eq!(of("description"), ("description".into(), false, false));
        assert!(OrderBy::parse("  ").unwrap_err().contains("expected `column"));
    }
}
