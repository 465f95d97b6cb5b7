//! Blocking work beside a flow: the inputs are read by tasks of the flow, the work is done on a thread that may block
//! on disks, its rows are paid from a part of the step's share that is put aside for them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aqueduct_core::rows::{copied, row_bytes, runs};
use aqueduct_core::{
    Batch, BatchStream, Context, Error, ErrorKind, Inputs, Positions, Result, retained_bytes,
};
use aqueduct_primitives::{Budget, ByteCount, Reservation, TaskError};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::StreamExt;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::SpillDir;

/// Work that waits neither for rows nor for its reader, and does nothing for so long, has come to a stop.
const STALLED_AFTER: Duration = Duration::from_secs(300);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Of a share, one part in so many is for rows on their way out.
const OUTPUT_PART: u64 = 8;
/// Of that, a batch is one part in so many: the next is made while one is read.
const OUTPUT_BATCHES: u64 = 4;

/// Of a share, what the work itself may hold.
pub(crate) fn lease_of(share: ByteCount) -> ByteCount {
    ByteCount::new(share.get() - share.get() / OUTPUT_PART)
}

/// What comes in of one of the inputs: rows and the memory they take; at its end none.
pub(crate) struct Fed {
    /// Which input.
    pub(crate) input: usize,
    pub(crate) rows: Option<(RecordBatch, Reservation)>,
}

/// All that the work needs.
pub(crate) struct Desk {
    /// What it may hold: all of the share but the part for outputs.
    pub(crate) lease: ByteCount,
    /// Where it may write what it cannot hold.
    pub(crate) dir: SpillDir,
    /// The rows of all inputs, as they come.
    pub(crate) feed: Feed,
    /// Where its own rows go.
    pub(crate) out: Output,
    pub(crate) pace: Arc<Pace>,
    /// At most so many rows in a batch.
    pub(crate) max_rows: usize,
    share: Budget,
    /// Given back when the work is done.
    held: Reservation,
}

/// What the work has to say when it has ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    /// Rows left out because they are like another.
    pub(crate) n_duplicates: u64,
}

/// The rows that `work` makes of some inputs. The share is taken when the first row is asked for, and held until the
/// work has ended. Positions of the inputs pass after the last row.
///
/// # Cancel safety
/// Dropping the stream drops the inputs, and stops the work when it next asks for rows or gives some;
/// [`Tasks::join`](aqueduct_primitives::Tasks::join) waits for it.
pub(crate) fn beside(
    inputs: Inputs,
    schema: SchemaRef,
    cx: Context,
    work: impl FnOnce(Desk) -> Result<Done> + Send + 'static,
) -> BatchStream {
    Box::pin(try_stream! {
        let stop = cx.tasks().cancelled().child_token();
        let _stops_with_the_stream = stop.clone().drop_guard();
        let (sender, mut rows) = channel(1);
        let (feeder, mut receiver) = channel(1);
        let (disk, parent) = (cx.scratch().disk.clone(), cx.scratch().dir.clone());
        let of_disk = disk.clone();
        let dir = cx.tasks().block(move || SpillDir::new(&parent, of_disk)).await??;
        let dir = dir.counted_in(cx.metrics());
        let upstream = Arc::<Mutex<Upstream>>::default();
        let pump = |(n, input)| cx.tasks().spawn(pump(n, input, feeder.clone(), Arc::clone(&upstream)));
        let pumps: Vec<_> = inputs.into_iter().enumerate().map(pump).collect();
        drop(feeder);
        // A step before may have the lease until it has ended, which is before the first rows come out of it.
        let first = receiver.recv().await;
        let desk = Desk::new(&cx, dir, Feed::new(first, receiver), sender, stop).await?;
        let watch = Watch { pace: Arc::clone(&desk.pace), disk };
        let tasks = cx.tasks().clone();
        let worker = cx.tasks().spawn(async move { tasks.block(move || work(desk)).await });
        while let Some(batch) = watch.next(&mut rows).await? {
            yield batch;
        }
        let done = worker.await;
        // Who needs no more of its inputs leaves them. What was taken of them is counted in the positions already.
        for pump in pumps {
            pump.abort();
            if let Err(panic @ TaskError::Panicked(_)) = pump.await {
                Err(panic)?;
            }
        }
        let upstream = std::mem::take(&mut *upstream.lock().unwrap_or_else(PoisonError::into_inner));
        // An input that failed is what made the work fail.
        upstream.failure.map_or(Ok(()), Err)?;
        let done = of_step(done, cx.step())?;
        cx.metrics().rows_duplicate.add(done.n_duplicates);
        yield Batch::only_positions(schema, upstream.positions);
    })
}

/// What became of the work; an error names the step.
fn of_step(done: Result<Result<Result<Done>, TaskError>, TaskError>, step: &str) -> Result<Done> {
    let done = done.map_err(Error::from).and_then(|done| done.map_err(Error::from)?);
    done.map_err(|error| error.with("step", step))
}

