//! `aqueduct schema`: one JSON Schema (draft 2020-12) of flow files, from which editors complete.

use std::io::Write;

use aqueduct_core::Registry;
use serde_json::{Map, Value, json};

use super::{DONE, unwritten};
use crate::flow::{BesideOptions, FlowOptions, closed};

/// The version of the language that schemas are written in.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Prints the schema of flow files.
///
/// # Errors
/// It cannot be written.
pub fn schema(registry: &Registry, out: &mut dyn Write) -> Result<u8, String> {
    writeln!(out, "{:#}", flow_schema(registry)).map_err(unwritten)?;
    Ok(DONE)
}

/// The JSON Schema of flow files over the components of a registry. Their options are under `$defs`, as
/// `source.files` and so on.
fn flow_schema(registry: &Registry) -> Value {
    let mut schema = closed::<FlowOptions>();
    let mut defs = take_defs(&mut schema, "");
    let beside = beside(&mut defs);
    let sources = registry.sources().iter().map(|one| (one.info(), one.options().to_value()));
    defs.extend(role("source", sources.collect(), &beside, &["input"]));
    let stages = registry.stages().iter().map(|one| (one.info(), one.options().to_value()));
    defs.extend(role("stage", stages.collect(), &beside, &[]));
    let sinks = registry.sinks().iter().map(|one| (one.info(), one.options().to_value()));
    defs.extend(role("sink", sinks.collect(), &beside, &[]));
    let mut properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    properties.extend(step_properties());
    json!({
        "$schema": DIALECT,
        "title": "aqueduct flow",
        "type": "object",
        "properties": properties,
        "required": ["name"],
        "additionalProperties": false,
        "$defs": defs,
    })
}

/// `source`, `stages`, `sink` and their long forms.
fn step_properties() -> Map<String, Value> {
    let source = json!({ "$ref": "#/$defs/source" });
    let stage = json!({ "$ref": "#/$defs/stage" });
    let sink = json!({ "$ref": "#/$defs/sink" });
    let named = |step: &Value, help: &str| json!({ "description": help, "type": "object", "additionalProperties": step });
    let chain = json!({
        "type": "object",
        "properties": { "input": { "type": ["string", "array"] }, "stages": { "type": "array", "items": stage } },
        "required": ["input", "stages"],
        "additionalProperties": false
    });
    let stages = json!({
        "description": "What happens to rows: a list in order, or a map of names.",
        "anyOf": [
            { "type": "array", "items": stage },
            { "type": "object", "additionalProperties": { "anyOf": [stage, chain] } }
        ]
    });
    let keys = [
        ("sources", named(&source, "Where rows come from, by name.")),
        ("source", source),
        ("stages", stages),
        ("sinks", named(&sink, "Where rows go to, by name.")),
        ("sink", sink),
    ];
    keys.into_iter().map(|(key, schema)| (key.to_owned(), schema)).collect()
}

fn beside(defs: &mut Map<String, Value>) -> Map<String, Value> {
    let mut beside = closed::<BesideOptions>();
    defs.extend(take_defs(&mut beside, ""));
    beside.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

type Options = (&'static aqueduct_core::ComponentInfo, Value);

/// The definition of a role's steps and of the options of each of its components.
fn role(
    role: &str,
    components: Vec<Options>,
    beside: &Map<String, Value>,
    without: &[&str],
) -> Map<String, Value> {
    let mut defs = Map::new();
    let mut properties = beside.clone();
    properties.retain(|key, _| !without.contains(&key.as_str()));
    let mut one_of = Vec::new();
    for (info, mut options) in components {
        let name = format!("{role}.{}", info.name);
        defs.extend(take_defs(&mut options, &format!("{name}.")));
        let own = json!({ "$ref": format!("#/$defs/{name}"), "description": info.summary });
        properties.insert(info.name.into(), own);
        one_of.push(json!({ "required": [info.name] }));
        defs.insert(name, options);
    }
    let step =
        json!({ "type": "object", "properties": properties, "oneOf": one_of, "additionalProperties": false });
    defs.insert(role.into(), step);
    defs
}

/// Takes the definitions out of a schema, under names that begin with `prefix`, and turns its references to them.
fn take_defs(schema: &mut Value, prefix: &str) -> Map<String, Value> {
    rename_references(schema, prefix);
    let Some(rules) = schema.as_object_mut() else { return Map::new() };
    rules.remove("$schema");
    match rules.remove("$defs") {
        Some(Value::Object(defs)) => {
            defs.into_iter().map(|(name, def)| (format!("{prefix}{name}"), def)).collect()
        }
        _ => Map::new(),
    }
}

fn rename_references(value: &mut Value, prefix: &str) {
    match value {
        Value::Object(entries) => {
            if let Some(Value::String(reference)) = entries.get_mut("$ref")
                && let Some(name) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("#/$defs/{prefix}{name}");
            }
            entries.values_mut().for_each(|value| rename_references(value, prefix));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, prefix)),
        _ => {}
    }
}
