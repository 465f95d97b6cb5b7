//! `aggregate` beside what a plain loop over the rows gives.
#![cfg(feature = "engine")]

use std::collections::{BTreeMap, BTreeSet};

use aqueduct_primitives::ByteCount;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::bench::{batches, problems, run, sorted_texts, texts};
use crate::rows::{Row, pad, row, table};

/// What makes a group: of zeros there is one, and of NaNs.
type Group = (Option<i64>, Option<String>);

#[derive(Default)]
struct Sums {
    n: i64,
    total: i64,
    least: Option<String>,
    distinct: BTreeSet<String>,
    n_positive: i64,
}

fn oracle(rows: &[Row]) -> Vec<String> {
    let mut groups: BTreeMap<Group, Sums> = BTreeMap::new();
    for (seq, row) in (0..).zip(rows) {
        let float =
            row.float.map(|float| if float.is_nan() { "NaN".into() } else { format!("{:?}", float + 0.0) });
        let sums = groups.entry((row.key, float)).or_default();
        sums.n += 1;
        sums.total += seq;
        sums.n_positive += i64::from(row.key.is_some_and(|key| key > 0));
        if let Some(text) = &row.text {
            sums.least = Some(sums.least.take().map_or(text.clone(), |least| least.min(text.clone())));
            sums.distinct.insert(text.clone());
        }
    }
    let show = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let line = |((key, float), sums): (Group, Sums)| {
        let key_text = show(key.map(|key| key.to_string()));
        let fields = [
            key_text,
            show(float),
            sums.n.to_string(),
            sums.total.to_string(),
            show(sums.least),
            sums.distinct.len().to_string(),
            sums.n_positive.to_string(),
            (sums.total * 2 / sums.n).to_string(),
            pad(key).len().to_string(),
        ];
        fields.join("|")
    };
    let mut lines: Vec<_> = groups.into_iter().map(line).collect();
    lines.sort_unstable();
    lines
}

fn options() -> Value {
    json!({"by": ["key", "float"], "columns": {
        "n": "count(*)",
        "total": "sum(seq)",
        "least": "min(text)",
        "different": "count(distinct text)",
        "positive": "count(*) filter (where key > 0)",
        "twice": "sum(seq) * 2 / count(*)",
        "wide": "character_length(max(pad))",
    }})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    // S3.5
    #[test]
    fn it_gives_what_a_loop_over_the_rows_gives(
        rows in prop::collection::vec(row(), 0..300), batch_rows in 1..60_usize,
    ) {
        let input = batches(&table(&rows), batch_rows);
        let outcome = run("aggregate", options(), vec![input], ByteCount::mib(8)).unwrap();
        prop_assert_eq!(sorted_texts(&outcome.rows), oracle(&rows));
    }
}

// S3.5, MEM-5
#[test]
fn groups_that_no_memory_holds_are_all_there_and_in_order() {
    let rows: Vec<Row> = (0..40_000)
        .map(|n| Row { key: Some((n * 7919) % 20_000), float: Some(0.5), text: Some(format!("t{}", n % 7)) })
        .collect();
    let table = table(&rows);
    let by = json!({"by": ["key", "pad"], "columns": {"n": "count(*)", "last": "max(seq)"}});
    let outcome = run("aggregate", by, vec![batches(&table, 500)], ByteCount::mib(4)).unwrap();
    assert!(outcome.spilled_bytes > 0);
    assert_eq!(outcome.rows.num_rows(), 20_000);
    let lines = texts(&outcome.rows);
    for (key, line) in (0..).zip(lines) {
        assert!(line.starts_with(&format!("{key}|")) && line.contains("|2|"), "{line}");
    }
}

#[test]
fn without_groups_there_is_one_row_even_of_nothing() {
    let columns = json!({"columns": {"n": "count(*)", "total": "sum(seq)"}});
    let nothing = vec![table(&[])];
    let outcome = run("aggregate", columns.clone(), vec![nothing], ByteCount::mib(8)).unwrap();
    assert_eq!(texts(&outcome.rows), ["0|-"]);
    let rows = vec![Row { key: None, float: None, text: None }; 10];
    let outcome = run("aggregate", columns, vec![batches(&table(&rows), 3)], ByteCount::mib(8)).unwrap();
    assert_eq!(texts(&outcome.rows), ["10|45"]);
}

#[test]
fn groups_alone_are_the_different_values() {
    let rows: Vec<Row> = (0..100).map(|n| Row { key: Some(n % 3), float: None, text: None }).collect();
    let by = json!({"by": ["key % 2 as odd", "key"]});
    let outcome = run("aggregate", by, vec![batches(&table(&rows), 7)], ByteCount::mib(8)).unwrap();
    assert_eq!(outcome.rows.schema().field(0).name(), "odd");
    assert_eq!(texts(&outcome.rows), ["0|0", "0|2", "1|1"]);
}

#[test]
fn all_that_is_wrong_is_told_where_it_stands() {
    let schema = table(&[]).schema();
    let told = |options: Value| {
        let problems = problems("aggregate", options, std::slice::from_ref(&schema));
        problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.pointer, problem.message))
            .collect::<Vec<_>>()
    };
    let wrong = told(json!({"by": ["kei", "key +"], "columns": {"n": "count(*)"}}));
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].starts_with("/by/0: ") && wrong[0].contains("nearest `key`"), "{wrong:?}");
    assert!(wrong[1].starts_with("/by/1: "), "{wrong:?}");
    let wrong =
        told(json!({"by": ["key"], "columns": {"a": "text", "b": "sum(max(seq))", "c": "sum(seq) over ()"}}));
    assert!(wrong[0].starts_with("/columns/a: ") && wrong[0].contains("neither in `by`"), "{wrong:?}");
    assert!(wrong[1].starts_with("/columns/b: ") && wrong[1].contains("aggregate"), "{wrong:?}");
    assert!(wrong[2].starts_with("/columns/c: ") && wrong[2].contains("`sql` stage"), "{wrong:?}");
    assert!(told(json!({}))[0].contains("neither `by` nor `columns`"));
    assert!(told(json!({"by": ["key"], "columns": {"key": "count(*)"}}))[0].contains("two columns `key`"));
}
