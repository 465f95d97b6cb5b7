//! Steps as they are written become configured components in an order in which each stands after its inputs.

use std::collections::HashMap;

use aqueduct_core::{ComponentInfo, Problem, Registry, nearest};
use aqueduct_primitives::ByteCount;
use serde_json::Value;

use crate::flow::error::{Mistake, did_you_mean, list};
use crate::flow::graph::{RawStep, Role};
use crate::flow::node::{Entry, Kind, Node};
use crate::flow::substitute::join;
use crate::flow::{Places, Span, StepKind, check, merges};

/// A step whose component is configured if nothing is wrong with it.
pub(crate) struct Draft {
    pub(crate) raw: RawStep,
    pub(crate) kind: Option<StepKind>,
    pub(crate) component: &'static str,
    /// Its inputs, as places among the drafts.
    pub(crate) inputs: Vec<usize>,
    pub(crate) places: Places,
}

impl Draft {
    /// The inputs that merge, and the one beside them.
    pub(crate) fn merging_and_side(&self) -> (&[usize], Option<usize>) {
        match self.inputs.split_last() {
            Some((side, merging)) if self.raw.side.is_some() => (merging, Some(*side)),
            _ => (&self.inputs, None),
        }
    }
}

/// What a source takes from `http:` unless it says it itself, beside how requests are made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Defaults {
    pub(crate) max_record_bytes: Option<ByteCount>,
}

impl Defaults {
    /// Adds to a source's options what they leave open, as far as the source knows it.
    fn complete(self, options: &mut Value, schema: &Value) {
        const KEY: &str = "max_record_bytes";
        let is_known = schema.get("properties").is_some_and(|all| all.get(KEY).is_some());
        if let (Some(max), Some(options), true) = (self.max_record_bytes, options.as_object_mut(), is_known) {
            options.entry(KEY).or_insert(max.get().into());
        }
    }
}

/// Configures every step and puts them in order.
pub(crate) fn build(
    raw: Vec<RawStep>,
    registry: &Registry,
    defaults: Defaults,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Draft> {
    let drafts: Vec<Draft> =
        raw.into_iter().map(|step| configured(step, registry, defaults, mistakes)).collect();
    let drafts = linked(drafts, mistakes);
    let drafts = in_order(drafts, mistakes);
    merges::put_before(drafts, registry.merge(), mistakes)
}

fn configured(
    mut raw: RawStep,
    registry: &Registry,
    defaults: Defaults,
    mistakes: &mut Vec<Mistake>,
) -> Draft {
    let Some(entry) = raw.component.take() else {
        return Draft { raw, kind: None, component: "", inputs: Vec::new(), places: Places::default() };
    };
    let path = join(&raw.path, &entry.key);
    let places = Places::of(&entry.value, path.clone(), entry.key_at);
    let (component, kind) = match configure(raw.role, entry, &path, registry, defaults) {
        Ok((component, kind)) => (component, Some(kind)),
        Err(Refused::Shape(wrong)) => {
            mistakes.extend(wrong);
            ("", None)
        }
        Err(Refused::Problems(problems)) => {
            mistakes.extend(problems.into_iter().map(|problem| {
                let (at, path) = places.find(&problem.pointer);
                Mistake::new(at, path, problem.message)
            }));
            ("", None)
        }
    };
    Draft { raw, kind, component, inputs: Vec::new(), places }
}

/// Why a component could not be configured.
enum Refused {
    /// Its options do not fit their schema, or there is no such component.
    Shape(Vec<Mistake>),
    /// It says so itself.
    Problems(Vec<Problem>),
}

fn configure(
    role: Role,
    entry: Entry,
    path: &str,
    registry: &Registry,
    defaults: Defaults,
) -> Result<(&'static str, StepKind), Refused> {
    let name = entry.key.as_str();
    let unknown = || Refused::Shape(vec![unknown_component(role, name, entry.key_at, path, registry)]);
    match role {
        Role::Source => {
            let factory = registry.source(name).ok_or_else(unknown)?;
            let schema = factory.options().to_value();
            let mut options = fitting(entry, &schema, path)?;
            defaults.complete(&mut options, &schema);
            let config = factory.configure(options).map_err(Refused::Problems)?;
            Ok((factory.info().name, StepKind::Source(config)))
        }
        Role::Stage => {
            let factory = registry.stage(name).ok_or_else(unknown)?;
            let options = fitting(entry, &factory.options().to_value(), path)?;
            let config = factory.configure(options).map_err(Refused::Problems)?;
            Ok((factory.info().name, StepKind::Stage(config)))
        }
        Role::Sink => {
            let factory = registry.sink(name).ok_or_else(unknown)?;
            let options = fitting(entry, &factory.options().to_value(), path)?;
            let config = factory.configure(options).map_err(Refused::Problems)?;
            Ok((factory.info().name, StepKind::Sink(config)))
        }
    }
}

/// Options that fit their schema, as JSON. `stdout:` without options means `stdout: {}`.
fn fitting(mut entry: Entry, schema: &Value, path: &str) -> Result<Value, Refused> {
    if entry.value.kind == Kind::Null {
        entry.value = Node::new(Kind::Map(Vec::new()), entry.key_at);
    }
    let mistakes = check::check(&mut entry.value, schema, path, entry.key_at);
    if mistakes.is_empty() { Ok(entry.value.to_json()) } else { Err(Refused::Shape(mistakes)) }
}

fn unknown_component(role: Role, name: &str, at: Span, path: &str, registry: &Registry) -> Mistake {
    let elsewhere = [
        (Role::Source, registry.source(name).is_some()),
        (Role::Stage, registry.stage(name).is_some()),
        (Role::Sink, registry.sink(name).is_some()),
    ];
    let known = names(role, registry);
    let role_name = role.name();
    let hint = match elsewhere.iter().find(|(_, is_there)| *is_there) {
        Some((other, _)) => format!("; `{name}` is a {}", other.name()),
        None => did_you_mean(name, known.iter().copied()),
    };
    Mistake::new(
        at,
        path,
        format!("unknown {role_name} `{name}`; expected one of {}{hint}", list(known.iter().copied())),
    )
}

/// The names of all components of a role, by the alphabet.
pub(crate) fn names(role: Role, registry: &Registry) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = infos(role, registry).into_iter().map(|info| info.name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What is known of all components of a role.
pub(crate) fn infos(role: Role, registry: &Registry) -> Vec<&'static ComponentInfo> {
    match role {
        Role::Source => registry.sources().iter().map(|factory| factory.info()).collect(),
        Role::Stage => registry.stages().iter().map(|factory| factory.info()).collect(),
        Role::Sink => registry.sinks().iter().map(|factory| factory.info()).collect(),
    }
}

/// Finds the inputs of every step by their names.
fn linked(mut drafts: Vec<Draft>, mistakes: &mut Vec<Mistake>) -> Vec<Draft> {
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for (n, draft) in drafts.iter().enumerate() {
        if let Some(first) = by_name.get(&draft.raw.name) {
            let first_at = drafts[*first].raw.name_at.line;
            let message =
                format!("a duplicate name: a step in line {first_at} is called `{}` already", draft.raw.name);
            mistakes.push(Mistake::new(draft.raw.name_at, draft.raw.path.clone(), message));
        } else {
            by_name.insert(draft.raw.name.clone(), n);
        }
    }
    let roles: Vec<Role> = drafts.iter().map(|draft| draft.raw.role).collect();
    for draft in &mut drafts {
        let path = join(&draft.raw.path, "input");
        let merging = draft.raw.inputs.iter().map(|(name, at)| (name, at, &path));
        let side = draft.raw.side.iter().map(|(name, at, path)| (name, at, path));
        for (name, at, path) in merging.chain(side) {
            match by_name.get(name) {
                Some(place) if roles[*place] == Role::Sink => {
                    let message = format!("`{name}` is a sink; no rows come out of it");
                    mistakes.push(Mistake::new(*at, path.clone(), message));
                }
                Some(place) => draft.inputs.push(*place),
                None => mistakes.push(Mistake::new(*at, path.clone(), unknown_step(name, by_name.keys()))),
            }
        }
    }
    never_taken(&drafts, mistakes);
    drafts
}

fn unknown_step<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let mut known: Vec<&str> = known.map(String::as_str).collect();
    known.sort_unstable();
    let hint = nearest(name, known.iter().copied())
        .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    format!("no step is called `{name}`; expected one of {}{hint}", list(known))
}

