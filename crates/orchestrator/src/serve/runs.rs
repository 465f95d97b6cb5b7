//! All runs of a server: asked for, admitted in turn, carried out, kept, told of.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_core::{Clock, Result, SystemClock, run_id};
use aqueduct_primitives::{Budget, ByteCount, Task, Tasks, panic_message};
use async_trait::async_trait;
use futures::FutureExt;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Admitted, Ticket};
use super::metrics::FlowLabels;
use super::{Counts, Job, JobStatus, MAX_KEPT_RUNS, Records, StartRequest};
use crate::flow::{Masks, RunIdentity, Schedule};
use crate::logging::HeldMasks;
use crate::process_memory::{self, ProcessMemory};
use crate::report::Report;
use crate::run::RunOptions;

/// The flows that run again and again, and when, by their files. A file that cannot be read is there with what is wrong: it
/// may be one of them.
pub(crate) type Schedules = BTreeMap<PathBuf, std::result::Result<(String, Schedule), String>>;

/// The flows that can be started.
#[async_trait]
pub(crate) trait Flows: Send + Sync {
    /// All of them, as they stand in lists. Blocks on the disk.
    ///
    /// # Errors
    /// They cannot be listed.
    fn list(&self) -> std::result::Result<Vec<Value>, Refused>;

    /// Those that run again and again. Blocks on the disk.
    ///
    /// # Errors
    /// They cannot be listed.
    fn schedules(&self) -> std::result::Result<Schedules, Refused> {
        Ok(Schedules::new())
    }

    /// What a run would take, if it can be started. Blocks on the disk, reads no secret, touches nothing.
    ///
    /// # Errors
    /// There is no such flow, or something is wrong with it or with what was asked.
    fn check(&self, request: &StartRequest) -> std::result::Result<Wanted, Refused>;

    /// The run is not refused any more: from here on it is shown, and as long as what is given back is there, without what
    /// must not be.
    fn accept(&self, _: &Wanted) -> HeldMasks {
        HeldMasks::default()
    }

    /// Carries a run out, as the name that it has, within the memory that it was admitted with; `goes_on` if an earlier server
    /// began it.
    async fn run(
        &self,
        run: RunIdentity,
        request: &StartRequest,
        (admitted, goes_on): (ByteCount, bool),
        options: RunOptions,
    ) -> Outcome;
}

/// What a run takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Of the server's memory, as long as it runs.
    pub(crate) memory: ByteCount,
    /// What no other run may hold meanwhile.
    pub(crate) locks: Vec<String>,
    /// What must not be shown of it.
    pub(crate) masks: Masks,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) status: JobStatus,
    pub(crate) error: Option<String>,
    /// One for each entry of the flow's matrix that was run.
    pub(crate) reports: Vec<Report>,
}

/// Why a run was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// There is no such flow.
    #[error("{0}")]
    Unknown(String),
    /// The flow is wrong, or what was asked for.
    #[error("{0}")]
    Wrong(String),
    /// Nothing is started here.
    #[error("this server shows a run that was started by hand; `aqueduct serve` starts flows")]
    NotHere,
    /// Nothing is stopped here.
    #[error("this server shows a run that was started by hand; ctrl-c there stops it")]
    NotOurs,
    /// It runs already.
    #[error("the flow is running already, as {id}; wait for it, or cancel it")]
    Busy { id: String },
    /// As many wait as may.
    #[error("{n} runs wait already; the limit is {n}")]
    Full { n: usize },
    /// The server ends.
    #[error("the server is ending")]
    Closing,
    /// The server cannot.
    #[error("{0}")]
    Failed(String),
}

/// What a server allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Runs at once.
    pub(crate) max_runs: usize,
    /// Runs that wait. With more, nobody would see whether theirs will ever come.
    pub(crate) max_waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_runs: 8, max_waiting: 200 }
    }
}

/// The runs of a server. Cheap to clone; clones are the same runs.
#[derive(Clone)]
pub(crate) struct Runs {
    inner: Arc<Inner>,
}

struct Inner {
    flows: Arc<dyn Flows>,
    /// Nothing is kept where runs are only shown.
    records: Option<Records>,
    admission: Admission,
    limits: Limits,
    clock: Arc<dyn Clock>,
    process: Arc<ProcessMemory>,
    tasks: Tasks,
    /// Where runs are carried out: who asks for one may be on a thread that answers requests.
    handle: Handle,
    closing: CancellationToken,
    board: Mutex<Board>,
}

