//! `sort` and `dedup` beside what a plain loop over the rows gives.

use std::cell::Cell;
use std::cmp::Ordering;
use std::sync::Arc;

use aqueduct_primitives::ByteCount;
use arrow::array::{
    ArrayRef, AsArray, DictionaryArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray, UnionArray,
};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::bench::{self, Outcome, batches};

#[derive(Clone, Debug)]
struct Row {
    number: Option<i64>,
    float: Option<f64>,
    text: Option<String>,
    /// How wide it is beside.
    width: usize,
}

fn row() -> impl Strategy<Value = Row> {
    let float =
        prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), Just(-f64::NAN), Just(f64::INFINITY), -2.0..2.0];
    let text = prop::option::of("[a-b\u{e9}]{0,2}");
    let fields = (prop::option::of(-3..3_i64), prop::option::of(float), text, 0..6000_usize);
    fields.prop_map(|(number, float, text, width)| Row { number, float, text, width })
}

/// None or a few rows, or as many as a small share does not hold.
fn rows() -> impl Strategy<Value = Vec<Row>> {
    prop_oneof![1 => prop::collection::vec(row(), 0..20), 3 => prop::collection::vec(row(), 100..400)]
}

/// A text that many rows share: a batch of it weighs much less than its rows.
const SHARED: &str = "shared by all";

