//! Items in every kind of document, cut anywhere, against rows made of a tree.

use aqueduct_core::ErrorKind;
use aqueduct_primitives::Tasks;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::Envelope;
use crate::geo::geojson::tests::{geometry, oracle};
use crate::text::tests::{Read, read};
use crate::{DecodedLimits, InferRows, Inference, ReadOptions, look, type_text};

fn item(id: &str, more: Value) -> Value {
    let mut item = json!({
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": ["https://e/eo"], "id": id,
        "geometry": {"type": "Point", "coordinates": [7.5, 47]}, "bbox": [7.5, 47, 7.5, 47.25],
        "properties": {"datetime": "2026-01-31T01:02:03Z", "eo:cloud_cover": 7, "nothing": {}},
        "links": [{"href": "./a", "rel": "self"}],
        "assets": {"data": {"href": "./a.tif", "roles": ["data"]}, "empty": {}}, "collection": "c",
    });
    merge(&mut item, more);
    item
}

/// RFC 7396: null removes.
fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let members = into.as_object_mut().unwrap();
    for (key, value) in patch {
        match value {
            Value::Null => drop(members.shift_remove(&key)),
            value => merge(members.entry(key).or_insert(Value::Null), value),
        }
    }
}

fn stac() -> Value {
    json!({"format": "stac"})
}

