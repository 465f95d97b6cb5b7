//! One run of a server: what was asked for, how far it is, how it ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aqueduct_core::Result;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Outcome, RunRecord, StartRequest, Wanted};
use crate::flow::{HIDDEN, Masks};
use crate::logging::HeldMasks;
use crate::progress;
use crate::report::{Report, Status, timestamp};
use crate::run::{Live, Role, SeesLive};

/// Where a run of a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobStatus {
    /// It is not admitted yet.
    Waiting,
    /// It runs.
    Running,
    /// All rows are committed.
    Done,
    /// It ended with an error.
    Failed,
    /// It was told to stop.
    Interrupted,
}

impl JobStatus {
    /// All there are.
    pub(crate) const ALL: [Self; 5] =
        [Self::Waiting, Self::Running, Self::Done, Self::Failed, Self::Interrupted];

    /// The word in answers.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether nothing more will happen.
    pub(crate) fn has_ended(self) -> bool {
        self > Self::Running
    }
}

impl From<Status> for JobStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Done => Self::Done,
            Status::Failed => Self::Failed,
            Status::Interrupted => Self::Interrupted,
        }
    }
}

/// One run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) request: StartRequest,
    pub(crate) asked: DateTime<Utc>,
    /// Cancelled when it is to stop.
    pub(crate) stop: CancellationToken,
    state: Mutex<State>,
    /// Whether its end is kept on disk. Held while its record is written, so that the last one written is the last one taken.
    is_end_kept: Mutex<bool>,
    /// Sent whenever it stands elsewhere.
    changes: watch::Sender<JobStatus>,
}

#[derive(Debug)]
struct State {
    status: JobStatus,
    wanted: Wanted,
    /// The values that were given for it, as they are shown and kept when it has ended.
    shown_set: BTreeMap<String, String>,
    /// What is not shown of it until it has ended.
    hidden: HeldMasks,
    /// Its place in the queue.
    ticket: Option<u64>,
    is_cancelled: bool,
    started: Option<DateTime<Utc>>,
    began: Option<Instant>,
    finished: Option<DateTime<Utc>>,
    error: Option<String>,
    live: Option<Arc<Live>>,
    /// What the counters stood at when they came: a run that goes on counts from where it was.
    base: Counts,
    /// What earlier attempts, and entries of a matrix, have counted.
    before: Counts,
    /// What its reports say.
    last: Counts,
}

/// The figures of a run that stand in lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) rows_in: u64,
    pub(crate) rows_out: u64,
    pub(crate) rows_rejected: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) retries: u64,
    pub(crate) spilled_bytes: u64,
    /// Of a flow that runs again and again, the turns that were left out.
    pub(crate) turns_skipped: u64,
}

impl Job {
    /// A run that was asked for now.
    pub(crate) fn new(id: String, request: StartRequest, asked: DateTime<Utc>, wanted: Wanted) -> Self {
        let state = State {
            status: JobStatus::Waiting,
            shown_set: masked(&request.set, &wanted.masks),
            hidden: HeldMasks::default(),
            wanted,
            ticket: None,
            is_cancelled: false,
            started: None,
            began: None,
            finished: None,
            error: None,
            live: None,
            base: Counts::default(),
            before: Counts::default(),
            last: Counts::default(),
        };
        let (stop, changes) = (CancellationToken::new(), watch::Sender::new(JobStatus::Waiting));
        Self { id, request, asked, stop, state: Mutex::new(state), is_end_kept: Mutex::default(), changes }
    }

    /// A run as an earlier server left it.
    pub(crate) fn of_record(record: &RunRecord) -> Self {
        let job = Self::new(record.id.clone(), record.request.clone(), record.asked, Wanted::default());
        {
            let mut state = job.lock();
            if !record.status.has_ended() {
                // What of it is secret is known when its flow is read.
                state.shown_set.values_mut().for_each(|value| HIDDEN.clone_into(value));
            }
            state.status = record.status;
            state.is_cancelled = record.is_cancelled;
            state.started = record.started;
            state.finished = record.finished;
            state.error.clone_from(&record.error);
            state.last = Counts::of(&record.reports);
        }
        job.changes.send_replace(record.status);
        job
    }

