//! Items of STAC in files of their own: columns come out of all that are looked at.

use aqueduct_core::{Context, Durable, ErrorKind, Planning, Positions, Result, SourceFactory};
use aqueduct_primitives::ByteCount;
use aqueduct_sources::files::FACTORY;
use arrow::array::RecordBatch;
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::support::{Room, texts};

/// An item with a property, and an asset, that only it has.
fn item(n: usize) -> String {
    let mut item = json!({
        "type": "Feature", "stac_version": "1.0.0", "id": format!("item {n}"), "geometry": null,
        "properties": {"datetime": null, "n": n}, "links": [], "assets": {},
    });
    item["properties"][format!("only:{n}")] = json!(true);
    item["assets"][format!("data-{n}")] = json!({"href": "x"});
    item.to_string()
}

fn fill(room: &Room, n: usize) {
    (0..n).for_each(|n| room.write(&format!("items/{n:03}.json"), item(n)));
}

fn read(more: Value) -> Value {
    let mut options = json!({"paths": ["items/*.json"], "format": "stac", "order": "listed"});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options
}

fn n_own(rows: &[RecordBatch]) -> usize {
    rows[0].schema().fields().iter().filter(|field| field.name().starts_with("only:")).count()
}

fn durable(room: &std::path::Path) -> Durable {
    Durable::new(None, room.join("state/step"), room.join("state/run"))
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_out_of_many_files_with_one_item_each() {
    let dir = tempfile::tempdir().unwrap();
    for is_kept in [false, true] {
        let room = Room::with(|_| {}, |step| step.durable = is_kept.then(|| durable(dir.path())));
        fill(&room, 30);
        let rows = room.read(&FACTORY, read(json!({}))).await.unwrap();
        let ids: Vec<_> = (0..30).map(|n| format!("item {n}")).collect();
        assert_eq!((texts(&rows, "id"), n_own(&rows)), (ids, 30), "{is_kept}");
        assert_eq!(room.cx.metrics().files_done.get(), 30);
        room.check_all_is_back().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_rows_are_looked_at_and_no_more() {
    let (room, kept) = Room::tolerant();
    fill(&room, 12);
    let rows = room.read(&FACTORY, read(json!({"infer_rows": 10}))).await.unwrap();
    assert_eq!((texts(&rows, "id").len(), n_own(&rows)), (10, 10));
    assert!(kept.all().iter().all(|reject| reject.reason == "new field"));
    let rows = room.read(&FACTORY, read(json!({"infer_rows": "all"}))).await.unwrap();
    assert_eq!((texts(&rows, "id").len(), n_own(&rows)), (12, 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_tell_nothing_are_told_of_once_and_when_they_are_read() {
    let (room, kept) = Room::tolerant();
    fill(&room, 6);
    room.write("items/001.json", "{\"type\": \"Catalog\"}");
    room.write("items/002.json", "{\"type\": ");
    room.write("items/003.json", "{\"type\": \"FeatureCollection\", \"features\": []}");
    let rows = room.read(&FACTORY, read(json!({}))).await.unwrap();
    assert_eq!((texts(&rows, "id").len(), n_own(&rows)), (3, 3));
    let mut found: Vec<_> = kept.all().into_iter().map(|reject| reject.reason).collect();
    found.sort_unstable();
    assert_eq!(found, ["data", "stac"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_reads_the_columns_that_were_kept() {
    let dir = tempfile::tempdir().unwrap();
    let room = || {
        Room::with(
            |run| run.base_dir = dir.path().to_owned(),
            |step| step.durable = Some(durable(dir.path())),
        )
    };
    let write = |name: &str, text: String| {
        std::fs::create_dir_all(dir.path().join("items")).unwrap();
        std::fs::write(dir.path().join("items").join(name), text).unwrap();
    };
    (0..8).for_each(|n| write(&format!("{n}.json"), item(n)));
    let open = async |cx: &Context| -> Result<_> {
        let config = FACTORY.configure(read(json!({}))).map_err(|problems| panic!("{problems:?}")).unwrap();
        config.open(cx).await
    };
    let before = room();
    let source = open(&before.cx).await.unwrap();
    let schema = source.schema();
    let mut batches = source.run(before.cx.clone(), Positions::default());
    let (mut rows, mut passed) = (Vec::new(), Positions::default());
    while rows.iter().map(RecordBatch::num_rows).sum::<usize>() < 3 {
        let batch = batches.try_next().await.unwrap().unwrap();
        rows.push(batch.records().clone());
        passed.merge(batch.positions().clone());
        passed.keep_only("files");
    }
    before.cx.durable().unwrap().keeper().unwrap().keep().await.unwrap();
    drop(batches);
    before.cx.tasks().join().await;
    let after = room();
    let source = open(&after.cx).await.unwrap();
    assert_eq!(source.schema(), schema);
    let rest: Vec<_> = source.run(after.cx.clone(), passed).try_collect().await.unwrap();
    rows.extend(rest.iter().map(|batch| batch.records().clone()));
    let expected: Vec<_> = (0..8).map(|n| format!("item {n}")).collect();
    assert_eq!(texts(&rows, "id"), expected);
    assert!(rows.iter().all(|rows| rows.schema() == schema));
}

#[test]
fn check_knows_the_columns_that_a_run_will_find() {
    let room = Room::new();
    fill(&room, 20);
    let planning = |options: Value| {
        let config = FACTORY.configure(options).map_err(|problems| panic!("{problems:?}")).unwrap();
        let planning = Planning {
            base_dir: room.path().to_owned(),
            batch_rows: 1000,
            batch_bytes: ByteCount::mib(1),
            max_concurrency: 4,
        };
        config.known_schema(&planning).unwrap()
    };
    let known = planning(read(json!({}))).unwrap();
    assert_eq!(known.fields().iter().filter(|field| field.name().starts_with("only:")).count(), 20);
    let few = planning(read(json!({"infer_rows": 5}))).unwrap();
    assert_eq!(few.fields().iter().filter(|field| field.name().starts_with("only:")).count(), 5);
    (20..120).for_each(|n| room.write(&format!("items/{n:03}.json"), item(n)));
    assert!(planning(read(json!({}))).is_none(), "too many to look at before a run");
    assert!(planning(read(json!({"paths": ["items/00*.json", "https://host/b.json"]}))).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_items_that_are_bad_is_told() {
    let room = Room::new();
    room.write("items/a.json", "{\"id\": \"a\", \"type\": \"Catalog\"}");
    let error = room.read(&FACTORY, read(json!({}))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
}
