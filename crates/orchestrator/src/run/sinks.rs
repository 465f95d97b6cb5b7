//! Drives all sinks at once, and commits what they have sealed: at checkpoints, when one is due or the run is to stop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_commit::End;
use aqueduct_core::{BatchStream, Context, Error, Part, Result, Sink};
use aqueduct_primitives::{Task, Tasks};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::checkpoints::{Checkpoints, Due};
use super::committing::Committing;
use super::panics::Guard;

/// How long a run that is to stop waits for the rows that are on their way. Behind a step that lets few pass they may take
/// for ever; then what was committed before is all there is.
const MAX_DRAIN: Duration = Duration::from_secs(10);

/// A sink and what it is to write.
pub(super) struct Driven {
    pub(super) step: usize,
    pub(super) sink: Box<dyn Sink>,
    pub(super) input: BatchStream,
    pub(super) context: Context,
    pub(super) guard: Guard,
}

/// Where those who take rows tell what they have made durable.
#[derive(Clone, Debug)]
pub(super) struct Reports {
    /// Of a sink, its step.
    pub(super) of: usize,
    pub(super) to: mpsc::Sender<Sealed>,
}

impl Reports {
    /// At a checkpoint, or at the end of the rows.
    ///
    /// # Errors
    /// The run is over.
    pub(super) async fn sealed(&self, checkpoint: Option<u64>, parts: Vec<Part>) -> Result<()> {
        let sealed = Sealed { of: self.of, checkpoint, parts };
        self.to.send(sealed).await.map_err(|_| Error::cancelled("run"))
    }
}

/// What was made durable, at a checkpoint or at the end of the rows.
#[derive(Debug)]
pub(super) struct Sealed {
    of: usize,
    checkpoint: Option<u64>,
    parts: Vec<Part>,
}

/// How a run commits before its end.
pub(super) struct Pace {
    /// The gates of the sources.
    pub(super) gates: Arc<Checkpoints>,
    /// When they are to be closed.
    pub(super) due: Due,
    /// Who must stand at a checkpoint: sinks, by their step, and copies of what goes into global stages.
    pub(super) standing: BTreeSet<usize>,
    /// Whether there are such copies: behind them work goes on when nobody has to stand any more.
    pub(super) has_copies: bool,
}