#[derive(Default)]
struct Board {
    /// In the order in which they were asked for.
    jobs: Vec<Arc<Job>>,
    /// Those that have not ended.
    work: HashMap<String, Task<()>>,
    /// How many have ended since the server was started, by status.
    n_ended: HashMap<JobStatus, u64>,
    /// What runs that have ended have counted.
    labels: FlowLabels,
}

/// Which runs are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) limit: usize,
    /// Only runs that were asked for before this one.
    pub(crate) before: Option<String>,
    pub(crate) status: Option<JobStatus>,
    /// Only runs whose name, flow or error holds this text, whatever its case.
    pub(crate) text: Option<String>,
}

/// Some of the runs, the newest first.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) runs: Vec<Value>,
    /// The run before which the next page begins.
    pub(crate) next: Option<String>,
    /// How many match in all.
    pub(crate) total: usize,
}

impl Runs {
    /// The runs that are kept, under this budget; those that had not ended go on. All of them, and those that are started
    /// later from wherever, run on the runtime that this is called on.
    ///
    /// # Errors
    /// What is kept cannot be read.
    pub(crate) async fn open(
        flows: Arc<dyn Flows>,
        records: Option<Records>,
        memory: Budget,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let runs = Self::new(flows, records, memory, limits, clock);
        runs.take_up().await?;
        Ok(runs)
    }