/// What the inputs leave behind beside their rows.
#[derive(Default)]
struct Upstream {
    positions: Positions,
    /// Why one of them ended early. The work is told only that it is over.
    failure: Option<Error>,
}

/// Hands an input over, batch by batch.
async fn pump(n: usize, mut input: BatchStream, feeder: Sender<Result<Fed>>, upstream: Arc<Mutex<Upstream>>) {
    while let Some(batch) = input.next().await {
        let fed = taken(n, batch, &mut upstream.lock().unwrap_or_else(PoisonError::into_inner));
        let is_last = fed.is_err();
        if feeder.send(fed).await.is_err() || is_last {
            return;
        }
    }
    // Work that needs no more is gone, and need not be told.
    let _ = feeder.send(Ok(Fed { input: n, rows: None })).await;
}

fn taken(n: usize, batch: Result<Batch>, upstream: &mut Upstream) -> Result<Fed> {
    match batch {
        Ok(batch) => {
            let (records, reservation, complete, _) = batch.into_parts();
            upstream.positions.merge(complete);
            Ok(Fed { input: n, rows: Some((records, reservation)) })
        }
        Err(error) => {
            upstream.failure.get_or_insert(error);
            Err(Error::cancelled("read rows"))
        }
    }
}

impl Desk {
    async fn new(
        cx: &Context,
        dir: SpillDir,
        feed: Feed,
        sender: Sender<Batch>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let share = cx.share();
        let mut held = share.reserve(share.total()).await?;
        held.shrink_to(lease_of(share.total()));
        let for_output = share.total().saturating_sub(held.size());
        let budget = share.carve(format!("output of {}", cx.step()), for_output)?;
        let pace = Arc::clone(&feed.pace);
        let out = Output { budget, sender, stop, pace: Arc::clone(&pace) };
        Ok(Self {
            lease: held.size(),
            dir,
            feed,
            out,
            pace,
            max_rows: cx.batch_rows(),
            share: share.clone(),
            held,
        })
    }

    /// Nobody reads what comes out any more.
    pub(crate) fn stop(&self) -> CancellationToken {
        self.out.stop.clone()
    }

    /// Gives so much of the lease to rows on their way out, which it holds no more. Before the first of them.
    ///
    /// # Errors
    /// Some are on their way.
    pub(crate) fn widen_output(&mut self, n_bytes: ByteCount) -> Result<()> {
        let total = self.out.budget.total().saturating_add(n_bytes);
        let name = self.out.budget.name().to_owned();
        self.held.shrink_to(self.held.size().saturating_sub(n_bytes));
        self.out.budget = Budget::new("none", ByteCount::ZERO);
        self.out.budget = self.share.carve(name, total)?;
        Ok(())
    }
}

/// The rows of all inputs.
pub(crate) struct Feed {
    first: Option<Result<Fed>>,
    receiver: Receiver<Result<Fed>>,
    pace: Arc<Pace>,
}

impl Feed {
    fn new(first: Option<Result<Fed>>, receiver: Receiver<Result<Fed>>) -> Self {
        Self { first, receiver, pace: Arc::default() }
    }

    /// The next rows of any input.
    ///
    /// # Errors
    /// An input failed; the run is being stopped.
    pub(crate) async fn next(&mut self) -> Result<Fed> {
        if let Some(first) = self.first.take() {
            return first;
        }
        self.pace.is_awaited.store(true, Relaxed);
        let fed = self.receiver.recv().await;
        self.pace.is_awaited.store(false, Relaxed);
        self.pace.tick();
        fed.unwrap_or_else(|| Err(Error::cancelled("read rows")))
    }

    /// [`Feed::next`], on a thread that may block.
    ///
    /// # Errors
    /// As [`Feed::next`].
    pub(crate) fn next_blocking(&mut self) -> Result<Fed> {
        futures::executor::block_on(self.next())
    }
}

/// Takes rows on their way out.
pub(crate) struct Output {
    budget: Budget,
    sender: Sender<Batch>,
    stop: CancellationToken,
    pace: Arc<Pace>,
}

impl Output {
    /// A batch of this size goes out without being cut.
    pub(crate) fn batch_bytes(&self) -> ByteCount {
        ByteCount::new(self.budget.total().get() / OUTPUT_BATCHES)
    }

    /// Done when nobody reads any more.
    #[cfg(feature = "engine")]
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Sends rows, cut to batches. Waits until the reader takes them.
    ///
    /// # Errors
    /// A row is larger than all that goes out may be; nobody reads any more.
    #[cfg(feature = "engine")]
    pub(crate) async fn send(&self, records: RecordBatch) -> Result<()> {
        self.send_with(records, false).await
    }

