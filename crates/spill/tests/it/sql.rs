//! `sql` beside what the same query over few rows is known to give.
#![cfg(feature = "sql")]

use std::sync::Arc;

use aqueduct_primitives::ByteCount;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use serde_json::{Value, json};

use crate::bench::{batches, problems, run, sorted_texts, texts};

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
