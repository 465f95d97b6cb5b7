//! The events of a run, for all who watch it: `start`, `progress`, and at its end `complete` or `error`.
//!
//! A run has a stream from when the first one watches it, within a budget that all of them share; the latest events come at
//! once, the stream ends with the run. Of a run that has ended there is one event, which says how. Who is slow is cut off.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aqueduct_net::Secret;
use aqueduct_net::server::{
    Event, EventStream, EventStreamOptions, Refusal, Replay, RequestHead, Streams, Subscriber,
};
use aqueduct_primitives::{Budget, ByteCount, Task, Tasks};
use http::StatusCode;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::api::masked;
use super::{Job, JobStatus, Runs};
use crate::logging::Console;

/// How often those who watch are told how far a run is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// A run that nobody has watched for so many of those has no stream any more.
const UNWATCHED_TICKS: u32 = 30;
/// An event may have so many bytes; one that tells the end leaves the report out if it would have more.
const MAX_EVENT: ByteCount = ByteCount::kib(64);
/// What all streams and their clients may take together.
pub(crate) const EVENTS_BYTES: ByteCount = ByteCount::mib(4);
/// Who watch one run at once.
const MAX_WATCHERS: usize = 200;

/// Lets watchers into the events of runs.
pub(super) struct RunEvents {
    pub(super) runs: Runs,
    pub(super) console: Console,
    pub(super) budget: Budget,
    /// Asked of watchers.
    pub(super) token: Option<Secret>,
    tasks: Tasks,
    handle: Handle,
    closing: CancellationToken,
    open: Mutex<Vec<Open>>,
}

/// A run that is watched.
struct Open {
    id: String,
    stream: EventStream,
    teller: Task<()>,
}

impl RunEvents {
    /// To be called on the runtime that the runs are on.
    pub(super) fn new(runs: Runs, console: Console, budget: Budget, token: Option<Secret>) -> Self {
        Self {
            runs,
            console,
            budget,
            token,
            tasks: Tasks::default(),
            handle: Handle::current(),
            closing: CancellationToken::new(),
            open: Mutex::default(),
        }
    }

    /// Ends all streams, with the last word of runs that have ended.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.tasks.join().await;
    }

    /// The stream of a run.
    fn stream(self: &Arc<Self>, job: &Arc<Job>) -> Result<EventStream, Refusal> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|one| !one.teller.is_finished());
        if let Some(one) = open.iter().find(|one| one.id == job.id) {
            return Ok(one.stream.clone());
        }
        let stream = self.new_stream(job)?;
        let teller = Teller { events: Arc::clone(self), job: Arc::clone(job), stream: stream.clone() };
        let _on_the_runtime = self.handle.enter();
        let teller = self.tasks.spawn(teller.tell());
        open.push(Open { id: job.id.clone(), stream: stream.clone(), teller });
        Ok(stream)
    }

    fn new_stream(&self, job: &Job) -> Result<EventStream, Refusal> {
        let options = EventStreamOptions {
            max_clients: MAX_WATCHERS,
            queue_bytes: MAX_EVENT,
            kept_bytes: MAX_EVENT.saturating_mul(2),
            token: self.token.clone(),
            // How it began, if it has just begun, or else how far it was a moment ago.
            replay: Replay::Latest(2),
            ..EventStreamOptions::default()
        };
        EventStream::new(format!("run {}", job.id), options, self.budget.clone()).map_err(|error| {
            tracing::warn!(run = job.id, error = error.chain(), "no memory for watchers");
            Refusal::busy("too many runs are watched", RETRY_AFTER_SECONDS)
        })
    }
}

/// When a watcher that found no place should come again.
const RETRY_AFTER_SECONDS: u64 = 10;

/// What the server asks.
pub(super) struct RunStreams(pub(super) Arc<RunEvents>);

impl Streams for RunStreams {
    fn subscribe(&self, head: &RequestHead) -> Result<Subscriber, Refusal> {
        let id = head.path.strip_prefix("/runs/").and_then(|rest| rest.strip_suffix("/events"));
        let job = id.and_then(|id| self.0.runs.job(id));
        let job =
            job.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "no such run; GET /runs lists them"))?;
        self.0.stream(&job)?.subscribe(head)
    }
}

/// Tells those who watch a run.
struct Teller {
    events: Arc<RunEvents>,
    job: Arc<Job>,
    stream: EventStream,
}

impl Teller {
    async fn tell(self) {
        let mut changes = self.job.changes();
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        let (mut told, mut n_unwatched) = (None, 0);
        loop {
            let status = *changes.borrow_and_update();
            if told != Some(status) {
                self.status(status).await;
                told = Some(status);
            }
            if status.has_ended() || self.events.closing.is_cancelled() {
                break;
            }
            tokio::select! {
                () = self.events.closing.cancelled() => {}
                changed = changes.changed() => if changed.is_err() { break },
                _ = tick.tick() => {
                    self.progress(status).await;
                    n_unwatched = if self.stream.stats().n_clients == 0 { n_unwatched + 1 } else { 0 };
                    if n_unwatched > UNWATCHED_TICKS {
                        break;
                    }
                }
            }
        }
        self.stream.break_off();
    }

    async fn status(&self, status: JobStatus) {
        let name = match status {
            JobStatus::Waiting => return self.progress(status).await,
            JobStatus::Running => "start",
            JobStatus::Done => "complete",
            JobStatus::Failed | JobStatus::Interrupted => "error",
        };
        let whole = if status.has_ended() { self.events.runs.detail(&self.job).await } else { Value::Null };
        if !self.send(name, whole).await {
            self.send(name, self.events.runs.summary(&self.job)).await;
        }
    }

    async fn progress(&self, status: JobStatus) {
        let mut value = self.job.progress().unwrap_or_else(|| self.events.runs.summary(&self.job));
        value["status"] = status.word().into();
        self.send("progress", value).await;
    }

    /// Whether it was sent: it is there, and not too large.
    async fn send(&self, name: &str, value: Value) -> bool {
        if value.is_null() {
            return false;
        }
        let data = masked(value, &self.events.console).to_string();
        self.stream.send(Event { name, data: data.as_bytes() }).await.is_ok()
    }
}
