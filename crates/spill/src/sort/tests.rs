use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{Int64Type, UInt64Type};
use proptest::prelude::*;

use super::*;

/// A row: a key, how wide it is.
type Row = (Option<i64>, usize);

const WIDE: usize = 40_000;

fn batch(rows: &[Row], from: usize) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| "x".repeat(row.1))));
    let seq: ArrayRef = Arc::new(UInt64Array::from_iter_values((from..).take(rows.len()).map(|n| n as u64)));
    RecordBatch::try_from_iter_with_nullable([
        ("key", keys, true),
        ("text", texts, false),
        ("seq", seq, false),
    ])
    .unwrap()
}

struct Outcome {
    rows: Vec<(Option<i64>, usize, u64)>,
    report: SortReport,
    largest_output_bytes: u64,
}

fn sort(rows: &[Row], batch_rows: usize, lease: u64, options: SortOptions) -> Result<Outcome> {
    let parent = tempfile::tempdir().unwrap();
    let disk = SpillDir::new(parent.path(), "test", ByteCount::mib(1024));
    let memory = SortMemory { rows: ByteCount::new(lease), block: ByteCount::new(lease / 16) };
    let keys = vec![SortKey { column: 0, options }];
    let schema = batch(&[], 0).schema();
    let mut sort = ExternalSort::new(schema, keys, memory, SpillCompression::Lz4, disk)?;
    for (n, rows) in rows.chunks(batch_rows).enumerate() {
        sort.push(&batch(rows, n * batch_rows))?;
    }
    let sorted = sort.finish()?;
    let report = sorted.report();
    let mut outcome = Outcome { rows: Vec::new(), report, largest_output_bytes: 0 };
    for records in sorted {
        let records = records?;
        let weight = row_bytes(&records).iter().sum::<u64>();
        if records.num_rows() > 1 {
            outcome.largest_output_bytes = outcome.largest_output_bytes.max(weight);
        }
        let keys = records.column(0).as_primitive::<Int64Type>();
        let (texts, seq) =
            (records.column(1).as_string::<i32>(), records.column(2).as_primitive::<UInt64Type>());
        outcome.rows.extend(
            (0..records.num_rows())
                .map(|n| (keys.is_valid(n).then(|| keys.value(n)), texts.value(n).len(), seq.value(n))),
        );
    }
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "nothing is left on disk");
    Ok(outcome)
}

/// What a stable sort in memory gives.
fn oracle(rows: &[Row], options: SortOptions) -> Vec<(Option<i64>, usize, u64)> {
    let mut rows: Vec<_> = (0..).zip(rows).map(|(seq, row)| (row.0, row.1, seq)).collect();
    rows.sort_by(|a, b| match (a.0, b.0) {
        (Some(a), Some(b)) if options.descending => b.cmp(&a),
        (Some(a), Some(b)) => a.cmp(&b),
        (a, b) if options.nulls_first => a.is_some().cmp(&b.is_some()),
        (a, b) => a.is_none().cmp(&b.is_none()),
    });
    rows
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let width = prop_oneof![20 => 0..40usize, 1 => 1000..3000usize];
    prop::collection::vec((prop::option::weighted(0.9, -20..20i64), width), 0..3000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // S3.5: the order of a stable sort in memory, whatever the lease.
    #[test]
    fn it_sorts_as_a_stable_sort_in_memory(
        rows in rows(), batch_rows in 1..700usize, lease in 32_000..400_000u64,
        descending: bool, nulls_first: bool,
    ) {
        let options = SortOptions { descending, nulls_first };
        let outcome = sort(&rows, batch_rows, lease, options).unwrap();
        prop_assert_eq!(outcome.rows, oracle(&rows, options));
        prop_assert!(outcome.largest_output_bytes <= lease / 16, "{}", outcome.largest_output_bytes);
    }
}

#[test]
fn few_rows_never_touch_the_disk() {
    let outcome = sort(&[(Some(2), 5), (Some(1), 5)], 2, 1 << 20, SortOptions::default()).unwrap();
    assert_eq!(outcome.report, SortReport::default());
    assert_eq!(outcome.rows, [(Some(1), 5, 1), (Some(2), 5, 0)]);
}

#[test]
fn many_runs_are_merged_more_than_once() {
    let rows: Vec<_> = (0..60_000).map(|n| (Some((n * 7919) % 1000), 20)).collect();
    let outcome = sort(&rows, 1000, 64_000, SortOptions::default()).unwrap();
    assert!(outcome.report.n_merges > 1, "{:?}", outcome.report);
    assert_eq!(outcome.rows, oracle(&rows, SortOptions::default()));
}

// facts §11: what no setting of DataFusion's sort survives.
#[test]
fn wide_rows_that_lie_next_to_each_other_in_the_order_are_sorted_too() {
    let wide = |n: i64| if n % 100 == 0 { (Some(500_000 + n), WIDE) } else { (Some((n * 7919) % 1000), 20) };
    let rows: Vec<_> = (0..20_000).map(wide).collect();
    let outcome = sort(&rows, 500, 1 << 20, SortOptions::default()).unwrap();
    assert!(outcome.report.n_runs > 4, "{:?}", outcome.report);
    assert_eq!(outcome.rows, oracle(&rows, SortOptions::default()));
}

#[test]
fn rows_too_wide_for_the_memory_are_told_with_the_numbers() {
    let rows = vec![(Some(1), 300_000); 4];
    let error = sort(&rows, 1, 400_000, SortOptions::default()).err().expect("two do not fit");
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.chain().contains("raise `memory`"), "{}", error.chain());
}

#[test]
fn the_limit_of_the_disk_is_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let disk = SpillDir::new(parent.path(), "test", ByteCount::kib(64));
    let memory = SortMemory { rows: ByteCount::kib(256), block: ByteCount::kib(16) };
    let keys = vec![SortKey { column: 2, options: SortOptions::default() }];
    let records = batch(&[(None, 2000); 1000], 0);
    let mut sort = ExternalSort::new(records.schema(), keys, memory, SpillCompression::None, disk).unwrap();
    let error = sort.push(&records).unwrap_err();
    assert!(error.chain().contains("limit_bytes: 65536"), "{}", error.chain());
}
