//! The primitives as one chain: lazy, typed, pulled from its end.

use std::fmt;
use std::future::{Future, ready};
use std::time::Duration;

use futures::future::FutureExt;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};

use crate::{BatchLimits, ByteCount, Charged, TaskError, Tasks, WindowLimit};
use crate::{merge, tap, throttle, try_batch, window, window_ordered};

/// Any error, for pipelines that do not name their own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A stream of items that may be errors, and what is done to them. Nothing runs until the pipeline is ended
/// (`into_stream`, `collect`, `count`, `drain`, `for_each`) and that end is polled.
///
/// One item at a time is on its way, except in `batch`, `window`, `merge` and `buffer`, each of which has a
/// bound of its own. Error items pass every step untouched, at their place in the order; the ends that
/// return a result stop at the first, [`Pipeline::on_error`] decides otherwise.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use aqueduct_primitives::Pipeline;
/// let squares: Vec<u64> = Pipeline::<_>::from_iter(1..=5_u64)
///     .filter(|n| std::future::ready(n % 2 == 1))
///     .map(async |n| n * n)
///     .collect()
///     .await?;
/// assert_eq!(squares, [1, 9, 25]);
/// # Ok::<(), aqueduct_primitives::BoxError>(())
/// # })?;
/// # Ok::<(), aqueduct_primitives::BoxError>(())
/// ```
#[must_use = "nothing runs until it is ended and polled"]
pub struct Pipeline<T, E = BoxError> {
    stream: BoxStream<'static, Result<T, E>>,
}

impl<T: Send + 'static, E: Send + 'static> Pipeline<T, E> {
    /// Begins with a stream of items that may be errors.
    pub fn from_stream(stream: impl Stream<Item = Result<T, E>> + Send + 'static) -> Self {
        Self { stream: stream.boxed() }
    }

    /// Begins with the items of any lazy iterator.
    #[expect(
        clippy::should_implement_trait,
        reason = "the trait's method cannot ask for a lazy, sendable iterator"
    )]
    pub fn from_iter<I>(items: I) -> Self
    where
        I: IntoIterator<Item = T, IntoIter: Send + 'static>,
    {
        Self::from_stream(stream::iter(items.into_iter().map(Ok)))
    }

    /// Each item becomes what `change` makes of it, one after another.
    pub fn map<U, F, Fut>(self, mut change: F) -> Pipeline<U, E>
    where
        U: Send + 'static,
        F: FnMut(T) -> Fut + Send + 'static,
        Fut: Future<Output = U> + Send + 'static,
    {
        self.and_then(move |item| {
            let change = change(item);
            async move { Ok(change.await) }
        })
    }

    /// Each item becomes what `change` makes of it, or an error.
    pub fn and_then<U, F, Fut>(self, change: F) -> Pipeline<U, E>
    where
        U: Send + 'static,
        F: FnMut(T) -> Fut + Send + 'static,
        Fut: Future<Output = Result<U, E>> + Send + 'static,
    {
        Pipeline::from_stream(self.stream.and_then(change))
    }

    /// Drops the items that `keep` is false for.
    pub fn filter<F, Fut>(self, keep: F) -> Self
    where
        F: FnMut(&T) -> Fut + Send + 'static,
        Fut: Future<Output = bool> + Send + 'static,
    {
        Self::from_stream(self.stream.try_filter(keep))
    }

    /// Asks `decide` about each error item: `Ok` drops it and goes on, `Err` is what comes in its place.
    pub fn on_error(self, mut decide: impl FnMut(E) -> Result<(), E> + Send + 'static) -> Self {
        Self::from_stream(self.stream.filter_map(move |item| {
            ready(match item {
                Ok(item) => Some(Ok(item)),
                Err(error) => decide(error).err().map(Err),
            })
        }))
    }

    /// Gathers items: see [`batch`](crate::batch()).
    pub fn batch<W>(self, limits: BatchLimits, weigh: W) -> Pipeline<Vec<T>, E>
    where
        W: FnMut(&T) -> ByteCount + Send + 'static,
    {
        Pipeline::from_stream(try_batch(self.stream, limits, weigh))
    }

    /// Calls `look` on each item and passes it on unchanged.
    pub fn tap(self, mut look: impl FnMut(&T) + Send + 'static) -> Self {
        Self::from_stream(tap(self.stream, move |item| {
            if let Ok(item) = item {
                look(item);
            }
        }))
    }

    /// Lets at most so many items pass in so much time: see [`throttle`](crate::throttle()).
    pub fn throttle(self, n_items: u32, per: Duration) -> Self {
        Self::from_stream(throttle(self.stream, n_items, per))
    }

    /// Everything, waiting for the end. It holds all items: the one end without a bound, for what is known
    /// to be small.
    ///
    /// # Errors
    /// The first error item, as with every end.
    pub async fn collect(self) -> Result<Vec<T>, E> {
        self.stream.try_collect().await
    }

    /// How many items there are.
    ///
    /// # Errors
    /// The first error item.
    pub async fn count(self) -> Result<u64, E> {
        self.stream.try_fold(0, |n_items: u64, _| ready(Ok(n_items + 1))).await
    }

    /// Runs to the end and drops the items.
    ///
    /// # Errors
    /// The first error item.
    pub async fn drain(self) -> Result<(), E> {
        self.for_each(|_| ready(Ok(()))).await
    }

    /// Does `work` with each item, one after another.
    ///
    /// # Errors
    /// The first error item, or the first error of `work`.
    pub async fn for_each<F, Fut>(self, work: F) -> Result<(), E>
    where
        F: FnMut(T) -> Fut + Send,
        Fut: Future<Output = Result<(), E>> + Send,
    {
        self.stream.try_for_each(work).await
    }

    /// The stream itself. Polling goes on after an error item, as long as the caller likes.
    pub fn into_stream(self) -> BoxStream<'static, Result<T, E>> {
        self.stream
    }
}

