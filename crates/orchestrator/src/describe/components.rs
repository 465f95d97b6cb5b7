//! `aqueduct components`: every source, stage and sink, or one in detail, from its own schema.

use std::io::{self, Write};

use aqueduct_core::{ComponentInfo, Registry, nearest};
use serde_json::{Map, Value, json};

use super::{DONE, ListFormat, unwritten};
use crate::flow::expectation;

/// Prints all components, or those of one name.
///
/// # Errors
/// There is none of that name: says so, with the nearest.
pub fn components(
    registry: &Registry,
    name: Option<&str>,
    format: ListFormat,
    out: &mut dyn Write,
) -> Result<u8, String> {
    let all = described(registry);
    let chosen: Vec<&Described> =
        all.iter().filter(|one| name.is_none_or(|name| name == one.info.name)).collect();
    if let (Some(name), true) = (name, chosen.is_empty()) {
        return Err(unknown(name, &all));
    }
    let written = match (format, name) {
        (ListFormat::Json, _) => {
            let list: Value = chosen.iter().map(|one| one.as_json()).collect();
            writeln!(out, "{list:#}")
        }
        (ListFormat::Text, None) => print_list(&chosen, out),
        (ListFormat::Text, Some(_)) => chosen.iter().try_for_each(|one| one.print(out)),
    };
    written.map_err(unwritten)?;
    Ok(DONE)
}

fn unknown(name: &str, all: &[Described]) -> String {
    match nearest(name, all.iter().map(|one| one.info.name)) {
        Some(near) => format!("error: no component is called `{name}`; did you mean `{near}`?"),
        None => format!("error: no component is called `{name}`; `aqueduct components` lists them all"),
    }
}

/// A component and the schema of its options.
struct Described {
    kind: &'static str,
    info: &'static ComponentInfo,
    schema: Value,
}

/// One option of a component.
struct OptionHelp {
    name: String,
    kind: String,
    default: Value,
    help: String,
}

fn described(registry: &Registry) -> Vec<Described> {
    let sources = registry.sources().iter().map(|one| ("source", one.info(), one.options()));
    let stages = registry.stages().iter().map(|one| ("stage", one.info(), one.options()));
    let sinks = registry.sinks().iter().map(|one| ("sink", one.info(), one.options()));
    let all = sources.chain(stages).chain(sinks);
    all.map(|(kind, info, schema)| Described { kind, info, schema: schema.to_value() }).collect()
}

impl Described {
    fn options(&self) -> Vec<OptionHelp> {
        let rules = resolved(&self.schema, &self.schema);
        match rules.get("properties").and_then(Value::as_object) {
            Some(properties) => properties.iter().map(|(name, schema)| self.option(name, schema)).collect(),
            None => Vec::new(),
        }
    }

    fn option(&self, name: &str, schema: &Value) -> OptionHelp {
        let target = resolved(schema, &self.schema);
        let text =
            |key: &str| schema.get(key).or_else(|| target.get(key)).and_then(Value::as_str).map(one_line);
        OptionHelp {
            name: name.into(),
            kind: expectation(schema, &self.schema),
            default: schema.get("default").cloned().unwrap_or(Value::Null),
            help: text("description").unwrap_or_default(),
        }
    }

    fn required(&self) -> Vec<&str> {
        let rules = self.schema.get("required").and_then(Value::as_array);
        rules.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn as_json(&self) -> Value {
        let required = self.required();
        let options: Vec<Value> = self
            .options()
            .into_iter()
            .map(|one| {
                let is_required = required.contains(&one.name.as_str());
                json!({ "name": one.name, "type": one.kind, "default": one.default, "help": one.help, "required": is_required })
            })
            .collect();
        json!({
            "kind": self.kind,
            "name": self.info.name,
            "summary": self.info.summary,
            "options": options,
            "example": self.info.example,
        })
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} ({}): {}\n", self.info.name, self.kind, self.info.summary)?;
        let options = self.options();
        if options.is_empty() {
            writeln!(out, "takes {}", expectation(&self.schema, &self.schema))?;
        }
        let required = self.required();
        for option in options {
            let default = match &option.default {
                Value::Null if required.contains(&option.name.as_str()) => " (required)".into(),
                Value::Null => String::new(),
                Value::String(text) => format!(" (default {text})"),
                value => format!(" (default {value})"),
            };
            writeln!(out, "  {}: {}{default}", option.name, option.kind)?;
            if !option.help.is_empty() {
                writeln!(out, "      {}", option.help)?;
            }
        }
        writeln!(out, "\nexample\n")?;
        for line in self.info.example.lines() {
            writeln!(out, "  {line}")?;
        }
        writeln!(out)
    }
}

fn print_list(all: &[&Described], out: &mut dyn Write) -> io::Result<()> {
    let width = all.iter().map(|one| one.info.name.len()).max().unwrap_or(0);
    for (kind, title) in [("source", "sources"), ("stage", "stages"), ("sink", "sinks")] {
        writeln!(out, "{title}")?;
        for one in all.iter().filter(|one| one.kind == kind) {
            writeln!(out, "  {:width$}  {}", one.info.name, one.info.summary)?;
        }
    }
    Ok(())
}

/// A schema, or the one that it refers to.
fn resolved<'s>(schema: &'s Value, root: &'s Value) -> &'s Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    let pointer = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
    let target = pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema);
    target.as_object().unwrap_or(&NONE)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
