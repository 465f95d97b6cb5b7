//! A flow file as a tree whose every key and value knows its line and column.

use std::collections::BTreeMap;

use serde_json::Value;

/// A place in a flow file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl Span {
    /// The beginning of the file.
    pub const START: Self = Self { line: 1, column: 1 };

    pub(crate) const fn new(line: usize, column: usize) -> Self {
        Self { line, column }
    }
}

/// A value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) at: Span,
    /// The text that a scalar was made from by filling in a `${NAME}`: where a text is expected, `1` that
    /// came from the environment is one.
    pub(crate) filled_from: Option<String>,
}

/// What a value is, by the core schema of YAML 1.2 (§10.3.2).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    /// Whole numbers beyond `i64` are floats too.
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Span,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn new(kind: Kind, at: Span) -> Self {
        Self { kind, at, filled_from: None }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_scalar(&self) -> bool {
        !matches!(self.kind, Kind::List(_) | Kind::Map(_))
    }

    /// A scalar as text: what stands in the place of `${NAME}`.
    pub(crate) fn scalar_text(&self) -> Option<String> {
        if let Some(text) = &self.filled_from {
            return Some(text.clone());
        }
        match &self.kind {
            Kind::Null => Some(String::new()),
            Kind::Bool(value) => Some(value.to_string()),
            Kind::Int(value) => Some(value.to_string()),
            Kind::Float(value) => Some(value.to_string()),
            Kind::Text(text) => Some(text.clone()),
            Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// Takes a key out of a map.
    pub(crate) fn take(&mut self, key: &str) -> Option<Entry> {
        let Kind::Map(entries) = &mut self.kind else { return None };
        let place = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(place))
    }

    /// What it is, for messages: "the text `x`", "a list".
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".into(),
            Kind::Bool(value) => format!("`{value}`"),
            Kind::Int(value) => format!("the number {value}"),
            Kind::Float(value) => format!("the number {value}"),
            Kind::Text(text) => format!("the text `{text}`"),
            Kind::List(_) => "a list".into(),
            Kind::Map(_) => "a map".into(),
        }
    }

    /// The same as JSON. NaN and infinities, which JSON lacks, become text.
    pub(crate) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => (*value).into(),
            Kind::Int(value) => (*value).into(),
            Kind::Float(value) => serde_json::Number::from_f64(*value)
                .map_or_else(|| Value::String(value.to_string()), Value::Number),
            Kind::Text(text) => text.as_str().into(),
            Kind::List(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => {
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<Value>()
            }
        }
    }
}

/// Where the parts of a component's options stand, by JSON pointer, so that a component's own complaints can
/// be given a line and a column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    path: String,
    by_pointer: BTreeMap<String, Span>,
}

impl Places {
    /// The places within `options`, which stands in the file under `path`, its key at `key_at`.
    pub(crate) fn of(options: &Node, path: String, key_at: Span) -> Self {
        let mut by_pointer = BTreeMap::new();
        let root = if options.is_scalar() && options.kind != Kind::Null { options.at } else { key_at };
        by_pointer.insert(String::new(), root);
        collect(options, "", &mut by_pointer);
        Self { path, by_pointer }
    }

    /// The place of a pointer, or of the nearest thing above it that is there; and its path in the file.
    pub(crate) fn find(&self, pointer: &str) -> (Span, String) {
        let mut path = self.path.clone();
        for part in pointer.split('/').skip(1) {
            path.push('.');
            path.push_str(&part.replace("~1", "/").replace("~0", "~"));
        }
        let mut nearest = pointer;
        loop {
            if let Some(at) = self.by_pointer.get(nearest) {
                return (*at, path);
            }
            nearest = match nearest.rfind('/') {
                Some(end) => &nearest[..end],
                None => return (Span::START, path),
            };
        }
    }
}

fn collect(node: &Node, pointer: &str, places: &mut BTreeMap<String, Span>) {
    for entry in node.entries() {
        let below = format!("{pointer}{}", aqueduct_core::pointer_to(&entry.key));
        let at = if entry.value.is_scalar() { entry.value.at } else { entry.key_at };
        places.insert(below.clone(), at);
        collect(&entry.value, &below, places);
    }
    for (n, item) in node.items().iter().enumerate() {
        let below = format!("{pointer}/{n}");
        places.insert(below.clone(), item.at);
        collect(item, &below, places);
    }
}