    /// [`Output::send`], the first batch with a cut if there is to be one.
    async fn send_with(&self, records: RecordBatch, mut cut: bool) -> Result<()> {
        if records.num_rows() == 0 {
            return Ok(());
        }
        for piece in pieces(records, self.batch_bytes()) {
            let piece = piece?;
            self.pace.is_sending.store(true, Relaxed);
            let sent = tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(Error::cancelled("give rows")),
                sent = self.send_one(piece, std::mem::take(&mut cut)) => sent,
            };
            self.pace.is_sending.store(false, Relaxed);
            self.pace.tick();
            sent?;
        }
        Ok(())
    }

    /// [`Output::send`], on a thread that may block; the first batch with a cut if there is to be one.
    ///
    /// # Errors
    /// As [`Output::send`].
    pub(crate) fn send_blocking(&self, records: RecordBatch, cut: bool) -> Result<()> {
        futures::executor::block_on(self.send_with(records, cut))
    }

    async fn send_one(&self, records: RecordBatch, cut: bool) -> Result<()> {
        let reservation = self.budget.reserve(retained_bytes(&records)).await?;
        let sent = self.sender.send(Batch::new(records, reservation).with_cut(cut)).await;
        sent.map_err(|_| Error::cancelled("give rows"))
    }
}

/// Rows in pieces of at most so many bytes, or of one row. Each has memory of its own, made when it is asked for.
pub(crate) fn pieces(
    records: RecordBatch,
    most: ByteCount,
) -> impl Iterator<Item = Result<RecordBatch>> + Send {
    let stays = retained_bytes(&records) <= most || owns_its_only_row(&records);
    let rows = match stays {
        true => std::iter::once(0..records.num_rows()).collect(),
        false => runs(&row_bytes(&records), most.get()),
    };
    rows.into_iter().map(move |rows| if stays { Ok(records.clone()) } else { copied(&records, rows) })
}

/// Whether it is one row that keeps no others in memory: a copy would be no smaller.
fn owns_its_only_row(records: &RecordBatch) -> bool {
    records.num_rows() == 1 && retained_bytes(records).get() <= 2 * row_bytes(records).iter().sum::<u64>()
}

/// What the work is about.
#[derive(Default)]
pub(crate) struct Pace {
    n_ticks: AtomicU64,
    is_awaited: AtomicBool,
    is_sending: AtomicBool,
    note: OnceLock<Note>,
}

/// Says who holds what.
type Note = Box<dyn Fn() -> String + Send + Sync>;

impl Pace {
    /// Something happened.
    pub(crate) fn tick(&self) {
        self.n_ticks.fetch_add(1, Relaxed);
    }

    /// What to say beside an error that nothing happens.
    #[cfg(feature = "engine")]
    pub(crate) fn set_note(&self, note: Note) {
        // There is one pool, and it is made once.
        let _ = self.note.set(note);
    }
}

/// Sees that the work goes on.
struct Watch {
    pace: Arc<Pace>,
    disk: Budget,
}

impl Watch {
    /// The next rows; none when the work has ended, well or not.
    async fn next(&self, rows: &mut Receiver<Batch>) -> Result<Option<Batch>> {
        let (mut seen, mut since) = (self.progress(), Instant::now());
        loop {
            if let Ok(batch) = timeout(LOOK_EVERY, rows.recv()).await {
                return Ok(batch);
            }
            let now = self.progress();
            let waits = self.pace.is_awaited.load(Relaxed) || self.pace.is_sending.load(Relaxed);
            if now != seen || waits {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= STALLED_AFTER {
                return Err(self.stalled());
            }
        }
    }

    fn progress(&self) -> (u64, ByteCount) {
        (self.pace.n_ticks.load(Relaxed), self.disk.free())
    }

    fn stalled(&self) -> Error {
        let message = "the work has come to a stop: it waits for nobody and does nothing";
        let note = self.pace.note.get().map(|note| note()).unwrap_or_default();
        Error::new(ErrorKind::Bug, "run beside the flow", message)
            .with("after_seconds", STALLED_AFTER.as_secs())
            .with("held", note)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    #[test]
    fn pieces_are_cut_by_bytes_and_keep_nothing_of_each_other() {
        let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..10).map(|n| "x".repeat(1000 * n))));
        let records = RecordBatch::try_from_iter([("t", text)]).unwrap();
        let pieces = |most| pieces(records.clone(), most).collect::<Result<Vec<_>>>().unwrap();
        let cut = pieces(ByteCount::new(10_000));
        assert!(cut.len() > 4);
        assert_eq!(arrow::compute::concat_batches(&records.schema(), &cut).unwrap(), records);
        assert!(cut.iter().all(|piece| retained_bytes(piece).get() < 12_000));
        assert_eq!(pieces(ByteCount::mib(1)).len(), 1);
    }
}
