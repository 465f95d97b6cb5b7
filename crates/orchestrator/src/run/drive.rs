//! Opens the steps, moves the rows, commits.

use std::sync::Arc;

use aqueduct_core::{BatchStream, Context, Error, Part, Positions, Problem, RunContext, Sink, Source, Stage};
use aqueduct_net::Fetcher;
use aqueduct_primitives::Tasks;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::build::{Prepared, PreparedStep};
use super::rejects::Rejects;
use super::{Failure, RunOptions, wire};
use crate::flow::{StepKind, merged};
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
    let Prepared { flow_name, run, steps, kinds, contexts, outputs, rejects, .. } = prepared;
    let parts =
        rows_to_parts(&Graph { run: &run, steps: &steps, contexts: &contexts }, kinds, &rejects, &options)
            .await;
    // Before the first output is public: what is in no output must lie here.
    let sealed = blocking(&run, &rejects, Rejects::seal).await;
    let (published, failure) = match parts.and_then(|parts| Ok(sealed.map(|()| parts)?)) {
        Ok(parts) => {
            let (published, failed) = outputs.publish(parts, &run, &flow_name).await;
            (published, failed.map(Failure::from))
        }
        Err(failure) => {
            outputs.abandon(&run).await;
            (Vec::new(), Some(failure))
        }
    };
    let kept = if failure.is_none() { blocking(&run, &rejects, Rejects::publish).await } else { Ok(()) };
    rejects.leave();
    if let Some(fetcher) = run.services.get::<Fetcher>() {
        fetcher.close().await;
    }
    (published, failure.or(kept.err().map(Failure::from)))
}

/// Does with the rejected what waits for a disk.
async fn blocking(
    run: &RunContext,
    rejects: &Arc<Rejects>,
    work: fn(&Rejects) -> aqueduct_core::Result<()>,
) -> aqueduct_core::Result<()> {
    let rejects = Arc::clone(rejects);
    run.tasks.block(move || work(&rejects)).await?
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

/// The sealed parts of each sink, by its step.
async fn rows_to_parts(
    graph: &Graph<'_>,
    kinds: Vec<StepKind>,
    rejects: &Rejects,
    options: &RunOptions,
) -> Result<Vec<(usize, Vec<Part>)>, Failure> {
    let (opened, schemas) = tokio::select! {
        opened = open_all(graph, kinds) => opened?,
        () = options.stop.cancelled() => return Err(Failure::Interrupted),
    };
    let driven = wire_all(graph, opened, &schemas, options);
    let parts = drive_sinks(driven, &graph.run.tasks, &options.stop).await?;
    for (step, context) in graph.steps.iter().zip(graph.contexts) {
        rejects.judge(context.step(), step.is_source, context.metrics())?;
    }
    Ok(parts)
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

/// A sink and what it is to write.
struct Driven {
    step: usize,
    sink: Box<dyn Sink>,
    input: BatchStream,
    context: Context,
}

fn wire_all(
    graph: &Graph<'_>,
    opened: Vec<Opened>,
    schemas: &[SchemaRef],
    options: &RunOptions,
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
            Opened::Source(source) => source_stream(source, &context, options.limit_rows),
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

fn source_stream(source: Box<dyn Source>, context: &Context, limit_rows: Option<u64>) -> BatchStream {
    let stream = source.run(context.clone(), Positions::default());
    let stream = match limit_rows {
        Some(n_rows) => wire::first_rows(stream, n_rows),
        None => stream,
    };
    wire::counted(stream, context.metrics(), |metrics, n| metrics.rows_out.add(n))
}

/// Drives all sinks at once. The first to fail, or to panic, stops the others.
async fn drive_sinks(
    driven: Vec<Driven>,
    tasks: &Tasks,
    stop: &CancellationToken,
) -> Result<Vec<(usize, Vec<Part>)>, Failure> {
    let stop_all = stop.child_token();
    let sinks: Vec<_> = driven
        .into_iter()
        .map(|one| {
            let (step, stop) = (one.step, stop_all.clone());
            let unless_sealed = stop_all.clone().drop_guard();
            tasks.spawn(async move {
                let parts = drive_sink(one, &stop).await?;
                unless_sealed.disarm();
                Ok((step, parts))
            })
        })
        .collect();
    let mut parts = Vec::new();
    let mut failure: Option<Failure> = None;
    for sink in sinks {
        match sink.await.map_err(Error::from).and_then(|result| result) {
            Ok(sealed) => parts.push(sealed),
            Err(error) => failure = Some(worse(failure, error.into())),
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(parts),
    }
}

/// Of two failures the one that says why: a sink that was only told to stop does not.
fn worse(first: Option<Failure>, second: Failure) -> Failure {
    match first {
        None | Some(Failure::Interrupted) => second,
        Some(first) => first,
    }
}

async fn drive_sink(one: Driven, stop: &CancellationToken) -> aqueduct_core::Result<Vec<Part>> {
    let Driven { mut sink, mut input, context, .. } = one;
    let result = write_all(&mut *sink, &mut input, &context, stop).await;
    // Cancels what feeds the sink before the sink lets go of its files.
    drop(input);
    match result {
        Ok(parts) => Ok(parts),
        Err(error) => {
            sink.abort().await;
            Err(error)
        }
    }
}

async fn write_all(
    sink: &mut dyn Sink,
    input: &mut BatchStream,
    context: &Context,
    stop: &CancellationToken,
) -> aqueduct_core::Result<Vec<Part>> {
    loop {
        let batch = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Error::cancelled("run")),
            batch = input.next() => batch,
        };
        let Some(batch) = batch else { break };
        let batch = batch?;
        let n_rows = batch.num_rows() as u64;
        context.metrics().rows_in.add(n_rows);
        sink.write(batch).await.map_err(|error| error.with("step", context.step()))?;
        context.metrics().rows_out.add(n_rows);
    }
    sink.seal().await.map_err(|error| error.with("step", context.step()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_core::{Batch, Result};
    use aqueduct_primitives::{Budget, ByteCount};
    use arrow::record_batch::{RecordBatch, RecordBatchOptions};
    use async_trait::async_trait;

    struct Panicking;

    #[async_trait]
    impl Sink for Panicking {
        async fn write(&mut self, _: Batch) -> Result<()> {
            panic!("a sink that panics")
        }

        async fn seal(&mut self) -> Result<Vec<Part>> {
            Ok(Vec::new())
        }

        async fn abort(self: Box<Self>) {}
    }

    fn driven(step: usize, input: impl futures::Stream<Item = Result<Batch>> + Send + 'static) -> Driven {
        let context = Context::standalone(&Budget::new("test", ByteCount::mib(1))).unwrap();
        Driven { step, sink: Box::new(Panicking), input: Box::pin(input), context }
    }

    #[tokio::test]
    async fn a_sink_that_panics_stops_the_others() {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let empty = SchemaRef::new(arrow::datatypes::Schema::empty());
        let row = RecordBatch::try_new_with_options(empty, Vec::new(), &options).unwrap();
        let batch = Batch::new(row, aqueduct_primitives::Reservation::empty());
        let waits = driven(0, futures::stream::pending());
        let panics = driven(1, futures::stream::iter([Ok(batch)]));
        let ended = drive_sinks(vec![waits, panics], &Tasks::default(), &CancellationToken::new()).await;
        let Err(Failure::Error(error)) = ended else { panic!("not the panic") };
        assert!(error.chain().contains("a sink that panics"), "{error}");
    }
}
