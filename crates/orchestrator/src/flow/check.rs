//! A [`Node`] against a JSON Schema (draft 2020-12, as `schemars` writes it): every mistake with the place of the
//! very key or value, and with what was expected.
//!
//! A general validator would say "is not valid under any of the schemas listed"; here the branch that was meant
//! is chosen first, and its mistakes are told.

use serde_json::{Map, Value};

use crate::flow::Span;
use crate::flow::error::{Mistake, did_you_mean, list};
use crate::flow::node::{Kind, Node};
use crate::flow::options::MaxRejected;
use crate::flow::substitute::join;

type Object = Map<String, Value>;

/// Checks a node, which stands under `path` with its key at `key_at`. A text that a `${NAME}` gave is taken
/// where a text is expected even if it looks like a number.
pub(crate) fn check(node: &mut Node, schema: &Value, path: &str, key_at: Span) -> Vec<Mistake> {
    Checker { root: schema }.value(schema, node, &At { path: path.into(), key_at })
}

struct Checker<'s> {
    root: &'s Value,
}

/// Where the value under check stands.
struct At {
    path: String,
    key_at: Span,
}

impl At {
    fn wrong(&self, at: Span, message: impl Into<String>) -> Mistake {
        Mistake::new(at, self.path.clone(), message)
    }
}

impl<'s> Checker<'s> {
    fn value(&self, schema: &'s Value, node: &mut Node, at: &At) -> Vec<Mistake> {
        let Some(rules) = schema.as_object() else {
            let is_allowed = schema.as_bool().unwrap_or(true);
            return if is_allowed { Vec::new() } else { vec![at.wrong(at.key_at, "unknown key")] };
        };
        if let Some(wrong) = self.wrong_type(rules, schema, node, at) {
            return vec![wrong];
        }
        let mut mistakes = Vec::new();
        if let Some(reference) = rules.get("$ref") {
            mistakes.extend(self.value(self.resolve(reference), node, at));
        }
        mistakes.extend(self.wrong_value(rules, schema, node, at));
        mistakes.extend(self.keys(schema, rules, node, at));
        mistakes.extend(self.items(rules, node, at));
        for part in array(rules, "allOf") {
            mistakes.extend(self.value(part, node, at));
        }
        let branches = [array(rules, "oneOf"), array(rules, "anyOf")].concat();
        if !branches.is_empty() {
            mistakes.extend(self.one_of(schema, &branches, node, at));
        }
        mistakes
    }

