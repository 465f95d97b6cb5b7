//! Before each sink that merges stands a step that puts its rows together with those that are there.

use std::collections::HashSet;

use aqueduct_core::{MergeBefore, Merging};

use crate::flow::error::Mistake;
use crate::flow::graph::{RawStep, Role};
use crate::flow::steps::Draft;
use crate::flow::{BesideOptions, StepKind};

/// What that step is called.
const MERGE: &str = "merge";

/// Puts that step before each sink that asks for one; the steps stay in order.
pub(crate) fn put_before(
    drafts: Vec<Draft>,
    merge: Option<MergeBefore>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Draft> {
    let mut taken: HashSet<String> = drafts.iter().map(|draft| draft.raw.name.clone()).collect();
    let (mut all, mut place_of): (Vec<Draft>, Vec<usize>) = (Vec::new(), Vec::new());
    for mut draft in drafts {
        draft.inputs.iter_mut().for_each(|input| *input = place_of[*input]);
        match (merging(&draft), merge) {
            (Some(merging), Some(merge)) => {
                let inputs = std::mem::replace(&mut draft.inputs, vec![all.len()]);
                let step = StepKind::Stage(merge(merging));
                all.push(step_before(&draft, free_name(&mut taken), step, inputs));
            }
            (Some(_), None) => {
                let (at, path) = draft.places.find("/mode");
                let message = "this program has no step that merges; expected another mode";
                mistakes.push(Mistake::new(at, path, message));
            }
            (None, _) => {}
        }
        place_of.push(all.len());
        all.push(draft);
    }
    all
}

fn merging(draft: &Draft) -> Option<Merging> {
    match draft.kind.as_ref()? {
        StepKind::Sink(sink) => sink.merging(),
        StepKind::Source(_) | StepKind::Stage(_) => None,
    }
}

/// `merge`, then `merge_2`.
fn free_name(taken: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|n: usize| format!("{MERGE}_{n}"));
    let mut names = std::iter::once(MERGE.to_owned()).chain(numbered);
    names.find(|name| taken.insert(name.clone())).unwrap_or_default()
}

/// What is wrong with it is told at the sink.
fn step_before(sink: &Draft, name: String, kind: StepKind, inputs: Vec<usize>) -> Draft {
    let beside = BesideOptions::default();
    let raw = RawStep { role: Role::Stage, name, beside, ..sink.raw.clone() };
    Draft { raw, kind: Some(kind), component: MERGE, inputs, places: sink.places.clone() }
}
