//! `sql` beside what the same query over few rows is known to give.
#![cfg(feature = "sql")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aqueduct_primitives::ByteCount;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::bench::{batches, problems, run, sorted_texts, texts};
use crate::rows::{self, Row};

const N_ROWS: i64 = 6000;

/// Numbers from 0 on, three thousand keys, wide texts: 3 MB.
fn table() -> RecordBatch {
    let numbered = |f: fn(i64) -> i64| Arc::new(Int64Array::from_iter_values((0..N_ROWS).map(f))) as ArrayRef;
    let pads = (0..N_ROWS).map(|n| format!("{n:0>500}"));
    let pads: ArrayRef = Arc::new(StringArray::from_iter_values(pads));
    let (seq, key, half) = (numbered(|n| n), numbered(|n| n * 7919 % 3000), numbered(|n| n % 2));
    RecordBatch::try_from_iter([("seq", seq), ("key", key), ("half", half), ("pad", pads)]).unwrap()
}

fn query(sql: &str) -> crate::bench::Outcome {
    run("sql", json!(sql), vec![batches(&table(), 300)], ByteCount::mib(4)).unwrap()
}

// S3.5
#[test]
fn windows_filters_and_orders_over_more_than_memory() {
    let outcome = query(
        "SELECT seq, key, nth, pad FROM (SELECT *, row_number() OVER (PARTITION BY key ORDER BY seq) AS nth FROM input) \
         WHERE nth = 2 ORDER BY key DESC",
    );
    assert!(outcome.spilled_bytes > 0);
    assert_eq!(outcome.rows.num_rows(), 3000);
    for (line, key) in texts(&outcome.rows).iter().zip((0..3000).rev()) {
        let fields: Vec<&str> = line.split('|').collect();
        let seq: i64 = fields[0].parse().unwrap();
        assert_eq!((fields[1], fields[2]), (key.to_string().as_str(), "2"));
        assert!((3000..6000).contains(&seq) && fields[3].ends_with(fields[0]));
    }
}

/// Where a float stands among others, which in SQL are in the total order of IEEE 754: 5.10.
fn place(float: Option<f64>) -> (bool, i64) {
    let bits = float.unwrap_or_default().to_bits().cast_signed();
    (float.is_none(), if bits < 0 { bits ^ i64::MAX } else { bits })
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or("-".into(), |value| value.to_string())
}

const NUMBERED: &str = "SELECT seq, row_number() OVER (PARTITION BY key ORDER BY float, seq) AS nth, \
    sum(seq) OVER (PARTITION BY key ORDER BY seq) AS so_far, lag(seq) OVER (PARTITION BY text ORDER BY seq) AS before, \
    pad FROM input ORDER BY seq";

/// [`NUMBERED`] by a loop.
fn numbered(rows: &[Row]) -> Vec<String> {
    let line = |(seq, row): (usize, &Row)| {
        let of_key = rows.iter().enumerate().filter(|(_, other)| other.key == row.key);
        let nth =
            of_key.clone().filter(|(n, other)| (place(other.float), *n) <= (place(row.float), seq)).count();
        let so_far: usize = of_key.map(|(n, _)| n).filter(|n| *n <= seq).sum();
        let before = rows[..seq].iter().rposition(|other| other.text == row.text);
        format!("{seq}|{nth}|{so_far}|{}|{}", shown(before), rows::pad(row.key))
    };
    rows.iter().enumerate().map(line).collect()
}

const DISTINCT: &str = "SELECT DISTINCT key, text FROM input WHERE seq % 3 <> 1 \
    ORDER BY key DESC NULLS LAST, text NULLS FIRST LIMIT 20 OFFSET 2";

/// [`DISTINCT`] by a loop.
fn distinct(rows: &[Row]) -> Vec<String> {
    let kept = rows.iter().enumerate().filter(|(n, _)| n % 3 != 1);
    // No key comes after all of them, no text before all of them.
    let order = |row: &Row| (std::cmp::Reverse(row.key), row.text.clone());
    let found: BTreeSet<_> = kept.map(|(_, row)| order(row)).collect();
    let lines = found.into_iter().map(|(key, text)| format!("{}|{}", shown(key.0), shown(text)));
    lines.skip(2).take(20).collect()
}

const PAIRS: &str = "SELECT a.key, count(*) AS n, max(b.seq - a.seq) AS apart FROM input a \
    JOIN input b ON a.key = b.key AND a.text = b.text WHERE a.seq < b.seq GROUP BY a.key \
    UNION ALL SELECT key, 0, 0 FROM input WHERE float IS NULL AND seq % 5 = 0";

/// [`PAIRS`] by a loop, in the order of the lines.
fn pairs(rows: &[Row]) -> Vec<String> {
    let mut found: BTreeMap<i64, (usize, usize)> = BTreeMap::new();
    for (n, row) in rows.iter().enumerate() {
        let (Some(key), Some(text)) = (row.key, &row.text) else { continue };
        for (m, _) in rows
            .iter()
            .enumerate()
            .skip(n + 1)
            .filter(|(_, other)| other.key == Some(key) && other.text.as_ref() == Some(text))
        {
            let (count, apart) = found.entry(key).or_default();
            (*count, *apart) = (*count + 1, (*apart).max(m - n));
        }
    }
    let alone = rows.iter().enumerate().filter(|(n, row)| row.float.is_none() && n % 5 == 0);
    let alone = alone.map(|(_, row)| format!("{}|0|0", shown(row.key)));
    let mut lines: Vec<_> =
        found.into_iter().map(|(key, (n, apart))| format!("{key}|{n}|{apart}")).chain(alone).collect();
    lines.sort_unstable();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // S3.5
    #[test]
    fn it_gives_what_loops_over_the_rows_give(
        rows in prop::collection::vec(rows::row(), 0..200), batch_rows in 1..60_usize,
    ) {
        let table = rows::table(&rows);
        let ask = |sql: &str| {
            run("sql", json!(sql), vec![batches(&table, batch_rows)], ByteCount::mib(8)).unwrap().rows
        };
        prop_assert_eq!(texts(&ask(NUMBERED)), numbered(&rows));
        prop_assert_eq!(texts(&ask(DISTINCT)), distinct(&rows));
        prop_assert_eq!(sorted_texts(&ask(PAIRS)), pairs(&rows));
    }
}

