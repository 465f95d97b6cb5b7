//! `stac_geoparquet`: what a file tells of itself, and the rows in it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use aqueduct_core::{ErrorKind, Part, Reject, RejectPolicy, Stored, StoredPart, StoredRead};
use aqueduct_primitives::ByteCount;
use arrow::array::{AsArray, BinaryArray, RecordBatch, StringArray, new_null_array};
use arrow::compute::concat_batches;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Place, checked, configure, items, parquet, rows};

const SINK: &str = "stac_geoparquet";

fn reader(part: &Part) -> ParquetRecordBatchReaderBuilder<bytes::Bytes> {
    ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(checked(part))).unwrap()
}

/// The file's metadata, all but that of the Arrow library.
fn metadata(part: &Part) -> BTreeMap<String, Value> {
    let reader = reader(part);
    let pairs = reader.metadata().file_metadata().key_value_metadata().unwrap();
    let pairs = pairs.iter().filter(|pair| pair.key != "ARROW:schema");
    pairs
        .map(|pair| (pair.key.clone(), serde_json::from_str(pair.value.as_ref().unwrap()).unwrap()))
        .collect()
}

/// What it tells of its geometries.
fn geometry(part: &Part) -> Value {
    metadata(part)["geo"]["columns"]["geometry"].clone()
}

#[tokio::test]
async fn a_file_tells_what_the_specifications_ask() {
    let place = Place::new(ByteCount::mib(32));
    let parts = place.write(SINK, json!({ "path": "out" }), &[items(90, 30, 3), items(120, 30, 3)]).await;
    let parts = parts.unwrap();
    assert_eq!(parts[0].name, "part-r1-00000.parquet");
    let covering = json!({"bbox": {
        "xmin": ["bbox", "xmin"], "ymin": ["bbox", "ymin"], "xmax": ["bbox", "xmax"], "ymax": ["bbox", "ymax"],
    }});
    let geometry = json!({
        "encoding": "WKB", "geometry_types": ["Point"], "bbox": [-90.0, 0.0, -31.0, 0.0], "covering": covering,
    });
    let geo = json!({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}});
    let expected = [("geo".to_owned(), geo), ("stac-geoparquet".to_owned(), json!({"version": "1.0.0"}))];
    assert_eq!(metadata(&parts[0]), BTreeMap::from(expected));
    let written = concat_batches(&items(0, 1, 1).schema(), &[items(90, 30, 3), items(120, 30, 3)]).unwrap();
    assert_eq!(parquet(&parts[0]).columns(), written.columns());
}

// S3.11
#[tokio::test]
async fn row_groups_end_at_ten_thousand_rows() {
    let place = Place::new(ByteCount::mib(64));
    let batches: Vec<_> = (0..9).map(|n| items(n * 3000, 3000, 3)).collect();
    let parts = place.write(SINK, json!({ "path": "all.parquet" }), &batches).await.unwrap();
    let groups =
        reader(&parts[0]).metadata().row_groups().iter().map(|group| group.num_rows()).collect::<Vec<_>>();
    assert_eq!(groups, [10_000, 10_000, 7000]);
}

#[tokio::test]
async fn each_part_tells_of_its_own_rows() {
    let place = Place::new(ByteCount::mib(32));
    let options = json!({ "path": "out", "partition_by": ["collection"] });
    let parts =
        place.write(SINK, options, &[items(0, 1, 1), items(181, 1, 2), items(185, 1, 2)]).await.unwrap();
    let told =
        |part: &Part| (part.name.split_once('/').unwrap().0.to_owned(), geometry(part)["bbox"].clone());
    let expected = [
        ("collection=c0".to_owned(), json!([-180.0, 0.0, -180.0, 0.0])),
        ("collection=c1".to_owned(), json!([1.0, 0.0, 5.0, 0.0])),
    ];
    assert_eq!(parts.iter().map(told).collect::<BTreeMap<_, _>>(), BTreeMap::from(expected));
}

#[tokio::test]
async fn a_file_without_items_is_valid() {
    let place = Place::new(ByteCount::mib(32));
    let mut sink = place.open(SINK, json!({ "path": "all.geoparquet" }), &items(0, 1, 1)).await.unwrap();
    let parts = sink.seal().await.unwrap();
    assert_eq!(parts[0].name, "all.geoparquet");
    assert_eq!(geometry(&parts[0])["geometry_types"], json!([]));
    assert_eq!(geometry(&parts[0]).get("bbox"), None);
}

/// A flow's folder with these files, and a place in it.
fn place_with(files: &[(&str, &str)]) -> (TempDir, Place) {
    let flow = TempDir::new().unwrap();
    files.iter().for_each(|(name, text)| fs::write(flow.path().join(name), text).unwrap());
    let base_dir = flow.path().to_owned();
    (flow, Place::with(ByteCount::mib(32), |run| run.base_dir = base_dir))
}

