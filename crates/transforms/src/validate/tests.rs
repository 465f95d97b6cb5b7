use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::testing::{Bench, batch_of, problems, strings_column};

const EO: &str = "https://stac-extensions.github.io/eo/v1.1.0/schema.json";

/// Rows in the layout of stac-geoparquet: a valid item, with changes.
fn items(changes: &[Value]) -> RecordBatch {
    let rows: Vec<Value> = changes.iter().map(changed_item).collect();
    let mut decoder = arrow_json::ReaderBuilder::new(item_schema()).build_decoder().unwrap();
    decoder.serialize(&rows).unwrap();
    decoder.flush().unwrap().unwrap()
}

fn changed_item(changes: &Value) -> Value {
    let mut item = json!({
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": [EO], "id": "one",
        // A point at 2, 3.
        "geometry": "010100000000000000000000400000000000000840",
        "bbox": {"xmin": 2, "ymin": 3, "xmax": 2, "ymax": 3},
        "links": [{"rel": "self", "href": "https://example.com/one.json", "title": null}],
        "assets": {"data": {"href": "one.tif", "roles": ["data"]}, "thumbnail": null},
        "datetime": "2026-01-02T03:04:05Z", "eo:cloud_cover": 12.5,
    });
    for (name, value) in changes.as_object().unwrap() {
        item[name] = value.clone();
    }
    item
}

fn item_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    let texts = |name: &str| Field::new_list(name, Field::new_list_field(DataType::Utf8, true), true);
    let object = |name: &str, fields: Vec<Field>| Field::new_struct(name, fields, true);
    let asset = |name: &str| object(name, vec![text("href"), texts("roles")]);
    let link = DataType::Struct(Fields::from(vec![text("rel"), text("href"), text("title")]));
    Arc::new(Schema::new(vec![
        text("type"),
        text("stac_version"),
        texts("stac_extensions"),
        text("id"),
        Field::new("geometry", DataType::Binary, true),
        object("bbox", vec![number("xmin"), number("ymin"), number("xmax"), number("ymax")]),
        Field::new_list("links", Field::new_list_field(link, true), true),
        object("assets", vec![asset("data"), asset("thumbnail")]),
        text("collection"),
        Field::new("datetime", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        number("eo:cloud_cover"),
    ]))
}

async fn rejects_of(options: Value, rows: RecordBatch) -> Vec<Reject> {
    let bench = Bench::forgiving();
    let n_rows = rows.num_rows();
    let passed = bench.run("validate", options, vec![rows]).await.unwrap();
    let rejects = bench.rejects();
    assert_eq!(passed.num_rows() + rejects.len(), n_rows);
    rejects
}

async fn message_of(changes: Value) -> String {
    let rejects = rejects_of(json!({"stac": true}), items(&[changes])).await;
    rejects.first().map(|reject| reject.message.clone()).unwrap_or_default()
}

#[tokio::test]
async fn items_pass_by_the_schemas_of_both_versions() {
    let changes =
        [json!({}), json!({"stac_version": "1.0.0"}), json!({"id": "two", "stac_extensions": null})];
    let rows = items(&changes);
    let out = Bench::new().run("validate", json!({"stac": true}), vec![rows.clone()]).await.unwrap();
    assert_eq!(out, rows);
}

#[tokio::test]
async fn a_wrong_item_is_rejected_with_its_place_its_reason_and_its_schema() {
    let rows = items(&[json!({}), json!({"id": "cloudy", "eo:cloud_cover": 120}), json!({"id": "three"})]);
    let bench = Bench::forgiving();
    let out = bench.run("validate", json!({"stac": true}), vec![rows]).await.unwrap();
    assert_eq!(strings_column(&out, "id"), ["one", "three"]);
    let reject = &bench.rejects()[0];
    let expected = format!("/properties/eo:cloud_cover: 120.0 is greater than the maximum of 100, says {EO}");
    assert_eq!(reject.message, expected);
    assert_eq!((reject.reason, reject.origin.column.as_deref()), ("schema", Some("eo:cloud_cover")));
    let raw: Value = serde_json::from_slice(&reject.raw).unwrap();
    assert_eq!((&raw["id"], &raw["properties"]["eo:cloud_cover"]), (&json!("cloudy"), &json!(120.0)));
    assert_eq!(bench.metrics().rows_rejected.get(), 1);
}

