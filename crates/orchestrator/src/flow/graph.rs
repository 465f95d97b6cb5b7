//! The steps of a flow file as they are written, in the short form or the long one: names, inputs, and the one
//! key that names the component. What the component's options mean is not known here, but for the one that names
//! another step.

use std::collections::HashSet;

use aqueduct_core::Registry;

use crate::flow::error::Mistake;
use crate::flow::node::{Entry, Kind, Node};
use crate::flow::substitute::join;
use crate::flow::{BesideOptions, Span, check, closed};

/// The keys of a flow file that hold steps.
pub(crate) const STEP_KEYS: [&str; 5] = ["source", "sources", "stages", "sink", "sinks"];

/// The keys that may stand beside a component.
const BESIDE: [&str; 5] = ["name", "input", "on_error", "dead_letter", "max_concurrency"];

/// What a step does with rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Source,
    Stage,
    Sink,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Stage => "stage",
            Self::Sink => "sink",
        }
    }
}

/// A step as it is written.
#[derive(Clone, Debug)]
pub(crate) struct RawStep {
    pub(crate) role: Role,
    pub(crate) name: String,
    /// Where its name stands, or the step.
    pub(crate) name_at: Span,
    /// The names of the steps whose rows it takes.
    pub(crate) inputs: Vec<(String, Span)>,
    /// The name of the step whose rows it takes beside, and the path of the option that says so.
    pub(crate) side: Option<(String, Span, String)>,
    /// The component's name and options; `None` if there is a mistake in it that is told already.
    pub(crate) component: Option<Entry>,
    pub(crate) beside: BesideOptions,
    /// Its path in the file.
    pub(crate) path: String,
}

/// Reads all steps of a file, in the order in which they are written: sources, stages, sinks.
pub(crate) fn read(file: &mut Node, registry: &Registry, mistakes: &mut Vec<Mistake>) -> Vec<RawStep> {
    let mut reader = Reader { steps: Vec::new(), taken: explicit_names(file), registry, mistakes };
    reader.sources(file);
    let end = reader.stages(file);
    reader.sinks(file, end);
    reader.steps
}

/// The names that the file gives itself, so that no unnamed step takes one of them.
fn explicit_names(file: &Node) -> HashSet<String> {
    let maps = ["sources", "stages", "sinks"].iter().filter_map(|key| file.get(key));
    let mut names: HashSet<String> = maps.flat_map(Node::entries).map(|entry| entry.key.clone()).collect();
    let items = file.get("stages").map(Node::items).unwrap_or_default();
    let singles = ["source", "sink"].iter().filter_map(|key| file.get(key));
    names.extend(items.iter().chain(singles).filter_map(|step| step.get("name")?.text().map(String::from)));
    names
}

/// A step whose rows the next one takes.
type End = Option<(String, Span)>;

struct Reader<'m> {
    steps: Vec<RawStep>,
    taken: HashSet<String>,
    registry: &'m Registry,
    mistakes: &'m mut Vec<Mistake>,
}

/// A step to be read: where it stands, what it is called, whose rows it takes if it does not say.
struct Asked {
    role: Role,
    path: String,
    at: Span,
    /// The key it stands under, in the long form.
    key: Option<String>,
    /// What it is called when neither key nor `name` say.
    default_name: Option<&'static str>,
    default_input: End,
}

