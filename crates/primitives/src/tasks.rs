//! Tasks with an owner: cancelled when their handle goes, joined before their owner does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{AbortHandle, JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ReserveError;

/// A family of tasks with one owner. Cheap to clone; clones are the same family.
///
/// A task is aborted when its [`Task`] handle is dropped, and every task of the family is waited for by
/// [`Tasks::join`]. Compute jobs run on the blocking pool, at most `n_compute` at once.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    /// Of those, the ones that clear up.
    owed: TaskTracker,
    cancel: CancellationToken,
    compute: Arc<Semaphore>,
}

/// The task ended without a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// It panicked; the message is the panic's own where it had one.
    #[error("a task panicked: {0}")]
    Panicked(String),
    /// It was cancelled.
    #[error("a task was cancelled")]
    Cancelled,
    /// It was never started: the bytes for it can never be had.
    #[error("a task was not started")]
    NotStarted(#[source] ReserveError),
}

impl Tasks {
    /// A family that runs at most `n_compute` compute jobs at once.
    pub fn new(n_compute: usize) -> Self {
        Self {
            tracker: TaskTracker::new(),
            owed: TaskTracker::new(),
            cancel: CancellationToken::new(),
            compute: Arc::new(Semaphore::new(n_compute.max(1))),
        }
    }

    /// Cancelled when the family is to stop.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    /// How many tasks have not ended.
    pub fn n_running(&self) -> usize {
        self.tracker.len()
    }

    /// Starts a task on the current runtime.
    pub fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Task<T> {
        Task::new(self.tracker.spawn(future))
    }

    /// Starts a task that is not aborted when its handle goes, because it must undo what it has begun: delete a file on a
    /// server, say. It learns by a token of its own that nobody needs its result any more, clears up, and ends within a bound
    /// that it sets itself. [`Tasks::join`] waits for it, and so does [`Tasks::join_owed`].
    pub fn spawn_owed<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Owed<T> {
        Owed(self.tracker.spawn(self.owed.track_future(future)))
    }

    /// Waits until every task of [`Tasks::spawn_owed`] has ended: what they clear up with can be closed then.
    pub async fn join_owed(&self) {
        self.owed.close();
        self.owed.wait().await;
        self.owed.reopen();
    }

    /// Runs a closure that computes on the blocking pool, in turn.
    ///
    /// # Cancel safety
    /// A job that has started goes on to its end when the future is dropped; [`Tasks::join`] waits for it. One whose turn
    /// has not come is dropped.
    ///
    /// # Errors
    /// The job panicked, or the runtime stopped.
    pub async fn compute<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TaskError> {
        if let Ok(turn) = Arc::clone(&self.compute).try_acquire_owned() {
            return self.block(in_turn(turn, job)).await;
        }
        // Waited for by a task of its own: a turn given to a future that nobody polls would be a turn less for all others,
        // and whoever is to poll it may be waiting for one.
        let (tasks, turns) = (self.clone(), Arc::clone(&self.compute));
        self.spawn(async move {
            let turn = turns.acquire_owned().await.map_err(|_| TaskError::Cancelled)?;
            tasks.block(in_turn(turn, job)).await
        })
        .await?
    }

    /// Runs a closure that waits for a disk on the blocking pool, at once.
    ///
    /// # Cancel safety
    /// As [`Tasks::compute`].
    ///
    /// # Errors
    /// The job panicked, or the runtime stopped.
    pub async fn block<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TaskError> {
        // What nobody waits for any more is dropped within the job: who joined it finds all memory back.
        let (sender, receiver) = oneshot::channel();
        Task::new(self.tracker.spawn_blocking(move || drop(sender.send(job())))).await?;
        receiver.await.map_err(|_| TaskError::Cancelled)
    }

    /// Tells every task to stop.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits until every task has ended. Nothing is cancelled by it.
    pub async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
        self.tracker.reopen();
    }
}

/// A job that gives its turn back at its end.
fn in_turn<T>(turn: OwnedSemaphorePermit, job: impl FnOnce() -> T) -> impl FnOnce() -> T {
    move || {
        let _turn = turn;
        job()
    }
}

impl Default for Tasks {
    /// As many compute jobs at once as there are processors.
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// A running task. Awaiting it gives its result; dropping it aborts it.
#[must_use = "dropping it aborts the task"]
#[derive(Debug)]
pub struct Task<T> {
    handle: JoinHandle<T>,
    abort: AbortHandle,
}

impl<T> Task<T> {
    fn new(handle: JoinHandle<T>) -> Self {
        let abort = handle.abort_handle();
        Self { handle, abort }
    }

    /// Tells it to stop where it next waits. Awaiting it then gives [`TaskError::Cancelled`], or the result
    /// if that was quicker.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(cx).map_err(ended_without)
    }
}

fn ended_without(error: JoinError) -> TaskError {
    match error.try_into_panic() {
        Ok(panic) => TaskError::Panicked(panic_message(&*panic)),
        Err(_) => TaskError::Cancelled,
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// A running task that is seen through. Awaiting it gives its result; dropping it changes nothing.
#[derive(Debug)]
pub struct Owed<T>(JoinHandle<T>);

impl<T> Future for Owed<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_err(ended_without)
    }
}

/// What a panic says, by what was caught of it.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
