//! A flow file from its path to [`Flow`]s.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aqueduct_core::{Planning, Registry, is_in_store};
use serde_json::Value;

use crate::flow::error::{Mistake, did_you_mean};
use crate::flow::graph::{self, STEP_KEYS};
use crate::flow::masks::{MaskBuilder, Masks};
use crate::flow::matrix::{self, MatrixEntry};
use crate::flow::node::{Entry, Kind, Node};
use crate::flow::secrets::Secrets;
use crate::flow::steps::{self, Draft};
use crate::flow::substitute::{fill, variables};
use crate::flow::values::Values;
use crate::flow::{
    Flow, FlowError, FlowErrors, FlowOptions, Places, RunIdentity, Settings, Span, Step, StepPlace, check,
    closed, hosts, identity, modes, outputs, read, rereads, scalar, types, yaml,
};
use crate::plan::default_memory;

/// Keys whose texts are not filled in: what is used of them stands, filled in, under the others.
pub(crate) const NOT_FILLED: [&str; 3] = ["vars", "matrix", "secrets"];

/// Reads a flow file, fills it in and checks all of it: one [`Flow`] for each entry of its matrix.
///
/// Blocks on local files: the flow file itself, those whose columns are to be known, and, if the settings say
/// so, those of secrets. Opens no connection.
///
/// # Errors
/// All that is wrong with the file, at once, without secret values.
pub fn load(path: &Path, settings: &Settings, registry: &Registry) -> Result<Vec<Flow>, FlowErrors> {
    let file = path.display().to_string();
    let mut root =
        read::read(path).map_err(|mistake| FlowErrors::from(mistake.in_file(&file, &Masks::default())))?;
    let base_dir = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut mistakes = Vec::new();
    let overrides = override_keys(&mut root, settings, &mut mistakes);
    let secrets = Secrets::of(&root, settings, &base_dir);
    let entries = matrix::entries(&root, settings, &secrets, &mut mistakes);
    let mut errors: BTreeSet<(usize, usize, String, String)> = BTreeSet::new();
    keep(&mut errors, mistakes, &Masks::default());
    let mut flows = Vec::new();
    let mut used = BTreeSet::new();
    for (n, entry) in entries.iter().enumerate() {
        let run = if entries.len() == 1 { settings.run.clone() } else { settings.run.of_entry(n) };
        let secrets = &secrets;
        let loader = Loader { file: &file, base_dir: &base_dir, settings, secrets, registry, entry, run };
        let loaded = loader.load(&root);
        used.extend(loaded.used);
        keep(&mut errors, loaded.mistakes, &loaded.masks);
        flows.extend(loaded.flow);
    }
    keep(&mut errors, unused(settings, &used, &overrides, &root), &Masks::default());
    keep(&mut errors, outputs::in_the_way(&flows), &Masks::default());
    keep(&mut errors, flows.iter().flat_map(modes::unfit).collect(), &Masks::default());
    keep(&mut errors, flows.iter().flat_map(rereads::unfit).collect(), &Masks::default());
    if errors.is_empty() {
        return Ok(flows);
    }
    let told = errors.into_iter().map(|(line, column, path, message)| FlowError {
        file: file.clone(),
        line,
        column,
        path,
        message,
    });
    Err(FlowErrors(told.collect()))
}

/// Adds mistakes, each once though every entry of a matrix makes it, in the order of the file, without secrets.
fn keep(errors: &mut BTreeSet<(usize, usize, String, String)>, mistakes: Vec<Mistake>, masks: &Masks) {
    for mistake in mistakes {
        let error = mistake.in_file("", masks);
        errors.insert((error.line, error.column, error.path, error.message));
    }
}

