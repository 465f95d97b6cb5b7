//! What every stage promises, tried on each. A new stage gets a row in the table [`fixtures`].

use std::sync::Arc;

use aqueduct_testkit::stage_suite::Fixture;
use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Int64Type};
use serde_json::{Value, json};

aqueduct_testkit::stage_suite!(aqueduct_transforms::ALL, fixtures, crate::asking::services);

/// One row a fixture; a stage may have several.
fn fixtures() -> Vec<Fixture> {
    vec![
        #[cfg(feature = "expr")]
        dropping("filter", json!("id % 2 = 0"), json!("id < 0"), plain(|id| id % 2 == 0)),
        #[cfg(feature = "expr")]
        keeping("select", json!(["key", "id * 2 as double"]), each(|id| format!("k{id}\t{}", id * 2))),
        #[cfg(feature = "expr")]
        keeping("with", json!({"double": "id * 2"}), each(|id| format!("{id}\tk{id}\t{}", id * 2))),
        keeping("drop", json!(["key"]), each(|id| id.to_string())),
        keeping("rename", json!({"id": "key", "key": "id"}), plain(|_| true)),
        keeping("cast", json!({"id": "string"}), plain(|_| true)),
        flatten(),
        explode(),
        dropping("limit", json!(15), json!(0), plain(|id| id < 15)),
        dropping("sample", json!({"fraction": 0.2, "seed": 42}), json!({"fraction": 0}), sampled()),
        Fixture { variant: "by rows", ..keeping("batch", json!({"rows": 7}), plain(|_| true)) },
        Fixture { variant: "by time", ..keeping("batch", json!({"every": "5s"}), plain(|_| true)) },
        Fixture { variant: "a file", ..keeping("tap", json!({"path": "seen.ndjson"}), plain(|_| true)) },
        Fixture { variant: "the log", ..keeping("tap", json!({"log": true}), plain(|_| true)) },
        keeping("throttle", json!({"rows": 100, "per": "1m"}), plain(|_| true)),
        Fixture { variant: "new keys", ..keeping("unseen", json!({"keys": ["id", "key"]}), plain(|_| true)) },
        unseen(),
        #[cfg(feature = "validate")]
        keeping("validate", json!({"schema": ROW_SCHEMA}), plain(|_| true)),
        keeping(
            "update",
            json!({"set": {"id": "{id}", "both.key": "{key}-{id}"}, "remove": ["key"]}),
            each(|id| format!("{id}\t{{key: k{id}-{id}}}")),
        ),
        #[cfg(feature = "http")]
        extract("one after the other", json!(1)),
        #[cfg(feature = "http")]
        extract("several at once", json!(4)),
        #[cfg(feature = "http")]
        extract("as many as go", json!("adaptive")),
    ]
}

/// What every row of an `id` and a `key` is.
#[cfg(feature = "validate")]
const ROW_SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/row.schema.json");

const N_ROWS: i64 = 40;

/// A stage that passes every row, over rows of an `id` and a `key`.
pub(crate) fn keeping(component: &'static str, options: Value, rows: Vec<String>) -> Fixture {
    let dropping = Err("it passes every row");
    let (variant, inputs, asks_a_server) = ("", vec![ids_and_keys()], false);
    Fixture { component, variant, options, inputs, rows, dropping, asks_a_server }
}

/// As [`keeping`], with options under which no row passes.
fn dropping(component: &'static str, options: Value, none: Value, rows: Vec<String>) -> Fixture {
    Fixture { dropping: Ok((none, vec![ids_and_keys()])), ..keeping(component, options, rows) }
}

fn ids_and_keys() -> RecordBatch {
    let keys = StringArray::from_iter_values((0..N_ROWS).map(|id| format!("k{id}")));
    with_ids("key", Arc::new(keys))
}

fn with_ids(name: &str, column: ArrayRef) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..N_ROWS));
    RecordBatch::try_from_iter([("id", ids), (name, column)]).unwrap()
}

fn each(row: impl Fn(i64) -> String) -> Vec<String> {
    (0..N_ROWS).map(row).collect()
}

/// The rows `id, key` of some ids.
pub(crate) fn plain(is_kept: impl Fn(i64) -> bool) -> Vec<String> {
    (0..N_ROWS).filter(|id| is_kept(*id)).map(|id| format!("{id}\tk{id}")).collect()
}

/// The same for ever: who runs a flow again gets the same sample.
fn sampled() -> Vec<String> {
    plain(|id| [1, 4, 16, 18, 21, 24, 36, 39].contains(&id))
}

fn flatten() -> Fixture {
    let field = |name: &str| Arc::new(Field::new(name, DataType::Int64, false));
    let column = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let lat = column((0..N_ROWS).map(|id| id + 1).collect());
    let lon = column((0..N_ROWS).map(|id| id + 2).collect());
    let geo = StructArray::from(vec![(field("lat"), lat), (field("lon"), lon)]);
    Fixture {
        inputs: vec![with_ids("geo", Arc::new(geo))],
        ..keeping("flatten", json!("geo"), each(|id| format!("{id}\t{}\t{}", id + 1, id + 2)))
    }
}

/// The list of each row has none, one or two elements.
fn explode() -> Fixture {
    let lists = |elements: fn(i64) -> std::ops::Range<i64>| {
        let lists = (0..N_ROWS).map(|id| Some(elements(id).map(Some)));
        with_ids("tags", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)))
    };
    let rows = (0..N_ROWS).flat_map(|id| (0..id % 3).map(move |tag| format!("{id}\t{tag}")));
    Fixture {
        inputs: vec![lists(|id| 0..id % 3)],
        dropping: Ok((json!("tags"), vec![lists(|_| 0..0)])),
        ..keeping("explode", json!("tags"), rows.collect())
    }
}

/// Each row's key is sent to a service, which answers with its prompt and how long the key is.
#[cfg(feature = "http")]
fn extract(variant: &'static str, concurrency: Value) -> Fixture {
    let options = json!({
        "service": "http", "url": crate::asking::service_url(), "section": "key", "prompt": "row {id}",
        "concurrency": concurrency, "delay": "0s",
    });
    let answered = |id: i64| {
        let n_bytes = format!("k{id}").len();
        format!("{id}\tk{id}\trow {id} ({n_bytes} bytes)\tok\t\t")
    };
    Fixture { variant, asks_a_server: true, ..keeping("extract", options, each(answered)) }
}

/// Every other row has the key of the one before.
fn unseen() -> Fixture {
    let keys = StringArray::from_iter_values((0..N_ROWS).map(|id| format!("k{}", id / 2)));
    let rows = (0..N_ROWS).filter(|id| id % 2 == 0).map(|id| format!("{id}\tk{}", id / 2));
    Fixture {
        variant: "known keys",
        inputs: vec![with_ids("key", Arc::new(keys))],
        dropping: Err("the first row of each key passes"),
        ..keeping("unseen", json!({"keys": ["key"]}), rows.collect())
    }
}
