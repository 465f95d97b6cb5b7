//! Which global stages have their memory one after the other.
//!
//! Most global stages take in all rows before they give one. In a chain of such, therefore, no more than two are at work
//! at one moment: one that gives and one that takes. The third can have the memory of the first, which has ended.

use crate::flow::{Flow, StepKind};

/// The most leases that a chain needs.
const LEASES_OF_A_CHAIN: usize = 2;

/// For each step the number of its lease, from 0; none if it is no global stage.
pub(super) fn leases(flow: &Flow) -> Vec<Option<usize>> {
    let globals: Vec<usize> = (0..flow.steps.len()).filter(|place| is_global(flow, *place)).collect();
    let in_turn = is_chain(flow, &globals) && globals.iter().all(|place| takes_all_first(flow, *place));
    let n_leases = if in_turn { LEASES_OF_A_CHAIN } else { usize::MAX };
    let mut leases = vec![None; flow.steps.len()];
    for (n, place) in globals.into_iter().enumerate() {
        leases[place] = Some(n % n_leases);
    }
    leases
}

fn is_global(flow: &Flow, place: usize) -> bool {
    matches!(&flow.steps[place].kind, StepKind::Stage(stage) if stage.spills())
}

fn takes_all_first(flow: &Flow, place: usize) -> bool {
    matches!(&flow.steps[place].kind, StepKind::Stage(stage) if stage.takes_all_first())
}

/// Whether all global stages, which are given in topological order, lie on one way from a source, on which no step has
/// more than one input or more than one reader: only there each has to end before the next but one begins.
fn is_chain(flow: &Flow, globals: &[usize]) -> bool {
    let n_readers = |place| flow.steps.iter().filter(|step| step.inputs.contains(&place)).count();
    let mut seen = 0;
    let mut next = globals.last().copied();
    while let Some(place) = next {
        seen += usize::from(globals.contains(&place));
        next = match flow.steps[place].inputs[..] {
            [input] if n_readers(input) == 1 => Some(input),
            [] => None,
            _ => return false,
        };
    }
    seen == globals.len()
}
