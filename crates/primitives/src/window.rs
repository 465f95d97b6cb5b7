//! A sliding window: many inputs, a few tasks at once, and none more until the consumer is done with a result.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{Stream, StreamExt};
use tokio::sync::Semaphore;

use crate::{Budget, ByteCount, Charged, Reservation, Task, TaskError, Tasks};

/// How much a [`window`] does at once.
#[derive(Clone, Debug)]
pub struct WindowLimit {
    n_tasks: usize,
    bytes: Option<(Budget, ByteCount)>,
}

impl WindowLimit {
    /// At most so many tasks that run or whose result the consumer still has; at least one.
    pub fn tasks(n_tasks: usize) -> Self {
        Self { n_tasks: n_tasks.clamp(1, Semaphore::MAX_PERMITS), bytes: None }
    }

    /// Also waits for so many bytes of the budget before each task starts. They travel with the result:
    /// who knows its true size may [shrink](Reservation::shrink_to) the reservation to it.
    #[must_use]
    pub fn with_bytes(self, budget: &Budget, per_task: ByteCount) -> Self {
        Self { bytes: Some((budget.clone(), per_task)), ..self }
    }
}

/// Runs `work` on every input, at most `limit` at once, and gives the results in the order they complete.
///
/// A result comes with its place in the window: the next task starts only when a result has been *dropped*,
/// not when it was produced or taken. The place is attached to the [`Charged`] result's reservation. Whoever
/// wants it free earlier takes the value out ([`Charged::into_inner`]); whoever wants it held longer, as long
/// as data made of the result lives, merges the reservation into that data's own
/// ([`Charged::into_parts`], [`Reservation::merge`]). A consumer that keeps all `limit` results and waits for
/// another, or for the end, therefore waits for ever.
///
/// Inputs are pulled one at a time, when there is a place for one: a list of a million is never held. While
/// nobody polls the window what runs goes on, in tasks of the family `tasks`, and nothing new starts.
/// Nothing starts before the first poll.
///
/// # Errors
/// A task that panics is an error item, and so is one whose bytes the whole budget does not have; the others
/// go on.
///
/// # Cancel safety
/// Dropping the window aborts its tasks; [`Window::shutdown`] or [`Tasks::join`] waits until they are gone.
pub fn window<S, F, Fut>(inputs: S, limit: WindowLimit, tasks: &Tasks, work: F) -> Window<Fut::Output>
where
    S: Stream<Item: Send + 'static> + Send + 'static,
    F: Fn(S::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Send + 'static> + Send + 'static,
{
    let running = Running::Any(FuturesUnordered::new());
    Window { starts: Some(starts(inputs, limit, tasks.clone(), work)), running }
}

/// As [`window`], with the results in the order of the inputs: one that is early waits, in its place, for
/// those before it.
pub fn window_ordered<S, F, Fut>(inputs: S, limit: WindowLimit, tasks: &Tasks, work: F) -> Window<Fut::Output>
where
    S: Stream<Item: Send + 'static> + Send + 'static,
    F: Fn(S::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Send + 'static> + Send + 'static,
{
    let running = Running::Ordered(VecDeque::new());
    Window { starts: Some(starts(inputs, limit, tasks.clone(), work)), running }
}

/// The results of a [`window`] or [`window_ordered`].
#[must_use = "nothing starts until it is polled"]
pub struct Window<T> {
    /// Each item is a task that has just been started. `None` once there are no more.
    starts: Option<BoxStream<'static, Start<T>>>,
    running: Running<T>,
}

type Start<T> = Result<Task<Charged<T>>, TaskError>;

enum Running<T> {
    Any(FuturesUnordered<Task<Charged<T>>>),
    Ordered(VecDeque<Task<Charged<T>>>),
}

impl<T> Window<T> {
    /// How many tasks run, or have a result that was not taken yet.
    pub fn n_running(&self) -> usize {
        match &self.running {
            Running::Any(tasks) => tasks.len(),
            Running::Ordered(tasks) => tasks.len(),
        }
    }

    /// Stops early: aborts what runs and waits until it is gone. What it would have given is dropped.
    pub async fn shutdown(mut self) {
        self.starts = None;
        let tasks: Vec<_> = match self.running {
            Running::Any(tasks) => tasks.into_iter().collect(),
            Running::Ordered(tasks) => tasks.into(),
        };
        tasks.iter().for_each(Task::abort);
        for task in tasks {
            drop(task.await);
        }
    }

    fn poll_start(&mut self, cx: &mut Context<'_>) -> Poll<Option<Start<T>>> {
        let Some(starts) = &mut self.starts else { return Poll::Ready(None) };
        let start = std::task::ready!(starts.poll_next_unpin(cx));
        if start.is_none() {
            self.starts = None;
        }
        Poll::Ready(start)
    }
}

impl<T: Send + 'static> Stream for Window<T> {
    type Item = Result<Charged<T>, TaskError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Poll::Ready(Some(start)) = self.poll_start(cx) {
            match start {
                Ok(task) => self.running.push(task),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        match self.running.poll_next(cx) {
            Poll::Ready(None) if self.starts.is_some() => Poll::Pending,
            result => result,
        }
    }
}

impl<T> Running<T> {
    fn push(&mut self, task: Task<Charged<T>>) {
        match self {
            Self::Any(tasks) => tasks.push(task),
            Self::Ordered(tasks) => tasks.push_back(task),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Charged<T>, TaskError>>> {
        match self {
            Self::Any(tasks) => tasks.poll_next_unpin(cx),
            Self::Ordered(tasks) => {
                let Some(first) = tasks.front_mut() else { return Poll::Ready(None) };
                let result = std::task::ready!(Pin::new(first).poll(cx));
                tasks.pop_front();
                Poll::Ready(Some(result))
            }
        }
    }
}

impl<T> fmt::Debug for Window<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("n_running", &self.n_running())
            .field("has_inputs", &self.starts.is_some())
            .finish()
    }
}

/// Starts one task for each item that is asked of it.
fn starts<S, F, Fut>(
    inputs: S,
    limit: WindowLimit,
    tasks: Tasks,
    work: F,
) -> BoxStream<'static, Start<Fut::Output>>
where
    S: Stream<Item: Send + 'static> + Send + 'static,
    F: Fn(S::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Send + 'static> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limit.n_tasks));
    let starter =
        Starter { inputs: Box::pin(inputs), slots, bytes: limit.bytes, tasks, work: Arc::new(work) };
    stream::unfold(starter, |mut starter| async move { Some((starter.start_next().await?, starter)) }).boxed()
}

struct Starter<S, F> {
    inputs: Pin<Box<S>>,
    slots: Arc<Semaphore>,
    bytes: Option<(Budget, ByteCount)>,
    tasks: Tasks,
    work: Arc<F>,
}

impl<S, F, Fut> Starter<S, F>
where
    S: Stream<Item: Send + 'static> + Send,
    F: Fn(S::Item) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Send + 'static> + Send + 'static,
{
    /// First a place, then an input, then its bytes: nobody waits for an input while holding bytes that
    /// others need, and inputs get their bytes in order.
    async fn start_next(&mut self) -> Option<Start<Fut::Output>> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        let input = self.inputs.next().await?;
        let mut reservation = match &self.bytes {
            None => Reservation::empty(),
            Some((budget, per_task)) => match budget.reserve(*per_task).await {
                Ok(reservation) => reservation,
                Err(error) => return Some(Err(TaskError::NotStarted(error))),
            },
        };
        reservation.attach(slot);
        let work = Arc::clone(&self.work);
        // The task owns its place: however it ends, the place is free only when the work is gone.
        Some(Ok(self.tasks.spawn(async move { Charged::new(work(input).await, reservation) })))
    }
}
