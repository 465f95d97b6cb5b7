//! `join` beside two plain loops.

use std::sync::Arc;

use aqueduct_primitives::ByteCount;
use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::bench::{batches, problems, run, sorted_texts, texts};

type Row = (Option<i64>, Option<f64>);

fn row() -> impl Strategy<Value = Row> {
    let float = prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), Just(-f64::NAN), Just(1.5)];
    (prop::option::weighted(0.9, 0..12_i64), prop::option::weighted(0.9, float))
}

fn left(rows: &[Row]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0)));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1)));
    let seq: ArrayRef = Arc::new(Int64Array::from_iter_values((0..).take(rows.len())));
    RecordBatch::try_from_iter_with_nullable([("key", keys, true), ("x", floats, true), ("seq", seq, false)])
        .unwrap()
}

/// Keys of another width, in a column of another name; `pad` makes the side larger than what is looked up.
fn right(rows: &[Row], pad: usize) -> RecordBatch {
    let keys = rows.iter().map(|row| row.0.map(|key| i32::try_from(key).unwrap()));
    let keys: ArrayRef = Arc::new(Int32Array::from_iter(keys));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1)));
    let seq: ArrayRef = Arc::new(Int64Array::from_iter_values((0..).take(rows.len())));
    let pads = (0..rows.len()).map(|n| format!("{n}{}", "x".repeat(pad)));
    let pads: ArrayRef = Arc::new(StringArray::from_iter_values(pads));
    let columns = [("pad", pads, false), ("id", keys, true), ("x", floats, true), ("seq", seq, false)];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn options(how: &str, matches: &str) -> Value {
    json!({"with": "other", "on": [{"left": "key", "right": "id"}, "x"], "how": how, "matches": matches})
}

/// Of zeros there is one, and of NaNs; a null equals nothing.
fn is_match(a: &Row, b: &Row) -> bool {
    let floats = a.1.zip(b.1).is_some_and(|(a, b)| a == b || (a.is_nan() && b.is_nan()));
    floats && a.0.is_some() && a.0 == b.0
}

/// The numbers of the left rows, and of the right ones with which they come out.
fn oracle(left: &[Row], right: &[Row], how: &str, matches: &str) -> Vec<(usize, Option<usize>)> {
    let mut pairs = Vec::new();
    for (l, row) in left.iter().enumerate() {
        let found = (0..right.len()).filter(|r| is_match(row, &right[*r]));
        let found: Vec<usize> = found.take(if matches == "one" { 1 } else { usize::MAX }).collect();
        match (how, found.is_empty()) {
            ("inner" | "left", false) => pairs.extend(found.into_iter().map(|r| (l, Some(r)))),
            ("left" | "anti", true) | ("semi", false) => pairs.push((l, None)),
            _ => {}
        }
    }
    pairs
}

fn expected(
    left: &RecordBatch,
    right: &RecordBatch,
    pairs: &[(usize, Option<usize>)],
    gives_right: bool,
) -> Vec<String> {
    let (left, right) = (texts(left), texts(&right.project(&[0, 3]).unwrap()));
    let line = |(l, r): &(usize, Option<usize>)| match r {
        Some(r) => format!("{}|{}", left[*l], right[*r]),
        None if gives_right => format!("{}|-|-", left[*l]),
        None => left[*l].clone(),
    };
    let mut lines: Vec<_> = pairs.iter().map(line).collect();
    lines.sort_unstable();
    lines
}

