//! Patches of all kinds against RFC 7396 as it is written, on the rows as JSON.

use arrow::array::RecordBatch;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::tests::as_json;
use crate::testing::{Bench, batch_of};

/// The function of RFC 7396, section 2.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            target.shift_remove(name);
        } else {
            merge_patch(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Rows of `n`, `t` and a struct `s` of `n`, `t` and a struct `s` of `n` and `t`; each may be missing.
fn object(depth: u32) -> BoxedStrategy<Value> {
    let leaves = (prop::option::of(-9_i64..10), prop::option::of("[a-c]{0,2}"));
    let inner = if depth == 0 { Just(None).boxed() } else { prop::option::of(object(depth - 1)).boxed() };
    (leaves, inner)
        .prop_map(|((n, t), s)| {
            let all = json!({"n": n, "t": t, "s": s});
            Value::Object(
                all.as_object().unwrap().clone().into_iter().filter(|(_, value)| !value.is_null()).collect(),
            )
        })
        .boxed()
}

/// Patches of the same kinds, and of new members.
fn patch(depth: u32) -> BoxedStrategy<Value> {
    let number = prop_oneof![Just(Value::Null), (-9_i64..10).prop_map(Value::from)];
    let text = prop_oneof![Just(Value::Null), "[a-c]{0,2}".prop_map(Value::from)];
    let list = prop::collection::vec(0_i64..5, 1..3).prop_map(|list| json!(list));
    let within = if depth == 0 { Just(Value::Null).boxed() } else { patch(depth - 1) };
    let new = prop_oneof![Just(Value::Null), list, Just(json!({"deep": {"er": 1}}))];
    let maybe = |value: BoxedStrategy<Value>| prop::option::of(value);
    (maybe(number.boxed()), maybe(text.boxed()), maybe(within), maybe(new.boxed()))
        .prop_map(|(n, t, s, new)| {
            let all = [("n", n), ("t", t), ("s", s), ("new", new)];
            Value::Object(
                all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect(),
            )
        })
        .boxed()
}

fn rows_of(rows: &[Value]) -> RecordBatch {
    // The first has all members, so that all columns are there.
    let all = json!({"n": 0, "t": "", "s": {"n": 0, "t": "", "s": {"n": 0, "t": ""}}});
    let text = Value::Array([&[all], rows].concat()).to_string();
    let batch = batch_of(&text);
    batch.slice(1, rows.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn rows_are_patched_as_the_rfc_says(rows in prop::collection::vec(object(2), 1..8), patch in patch(2)) {
        prop_assume!(patch.as_object().is_some_and(|patch| !patch.is_empty()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bench = Bench::new();
        let found = match bind_and_run(&runtime, &bench, &rows_of(&rows), &patch) {
            Ok(found) => found,
            Err(message) => {
                // What columns cannot be: structs without members.
                prop_assert!(message.contains("would be left"), "{}: {}", patch, message);
                return Ok(());
            }
        };
        let expected: Vec<Value> = rows
            .into_iter()
            .map(|mut row| {
                merge_patch(&mut row, &patch);
                row
            })
            .collect();
        prop_assert_eq!(as_json(&found), expected, "{}", patch);
    }
}

fn bind_and_run(
    runtime: &tokio::runtime::Runtime,
    bench: &Bench,
    rows: &RecordBatch,
    patch: &Value,
) -> Result<RecordBatch, String> {
    let options = json!({ "merge": patch });
    let factory = crate::ALL.iter().find(|factory| factory.info().name == "update").unwrap();
    let bound = factory.configure(options.clone()).and_then(|config| config.bind(&[rows.schema()]));
    bound.map_err(|problems| problems[0].message.clone())?;
    Ok(runtime.block_on(bench.run("update", options, vec![rows.clone()])).unwrap())
}
