//! Opens the steps, moves the rows, commits.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use aqueduct_commit::End;
use aqueduct_core::{Context, Error, Problem, RunContext, Sink, Source, Stage};
use aqueduct_net::Fetcher;
use aqueduct_primitives::panic_message;
use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use tokio::sync::mpsc;

use super::build::{Prepared, PreparedStep};
use super::committing::Committing;
use super::panics::{Guard, Panics};
use super::wiring::{Midway, Wiring};
use super::{Failure, RunOptions, sinks};
use crate::flow::{Commit, StepKind, merged};
use crate::report::OutputReport;

/// A step that is ready to run.
pub(super) enum Opened {
    Source(Box<dyn Source>),
    /// With the columns of its input, merged, and of the one beside it if there is one.
    Stage(Box<dyn Stage>, Vec<SchemaRef>),
    Sink(Box<dyn Sink>),
}

/// Runs what was prepared; what it published, and why it is not done if it is not.
pub(super) async fn drive(prepared: Prepared, options: RunOptions) -> (Vec<OutputReport>, Option<Failure>) {
    let Prepared { when, run, steps, kinds, contexts, commits, rejects, panics, .. } = prepared;
    let graph = Graph { run: &run, steps: &steps, contexts: &contexts, panics: &panics };
    let (beside, is_trial) = (Vec::new(), options.limit_rows.is_some());
    let (steps, contexts, panics) = (&steps, &contexts, panics.clone());
    let mut committing =
        Committing { commits, rejects, run: &run, steps, contexts, is_trial, beside, panics };
    let work = rows_to_commits(&graph, kinds, &mut committing, (when, &options));
    let failure = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        Err(Error::bug("run", format!("the run panicked: {}", panic_message(&*panic))).into())
    });
    let failure = failure.err();
    committing.rejects.leave();
    let published = committing.commits.close(failure.is_none()).await;
    // Who clears up on a server still needs the client.
    run.tasks.join_owed().await;
    if let Some(fetcher) = run.services.get::<Fetcher>() {
        fetcher.close().await;
    }
    (published, failure)
}

/// The steps and their surroundings.
pub(super) struct Graph<'a> {
    pub(super) run: &'a RunContext,
    pub(super) steps: &'a [PreparedStep],
    pub(super) contexts: &'a [Context],
    pub(super) panics: &'a Panics,
}

impl Graph<'_> {
    /// What stands between a step and the runner.
    pub(super) fn guard(&self, step: usize) -> Guard {
        self.panics.guard(self.contexts[step].step())
    }

    /// The columns of a step's inputs, merged.
    fn merged(&self, inputs: &[usize], schemas: &[SchemaRef]) -> Result<SchemaRef, String> {
        let named = |input: &usize| (self.contexts[*input].step(), Arc::clone(&schemas[*input]));
        merged(&inputs.iter().map(named).collect::<Vec<_>>())
    }
}

/// Reads, transforms and writes all rows, and commits.
async fn rows_to_commits(
    graph: &Graph<'_>,
    kinds: Vec<StepKind>,
    committing: &mut Committing<'_>,
    (when, options): (Commit, &RunOptions),
) -> Result<(), Failure> {
    let (opened, schemas) = tokio::select! {
        opened = open_all(graph, kinds) => opened?,
        () = options.stop.cancelled() => return Err(Failure::Interrupted { is_committed: false }),
    };
    if let Some(mounts) = &options.mounts {
        mounts.set_starting(false);
    }
    let midway = Midway::of(graph, &opened, &committing.commits, options);
    if let Some(why) = midway.as_ref().err().filter(|_| when != Commit::default()) {
        tracing::warn!("`commit` has no effect, the run commits at its end: {why}");
    }
    let (sender, reports) = mpsc::channel(graph.steps.len());
    let mut wiring = Wiring::new(graph, options, midway.ok(), sender.clone(), &committing.commits);
    let driven = wiring.all(opened, &schemas);
    let pace = wiring.pace(when, &driven);
    committing.beside = wiring.into_copies();
    committing.beside.extend(options.at_end.iter().cloned());
    let parts = sinks::drive(driven, (sender, reports), committing, pace, &options.stop).await?;
    Ok(committing.commit(parts, BTreeMap::new(), End::Finish).await?)
}

/// Opens the sources, binds the stages to what they found, opens the sinks; with the schema of each step.
async fn open_all(graph: &Graph<'_>, kinds: Vec<StepKind>) -> Result<(Vec<Opened>, Vec<SchemaRef>), Failure> {
    let mut opened = Vec::new();
    let mut schemas: Vec<SchemaRef> = Vec::new();
    for (at, kind) in kinds.into_iter().enumerate() {
        let (context, guard) = (&graph.contexts[at], graph.guard(at));
        let problems = |problems: Vec<Problem>| Failure::Flow(graph.steps[at].at.errors(problems));
        let inputs = graph.steps[at].inputs.as_slice();
        let merged = |inputs| {
            graph.merged(inputs, &schemas).map_err(|message| problems(vec![Problem::at("", message)]))
        };
        let (step, schema) = match kind {
            StepKind::Source(config) => {
                let source = guard.wait(config.open(context)).await.flatten();
                let source = source.map_err(|error| error.with("step", context.step()))?;
                let schema = guard.call(|| source.schema())?;
                (Opened::Source(source), schema)
            }
            StepKind::Stage(config) => {
                let inputs = match inputs.split_last() {
                    Some((side, merging)) if graph.steps[at].has_side_input => {
                        vec![merged(merging)?, Arc::clone(&schemas[*side])]
                    }
                    _ => vec![merged(inputs)?],
                };
                let stage = guard.call(|| config.bind(&inputs))?.map_err(problems)?;
                let schema = guard.call(|| stage.schema())?;
                (Opened::Stage(stage, inputs), schema)
            }
            StepKind::Sink(config) => {
                let merged = merged(inputs)?;
                let unfit_stored =
                    || context.stored().map(|there| config.fit_stored(&merged, there)).unwrap_or_default();
                let unfit = guard.call(|| [config.fit(&merged), unfit_stored()].concat())?;
                if !unfit.is_empty() {
                    return Err(problems(unfit));
                }
                let sink = guard.wait(config.open(Arc::clone(&merged), context)).await.flatten();
                let sink = sink.map_err(|error| error.with("step", context.step()))?;
                (Opened::Sink(sink), merged)
            }
        };
        opened.push(step);
        schemas.push(schema);
    }
    Ok((opened, schemas))
}