    fn resolve(&self, reference: &Value) -> &'s Value {
        let pointer = reference.as_str().and_then(|text| text.strip_prefix('#')).unwrap_or_default();
        self.root.pointer(pointer).unwrap_or(&Value::Bool(true))
    }

    fn wrong_type(&self, rules: &'s Object, schema: &'s Value, node: &mut Node, at: &At) -> Option<Mistake> {
        let types = types(rules);
        if types.is_empty() || types.iter().any(|name| is_a(node, name)) {
            return None;
        }
        if let (Some(text), true) = (&node.filled_from, types.contains(&"string")) {
            node.kind = Kind::Text(text.clone());
            return None;
        }
        Some(at.wrong(node.at, format!("found {}; expected {}", node.describe(), self.expected(schema))))
    }

    fn wrong_value(&self, rules: &'s Object, schema: &'s Value, node: &Node, at: &At) -> Option<Mistake> {
        let told = || format!("found {}; expected {}", node.describe(), self.expected(schema));
        let allowed: Vec<&str> = words(rules);
        if !allowed.is_empty() && !node.text().is_some_and(|text| allowed.contains(&text)) {
            let hint =
                node.text().map(|text| did_you_mean(text, allowed.iter().copied())).unwrap_or_default();
            return Some(at.wrong(node.at, told() + &hint));
        }
        if let Some(text) = node.text()
            && (!fits_format(rules, text) || !fits_length(rules, text.chars().count()))
        {
            return Some(at.wrong(node.at, told()));
        }
        let number = match node.kind {
            #[expect(clippy::cast_precision_loss, reason = "bounds are small numbers")]
            Kind::Int(value) => value as f64,
            Kind::Float(value) => value,
            _ => return None,
        };
        let beyond = |key: &str, is_wrong: fn(f64, f64) -> bool| {
            let limit = rules.get(key)?;
            is_wrong(number, limit.as_f64()?).then_some(limit)
        };
        let found = node.describe();
        if let Some(limit) = beyond("minimum", |n, limit| n < limit) {
            return Some(at.wrong(node.at, format!("found {found}; expected at least {limit}")));
        }
        if let Some(limit) = beyond("exclusiveMinimum", |n, limit| n <= limit) {
            return Some(at.wrong(node.at, format!("found {found}; expected more than {limit}")));
        }
        let limit = beyond("maximum", |n, limit| n > limit)?;
        Some(at.wrong(node.at, format!("found {found}; expected at most {limit}")))
    }

    fn keys(&self, schema: &'s Value, rules: &'s Object, node: &mut Node, at: &At) -> Vec<Mistake> {
        let Kind::Map(entries) = &mut node.kind else { return Vec::new() };
        let is_closed = ["additionalProperties", "unevaluatedProperties"]
            .iter()
            .any(|key| rules.get(*key) == Some(&Value::Bool(false)));
        let known = if is_closed { self.known_keys(schema) } else { Vec::new() };
        let mut mistakes = Vec::new();
        let mut meant = Vec::new();
        for entry in entries.iter_mut() {
            let below = At { path: join(&at.path, &entry.key), key_at: entry.key_at };
            if let Some(property) = rules.get("properties").and_then(|all| all.get(&entry.key)) {
                mistakes.extend(self.value(property, &mut entry.value, &below));
            } else if is_closed && !known.contains(&entry.key.as_str()) {
                meant.extend(aqueduct_core::nearest(&entry.key, known.iter().copied()));
                mistakes.push(below.wrong(entry.key_at, unknown_key(&entry.key, &known)));
            } else if let (false, Some(others)) = (is_closed, rules.get("additionalProperties")) {
                mistakes.extend(self.value(others, &mut entry.value, &below));
            }
        }
        for required in array(rules, "required").iter().filter_map(|key| key.as_str()) {
            // A misspelt key is told already, where it stands.
            if node.get(required).is_none() && !meant.contains(&required) {
                let help = self.property(rules, required);
                mistakes.push(at.wrong(at.key_at, format!("`{required}` is missing{help}")));
            }
        }
        mistakes
    }

    /// What a missing key is, for whoever must write it.
    fn property(&self, rules: &'s Object, key: &str) -> String {
        match rules.get("properties").and_then(|all| all.get(key)) {
            Some(schema) => format!("; expected {}", self.expected(schema)),
            None => String::new(),
        }
    }

    /// The keys that a map may have, those of its alternatives among them.
    fn known_keys(&self, schema: &'s Value) -> Vec<&'s str> {
        let Some(rules) = schema.as_object() else { return Vec::new() };
        let own = rules.get("properties").and_then(Value::as_object);
        let mut keys: Vec<&str> = own.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let parts = ["allOf", "oneOf", "anyOf"].iter().flat_map(|key| array(rules, key));
        for part in parts.chain(rules.get("$ref").map(|reference| self.resolve(reference))) {
            keys.extend(self.known_keys(part));
        }
        keys
    }

    fn items(&self, rules: &'s Object, node: &mut Node, at: &At) -> Vec<Mistake> {
        let here = node.at;
        let Kind::List(items) = &mut node.kind else { return Vec::new() };
        let mut mistakes = Vec::new();
        let count = |key: &str| rules.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        if let Some(min) = count("minItems").filter(|min| items.len() < *min) {
            mistakes
                .push(at.wrong(here, format!("found a list of {}; expected at least {min}", items.len())));
        }
        if let Some(max) = count("maxItems").filter(|max| items.len() > *max) {
            mistakes.push(at.wrong(here, format!("found a list of {}; expected at most {max}", items.len())));
        }
        let first = array(rules, "prefixItems");
        for (n, item) in items.iter_mut().enumerate() {
            let Some(schema) = first.get(n).copied().or(rules.get("items")) else { continue };
            let below = At { path: join(&at.path, &n.to_string()), key_at: item.at };
            mistakes.extend(self.value(schema, item, &below));
        }
        mistakes
    }

    /// One of several shapes: the one that fits, else the mistakes of the one that was meant.
    fn one_of(&self, schema: &'s Value, branches: &[&'s Value], node: &mut Node, at: &At) -> Vec<Mistake> {
        let mut meant: Option<Vec<Mistake>> = None;
        let mut n_meant = 0;
        for branch in branches {
            let mut tried = node.clone();
            let mistakes = self.value(branch, &mut tried, at);
            if mistakes.is_empty() {
                *node = tried;
                return mistakes;
            }
            if self.is_meant(branch, node) {
                n_meant += 1;
                if meant.as_ref().is_none_or(|best| mistakes.len() < best.len()) {
                    meant = Some(mistakes);
                }
            }
        }
        match meant {
            Some(mistakes) if n_meant == 1 || matches!(node.kind, Kind::Map(_)) => mistakes,
            _ => vec![self.none_of(schema, node, at)],
        }
    }

    /// Whether whoever wrote this had that branch in mind: the same kind of value and, of a map, one of its keys.
    fn is_meant(&self, branch: &'s Value, node: &Node) -> bool {
        let Some(rules) = branch.as_object() else { return true };
        if let Some(reference) = rules.get("$ref") {
            return self.is_meant(self.resolve(reference), node);
        }
        let alternatives = [array(rules, "oneOf"), array(rules, "anyOf")].concat();
        if !alternatives.is_empty() {
            return alternatives.iter().any(|branch| self.is_meant(branch, node));
        }
        let types = types(rules);
        if !types.is_empty() && !types.iter().any(|name| is_a(node, name)) {
            return false;
        }
        let keys = self.known_keys(branch);
        node.entries().is_empty()
            || keys.is_empty()
            || node.entries().iter().any(|entry| keys.contains(&entry.key.as_str()))
    }

    fn none_of(&self, schema: &'s Value, node: &Node, at: &At) -> Mistake {
        let keys = self.known_keys(schema);
        if let (Some(entry), false) = (node.entries().first(), keys.is_empty()) {
            return Mistake::new(entry.key_at, join(&at.path, &entry.key), unknown_key(&entry.key, &keys));
        }
        let words = self.all_words(schema);
        let hint = node.text().map(|text| did_you_mean(text, words.iter().copied())).unwrap_or_default();
        at.wrong(node.at, format!("found {}; expected {}{hint}", node.describe(), self.expected(schema)))
    }

    fn all_words(&self, schema: &'s Value) -> Vec<&'s str> {
        let Some(rules) = schema.as_object() else { return Vec::new() };
        let mut all = words(rules);
        let parts = ["oneOf", "anyOf"].iter().flat_map(|key| array(rules, key));
        for part in parts.chain(rules.get("$ref").map(|reference| self.resolve(reference))) {
            all.extend(self.all_words(part));
        }
        all
    }

    fn expected(&self, schema: &'s Value) -> String {
        expectation(schema, self.root)
    }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return format!("unknown key `{key}`; expected no keys");
    }
    format!(
        "unknown key `{key}`; expected one of {}{}",
        list(known.iter().copied()),
        did_you_mean(key, known.iter().copied())
    )
}