impl Reader<'_> {
    fn sources(&mut self, file: &mut Node) {
        if let Some(entry) = file.take("source") {
            let asked = Asked { default_name: Some("source"), ..asked(Role::Source, "source", entry.key_at) };
            self.step(asked, entry.value);
        }
        if let Some(entry) = file.take("sources") {
            for (path, step) in self.named("sources", entry) {
                self.step(
                    Asked { key: Some(step.key), ..asked(Role::Source, &path, step.key_at) },
                    step.value,
                );
            }
        }
        if self.steps.is_empty() && self.mistakes.iter().all(|one| !one.path.starts_with("source")) {
            let message = "no source; expected `source:` with a component, or `sources:` with names";
            self.mistakes.push(Mistake::new(file.at, "source", message));
        }
    }

    /// The stages; what comes last in a chain is what a sink takes by default.
    fn stages(&mut self, file: &mut Node) -> End {
        let only_source = match self.steps.as_slice() {
            [source] => Some((source.name.clone(), source.name_at)),
            _ => None,
        };
        match file.take("stages") {
            None => only_source,
            Some(entry) if matches!(entry.value.kind, Kind::Map(_)) => {
                for (path, step) in self.named("stages", entry) {
                    self.named_stage(path, step);
                }
                None
            }
            Some(entry) => self.chain("stages", entry.value, only_source, None),
        }
    }

    /// `clean: {input: a, filter: …}` or `clean: {input: a, stages: […]}`.
    fn named_stage(&mut self, path: String, mut step: Entry) {
        let Some(stages) = step.value.take("stages") else {
            self.step(Asked { key: Some(step.key), ..asked(Role::Stage, &path, step.key_at) }, step.value);
            return;
        };
        let input = step.value.take("input");
        for other in step.value.entries() {
            let message = "unknown key beside `stages`; expected `input` only".to_owned();
            self.mistakes.push(Mistake::new(other.key_at, join(&path, &other.key), message));
        }
        let Some(input) = input else {
            return self.no_input(&path, step.key_at);
        };
        let before = self.steps.len();
        let inputs = self.inputs(&input.value, &join(&path, "input"));
        self.chain(
            &join(&path, "stages"),
            stages.value,
            inputs.first().cloned(),
            Some((step.key, step.key_at)),
        );
        // A source that stands inside of a stage comes before it.
        let is_stage = |step: &&mut RawStep| step.role == Role::Stage;
        if let Some(first) = self.steps.iter_mut().skip(before).find(is_stage) {
            first.inputs = inputs;
        }
    }

    /// A list of stages, each taking the rows of the one before; the last one's name, and what it is given if
    /// the chain has a name itself.
    fn chain(&mut self, path: &str, list: Node, first: End, name: End) -> End {
        let Kind::List(items) = list.kind else {
            let message = format!("found {}; expected a list of stages, or a map of names", list.describe());
            self.mistakes.push(Mistake::new(list.at, path, message));
            return first;
        };
        let n_items = items.len();
        let mut end = first;
        for (n, item) in items.into_iter().enumerate() {
            let key = name.as_ref().filter(|_| n + 1 == n_items).map(|(name, _)| name.clone());
            let asked = Asked {
                key,
                default_input: end.take(),
                ..asked(Role::Stage, &join(path, &n.to_string()), item.at)
            };
            self.step(asked, item);
            end = self.steps.last().map(|step| (step.name.clone(), step.name_at));
        }
        end
    }

    fn sinks(&mut self, file: &mut Node, end: End) {
        let before = self.steps.len();
        let is_told = |reader: &Self| reader.mistakes.iter().any(|one| one.path.starts_with("sink"));
        if let Some(entry) = file.take("sink") {
            let asked = Asked {
                default_name: Some("sink"),
                default_input: end.clone(),
                ..asked(Role::Sink, "sink", entry.key_at)
            };
            self.step(asked, entry.value);
        }
        if let Some(entry) = file.take("sinks") {
            for (path, step) in self.named("sinks", entry) {
                let asked = Asked {
                    key: Some(step.key),
                    default_input: end.clone(),
                    ..asked(Role::Sink, &path, step.key_at)
                };
                self.step(asked, step.value);
            }
        }
        if self.steps.len() == before && !is_told(self) {
            let message = "no sink; expected `sink:` with a component, or `sinks:` with names";
            self.mistakes.push(Mistake::new(file.at, "sink", message));
        }
    }

    /// The entries of a map of named steps.
    fn named(&mut self, path: &str, entry: Entry) -> Vec<(String, Entry)> {
        let Kind::Map(entries) = entry.value.kind else {
            let message =
                format!("found {}; expected a map of names, each with a component", entry.value.describe());
            self.mistakes.push(Mistake::new(entry.value.at, path, message));
            return Vec::new();
        };
        entries.into_iter().map(|step| (join(path, &step.key), step)).collect()
    }

    fn step(&mut self, asked: Asked, mut node: Node) {
        let (beside, input) = self.beside(&mut node, &asked);
        let mut component = self.component(node, &asked);
        let side = component.as_mut().and_then(|component| self.side(component, &asked));
        let name = match (asked.key, &beside.name) {
            (Some(key), _) => key,
            (None, Some(name)) => name.clone(),
            (None, None) => self.free_name(
                asked.default_name.or(component.as_ref().map(|one| one.key.as_str())).unwrap_or("step"),
            ),
        };
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            let message = format!("found the name `{name}`; expected letters, digits, - and _");
            self.mistakes.push(Mistake::new(asked.at, asked.path.clone(), message));
        }
        let inputs = match input {
            Some(entry) if asked.role == Role::Source => {
                let message = "unknown key `input`; a source takes no rows";
                self.mistakes.push(Mistake::new(entry.key_at, join(&asked.path, "input"), message));
                Vec::new()
            }
            Some(entry) => self.inputs(&entry.value, &join(&asked.path, "input")),
            None if asked.role != Role::Source && asked.default_input.is_none() => {
                self.no_input(&asked.path, asked.at);
                Vec::new()
            }
            None => asked.default_input.into_iter().collect(),
        };
        self.steps.push(RawStep {
            role: asked.role,
            name,
            name_at: asked.at,
            inputs,
            side,
            component,
            beside,
            path: asked.path,
        });
    }

    /// The step whose rows a stage takes beside its input. A source that stands there becomes a step of its own, and
    /// its name stands there instead.
    fn side(&mut self, component: &mut Entry, asked: &Asked) -> Option<(String, Span, String)> {
        if asked.role != Role::Stage {
            return None;
        }
        let option = self.registry.stage(&component.key)?.side_input()?;
        let path = join(&join(&asked.path, &component.key), option);
        let Kind::Map(options) = &mut component.value.kind else { return None };
        let side = options.iter_mut().find(|entry| entry.key == option)?;
        if matches!(side.value.kind, Kind::Map(_)) {
            let at = side.value.at;
            let source = std::mem::replace(&mut side.value, Node::new(Kind::Null, at));
            self.step(super::graph::asked(Role::Source, &path, at), source);
            side.value.kind = Kind::Text(self.steps.last()?.name.clone());
        }
        Some((side.value.text()?.to_owned(), side.value.at, path))
    }

    /// Takes the keys beside the component off, checked.
    fn beside(&mut self, node: &mut Node, asked: &Asked) -> (BesideOptions, Option<Entry>) {
        let entries = BESIDE.iter().filter_map(|key| node.take(key)).collect::<Vec<_>>();
        let mut beside = Node::new(Kind::Map(entries), node.at);
        let wrong = check::check(&mut beside, &closed::<BesideOptions>(), &asked.path, asked.at);
        let is_right = wrong.is_empty();
        self.mistakes.extend(wrong);
        let options = if is_right {
            serde_json::from_value(beside.to_json()).unwrap_or_default()
        } else {
            BesideOptions::default()
        };
        (options, beside.take("input"))
    }

    fn component(&mut self, node: Node, asked: &Asked) -> Option<Entry> {
        let role = asked.role.name();
        let (found, at) = (node.describe(), node.at);
        let Kind::Map(entries) = node.kind else {
            let message = format!("found {found}; expected a map with one key, the {role}'s component");
            self.mistakes.push(Mistake::new(at, asked.path.clone(), message));
            return None;
        };
        let names: Vec<String> = entries.iter().map(|entry| format!("`{}`", entry.key)).collect();
        let mut entries = entries.into_iter();
        match (entries.next(), entries.next()) {
            (Some(one), None) => Some(one),
            (None, _) => {
                let message = format!("no component; expected one key that names the {role}'s component");
                self.mistakes.push(Mistake::new(asked.at, asked.path.clone(), message));
                None
            }
            (Some(_), Some(second)) => {
                let message = format!(
                    "several keys that could be the component: {}; expected one, and beside it only {}",
                    names.join(", "),
                    BESIDE.join(", ")
                );
                self.mistakes.push(Mistake::new(second.key_at, join(&asked.path, &second.key), message));
                None
            }
        }
    }

    /// One name or a list of names, in which each counts once.
    fn inputs(&mut self, node: &Node, path: &str) -> Vec<(String, Span)> {
        let nodes = match &node.kind {
            Kind::List(items) => items.iter().collect(),
            _ => vec![node],
        };
        let mut inputs: Vec<(String, Span)> = Vec::new();
        for node in nodes {
            let Some(name) = node.text() else { continue };
            if inputs.iter().any(|(other, _)| other == name) {
                self.mistakes.push(Mistake::new(node.at, path, format!("`{name}` stands here twice")));
                continue;
            }
            inputs.push((name.to_owned(), node.at));
        }
        inputs
    }

    fn no_input(&mut self, path: &str, at: Span) {
        let message = "`input` is missing; expected the name of the step, or the steps, whose rows it takes";
        self.mistakes.push(Mistake::new(at, path, message));
    }

    /// `filter`, then `filter_2`.
    fn free_name(&mut self, wanted: &str) -> String {
        let numbered = (2..).map(|n: usize| format!("{wanted}_{n}"));
        let name = std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !self.taken.contains(name));
        let name = name.unwrap_or_default();
        self.taken.insert(name.clone());
        name
    }
}

fn asked(role: Role, path: &str, at: Span) -> Asked {
    Asked { role, path: path.into(), at, key: None, default_name: None, default_input: None }
}
