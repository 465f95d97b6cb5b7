//! `sort` and `dedup` beside what a plain loop over the rows gives.

use std::cmp::Ordering;
use std::sync::Arc;

use aqueduct_primitives::ByteCount;
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::bench::{self, batches};

#[derive(Clone, Debug)]
struct Row {
    number: Option<i64>,
    float: Option<f64>,
    text: Option<String>,
}

fn row() -> impl Strategy<Value = Row> {
    let float =
        prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), Just(-f64::NAN), Just(f64::INFINITY), -2.0..2.0];
    let fields = (prop::option::of(-3..3_i64), prop::option::of(float), prop::option::of("[a-b\u{e9}]{0,2}"));
    fields.prop_map(|(number, float, text)| Row { number, float, text })
}

/// The rows, numbered by `seq`.
fn batch(rows: &[Row]) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.number)));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.float)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|row| row.text.as_deref())));
    let seq: ArrayRef = Arc::new(Int64Array::from_iter_values((0..).take(rows.len())));
    let columns =
        [("number", numbers, true), ("float", floats, true), ("text", texts, true), ("seq", seq, false)];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// The numbers of the rows that a stage gives, in their order.
fn run(stage: &str, options: Value, rows: &[Row], batch_rows: usize) -> Vec<i64> {
    let input = batches(&batch(rows), batch_rows);
    let outcome = bench::run(stage, options, vec![input], ByteCount::mib(16)).unwrap();
    outcome.rows.column(3).as_primitive::<Int64Type>().values().to_vec()
}

/// A column to sort by.
#[derive(Clone, Debug)]
struct By {
    column: usize,
    descending: bool,
    nulls_first: bool,
}

const COLUMNS: [&str; 3] = ["number", "float", "text"];

impl By {
    fn text(&self) -> String {
        let direction = if self.descending { "desc" } else { "asc" };
        let nulls = if self.nulls_first { "first" } else { "last" };
        format!("{} {direction} nulls {nulls}", COLUMNS[self.column])
    }

    fn compare(&self, a: &Row, b: &Row) -> Ordering {
        let nulls = |a: bool, b: bool| if self.nulls_first { b.cmp(&a) } else { a.cmp(&b) };
        let (are_null, values) = match self.column {
            0 => ((a.number.is_none(), b.number.is_none()), a.number.cmp(&b.number)),
            1 => ((a.float.is_none(), b.float.is_none()), compare_floats(a.float, b.float)),
            _ => ((a.text.is_none(), b.text.is_none()), a.text.cmp(&b.text)),
        };
        match are_null {
            (false, false) if self.descending => values.reverse(),
            (false, false) => values,
            (a, b) => nulls(a, b),
        }
    }
}

/// As SQL: one zero, and NaN after all numbers.
fn compare_floats(a: Option<f64>, b: Option<f64>) -> Ordering {
    let (Some(a), Some(b)) = (a, b) else { return Ordering::Equal };
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn by() -> impl Strategy<Value = Vec<By>> {
    let one = (0..3_usize, any::<bool>(), any::<bool>());
    let one = one.prop_map(|(column, descending, nulls_first)| By { column, descending, nulls_first });
    prop::collection::vec(one, 1..3)
}

fn compare(by: &[By], a: &Row, b: &Row) -> Ordering {
    by.iter().map(|by| by.compare(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn numbered(rows: &[Row]) -> Vec<(i64, &Row)> {
    (0..).zip(rows).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    // S3.5
    #[test]
    fn sort_is_a_stable_sort(rows in prop::collection::vec(row(), 0..200), by in by(), batch_rows in 1..50_usize) {
        let mut expected = numbered(&rows);
        expected.sort_by(|a, b| compare(&by, a.1, b.1));
        let texts: Vec<_> = by.iter().map(By::text).collect();
        let found = run("sort", json!({"by": texts}), &rows, batch_rows);
        prop_assert_eq!(found, expected.iter().map(|row| row.0).collect::<Vec<_>>());
    }

    // S3.5
    #[test]
    fn dedup_keeps_one_of_each_key(
        rows in prop::collection::vec(row(), 0..200), key in 0..3_usize, by in prop::option::of(by()),
        keep_last: bool, batch_rows in 1..50_usize,
    ) {
        let key = By { column: key, descending: false, nulls_first: true };
        let by = by.unwrap_or_default();
        let mut ordered = numbered(&rows);
        ordered.sort_by(|a, b| compare(&by, a.1, b.1));
        if keep_last {
            ordered.reverse();
        }
        ordered.sort_by(|a, b| key.compare(a.1, b.1));
        ordered.dedup_by(|later, first| key.compare(later.1, first.1).is_eq());
        let texts: Vec<_> = by.iter().map(By::text).collect();
        let keep = if keep_last { "last" } else { "first" };
        let options = json!({"keys": [COLUMNS[key.column]], "keep": keep, "by": texts});
        let found = run("dedup", options, &rows, batch_rows);
        prop_assert_eq!(found, ordered.iter().map(|row| row.0).collect::<Vec<_>>());
    }
}

#[test]
fn all_that_is_wrong_is_told_where_it_stands() {
    let problems = |stage: &str, options: Value| {
        let problems = bench::problems(stage, options, &[batch(&[]).schema()]);
        let told = |problem: aqueduct_core::Problem| format!("{}: {}", problem.pointer, problem.message);
        problems.into_iter().map(told).collect::<Vec<_>>()
    };
    let told = problems("sort", json!({"by": ["nummer desc", "text", "flot"]}));
    assert_eq!(told.len(), 2);
    assert!(told[0].starts_with("/by/0: unknown column `nummer`; nearest `number`"), "{told:?}");
    assert!(problems("sort", json!({"by": []}))[0].contains("no column to sort by"));
    assert!(problems("dedup", json!({"keys": []}))[0].contains("/keys"));
    let told = problems("dedup", json!({"keys": ["id"], "by": ["when"]}));
    assert_eq!(told.iter().map(|told| &told[..6]).collect::<Vec<_>>(), ["/keys/", "/by/0:"]);
    assert!(problems("tile", json!({"lon": "float", "max_rows": 5}))[0].contains("`lon` and `lat`"));
    assert!(problems("tile", json!({"lon": "float", "lat": "text", "max_rows": 5}))[0].contains("/lat"));
}