#[tokio::test]
async fn by_default_a_wrong_item_ends_the_run() {
    let rows = items(&[json!({"eo:cloud_cover": -1})]);
    let error = Bench::new().run("validate", json!({"stac": true}), vec![rows]).await.unwrap_err();
    assert!(error.chain().contains("/properties/eo:cloud_cover"), "{}", error.chain());
}

#[tokio::test]
async fn what_is_missing_or_of_another_kind_is_told_where_it_is() {
    let item = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json";
    for (changes, expected) in [
        (json!({"id": null}), "the whole row: \"id\" is a required property"),
        (json!({"id": ""}), "/id: \"\" is shorter than 1 character"),
        (json!({"bbox": null}), "the whole row: \"bbox\" is a required property"),
        (json!({"links": null}), "the whole row: \"links\" is a required property"),
        (json!({"type": "Collection"}), "/type: "),
        (json!({"assets": {"data": {"roles": ["data"]}}}), "/assets/data: \"href\" is a required property"),
        (json!({"links": [{"rel": "self"}]}), "/links/0: \"href\" is a required property"),
        (json!({"datetime": null}), "/properties"),
    ] {
        let message = message_of(changes.clone()).await;
        assert!(message.starts_with(expected) && message.contains(item), "{changes}: {message}");
    }
}

#[tokio::test]
async fn several_faults_are_counted() {
    let message = message_of(json!({"id": "", "eo:cloud_cover": 120, "links": [{"rel": ""}]})).await;
    assert!(
        message.starts_with('/') && message.contains("; and ") && message.ends_with(" more"),
        "{message}"
    );
}

#[tokio::test]
async fn a_geometry_may_be_null_if_there_is_no_box_and_must_be_one_otherwise() {
    assert_eq!(message_of(json!({"geometry": null, "bbox": null})).await, "");
    assert!(message_of(json!({"geometry": null})).await.contains("bbox"));
    let cut = message_of(json!({"geometry": "0101000000000000000000"})).await;
    assert!(cut.starts_with("/geometry: "), "{cut}");
}

#[tokio::test]
async fn not_a_number_is_no_json() {
    let mut columns = items(&[json!({}), json!({})]).columns().to_vec();
    let clouds: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, 1.0]));
    *columns.last_mut().unwrap() = clouds;
    let rejects =
        rejects_of(json!({"stac": true}), RecordBatch::try_new(item_schema(), columns).unwrap()).await;
    assert_eq!(rejects.len(), 1);
    assert_eq!(rejects[0].reason, "json");
    assert_eq!(rejects[0].message, "/properties/eo:cloud_cover: NaN is no number of JSON");
    assert!(!rejects[0].raw.is_empty());
}

#[tokio::test]
async fn a_version_without_a_schema_is_told() {
    let message = message_of(json!({"stac_version": "0.9.0"})).await;
    assert!(
        message.starts_with("/stac_version: \"0.9.0\" is no version") && message.contains("1.0.0, 1.1.0")
    );
    assert!(message_of(json!({"stac_version": null})).await.contains("missing"));
}

#[tokio::test]
async fn extensions_without_a_schema_are_told_once_or_rejected_or_ignored() {
    let unknown = json!({"stac_extensions": ["https://example.com/mine/v1.0.0/schema.json", EO]});
    let rows = items(&[unknown.clone(), unknown.clone(), json!({})]);
    for (policy, n_rejects, n_warnings) in [("warn", 0, 1), ("fail", 2, 0), ("ignore", 0, 0)] {
        let bench = Bench::forgiving();
        let options = json!({"stac": true, "unknown_extensions": policy});
        bench.run("validate", options, vec![rows.clone(), rows.slice(0, 1)]).await.unwrap();
        let n_rejects = if n_rejects > 0 { n_rejects + 1 } else { 0 };
        assert_eq!(bench.rejects().len(), n_rejects, "{policy}");
        assert_eq!(bench.cx.notices().warnings.count(), n_warnings, "{policy}");
    }
    let still_checked = json!({"stac_extensions": unknown["stac_extensions"], "eo:cloud_cover": 120});
    assert!(message_of(still_checked).await.contains("120"));
}

