//! What the describing commands say.

use std::path::PathBuf;

use serde_json::Value;

use super::new::TEMPLATES;
use super::*;
use crate::flow::fake::{registry, settings};

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("flow.yaml"), text).unwrap();
        Self(folder)
    }

    fn flow(&self) -> PathBuf {
        self.0.path().join("flow.yaml")
    }

    fn n_files(&self) -> usize {
        std::fs::read_dir(self.0.path()).unwrap().count()
    }
}

const FLOW: &str = "
name: plan
memory: 200MB
sources: { incoming: { files: { paths: [a.csv], schema: { id: int64 }, headers: { authorization: 'Bearer ${TOK}' } } } }
stages: { ordered: { input: incoming, sort: { by: [id] } } }
sinks: { kept: { input: ordered, parquet: { path: 'out/${TOK}' } } }
";

fn text(answer: impl FnOnce(&mut Vec<u8>) -> Result<u8, String>) -> String {
    let mut out = Vec::new();
    assert_eq!(answer(&mut out), Ok(0));
    String::from_utf8(out).unwrap()
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "expected `{word}` in\n{text}");
    }
}

#[test]
fn check_prints_steps_with_their_types_and_touches_nothing() {
    let folder = Folder::with(FLOW);
    let settings = settings(&[], &[("TOK", "tok-31415")]);
    let told = text(|out| check(&folder.flow(), &settings, &registry(), out));
    says(&told, &["plan: 3 steps", "incoming (files source)", "ordered (sort stage)", "id: Int64"]);
    assert_eq!(folder.n_files(), 1);
    let unknown = Folder::with(&FLOW.replace("schema: { id: int64 }, ", ""));
    says(&text(|out| check(&unknown.flow(), &settings, &registry(), out)), &["unknown until run"]);
}

#[test]
fn explain_tells_memory_spilling_and_guarantees_without_secrets() {
    let folder = Folder::with(FLOW);
    let settings = settings(&[], &[("TOK", "tok-31415")]);
    let told = |format| text(|out| explain(&folder.flow(), &settings, &registry(), format, out));
    let plain = told(ExplainFormat::Text);
    says(
        &plain,
        &[
            "incoming",
            "ordered <- incoming",
            "memory 200MB",
            "data in flight",
            "spill",
            "phase 1: ordered takes in all rows",
            "kept: exactly once",
            "replace",
            "out/***",
        ],
    );
    let json: Value = serde_json::from_str(&told(ExplainFormat::Json)).unwrap();
    assert_eq!(json["steps"][1]["spills"], true);
    assert_eq!(json["steps"][2]["guarantee"], "exactly once");
    let shares: u64 =
        json["steps"].as_array().unwrap().iter().map(|step| step["memory_bytes"].as_u64().unwrap()).sum();
    assert!(shares + json["in_flight_bytes"].as_u64().unwrap() <= 200_000_000);
    let graph = told(ExplainFormat::Mermaid);
    assert!(graph.starts_with("flowchart"));
    says(&graph, &["-->", "ordered"]);
    for format in [ExplainFormat::Text, ExplainFormat::Json, ExplainFormat::Mermaid] {
        assert!(!told(format).contains("tok-31415"));
    }
    let row_by_row = Folder::with(&FLOW.replace("sort: { by: [id] }", "limit: 1"));
    says(
        &text(|out| explain(&row_by_row.flow(), &settings, &registry(), ExplainFormat::Text, out)),
        &["nothing spills"],
    );
}

#[test]
fn too_little_memory_is_refused_by_both() {
    let folder = Folder::with(&FLOW.replace("200MB", "1KB").replace("${TOK}", "x"));
    let mut out = Vec::new();
    let told = check(&folder.flow(), &settings(&[], &[]), &registry(), &mut out).unwrap_err();
    says(&told, &["memory: 1KB is too little", "`ordered`", "MB"]);
    assert!(out.is_empty());
}

#[test]
fn components_have_options_with_type_default_and_help() {
    let list: Value =
        serde_json::from_str(&text(|out| components(&registry(), None, ListFormat::Json, out))).unwrap();
    let all = list.as_array().unwrap();
    assert_eq!(all.len(), 9);
    let parquet = all.iter().find(|one| one["name"] == "parquet").unwrap();
    assert_eq!(parquet["kind"], "sink");
    assert_eq!(
        parquet["options"][1],
        serde_json::json!({ "name": "level", "type": "a whole number", "default": 3, "help": "How hard.", "required": false })
    );
    let files = text(|out| components(&registry(), Some("files"), ListFormat::Text, out));
    says(
        &files,
        &["paths: a list of texts (required)", "one of csv, ndjson, auto", "Where the rows are.", "example"],
    );
    says(
        &text(|out| components(&registry(), Some("limit"), ListFormat::Text, out)),
        &["takes a whole number"],
    );
    says(
        &components(&registry(), Some("file"), ListFormat::Text, &mut Vec::new()).unwrap_err(),
        &["did you mean `files`?"],
    );
}

#[test]
fn the_schema_knows_every_component_and_every_default() {
    let schema: Value = serde_json::from_str(&text(|out| schema(&registry(), out))).unwrap();
    assert!(schema["$schema"].is_string());
    for (kind, name) in [("source", "files"), ("stage", "sort"), ("sink", "parquet")] {
        assert!(schema["$defs"][kind]["properties"][name].is_object(), "{kind} {name}");
    }
    assert_eq!(schema["$defs"]["Execution"]["properties"]["batch_size"]["default"], 8192);
    assert!(schema["$defs"]["source"]["properties"]["input"].is_null());
    let mut references = Vec::new();
    references_of(&schema, &mut references);
    assert!(references.len() > 10);
    for reference in references {
        assert!(schema.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
}

fn references_of(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            found.extend(entries.get("$ref").and_then(Value::as_str).map(String::from));
            entries.values().for_each(|value| references_of(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references_of(item, found)),
        _ => {}
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the files are the test's own")]
fn new_writes_a_commented_flow_and_never_over_another() {
    let folder = tempfile::tempdir().unwrap();
    for template in TEMPLATES {
        let path = folder.path().join(format!("{}.yaml", template.name));
        says(&new(Some(template.name), Some(&path)).unwrap(), &["wrote", "aqueduct check"]);
        let written = std::fs::read_to_string(&path).unwrap();
        says(&written, &["# ", "name:", "source", "sink"]);
        assert!(crate::flow::parses(&path), "{}", template.name);
        says(&new(Some(template.name), Some(&path)).unwrap_err(), &["is there already"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), written);
    }
    says(&new(Some("file"), None).unwrap_err(), &["did you mean `files`?"]);
}