    pub(crate) fn status(&self) -> JobStatus {
        self.lock().status
    }

    /// Tells each change of where it stands.
    pub(crate) fn changes(&self) -> watch::Receiver<JobStatus> {
        self.changes.subscribe()
    }

    /// Whether somebody asked for its end, other than the server's own.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.lock().is_cancelled
    }

    /// Has it stop, because somebody asked for it. Whether it had not ended.
    pub(crate) fn cancel(&self) -> bool {
        {
            let mut state = self.lock();
            if state.status.has_ended() {
                return false;
            }
            state.is_cancelled = true;
        }
        self.stop.cancel();
        true
    }

    /// It waits here, for so much.
    pub(crate) fn queued(&self, wanted: Wanted, ticket: u64) {
        let mut state = self.lock();
        state.shown_set = masked(&self.request.set, &wanted.masks);
        (state.status, state.wanted, state.ticket) = (JobStatus::Waiting, wanted, Some(ticket));
    }

    /// This is not shown until it has ended.
    pub(crate) fn hides(&self, hidden: HeldMasks) {
        self.lock().hidden = hidden;
    }

    /// The values that were given for it, without those that are secret.
    pub(crate) fn shown_set(&self) -> BTreeMap<String, String> {
        self.lock().shown_set.clone()
    }

    /// Its place in the queue, while it waits.
    pub(crate) fn ticket(&self) -> Option<u64> {
        self.lock().ticket
    }

    /// Whether it may not run beside one that holds these locks.
    pub(crate) fn shares_a_lock(&self, locks: &[String]) -> bool {
        let state = self.lock();
        !state.status.has_ended() && state.wanted.locks.iter().any(|lock| locks.contains(lock))
    }

    /// It runs from now on.
    pub(crate) fn begin(&self, now: DateTime<Utc>) {
        {
            let mut state = self.lock();
            (state.status, state.ticket) = (JobStatus::Running, None);
            state.started.get_or_insert(now);
            state.began = Some(Instant::now());
        }
        self.changes.send_replace(JobStatus::Running);
    }

    /// It has ended. Of what it counted the sums are kept.
    pub(crate) fn end(&self, now: DateTime<Utc>, outcome: &Outcome) {
        {
            let mut state = self.lock();
            state.status = outcome.status;
            state.finished = Some(now);
            state.error.clone_from(&outcome.error);
            state.last = Counts::of(&outcome.reports);
            state.before = state.metered();
            (state.live, state.ticket) = (None, None);
            state.hidden = HeldMasks::default();
        }
        self.changes.send_replace(outcome.status);
    }

    /// The live counters, while there are any.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.lock().live.clone()
    }

    /// What it has counted so far.
    pub(crate) fn counts(&self) -> Counts {
        let state = self.lock();
        state.live.as_deref().map_or(state.last, Counts::of_live)
    }

    /// What it has counted in this process, over all attempts.
    pub(crate) fn metered(&self) -> Counts {
        self.lock().metered()
    }

    /// Has `write` keep where it stands, or how it has ended, with nobody else writing meanwhile. Nothing, once its end is kept.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// As `write`.
    pub(crate) fn keep(
        &self,
        ended: Option<Outcome>,
        now: DateTime<Utc>,
        write: impl FnOnce(&RunRecord) -> Result<()>,
    ) -> Result<()> {
        let mut is_end_kept = self.is_end_kept.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_end_kept {
            return Ok(());
        }
        *is_end_kept = ended.is_some();
        let left = self.record();
        write(&match ended {
            None => left,
            Some(Outcome { status, error, reports }) => {
                // It is not begun again: nobody needs what is secret of it.
                let request = StartRequest { set: self.shown_set(), ..left.request };
                RunRecord { request, status, finished: Some(now), error, reports, ..left }
            }
        })
    }

    fn record(&self) -> RunRecord {
        let state = self.lock();
        RunRecord {
            id: self.id.clone(),
            request: self.request.clone(),
            asked: self.asked,
            status: state.status,
            is_cancelled: state.is_cancelled,
            started: state.started,
            finished: state.finished,
            error: state.error.clone(),
            reports: Vec::new(),
        }
    }

    /// As it stands in lists.
    pub(crate) fn summary(&self) -> Value {
        let counts = self.counts();
        let state = self.lock();
        let time = |at: Option<DateTime<Utc>>| at.map(timestamp);
        json!({
            "id": self.id, "flow": self.request.flow, "status": state.status,
            "cancelled": state.is_cancelled,
            "asked": timestamp(self.asked), "started": time(state.started), "finished": time(state.finished),
            "error": state.error, "memory_bytes": state.wanted.memory.get(),
            "rows_in": counts.rows_in, "rows_out": counts.rows_out, "rows_rejected": counts.rows_rejected,
            "bytes_in": counts.bytes_in, "bytes_out": counts.bytes_out,
        })
    }

    /// How far it is; nothing, where it does not run.
    pub(crate) fn progress(&self) -> Option<Value> {
        let (live, elapsed) = {
            let state = self.lock();
            (state.live.clone()?, state.began.map_or(Duration::ZERO, |began| began.elapsed()))
        };
        Some(progress::value(&live, elapsed))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Values without what must not be shown; the variables of a secret name are known to the masks.
fn masked(set: &BTreeMap<String, String>, masks: &Masks) -> BTreeMap<String, String> {
    set.iter().map(|(name, value)| (name.clone(), masks.mask(value))).collect()
}

impl SeesLive for Job {
    fn see(&self, live: &Arc<Live>) {
        let mut state = self.lock();
        state.before = state.metered();
        state.base = Counts::of_live(live);
        state.live = Some(Arc::clone(live));
    }
}

impl State {
    fn metered(&self) -> Counts {
        let now = self.live.as_deref().map_or(self.base, Counts::of_live);
        self.before.plus(now.minus(self.base))
    }
}

impl Counts {
    /// The sums of both.
    pub(crate) fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    fn minus(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    fn with(self, other: Self, of: fn(u64, u64) -> u64) -> Self {
        Self {
            rows_in: of(self.rows_in, other.rows_in),
            rows_out: of(self.rows_out, other.rows_out),
            rows_rejected: of(self.rows_rejected, other.rows_rejected),
            bytes_in: of(self.bytes_in, other.bytes_in),
            bytes_out: of(self.bytes_out, other.bytes_out),
            retries: of(self.retries, other.retries),
            spilled_bytes: of(self.spilled_bytes, other.spilled_bytes),
            turns_skipped: of(self.turns_skipped, other.turns_skipped),
        }
    }

    fn of_live(live: &Live) -> Self {
        Self {
            rows_in: live.sum(Role::Source, |m| m.rows_read()),
            rows_out: live.sum(Role::Sink, |m| m.rows_out.get()),
            rows_rejected: live.total(|m| m.rows_rejected.get()),
            bytes_in: live.sum(Role::Source, |m| m.bytes.get()),
            bytes_out: live.sum(Role::Sink, |m| m.bytes.get()),
            retries: live.total(|m| m.retries.get()),
            spilled_bytes: live.total(|m| m.spilled_bytes.get()),
            turns_skipped: 0,
        }
    }

    fn of(reports: &[Report]) -> Self {
        let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum();
        Self {
            rows_in: sum(|report| report.rows_in),
            rows_out: sum(|report| report.rows_out),
            rows_rejected: sum(|report| report.rows_rejected),
            bytes_in: sum(|report| report.bytes_in),
            bytes_out: sum(|report| report.bytes_out),
            retries: sum(|report| report.retries),
            spilled_bytes: sum(|report| report.spilled_bytes),
            turns_skipped: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_written_one_at_a_time_and_none_after_the_end() {
        let job = Job::new("r1".to_owned(), StartRequest::default(), Utc::now(), Wanted::default());
        let mut written = Vec::new();
        let mut keep = |ended| {
            job.keep(ended, Utc::now(), |record| {
                assert!(job.is_end_kept.try_lock().is_err());
                written.push(record.status);
                Ok(())
            })
        };
        keep(None).unwrap();
        keep(Some(Outcome::failed("no".to_owned()))).unwrap();
        // Told to stop a moment too late.
        keep(None).unwrap();
        assert_eq!(written, [JobStatus::Waiting, JobStatus::Failed]);
    }
}