/// Drives sinks to the end of their rows; the parts that are not committed yet, by step. The first sink to fail, or to
/// panic, stops the others. Without a pace nothing is committed before the end.
pub(super) async fn drive(
    driven: Vec<Driven>,
    (sender, reports): (mpsc::Sender<Sealed>, mpsc::Receiver<Sealed>),
    committing: &mut Committing<'_>,
    pace: Option<Pace>,
    stop: &CancellationToken,
) -> Result<Vec<(usize, Vec<Part>)>, Failure> {
    let stop_all = CancellationToken::new();
    let open = match &pace {
        Some(pace) => pace.standing.clone(),
        None => driven.iter().map(|one| one.step).collect(),
    };
    let tasks = committing.run.tasks.clone();
    let mut sinks = Vec::new();
    for one in driven {
        let reports = Reports { of: one.step, to: sender.clone() };
        sinks.push(spawn(one, &stop_all, reports, &tasks));
    }
    drop(sender);
    let mut driver = Driver::new(reports, stop_all, open);
    driver.has_committed = committing.commits.resumed().is_some();
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

fn spawn(one: Driven, stop_all: &CancellationToken, reports: Reports, tasks: &Tasks) -> Task<Result<()>> {
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
    /// Of those who must stand, the ones that still take rows.
    open: BTreeSet<usize>,
    /// Of those, the ones that have reached the checkpoint.
    sealed: BTreeSet<usize>,
    /// The checkpoint that was asked for.
    asked: Option<u64>,
    /// Whether all that the copies hold is committed.
    has_all_copied: bool,
    /// Whether the run, of whichever process, has committed anything.
    has_committed: bool,
    parts: Vec<(usize, Vec<Part>)>,
}

impl Driver {
    fn new(reports: mpsc::Receiver<Sealed>, stop_all: CancellationToken, open: BTreeSet<usize>) -> Self {
        let (sealed, parts) = (BTreeSet::new(), Vec::new());
        let (has_all_copied, has_committed) = (false, false);
        Self { reports, stop_all, open, sealed, asked: None, has_all_copied, has_committed, parts }
    }

    async fn run(
        &mut self,
        committing: &mut Committing<'_>,
        mut pace: Option<Pace>,
        stop: &CancellationToken,
    ) -> Result<Outcome> {
        let mut give_up_at: Option<Instant> = None;
        loop {
            let is_stopping = give_up_at.is_some();
            tokio::select! {
                biased;
                sealed = self.reports.recv() => match sealed {
                    Some(sealed) => self.take(sealed),
                    None if is_stopping && !self.open.is_empty() => {
                        return Ok(Outcome::Stopped { is_committed: self.has_committed });
                    }
                    None => return Ok(Outcome::Complete),
                },
                () = stop.cancelled(), if !is_stopping => {
                    give_up_at = Some(Instant::now() + MAX_DRAIN);
                    match &pace {
                        Some(_) if self.has_all_copied => return Ok(Outcome::Stopped { is_committed: true }),
                        Some(pace) => self.ask(&pace.gates),
                        None => self.stop_all.cancel(),
                    }
                }
                () = until(give_up_at), if is_stopping => {
                    return Ok(Outcome::Stopped { is_committed: self.has_committed });
                }
                () = is_due(pace.as_ref()), if self.asked.is_none() && !is_stopping && !self.open.is_empty() => {
                    pace.iter().for_each(|pace| self.ask(&pace.gates));
                }
            }
            let Some(pace) = pace.as_mut().filter(|pace| self.is_at_checkpoint(pace)) else { continue };
            let parts = std::mem::take(&mut self.parts);
            committing.commit(parts, pace.gates.take_positions(), End::GoOn).await?;
            if give_up_at.is_some() {
                return Ok(Outcome::Stopped { is_committed: true });
            }
            self.go_on(pace);
        }
    }

    fn take(&mut self, sealed: Sealed) {
        let Sealed { of, checkpoint, parts } = sealed;
        self.parts.push((of, parts));
        match checkpoint {
            Some(_) => _ = self.sealed.insert(of),
            None => _ = self.open.remove(&of),
        }
    }

    fn ask(&mut self, gates: &Checkpoints) {
        if self.asked.is_none() {
            self.asked = Some(gates.ask());
        }
    }

    /// Whether all who still take rows have those that came before the mark; or, once, whether the copies are complete.
    fn is_at_checkpoint(&self, pace: &Pace) -> bool {
        match self.open.is_empty() {
            true => pace.has_copies && !self.has_all_copied,
            false => self.asked.is_some() && self.open.iter().all(|one| self.sealed.contains(one)),
        }
    }

    fn go_on(&mut self, pace: &mut Pace) {
        self.has_committed = true;
        self.has_all_copied = self.open.is_empty();
        self.sealed.clear();
        if let Some(n) = self.asked.take() {
            pace.gates.pass(n);
        }
        pace.due.begin_anew();
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn is_due(pace: Option<&Pace>) {
    match pace {
        Some(pace) => pace.due.wait().await,
        None => std::future::pending().await,
    }
}

async fn drive_one(one: Driven, stop: &CancellationToken, reports: &Reports) -> Result<()> {
    let Driven { mut sink, mut input, context, guard, .. } = one;
    let written = guard.wait(write_all(&mut *sink, &mut input, &context, stop, reports)).await.flatten();
    // Cancels what feeds the sink before the sink lets go of its files.
    drop(input);
    if written.is_err() {
        // There is an error already: one of letting go is no news.
        let _ = guard.wait(sink.abort()).await;
        return written;
    }
    guard.call(|| drop(sink))
}

async fn write_all(
    sink: &mut dyn Sink,
    input: &mut BatchStream,
    context: &Context,
    stop: &CancellationToken,
    reports: &Reports,
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
            reports.sealed(checkpoint, sink.seal().await.map_err(at)?).await?;
        }
    }
    reports.sealed(None, sink.seal().await.map_err(at)?).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::panics::Panics;
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
        let guard = Panics::default().guard("a sink");
        Driven { step, sink: Box::new(Panicking), input: Box::pin(input), context, guard }
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
        let reports = Reports { of: 0, to: sender };
        let both = [waits, panics].map(|one| spawn(one, &stop_all, reports.clone(), &tasks));
        let Some(Failure::Error(error)) = join(both.into()).await else { panic!("not the panic") };
        let told = error.chain();
        assert!(told.contains("panicked: a sink that panics") && told.contains("step: a sink"), "{told}");
    }
}
