use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use serde_json::json;

use crate::testing::{Bench, batch_of, int_column, names, problems, strings_column};

use super::*;

/// What comes out, as JSON without what is null.
async fn updated(options: Value, rows: &RecordBatch) -> Vec<Value> {
    let out = Bench::new().run("update", options, vec![rows.clone()]).await.unwrap();
    as_json(&out)
}

pub(super) fn as_json(rows: &RecordBatch) -> Vec<Value> {
    (0..rows.num_rows()).map(|row| aqueduct_formats::stac_item::row_to_json(rows, row).unwrap()).collect()
}

#[tokio::test]
async fn columns_and_members_are_set_and_made() {
    let rows = batch_of(r#"[{"id": "a", "geo": {"lat": 1}}, {"id": "b", "geo": null}]"#);
    let set = json!({"id": "x", "n": 7, "geo.lon": 2.5, "deep.er.est": [true]});
    assert_eq!(
        updated(json!({"set": set}), &rows).await,
        [
            json!({"id": "x", "geo": {"lat": 1, "lon": 2.5}, "n": 7, "deep": {"er": {"est": [true]}}}),
            json!({"id": "x", "geo": {"lon": 2.5}, "n": 7, "deep": {"er": {"est": [true]}}}),
        ]
    );
}

#[tokio::test]
async fn templates_are_values_of_the_row_as_it_came() {
    let rows = batch_of(r#"[{"id": "a", "n": 1, "s": {"x": "p"}}, {"id": "b", "n": null, "s": {"x": "q"}}]"#);
    let set = json!({"id": "{id}-{s.x}", "copy": "{n}", "text": "{{{n}}}", "all": {"of": ["{id}", "{s.x}"]}, "n": 5});
    let out = Bench::new().run("update", json!({"set": set}), vec![rows]).await.unwrap();
    assert_eq!(strings_column(&out, "id"), ["a-p", "b-q"]);
    assert_eq!(
        out.column_by_name("copy").unwrap().data_type(),
        &DataType::Int64,
        "one template alone keeps the type"
    );
    assert!(out.column_by_name("copy").unwrap().is_null(1) && out.column_by_name("text").unwrap().is_null(1));
    assert_eq!(strings_column(&out, "text"), ["{1}", ""]);
    assert_eq!(as_json(&out)[1]["all"], json!({"of": ["b", "q"]}));
    assert_eq!(int_column(&out, "n"), [5, 5]);
}

#[tokio::test]
async fn a_star_is_what_a_row_has_and_makes_nothing() {
    let rows = batch_of(
        r#"[{"id": "a", "assets": {"b1": {"href": "x"}, "b2": null}, "links": [{"rel": "r"}, {"rel": "s"}]},
            {"id": "b", "assets": {"b1": null, "b2": {"href": "y"}}, "links": []}]"#,
    );
    let set = json!({"assets.*.href": "{id}.tif", "assets.*.roles": ["data"], "links.*.of": "{id}"});
    assert_eq!(
        updated(json!({"set": set}), &rows).await,
        [
            json!({"id": "a", "assets": {"b1": {"href": "a.tif", "roles": ["data"]}},
                   "links": [{"rel": "r", "of": "a"}, {"rel": "s", "of": "a"}]}),
            json!({"id": "b", "assets": {"b2": {"href": "b.tif", "roles": ["data"]}}, "links": []}),
        ]
    );
}

#[tokio::test]
async fn members_are_removed_at_any_depth() {
    let rows = batch_of(
        r#"[{"a": 1, "b": 2, "assets": {"x": {"href": "h", "t": 1}, "y": {"href": "i"}}, "links": [{"rel": "r", "t": "u"}]}]"#,
    );
    let out = updated(json!({"remove": ["a", "assets.*.t", "links.*.t", "/assets/y"]}), &rows).await;
    assert_eq!(out, [json!({"b": 2, "assets": {"x": {"href": "h"}}, "links": [{"rel": "r"}]})]);
}

#[tokio::test]
async fn a_patch_merges_objects_and_removes_by_null() {
    let rows = batch_of(r#"[{"a": 1, "s": {"x": 1, "y": "t"}}, {"a": 2, "s": null}]"#);
    let merge = json!({"a": null, "nothing": null, "s": {"x": 9, "y": null, "z": [1]}, "t": {"u": true}});
    assert_eq!(
        updated(json!({"merge": merge}), &rows).await,
        vec![json!({"s": {"x": 9, "z": [1]}, "t": {"u": true}}); 2]
    );
}

#[tokio::test]
async fn members_of_properties_are_columns_of_items() {
    let rows = batch_of(
        r#"[{"stac_version": "1.1.0", "id": "a", "assets": {"x": {"href": "h"}}, "platform": "p", "v": 1}]"#,
    );
    let options = json!({"set": {"properties.platform": "{properties.v}"}, "merge": {"properties": {"v": null, "w": 2}}});
    assert!(problems("update", options, &rows)[0].message.contains("cast"));
    let options = json!({"set": {"properties.platform": "v{properties.v}"}, "merge": {"properties": {"v": null, "w": 2}}});
    let out = updated(options, &rows).await;
    assert_eq!((&out[0]["platform"], &out[0]["w"], out[0].get("v")), (&json!("v1"), &json!(2), None));
    let all = problems("update", json!({"set": {"properties": {"a": 1}}}), &rows);
    assert!(all[0].message.contains("name them one by one"));
}

#[tokio::test]
async fn values_take_the_type_that_is_there() {
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC"));
    let small: ArrayRef = Arc::new(arrow::array::Int8Array::from(vec![1]));
    let rows = RecordBatch::try_from_iter([("t", times), ("n", small)]).unwrap();
    let out = updated(json!({"set": {"t": "2026-01-02T03:04:05Z", "n": 7}}), &rows).await;
    assert_eq!(out, [json!({"t": "2026-01-02T03:04:05Z", "n": 7})]);
    for wrong in [
        json!({"n": 300}),
        json!({"n": "7"}),
        json!({"n": 1.5}),
        json!({"t": "soon"}),
        json!({"t": {"a": 1}}),
    ] {
        let found = problems("update", json!({"set": wrong}), &rows);
        assert!(found[0].message.contains("does not fit"), "{wrong}: {}", found[0].message);
    }
}

#[tokio::test]
async fn slices_are_edited_like_whole_batches() {
    let rows =
        batch_of(r#"[{"l": [{"x": 1}]}, {"l": [{"x": 2}, {"x": 3}]}, {"l": null}, {"l": [{"x": 4}]}]"#);
    let out = updated(json!({"set": {"l.*.y": 1}}), &rows.slice(1, 3)).await;
    assert_eq!(out[0], json!({"l": [{"x": 2, "y": 1}, {"x": 3, "y": 1}]}));
    assert_eq!((&out[1], &out[2]), (&json!({}), &json!({"l": [{"x": 4, "y": 1}]})));
}

#[tokio::test]
async fn values_hidden_under_a_null_struct_stay_hidden() {
    let rows = batch_of(r#"[{"s": {"x": 1}}, {"s": {"x": 2}}]"#);
    let (fields, columns, _) = rows.column(0).as_struct().clone().into_parts();
    let nulls = arrow::buffer::NullBuffer::from(vec![true, false]);
    let hidden = StructArray::new(fields, columns, Some(nulls));
    let rows = RecordBatch::try_new(rows.schema(), vec![Arc::new(hidden)]).unwrap();
    let out = updated(json!({"set": {"s.y": "{s.x}", "t": "{s.x}"}}), &rows).await;
    assert_eq!(out, [json!({"s": {"x": 1, "y": 1}, "t": 1}), json!({"s": {}})]);
}

#[test]
fn what_does_not_fit_is_told_at_its_place() {
    let rows = batch_of(r#"[{"alpha": 1, "s": {"x": 1}, "l": [1], "m": [{"x": 1}]}]"#);
    for (options, pointer, expected) in [
        (json!({"remove": ["alhpa"]}), "/remove/0", "nearest `alpha`"),
        (json!({"remove": ["s.yonder"]}), "/remove/0", "`yonder`; there are: x"),
        (json!({"remove": ["s.x"]}), "/remove/0", "nothing would be left of `s`"),
        (json!({"remove": ["s.*.x"]}), "/remove/0", "none of `*`"),
        (json!({"remove": ["m.x"]}), "/remove/0", "`m.*.x` is each"),
        (json!({"remove": ["alpha", "s", "l", "m"]}), "/remove/3", "no column would be left"),
        (json!({"set": {"alpha.x": 1}}), "/set/alpha.x", "`alpha` is Int64, which has no members"),
        (json!({"set": {"s": 1}}), "/set/s", "does not fit"),
        (json!({"set": {"s": {"x": "a"}}}), "/set/s", "does not fit"),
        (json!({"set": {"new": null}}), "/set/new", "has no type"),
        (json!({"set": {"new": []}}), "/set/new", "empty list"),
        (json!({"set": {"new": [1, "a"]}}), "/set/new", "one type"),
        (json!({"set": {"new": "{alhpa}"}}), "/set/new", "nearest `alpha`"),
        (json!({"set": {"new": "a{s}"}}), "/set/new", "cannot stand within a text"),
        (json!({"set": {"new": "a{"}}), "/set/new", "single brace"),
        (json!({"set": {"a..b": 1}}), "/set/a..b", "a name in it is empty"),
        (json!({"merge": {"alpha": {"x": 1}}}), "/merge/alpha", "an object is merged"),
        (json!({"merge": {"alpha": {}}}), "/merge/alpha", "an object is merged"),
        (json!({"merge": {"new": {}}}), "/merge/new", "empty object"),
        (json!({}), "", "nothing to change"),
    ] {
        let found = problems("update", options.clone(), &rows);
        assert_eq!(found[0].pointer, pointer, "{options}: {}", found[0].message);
        assert!(found[0].message.contains(expected), "{options}: {}", found[0].message);
    }
    assert!(!problems("update", json!({"put": {}}), &rows).is_empty());
    assert_eq!(problems("update", json!({"remove": ["x", "y"]}), &rows).len(), 2, "all at once");
}

#[tokio::test]
async fn dots_in_names_are_written_as_pointers() {
    let column: ArrayRef = Arc::new(StringArray::from(vec!["v"]));
    let rows = RecordBatch::try_from_iter([("a.b", Arc::clone(&column)), ("c", column)]).unwrap();
    let out = Bench::new()
        .run("update", json!({"set": {"/a.b": "{a.b}{/a.b}"}, "remove": ["c"]}), vec![rows])
        .await
        .unwrap();
    assert_eq!((names(&out), strings_column(&out, "a.b")), (vec!["a.b".into()], vec!["vv".into()]));
}

// A value of a row, a text and a literal, each of which long lists make many of: halves, before any is made.
#[tokio::test]
async fn what_long_lists_make_of_a_wide_value_is_made_in_halves() {
    let wide = "w".repeat(10_000);
    let list = vec![json!({"a": 1}); 500];
    let rows: Vec<_> = (0..64).map(|n| json!({"id": n, "wide": wide, "list": list}).to_string()).collect();
    let rows = batch_of(&format!("[{}]", rows.join(",")));
    // 320 MB in all, and 5 MB a row; the step has 16 MB.
    for set in [json!("{wide}"), json!("{wide}-{id}"), json!(wide)] {
        let bench = Bench::new();
        let options = json!({"set": {"list.*.b": set}});
        let mut stream = bench.stream("update", options, vec![rows.clone()]);
        let (mut n_rows, mut n_batches) = (0, 0);
        while let Some(batch) = futures::TryStreamExt::try_next(&mut stream).await.unwrap() {
            assert!(aqueduct_core::retained_bytes(batch.records()) < bench.cx.flow().total());
            n_rows += batch.num_rows();
            n_batches += 1;
        }
        assert!(n_rows == 64 && n_batches >= 8, "{n_rows} rows in {n_batches} batches");
    }
}

// MEM-1: what several edits make is held together.
#[tokio::test]
async fn what_several_edits_make_has_one_room() {
    let wide = "w".repeat(10_000);
    let list = vec![json!({"a": 1}); 100];
    let rows: Vec<_> = (0..64).map(|n| json!({"id": n, "wide": wide, "list": list}).to_string()).collect();
    let rows = batch_of(&format!("[{}]", rows.join(",")));
    // 1 MB a row and edit; the step has 16 MB.
    let set: serde_json::Map<_, _> = (0..6).map(|n| (format!("list.*.b{n}"), json!("{wide}"))).collect();
    let bench = Bench::new();
    let mut stream = bench.stream("update", json!({ "set": set }), vec![rows]);
    let mut n_rows = 0;
    while let Some(batch) = futures::TryStreamExt::try_next(&mut stream).await.unwrap() {
        assert!(aqueduct_core::retained_bytes(batch.records()) < bench.cx.flow().total());
        n_rows += batch.num_rows();
    }
    assert_eq!(n_rows, 64);
}

#[tokio::test]
async fn one_row_of_which_too_much_would_come_is_an_error_that_says_so() {
    let list = vec![json!({"a": 1}); 5000];
    let rows = batch_of(&json!([{"wide": "w".repeat(100_000), "list": list}]).to_string());
    let error = Bench::new().batches("update", json!({"set": {"list.*.b": "{wide}"}}), vec![rows]).await;
    let error = error.err().unwrap();
    assert_eq!(error.kind(), aqueduct_core::ErrorKind::Limit);
    assert!(error.message().contains("one row grew beyond the step's memory"), "{error}");
}