fn check(left_rows: &[Row], right_rows: &[Row], pad: usize, cuts: (usize, usize), share: ByteCount) -> u64 {
    let (left, right) = (left(left_rows), right(right_rows, pad));
    let mut spilled = 0;
    for how in ["inner", "left", "semi", "anti"] {
        for matches in ["all", "one"] {
            let inputs = vec![batches(&left, cuts.0), batches(&right, cuts.1)];
            let outcome = run("join", options(how, matches), inputs, share).unwrap();
            let pairs = oracle(left_rows, right_rows, how, matches);
            let gives_right = matches!(how, "inner" | "left");
            let expected = expected(&left, &right, &pairs, gives_right);
            assert_eq!(sorted_texts(&outcome.rows), expected, "{how} {matches}");
            assert!(outcome.largest_batch_bytes <= share.get() / 8, "{}", outcome.largest_batch_bytes);
            spilled += outcome.spilled_bytes;
        }
    }
    spilled
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // S3.5
    #[test]
    fn a_small_side_is_looked_up(
        left in prop::collection::vec(row(), 0..150), right in prop::collection::vec(row(), 0..60),
        cuts in (1..40_usize, 1..40_usize),
    ) {
        check(&left, &right, 1, cuts, ByteCount::mib(8));
    }

    // S3.5, MEM-5
    #[test]
    fn large_sides_are_sorted_and_merged(
        left in prop::collection::vec(row(), 0..150), right in prop::collection::vec(row(), 100..200),
        cuts in (1..40_usize, 1..40_usize),
    ) {
        check(&left, &right, 5000, cuts, ByteCount::mib(2));
    }
}

// Upstream's merge join holds the keys of all rows of a key, and reads its rows back all at once.
#[test]
fn a_key_with_many_rows_on_both_sides_is_read_from_disk_again() {
    let left: Vec<Row> = (0..40).map(|n| (Some(n % 2), Some(1.5))).collect();
    let right: Vec<Row> = (0..600).map(|n| (Some(n % 2), Some(1.5))).collect();
    let spilled = check(&left, &right, 3000, (10, 10), ByteCount::mib(2));
    assert!(spilled > 0);
}

#[test]
fn a_side_that_is_looked_up_keeps_the_order_of_the_left_one() {
    let rows: Vec<Row> = (0..100).map(|n| ((n % 7 != 3).then_some(n * 5 % 12), Some(1.5))).collect();
    let inputs = vec![batches(&left(&rows), 9), batches(&right(&rows[..12], 1), 5)];
    let outcome = run("join", options("semi", "all"), inputs, ByteCount::mib(8)).unwrap();
    assert_eq!(outcome.spilled_bytes, 0);
    assert!(outcome.rows.num_rows() > 50);
}

#[test]
fn right_columns_whose_names_are_taken_get_the_suffix() {
    let rows = vec![(Some(1), Some(1.5))];
    let inputs = || vec![vec![left(&rows)], vec![right(&rows, 0)]];
    let names = |options: Value| {
        let outcome = run("join", options, inputs(), ByteCount::mib(8)).unwrap();
        outcome.rows.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(options("inner", "all")), "key x seq pad seq_right");
    assert_eq!(names(options("semi", "all")), "key x seq");
    let other = json!({"with": "other", "on": [{"left": "key", "right": "id"}], "suffix": "2"});
    assert_eq!(names(other), "key x seq pad x2 seq2");
}

#[test]
fn all_that_is_wrong_is_told_where_it_stands() {
    let schemas = [left(&[]).schema(), right(&[], 0).schema()];
    let told = |options: Value| {
        let problems = problems("join", options, &schemas);
        problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.pointer, problem.message))
            .collect::<Vec<_>>()
    };
    let wrong = told(
        json!({"with": "other", "on": ["kei", {"left": "x", "right": "idd"}, {"left": "key", "right": "pad"}]}),
    );
    assert!(wrong[0].starts_with("/on/0: on the left: unknown column `kei`; nearest `key`"), "{wrong:?}");
    assert!(wrong[1].starts_with("/on/0: on the right: unknown column `kei`"), "{wrong:?}");
    assert!(
        wrong[2].starts_with("/on/1/right: on the right: unknown column `idd`; nearest `id`"),
        "{wrong:?}"
    );
    assert!(wrong[3].contains("add a `cast`"), "{wrong:?}");
    assert!(told(json!({"with": "other", "on": []}))[0].starts_with("/on: "));
    let clash = json!({"with": "other", "on": [{"left": "key", "right": "id"}], "suffix": ""});
    assert!(told(clash)[0].contains("two columns"));
    let one = problems("join", options("inner", "all"), &schemas[..1]);
    assert!(one[0].message.contains("two inputs"));
}