/// `--set a.b=V` overrides that key of the file, unless `${a.b}` is used as a variable. The keys that were.
fn override_keys(root: &mut Node, settings: &Settings, mistakes: &mut Vec<Mistake>) -> Vec<String> {
    let mut used = BTreeSet::new();
    variables_of(root, &mut used);
    let mut overridden = Vec::new();
    for (key, value) in settings.set.iter().filter(|(key, _)| key.contains('.') && !used.contains(key)) {
        let parts: Vec<&str> = key.split('.').collect();
        match override_key(root, &parts, value) {
            Ok(()) => overridden.push(key.clone()),
            Err(message) => {
                mistakes.push(Mistake::new(Span::START, key.clone(), format!("--set {key}: {message}")))
            }
        }
    }
    overridden
}

fn override_key(node: &mut Node, parts: &[&str], value: &str) -> Result<(), String> {
    let Some((part, rest)) = parts.split_first() else {
        let typed = match value.chars().next() {
            Some('[' | '{') => yaml::parse(value).map_or_else(|_| Kind::Text(value.into()), |node| node.kind),
            _ => scalar::typed(value),
        };
        *node = Node { kind: typed, at: node.at, filled_from: Some(value.into()) };
        return Ok(());
    };
    let (at, found) = (node.at, node.describe());
    match &mut node.kind {
        Kind::Map(entries) => {
            let place = match entries.iter().position(|entry| entry.key == *part) {
                Some(place) => place,
                None => {
                    let value = Node::new(Kind::Map(Vec::new()), at);
                    entries.push(Entry { key: (*part).into(), key_at: at, value });
                    entries.len() - 1
                }
            };
            override_key(&mut entries[place].value, rest, value)
        }
        Kind::List(items) => match part.parse::<usize>().ok().and_then(|n| items.get_mut(n)) {
            Some(item) => override_key(item, rest, value),
            None => Err(format!("a list of {} has no `{part}`; expected a number from 0", items.len())),
        },
        _ => Err(format!("`{part}` would stand in {found}; expected a map")),
    }
}

fn variables_of(node: &Node, found: &mut BTreeSet<String>) {
    if let Kind::Text(text) = &node.kind {
        found.extend(variables(text).map(String::from));
    }
    for below in node.items().iter().chain(node.entries().iter().map(|entry| &entry.value)) {
        variables_of(below, found);
    }
}

fn unused(settings: &Settings, used: &BTreeSet<String>, overrides: &[String], root: &Node) -> Vec<Mistake> {
    let mut known = BTreeSet::new();
    variables_of(root, &mut known);
    let is_used = |key: &String| used.contains(key) || overrides.contains(key) || key.contains('.');
    let unused = settings.set.iter().filter(|(key, _)| !is_used(key));
    let told = unused.map(|(key, _)| {
        let hint = did_you_mean(key, known.iter().map(String::as_str));
        let message = format!(
            "--set {key}: nothing uses it; expected a variable `${{{key}}}`, or the path of a key: a.b{hint}"
        );
        Mistake::new(Span::START, "", message)
    });
    told.collect()
}

/// Makes one flow.
struct Loader<'l> {
    file: &'l str,
    base_dir: &'l Path,
    settings: &'l Settings,
    secrets: &'l Secrets<'l>,
    registry: &'l Registry,
    entry: &'l MatrixEntry,
    run: RunIdentity,
}

/// What came of one entry.
struct Loaded {
    flow: Option<Flow>,
    mistakes: Vec<Mistake>,
    masks: Masks,
    /// The variables that were used.
    used: BTreeSet<String>,
}