#[test]
fn groups_come_out_once_each() {
    let outcome = query(
        "SELECT key, count(*) AS n, max(pad) AS pad FROM input GROUP BY key HAVING max(seq) >= 3000 ORDER BY key",
    );
    assert_eq!(outcome.rows.num_rows(), 3000);
    assert!(
        texts(&outcome.rows).iter().enumerate().all(|(key, line)| line.starts_with(&format!("{key}|2|")))
    );
}

#[test]
fn the_input_can_be_read_more_than_once() {
    let outcome = query(
        "SELECT a.key, a.seq, b.seq AS other FROM input a JOIN input b ON a.key = b.key AND a.seq < b.seq ORDER BY a.seq LIMIT 3",
    );
    assert_eq!(texts(&outcome.rows), ["0|0|3000", "1919|1|3001", "838|2|3002"]);
    let both =
        query("SELECT seq FROM input WHERE seq < 2 UNION ALL SELECT seq + 100 FROM input WHERE seq < 2");
    assert_eq!(sorted_texts(&both.rows), ["0", "1", "100", "101"]);
}

// Rows without a body on disk: no text, no list, and of an empty batch not a byte.
#[test]
fn an_empty_batch_of_numbers_is_read_as_often_as_any_other() {
    let rows = table().project(&[0, 1]).unwrap();
    let none = RecordBatch::new_empty(rows.schema());
    let mut input = vec![none.clone()];
    input.extend(batches(&rows, 300));
    input.insert(5, none.clone());
    input.push(none);
    let sql = "SELECT seq FROM input WHERE seq > (SELECT max(seq) - 2 FROM input) ORDER BY seq";
    let outcome = run("sql", json!(sql), vec![input], ByteCount::mib(4)).unwrap();
    assert_eq!(texts(&outcome.rows), ["5998", "5999"]);
}

#[test]
fn subqueries_without_a_partner_stay_in_bounds() {
    let outcome =
        query("SELECT seq FROM input WHERE seq >= (SELECT max(seq) - 1 FROM input) ORDER BY seq DESC");
    assert_eq!(texts(&outcome.rows), ["5999", "5998"]);
    let missing = query(
        "SELECT count(*) FROM input a WHERE NOT EXISTS (SELECT 1 FROM input b WHERE b.seq = a.seq + 3000)",
    );
    assert_eq!(texts(&missing.rows), ["3000"]);
}

#[test]
fn a_limit_needs_no_more_of_its_input() {
    let outcome = query("SELECT seq FROM input LIMIT 5");
    assert_eq!((texts(&outcome.rows).len(), outcome.spilled_bytes), (5, 0));
    assert_eq!(texts(&query("SELECT 1 AS one, 'x' AS x").rows), ["1|x"]);
}

#[test]
fn the_first_of_an_order_take_no_disk_for_the_others() {
    let outcome = query("SELECT seq, pad FROM input ORDER BY seq DESC LIMIT 10");
    let seq: Vec<_> =
        texts(&outcome.rows).iter().map(|line| line.split('|').next().unwrap().to_owned()).collect();
    assert_eq!(seq, (5990..6000).rev().map(|n| n.to_string()).collect::<Vec<_>>());
    assert!((1..100_000).contains(&outcome.spilled_bytes), "{} bytes", outcome.spilled_bytes);
}

#[test]
fn what_holds_all_rows_in_memory_is_refused_by_name() {
    let told = |sql: &str| problems("sql", json!(sql), &[table().schema()]).remove(0).message;
    let window = told("SELECT sum(seq) OVER (PARTITION BY key) FROM input");
    assert!(window.contains("`WindowAggExec`") && window.contains("current row"), "{window}");
    let cross = told("SELECT a.seq FROM input a, input b");
    assert!(cross.contains("`CrossJoinExec`"), "{cross}");
    let uneven = told("SELECT a.seq FROM input a JOIN input b ON a.seq < b.seq");
    assert!(uneven.contains("`NestedLoopJoinExec`"), "{uneven}");
    let not_in = told("SELECT seq FROM input WHERE key NOT IN (SELECT nullif(half, 1) FROM input)");
    assert!(not_in.contains("not exists"), "{not_in}");
}

#[test]
fn what_is_wrong_is_told_with_the_nearest_name() {
    let told = |sql: Value| problems("sql", sql, &[table().schema()]).remove(0).message;
    assert!(told(json!("SELECT kei FROM input")).contains("nearest `key`"));
    assert!(told(json!("SELECT 1 FROM other")).contains("other"));
    assert!(told(json!("DROP TABLE input")).contains("DDL"));
    assert!(told(json!("COPY input TO 'x.csv'")).contains("not"));
    assert!(told(json!("SELECT FROM WHERE")).len() < 300);
    assert!(told(json!(" ")).contains("empty"));
    assert!(told(json!("SELECT seq, seq FROM input")).contains("seq"));
}