    fn new(
        flows: Arc<dyn Flows>,
        records: Option<Records>,
        memory: Budget,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let inner = Inner {
            flows,
            process: Arc::new(ProcessMemory::new(memory.total())),
            admission: Admission::new(memory, limits.max_runs),
            records,
            limits,
            clock,
            tasks: Tasks::default(),
            handle: Handle::current(),
            closing: CancellationToken::new(),
            board: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Runs that are carried out elsewhere, and only [shown](Self::show) here. Nothing of them is kept.
    pub(crate) fn shown_only(flows: Arc<dyn Flows>, memory: Budget) -> Self {
        Self::new(flows, None, memory, Limits::default(), Arc::new(SystemClock))
    }

    /// Shows a run that begins now. [`Self::has_ended`] is to be called when it has.
    pub(crate) fn show(&self, id: String, flow: &str, memory: ByteCount) -> Arc<Job> {
        let request = StartRequest { flow: flow.to_owned(), ..StartRequest::default() };
        let now = self.inner.clock.now();
        let job = Arc::new(Job::new(id, request, now, Wanted { memory, ..Wanted::default() }));
        job.begin(now);
        self.inner.lock().jobs.push(Arc::clone(&job));
        job
    }

    /// A run that is shown has ended.
    pub(crate) async fn has_ended(&self, job: &Arc<Job>, outcome: Outcome) {
        self.inner.end(job, outcome).await;
    }

    /// Takes up what an earlier server has left.
    async fn take_up(&self) -> Result<()> {
        let inner = &self.inner;
        let mut found = Vec::new();
        if let Some(records) = &inner.records {
            records.each(|record| found.push(Arc::new(Job::of_record(&record))))?;
        }
        found.sort_by_key(|job| job.asked);
        inner.lock().jobs.clone_from(&found);
        for job in found.into_iter().filter(|job| !job.status().has_ended()) {
            let goes_on = job.status() == JobStatus::Running;
            if job.is_cancelled() {
                inner.end(&job, Outcome::interrupted()).await;
                continue;
            }
            match inner.check(&job.request).await {
                Ok(wanted) => {
                    job.hides(inner.flows.accept(&wanted));
                    let ticket = inner.queue(&job, wanted);
                    let work = Arc::clone(inner).carry_out(Arc::clone(&job), ticket, goes_on);
                    inner.spawn(&mut inner.lock(), &job, work);
                }
                Err(refused) => inner.end(&job, Outcome::failed(refused.to_string())).await,
            }
        }
        inner.forget_oldest().await;
        Ok(())
    }

    /// Starts a run, or has it wait for its turn. It is on disk when this returns.
    ///
    /// # Errors
    /// As [`Refused`] says; nothing was touched.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a run that goes on as if it was waited for, or none.
    pub(crate) async fn start(&self, request: StartRequest) -> std::result::Result<Arc<Job>, Refused> {
        let inner = &self.inner;
        let wanted = inner.check(&request).await?;
        let (sender, begun) = oneshot::channel();
        let job = inner.enter(request, wanted, sender)?;
        match begun.await {
            Ok(begun) => begun.map(|()| job),
            Err(_) => Err(Refused::Failed("the run was not begun".to_owned())),
        }
    }

    /// Has a run stop: what is complete is committed, as at ctrl-c. Nothing, if there is no such run.
    pub(crate) async fn cancel(&self, id: &str) -> Option<Arc<Job>> {
        let job = self.job(id)?;
        if job.cancel()
            && let Err(error) = self.inner.keep(&job, None).await
        {
            tracing::warn!(run = id, error = error.chain(), "that it was cancelled is not kept");
        }
        Some(job)
    }

    /// A run by its name.
    pub(crate) fn job(&self, id: &str) -> Option<Arc<Job>> {
        self.inner.lock().jobs.iter().find(|job| job.id == id).cloned()
    }

    /// The reports of a run that has ended.
    pub(crate) async fn reports(&self, id: &str) -> Vec<Report> {
        let (records, id) = (self.inner.records.clone(), id.to_owned());
        let read = self.inner.tasks.block(move || records?.get(&id)).await;
        read.ok().flatten().map(|record| record.reports).unwrap_or_default()
    }

    /// The runs that match, the newest first.
    pub(crate) fn page(&self, query: &Query) -> Page {
        let jobs = self.inner.lock().jobs.clone();
        let text = query.text.as_ref().map(|text| text.to_lowercase());
        let matches = |job: &&Arc<Job>| {
            query.status.is_none_or(|status| job.status() == status)
                && text.as_ref().is_none_or(|text| {
                    job.id.to_lowercase().contains(text) || job.request.flow.to_lowercase().contains(text)
                })
        };
        let newest: Vec<_> = jobs.iter().rev().filter(matches).collect();
        let place = |before: &String| newest.iter().position(|job| job.id == *before);
        let from = query.before.as_ref().map_or(0, |before| place(before).map_or(newest.len(), |at| at + 1));
        let shown: Vec<_> = newest.iter().skip(from).take(query.limit).collect();
        let next = shown.last().filter(|_| from + shown.len() < newest.len()).map(|job| job.id.clone());
        Page { runs: shown.iter().map(|job| self.summary(job)).collect(), next, total: newest.len() }
    }

    /// A run as it stands in lists; one that waits with how many wait before it.
    pub(crate) fn summary(&self, job: &Job) -> Value {
        let mut summary = job.summary();
        if let Some(ticket) = job.ticket() {
            summary["waits_behind"] = json!(self.inner.admission.n_before(ticket));
        }
        summary
    }

    /// All that is known of a run: how far it is, or its final report.
    pub(crate) async fn detail(&self, job: &Job) -> Value {
        let mut detail = self.summary(job);
        detail["set"] = json!(job.shown_set());
        detail["can_cancel"] = json!(self.starts_runs() && !job.status().has_ended());
        if let Some(progress) = job.progress() {
            detail["progress"] = progress;
        }
        if job.status().has_ended() {
            match self.reports(&job.id).await.as_slice() {
                [] => {}
                [report] => detail["report"] = json!(report),
                entries => detail["entries"] = json!(entries),
            }
        }
        detail
    }

    /// The flows that can be started.
    ///
    /// # Errors
    /// They cannot be listed.
    pub(crate) async fn flows(&self) -> std::result::Result<Vec<Value>, Refused> {
        let flows = Arc::clone(&self.inner.flows);
        let listed = self.inner.tasks.block(move || flows.list()).await;
        listed.map_err(|error| Refused::Failed(format!("the flows were not read: {error}")))?
    }

    /// The flows that run again and again.
    ///
    /// # Errors
    /// They cannot be listed.
    pub(super) async fn schedules(&self) -> std::result::Result<Schedules, Refused> {
        let flows = Arc::clone(&self.inner.flows);
        let read = self.inner.tasks.block(move || flows.schedules()).await;
        read.map_err(|error| Refused::Failed(format!("the flows were not read: {error}")))?
    }

    /// One turn of a flow was left out.
    pub(super) fn skipped(&self, flow: &str, n_turns: u64) {
        self.inner.lock().labels.add(flow, Counts { turns_skipped: n_turns, ..Counts::default() });
    }

    /// The server itself: whose memory is how much, how many runs stand where.
    pub(crate) fn about(&self) -> Value {
        let memory = self.memory();
        let by_status = self.n_by_status();
        let n = |status: JobStatus| (status.word(), by_status.get(&status).copied().unwrap_or_default());
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "starts_runs": self.starts_runs(),
            "memory": {
                "limit_bytes": memory.total().get(),
                "reserved_bytes": self.reserved().get(),
                "admitted_bytes": memory.total().saturating_sub(memory.free()).get(),
                "rss_bytes": process_memory::rss_bytes(),
            },
            "max_runs": self.inner.limits.max_runs,
            "runs": HashMap::from(JobStatus::ALL.map(n)),
        })
    }

