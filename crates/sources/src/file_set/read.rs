//! Reads the files of a set through the window.

use std::sync::{Arc, OnceLock};

use aqueduct_core::{
    Batch, BatchStream, Context, Error, ErrorKind, InFlight, Positions, Result, retained_bytes,
};
use aqueduct_formats::{Decoded, NeedsSpool};
use aqueduct_net::Validator;
use aqueduct_primitives::{
    BufferReceiver, BufferSender, ByteCount, Charged, Reservation, Task, TaskError, WindowLimit, buffer,
    window, window_ordered,
};
use arrow::datatypes::SchemaRef;
use async_stream::{stream, try_stream};
use futures::stream::BoxStream;
use futures::{StreamExt, future};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::input::{Input, Queued};
use super::journal::Journal;
use super::open::{Opened, Opener, Rows};
use super::oversize::{Fitting, Part, sorted_out};
use super::progress::{Partial, Progress};
use super::seen::{Ended, Seen};
use super::unchanged::{check_done, compare, compare_again, since_then};
use super::{Failed, FileSet, frozen};

/// Events that wait outside the task that reads a file. With none, decoder and consumer would take turns;
/// each more is one more batch in the file's reserve.
const EVENTS_PER_FILE: usize = 1;

/// Bad rows of an event that weigh more than this wait for those of the event before to be told: beside the rows of a
/// file's events, its reserve has no room for several such.
const MANY_REJECTED_BYTES: usize = 64 << 10;

/// What comes of a file.
enum Event {
    /// Rows, and what was reserved for them beyond the file's reserve; with bad rows, their turn.
    Rows(Arc<File>, Fitting, Option<OwnedSemaphorePermit>),
    /// All that is to come of it has come.
    Done(Arc<File>, End, Reservation),
}

/// How the reading of a file ended.
enum End {
    Whole,
    /// For a reason of the file's own: the policy decides, when all before was given.
    Failed(Error),
}

/// A file, as the task that reads it and the consumer know it.
struct File {
    number: u64,
    input: Input,
    /// Which version is read, once it is open.
    validator: OnceLock<Validator>,
    _in_flight: InFlight,
}

impl File {
    fn validator(&self) -> Validator {
        self.validator.get().cloned().unwrap_or_default()
    }
}

/// A file that is being read by a task of its own.
struct Reading {
    events: BufferReceiver<Result<Event>>,
    is_read: CancellationToken,
    task: Task<End>,
    file: Arc<File>,
    is_last: bool,
}

/// The batches of a set of files, without what came before `from`.
pub(super) fn run(files: FileSet, from: Positions) -> BatchStream {
    let FileSet { opener, inputs, read, output, is_ordered, given_up, kept, .. } = files;
    let cx = opener.cx.clone();
    Box::pin(try_stream! {
        let resumed = Progress::of(&from)?;
        let mut checked = None;
        if let Some(kept) = &kept {
            if resumed.is_some() && kept.frozen.is_new {
                Err(frozen::damaged(kept.frozen.dir()))?;
            }
            let progress = resumed.clone().unwrap_or_default();
            let n_done = kept.journal.open(&progress).await?;
            if n_done > 0 {
                let check = check_done(Arc::clone(&opener), kept.journal.clone(), n_done);
                checked = Some(cx.tasks().spawn(check));
            }
        }
        let inputs = with_last_known(not_done(inputs, resumed.clone()));
        let mut progress = resumed.unwrap_or_default();
        progress.merge(&given_up);
        let (journal, seen) = kept.map(|kept| (kept.journal, kept.seen)).unzip();
        let mut consumer = Consumer { cx, output, progress, journal, seen: seen.flatten() };
        let mut events = events(opener, inputs, read, is_ordered);
        while let Some(event) = next(&mut events, &mut checked).await? {
            match event {
                Event::Rows(file, mut rows, turn) => {
                    while let Some(part) = rows.next(&consumer.cx).await? {
                        yield consumer.give(&file, part).await?;
                    }
                    drop(turn);
                }
                Event::Done(file, end, place) => yield consumer.end(&file, end, place).await?,
            }
        }
        if let Some(checked) = checked {
            checked.await??;
        }
    })
}