/// A step whose rows nobody takes is a mistake, not a shorter flow. Steps downstream of a mistake that is told
/// already may only seem to be missing.
fn never_taken(drafts: &[Draft], mistakes: &mut Vec<Mistake>) {
    if !mistakes.is_empty() {
        return;
    }
    for (n, draft) in drafts.iter().enumerate() {
        if draft.raw.role != Role::Sink && !drafts.iter().any(|other| other.inputs.contains(&n)) {
            let name = &draft.raw.name;
            let message =
                format!("nobody takes the rows of `{name}`; expected a stage or a sink with `input: {name}`");
            mistakes.push(Mistake::new(draft.raw.name_at, draft.raw.path.clone(), message));
        }
    }
}

/// The steps with each after its inputs, else in the order of the file; those of a cycle come last, as a mistake.
fn in_order(drafts: Vec<Draft>, mistakes: &mut Vec<Mistake>) -> Vec<Draft> {
    let mut order: Vec<usize> = Vec::with_capacity(drafts.len());
    let mut is_placed = vec![false; drafts.len()];
    while let Some(next) =
        (0..drafts.len()).find(|n| !is_placed[*n] && drafts[*n].inputs.iter().all(|input| is_placed[*input]))
    {
        is_placed[next] = true;
        order.push(next);
    }
    if let Some(start) = is_placed.iter().position(|placed| !placed) {
        mistakes.push(cycle(&drafts, &is_placed, start));
        return Vec::new();
    }
    let place_of: HashMap<usize, usize> =
        order.iter().enumerate().map(|(place, draft)| (*draft, place)).collect();
    let mut drafts: Vec<Option<Draft>> = drafts.into_iter().map(Some).collect();
    let mut sorted = Vec::with_capacity(order.len());
    for draft in order {
        if let Some(mut draft) = drafts[draft].take() {
            draft.inputs.iter_mut().for_each(|input| *input = place_of[input]);
            sorted.push(draft);
        }
    }
    sorted
}

/// Going from input to input among what could not be placed, some step comes a second time: there is the cycle.
fn cycle(drafts: &[Draft], is_placed: &[bool], start: usize) -> Mistake {
    let mut way = vec![start];
    let mut here = start;
    let first = loop {
        let Some(input) = drafts[here].inputs.iter().copied().find(|input| !is_placed[*input]) else {
            break here;
        };
        if way.contains(&input) {
            break input;
        }
        way.push(input);
        here = input;
    };
    let begin = way.iter().position(|step| *step == first).unwrap_or(0);
    let mut names: Vec<&str> =
        way[begin..].iter().rev().map(|step| drafts[*step].raw.name.as_str()).collect();
    names.extend(names.first().copied());
    let raw = &drafts[first].raw;
    Mistake::new(
        raw.name_at,
        raw.path.clone(),
        format!("a cycle: {}; expected steps that end in a sink", names.join(" -> ")),
    )
}