impl Loader<'_> {
    fn load(&self, root: &Node) -> Loaded {
        let values = Values::new(self.settings, self.secrets, self.entry, root).of_run(&self.run);
        let mut unfilled = Vec::new();
        let mut file = self.filled(root, &values, &mut unfilled);
        let mut mistakes = Vec::new();
        let masks = masks_of(&file, &values);
        let hosts = hosts::named(&file);
        let raw = graph::read(&mut file, self.registry, &mut mistakes);
        let identity = identity::of(&raw);
        let options = self.options(&mut file, &mut mistakes);
        let defaults = steps::Defaults { max_record_bytes: options.http.max_record_bytes };
        let drafts = steps::build(raw, self.registry, defaults, &mut mistakes);
        let schemas = types::infer(&drafts, |draft| self.planning(draft, &options), &mut mistakes);
        let mistakes = without_echoes(unfilled, mistakes);
        let used =
            self.settings.set.iter().map(|(key, _)| key).filter(|key| values.is_used(key)).cloned().collect();
        let flow = if mistakes.is_empty() {
            let steps = drafts.into_iter().filter_map(|draft| self.step(draft, &masks)).collect();
            let memory_at = root.get("memory").map_or(Span::START, |node| node.at);
            Some(Flow {
                steps,
                schemas,
                masks: masks.clone(),
                memory_at,
                hosts,
                inputs: inputs(root, self.settings, &given(&values, &masks)),
                values: given(&values, &masks),
                identity,
                ..self.flow(options)
            })
        } else {
            None
        };
        Loaded { flow, mistakes, masks, used }
    }

    /// The file with every `${…}` filled in, but for what says how they are.
    fn filled(&self, root: &Node, values: &Values<'_>, mistakes: &mut Vec<Mistake>) -> Node {
        let mut file = root.clone();
        let Kind::Map(entries) = &mut file.kind else { return file };
        for entry in entries.iter_mut().filter(|entry| !NOT_FILLED.contains(&entry.key.as_str())) {
            fill(&mut entry.value, &entry.key, values, mistakes);
        }
        file
    }

    /// The keys beside the steps. Those with mistakes are told and left out, so that the rest is checked too.
    fn options(&self, file: &mut Node, mistakes: &mut Vec<Mistake>) -> FlowOptions {
        let wrong = check::check(file, &flow_schema(), "", file.at);
        let broken: BTreeSet<String> =
            wrong.iter().filter_map(|mistake| mistake.path.split('.').next()).map(String::from).collect();
        mistakes.extend(wrong);
        for key in broken {
            file.take(&key);
        }
        let places = Places::of(file, String::new(), file.at);
        let options: FlowOptions = match serde_path_to_error::deserialize(file.to_json()) {
            Ok(options) => options,
            Err(error) => {
                let pointer = format!("/{}", error.path().to_string().replace('.', "/"));
                let (at, _) = places.find(&pointer);
                mistakes.push(Mistake::new(at, error.path().to_string(), error.inner().to_string()));
                FlowOptions::default()
            }
        };
        let at = |key: &str, pointer: &str| {
            if key.is_empty() { pointer.to_owned() } else { format!("/{key}{pointer}") }
        };
        let unscheduled = options.schedule().err().into_iter().collect();
        for (key, problems) in [
            ("", unscheduled),
            ("http", options.http.requests.validate()),
            ("storage", options.storage.validate()),
            ("state", options.state_problems()),
            ("notify", options.notify.iter().flat_map(|notify| notify.problems()).collect()),
        ] {
            mistakes.extend(problems.into_iter().map(|problem| {
                let (at, path) = places.find(&at(key, &problem.pointer));
                Mistake::new(at, path.trim_start_matches('.'), problem.message)
            }));
        }
        options
    }

    fn planning(&self, draft: &Draft, options: &FlowOptions) -> Planning {
        Planning {
            base_dir: self.base_dir.to_path_buf(),
            batch_rows: options.execution.batch_size,
            batch_bytes: options.execution.batch_bytes,
            max_concurrency: draft.raw.beside.max_concurrency.unwrap_or(options.execution.max_concurrency),
        }
    }

    fn step(&self, draft: Draft, masks: &Masks) -> Option<Step> {
        let at = StepPlace { file: self.file.into(), places: draft.places, masks: masks.clone() };
        Some(Step {
            name: draft.raw.name,
            kind: draft.kind?,
            component: draft.component,
            has_side_input: draft.raw.side.is_some(),
            inputs: draft.inputs,
            on_error: draft.raw.beside.on_error,
            dead_letter: draft.raw.beside.dead_letter,
            max_concurrency: draft.raw.beside.max_concurrency,
            at,
        })
    }

    fn flow(&self, options: FlowOptions) -> Flow {
        let schedule = options.schedule().ok().flatten();
        let (state_store, state_dir) = match options.state {
            Some(state) if is_in_store(&state) => (Some(state), None),
            state => (None, state),
        };
        Flow {
            name: options.name,
            file: self.file.into(),
            entry: self.entry.clone(),
            run: self.run.clone(),
            hosts: Vec::new(),
            values: Default::default(),
            inputs: Default::default(),
            identity: Default::default(),
            base_dir: self.base_dir.to_path_buf(),
            state_dir: self.base_dir.join(state_dir.unwrap_or_else(|| ".aqueduct".into())),
            state_store,
            memory: self.settings.memory.or(options.memory).unwrap_or_else(default_memory),
            execution: options.execution,
            schedule,
            notify: options.notify,
            commit: options.commit,
            http: options.http.requests,
            storage: options.storage,
            worker: self.registry.worker().cloned(),
            adds_only: false,
            steps: Vec::new(),
            schemas: Vec::new(),
            tests: options.tests.into_iter().map(Into::into).collect(),
            masks: Masks::default(),
            memory_at: Span::START,
        }
    }
}