/// The next event; an error as soon as a file turns out to have changed that was done before.
async fn next(
    events: &mut BoxStream<'static, Result<Event>>,
    checked: &mut Option<Task<Result<()>>>,
) -> Result<Option<Event>> {
    while let Some(checking) = checked {
        tokio::select! {
            biased;
            done = checking => {
                done??;
                *checked = None;
            }
            event = events.next() => return event.transpose(),
        }
    }
    events.next().await.transpose()
}

/// Gives what was read, with the position behind it: what is rejected is told with the batch whose position covers it, so
/// that whoever commits between two batches has both or none.
struct Consumer {
    cx: Context,
    output: SchemaRef,
    progress: Progress,
    journal: Option<Journal>,
    seen: Option<Seen>,
}

impl Consumer {
    /// After the wait for memory nothing waits any more: the rejects are told at the very moment the batch is given.
    async fn give(&mut self, file: &File, part: Part) -> Result<Batch> {
        let batch = match part.rows {
            Some(rows) => admit(&self.cx, rows).await?,
            None => self.no_rows(),
        };
        part.rejects.into_iter().try_for_each(|reject| self.cx.reject(reject))?;
        if !self.cx.whole_files() {
            self.progress.give(file.number, part.n_rows, &file.validator());
            if let Some(seen) = &self.seen {
                seen.give(&file.input, part.n_rows, &file.validator())?;
            }
        }
        Ok(batch.with_positions(self.progress.positions()?))
    }

    /// The last batch of a file, with its place in the window.
    async fn end(&mut self, file: &File, end: End, place: Reservation) -> Result<Batch> {
        if let Some(journal) = self.journal.as_ref().filter(|_| !file.validator().is_empty()) {
            journal.note(file.number, &file.input, &file.validator()).await?;
        }
        let seen = self.seen.as_ref();
        let failed = match end {
            End::Whole => None,
            End::Failed(error) => Some(Failed::of(seen, &file.input, error).await?),
        };
        if let Some(seen) = seen {
            seen.make_room().await?;
        }
        // From here on nothing waits: all that is told of the file goes with the batch that is given.
        match failed {
            Some(failed) => {
                let n_rows = self.progress.partial(file.number).map_or(0, |partial| partial.rows);
                failed.settle(&self.cx, seen, &file.input, (n_rows, &file.validator()))?;
            }
            None => {
                self.cx.metrics().files_done.add(1);
                seen.into_iter().for_each(|seen| seen.end(&file.input, &file.validator(), Ended::Whole));
            }
        }
        self.progress.end(file.number);
        let mut positions = Positions::done(Arc::clone(&file.input.name));
        positions.merge(self.progress.positions()?);
        let mut last = self.no_rows().with_positions(positions);
        last.reservation_mut().merge(place);
        Ok(last)
    }

    fn no_rows(&self) -> Batch {
        Batch::only_positions(Arc::clone(&self.output), Positions::default())
    }
}

/// The inputs that are not done, with how far they are.
fn not_done(
    inputs: BoxStream<'static, Result<Queued>>,
    resumed: Option<Progress>,
) -> BoxStream<'static, Result<Queued>> {
    let progress = resumed.unwrap_or_default();
    let left = move |queued: Result<Queued>| {
        let left = match queued {
            Ok(queued) if progress.is_done(queued.number) => None,
            Ok(queued) => {
                let resumed = progress.partial(queued.number).or(queued.input.begun.as_ref()).cloned();
                Some(Ok(Queued { resumed, ..queued }))
            }
            Err(error) => Some(Err(error)),
        };
        future::ready(left)
    };
    inputs.filter_map(left).boxed()
}

