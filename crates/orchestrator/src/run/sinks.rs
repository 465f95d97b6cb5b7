//! Drives all sinks at once, and commits what they have sealed: at checkpoints, when one is due or the run is to stop.

use std::collections::BTreeSet;
use std::sync::Arc;

use aqueduct_commit::End;
use aqueduct_core::{BatchStream, Context, Error, Part, Result, Sink};
use aqueduct_primitives::{Task, Tasks};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::checkpoints::{Checkpoints, Due};
use super::committing::Committing;

/// A sink and what it is to write.
pub(super) struct Driven {
    pub(super) step: usize,
    pub(super) sink: Box<dyn Sink>,
    pub(super) input: BatchStream,
    pub(super) context: Context,
}

/// What a sink has made durable, at a checkpoint or at the end of its rows.
#[derive(Debug)]
struct Sealed {
    step: usize,
    checkpoint: Option<u64>,
    parts: Vec<Part>,
}

/// The gates of the sources and when they are to be closed; none, if the run can only commit at its end.
pub(super) struct Pace {
    pub(super) gates: Arc<Checkpoints>,
    pub(super) due: Due,
}

/// Drives sinks to the end of their rows; the parts that are not committed yet, by step. The first sink to fail, or to
/// panic, stops the others.
pub(super) async fn drive(
    driven: Vec<Driven>,
    committing: &mut Committing<'_>,
    pace: Option<Pace>,
    tasks: &Tasks,
    stop: &CancellationToken,
) -> Result<Vec<(usize, Vec<Part>)>, Failure> {
    let stop_all = CancellationToken::new();
    let open = driven.iter().map(|one| one.step).collect();
    let (sender, reports) = mpsc::channel(driven.len().max(1));
    let sinks: Vec<_> = driven.into_iter().map(|one| spawn(one, &stop_all, sender.clone(), tasks)).collect();
    drop(sender);
    let mut driver =
        Driver { reports, stop_all, open, sealed: BTreeSet::new(), asked: None, parts: Vec::new() };
    let driven = driver.run(committing, pace, stop).await;
    driver.stop_all.cancel();
    let joined = join(sinks).await;
    match (driven, joined) {
        (Ok(Outcome::Complete), None) => Ok(driver.parts),
        (Ok(Outcome::Stopped { is_committed }), None | Some(Failure::Interrupted { .. })) => {
            Err(Failure::Interrupted { is_committed })
        }
        (Ok(_), Some(failure)) => Err(failure),
        (Err(failure), _) => Err(failure.into()),
    }
}

fn spawn(
    one: Driven,
    stop_all: &CancellationToken,
    reports: mpsc::Sender<Sealed>,
    tasks: &Tasks,
) -> Task<Result<()>> {
    let stop = stop_all.clone();
    let unless_sealed = stop_all.clone().drop_guard();
    tasks.spawn(async move {
        drive_one(one, &stop, &reports).await?;
        unless_sealed.disarm();
        Ok(())
    })
}

async fn join(sinks: Vec<Task<Result<()>>>) -> Option<Failure> {
    let mut failure: Option<Failure> = None;
    for sink in sinks {
        if let Err(error) = sink.await.map_err(Error::from).and_then(|result| result) {
            failure = Some(worse(failure, error.into()));
        }
    }
    failure
}

/// Of two failures the one that says why: a sink that was only told to stop does not.
fn worse(first: Option<Failure>, second: Failure) -> Failure {
    match first {
        None | Some(Failure::Interrupted { .. }) => second,
        Some(first) => first,
    }
}

/// How the rows came to an end.
enum Outcome {
    /// All sinks have all rows, or one has failed.
    Complete,
    /// The run was told to stop.
    Stopped { is_committed: bool },
}

struct Driver {
    reports: mpsc::Receiver<Sealed>,
    stop_all: CancellationToken,
    /// Sinks that still take rows.
    open: BTreeSet<usize>,
    /// Of those, the ones that have reached the checkpoint.
    sealed: BTreeSet<usize>,
    /// The checkpoint that was asked for.
    asked: Option<u64>,
    parts: Vec<(usize, Vec<Part>)>,
}