#[test]
fn rows_that_are_no_items_are_refused() {
    let wrong =
        problems("validate", json!({"stac": true}), &batch_of(r#"[{"id": "a", "properties": {"x": 1}}]"#));
    assert_eq!(wrong[0].pointer, "/stac");
    assert!(wrong[0].message.contains("format: stac"));
}

#[test]
fn options_that_say_nothing_or_too_much_are_refused() {
    let rows = batch_of(r#"[{"a": 1}]"#);
    assert!(problems("validate", json!({}), &rows)[0].message.contains("nothing to check"));
    let both = json!({"schema": "a.json", "stac": true});
    assert!(problems("validate", both, &rows)[0].message.contains("either"));
    let stray = json!({"schema": "a.json", "unknown_extensions": "fail"});
    assert_eq!(problems("validate", stray, &rows)[0].pointer, "/unknown_extensions");
    assert!(!problems("validate", json!({"stack": true}), &rows).is_empty());
}

/// A folder `schemas` with these files, in a folder of its own.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("schemas")).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join("schemas").join(name), text).unwrap();
    }
    folder
}

async fn with_schema(folder: &TempDir, name: &str, rows: RecordBatch) -> Result<Vec<String>> {
    let bench = Bench::forgiving();
    let options = json!({"schema": folder.path().join("schemas").join(name)});
    bench.run("validate", options, vec![rows]).await?;
    Ok(bench.rejects().into_iter().map(|reject| reject.message).collect())
}

#[tokio::test]
async fn rows_are_checked_against_a_file_and_those_beside_it() {
    let folder = folder(&[
        (
            "row.json",
            r##"{"$schema": "https://json-schema.org/draft/2020-12/schema", "properties":
            {"a": {"$ref": "parts%20one.json#/$defs/small"}, "s": {"type": "string"}}, "required": ["s"]}"##,
        ),
        ("parts one.json", r#"{"$defs": {"small": {"maximum": 10}}}"#),
    ]);
    let rows = batch_of(r#"[{"a": 1, "s": "x"}, {"a": 11, "s": "x"}, {"a": 1, "s": null}]"#);
    let rejects = with_schema(&folder, "row.json", rows).await.unwrap();
    assert_eq!(
        rejects,
        [
            "/a: 11 is greater than the maximum of 10, says row.json",
            "the whole row: \"s\" is a required property, says row.json"
        ]
    );
}

#[tokio::test]
async fn an_address_of_its_own_makes_no_difference() {
    let folder = folder(&[
        (
            "row.json",
            r#"{"$id": "https://example.com/schemas/row.json", "properties": {"a": {"$ref": "small.json"}}}"#,
        ),
        ("small.json", r#"{"$id": "https://example.com/schemas/small.json", "maximum": 10}"#),
    ]);
    let rejects = with_schema(&folder, "row.json", batch_of(r#"[{"a": 11}]"#)).await.unwrap();
    assert_eq!(rejects.len(), 1);
}

#[tokio::test]
async fn schemas_that_cannot_be_used_end_the_run_before_any_row() {
    let folder = folder(&[
        ("text.json", "no json"),
        ("array.json", r#"{"type": 7}"#),
        ("network.json", r#"{"$ref": "https://example.com/elsewhere/schema.json"}"#),
        ("up.json", r#"{"$ref": "../outside.json"}"#),
        ("root.json", r#"{"$ref": "file:///etc/hostname"}"#),
        ("lost.json", r#"{"$ref": "nowhere.json"}"#),
        ("pattern.json", r#"{"pattern": "("}"#),
    ]);
    std::fs::write(folder.path().join("outside.json"), "{}").unwrap();
    for (name, expected) in [
        ("text.json", "no JSON"),
        ("array.json", "cannot be used"),
        ("network.json", "is not on this machine"),
        ("up.json", "outside of the schema's folder"),
        ("root.json", "outside of the schema's folder"),
        ("lost.json", "nowhere.json"),
        ("pattern.json", "cannot be used"),
        ("absent.json", "no such file"),
    ] {
        let error = with_schema(&folder, name, batch_of(r#"[{"a": 1}]"#)).await.unwrap_err();
        assert!(error.chain().contains(expected), "{name}: {}", error.chain());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_does_not_lead_out_of_the_folder() {
    let folder = folder(&[("row.json", r#"{"$ref": "link.json"}"#)]);
    std::fs::write(folder.path().join("outside.json"), "{}").unwrap();
    std::os::unix::fs::symlink("../outside.json", folder.path().join("schemas/link.json")).unwrap();
    let error = with_schema(&folder, "row.json", batch_of(r#"[{"a": 1}]"#)).await.unwrap_err();
    assert!(error.chain().contains("leads out"), "{}", error.chain());
}

// MEM-2
#[tokio::test]
async fn a_row_that_the_memory_does_not_hold_as_json_is_rejected() {
    let folder = folder(&[("row.json", "{}")]);
    let long = "x".repeat(200_000);
    let rows = batch_of(&json!([{"a": "short"}, {"a": long}]).to_string());
    let bench = Bench::forgiving_with_share(ByteCount::mib(2));
    let options = json!({"schema": folder.path().join("schemas/row.json")});
    let out = bench.run("validate", options, vec![rows]).await.unwrap();
    assert_eq!(strings_column(&out, "a"), ["short"]);
    assert_eq!(bench.rejects()[0].reason, "too long");
    assert!(bench.rejects()[0].message.contains("raise `memory`"));
}

// MEM-2
#[tokio::test]
async fn a_schema_that_the_memory_does_not_hold_ends_the_run() {
    let text = json!({"enum": ["x".repeat(100_000)]}).to_string();
    let folder = folder(&[("row.json", &text), ("long.json", &" ".repeat(1024 * 1024 + 1))]);
    for (name, expected) in [("row.json", "raise `memory`"), ("long.json", "at most 1048576 bytes")] {
        let options = json!({"schema": folder.path().join("schemas").join(name)});
        let bench = Bench::forgiving_with_share(ByteCount::mib(2));
        let error = bench.run("validate", options, vec![batch_of(r#"[{"a": 1}]"#)]).await.unwrap_err();
        assert!(error.chain().contains(expected), "{}", error.chain());
    }
}

// What `check` tells, before anything runs.
#[test]
fn a_schema_file_that_is_missing_or_is_none_is_told_at_its_key() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("good.json"), r#"{"type": "object"}"#).unwrap();
    std::fs::write(folder.path().join("bad.json"), r#"{"type": "objekt"}"#).unwrap();
    std::fs::write(folder.path().join("text.json"), "type: object").unwrap();
    let planning = Planning {
        base_dir: folder.path().to_owned(),
        batch_rows: 8192,
        batch_bytes: ByteCount::mib(4),
        max_concurrency: 1,
    };
    let wrong = |file: &str| {
        let config: Config = serde_json::from_value(json!({ "schema": file })).unwrap();
        let problems = config.check_files(&planning);
        problems.into_iter().map(|Problem { pointer, message, .. }| (pointer, message)).next()
    };
    assert_eq!(wrong("good.json"), None);
    for (file, expected) in [
        ("none.json", "no such file"),
        ("text.json", "no JSON"),
        ("bad.json", "cannot be used as a JSON Schema"),
    ] {
        let (pointer, message) = wrong(file).unwrap();
        assert_eq!(pointer, "/schema");
        assert!(message.contains(expected) && message.contains(file), "{message}");
    }
}