/// Looks one input ahead, to know the last.
fn with_last_known(mut inputs: BoxStream<'static, Result<Queued>>) -> BoxStream<'static, Result<Queued>> {
    Box::pin(stream! {
        let mut ahead = inputs.next().await;
        while let Some(input) = ahead {
            ahead = inputs.next().await;
            let is_last = ahead.is_none();
            yield input.map(|queued| Queued { is_last, ..queued });
        }
    })
}

/// The events of all files: file after file, or as they come.
fn events(
    opener: Arc<Opener>,
    inputs: BoxStream<'static, Result<Queued>>,
    schema: SchemaRef,
    is_ordered: bool,
) -> BoxStream<'static, Result<Event>> {
    let (cx, division) = (opener.cx.clone(), opener.division);
    let limit = WindowLimit::tasks(division.n_files).with_bytes(cx.share(), division.per_file);
    let start = move |input| future::ready(start(Arc::clone(&opener), input, Arc::clone(&schema)));
    let tasks = cx.tasks();
    if is_ordered {
        window_ordered(inputs, limit, tasks, start).map(file_events).flatten().boxed()
    } else {
        window(inputs, limit, tasks, start).map(file_events).flatten_unordered(None).boxed()
    }
}

/// Starts the task that reads a file.
fn start(opener: Arc<Opener>, queued: Result<Queued>, schema: SchemaRef) -> Result<Reading> {
    let Queued { number, input, resumed, opened, is_last } = queued?;
    opener.cx.metrics().files_total.add(1);
    let (sender, events) = buffer(EVENTS_PER_FILE);
    let is_read = CancellationToken::new();
    let in_flight = opener.cx.metrics().begin_one();
    let file = Arc::new(File { number, input, validator: OnceLock::new(), _in_flight: in_flight });
    let tasks = opener.cx.tasks().clone();
    let reader = FileReader {
        opener,
        file: Arc::clone(&file),
        resumed,
        schema,
        is_read: is_read.clone(),
        events: sender,
        turn: Arc::new(Semaphore::new(1)),
    };
    Ok(Reading { events, is_read, task: tasks.spawn(reader.run(opened)), file, is_last })
}

/// The events of one file. Its reserve is held to the end; then its place goes with the last event.
fn file_events(reading: Result<Charged<Result<Reading>>, TaskError>) -> BoxStream<'static, Result<Event>> {
    let (reading, mut reserve) = match reading {
        Ok(reading) => reading.into_parts(),
        Err(error) => return futures::stream::once(future::ready(Err(error.into()))).boxed(),
    };
    Box::pin(try_stream! {
        let mut reading = reading?;
        reading.is_read.cancel();
        while let Some(event) = reading.events.next().await {
            let event = event?;
            yield event;
        }
        let end = reading.task.await?;
        reserve.shrink_to(ByteCount::ZERO);
        if reading.is_last {
            // Nobody waits for its place, and the window sees its end only from a free one: a consumer that
            // keeps the last batch would wait for the end for ever.
            drop(std::mem::take(&mut reserve));
        }
        yield Event::Done(reading.file, end, reserve);
    })
}

/// The task that reads one file.
struct FileReader {
    opener: Arc<Opener>,
    file: Arc<File>,
    /// How far an earlier process came.
    resumed: Option<Partial>,
    schema: SchemaRef,
    is_read: CancellationToken,
    events: BufferSender<Result<Event>>,
    /// Held by the event with [many](MANY_REJECTED_BYTES) bad rows that the consumer has not told yet.
    turn: Arc<Semaphore>,
}

/// Why a file was not read to its end.
enum Stop {
    /// For a reason of its own: the policy decides.
    File(Error),
    /// Because the run ends.
    Run(Error),
}

impl FileReader {
    /// Reads the file to its end, or as far as it goes.
    async fn run(self, opened: Option<Opened>) -> End {
        match self.read(opened).await.map_err(|stop| self.unless_again(stop)) {
            Ok(()) => End::Whole,
            Err(Stop::File(error)) => End::Failed(error),
            Err(Stop::Run(error)) => {
                // Nobody listens any more only when the run is over.
                let _ = self.events.send(Err(error)).await;
                End::Whole
            }
        }
    }

    /// A file that changed ends the attempt, if it is to be read again.
    fn unless_again(&self, stop: Stop) -> Stop {
        let (error, same): (_, fn(Error) -> Stop) = match stop {
            Stop::File(error) => (error, Stop::File),
            Stop::Run(error) => (error, Stop::Run),
        };
        if !self.can_tell_versions() {
            return same(error);
        }
        self.opener.on_change.unless_again(&self.file.input, error).map_or_else(Stop::Run, same)
    }

