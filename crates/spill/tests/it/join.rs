//! `join` beside two plain loops.

use std::collections::HashMap;
use std::sync::Arc;

use aqueduct_core::{Batch, Context, ErrorKind, Inputs, Result, RunContext, Scratch, retained_bytes};
use aqueduct_primitives::{Budget, ByteCount};
use arrow::array::{
    ArrayRef, AsArray, DictionaryArray, Float64Array, Int32Array, Int64Array, LargeStringArray, ListArray,
    RecordBatch, StringArray, StringViewArray, StructArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int8Type, Int32Type, Int64Type};
use futures::{StreamExt, TryStreamExt};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::bench::{batches, problems, run, sorted_texts, texts};

type Row = (Option<i64>, Option<f64>);

fn row() -> impl Strategy<Value = Row> {
    let float = prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), Just(-f64::NAN), Just(1.5)];
    (prop::option::weighted(0.9, 0..12_i64), prop::option::weighted(0.9, float))
}

/// How many bytes a row has in a column of the right side that is no key, and in a key. The former make that
/// side larger than what is looked up if its columns come out, the latter always.
#[derive(Clone, Copy)]
struct Wide {
    pad: usize,
    key: usize,
}

const NARROW: Wide = Wide { pad: 1, key: 0 };

/// A text that is equal where the other keys are.
fn wide_keys(rows: &[Row], wide: Wide) -> ArrayRef {
    let text = |row: &Row| format!("{}{}", "k".repeat(wide.key), row.0.unwrap_or(0));
    Arc::new(StringArray::from_iter_values(rows.iter().map(text)))
}

fn left(rows: &[Row], wide: Wide) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0)));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1)));
    let seq: ArrayRef = Arc::new(Int64Array::from_iter_values((0..).take(rows.len())));
    let text = wide_keys(rows, wide);
    let columns = [("key", keys, true), ("x", floats, true), ("seq", seq, false), ("text", text, false)];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Keys of another width, in a column of another name.
