//! Opens the steps, moves the rows, commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use aqueduct_commit::{End, Resumed};
use aqueduct_core::{BatchStream, Context, Positions, Problem, RunContext, Sink, Source, Stage};
use aqueduct_net::Fetcher;
use arrow::datatypes::SchemaRef;

use super::build::{Prepared, PreparedStep};
use super::checkpoints::{Checkpoints, Due};
use super::commits::{Commits, positions_of};
use super::committing::Committing;
use super::sinks::{self, Driven, Pace};
use super::{Failure, RunOptions, wire};
use crate::flow::{Commit, StepKind, merged};
use crate::report::OutputReport;

/// A step that is ready to run.
enum Opened {
    Source(Box<dyn Source>),
    /// With the columns of its input, merged, and of the one beside it if there is one.
    Stage(Box<dyn Stage>, Vec<SchemaRef>),
    Sink(Box<dyn Sink>),
}

/// Runs what was prepared; what it published, and why it is not done if it is not.
pub(super) async fn drive(prepared: Prepared, options: RunOptions) -> (Vec<OutputReport>, Option<Failure>) {
    let Prepared { when, run, steps, kinds, contexts, commits, rejects, .. } = prepared;
    let graph = Graph { run: &run, steps: &steps, contexts: &contexts };
    let mut committing = Committing { commits, rejects, run: &run, steps: &steps, contexts: &contexts };
    let failure = rows_to_commits(&graph, kinds, &mut committing, (when, &options)).await.err();
    committing.rejects.leave();
    let published = committing.commits.close(failure.is_none()).await;
    if let Some(fetcher) = run.services.get::<Fetcher>() {
        fetcher.close().await;
    }
    (published, failure)
}

/// The steps and their surroundings.
struct Graph<'a> {
    run: &'a RunContext,
    steps: &'a [PreparedStep],
    contexts: &'a [Context],
}

impl Graph<'_> {
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
    let gates = match commits_at_end_only(graph, &opened, &committing.commits, options) {
        None => Some(Arc::new(Checkpoints::default())),
        Some(why) => {
            if when != Commit::default() {
                tracing::warn!("`commit` has no effect, the run commits at its end: {why}");
            }
            None
        }
    };
    let driven = wire_all(graph, opened, &schemas, gates.as_ref(), (options, committing.commits.resumed()));
    let sinks = driven.iter().map(|one| Arc::clone(one.context.metrics())).collect();
    let pace = gates.map(|gates| Pace { gates, due: Due::new(when, sinks) });
    let parts = sinks::drive(driven, committing, pace, &graph.run.tasks, &options.stop).await?;
    Ok(committing.commit(parts, BTreeMap::new(), End::Finish).await?)
}

/// Why the run cannot commit before its end, if it cannot.
fn commits_at_end_only(
    graph: &Graph<'_>,
    opened: &[Opened],
    commits: &Commits,
    options: &RunOptions,
) -> Option<String> {
    if !commits.can_commit() || options.limit_rows.is_some() {
        return Some("only some rows are asked for".into());
    }
    let why = |at: usize| {
        let step = &graph.steps[at];
        match &opened[at] {
            Opened::Source(source) if !source.capabilities().replayable => Some("cannot be read again"),
            Opened::Stage(..) if !step.is_resumable => Some("depends on all rows before"),
            Opened::Sink(_) if step.is_one_file => Some("writes one file"),
            Opened::Sink(_) if step.takes_whole_files => Some("takes files whole"),
            _ => None,
        }
    };
    (0..opened.len()).find_map(|at| Some(format!("`{}` {}", graph.contexts[at].step(), why(at)?)))
}