/// The rows, numbered by `seq`, and what is carried along: wide texts, a dictionary, lists and structs.
fn batch(rows: &[Row]) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.number)));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.float)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|row| row.text.as_deref())));
    let seq: ArrayRef = Arc::new(Int64Array::from_iter_values((0..).take(rows.len())));
    let pads = StringArray::from_iter_values(rows.iter().map(|row| "x".repeat(row.width)));
    let shared = SHARED.repeat(50);
    let shared = rows.iter().map(|row| row.text.as_ref().map(|_| shared.as_str()));
    let shared = DictionaryArray::<Int32Type>::from_iter(shared);
    let list = |row: &Row| row.number.map(|n| (0..n.max(0)).map(|_| row.float).collect::<Vec<_>>());
    let lists = ListArray::from_iter_primitive::<Float64Type, _, _>(rows.iter().map(list));
    let field = |name, column: &ArrayRef| Arc::new(Field::new(name, column.data_type().clone(), true));
    let structs = StructArray::from(vec![
        (field("float", &floats), Arc::clone(&floats)),
        (field("text", &texts), Arc::clone(&texts)),
    ]);
    let columns: [(_, ArrayRef, _); 8] = [
        ("number", numbers, true),
        ("float", floats, true),
        ("text", texts, true),
        ("seq", seq, false),
        ("pad", Arc::new(pads), false),
        ("shared", Arc::new(shared), true),
        ("list", Arc::new(lists), true),
        ("struct", Arc::new(structs), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// How a stage is run: in how much memory, over batches of how many rows.
type How = (u64, usize);

fn how() -> impl Strategy<Value = How> {
    (prop_oneof![3 => 320..448_u64, 1 => Just(16 << 10)], 1..50_usize)
}

fn run(stage: &str, options: Value, rows: &RecordBatch, (share_kib, batch_rows): How) -> Outcome {
    bench::run(stage, options, vec![batches(rows, batch_rows)], ByteCount::kib(share_kib)).unwrap()
}

/// The rows of these numbers, as a stage gives them.
fn plain_rows(rows: &RecordBatch, numbers: Vec<i64>) -> RecordBatch {
    let rows = take_record_batch(rows, &Int64Array::from(numbers)).unwrap();
    let cast = |column: &ArrayRef| match column.data_type() {
        DataType::Dictionary(..) => cast(column, &DataType::Utf8).unwrap(),
        _ => Arc::clone(column),
    };
    let columns: Vec<_> = rows.columns().iter().map(cast).collect();
    let field = |(field, column): (&Arc<Field>, &ArrayRef)| {
        Field::clone(field).with_data_type(column.data_type().clone())
    };
    let fields: Vec<_> = rows.schema().fields().iter().zip(&columns).map(field).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn numbers_of(rows: &RecordBatch) -> Vec<i64> {
    rows.column(3).as_primitive::<Int64Type>().values().to_vec()
}

/// How many cases did not fit into memory.
#[derive(Default)]
struct Spilled {
    n_spilled: Cell<usize>,
    n_merged: Cell<usize>,
}

impl Spilled {
    fn count(&self, outcome: &Outcome) {
        self.n_spilled.set(self.n_spilled.get() + usize::from(outcome.spilled_bytes > 0));
        self.n_merged.set(self.n_merged.get() + usize::from(outcome.n_merges > 0));
    }

    fn assert_many(&self) {
        let (n_spilled, n_merged) = (self.n_spilled.get(), self.n_merged.get());
        assert!(n_spilled >= N_CASES / 8, "only {n_spilled} of {N_CASES} spilled");
        assert!(n_merged > 0, "runs were never merged to runs");
    }
}

const N_CASES: usize = 48;

fn runner() -> TestRunner {
    let cases = u32::try_from(N_CASES).unwrap();
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
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

// S3.5
#[test]
fn sort_is_a_stable_sort() {
    let spilled = Spilled::default();
    let checked = runner().run(&(rows(), by(), how()), |(rows, by, how)| {
        let mut expected = numbered(&rows);
        expected.sort_by(|a, b| compare(&by, a.1, b.1));
        let expected: Vec<_> = expected.iter().map(|row| row.0).collect();
        let (texts, rows): (Vec<_>, _) = (by.iter().map(By::text).collect(), batch(&rows));
        let outcome = run("sort", json!({"by": texts}), &rows, how);
        prop_assert_eq!(numbers_of(&outcome.rows), expected.clone());
        prop_assert_eq!(&outcome.rows, &plain_rows(&rows, expected));
        spilled.count(&outcome);
        Ok(())
    });
    checked.unwrap();
    spilled.assert_many();
}

// S3.5
#[test]
fn dedup_keeps_one_of_each_key() {
    let spilled = Spilled::default();
    let keys = prop::sample::subsequence(vec![0, 1, 2], 1..3);
    let cases = (rows(), keys, prop::option::of(by()), any::<bool>(), how());
    let checked = runner().run(&cases, |(rows, keys, by, keep_last, how)| {
        let key = |column: &usize| By { column: *column, descending: false, nulls_first: true };
        let keys: Vec<_> = keys.iter().map(key).collect();
        let by = by.unwrap_or_default();
        let expected = kept(&rows, &keys, &by, keep_last);
        let names: Vec<_> = keys.iter().map(|key| COLUMNS[key.column]).collect();
        let texts: Vec<_> = by.iter().map(By::text).collect();
        let keep = if keep_last { "last" } else { "first" };
        let rows = batch(&rows);
        let outcome = run("dedup", json!({"keys": names, "keep": keep, "by": texts}), &rows, how);
        prop_assert_eq!(numbers_of(&outcome.rows), expected.clone());
        prop_assert_eq!(&outcome.rows, &plain_rows(&rows, expected));
        spilled.count(&outcome);
        Ok(())
    });
    checked.unwrap();
    spilled.assert_many();
}

/// The numbers of the rows that `dedup` keeps.
fn kept(rows: &[Row], keys: &[By], by: &[By], keep_last: bool) -> Vec<i64> {
    let mut ordered = numbered(rows);
    ordered.sort_by(|a, b| compare(by, a.1, b.1));
    if keep_last {
        ordered.reverse();
    }
    ordered.sort_by(|a, b| compare(keys, a.1, b.1));
    ordered.dedup_by(|later, first| compare(keys, later.1, first.1).is_eq());
    ordered.into_iter().map(|row| row.0).collect()
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

#[test]
fn columns_that_cannot_be_spilled_or_have_no_order_are_told_before_the_run() {
    let union_of = |kind: DataType| {
        let fields = [(0, Arc::new(Field::new("inside", kind.clone(), true)))].into_iter().collect();
        let values = arrow::array::new_null_array(&kind, 1);
        let union: ArrayRef =
            Arc::new(UnionArray::try_new(fields, vec![0].into(), None, vec![values]).unwrap());
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        RecordBatch::try_from_iter([("union", union), ("lon", Arc::clone(&floats)), ("lat", floats)]).unwrap()
    };
    let views = union_of(DataType::Utf8View).schema();
    for (stage, options) in [
        ("sort", json!({"by": ["lon"]})),
        ("dedup", json!({"keys": ["lon"]})),
        ("tile", json!({"lon": "lon", "lat": "lat", "max_rows": 5})),
    ] {
        let problems = bench::problems(stage, options, &[Arc::clone(&views)]);
        assert!(problems[0].message.contains("`union`"), "{stage}: {problems:?}");
        assert!(problems[0].message.contains("cannot be spilled"), "{stage}: {problems:?}");
    }
    let problems = bench::problems("sort", json!({"by": ["union"]}), &[union_of(DataType::Int64).schema()]);
    assert!(problems[0].message.contains("have no order"), "{problems:?}");
}