fn right(rows: &[Row], wide: Wide) -> RecordBatch {
    let keys = rows.iter().map(|row| row.0.map(|key| i32::try_from(key).unwrap()));
    let keys: ArrayRef = Arc::new(Int32Array::from_iter(keys));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.1)));
    let seq: ArrayRef = Arc::new(Int64Array::from_iter_values((0..).take(rows.len())));
    let pads = (0..rows.len()).map(|n| format!("{n}{}", "x".repeat(wide.pad)));
    let pads: ArrayRef = Arc::new(StringArray::from_iter_values(pads));
    let text = wide_keys(rows, wide);
    let columns = [
        ("pad", pads, false),
        ("id", keys, true),
        ("x", floats, true),
        ("seq", seq, false),
        ("text", text, false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn options(how: &str, matches: &str) -> Value {
    let on = json!([{"left": "key", "right": "id"}, "x", "text"]);
    json!({"with": "other", "on": on, "how": how, "matches": matches})
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

/// The rows of such pairs, in their order.
fn expected(
    left: &RecordBatch,
    right: &RecordBatch,
    pairs: &[(usize, Option<usize>)],
    how: &str,
) -> Vec<String> {
    let (left, right) = (texts(left), texts(&right.project(&[0, 3]).unwrap()));
    let line = |(l, r): &(usize, Option<usize>)| match r {
        Some(r) => format!("{}|{}", left[*l], right[*r]),
        None if how == "left" => format!("{}|-|-", left[*l]),
        None => left[*l].clone(),
    };
    pairs.iter().map(line).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_unstable();
    lines
}

fn check(left_rows: &[Row], right_rows: &[Row], wide: Wide, cuts: (usize, usize), share: ByteCount) -> u64 {
    let (left, right) = (left(left_rows, wide), right(right_rows, wide));
    let mut spilled = 0;
    for how in ["inner", "left", "semi", "anti"] {
        for matches in ["all", "one"] {
            let inputs = vec![batches(&left, cuts.0), batches(&right, cuts.1)];
            let outcome = run("join", options(how, matches), inputs, share).unwrap();
            let pairs = oracle(left_rows, right_rows, how, matches);
            let expected = sorted(expected(&left, &right, &pairs, how));
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
        check(&left, &right, NARROW, cuts, ByteCount::mib(8));
    }

    // S3.5, MEM-5
    #[test]
    fn large_sides_are_sorted_and_merged(
        left in prop::collection::vec(row(), 0..60), right in prop::collection::vec(row(), 110..140),
        cuts in (1..40_usize, 1..40_usize),
    ) {
        check(&left, &right, Wide { pad: 10, key: 6000 }, cuts, ByteCount::mib(2));
    }
}

// Upstream's merge join holds the keys of all rows of a key, and reads its rows back all at once.
#[test]
fn a_key_with_many_rows_on_both_sides_is_read_from_disk_again() {
    let left: Vec<Row> = (0..40).map(|n| (Some(n % 2), Some(1.5))).collect();
    let right: Vec<Row> = (0..600).map(|n| (Some(n % 2), Some(1.5))).collect();
    let spilled = check(&left, &right, Wide { pad: 3000, key: 0 }, (10, 10), ByteCount::mib(2));
    assert!(spilled > 0);
}

/// What came of a join whose right side begins when the left one was read.
struct Late {
    rows: RecordBatch,
    spilled_bytes: u64,
    raw_bytes: u64,
    n_merges: u64,
}

const BATCH_ROWS: usize = 100;

/// Runs a join. Its right side gives nothing before the left one was read to its end.
fn run_late(
    options: Value,
    left: Vec<RecordBatch>,
    right: Vec<RecordBatch>,
    share: ByteCount,
) -> Result<Late> {
    let folder = tempfile::tempdir().unwrap();
    let unused = Budget::new("unused", ByteCount::ZERO);
    let change_run = |run: &mut RunContext| {
        run.scratch = Scratch::new(folder.path().to_owned(), ByteCount::mib(512));
        run.flow = Budget::new("flow", ByteCount::mib(64));
        run.batch_rows = BATCH_ROWS;
    };
    let cx = Context::standalone_with(&unused, change_run, |step| step.share = Budget::new("share", share))?;
    let factory = aqueduct_spill::ALL.iter().find(|factory| factory.info().name == "join").unwrap();
    let schemas = [left[0].schema(), right[0].schema()];
    let stage = factory.configure(options).unwrap().bind(&schemas).unwrap();
    let schema = stage.schema();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let batches: Vec<RecordBatch> = runtime.block_on(async {
        let rows = stage.run(one_after_another(cx.flow(), left, right), cx.clone());
        let batches = rows.map_ok(|batch| batch.records().clone()).try_collect().await;
        cx.tasks().join().await;
        batches
    })?;
    assert!(batches.iter().all(|records| records.num_rows() <= BATCH_ROWS));
    let metrics = cx.metrics();
    Ok(Late {
        rows: concat_batches(&schema, &batches).unwrap(),
        spilled_bytes: metrics.spilled_bytes.get(),
        raw_bytes: metrics.spilled_raw_bytes.get(),
        n_merges: metrics.spill_merges.get(),
    })
}

/// Two inputs; the second one waits until the first one is asked for more than it has.
fn one_after_another(flow: &Budget, first: Vec<RecordBatch>, second: Vec<RecordBatch>) -> Inputs {
    let admitted = |records: Vec<RecordBatch>| {
        let flow = flow.clone();
        let admit = move |records: RecordBatch| {
            let reservation = flow.try_reserve(retained_bytes(&records))?;
            Ok(Batch::new(records, reservation))
        };
        futures::stream::iter(records).map(admit)
    };
    let (has_ended, ended) = tokio::sync::oneshot::channel::<()>();
    let end = futures::stream::once(async move { drop(has_ended) }).filter_map(async |()| None);
    let begin = futures::stream::once(async move { ended.await.is_ok() }).filter_map(async |_| None);
    vec![admitted(first).chain(end).boxed(), begin.chain(admitted(second)).boxed()]
}

fn keyed(n_rows: i64) -> Vec<Row> {
    (0..n_rows).map(|n| ((n % 7 != 3).then_some(n * 5 % 12), (n % 11 != 5).then_some(1.5))).collect()
}

fn check_order(n_rows: i64, share: ByteCount) -> u64 {
    let (left_rows, right_rows) = (keyed(n_rows), keyed(10));
    let (left, right) = (left(&left_rows, NARROW), right(&right_rows, NARROW));
    let mut spilled = 0;
    for how in ["inner", "left", "semi", "anti"] {
        let sides = (batches(&left, 90), batches(&right, 5));
        let late = run_late(options(how, "all"), sides.0, sides.1, share).unwrap();
        let pairs = oracle(&left_rows, &right_rows, how, "all");
        assert_eq!(texts(&late.rows), expected(&left, &right, &pairs, how), "{how}");
        assert!(late.rows.num_rows() > 0);
        assert_eq!(late.raw_bytes > 0, late.spilled_bytes > 0, "{how}");
        spilled += late.spilled_bytes;
    }
    spilled
}

// Rows with a null key keep their order among the others.
#[test]
fn left_rows_keep_their_order_beside_a_small_side_that_ends_late() {
    assert_eq!(check_order(1000, ByteCount::mib(8)), 0);
    assert!(check_order(8000, ByteCount::mib(1)) > 0);
}

/// Whether left rows of a key come out in the order in which they came.
fn is_in_order_of_arrival(rows: &RecordBatch) -> bool {
    let keys = texts(&rows.project(&[0, 1]).unwrap());
    let seqs = rows.column_by_name("seq").unwrap().as_primitive::<Int64Type>().values();
    let mut last = HashMap::new();
    keys.into_iter().zip(seqs).all(|(key, seq)| last.insert(key, seq).is_none_or(|before| before < seq))
}

#[test]
fn left_rows_that_were_kept_are_sorted_when_the_right_side_becomes_large() {
    let (left_rows, right_rows) = (keyed(1500), keyed(600));
    let wide = Wide { pad: 5000, key: 0 };
    let (left, right) = (left(&left_rows, wide), right(&right_rows, wide));
    for how in ["inner", "left"] {
        let sides = (batches(&left, 90), batches(&right, 5));
        let late = run_late(options(how, "one"), sides.0, sides.1, ByteCount::mib(1)).unwrap();
        let pairs = oracle(&left_rows, &right_rows, how, "one");
        assert_eq!(sorted_texts(&late.rows), sorted(expected(&left, &right, &pairs, how)), "{how}");
        assert!(is_in_order_of_arrival(&late.rows), "{how}");
        assert!(late.raw_bytes > 400 * 5000, "most right rows went to disk: {}", late.raw_bytes);
        assert!(late.spilled_bytes > 0 && late.raw_bytes > 0);
        assert!(late.n_merges > 0);
    }
}

#[test]
fn a_row_too_wide_to_be_kept_is_refused_by_name() {
    let rows = [(Some(1), Some(1.5))];
    let wide = Wide { pad: 1, key: 200_000 };
    let sides = (vec![left(&rows, wide)], vec![right(&rows, NARROW)]);
    let error = run_late(options("semi", "all"), sides.0, sides.1, ByteCount::mib(1)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("raise `memory`"), "{error}");
}

#[test]
fn of_a_right_side_that_gives_no_columns_only_the_keys_are_kept() {
    let rows = keyed(600);
    let wide = Wide { pad: 5000, key: 0 };
    for (how, spills) in [("semi", false), ("anti", false), ("inner", true)] {
        let inputs = vec![batches(&left(&rows[..50], wide), 10), batches(&right(&rows, wide), 10)];
        let outcome = run("join", options(how, "one"), inputs, ByteCount::mib(2)).unwrap();
        assert_eq!(outcome.spilled_bytes > 0, spills, "{how}");
    }
}

/// An empty batch before, among and behind the others.
fn with_empty(mut batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    for at in [0, batches.len() / 2, batches.len()] {
        batches.insert(at, batches[0].slice(0, 0));
    }
    batches.push(batches[0].slice(0, 0));
    batches
}

#[test]
fn empty_batches_change_nothing() {
    let (left_rows, right_rows) = (keyed(60), keyed(120));
    for (wide, spills) in [(NARROW, false), (Wide { pad: 10, key: 6000 }, true)] {
        let (left, right) = (left(&left_rows, wide), right(&right_rows, wide));
        for how in ["inner", "left", "semi", "anti"] {
            let (l, r) = (with_empty(batches(&left, 20)), with_empty(batches(&right, 20)));
            let expected = sorted(expected(&left, &right, &oracle(&left_rows, &right_rows, how, "one"), how));
            let share = ByteCount::mib(2);
            let late = run_late(options(how, "one"), l.clone(), r.clone(), share).unwrap();
            assert_eq!(sorted_texts(&late.rows), expected, "{how}");
            let outcome = run("join", options(how, "one"), vec![l, r], share).unwrap();
            assert_eq!(sorted_texts(&outcome.rows), expected, "{how}");
            assert_eq!((late.spilled_bytes > 0, outcome.spilled_bytes > 0), (spills, spills), "{how}");
        }
    }
}

#[test]
fn of_an_empty_right_side_nothing_is_found() {
    let rows = keyed(50);
    let n_rows = |how: &str| {
        let inputs = vec![batches(&left(&rows, NARROW), 9), with_empty(vec![right(&[], NARROW)])];
        run("join", options(how, "all"), inputs, ByteCount::mib(8)).unwrap().rows.num_rows()
    };
    assert_eq!(["inner", "left", "semi", "anti"].map(n_rows), [0, 50, 0, 50]);
}

#[test]
fn there_is_one_zero_and_one_nan_and_a_null_equals_nothing() {
    let floats = [Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN), None];
    let mut rows: Vec<Row> = floats.map(|x| (Some(1), x)).to_vec();
    rows.push((None, Some(0.0)));
    // Others on the right, which make that side large.
    let others: Vec<Row> = (0..100).map(|n| (Some(100 + n), Some(1.5))).collect();
    let right_rows = [rows.clone(), others].concat();
    for (key, spills) in [(0, false), (6000, true)] {
        let wide = Wide { pad: 1, key };
        let seq = |how: &str, places: &[usize]| {
            let inputs = vec![vec![left(&rows, wide)], vec![right(&right_rows, wide)]];
            let outcome = run("join", options(how, "all"), inputs, ByteCount::mib(2)).unwrap();
            assert_eq!(outcome.spilled_bytes > 0, spills, "{how}");
            sorted_texts(&outcome.rows.project(places).unwrap())
        };
        let (zeros, nans) = (["0|0", "0|1", "1|0", "1|1"], ["2|2", "2|3", "3|2", "3|3"]);
        let pairs = [zeros, nans].concat();
        assert_eq!(seq("inner", &[2, 5]), pairs);
        assert_eq!(seq("left", &[2, 5]), [pairs, vec!["4|-", "5|-"]].concat());
        assert_eq!(seq("semi", &[2]), ["0", "1", "2", "3"]);
        assert_eq!(seq("anti", &[2]), ["4", "5"]);
    }
}

/// Lists and structs, with nulls at every depth; `pad` bytes lie in the struct.
fn nested(n_rows: i32, name: &str, pad: usize) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int32Array::from_iter((0..n_rows).map(|n| (n % 9 != 8).then_some(n))));
    let item = |n: i32, at: i32| (at % 3 != 1).then_some(n + at);
    let list = |n: i32| (n % 4 != 3).then(|| (0..n % 5).map(|at| item(n, at)).collect::<Vec<_>>());
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>((0..n_rows).map(list)));
    let text = |n: i32| (n % 6 != 5).then(|| format!("{n}{}", "x".repeat(pad)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter((0..n_rows).map(text)));
    let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(0..n_rows));
    let fields = vec![
        Arc::new(Field::new("text", DataType::Utf8, true)),
        Arc::new(Field::new("number", DataType::Int32, false)),
        Arc::new(Field::new("list", lists.data_type().clone(), true)),
    ];
    let is_there = (0..n_rows).map(|n| n % 7 != 6).collect::<Vec<_>>().into();
    let columns = vec![texts, numbers, Arc::clone(&lists)];
    let structs: ArrayRef = Arc::new(StructArray::new(fields.into(), columns, Some(is_there)));
    let (list, structure) = (format!("{name}_list"), format!("{name}_struct"));
    RecordBatch::try_from_iter_with_nullable([
        ("key", keys, true),
        (list.as_str(), lists, true),
        (structure.as_str(), structs, true),
    ])
    .unwrap()
}

