//! Items gathered into batches by count, by bytes and by time.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use futures::stream::{self, Fuse, Stream, StreamExt};
use tokio::time::{Instant, timeout_at};

use crate::ByteCount;

/// When a batch is full; whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// It has so many items; at least one.
    pub max_items: usize,
    /// One more item would bring it over so many bytes. An item that is larger alone is a batch alone.
    pub max_bytes: ByteCount,
    /// Its first item came so long ago.
    pub every: Option<Duration>,
}

impl Default for BatchLimits {
    /// 500 items or 25 MB, however long it takes.
    fn default() -> Self {
        Self { max_items: 500, max_bytes: ByteCount::mb(25), every: None }
    }
}

/// Gathers items into batches, in order. No batch is empty; the last one may be small. `weigh` says how many
/// bytes an item holds.
///
/// Holds one batch and at most one item beyond it.
pub fn batch<S, W>(stream: S, limits: BatchLimits, mut weigh: W) -> impl Stream<Item = Vec<S::Item>> + Send
where
    S: Stream<Item: Send> + Send,
    W: FnMut(&S::Item) -> ByteCount + Send,
{
    let sound = stream.map(Ok::<_, Infallible>);
    try_batch(sound, limits, move |item| weigh(item)).map(|batch| match batch {
        Ok(items) => items,
        Err(never) => match never {},
    })
}

/// As [`batch`], over items that may be errors: an error ends the batch before it and comes right after it.
pub fn try_batch<S, T, E, W>(
    stream: S,
    limits: BatchLimits,
    weigh: W,
) -> impl Stream<Item = Result<Vec<T>, E>> + Send
where
    S: Stream<Item = Result<T, E>> + Send,
    T: Send,
    E: Send,
    W: FnMut(&T) -> ByteCount + Send,
{
    let batcher = Batcher { stream: Box::pin(stream.fuse()), limits, weigh, held: None };
    stream::unfold(batcher, |mut batcher| async move { Some((batcher.next_batch().await?, batcher)) })
}

struct Batcher<S: Stream, W> {
    stream: Pin<Box<Fuse<S>>>,
    limits: BatchLimits,
    weigh: W,
    /// What came after the last batch was full.
    held: Option<S::Item>,
}

impl<S, T, E, W> Batcher<S, W>
where
    S: Stream<Item = Result<T, E>> + Send,
    T: Send,
    E: Send,
    W: FnMut(&T) -> ByteCount + Send,
{
    async fn next_batch(&mut self) -> Option<Result<Vec<T>, E>> {
        let first = match self.held.take() {
            Some(held) => held,
            None => self.stream.next().await?,
        };
        let first = match first {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let deadline = self.limits.every.and_then(|every| Instant::now().checked_add(every));
        let mut bytes = (self.weigh)(&first);
        let mut items = vec![first];
        while items.len() < self.limits.max_items && bytes < self.limits.max_bytes {
            let Some(next) = self.next_before(deadline).await else { break };
            let weight = next.as_ref().map_or(ByteCount::ZERO, &mut self.weigh);
            bytes = bytes.saturating_add(weight);
            match next {
                Ok(item) if bytes <= self.limits.max_bytes => items.push(item),
                next => {
                    self.held = Some(next);
                    break;
                }
            }
        }
        Some(Ok(items))
    }

    /// The next item, unless the stream ends or the time is up.
    async fn next_before(&mut self, deadline: Option<Instant>) -> Option<Result<T, E>> {
        match deadline {
            None => self.stream.next().await,
            Some(deadline) => timeout_at(deadline, self.stream.next()).await.ok().flatten(),
        }
    }
}
