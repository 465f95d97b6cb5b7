//! What help says of a component's options is so.

use aqueduct::core::Problem;
use serde_json::{Map, Value, json};

/// Options within options are looked at so deep.
const MAX_DEPTH: usize = 4;

/// A component's schema, and what is wrong with options.
type Component = (String, Value, Box<dyn Fn(Value) -> Vec<Problem>>);

fn components() -> Vec<Component> {
    let registry = aqueduct::registry();
    let mut all: Vec<Component> = Vec::new();
    for source in registry.sources().to_vec() {
        let wrong = |options| source.configure(options).err().unwrap_or_default();
        all.push((source.info().name.into(), source.options().to_value(), Box::new(wrong)));
    }
    for stage in registry.stages().to_vec() {
        let wrong = |options| stage.configure(options).err().unwrap_or_default();
        all.push((stage.info().name.into(), stage.options().to_value(), Box::new(wrong)));
    }
    for sink in registry.sinks().to_vec() {
        let wrong = |options| sink.configure(options).err().unwrap_or_default();
        all.push((sink.info().name.into(), sink.options().to_value(), Box::new(wrong)));
    }
    all
}

/// The options below a schema that have a default, by the way to them.
fn defaults(schema: &Value, root: &Value, path: &[String], found: &mut Vec<(Vec<String>, Value)>) {
    if path.len() > MAX_DEPTH {
        return;
    }
    let referred = schema["$ref"].as_str().and_then(|place| root.pointer(place.trim_start_matches('#')));
    let either = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|key| schema[key].as_array()).flatten();
    for same in referred.into_iter().chain(either) {
        defaults(same, root, path, found);
    }
    for (name, option) in schema["properties"].as_object().into_iter().flatten() {
        let path = [path, std::slice::from_ref(name)].concat();
        found.extend(option.get("default").map(|default| (path.clone(), default.clone())));
        defaults(option, root, &path, found);
    }
}

/// Options with one value in them.
fn nested(path: &[String], value: Value) -> Value {
    path.iter().rev().fold(value, |value, name| Value::Object(Map::from_iter([(name.clone(), value)])))
}

#[test]
fn every_default_that_is_told_can_be_written() {
    let (mut n_defaults, mut refused) = (0, Vec::new());
    for (name, schema, wrong) in components() {
        let mut found = Vec::new();
        defaults(&schema, &schema, &[], &mut found);
        n_defaults += found.len();
        for (path, default) in found {
            // Other options may be missing with it and without it.
            let (_, parents) = path.split_last().unwrap();
            let without = wrong(nested(parents, json!({})));
            let with = wrong(nested(&path, default.clone()));
            let new = with.into_iter().filter(|problem| !without.contains(problem));
            refused.extend(new.map(|problem| format!("`{name}`, {path:?}: {default}: {}", problem.message)));
        }
    }
    assert!(refused.is_empty(), "refused are\n{}", refused.join("\n"));
    assert!(n_defaults > 30, "only {n_defaults} defaults were found");
}