#[tokio::test]
async fn documents_of_collections_stand_in_every_file() {
    let a = r#"{"type": "Collection", "id": "c0", "license": "CC0-1.0", "links": []}"#;
    let b = r#"{"type": "Collection", "id": "c1", "description": "é"}"#;
    let (_flow, place) = place_with(&[("a.json", a), ("b.json", b)]);
    let options =
        json!({ "path": "out", "collections": ["a.json", "b.json"], "partition_by": ["collection"] });
    let parts = place.write(SINK, options, &[items(0, 10, 2)]).await.unwrap();
    let document = |text| serde_json::from_str::<Value>(text).unwrap();
    let expected = json!({"version": "1.0.0", "collections": {"c0": document(a), "c1": document(b)}});
    assert_eq!(
        parts.iter().map(|part| metadata(part)["stac-geoparquet"].clone()).collect::<Vec<_>>(),
        [expected.clone(), expected]
    );
}

#[tokio::test]
async fn documents_that_are_none_or_too_many_are_named() {
    let good = r#"{"type": "Collection", "id": "c0"}"#;
    let large = format!(r#"{{"type": "Collection", "id": "c1", "x": "{}"}}"#, "x".repeat(1 << 20));
    let (_flow, place) =
        place_with(&[("a.json", good), ("b.json", good), ("c.json", "{}"), ("d.json", &large)]);
    for (collections, kind, path) in [
        (["a.json", "none.json"], ErrorKind::NotFound, "none.json"),
        (["a.json", "b.json"], ErrorKind::Config, "b.json"),
        (["a.json", "c.json"], ErrorKind::Config, "c.json"),
        (["a.json", "d.json"], ErrorKind::Limit, "d.json"),
    ] {
        let options = json!({ "path": "out", "collections": collections });
        let error = place.open(SINK, options, &items(0, 1, 1)).await.err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.context("path").unwrap().ends_with(path), "{error}");
    }
    let problems =
        configure(SINK, json!({ "path": "out", "collections": ["https://x.org/c.json"] })).err().unwrap();
    assert_eq!(problems[0].pointer, "/collections/0");
}

#[tokio::test]
async fn each_part_says_where_and_when_its_items_are() {
    let place = Place::new(ByteCount::mib(32));
    let parts =
        place.write(SINK, json!({ "path": "out" }), &[items(90, 30, 2), items(120, 30, 2)]).await.unwrap();
    let told = serde_json::to_value(&parts[0].extents).unwrap();
    let of = |id: &str| told["collections"][id].clone();
    assert_eq!(of("c0")["items"].as_u64().unwrap() + of("c1")["items"].as_u64().unwrap(), 60);
    let first =
        |values: [Value; 2]| values.into_iter().map(|value| value.as_f64().unwrap()).fold(f64::MAX, f64::min);
    assert_eq!(first([of("c0")["bbox"][0].clone(), of("c1")["bbox"][0].clone()]), -90.0);
    let froms = [of("c0")["from"].clone(), of("c1")["from"].clone()];
    assert!(froms.contains(&json!("1970-01-01T00:01:30Z")), "{froms:?}");
    // A folder names the collection where no column does.
    let place = Place::new(ByteCount::mib(32));
    let options = json!({ "path": "out", "partition_by": ["collection"] });
    let parts = place.write(SINK, options, &[items(0, 10, 2)]).await.unwrap();
    for part in &parts {
        let extents = part.extents.as_ref().unwrap();
        let ids: Vec<_> = extents.collections.keys().map(|id| format!("collection={id}")).collect();
        assert_eq!(ids, [part.name.split_once('/').unwrap().0]);
    }
}

#[tokio::test]
async fn items_of_no_collection_are_told_of_in_none() {
    let items = items(0, 10, 1);
    let at = items.schema().index_of("collection").unwrap();
    let mut columns = items.columns().to_vec();
    columns[at] = new_null_array(columns[at].data_type(), 10);
    let items = RecordBatch::try_new(items.schema(), columns).unwrap();
    for options in [json!({ "path": "out" }), json!({ "path": "out", "partition_by": ["collection"] })] {
        let place = Place::new(ByteCount::mib(32));
        let parts = place.write(SINK, options, std::slice::from_ref(&items)).await.unwrap();
        let extents = parts[0].extents.as_ref().unwrap();
        assert!(extents.collections.is_empty() && !extents.has_more, "{}: {extents:?}", parts[0].name);
    }
}

#[tokio::test]
async fn nothing_is_told_where_a_folder_is_too_short_for_the_name_of_its_collection() {
    let items = items(0, 10, 1);
    let at = items.schema().index_of("collection").unwrap();
    let mut columns = items.columns().to_vec();
    columns[at] = Arc::new(StringArray::from(vec!["c".repeat(2000); 10]));
    let items = RecordBatch::try_new(items.schema(), columns).unwrap();
    let place = Place::new(ByteCount::mib(32));
    let options = json!({ "path": "out", "partition_by": ["collection"] });
    let parts = place.write(SINK, options, &[items]).await.unwrap();
    let extents = parts[0].extents.as_ref().unwrap();
    assert!(extents.collections.is_empty() && extents.has_more, "{extents:?}");
}

