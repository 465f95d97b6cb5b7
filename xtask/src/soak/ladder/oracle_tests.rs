//! The judge on outputs that a naive engine made, and on the same damaged.

use serde_json::{Value, json};

use super::super::stage::STAGES;
use super::*;
use crate::text;

const ALL: [Kind; 3] = [Kind::Narrow, Kind::Few, Kind::Equal];

fn data(kind: Kind) -> Data {
    Data { kind, n_bytes: 20_000 }
}

/// The right output, worked out in another way than the judge does: with nested loops over JSON.
fn naive(stage: Stage, data: Data) -> Vec<Value> {
    let key = data.kind.key();
    let mut rows: Vec<Value> = data.rows().map(|row| json!(row)).collect();
    match stage {
        Stage::Sort => rows
            .sort_by_key(|row| (row[key].is_null(), row[key].as_u64(), row[key].as_str().map(str::to_owned))),
        Stage::Dedup => {
            let mut kept: Vec<Value> = Vec::new();
            for row in rows {
                if !kept.iter().any(|other| other[key] == row[key]) {
                    kept.push(row);
                }
            }
            rows = kept;
        }
        Stage::Aggregate => rows = naive_groups(&rows, key),
        Stage::Join => rows = naive_join(&rows, data),
        Stage::Tile => {
            let max_rows = usize::try_from(max_tile_rows(data)).unwrap();
            for (n, row) in rows.iter_mut().enumerate() {
                row["tile"] = json!(n / max_rows);
            }
        }
    }
    rows
}

fn naive_groups(rows: &[Value], key: &str) -> Vec<Value> {
    let mut keys: Vec<&Value> = Vec::new();
    rows.iter().for_each(|row| {
        if !keys.contains(&&row[key]) {
            keys.push(&row[key]);
        }
    });
    let group = |wanted: &&Value| {
        let of: Vec<_> = rows.iter().filter(|row| &row[key] == *wanted).collect();
        let total: u64 = of.iter().map(|row| row["seq"].as_u64().unwrap()).sum();
        let least = of.iter().map(|row| row["pad"].as_str().unwrap()).min();
        json!({ key: wanted, "n": of.len(), "total": total, "least": least })
    };
    keys.iter().map(group).collect()
}

fn naive_join(rows: &[Value], data: Data) -> Vec<Value> {
    let key = data.kind.key();
    let side: Vec<Value> = data.side_rows().map(|row| json!(row)).collect();
    let (left, right) = if data.kind == Kind::Equal { (&side[..], rows) } else { (rows, &side[..]) };
    let mut pairs = Vec::new();
    for l in left {
        for r in right.iter().filter(|r| !l[key].is_null() && r[key] == l[key]) {
            let mut pair = l.clone();
            for (name, value) in r.as_object().unwrap().iter().filter(|(name, _)| *name != key) {
                let name = if l.get(name).is_some() { format!("{name}_right") } else { name.clone() };
                pair[name] = value.clone();
            }
            pairs.push(pair);
        }
    }
    pairs
}

/// With the columns in the order in which the stage gives them.
fn judged(stage: Stage, kind: Kind, rows: &[Value]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.ndjson");
    let mut columns = stage.columns(kind);
    columns.extend((stage == Stage::Tile).then(|| "tile".to_owned()));
    let line = |row: &Value| {
        let fields: Vec<_> =
            columns.iter().map(|name| format!("{}:{}", json!(name), row[name.as_str()])).collect();
        format!("{{{}}}\n", fields.join(","))
    };
    text::write(&path, &rows.iter().map(line).collect::<String>()).unwrap();
    expected(stage, data(kind)).wrong(&look(stage, kind, &path).unwrap())
}

#[test]
fn right_outputs_pass_and_join_something() {
    for stage in STAGES {
        for kind in ALL {
            let rows = naive(stage, data(kind));
            assert!(!rows.is_empty());
            assert_eq!(judged(stage, kind, &rows), None, "{stage:?} {kind:?}");
        }
    }
}

#[test]
fn a_lost_a_doubled_and_a_changed_row_are_seen_in_every_stage() {
    for stage in STAGES {
        for kind in ALL {
            let rows = naive(stage, data(kind));
            assert!(judged(stage, kind, &rows[1..]).is_some(), "{stage:?} {kind:?}: lost");
            let doubled = [&rows[..], &rows[..1]].concat();
            assert!(judged(stage, kind, &doubled).is_some(), "{stage:?} {kind:?}: doubled");
            let mut changed = rows.clone();
            let name = if stage == Stage::Aggregate { "least" } else { "pad" };
            changed[0][name] = json!("0123456789abcdef");
            let told = judged(stage, kind, &changed).unwrap();
            assert!(told.contains("not the same ones"), "{stage:?} {kind:?}: {told}");
        }
    }
}

#[test]
fn a_sort_that_is_not_stable_or_not_sorted_is_seen() {
    let mut rows = naive(Stage::Sort, data(Kind::Equal));
    rows.swap(3, 4);
    assert_eq!(judged(Stage::Sort, Kind::Equal, &rows).unwrap(), "1 rows are out of place");
    for kind in [Kind::Narrow, Kind::Few] {
        let mut rows = naive(Stage::Sort, data(kind));
        rows.rotate_left(1);
        assert!(judged(Stage::Sort, kind, &rows).unwrap().contains("out of place"));
    }
}

#[test]
fn a_later_row_of_a_key_is_no_first_one() {
    let data = data(Kind::Few);
    let mut rows = naive(Stage::Dedup, data);
    let word = rows[0]["word"].clone();
    rows[0] = data.rows().map(|row| json!(row)).filter(|row| row["word"] == word).nth(1).unwrap();
    assert!(judged(Stage::Dedup, Kind::Few, &rows).unwrap().contains("not the same ones"));
}

#[test]
fn tiles_that_are_too_large_too_many_or_not_there_are_seen() {
    let rows = naive(Stage::Tile, data(Kind::Narrow));
    let tiled = |tile: fn(usize) -> Value| {
        let mut rows = rows.clone();
        rows.iter_mut().enumerate().for_each(|(n, row)| row["tile"] = tile(n));
        judged(Stage::Tile, Kind::Narrow, &rows)
    };
    assert!(tiled(|_| json!(1)).unwrap().contains("a tile of 200 rows"));
    assert_eq!(tiled(|n| json!(n)), None, "within ten times as many tiles as are needed");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.ndjson");
    let line = |row: &Row| serde_json::to_string(row).unwrap() + "\n";
    text::write(&path, &data(Kind::Narrow).rows().map(|row| line(&row)).collect::<String>()).unwrap();
    let output = look(Stage::Tile, Kind::Narrow, &path).unwrap();
    assert!(expected(Stage::Tile, data(Kind::Narrow)).wrong(&output).unwrap().contains("columns"));
}