/// What could not be filled in, then what else is wrong: not with a value that could not be filled in.
fn without_echoes(mut unfilled: Vec<Mistake>, mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
    mistakes.retain(|mistake| unfilled.iter().all(|one| one.at != mistake.at));
    unfilled.append(&mut mistakes);
    unfilled
}

/// The values that tell runs of one flow apart: what is secret does not.
fn given(values: &Values<'_>, masks: &Masks) -> std::collections::BTreeMap<String, String> {
    let mut given = values.given();
    given.retain(|_, value| masks.mask(value) == *value);
    given
}

/// Those of the values that sources and stages use, and the keys of theirs that were overridden.
fn inputs(root: &Node, settings: &Settings, given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const OF_INPUTS: [&str; 3] = ["source", "sources", "stages"];
    let mut used = BTreeSet::new();
    OF_INPUTS.iter().filter_map(|key| root.get(key)).for_each(|node| variables_of(node, &mut used));
    let is_override = |key: &str| key.split('.').next().is_some_and(|top| OF_INPUTS.contains(&top));
    let overridden = settings.set.iter().filter(|(key, _)| key.contains('.') && is_override(key)).cloned();
    let given = given.iter().filter(|(name, _)| used.contains(*name));
    given.map(|(name, value)| (name.clone(), value.clone())).chain(overridden).collect()
}

fn masks_of(file: &Node, values: &Values<'_>) -> Masks {
    let mut masks = MaskBuilder::default();
    // Under `secrets` stand the names of variables and files, which are no secrets.
    for entry in file.entries().iter().filter(|entry| entry.key != "secrets") {
        masks.entry(entry);
    }
    for (value, is_declared) in values.secrets() {
        if is_declared {
            masks.declared(&value);
        } else {
            masks.guessed(&value);
        }
    }
    masks.build()
}

/// The schema of a file's top level. What stands under the keys of steps is checked by their own schemas.
fn flow_schema() -> Value {
    let mut schema = closed::<FlowOptions>();
    if let Some(properties) = schema.pointer_mut("/properties").and_then(Value::as_object_mut) {
        properties.extend(STEP_KEYS.iter().map(|key| ((*key).to_owned(), Value::Bool(true))));
    }
    if let Some(rules) = schema.as_object_mut() {
        rules.insert("required".into(), vec!["name"].into());
    }
    schema
}

impl StepPlace {
    /// The place of the step's component.
    pub fn span(&self) -> Span {
        self.places.find("").0
    }
}