#[test]
fn nested_columns_come_out_as_they_went_in() {
    for (pad, spills) in [(0, false), (6000, true)] {
        let (left, right) = (nested(300, "l", pad), nested(200, "r", pad));
        let (left_lines, right_lines) = (texts(&left), texts(&right.project(&[1, 2]).unwrap()));
        let line = |n: usize| match n % 9 != 8 && n < 200 {
            true => format!("{}|{}", left_lines[n], right_lines[n]),
            false => format!("{}|-|-", left_lines[n]),
        };
        let options = json!({"with": "other", "on": ["key"], "how": "left"});
        let sides = (batches(&left, 20), batches(&right, 20));
        let late = run_late(options, sides.0, sides.1, ByteCount::mib(2)).unwrap();
        assert_eq!(sorted_texts(&late.rows), sorted((0..300).map(line).collect()));
        assert_eq!(late.spilled_bytes > 0, spills);
    }
}

fn value(n: usize) -> String {
    format!("value {n}{}", "x".repeat(50))
}

/// One column of texts, in batches of fifty, each as `to` makes it.
fn texts_in_batches(n_rows: usize, to: impl Fn(Vec<String>) -> ArrayRef) -> Vec<RecordBatch> {
    let values: Vec<String> = (0..n_rows).map(value).collect();
    values.chunks(50).map(|part| RecordBatch::try_from_iter([("key", to(part.to_vec()))]).unwrap()).collect()
}