impl Driver {
    async fn run(
        &mut self,
        committing: &mut Committing<'_>,
        mut pace: Option<Pace>,
        stop: &CancellationToken,
    ) -> Result<Outcome> {
        let mut is_stopping = false;
        loop {
            tokio::select! {
                biased;
                sealed = self.reports.recv() => match sealed {
                    Some(sealed) => self.take(sealed),
                    None if is_stopping && !self.open.is_empty() => return Ok(Outcome::Stopped { is_committed: false }),
                    None => return Ok(Outcome::Complete),
                },
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    match &pace {
                        Some(pace) => self.ask(&pace.gates),
                        None => self.stop_all.cancel(),
                    }
                }
                () = is_due(pace.as_ref()), if self.asked.is_none() && !is_stopping => {
                    pace.iter().for_each(|pace| self.ask(&pace.gates));
                }
            }
            let Some(pace) = pace.as_mut().filter(|_| self.is_at_checkpoint()) else { continue };
            let parts = std::mem::take(&mut self.parts);
            committing.commit(parts, pace.gates.take_positions(), End::GoOn).await?;
            if is_stopping {
                return Ok(Outcome::Stopped { is_committed: true });
            }
            self.go_on(pace);
        }
    }

    fn take(&mut self, sealed: Sealed) {
        let Sealed { step, checkpoint, parts } = sealed;
        self.parts.push((step, parts));
        match checkpoint {
            Some(_) => _ = self.sealed.insert(step),
            None => _ = self.open.remove(&step),
        }
    }

    fn ask(&mut self, gates: &Checkpoints) {
        if self.asked.is_none() {
            self.asked = Some(gates.ask());
        }
    }

    /// Whether every sink that still takes rows has all that came before the mark.
    fn is_at_checkpoint(&self) -> bool {
        self.asked.is_some()
            && !self.open.is_empty()
            && self.open.iter().all(|step| self.sealed.contains(step))
    }

    fn go_on(&mut self, pace: &mut Pace) {
        self.sealed.clear();
        if let Some(n) = self.asked.take() {
            pace.gates.pass(n);
        }
        pace.due.begin_anew();
    }
}

async fn is_due(pace: Option<&Pace>) {
    match pace {
        Some(pace) => pace.due.wait().await,
        None => std::future::pending().await,
    }
}

async fn drive_one(one: Driven, stop: &CancellationToken, reports: &mpsc::Sender<Sealed>) -> Result<()> {
    let Driven { step, mut sink, mut input, context } = one;
    let result = write_all(step, &mut *sink, &mut input, &context, stop, reports).await;
    // Cancels what feeds the sink before the sink lets go of its files.
    drop(input);
    if result.is_err() {
        sink.abort().await;
    }
    result
}

async fn write_all(
    step: usize,
    sink: &mut dyn Sink,
    input: &mut BatchStream,
    context: &Context,
    stop: &CancellationToken,
    reports: &mpsc::Sender<Sealed>,
) -> Result<()> {
    let at = |error: Error| error.with("step", context.step());
    loop {
        let batch = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Error::cancelled("run")),
            batch = input.next() => batch,
        };
        let Some(batch) = batch else { break };
        let batch = batch?;
        let (n_rows, checkpoint) = (batch.num_rows() as u64, batch.positions().checkpoint());
        context.metrics().rows_in.add(n_rows);
        sink.write(batch).await.map_err(at)?;
        context.metrics().rows_out.add(n_rows);
        if checkpoint.is_some() {
            report(reports, Sealed { step, checkpoint, parts: sink.seal().await.map_err(at)? }).await?;
        }
    }
    report(reports, Sealed { step, checkpoint: None, parts: sink.seal().await.map_err(at)? }).await
}

async fn report(reports: &mpsc::Sender<Sealed>, sealed: Sealed) -> Result<()> {
    // Nobody listens any more only when the run is over.
    reports.send(sealed).await.map_err(|_| Error::cancelled("run"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_core::Batch;
    use aqueduct_primitives::{Budget, ByteCount};
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
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
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let row = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let batch = Batch::new(row, aqueduct_primitives::Reservation::empty());
        let waits = driven(0, futures::stream::pending());
        let panics = driven(1, futures::stream::iter([Ok(batch)]));
        let (tasks, stop_all) = (Tasks::default(), CancellationToken::new());
        let (sender, _reports) = mpsc::channel(2);
        let both = [waits, panics].map(|one| spawn(one, &stop_all, sender.clone(), &tasks));
        let Some(Failure::Error(error)) = join(both.into()).await else { panic!("not the panic") };
        assert!(error.chain().contains("a sink that panics"), "{error}");
    }
}
