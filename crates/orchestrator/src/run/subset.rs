//! A flow made smaller: up to some steps, with their rows collected, or over rows that a test gives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aqueduct_core::{Registry, SourceConfig};
use serde_json::json;

use super::collect::{CollectSink, FirstRows, PassThrough};
use crate::flow::{Flow, OnError, Step, StepKind, StepPlace};

/// The flow with only the steps that lead to some, and a collecting sink after each of those. In the place
/// of a sink, what it would get is collected. With `first_rows`, no more than so many are read.
pub(crate) fn collected_at(mut flow: Flow, at: Vec<(usize, CollectSink)>, first_rows: Option<u64>) -> Flow {
    let wanted: Vec<(Vec<usize>, String, CollectSink)> = at
        .into_iter()
        .map(|(step, sink)| {
            let one = &flow.steps[step];
            let inputs = if one.is_sink() { one.inputs.clone() } else { vec![step] };
            (inputs, one.name.clone(), sink)
        })
        .collect();
    let kept = ancestors(&flow, wanted.iter().flat_map(|(inputs, ..)| inputs.iter().copied()));
    let renumbered: BTreeMap<usize, usize> = kept.iter().enumerate().map(|(new, old)| (*old, new)).collect();
    let renumber = |inputs: &[usize]| inputs.iter().map(|input| renumbered[input]).collect::<Vec<_>>();
    let mut steps = Vec::new();
    for (old, mut step) in std::mem::take(&mut flow.steps).into_iter().enumerate() {
        if kept.contains(&old) {
            step.inputs = renumber(&step.inputs);
            steps.push(step);
        }
    }
    for (inputs, name, sink) in wanted {
        let mut inputs = renumber(&inputs);
        if let Some(n_rows) = first_rows {
            steps.push(internal(
                format!("first rows of {name}"),
                StepKind::Stage(Box::new(FirstRows(n_rows))),
                inputs,
            ));
            inputs = vec![steps.len() - 1];
        }
        steps.push(internal(format!("rows of {name}"), StepKind::Sink(Box::new(sink)), inputs));
    }
    flow.schemas = steps.iter().map(|_| None).collect();
    flow.steps = steps;
    without_traces(flow)
}

/// The flow so that nothing of a run is left on the disk: bad rows are counted only, taps are closed, and what
/// memory does not hold goes where the system keeps temporary files.
fn without_traces(mut flow: Flow) -> Flow {
    let counted = |on_error: OnError| if on_error == OnError::DeadLetter { OnError::Skip } else { on_error };
    let default = counted(flow.execution.on_error);
    flow.execution.on_error = default;
    for step in &mut flow.steps {
        let has_folder = step.dead_letter.take().is_some();
        step.on_error = step.on_error.map(counted).or(has_folder.then_some(OnError::Skip));
        if matches!(&step.kind, StepKind::Stage(stage) if stage.only_watches()) {
            step.kind = StepKind::Stage(Box::new(PassThrough));
        }
    }
    flow.execution.spill.dir = Some(std::env::temp_dir());
    flow
}

/// The steps themselves and all that lead to them.
fn ancestors(flow: &Flow, of: impl Iterator<Item = usize>) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open: Vec<usize> = of.collect();
    while let Some(step) = open.pop() {
        if found.insert(step) {
            open.extend(&flow.steps[step].inputs);
        }
    }
    found
}

pub(super) fn internal(name: String, kind: StepKind, inputs: Vec<usize>) -> Step {
    Step {
        name,
        kind,
        component: "collect",
        inputs,
        has_side_input: false,
        on_error: None,
        dead_letter: None,
        max_concurrency: None,
        at: StepPlace::default(),
    }
}

/// The flow with some steps replaced by files of rows.
///
/// # Errors
/// A step or a file is not there.
pub(crate) fn with_given(
    mut flow: Flow,
    given: &BTreeMap<String, PathBuf>,
    registry: &Registry,
) -> Result<Flow, String> {
    for (name, path) in given {
        let at = flow.step_named(name)?;
        if flow.steps[at].is_sink() {
            return Err(format!("`given` names the sink `{name}`; expected a source or stage"));
        }
        let step = &mut flow.steps[at];
        step.kind = StepKind::Source(file_source(path, registry)?);
        step.component = "files";
        step.inputs = Vec::new();
    }
    Ok(flow)
}

/// A flow without steps, with one that reads a file and one that collects its rows.
///
/// # Errors
/// The registry has no source of files.
pub(crate) fn over_file(
    mut flow: Flow,
    path: &Path,
    sink: CollectSink,
    registry: &Registry,
) -> Result<Flow, String> {
    let source =
        internal("rows of the file".to_owned(), StepKind::Source(file_source(path, registry)?), Vec::new());
    let sink = internal("rows".to_owned(), StepKind::Sink(Box::new(sink)), vec![0]);
    flow.steps = vec![source, sink];
    flow.schemas = vec![None, None];
    Ok(without_traces(flow))
}

fn file_source(path: &Path, registry: &Registry) -> Result<Box<dyn SourceConfig>, String> {
    let factory = registry.source("files").ok_or("this program has no source `files`")?;
    let options = json!({ "paths": [path.display().to_string()], "order": "listed", "allow_empty": true });
    factory.configure(options).map_err(|problems| {
        problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
    })
}