    /// Those that have not ended.
    pub(crate) fn active(&self) -> Vec<Arc<Job>> {
        self.inner.lock().jobs.iter().filter(|job| !job.status().has_ended()).cloned().collect()
    }

    /// How many stand where: of those that have ended, since the server was started.
    pub(crate) fn n_by_status(&self) -> HashMap<JobStatus, u64> {
        let board = self.inner.lock();
        let mut counts = board.n_ended.clone();
        for job in board.jobs.iter().filter(|job| !job.status().has_ended()) {
            *counts.entry(job.status()).or_default() += 1;
        }
        counts
    }

    /// Whether runs are started here, and not only shown.
    pub(crate) fn starts_runs(&self) -> bool {
        self.inner.records.is_some()
    }

    /// What all runs have reserved now.
    pub(crate) fn reserved(&self) -> ByteCount {
        self.active().into_iter().filter_map(|job| job.live()).map(|live| live.reserved()).sum()
    }

    /// Those that have not ended, with the labels of their flows.
    pub(super) fn labelled(&self) -> Vec<(String, Arc<Job>)> {
        self.inner.lock().labelled()
    }

    /// What has been counted since the server was started, by label of flow.
    pub(super) fn counted(&self) -> BTreeMap<String, Counts> {
        // Under one lock: a run that ends meanwhile would count twice, or not at all.
        let mut board = self.inner.lock();
        let jobs = board.labelled();
        board.labels.with(&jobs)
    }

    /// The budget of all runs.
    pub(crate) fn memory(&self) -> &Budget {
        self.inner.admission.memory()
    }

    /// Starts nothing more, has every run commit what is complete, and waits for them. Those that did not come to their end
    /// are gone on with by the next server.
    pub(crate) async fn close(&self) {
        self.inner.closing.cancel();
        self.active().iter().for_each(|job| job.stop.cancel());
        self.inner.tasks.join().await;
    }
}