fn as_dictionary(values: Vec<String>) -> ArrayRef {
    Arc::new(values.iter().map(String::as_str).collect::<DictionaryArray<Int8Type>>())
}

// Their indexes have eight bits, and there are more values.
#[test]
fn dictionaries_and_views_are_compared_by_their_values() {
    let as_text = |values: Vec<String>| Arc::new(StringArray::from(values)) as ArrayRef;
    let as_view = |values: Vec<String>| Arc::new(StringViewArray::from(values)) as ArrayRef;
    let as_large = |values: Vec<String>| Arc::new(LargeStringArray::from(values)) as ArrayRef;
    let sides = [
        (texts_in_batches(7000, as_dictionary), texts_in_batches(6000, as_text)),
        (texts_in_batches(7000, as_dictionary), texts_in_batches(6000, as_dictionary)),
        (texts_in_batches(7000, as_view), texts_in_batches(6000, as_dictionary)),
        (texts_in_batches(7000, as_large), texts_in_batches(6000, as_view)),
    ];
    let options = json!({"with": "other", "on": ["key"], "how": "semi"});
    for (left, right) in sides {
        // A right side that is looked up, and one that is not.
        for (share, spills) in [(ByteCount::mib(8), false), (ByteCount::mib(2), true)] {
            let outcome = run("join", options.clone(), vec![left.clone(), right.clone()], share).unwrap();
            let expected = (0..6000).map(value).collect();
            assert_eq!(sorted_texts(&outcome.rows), sorted(expected));
            assert_eq!(outcome.spilled_bytes > 0, spills);
        }
    }
}

#[test]
fn right_columns_whose_names_are_taken_get_the_suffix() {
    let rows = vec![(Some(1), Some(1.5))];
    let inputs = || vec![vec![left(&rows, NARROW)], vec![right(&rows, NARROW)]];
    let names = |options: Value| {
        let outcome = run("join", options, inputs(), ByteCount::mib(8)).unwrap();
        outcome.rows.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(options("inner", "all")), "key x seq text pad seq_right");
    assert_eq!(names(options("semi", "all")), "key x seq text");
    let other = json!({"with": "other", "on": [{"left": "key", "right": "id"}], "suffix": "2"});
    assert_eq!(names(other), "key x seq text pad x2 seq2 text2");
}

#[test]
fn all_that_is_wrong_is_told_where_it_stands() {
    let schemas = [left(&[], NARROW).schema(), right(&[], NARROW).schema()];
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
