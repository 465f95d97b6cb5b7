//! What makes two runs of a flow the same: its steps, but for how they reach what they read and how bad rows are treated.
//!
//! By the path of each key, the BLAKE3 of its value: what changed can be named, and no secret is kept.

use std::collections::BTreeMap;

use aqueduct_net::HttpOptions;
use schemars::schema_for;
use serde_json::Value;

use crate::flow::graph::{RawStep, Role};
use crate::flow::node::Kind;
use crate::flow::substitute::join;

/// The hashes of all keys that make a flow what it is.
pub(crate) fn of(steps: &[RawStep]) -> BTreeMap<String, String> {
    let may_change = keys_of_reading();
    let mut identity = BTreeMap::new();
    for step in steps {
        add(&mut identity, step, &may_change);
    }
    identity
}

/// What becomes of a run when a file changes says nothing of which rows there are.
const ON_CHANGE: &str = "on_change";

/// The options of a source that say how it reads, and not what: how requests are made above all.
fn keys_of_reading() -> Vec<String> {
    let schema = schema_for!(HttpOptions);
    let properties = schema.get("properties").and_then(Value::as_object);
    let of_requests = properties.into_iter().flat_map(|properties| properties.keys().cloned());
    of_requests.chain([ON_CHANGE.to_owned()]).collect()
}

fn add(identity: &mut BTreeMap<String, String>, step: &RawStep, may_change: &[String]) {
    let Some(component) = &step.component else { return };
    let mut put = |path: String, value: Value| identity.insert(path, hash(&value));
    let inputs: Vec<_> = step.inputs.iter().map(|(name, _)| name.as_str()).collect();
    put(step.path.clone(), serde_json::json!([step.name, inputs, component.key]));
    let path = join(&step.path, &component.key);
    match &component.value.kind {
        Kind::Map(options) => {
            let is_part = |key: &String| step.role != Role::Source || !may_change.contains(key);
            for option in options.iter().filter(|option| is_part(&option.key)) {
                put(join(&path, &option.key), option.value.to_json());
            }
        }
        _ => {
            put(path, component.value.to_json());
        }
    }
}

fn hash(value: &Value) -> String {
    blake3::hash(value.to_string().as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use crate::flow::fake::load_yaml;

    fn changed(before: &str, after: &str) -> Vec<String> {
        let identity =
            |text: &str| load_yaml(text).unwrap_or_else(|errors| panic!("{errors}")).remove(0).identity;
        let (before, after) = (identity(before), identity(after));
        let keys = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
        keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
    }

    #[test]
    fn what_a_flow_reads_and_writes_counts_and_how_does_not() {
        let flow = "name: x\nsource: { files: { paths: [a] } }\nsink: { parquet: { path: o } }\n";
        let edit = |from: &str, to: &str| changed(flow, &flow.replace(from, to));
        assert_eq!(edit("[a]", "[a, b]"), ["source.files.paths"]);
        assert_eq!(edit("path: o", "path: p"), ["sink.parquet.path"]);
        assert!(edit("name: x", "name: x\nmemory: 1GB\nexecution: { batch_size: 100 }").is_empty());
        assert!(edit("[a]", "[a], on_change: reread").is_empty());
        assert!(edit("sink:", "# a comment\nsink:").is_empty());
        let with_stage = edit("sink:", "stages: [{ limit: 5 }]\nsink:");
        assert!(
            with_stage.contains(&"stages.0".to_owned()) && with_stage.contains(&"sink".to_owned()),
            "{with_stage:?}"
        );
    }
}