fn lines(items: &[Value]) -> String {
    items.iter().map(|item| format!("{item}\n")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn all(text: &str, options: Value) -> Read {
    read(text.as_bytes(), options, 1 << 20, 1 << 20)
}

fn inferred(text: &str) -> Inference {
    inferred_as("test", text, json!({"format": "stac"}))
}

fn inferred_as(name: &str, text: &str, options: Value) -> Inference {
    let options: ReadOptions = serde_json::from_value(options).unwrap();
    let body = Box::pin(futures::stream::iter([Ok(Bytes::copy_from_slice(text.as_bytes()))]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = Tasks::new(1);
    runtime.block_on(look(body, name, &options, DecodedLimits::default(), &tasks)).unwrap()
}

fn types(schema: &SchemaRef) -> Vec<String> {
    let fields = schema.fields().iter();
    fields.map(|field| format!("{}: {}", field.name(), type_text(field.data_type()).unwrap())).collect()
}

#[test]
fn the_columns_are_those_of_the_layout() {
    let second = item(
        "b",
        json!({
            "bbox": [1, 2, 3, 4, 5, 6], "foreign": true,
            "properties": {"created": null, "proj:geometry": {"type": "Point", "coordinates": []}, "mixed": "x"},
        }),
    );
    let first = item("a", json!({"properties": {"updated": "yesterday", "expires": 5, "mixed": [1]}}));
    let second = second.to_string().replace("\"mixed\"", "\"created\":null,\"mixed\"");
    let schema = inferred(&format!("{first}{second}")).schema().unwrap();
    let link = "list<struct<'href': string, 'rel': string>>";
    assert_eq!(types(&schema), [
        "type: string",
        "stac_version: string",
        "stac_extensions: list<string>",
        "id: string",
        "geometry: binary",
        "bbox: struct<'xmin': float64, 'ymin': float64, 'zmin': float64, 'xmax': float64, 'ymax': float64, 'zmax': float64>",
        &format!("links: {link}"),
        "assets: struct<'data': struct<'href': string, 'roles': list<string>>>",
        "collection: string",
        "datetime: timestamp",
        "eo:cloud_cover: int64",
        "updated: timestamp",
        "expires: int64",
        "mixed: string",
        "proj:geometry: binary",
        "created: timestamp",
        "foreign: bool",
    ].map(str::to_owned).iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_row_holds_what_the_item_says() {
    let items = [
        item("a", json!({})),
        item("b", json!({"bbox": [1, 2, 0, 3, 4, 9], "geometry": {"coordinates": [7.5, 47, 400]}})),
        item(
            "c",
            json!({"geometry": null, "bbox": null, "collection": null, "properties": {"eo:cloud_cover": null}}),
        ),
    ];
    let read = all(&lines(&items), stac());
    assert!(read.rejects.is_empty() && read.error.is_none(), "{:?}", read.rejects);
    let bbox = json!({"xmin": 7.5, "ymin": 47.0, "zmin": null, "xmax": 7.5, "ymax": 47.25, "zmax": null});
    assert_eq!(
        read.rows[0],
        json!({
            "type": "Feature", "stac_version": "1.1.0", "stac_extensions": ["https://e/eo"], "id": "a",
            "geometry": hex(&oracle(&items[0]["geometry"])), "bbox": bbox,
            "links": [{"href": "./a", "rel": "self"}],
            "assets": {"data": {"href": "./a.tif", "roles": ["data"]}},
            "collection": "c", "datetime": "2026-01-31T01:02:03Z", "eo:cloud_cover": 7,
        })
    );
    assert_eq!(read.rows[1]["bbox"]["zmax"], 9.0);
    assert_eq!(read.rows[1]["geometry"], hex(&oracle(&items[1]["geometry"])));
    for column in ["geometry", "bbox", "collection", "eo:cloud_cover"] {
        assert_eq!(read.rows[2][column], Value::Null, "{column}");
    }
}

fn documents(items: &[Value]) -> Vec<String> {
    let list = Value::Array(items.to_vec());
    let pretty = serde_json::to_string_pretty(&list).unwrap();
    let link = r#"{"rel": "next", "features": [{"type": "no"}], "type": "Feature"}"#;
    vec![
        lines(items),
        list.to_string(),
        items.iter().map(|item| serde_json::to_string_pretty(item).unwrap()).collect(),
        format!(r#"{{"type":"FeatureCollection","features":{list},"links":[{link}]}}"#),
        format!(r#"{{"links": [{link}], "n": "}}]", "features" : {pretty} , "type": "FeatureCollection"}}"#),
        format!(r#"{{"\u0066eatures": {list}}} {{"features": [], "x": null}}"#),
        format!(r#"{{"stac": {link}, "type": "FeatureCollection", "a": [1, {{}}], "features":{list}}}"#),
    ]
}

#[test]
fn items_are_found_wherever_they_stand_and_whatever_the_blocks() {
    let items =
        [item("a", json!({})), item("b", json!({"features": "are none", "x": "\"}]"})), item("c", json!({}))];
    let sorted =
        serde_json::from_str::<std::collections::BTreeMap<String, Value>>(&items[0].to_string()).unwrap();
    let items = [items[0].clone(), items[1].clone(), serde_json::to_value(sorted).unwrap(), items[2].clone()];
    let expected = all(&lines(&items), stac()).rows;
    assert_eq!(expected.len(), 4);
    for text in documents(&items) {
        let whole = all(&text, stac());
        assert!(whole.error.is_none() && whole.rejects.is_empty(), "{text}: {:?}", whole.error);
        assert!(whole.rows == expected, "{text}");
        for block in (3..120).chain([text.len() - 1, text.len(), text.len() + 1]) {
            let read = read(text.as_bytes(), stac(), block % 50 + 1, block);
            assert!(read.error.is_none() && read.rows == expected, "{block}: {text}");
        }
    }
}

#[test]
fn a_collection_is_never_held_whole() {
    let items: Vec<Value> = (0..200).map(|n| item(&n.to_string(), json!({}))).collect();
    let links = format!(r#"[{}{{}}]"#, r#"{"rel": "x"},"#.repeat(5000));
    let list = Value::Array(items);
    for text in [
        format!(r#"{{"type": "FeatureCollection", "links": {links}, "features": {list}}}"#),
        format!(r#"{{"features": {list}, "links": {links}}}"#),
    ] {
        let options = json!({"format": "stac", "max_record_bytes": "2KB"});
        let read = read(text.as_bytes(), options, 1000, 4000);
        assert!(read.error.is_none(), "{:?}", read.error);
        assert_eq!(read.rows.len(), 200);
    }
    let text = format!(r#"{{"links": {links}, "type": "FeatureCollection", "features": []}}"#);
    let options = json!({"format": "stac", "max_record_bytes": "2KB", "schema": {"id": "string"}});
    let error = read(text.as_bytes(), options, 1000, 1000).error.unwrap();
    assert_eq!((error.kind(), error.context("max_record_bytes")), (ErrorKind::Limit, Some("2KB")));
}

// reliability 26
#[test]
fn what_is_no_item_is_rejected_and_the_rest_goes_on() {
    let good = item("good", json!({}));
    let bad = |more: Value| item("bad", more).to_string();
    for (text, reason, column, message) in [
        (bad(json!({"id": null})), "stac", None, "without `id`"),
        (bad(json!({"id": 7})), "stac", Some("id"), "found 7, expected a string"),
        (bad(json!({"type": null})), "stac", None, "without `type`"),
        (bad(json!({"type": "Catalog"})), "stac", Some("type"), "found \"Catalog\", expected \"Feature\""),
        (
            "{\"description\": \"x\", \"type\": \"Collection\"}".into(),
            "stac",
            Some("type"),
            "found \"Collection\"",
        ),
        ("{\"description\": \"x\"}".into(), "stac", None, "without `type`"),
        ("7".into(), "stac", None, "found a number, expected an item"),
        ("[1]".into(), "stac", None, "found a list, expected an item"),
        (bad(json!({"geometry": {"type": "Circle"}})), "geometry", Some("geometry.type"), "Circle"),
        (bad(json!({"geometry": "POINT (1 2)"})), "type", Some("geometry"), "expected a geometry of GeoJSON"),
        (bad(json!({"geometry": {"bbox": [1, 2, 3, 4]}})), "new field", Some("geometry.bbox"), "new_fields"),
        (bad(json!({"bbox": [1, 2, 3]})), "type", Some("bbox"), "found 3 numbers, expected 4"),
        (bad(json!({"bbox": [1, 2, 3, "4"]})), "type", Some("bbox"), "found a string"),
        (bad(json!({"bbox": [1, 2, 3, 4, 5, 6]})), "type", Some("bbox"), "`infer_rows`"),
        (bad(json!({"properties": [1]})), "type", Some("properties"), "found a list, expected an object"),
        (bad(json!({"properties": {"datetime": "soon"}})), "type", Some("datetime"), "expected timestamp"),
        (bad(json!({"properties": {"new": 1}})), "new field", Some("properties.new"), "no column"),
        (bad(json!({"assets": {"new": {"href": ""}}})), "new field", Some("assets.new"), "no column"),
        (bad(json!({"assets": {"data": {"x": 1}}})), "new field", Some("assets.data.x"), "no column"),
        (bad(json!({"new": 1})), "new field", Some("new"), "no column"),
        (
            bad(json!({"properties": {"id": 1}})),
            "new field",
            Some("properties.id"),
            "`id` of the item and `properties.id`",
        ),
        (
            bad(json!({"properties": {"properties": 1}})),
            "new field",
            Some("properties.properties"),
            "one column",
        ),
        (bad(json!({"id": null, "new": 1})), "stac", None, "without `id`"),
        (good.to_string().replace("7.5", "1e999"), "geometry", None, "no float64"),
        (good.to_string().replace("7.5", "Infinity"), "json", None, "found `I`"),
        (good.to_string().replace("7.5", "NaN"), "json", Some("geometry.coordinates"), "found `N`"),
        (good.to_string().replace("\"links\"", "\"id\":\"x\",\"links\""), "json", Some("id"), "twice"),
        (
            good.to_string().replace("\"links\"", "\"properties\":{},\"links\""),
            "json",
            Some("properties"),
            "twice",
        ),
        (good.to_string().replace("\"eo:", "\"datetime\":null,\"eo:"), "json", Some("datetime"), "twice"),
        (good.to_string().trim_end_matches('}').to_owned(), "json", None, "end of the record"),
    ] {
        // In lines, so that what one breaks is its own.
        let text = format!("{good}\n{text}\n{good}\n");
        let options = json!({"format": "stac", "infer_rows": 1});
        let read = read_lines(&text, options);
        assert_eq!((read.rows.len(), read.rejects.len()), (2, 1), "{text}");
        let found = &read.rejects[0];
        assert_eq!((found.row, found.reason), (2, reason), "{text}: {}", found.message);
        if column.is_some() && column != Some("geometry.coordinates") {
            assert_eq!(found.column.as_deref(), column, "{}", found.message);
        }
        assert!(found.message.contains(message), "{text}: {}", found.message);
    }
}

/// As a file named `.ndjson` is read.
fn read_lines(text: &str, options: Value) -> Read {
    let schema = inferred_as("test.ndjson", text, options).schema().unwrap();
    let columns: Map<String, Value> = schema
        .fields()
        .iter()
        .map(|field| (field.name().clone(), json!(type_text(field.data_type()).unwrap())))
        .collect();
    crate::text::tests::read_named("test.ndjson", text, json!({"format": "stac", "schema": columns}))
}

#[test]
fn documents_that_are_broken_are_errors() {
    for (text, expected) in [
        (r#"{"type": "FeatureCollection", "links": []}"#, "without an array `features`"),
        (r#"{"type": "FeatureCollection", "features": null}"#, "without an array `features`"),
        (r#"{"type": "FeatureCollection", "features": ["#, "before it is complete"),
        (r#"{"type": "Feature", "id": "a""#, "before it is complete"),
        (r#"{"features": [}"#, "array of records"),
    ] {
        let error = all(text, json!({"format": "stac", "schema": {"id": "string"}})).error.unwrap();
        assert!(error.message().contains(expected), "{text}: {error}");
        assert_eq!(error.kind(), ErrorKind::Data);
    }
}

#[test]
fn what_has_no_column_goes_as_it_is_told_and_nothing_is_nothing_new() {
    let first = item("a", json!({}));
    let second = item(
        "b",
        json!({
            "new": {"x": [1]}, "none": [], "geometry": {"crs": "x"}, "assets": {"b": {"href": "x"}, "data": {"y": 1}},
            "properties": {"p": 1, "id": "two", "nested": {}, "nothing": {}},
        }),
    );
    let second = second.to_string().replace("\"none\"", "\"null\":null,\"void\":{ },\"none\"");
    let text = format!("{first}\n{second}\n");
    let read = all(&text, json!({"format": "stac", "infer_rows": 1, "new_fields": "extra"}));
    assert!(read.rejects.is_empty(), "{:?}", read.rejects);
    assert_eq!(read.rows[0]["_extra"], Value::Null);
    let extra: Value = serde_json::from_str(read.rows[1]["_extra"].as_str().unwrap()).unwrap();
    assert_eq!(
        extra,
        json!({
            "new": {"x": [1]}, "geometry.crs": "x", "assets.b": {"href": "x"}, "assets.data.y": 1,
            "properties.p": 1, "properties.id": "two",
        })
    );
    let read = all(&text, json!({"format": "stac", "infer_rows": 1, "new_fields": "ignore"}));
    assert_eq!((read.rows.len(), read.rejects.len()), (2, 0));
    assert_eq!(read.rows[1]["id"], "b");
    let nothing = item("c", json!({"void": [], "properties": {"q": {}}, "assets": {"z": {}}}));
    let read = all(&format!("{first}\n{nothing}\n"), json!({"format": "stac", "infer_rows": 1}));
    assert!(read.rejects.is_empty(), "{:?}", read.rejects);
}

#[test]
fn a_foreign_member_and_a_property_of_one_name_are_a_clash() {
    for first in [true, false] {
        let mut both = item("a", json!({"properties": {"title": "of the properties"}}));
        let title = json!("of the item");
        let members = both.as_object_mut().unwrap();
        match first {
            true => drop(members.shift_insert(0, "title".into(), title)),
            false => drop(members.insert("title".into(), title)),
        }
        let read = all(&both.to_string(), stac());
        assert_eq!(read.rejects[0].reason, "new field");
        assert!(read.rejects[0].message.contains("`title` of the item and `properties.title`"));
        let read = all(&both.to_string(), json!({"format": "stac", "new_fields": "extra"}));
        let (kept, key, extra) = match first {
            true => ("of the item", "properties.title", "of the properties"),
            false => ("of the properties", "title", "of the item"),
        };
        assert_eq!(read.rows[0]["title"], kept);
        let found: Value = serde_json::from_str(read.rows[0]["_extra"].as_str().unwrap()).unwrap();
        assert_eq!(found, json!({key: extra}));
    }
}

// reliability 26: a geometry that is null, or is not there
#[test]
fn an_item_without_a_place_is_an_item() {
    let mut items = vec![item("a", json!({})), item("b", json!({"geometry": null, "bbox": null}))];
    items.push(item("c", json!({})));
    items[2]["geometry"] = Value::Null;
    let read = all(&lines(&items), stac());
    assert!(read.rejects.is_empty(), "{:?}", read.rejects);
    assert!(
        read.rows[0]["geometry"].is_string() && read.rows[1..].iter().all(|row| row["geometry"].is_null())
    );
}

// Servers repeat `collection` within `properties`, and the item's box within its geometry.
#[test]
fn what_an_item_says_twice_is_said_once() {
    let twice = item(
        "a",
        json!({
            "properties": {"collection": "c", "bbox": [7.5, 47, 7.5, 47.25], "title": {"a": "b \"c\" d"}},
            "title": {"a": "b \"c\" d"}, "geometry": {"bbox": [7.5, 47, 7.5, 47.25]},
        }),
    );
    let spaced = serde_json::to_string_pretty(&twice).unwrap();
    for text in [twice.to_string(), spaced, twice.to_string().replace("[7.5,47,7.5", "[ 7.5, 47,\t7.5")] {
        let read = all(&text, stac());
        assert!(read.rejects.is_empty(), "{text}: {:?}", read.rejects);
        assert_eq!(read.rows[0]["collection"], "c");
        assert!(read.rows[0].get("_extra").is_none());
    }
}

#[test]
fn what_an_item_says_otherwise_the_second_time_is_named() {
    for (more, named) in [
        (json!({"properties": {"collection": "d"}}), "`collection` of the item and `properties.collection`"),
        (json!({"collection": null, "properties": {"collection": "d"}}), "`properties.collection`"),
        (json!({"properties": {"collection": "c "}}), "`properties.collection`"),
        (json!({"geometry": {"bbox": [7.5, 47, 8, 47.25]}}), "the box of the geometry"),
        (json!({"bbox": null, "geometry": {"bbox": [7.5, 47, 8, 47.25]}}), "the box of the geometry"),
    ] {
        let text = format!("{}\n{}\n", item("a", more), item("b", json!({})));
        let read = all(&text, stac());
        assert_eq!(read.rows.len(), 1, "{text}");
        assert_eq!(read.rejects[0].reason, "new field");
        assert!(read.rejects[0].message.contains(named), "{}", read.rejects[0].message);
        let read = all(&text, json!({"format": "stac", "new_fields": "extra"}));
        assert!(read.rejects.is_empty() && read.rows[0]["_extra"].is_string(), "{text}");
    }
}

#[test]
fn inference_adds_up_over_files() {
    let one = item("a", json!({"properties": {"x": 1}}));
    let two = item(
        "b",
        json!({"properties": {"x": 1.5, "y": "z"}, "assets": {"more": {"href": "x"}}, "bbox": [1,2,3,4,5,6]}),
    );
    let together = inferred(&lines(&[one.clone(), two.clone()]));
    let mut apart = inferred(&one.to_string());
    assert_eq!(apart.rows_left(InferRows::First(3)), Some(InferRows::First(2)));
    apart.merge(inferred(""));
    apart.merge(inferred(&two.to_string()));
    assert_eq!((apart.n_rows(), apart.rows_left(InferRows::First(2))), (2, None));
    assert_eq!(apart.schema().unwrap(), together.schema().unwrap());
    assert!(inferred("").schema().unwrap().fields().is_empty());
    let bad = inferred(r#"{"type": "Catalog"}"#).schema().unwrap();
    assert_eq!(bad.fields().len(), 8, "the columns of the layout that need no item to tell");
    assert_eq!(*bad.field_with_name("bbox").unwrap().data_type(), super::columns::bbox_type(false));
    assert!(matches!(bad.field_with_name("links").unwrap().data_type(), DataType::List(_)));
}

#[test]
fn columns_that_were_written_down_read_the_same() {
    let items =
        [item("a", json!({"properties": {"proj:geometry": {"type": "Point", "coordinates": [1, 2]}}}))];
    let text = lines(&items);
    let rows = all(&text, stac()).rows;
    assert_eq!(rows[0]["proj:geometry"], hex(&oracle(&items[0]["properties"]["proj:geometry"])));
    assert_eq!(read_lines(&text, stac()).rows, rows);
    let schema = inferred(&text).schema().unwrap();
    assert_eq!(crate::without_hints(&schema), schema, "outside are no hints");
}

#[test]
fn an_envelope_is_a_page_without_its_features() {
    let items = vec![item("a", json!({"x": "\"}]\\"})), item("b", json!({}))];
    let page = json!({
        "type": "FeatureCollection", "links": [{"rel": "next", "href": "x", "features": [1]}],
        "features": items, "a": "features", "numberMatched": 7, "context": {"features": "x"},
    });
    let mut expected = page.as_object().unwrap().clone();
    expected.shift_remove("features");
    for text in [page.to_string(), serde_json::to_string_pretty(&page).unwrap()] {
        for piece in 1..70 {
            let mut envelope = Envelope::default();
            text.as_bytes().chunks(piece).for_each(|piece| envelope.feed(piece).unwrap());
            assert_eq!(envelope.finish().unwrap(), expected, "{piece}");
        }
    }
    let finish = |text: &str| {
        let mut envelope = Envelope::default();
        envelope.feed(text.as_bytes()).unwrap();
        envelope.finish()
    };
    for text in ["", "[]", "{\"a\": 1", "{\"features\": [", "{} {}"] {
        assert_eq!(finish(text).unwrap_err().kind(), ErrorKind::Data, "{text}");
    }
    let mut envelope = Envelope::default();
    envelope.feed(b"{\"features\": [").unwrap();
    (0..200).for_each(|_| envelope.feed(&[b'['; 10_000]).unwrap());
    let mut envelope = Envelope::default();
    let error = (0..200).find_map(|_| envelope.feed(&[b'['; 10_000]).err()).unwrap();
    assert_eq!((error.kind(), error.context("limit")), (ErrorKind::Limit, Some("1MiB")));
}

/// Whether a row's value holds all that a member said.
fn carries(said: &Value, found: &Value) -> bool {
    match (said, found) {
        (Value::Null, Value::Null) => true,
        (Value::Object(said), Value::Null) => said.values().all(|value| carries(value, &Value::Null)),
        (Value::Array(said), Value::Null) => said.is_empty(),
        (Value::String(said), Value::String(found)) => said == found,
        (_, Value::String(found)) => serde_json::from_str::<Value>(found).is_ok_and(|found| found == *said),
        (Value::Object(said), Value::Object(found)) => {
            said.iter().all(|(key, value)| carries(value, found.get(key).unwrap_or(&Value::Null)))
        }
        (Value::Array(said), Value::Array(found)) => {
            said.len() == found.len() && said.iter().zip(found).all(|(said, found)| carries(said, found))
        }
        (Value::Number(said), Value::Number(found)) => said.as_f64() == found.as_f64(),
        (said, found) => said == found,
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i32>().prop_map(|n| json!(n)),
        any::<i16>().prop_map(|n| json!(f64::from(n) / 8.0)),
        "[a-z \"\\\\{}\\[\\]é]{0,6}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::vec(("[a-c]", inner), 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_item() -> impl Strategy<Value = Value> {
    let members = |names: &'static str| proptest::collection::vec((names, any_value()), 0..4);
    let assets = proptest::collection::vec(("[x-z]", members("[a-c]")), 0..3);
    let boxes = prop_oneof![Just(Value::Null), Just(json!([1, 2, 3, 4])), Just(json!([1, 2, 0.5, 3, 4, 6]))];
    (proptest::option::of(geometry()), boxes, members("p[1-5]"), assets, any::<u64>(), "[a-z]{1,4}").prop_map(
        |(geometry, bbox, properties, assets, order, id)| {
            let assets = assets
                .into_iter()
                .map(|(name, members)| (name, Value::Object(members.into_iter().collect())));
            let mut members = vec![
                ("type".to_owned(), json!("Feature")),
                ("id".to_owned(), json!(id)),
                ("geometry".to_owned(), json!(geometry)),
                ("bbox".to_owned(), bbox),
                ("properties".to_owned(), Value::Object(properties.into_iter().collect())),
                ("assets".to_owned(), Value::Object(assets.collect())),
                ("foreign".to_owned(), json!(order % 7)),
            ];
            let at = usize::try_from(order % 7).unwrap();
            members.rotate_left(at);
            Value::Object(members.into_iter().collect())
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_that_an_item_says_is_lost(items in proptest::collection::vec(any_item(), 1..6), block in 3..400usize) {
        for text in documents(&items) {
            let read = read(text.as_bytes(), stac(), block / 2 + 1, block);
            prop_assert!(read.error.is_none() && read.rejects.is_empty(), "{:?}\n{}", read.rejects, text);
            prop_assert_eq!(read.rows.len(), items.len());
            for (row, item) in read.rows.iter().zip(&items) {
                check_row(row, item)?;
            }
        }
    }
}

fn check_row(row: &Value, item: &Value) -> std::result::Result<(), TestCaseError> {
    for (name, said) in item.as_object().unwrap() {
        match (name.as_str(), said) {
            ("properties", _) => {
                for (name, said) in said.as_object().unwrap() {
                    let found = row.get(name).unwrap_or(&Value::Null);
                    prop_assert!(carries(said, found), "{}: {} {}", name, said, found);
                }
            }
            ("geometry", Value::Object(_)) => prop_assert_eq!(&row["geometry"], &json!(hex(&oracle(said)))),
            ("bbox", Value::Array(said)) => {
                let bbox = row["bbox"].as_object().unwrap().values().filter(|value| !value.is_null());
                let found: Vec<_> = bbox.map(Value::as_f64).collect();
                prop_assert_eq!(found, said.iter().map(Value::as_f64).collect::<Vec<_>>());
            }
            _ => {
                let found = row.get(name).unwrap_or(&Value::Null);
                prop_assert!(carries(said, found), "{}: {} {}", name, said, found);
            }
        }
    }
    Ok(())
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => proptest::sample::select(vec!["{", "}", "[", "]", ":", ",", "\"", "\\", " ", "\n", "1", "null"]),
        2 => proptest::sample::select(vec!["\"features\":[", "\"features\":", "\"type\":", "\"id\":\"a\"", "\"x\":"]),
        1 => proptest::sample::select(vec!["\"Feature\"", "\"FeatureCollection\"", "{\"type\":\"Feature\",\"id\":\"a\"}"]),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_rows_or_rejects_whatever_the_blocks(text in pieces(), block in 3..40usize) {
        let options = json!({"format": "stac", "schema": {"type": "string", "id": "string"}, "new_fields": "extra"});
        let whole = read(text.as_bytes(), options.clone(), 1 << 16, 1 << 16);
        let cut = read(text.as_bytes(), options, block % 7 + 1, block);
        prop_assert_eq!(cut.error.is_some(), whole.error.is_some(), "{:?}", text);
        if whole.error.is_none() {
            prop_assert_eq!((&cut.rows, &cut.rejects), (&whole.rows, &whole.rejects), "{:?}", text);
        }
    }
}
