//! What every stage promises, tried on each. A new stage gets a row in the table [`fixtures`].

use std::sync::Arc;

use aqueduct_testkit::stage_suite::Fixture;
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::{Value, json};

aqueduct_testkit::stage_suite!(aqueduct_spill::ALL, fixtures);

/// One row a fixture; a stage may have several.
fn fixtures() -> Vec<Fixture> {
    let mut fixtures = vec![
        over(letters(), "sort", json!({"by": ["letter desc", "id"]}), sorted()),
        over(letters(), "dedup", json!({"keys": ["letter"]}), of_each_letter(0..5)),
        Fixture {
            variant: "the last",
            ..over(letters(), "dedup", json!({"keys": ["letter"], "keep": "last"}), of_each_letter(35..40))
        },
        Fixture {
            variant: "by another column",
            ..over(letters(), "dedup", json!({"keys": ["letter"], "by": ["id desc"]}), of_each_letter(35..40))
        },
        over(places(), "tile", json!({"lon": "lon", "lat": "lat", "max_rows": 10}), tiles()),
        join("inner", letters_of(0..40)),
        join("left", letters_of(0..40)),
    ];
    fixtures.extend(of_datafusion());
    fixtures
}

/// Those that need DataFusion.
fn of_datafusion() -> Vec<Fixture> {
    vec![
        #[cfg(feature = "engine")]
        over(
            letters(),
            "aggregate",
            json!({"by": ["letter"], "columns": {"n": "count(*)", "last": "max(id)"}}),
            (35..40).map(|id| format!("{}\t8\t{id}", letter(id))).collect(),
        ),
        #[cfg(feature = "sql")]
        Fixture {
            dropping: Ok((json!("SELECT id FROM input WHERE id < 0"), vec![letters()])),
            ..over(
                letters(),
                "sql",
                json!(
                    "SELECT letter, id, row_number() OVER (PARTITION BY letter ORDER BY id DESC) AS n \
                       FROM input ORDER BY letter, n LIMIT 3"
                ),
                vec!["a\t35\t1".into(), "a\t30\t2".into(), "a\t25\t3".into()],
            )
        },
        #[cfg(feature = "sql")]
        Fixture {
            variant: "read twice",
            ..over(
                letters(),
                "sql",
                json!("SELECT a.id FROM input a JOIN input b ON a.id = b.id + 38 ORDER BY a.id"),
                vec!["38".into(), "39".into()],
            )
        },
    ]
}

/// Letters with the place of each in the alphabet.
fn join(how: &'static str, rows: Vec<String>) -> Fixture {
    let on = json!(["letter"]);
    let options = json!({"with": "alphabet", "on": on, "how": how});
    let dropping = Ok((json!({"with": "alphabet", "on": on, "how": "anti"}), vec![letters(), alphabet()]));
    Fixture {
        component: "join",
        variant: how,
        options,
        inputs: vec![letters(), alphabet()],
        rows,
        dropping,
        asks_a_server: false,
    }
}

fn alphabet() -> RecordBatch {
    let letters: ArrayRef = Arc::new(StringArray::from_iter_values(('a'..='j').map(String::from)));
    let places: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=10));
    RecordBatch::try_from_iter([("letter", letters), ("place", places)]).unwrap()
}

fn letters_of(ids: std::ops::Range<i64>) -> Vec<String> {
    ids.map(|id| format!("{id}\t{}\t{}", letter(id), 1 + id % 5)).collect()
}

const N_ROWS: i64 = 40;

fn over(input: RecordBatch, component: &'static str, options: Value, rows: Vec<String>) -> Fixture {
    let dropping = Err("every key has a row");
    Fixture { component, variant: "", options, inputs: vec![input], rows, dropping, asks_a_server: false }
}

fn letter(id: i64) -> char {
    ['a', 'b', 'c', 'd', 'e'][usize::try_from(id % 5).unwrap()]
}

/// Ids from 0 on, and five letters in turn.
fn letters() -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..N_ROWS));
    let letters: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..N_ROWS).map(|id| letter(id).to_string())));
    RecordBatch::try_from_iter([("id", ids), ("letter", letters)]).unwrap()
}

fn sorted() -> Vec<String> {
    let mut ids: Vec<i64> = (0..N_ROWS).collect();
    ids.sort_by_key(|id| (std::cmp::Reverse(letter(*id)), *id));
    ids.into_iter().map(|id| format!("{id}\t{}", letter(id))).collect()
}

fn of_each_letter(ids: std::ops::Range<i64>) -> Vec<String> {
    ids.map(|id| format!("{id}\t{}", letter(id))).collect()
}

/// Four heaps of ten rows, in turn, one in each quarter of the world.
fn places() -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..N_ROWS));
    let lon: ArrayRef =
        Arc::new(Float64Array::from_iter_values((0..N_ROWS).map(|id| [-90.0, -90.0, 90.0, 90.0][at(id)])));
    let lat: ArrayRef =
        Arc::new(Float64Array::from_iter_values((0..N_ROWS).map(|id| [-45.0, 45.0, -45.0, 45.0][at(id)])));
    RecordBatch::try_from_iter([("id", ids), ("lon", lon), ("lat", lat)]).unwrap()
}

fn at(id: i64) -> usize {
    usize::try_from(id % 4).unwrap()
}

/// The curve begins at the south west and goes round by the north.
fn tiles() -> Vec<String> {
    let quarters = [(0, "-90.0\t-45.0"), (1, "-90.0\t45.0"), (3, "90.0\t45.0"), (2, "90.0\t-45.0")];
    let rows = |(tile, (quarter, place)): (usize, (i64, &str))| {
        (0..10).map(move |n| format!("{}\t{place}\t{tile}", 4 * n + quarter)).collect::<Vec<_>>()
    };
    quarters.into_iter().enumerate().flat_map(rows).collect()
}
