//! The columns of every step, as far as declared schemas and local files tell.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use aqueduct_core::{Planning, Problem};
use aqueduct_primitives::panic_message;
use arrow::datatypes::{Schema, SchemaRef};

use crate::flow::StepKind;
use crate::flow::error::Mistake;
use crate::flow::steps::Draft;
use crate::flow::substitute::join;

/// The columns that each step gives (a sink: takes); `None` is unknown until run. What does not fit together is
/// a mistake.
pub(crate) fn infer(
    drafts: &[Draft],
    planning: impl Fn(&Draft) -> Planning,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Option<SchemaRef>> {
    let mut known: Vec<Option<SchemaRef>> = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let (merging, side) = draft.merging_and_side();
        let input = input_of(draft, merging, drafts, &known, mistakes);
        let beside = side.and_then(|side| known.get(side).cloned().flatten());
        let told = |problems: Vec<Problem>| {
            let located = |problem: Problem| {
                let (at, path) = draft.places.find(&problem.pointer);
                Mistake::new(at, path, problem.message)
            };
            problems.into_iter().map(located).collect::<Vec<_>>()
        };
        if let Some(StepKind::Stage(stage)) = &draft.kind {
            let wrong = caught(|| Ok(stage.check_files(&planning(draft))));
            mistakes.extend(told(wrong.unwrap_or_else(|panicked| panicked)));
        }
        let schema = match (&draft.kind, input) {
            (Some(StepKind::Source(source)), _) => {
                caught(|| source.known_schema(&planning(draft))).map_err(told)
            }
            (Some(StepKind::Stage(_)), Some(_)) if side.is_some() && beside.is_none() => Ok(None),
            (Some(StepKind::Stage(stage)), Some(input)) => {
                let inputs: Vec<_> = std::iter::once(input).chain(beside).collect();
                caught(|| stage.bind(&inputs).map(|stage| Some(stage.schema()))).map_err(told)
            }
            (Some(StepKind::Sink(sink)), Some(input)) => {
                let unfit = caught(|| Ok(sink.fit(&input)));
                mistakes.extend(told(unfit.unwrap_or_else(|panicked| panicked)));
                Ok(Some(input))
            }
            _ => Ok(None),
        };
        known.push(schema.unwrap_or_else(|wrong| {
            mistakes.extend(wrong);
            None
        }));
    }
    known
}

/// A step that panics is told like any other mistake, at its place.
fn caught<T>(work: impl FnOnce() -> Result<T, Vec<Problem>>) -> Result<T, Vec<Problem>> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(vec![Problem::at("", format!("the step panicked: {}", panic_message(&*panic)))])
    })
}

fn input_of(
    draft: &Draft,
    inputs: &[usize],
    drafts: &[Draft],
    known: &[Option<SchemaRef>],
    mistakes: &mut Vec<Mistake>,
) -> Option<SchemaRef> {
    if inputs.is_empty() {
        return None;
    }
    let inputs: Option<Vec<(&str, SchemaRef)>> = inputs
        .iter()
        .map(|input| Some((drafts[*input].raw.name.as_str(), Arc::clone(known.get(*input)?.as_ref()?))))
        .collect();
    match merged(&inputs?) {
        Ok(schema) => Some(schema),
        Err(message) => {
            mistakes.push(Mistake::new(draft.raw.name_at, join(&draft.raw.path, "input"), message));
            None
        }
    }
}

/// The columns of several inputs that merge: those of the first, in its order. Each other one must have the
/// same columns of the same types, in any order; a column may be null if it may be so in any of them.
///
/// # Errors
/// There is no input, or one does not fit the first; says which, and how.
pub fn merged(inputs: &[(&str, SchemaRef)]) -> Result<SchemaRef, String> {
    let [(first_name, first), others @ ..] = inputs else { return Err("no input".into()) };
    let mut fields: Vec<_> = first.fields().iter().map(|field| field.as_ref().clone()).collect();
    for (name, other) in others {
        for field in &mut fields {
            let Ok(same) = other.field_with_name(field.name()) else {
                return Err(format!(
                    "`{name}` has no column `{}`, which `{first_name}` has; expected the same columns",
                    field.name()
                ));
            };
            if same.data_type() != field.data_type() {
                return Err(format!(
                    "the column `{}` is {} in `{name}` and {} in `{first_name}`; expected one type: add a `cast`",
                    field.name(),
                    same.data_type(),
                    field.data_type()
                ));
            }
            field.set_nullable(field.is_nullable() || same.is_nullable());
        }
        if let Some(extra) = other.fields().iter().find(|field| first.field_with_name(field.name()).is_err())
        {
            return Err(format!(
                "`{name}` has a column `{}`, which `{first_name}` lacks; expected the same columns",
                extra.name()
            ));
        }
    }
    Ok(if others.is_empty() { Arc::clone(first) } else { Arc::new(Schema::new(fields)) })
}