impl Board {
    /// Those that have not ended, with the labels of their flows.
    fn labelled(&mut self) -> Vec<(String, Arc<Job>)> {
        let labels = &mut self.labels;
        let active = self.jobs.iter().filter(|job| !job.status().has_ended());
        active.map(|job| (labels.label(&job.request.flow), Arc::clone(job))).collect()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn check(&self, request: &StartRequest) -> std::result::Result<Wanted, Refused> {
        if self.closing.is_cancelled() {
            return Err(Refused::Closing);
        }
        let (flows, request) = (Arc::clone(&self.flows), request.clone());
        let checked = self.tasks.block(move || flows.check(&request)).await;
        checked.map_err(|error| Refused::Failed(format!("the flow was not read: {error}")))?
    }

    /// A run that is listed from now on, and that a task of its own begins; `told` is told when it is kept and has its place.
    fn enter(
        self: &Arc<Self>,
        request: StartRequest,
        wanted: Wanted,
        told: oneshot::Sender<std::result::Result<(), Refused>>,
    ) -> std::result::Result<Arc<Job>, Refused> {
        let mut board = self.lock();
        // Looked at under the lock: who closes looks for those that are listed after it has said so.
        if self.closing.is_cancelled() {
            return Err(Refused::Closing);
        }
        if let Some(other) = board.jobs.iter().find(|job| job.shares_a_lock(&wanted.locks)) {
            return Err(Refused::Busy { id: other.id.clone() });
        }
        let waits = |job: &&Arc<Job>| job.status() == JobStatus::Waiting;
        if board.jobs.iter().filter(waits).count() >= self.limits.max_waiting {
            return Err(Refused::Full { n: self.limits.max_waiting });
        }
        let hidden = self.flows.accept(&wanted);
        let mut asked = self.clock.now();
        while board.jobs.iter().any(|job| job.id == run_id(asked)) {
            asked += chrono::TimeDelta::nanoseconds(1);
        }
        let job = Arc::new(Job::new(run_id(asked), request, asked, wanted.clone()));
        job.hides(hidden);
        board.jobs.push(Arc::clone(&job));
        let work = Arc::clone(self).begin(Arc::clone(&job), wanted, told);
        self.spawn(&mut board, &job, work);
        Ok(job)
    }

    /// Has a task of its own work on a run, which nobody but its end ends.
    fn spawn(&self, board: &mut Board, job: &Job, work: impl Future<Output = ()> + Send + 'static) {
        let _on_the_runtime = self.handle.enter();
        board.work.retain(|_, task| !task.is_finished());
        board.work.insert(job.id.clone(), self.tasks.spawn(work));
    }

    /// Keeps a run that is new, queues it, and carries it out when its turn comes.
    async fn begin(
        self: Arc<Self>,
        job: Arc<Job>,
        wanted: Wanted,
        told: oneshot::Sender<std::result::Result<(), Refused>>,
    ) {
        if let Err(error) = self.keep(&job, None).await {
            self.lock().jobs.retain(|other| other.id != job.id);
            job.end(self.clock.now(), &Outcome::failed(error.chain()));
            drop(told.send(Err(Refused::Failed(error.chain()))));
            return;
        }
        let ticket = self.queue(&job, wanted);
        // Who asked may be gone: the run goes on.
        drop(told.send(Ok(())));
        self.carry_out(job, ticket, false).await;
    }

    /// The place of a run among those that wait.
    fn queue(&self, job: &Job, wanted: Wanted) -> Ticket {
        let ticket = self.admission.queue(wanted.memory);
        job.queued(wanted, ticket.number);
        ticket
    }

    async fn carry_out(self: Arc<Self>, job: Arc<Job>, mut ticket: Ticket, goes_on: bool) {
        let admitted = tokio::select! {
            biased;
            () = job.stop.cancelled() => None,
            admitted = ticket.turn() => Some(admitted),
        };
        drop(ticket);
        match admitted {
            Some(admitted) => self.carry_on(&job, admitted, goes_on).await,
            // On disk it waits: the next server lets it in.
            None if self.closing.is_cancelled() && !job.is_cancelled() => {}
            None => self.end(&job, Outcome::interrupted()).await,
        }
    }

    async fn carry_on(&self, job: &Arc<Job>, admitted: Admitted, goes_on: bool) {
        job.begin(self.clock.now());
        if let Err(error) = self.keep(job, None).await {
            return self.end(job, Outcome::failed(error.chain())).await;
        }
        let options = RunOptions {
            stop: job.stop.clone(),
            process: Some(Arc::clone(&self.process)),
            seen_by: Some(Arc::clone(job) as _),
            ..RunOptions::default()
        };
        let run = RunIdentity { id: job.id.clone(), started: job.asked };
        let work = self.flows.run(run, &job.request, (admitted.bytes(), goes_on), options);
        let outcome = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
            Outcome::failed(format!("a defect: it panicked: {}", panic_message(&*panic)))
        });
        self.end(job, outcome).await;
        drop(admitted);
    }

    /// Tells and keeps how a run has ended. What the server's own end has interrupted is not over: on disk it runs.
    async fn end(&self, job: &Arc<Job>, outcome: Outcome) {
        let is_over =
            outcome.status != JobStatus::Interrupted || !self.closing.is_cancelled() || job.is_cancelled();
        let kept = if is_over { self.keep(job, Some(&outcome)).await } else { Ok(()) };
        if let Err(error) = kept {
            tracing::error!(run = job.id, error = error.chain(), "how it ended is not kept");
        }
        {
            let mut board = self.lock();
            job.end(self.clock.now(), &outcome);
            *board.n_ended.entry(outcome.status).or_default() += 1;
            board.labels.add(&job.request.flow, job.metered());
        }
        self.forget_oldest().await;
    }

    /// Keeps where a run stands, or how it has ended. Where its end is kept nothing else is any more.
    async fn keep(&self, job: &Arc<Job>, ended: Option<&Outcome>) -> Result<()> {
        let Some(records) = self.records.clone() else { return Ok(()) };
        let (job, ended, now) = (Arc::clone(job), ended.cloned(), self.clock.now());
        self.tasks.block(move || job.keep(ended, now, |record| records.keep(record))).await?
    }

    /// Of those that have ended, all beyond the number that is kept.
    async fn forget_oldest(&self) {
        let forgotten = {
            let mut board = self.lock();
            let mut too_many = board.jobs.iter().filter(|job| job.status().has_ended()).count();
            too_many = too_many.saturating_sub(MAX_KEPT_RUNS);
            let mut forgotten = Vec::new();
            board.jobs.retain(|job| {
                let is_kept = forgotten.len() >= too_many || !job.status().has_ended();
                if !is_kept {
                    forgotten.push(job.id.clone());
                }
                is_kept
            });
            forgotten
        };
        let Some(records) = &self.records else { return };
        for id in forgotten {
            if let Err(error) = records.forget(&id) {
                tracing::warn!(run = id, error = error.chain(), "an old run is not forgotten");
            }
        }
    }
}

impl Outcome {
    pub(crate) fn interrupted() -> Self {
        Self { status: JobStatus::Interrupted, error: None, reports: Vec::new() }
    }

    pub(crate) fn failed(error: String) -> Self {
        Self { status: JobStatus::Failed, error: Some(error), reports: Vec::new() }
    }
}