/// Opens the sources, binds the stages to what they found, opens the sinks; with the schema of each step.
async fn open_all(graph: &Graph<'_>, kinds: Vec<StepKind>) -> Result<(Vec<Opened>, Vec<SchemaRef>), Failure> {
    let mut opened = Vec::new();
    let mut schemas: Vec<SchemaRef> = Vec::new();
    for (at, kind) in kinds.into_iter().enumerate() {
        let context = &graph.contexts[at];
        let problems = |problems: Vec<Problem>| Failure::Flow(graph.steps[at].at.errors(problems));
        let inputs = graph.steps[at].inputs.as_slice();
        let merged = |inputs| {
            graph.merged(inputs, &schemas).map_err(|message| problems(vec![Problem::at("", message)]))
        };
        let (step, schema) = match kind {
            StepKind::Source(config) => {
                let source =
                    config.open(context).await.map_err(|error| error.with("step", context.step()))?;
                let schema = source.schema();
                (Opened::Source(source), schema)
            }
            StepKind::Stage(config) => {
                let inputs = match inputs.split_last() {
                    Some((side, merging)) if graph.steps[at].has_side_input => {
                        vec![merged(merging)?, Arc::clone(&schemas[*side])]
                    }
                    _ => vec![merged(inputs)?],
                };
                let stage = config.bind(&inputs).map_err(problems)?;
                let schema = stage.schema();
                (Opened::Stage(stage, inputs), schema)
            }
            StepKind::Sink(config) => {
                let merged = merged(inputs)?;
                let unfit = config.fit(&merged);
                if !unfit.is_empty() {
                    return Err(problems(unfit));
                }
                let sink = config
                    .open(Arc::clone(&merged), context)
                    .await
                    .map_err(|error| error.with("step", context.step()))?;
                (Opened::Sink(sink), merged)
            }
        };
        opened.push(step);
        schemas.push(schema);
    }
    Ok((opened, schemas))
}

fn wire_all(
    graph: &Graph<'_>,
    opened: Vec<Opened>,
    schemas: &[SchemaRef],
    gates: Option<&Arc<Checkpoints>>,
    (options, resumed): (&RunOptions, Option<&Resumed>),
) -> Vec<Driven> {
    let tasks = graph.run.tasks.clone();
    let n_readers = |step: usize| {
        graph.steps.iter().flat_map(|other| &other.inputs).filter(|input| **input == step).count()
    };
    let mut ports: Vec<Vec<BatchStream>> = Vec::new();
    let mut driven = Vec::new();
    for (at, step) in opened.into_iter().enumerate() {
        let context = graph.contexts[at].clone();
        let mut inputs: Vec<_> =
            graph.steps[at].inputs.iter().filter_map(|input| ports[*input].pop()).collect();
        let stream = match step {
            Opened::Source(source) => {
                let from = positions_of(resumed, context.step());
                source_stream(source, &context, from, gates, options.limit_rows)
            }
            Opened::Stage(stage, schemas) => {
                let side = if schemas.len() > 1 { inputs.pop() } else { None };
                let merged = wire::merged(inputs, &schemas[0]);
                let inputs = std::iter::once(merged).chain(side);
                let counted =
                    |input| wire::counted(input, context.metrics(), |metrics, n| metrics.rows_in.add(n));
                let output = stage.run(inputs.map(counted).collect(), context.clone());
                wire::counted(output, context.metrics(), |metrics, n| metrics.rows_out.add(n))
            }
            Opened::Sink(sink) => {
                let input = wire::on_own_task(wire::merged(inputs, &schemas[at]), &tasks);
                driven.push(Driven { step: at, sink, input, context });
                ports.push(Vec::new());
                continue;
            }
        };
        ports.push(match n_readers(at) {
            0 | 1 => vec![stream],
            n => wire::fan_out(stream, n, &tasks),
        });
    }
    driven
}

fn source_stream(
    source: Box<dyn Source>,
    context: &Context,
    from: Positions,
    gates: Option<&Arc<Checkpoints>>,
    limit_rows: Option<u64>,
) -> BatchStream {
    let (schema, caps) = (source.schema(), source.capabilities());
    let mut stream = source.run(context.clone(), from);
    if let Some(n_rows) = limit_rows {
        stream = wire::first_rows(stream, n_rows);
    }
    if let Some(gates) = gates {
        stream = gates.gate(stream, (context.step().to_owned(), schema), caps);
    }
    wire::counted(stream, context.metrics(), |metrics, n| metrics.rows_out.add(n))
}