/// What a schema asks for, in words: "a whole number", "one of any, listed", "a list of texts".
pub(crate) fn expectation(schema: &Value, root: &Value) -> String {
    const MAX_DEPTH: usize = 4;
    let mut alternatives = Vec::new();
    alternatives_of(schema, root, MAX_DEPTH, &mut alternatives);
    let (words, mut others): (Vec<_>, Vec<_>) =
        alternatives.into_iter().partition(|text| text.starts_with('`'));
    match words.as_slice() {
        [] => {}
        [one] => others.insert(0, one.clone()),
        several => {
            others.insert(0, format!("one of {}", list(several.iter().map(|word| word.trim_matches('`')))))
        }
    }
    others.dedup();
    if others.is_empty() { "any value".into() } else { others.join(" or ") }
}

fn alternatives_of(schema: &Value, root: &Value, depth: usize, found: &mut Vec<String>) {
    let Some(rules) = schema.as_object().filter(|_| depth > 0) else { return };
    if let Some(pointer) = rules.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#')) {
        return alternatives_of(root.pointer(pointer).unwrap_or(&Value::Null), root, depth - 1, found);
    }
    let branches = ["oneOf", "anyOf", "allOf"].iter().flat_map(|key| array(rules, key)).collect::<Vec<_>>();
    if !branches.is_empty() {
        branches.iter().for_each(|branch| alternatives_of(branch, root, depth, found));
        return;
    }
    let words = words(rules);
    if !words.is_empty() {
        found.extend(words.iter().map(|word| format!("`{word}`")));
        return;
    }
    match rules.get("format").and_then(Value::as_str) {
        Some("bytes") => return found.push("a number of bytes such as 64MB".into()),
        Some("duration") => return found.push("a duration such as 10s".into()),
        Some("count-or-share") => return found.push("a count or a share such as 10%".into()),
        Some("name") => return found.push("a name of letters, digits, - and _".into()),
        _ => {}
    }
    found.extend(types(rules).into_iter().filter_map(|name| match name {
        "string" => Some("a text".into()),
        "integer" => Some("a whole number".into()),
        "number" => Some("a number".into()),
        "boolean" => Some("true or false".into()),
        "array" => Some(list_of(rules, root, depth)),
        "object" => Some(map_of(rules)),
        _ => None,
    }));
}

