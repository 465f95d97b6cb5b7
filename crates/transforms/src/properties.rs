//! What holds for every stage, over random rows.

use std::collections::HashSet;
use std::sync::Arc;

use aqueduct_core::Batch;
use aqueduct_primitives::ByteCount;
use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use futures::StreamExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::ALL;
use crate::testing::{Bench, int_column};

type Row = (Option<i64>, Option<String>, Option<Vec<Option<i64>>>);

fn row() -> impl Strategy<Value = Row> {
    let list = prop::collection::vec(prop::option::of(-9_i64..10), 0..4);
    (prop::option::of(-9_i64..10), prop::option::of("[a-c]{0,3}"), prop::option::of(list))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let a: ArrayRef = Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>());
    let s: ArrayRef = Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<StringArray>());
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(rows.iter().map(|row| row.2.clone()));
    let l: ArrayRef = Arc::new(lists);
    RecordBatch::try_from_iter_with_nullable([("a", a, true), ("s", s, true), ("l", l, true)]).unwrap()
}

/// One of each stage that gives the same rows however they are cut.
fn stages() -> Vec<(&'static str, Value)> {
    vec![
        #[cfg(feature = "expr")]
        ("filter", json!("a > 0 or s = 'a'")),
        #[cfg(feature = "expr")]
        ("select", json!(["s", "a * 2 as double", "10 / a as ratio"])),
        #[cfg(feature = "expr")]
        ("with", json!({"a": "a + 1", "t": "upper(s)"})),
        ("drop", json!(["s"])),
        ("rename", json!({"a": "b"})),
        ("cast", json!({"a": "string", "s": "int64"})),
        ("explode", json!("l")),
        ("limit", json!(7)),
        ("sample", json!({"fraction": 0.5})),
        ("batch", json!({"rows": 3})),
        ("update", json!({"set": {"s": "{s}-{a}", "l": ["{a}", 7], "o.p": "{a}"}, "merge": {"s": "{s}"}})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_rows_come_out_however_they_are_cut(
        rows in prop::collection::vec(row(), 1..40),
        cuts in prop::collection::vec(0_usize..40, 0..5),
    ) {
        let whole = batch(&rows);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(rows.len())).chain([0, rows.len()]).collect();
        cuts.sort_unstable();
        let parts: Vec<_> = cuts.windows(2).map(|cut| whole.slice(cut[0], cut[1] - cut[0])).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (name, options) in stages() {
            let at_once = Bench::forgiving();
            let expected = runtime.block_on(at_once.run(name, options.clone(), vec![whole.clone()])).unwrap();
            let in_parts = Bench::forgiving();
            let found = runtime.block_on(in_parts.run(name, options, parts.clone())).unwrap();
            prop_assert_eq!(&expected, &found, "{}", name);
            prop_assert_eq!(at_once.rejects(), in_parts.rejects(), "{}", name);
            if name != "limit" {
                let filtered = |bench: &Bench| bench.metrics().rows_filtered.get();
                prop_assert_eq!(filtered(&at_once), filtered(&in_parts), "{}", name);
                prop_assert_eq!(in_parts.positions().iter().count(), parts.len(), "{} passes positions", name);
            }
        }
    }

    #[cfg(feature = "expr")]
    #[test]
    fn filter_keeps_what_an_oracle_keeps(rows in prop::collection::vec(row(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = json!("a > 0 or s = 'a'");
        let bench = Bench::new();
        let found = runtime.block_on(bench.run("filter", options, vec![batch(&rows)])).unwrap();
        let kept = |row: &&Row| row.0.is_some_and(|a| a > 0) || row.1.as_deref() == Some("a");
        let expected: Vec<Row> = rows.iter().filter(kept).cloned().collect();
        prop_assert_eq!(found, batch(&expected));
    }
}

// MEM-2
#[cfg(feature = "expr")]
#[tokio::test]
async fn what_does_not_fit_is_made_in_halves_and_counted_once() {
    let bench = Bench::with_share(ByteCount::kib(16));
    let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(0..8000));
    let rows = RecordBatch::try_from_iter([("a", rows)]).unwrap();
    let (schema, _) = bench.slow_input(vec![rows.clone()], std::time::Duration::ZERO);
    // A batch that others read too covers nothing of what this step makes of it.
    let shared = Batch::share(bench.cx.admit(rows).await.unwrap(), 2).remove(0);
    let input = Box::pin(futures::stream::iter([Ok(shared)]));
    let config = ALL[0].configure(json!("a % 2 = 0")).unwrap();
    let mut out = config.bind(&[schema]).unwrap().run(vec![input], bench.cx.clone());
    let mut kept = Vec::new();
    let mut n_batches = 0;
    while let Some(batch) = out.next().await {
        kept.extend(int_column(batch.unwrap().records(), "a"));
        n_batches += 1;
    }
    drop(out);
    assert_eq!(kept, (0..8000).step_by(2).collect::<Vec<i64>>());
    assert!(n_batches > 1, "32 KB do not fit into 16 KiB");
    assert_eq!(bench.metrics().rows_filtered.get(), 4000);
    assert_eq!(bench.cx.share().free(), bench.cx.share().total());
}

#[test]
fn names_are_unique_and_examples_show_them() {
    let mut seen = HashSet::new();
    for factory in ALL {
        let info = factory.info();
        assert!(seen.insert(info.name), "two stages `{}`", info.name);
        assert!(info.example.starts_with(&format!("{}: ", info.name)), "{}", info.example);
        assert!(!info.summary.is_empty() && !info.summary.ends_with('.') && !info.summary.contains('\n'));
        assert!(factory.options().as_value().is_object());
    }
}

#[test]
fn one_input_is_taken() {
    let schema = batch(&[]).schema();
    for (name, options) in stages() {
        let factory = ALL.iter().find(|factory| factory.info().name == name).unwrap();
        let config = factory.configure(options).unwrap();
        for inputs in [vec![], vec![Arc::clone(&schema); 2]] {
            let wrong = config.bind(&inputs).err().unwrap();
            assert!(wrong[0].message.contains("one input"), "{name}");
        }
    }
}