impl<T: Send + 'static, E: From<TaskError> + Send + 'static> Pipeline<T, E> {
    /// Runs this and the others at once, through one buffer: see [`merge`](crate::merge()).
    pub fn merge(self, others: impl IntoIterator<Item = Self>, capacity: usize, tasks: &Tasks) -> Self {
        let streams = std::iter::once(self).chain(others).map(Self::into_stream);
        Self::from_stream(merge(streams, capacity, tasks).map(|item| item.unwrap_or_else(|e| Err(e.into()))))
    }

    /// Runs what is before it in a task of its own, at most `capacity` items ahead of what is after it.
    pub fn buffer(self, capacity: usize, tasks: &Tasks) -> Self {
        self.merge([], capacity, tasks)
    }

    /// Does `work` on many items at once, results in the order they complete: see
    /// [`window`](crate::window()), also for why a result has to be dropped or
    /// [taken out](Charged::into_inner) before the next one can start.
    pub fn window<U, F, Fut>(self, limit: WindowLimit, tasks: &Tasks, work: F) -> Pipeline<Charged<U>, E>
    where
        U: Send + 'static,
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<U, E>> + Send + 'static,
    {
        Pipeline::from_stream(window(self.stream, limit, tasks, unless_error(work)).map(one_result))
    }

    /// As [`Pipeline::window`], with the results in the order of the items.
    pub fn window_ordered<U, F, Fut>(
        self,
        limit: WindowLimit,
        tasks: &Tasks,
        work: F,
    ) -> Pipeline<Charged<U>, E>
    where
        U: Send + 'static,
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<U, E>> + Send + 'static,
    {
        Pipeline::from_stream(window_ordered(self.stream, limit, tasks, unless_error(work)).map(one_result))
    }
}

/// Lets an error item take its place in a window, and its turn.
fn unless_error<T, U, E, F, Fut>(
    work: F,
) -> impl Fn(Result<T, E>) -> futures::future::Either<Fut, std::future::Ready<Result<U, E>>>
where
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<U, E>>,
{
    move |item| match item {
        Ok(item) => work(item).left_future(),
        Err(error) => ready(Err(error)).right_future(),
    }
}

fn one_result<U, E: From<TaskError>>(
    result: Result<Charged<Result<U, E>>, TaskError>,
) -> Result<Charged<U>, E> {
    let (value, reservation) = result?.into_parts();
    Ok(Charged::new(value?, reservation))
}

impl<T, E> fmt::Debug for Pipeline<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}