fn list_of(rules: &Object, root: &Value, depth: usize) -> String {
    let mut of = Vec::new();
    if let Some(items) = rules.get("items") {
        alternatives_of(items, root, depth - 1, &mut of);
    }
    match of.as_slice() {
        [one] if one == "a text" => "a list of texts".into(),
        [one] if one == "a whole number" => "a list of whole numbers".into(),
        _ => "a list".into(),
    }
}

fn map_of(rules: &Object) -> String {
    match rules.get("properties").and_then(Value::as_object) {
        Some(properties) if !properties.is_empty() => {
            format!("a map with {}", list(properties.keys().map(String::as_str)))
        }
        _ => "a map".into(),
    }
}

fn array<'s>(rules: &'s Object, key: &str) -> Vec<&'s Value> {
    rules.get(key).and_then(Value::as_array).into_iter().flatten().collect()
}

fn types(rules: &Object) -> Vec<&str> {
    match rules.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The texts that `const` and `enum` allow.
fn words(rules: &Object) -> Vec<&str> {
    let allowed = array(rules, "enum").into_iter().chain(rules.get("const"));
    allowed.filter_map(Value::as_str).collect()
}

fn is_a(node: &Node, name: &str) -> bool {
    match node.kind {
        Kind::Null => name == "null",
        Kind::Bool(_) => name == "boolean",
        Kind::Int(_) => name == "integer" || name == "number",
        Kind::Float(_) => name == "number",
        Kind::Text(_) => name == "string",
        Kind::List(_) => name == "array",
        Kind::Map(_) => name == "object",
    }
}

fn fits_format(rules: &Object, text: &str) -> bool {
    match rules.get("format").and_then(Value::as_str) {
        Some("bytes") => text.parse::<aqueduct_primitives::ByteCount>().is_ok(),
        Some("duration") => humantime::parse_duration(text).is_ok(),
        Some("count-or-share") => MaxRejected::parse(text).is_some(),
        Some("name") => text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'),
        _ => true,
    }
}

fn fits_length(rules: &Object, n_chars: usize) -> bool {
    let limit = |key: &str| rules.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    limit("minLength").is_none_or(|min| n_chars >= min) && limit("maxLength").is_none_or(|max| n_chars <= max)
}
