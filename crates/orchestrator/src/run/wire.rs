//! Streams between steps: counted, merged, handed to several readers, and moved onto a task of their own.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use aqueduct_core::{Batch, BatchStream, Error, Positions, ReadAgain, Result, StepMetrics};
use aqueduct_primitives::{Task, Tasks, panic_message};
use arrow::datatypes::{Field, SchemaRef};
use arrow::record_batch::RecordBatch;
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;

/// Batches that wait between two steps. More would hide a slow step behind memory, fewer would let a
/// source and a sink only take turns.
const BATCHES_BETWEEN_STEPS: usize = 1;

/// Counts the rows that pass.
pub(crate) fn counted(
    stream: BatchStream,
    metrics: &Arc<StepMetrics>,
    count: impl Fn(&StepMetrics, u64) + Send + 'static,
) -> BatchStream {
    let metrics = Arc::clone(metrics);
    Box::pin(stream.inspect(move |batch| {
        if let Ok(batch) = batch {
            count(&metrics, batch.num_rows() as u64);
        }
    }))
}

/// The first `n_rows` rows; what follows is not read.
pub(crate) fn first_rows(stream: BatchStream, n_rows: u64) -> BatchStream {
    Box::pin(async_stream::try_stream! {
        let mut stream = stream;
        let mut left = n_rows;
        while left > 0 {
            let Some(batch) = stream.next().await else { break };
            let batch = batch?;
            let keep = usize::try_from(left).unwrap_or(usize::MAX).min(batch.num_rows());
            left -= keep as u64;
            let records = batch.records().slice(0, keep);
            yield if keep == batch.num_rows() { batch } else { batch.with_records(records) };
        }
    })
}

/// Gives every batch to each of `n` readers. A reader that goes away does not hold up the others; a slow
/// one does: nothing is lost.
pub(crate) fn fan_out(stream: BatchStream, n: usize, tasks: &Tasks) -> Vec<BatchStream> {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..n).map(|_| mpsc::channel(BATCHES_BETWEEN_STEPS)).unzip();
    received(forward(stream, senders), receivers, tasks)
}

/// Moves a stream onto a task of its own, so that what comes before and what comes after work at once.
pub(crate) fn on_own_task(stream: BatchStream, tasks: &Tasks) -> BatchStream {
    let (sender, receiver) = mpsc::channel(BATCHES_BETWEEN_STEPS);
    let mut received = received(forward(stream, vec![sender]), vec![receiver], tasks);
    received.pop().unwrap_or_else(|| Box::pin(futures::stream::empty()))
}

fn received(
    work: impl Future<Output = ()> + Send + 'static,
    receivers: Vec<mpsc::Receiver<Result<Batch>>>,
    tasks: &Tasks,
) -> Vec<BatchStream> {
    let task = Arc::new(tasks.spawn(work));
    let receive = |receiver| -> BatchStream { Box::pin(Received { receiver, _task: Arc::clone(&task) }) };
    receivers.into_iter().map(receive).collect()
}

/// Reads to the end and gives everything to all; a panic on the way is an error for all, not an end.
async fn forward(stream: BatchStream, senders: Vec<mpsc::Sender<Result<Batch>>>) {
    let last_words: Vec<_> = senders.iter().map(mpsc::Sender::clone).collect();
    if let Err(panic) = AssertUnwindSafe(share_all(stream, senders)).catch_unwind().await {
        let message = format!("panicked between two steps: {}", panic_message(&*panic));
        for sender in last_words {
            // A reader that is gone needs no telling.
            let _ = sender.send(Err(Error::bug("run", message.clone()))).await;
        }
    }
}

async fn share_all(mut stream: BatchStream, senders: Vec<mpsc::Sender<Result<Batch>>>) {
    let mut senders: Vec<_> = senders.into_iter().map(Some).collect();
    while let Some(item) = stream.next().await {
        let items: Vec<Result<Batch>> = match item {
            Ok(batch) if senders.len() == 1 => vec![Ok(batch)],
            Ok(batch) => batch.share(senders.len()).into_iter().map(Ok).collect(),
            Err(error) => errors_for(error, senders.len()),
        };
        for (sender, item) in senders.iter_mut().zip(items) {
            if let Some(open) = sender
                && open.send(item).await.is_err()
            {
                *sender = None;
            }
        }
        if senders.iter().all(Option::is_none) {
            return;
        }
    }
}

/// The error itself for the first reader, and for the others its words, and what it asks for.
fn errors_for(error: Error, n: usize) -> Vec<Result<Batch>> {
    let told = || Error::new(error.kind(), error.operation(), error.chain());
    let copy = || match error.cause::<ReadAgain>() {
        Some(again) => Err(told().with_source(again.clone())),
        None => Err(told()),
    };
    let copies: Vec<_> = std::iter::repeat_with(copy).take(n.saturating_sub(1)).collect();
    std::iter::once(Err(error)).chain(copies).collect()
}