    /// Whether the next attempt will know the version again that rows were given of: some of them may be committed by then.
    fn can_tell_versions(&self) -> bool {
        let resumed = self.resumed.as_ref().map(|resumed| &resumed.is);
        self.file.validator.get().into_iter().chain(resumed).all(|version| version.name().is_some())
    }

    async fn read(&self, opened: Option<Opened>) -> Result<(), Stop> {
        let mut n_rows = self.resumed.as_ref().map_or(0, |resumed| resumed.rows);
        let mut rows = self.open(opened, n_rows).await?;
        while let Some(decoded) = rows.next().await {
            match decoded {
                Ok(decoded) => self.send(decoded, &mut n_rows).await.map_err(Stop::Run)?,
                Err(error) => {
                    let Some(after) = NeedsSpool::of(&error).cloned() else { return Err(Stop::File(error)) };
                    drop(rows);
                    rows = self.open_again(after).await?;
                }
            }
        }
        Ok(())
    }

    /// The rows after so many, of the version that an earlier process read.
    async fn open(
        &self,
        opened: Option<Opened>,
        n_rows: u64,
    ) -> Result<aqueduct_formats::DecodedStream, Stop> {
        let Self { opener, file, resumed, schema, is_read, .. } = self;
        let was = resumed.as_ref().map(|resumed| &resumed.is);
        let rows = opener.rows(&file.input, opened, schema, is_read, n_rows).await;
        let Rows { validator, stream } = match (rows, was) {
            (Ok(rows), _) => rows,
            (Err(error), Some(was)) => return Err(Stop::File(since_then(&file.input, was, error))),
            (Err(error), None) => return Err(Stop::File(error)),
        };
        if let Some(was) = was {
            compare(&file.input, was, &validator).map_err(Stop::Run)?;
        }
        check_hashed(&file.input, &validator).map_err(Stop::File)?;
        // Set once, here.
        let _ = file.validator.set(validator);
        Ok(stream)
    }

    /// What is left, from a copy on the disk.
    async fn open_again(&self, after: NeedsSpool) -> Result<aqueduct_formats::DecodedStream, Stop> {
        let Self { opener, file, resumed, schema, is_read, .. } = self;
        let skip = resumed.as_ref().map_or(0, |resumed| resumed.rows);
        let rows = opener.rows_after(&file.input, schema, is_read, skip, after).await;
        let Rows { validator, stream } = rows.map_err(Stop::File)?;
        compare_again(&file.input, &file.validator(), &validator).map_err(Stop::Run)?;
        Ok(stream)
    }

    async fn send(&self, decoded: Decoded, n_rows: &mut u64) -> Result<()> {
        let rows = sorted_out(&self.opener.cx, Arc::clone(&self.file.input.name), decoded, n_rows).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let is_over = || Error::cancelled("read");
        let turn = match rows.rejected_bytes() > MANY_REJECTED_BYTES {
            true => Some(Arc::clone(&self.turn).acquire_owned().await.map_err(|_| is_over())?),
            false => None,
        };
        let event = Event::Rows(Arc::clone(&self.file), rows, turn);
        self.events.send(Ok(event)).await.map_err(|_| is_over())
    }
}

/// Whether a file is the one whose bytes were hashed.
fn check_hashed(input: &Input, is: &Validator) -> Result<()> {
    if input.digest.is_none() || !input.listed.has_become_another(is) {
        return Ok(());
    }
    // The policy decides: where the list of this run is fixed, another attempt would find the same.
    let message = "it changed while it was looked at; a run that lists anew reads it as it is then";
    Err(Error::new(ErrorKind::Io, "read", message).with("was", &input.listed).with("is", is))
}

/// Takes rows into the flow's memory. Rows that came through the lane have some of it already.
pub(crate) async fn admit(cx: &Context, decoded: Decoded) -> Result<Batch> {
    let Decoded { records, mut reservation, .. } = decoded;
    if reservation.size() == ByteCount::ZERO {
        return cx.admit(records).await;
    }
    let weight = retained_bytes(&records);
    reservation.shrink_to(weight);
    let missing = weight.saturating_sub(reservation.size());
    if reservation.try_grow(missing).is_err() {
        // Only one file is in the lane, and the flow's other memory drains downstream.
        reservation.merge(cx.flow().reserve(missing).await?);
    }
    Ok(Batch::new(records, reservation))
}