#[derive(Debug, Default)]
struct Kept(Mutex<Vec<Reject>>);

impl RejectPolicy for Kept {
    fn reject(&self, _step: &str, reject: Reject) -> aqueduct_core::Result<()> {
        self.0.lock().unwrap().push(reject);
        Ok(())
    }
}

/// Items of which these rows have another geometry.
fn with_geometries(others: &[(usize, Vec<u8>)]) -> RecordBatch {
    let items = items(0, 4, 1);
    let at = items.schema().index_of("geometry").unwrap();
    let wkbs = items.column(at).as_binary::<i32>().iter().enumerate();
    let wkbs =
        wkbs.map(|(row, wkb)| others.iter().find(|other| other.0 == row).map_or(wkb, |(_, wkb)| Some(wkb)));
    let mut columns = items.columns().to_vec();
    columns[at] = Arc::new(wkbs.collect::<BinaryArray>());
    RecordBatch::try_new(items.schema(), columns).unwrap()
}

#[tokio::test]
async fn a_geometry_that_a_file_cannot_have_goes_by_the_policy() {
    let measured = [&[1_u8][..], &2001_u32.to_le_bytes(), &[0; 24]].concat();
    let bad = with_geometries(&[(1, b"no WKB".to_vec()), (3, measured)]);
    let kept = Arc::new(Kept::default());
    let rejects = Arc::clone(&kept);
    let place = Place::with(ByteCount::mib(32), |run| run.rejects = rejects);
    let parts = place.write(SINK, json!({ "path": "out" }), &[bad.clone(), items(9, 1, 1)]).await.unwrap();
    let ids = parquet(&parts[0]).column_by_name("id").unwrap().as_string::<i32>().clone();
    assert_eq!(ids.iter().flatten().collect::<Vec<_>>(), ["item-0", "item-2", "item-9"]);
    let kept = std::mem::take(&mut *kept.0.lock().unwrap());
    let told: Vec<_> = kept.iter().map(|one| (one.reason, one.origin.column.as_deref())).collect();
    assert_eq!(told, [("geometry", Some("geometry")); 2]);
    assert!(kept[0].message.contains("no well-known binary") && kept[1].message.contains("measures"));
    assert!(String::from_utf8_lossy(&kept[0].raw).contains("item-1"));
    let strict = Place::new(ByteCount::mib(32));
    let error = strict.write(SINK, json!({ "path": "out" }), &[bad]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
}

#[test]
fn what_holds_no_items_is_refused() {
    let config = configure(SINK, json!({ "path": "out" })).unwrap();
    assert_eq!(config.fit(&items(0, 1, 1).schema()), []);
    let problems = config.fit(&rows(0, 1, 1).schema());
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[1].contains("`geometry`") && messages[1].contains("format: stac"), "{messages:?}");
}

#[tokio::test]
async fn what_the_specification_asks_for_beside_is_warned_of() {
    let place = Place::new(ByteCount::mib(32));
    let whole = items(0, 1, 1);
    place.open(SINK, json!({ "path": "out" }), &whole).await.unwrap();
    assert_eq!(place.cx.notices().warnings.count(), 0);
    let without = whole.project(&[1, 2]).unwrap();
    place.open(SINK, json!({ "path": "other" }), &without).await.unwrap();
    let told = place.cx.notices().warnings.first();
    assert!(told[0].contains("`stac_extensions`, `bbox`, `links`, `assets`"), "{told:?}");
}

// Updates read rows back
#[tokio::test]
async fn rows_are_read_back_as_they_were_written() {
    let place = Place::new(ByteCount::mib(32));
    let options = json!({ "path": "out", "mode": "merge", "keys": ["collection", "id"], "partition_by": ["collection"] });
    let merging = configure(SINK, options.clone()).unwrap().merging().unwrap();
    let parts = place.write(SINK, options, &[items(0, 1000, 1)]).await.unwrap();
    let part = StoredPart { name: parts[0].name.clone(), rows: 1000, n_bytes: parts[0].n_bytes };
    let stored = Stored::new(None, place.dir.path().to_owned(), vec![part]);
    let columns = items(0, 1, 1).schema();
    let asked = StoredRead {
        columns: Arc::clone(&columns),
        is_partial: false,
        memory: ByteCount::mib(8),
        cx: place.cx.clone(),
    };
    let read: Vec<RecordBatch> =
        merging.rows.read(&stored, &stored.parts()[0], asked).try_collect().await.unwrap();
    let read = concat_batches(&read[0].schema(), &read).unwrap();
    assert_eq!(read.columns(), items(0, 1000, 1).columns());
}