/// What a task sends; dropping the last of them aborts the task.
struct Received {
    receiver: mpsc::Receiver<Result<Batch>>,
    _task: Arc<Task<()>>,
}

impl Stream for Received {
    type Item = Result<Batch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx)
    }
}

/// Several inputs as one, whichever has something next; the first error ends it. `schema` is what they merge to. The mark
/// of a checkpoint is given once all inputs have given it.
pub(crate) fn merged(mut inputs: Vec<BatchStream>, schema: &SchemaRef) -> BatchStream {
    match inputs.pop() {
        Some(only) if inputs.is_empty() => only,
        last => aligned(inputs.into_iter().chain(last).map(|input| fit(input, Arc::clone(schema))), schema),
    }
}

/// Inputs that stand at a checkpoint give nothing more, so that none has to be held back while the others come there.
fn aligned(inputs: impl Iterator<Item = BatchStream>, schema: &SchemaRef) -> BatchStream {
    let schema = Arc::clone(schema);
    let numbered = |(at, input): (usize, BatchStream)| {
        Box::pin(input.map(Some).chain(futures::stream::iter([None])).map(move |next| (at, next)))
    };
    let mut running: BTreeSet<usize> = BTreeSet::new();
    let inputs: Vec<_> =
        inputs.enumerate().inspect(|(at, _)| _ = running.insert(*at)).map(numbered).collect();
    Box::pin(async_stream::try_stream! {
        let (mut marked, mut mark) = (BTreeSet::new(), None);
        let mut merging = futures::stream::select_all(inputs);
        while let Some((at, next)) = merging.next().await {
            match next {
                None => {
                    running.remove(&at);
                    marked.remove(&at);
                }
                Some(batch) => {
                    let mut batch = batch?;
                    if let Some(n) = batch.take_checkpoint() {
                        mark = Some(n);
                        marked.insert(at);
                    }
                    if batch.num_rows() > 0 || !batch.positions().is_empty() {
                        yield batch;
                    }
                }
            }
            if !running.is_empty() && marked == running && let Some(n) = mark.take() {
                marked.clear();
                yield Batch::only_positions(Arc::clone(&schema), Positions::at_checkpoint(n));
            }
        }
    })
}

/// Brings the columns of each batch into the order of the merged schema.
fn fit(stream: BatchStream, schema: SchemaRef) -> BatchStream {
    Box::pin(stream.map(move |batch| {
        let batch = batch?;
        let records = fit_records(batch.records(), &schema)?;
        Ok(batch.with_records(records))
    }))
}

fn fit_records(records: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| {
        let column = records.column_by_name(field.name()).map(Arc::clone);
        column.ok_or_else(|| Error::bug("merge inputs", "a column is missing").with("column", field.name()))
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let unfit = |error| Error::bug("merge inputs", "columns do not fit").with_source(error);
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(unfit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};

    fn rows(ids: &[i64]) -> Result<Batch> {
        let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
        let records = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        Ok(Batch::new(records, aqueduct_primitives::Reservation::empty()))
    }

    fn mark(n: u64) -> Result<Batch> {
        Ok(Batch::only_positions(rows(&[]).unwrap().schema(), Positions::at_checkpoint(n)))
    }

    /// An input that stands at its mark until it is told to go on.
    fn standing(
        before: Vec<Result<Batch>>,
        go_on: Arc<tokio::sync::Semaphore>,
        after: Vec<Result<Batch>>,
    ) -> BatchStream {
        let stands = futures::stream::once(async move {
            let _go_on = go_on.acquire().await;
            futures::stream::iter(after)
        });
        Box::pin(futures::stream::iter(before).chain(stands.flatten()))
    }

    #[tokio::test]
    async fn a_mark_passes_a_merge_when_the_last_input_has_given_it() {
        let go_on = Arc::new(tokio::sync::Semaphore::new(0));
        let early = standing(vec![mark(1)], Arc::clone(&go_on), vec![rows(&[7]), mark(2)]);
        let late = standing(vec![rows(&[1]), rows(&[2]), mark(1)], Arc::clone(&go_on), vec![mark(2)]);
        let ended: BatchStream = Box::pin(futures::stream::iter([rows(&[3])]));
        let mut merged = merged(vec![early, late, ended], &rows(&[]).unwrap().schema());
        let mut n_rows = 0;
        loop {
            let batch = merged.next().await.unwrap().unwrap();
            n_rows += batch.num_rows();
            if let Some(n) = batch.positions().checkpoint() {
                assert_eq!((n, n_rows), (1, 3), "all rows before the mark, and none after it");
                break;
            }
        }
        go_on.add_permits(2);
        let rest: Vec<_> = merged.map(|batch| batch.unwrap()).collect().await;
        assert_eq!(rest.iter().map(Batch::num_rows).sum::<usize>(), 1);
        let marks: Vec<_> = rest.iter().filter_map(|batch| batch.positions().checkpoint()).collect();
        assert_eq!(marks, [2]);
    }
}
