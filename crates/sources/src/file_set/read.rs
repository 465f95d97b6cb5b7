//! Reads the files of a set through the window.

use std::sync::Arc;

use aqueduct_core::{Batch, BatchStream, Context, Error, Positions, Result, retained_bytes};
use aqueduct_formats::{Decoded, NeedsSpool};
use aqueduct_primitives::{
    BufferReceiver, BufferSender, ByteCount, Charged, Reservation, Task, TaskError, WindowLimit, buffer,
    window, window_ordered,
};
use arrow::datatypes::SchemaRef;
use async_stream::{stream, try_stream};
use futures::stream::BoxStream;
use futures::{StreamExt, future};
use tokio_util::sync::CancellationToken;

use super::input::{Input, Queued};
use super::open::{Opened, Opener};
use super::oversize::{Fitting, sorted_out};
use super::{FileSet, give_up};

/// Events that wait outside the task that reads a file. With none, decoder and consumer would take turns;
/// each more is one more batch in the file's reserve.
const EVENTS_PER_FILE: usize = 1;

/// What comes of a file.
enum Event {
    /// Rows, and what was reserved for them beyond the file's reserve.
    Rows(Fitting),
    /// All that is to come of it has come.
    Done(Arc<str>, Reservation),
}

/// A file that is being read by a task of its own.
struct Reading {
    events: BufferReceiver<Result<Event>>,
    is_read: CancellationToken,
    task: Task<()>,
    name: Arc<str>,
    is_last: bool,
}

/// The batches of a set of files, without those that are done already.
pub(super) fn run(files: FileSet, from: Positions) -> BatchStream {
    let FileSet { opener, inputs, read, output, is_ordered } = files;
    let cx = opener.cx.clone();
    let inputs = with_last_known(not_done(inputs, from));
    let mut events = events(opener, inputs, read, is_ordered);
    Box::pin(try_stream! {
        while let Some(event) = events.next().await {
            match event? {
                Event::Rows(mut rows) => while let Some(decoded) = rows.next(&cx).await? {
                    yield admit(&cx, decoded).await?;
                },
                Event::Done(name, place) => {
                    let mut last = Batch::only_positions(Arc::clone(&output), Positions::done(name));
                    last.reservation_mut().merge(place);
                    yield last;
                }
            }
        }
    })
}

fn not_done(
    inputs: BoxStream<'static, Result<Queued>>,
    from: Positions,
) -> BoxStream<'static, Result<Queued>> {
    if from.is_empty() {
        return inputs;
    }
    let is_left = move |queued: &Result<Queued>| {
        future::ready(!queued.as_ref().is_ok_and(|queued| from.is_done(&queued.input.name)))
    };
    inputs.filter(is_left).boxed()
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
    let Queued { input, opened, is_last } = queued?;
    opener.cx.metrics().files_total.add(1);
    let (sender, events) = buffer(EVENTS_PER_FILE);
    let (is_read, name) = (CancellationToken::new(), Arc::clone(&input.name));
    let tasks = opener.cx.tasks().clone();
    let file = FileReader { opener, input, schema, is_read: is_read.clone(), events: sender };
    Ok(Reading { events, is_read, task: tasks.spawn(file.run(opened)), name, is_last })
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
        reading.task.await?;
        reserve.shrink_to(ByteCount::ZERO);
        if reading.is_last {
            // Nobody waits for its place, and the window sees its end only from a free one: a consumer that
            // keeps the last batch would wait for the end for ever.
            drop(std::mem::take(&mut reserve));
        }
        yield Event::Done(reading.name, reserve);
    })
}

/// The task that reads one file.
struct FileReader {
    opener: Arc<Opener>,
    input: Input,
    schema: SchemaRef,
    is_read: CancellationToken,
    events: BufferSender<Result<Event>>,
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
    async fn run(self, opened: Option<Opened>) {
        let cx = &self.opener.cx;
        let result = match self.read(opened).await {
            Ok(()) => {
                cx.metrics().files_done.add(1);
                Ok(())
            }
            Err(Stop::File(error)) => give_up(cx, &self.input, error),
            Err(Stop::Run(error)) => Err(error),
        };
        if let Err(error) = result {
            // Nobody listens any more only when the run is over.
            let _ = self.events.send(Err(error)).await;
        }
    }

    async fn read(&self, opened: Option<Opened>) -> Result<(), Stop> {
        let Self { opener, input, schema, is_read, .. } = self;
        let mut rows = opener.rows(input, opened, schema, is_read).await.map_err(Stop::File)?;
        let mut n_rows = 0;
        while let Some(decoded) = rows.next().await {
            match decoded {
                Ok(decoded) => self.send(decoded, &mut n_rows).await.map_err(Stop::Run)?,
                Err(error) => {
                    let Some(after) = NeedsSpool::of(&error).cloned() else { return Err(Stop::File(error)) };
                    drop(rows);
                    rows = opener.rows_after(input, schema, is_read, after).await.map_err(Stop::File)?;
                }
            }
        }
        Ok(())
    }

    async fn send(&self, decoded: Decoded, n_rows: &mut u64) -> Result<()> {
        let rows = sorted_out(&self.opener.cx, &self.input.name, decoded, n_rows).await?;
        if rows.is_empty() {
            return Ok(());
        }
        self.events.send(Ok(Event::Rows(rows))).await.map_err(|_| Error::cancelled("read"))
    }
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
