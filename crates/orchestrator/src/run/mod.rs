//! Runs a flow: opens every step, wires them together, drives the sinks, commits, reports.
//!
//! One run owns all its tasks and all its memory. The order of things: memory is carved, outputs are claimed,
//! sources are opened (and only now is every schema known), stages are bound, sinks are opened, rows move,
//! sinks are sealed, outputs are published. An error before the first row leaves nothing behind.

mod again;
mod build;
mod checkpoints;
mod collect;
mod commits;
mod committing;
mod copies;
mod drive;
mod live;
mod panics;
mod rejects;
mod sinks;
mod subset;
mod wire;
mod wiring;

use std::sync::Arc;

use aqueduct_commit::Resumed;
use aqueduct_core::{Clock, Durable, Error, ErrorKind, Mode, ReadAgain, SystemClock};
use aqueduct_net::server::Mounts;
use tokio_util::sync::CancellationToken;

use crate::flow::{Flow, FlowErrors};
use crate::plan::Plan;
use crate::process_memory::{self, ProcessMemory};
use crate::report::{OutputReport, Report, Status, StepReport, timestamp};

use build::Prepared;

pub(crate) use again::{Again, What, over_rejected};
pub(crate) use collect::{CollectSink, Collected};
pub(crate) use commits::Opening;
pub(crate) use live::{Live, LiveStep, Role};
pub(crate) use subset::{collected_at, over_file, with_given};

/// How a run differs from what the flow file says.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunOptions {
    /// Each source gives at most so many rows.
    pub(crate) limit_rows: Option<u64>,
    /// Cancelled when the run is to stop.
    pub(crate) stop: CancellationToken,
    /// What is kept beside what steps keep, by name. A run that has any commits at its end alone.
    pub(crate) at_end: Vec<(String, Arc<Durable>)>,
    /// Where sinks serve what they serve, if anything is served.
    pub(crate) mounts: Option<Mounts>,
    /// How many turns of it were left out.
    pub(crate) turns_skipped: u64,
    /// The process that it shares with other runs; without, its `memory` is all that there is.
    pub(crate) process: Option<Arc<ProcessMemory>>,
    /// Who else watches: is given the live counters once there are any, of each attempt.
    pub(crate) seen_by: Option<Arc<dyn SeesLive>>,
}

/// Who watches runs from outside.
pub(crate) trait SeesLive: std::fmt::Debug + Send + Sync {
    /// These are the counters from now on.
    fn see(&self, live: &Arc<Live>);
}

/// Why a run ended without being done.
pub(crate) enum Failure {
    /// The flow does not fit what was found; nothing was touched.
    Flow(FlowErrors),
    /// It was told to stop.
    Interrupted {
        /// Whether what was complete is committed.
        is_committed: bool,
    },
    /// Something went wrong.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Cancelled => Self::Interrupted { is_committed: false },
            _ => Self::Error(error),
        }
    }
}

/// A run that has ended, or an attempt at it.
pub(crate) struct Ended {
    pub(crate) report: Report,
    pub(crate) failure: Option<Failure>,
}

impl Ended {
    /// What is to be read again, if that is why it ended.
    pub(crate) fn read_again(&self) -> Option<&ReadAgain> {
        match &self.failure {
            Some(Failure::Error(error)) => error.cause(),
            _ => None,
        }
    }

    /// The same, and more to say of why.
    pub(crate) fn with(mut self, key: &'static str, value: impl std::fmt::Display) -> Self {
        if let Some(Failure::Error(error)) = self.failure {
            let error = error.with(key, value);
            self.report.error = Some(error.chain());
            self.failure = Some(Failure::Error(error));
        }
        self
    }
}

/// Runs a flow to its end. Returns when every task of it has ended.
///
/// `watch` is handed the live counters once there are any, and is awaited no longer than the run.
pub(crate) async fn run(
    flow: Flow,
    plan: Plan,
    opening: Option<Opening>,
    options: RunOptions,
    watch: impl AsyncFnOnce(Arc<Live>),
) -> Ended {
    let mut about = About::of(&flow);
    let turns_skipped = options.turns_skipped;
    let process = options.process.clone().unwrap_or_else(|| Arc::new(ProcessMemory::new(flow.memory)));
    let prepared = match Box::pin(Prepared::new(flow, &plan, opening, options.mounts.clone())).await {
        Ok(prepared) => prepared,
        Err(error) => return about.without_steps(error.into()),
    };
    about.goes_on(prepared.commits.resumed());
    let live = Arc::clone(&prepared.live);
    options.seen_by.iter().for_each(|watcher| watcher.see(&live));
    let rejects = Arc::clone(&prepared.rejects);
    let run_context = Arc::clone(&prepared.run);
    let panics = prepared.panics.clone();
    let tasks = prepared.run.tasks.clone();
    let stop_watching = CancellationToken::new();
    let watcher = tasks.spawn(Arc::clone(&live).watch(process, stop_watching.clone()));

    let (outputs, failure) = {
        let mut work = Box::pin(drive::drive(prepared, options));
        let mut shown = std::pin::pin!(watch(Arc::clone(&live)));
        tokio::select! {
            result = &mut work => result,
            () = &mut shown => work.await,
        }
    };
    stop_watching.cancel();
    // A watcher that panicked has only missed a sample.
    let _ = watcher.await;
    tasks.join().await;
    // What is dropped last may panic after the commit, which stands: it is told all the same.
    let failure = match (failure, panics.check()) {
        (None, Err(panic)) => {
            Some(panic.with("state", "committed before it: what was written stands").into())
        }
        (Some(Failure::Interrupted { .. }), Err(panic)) => Some(panic.into()),
        (failure, _) => failure,
    };

    let mut report = about.report(failure.as_ref());
    report.turns_skipped = turns_skipped;
    fill(&mut report, &live, &run_context.notices, outputs);
    report.rejected_by_reason = rejects.by_reason();
    Ended { report, failure }
}

/// What a report says from the start.
struct About {
    run_id: String,
    flow: String,
    entry: std::collections::BTreeMap<String, String>,
    memory_limit_bytes: u64,
    started: String,
    resumed_from: Option<String>,
    mode: String,
}

impl About {
    fn of(flow: &Flow) -> Self {
        Self {
            run_id: flow.run.id.clone(),
            flow: flow.name.clone(),
            entry: flow.entry.iter().cloned().collect(),
            memory_limit_bytes: flow.memory.get(),
            started: timestamp(SystemClock.now()),
            resumed_from: None,
            mode: modes(flow),
        }
    }

    /// A run that goes on began when it began.
    fn goes_on(&mut self, resumed: Option<&Resumed>) {
        if let Some(resumed) = resumed {
            self.started = timestamp(resumed.since);
            self.resumed_from = Some(self.run_id.clone());
        }
    }

    fn without_steps(self, failure: Failure) -> Ended {
        Ended { report: self.report(Some(&failure)), failure: Some(failure) }
    }

    fn report(self, failure: Option<&Failure>) -> Report {
        let (status, error) = match failure {
            None => (Status::Done, None),
            Some(Failure::Interrupted { .. }) => (Status::Interrupted, None),
            Some(Failure::Flow(errors)) => (Status::Failed, Some(errors.to_string())),
            Some(Failure::Error(error)) => (Status::Failed, Some(error.chain())),
        };
        Report {
            run_id: self.run_id,
            flow: self.flow,
            entry: self.entry,
            aqueduct_version: env!("CARGO_PKG_VERSION").to_owned(),
            status,
            error,
            started: self.started,
            finished: timestamp(SystemClock.now()),
            resumed_from: self.resumed_from,
            mode: self.mode,
            rows_in: 0,
            rows_out: 0,
            rows_filtered: 0,
            rows_duplicate: 0,
            rows_rejected: 0,
            files_rejected: 0,
            files_known: 0,
            rejected_by_reason: std::collections::BTreeMap::new(),
            gaps: Vec::new(),
            warnings: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
            memory_limit_bytes: self.memory_limit_bytes,
            memory_peak_bytes: 0,
            allocated_peak_bytes: 0,
            rss_peak_bytes: process_memory::rss_peak_bytes(),
            spilled_bytes: 0,
            retries: 0,
            rereads: 0,
            turns_skipped: 0,
            steps: Vec::new(),
            outputs: Vec::new(),
        }
    }
}

/// How the outputs relate to what was there, each way once.
fn modes(flow: &Flow) -> String {
    let mut modes: Vec<_> =
        (0..flow.steps.len()).filter_map(|at| Some(flow.output_of(at)?.1.mode.name())).collect();
    modes.sort_unstable();
    modes.dedup();
    if modes.is_empty() { Mode::Replace.name().to_owned() } else { modes.join(", ") }
}

fn fill(report: &mut Report, live: &Live, notices: &aqueduct_core::Notices, outputs: Vec<OutputReport>) {
    report.rows_in = live.steps.iter().filter(|step| step.role == Role::Source).map(rows_in).sum();
    report.rows_out = live.sum(Role::Sink, |m| m.rows_out.get());
    report.rows_filtered = live.total(|m| m.rows_filtered.get());
    report.rows_duplicate = live.total(|m| m.rows_duplicate.get());
    report.rows_rejected = live.total(|m| m.rows_rejected.get());
    report.files_rejected = live.total(|m| m.files_rejected.get());
    report.files_known = live.total(|m| m.files_known.get());
    report.bytes_in = live.sum(Role::Source, |m| m.bytes.get());
    report.bytes_out = outputs.iter().map(|output| output.bytes).sum();
    report.memory_peak_bytes = live.reserved_peak().get();
    report.allocated_peak_bytes = live.allocated_peak().get();
    report.rss_peak_bytes = live.rss_peak().get();
    report.spilled_bytes = live.total(|m| m.spilled_bytes.get());
    report.retries = live.total(|m| m.retries.get());
    report.gaps = notices.gaps.first();
    report.warnings = notices.warnings.first();
    report.steps = live.steps.iter().map(step_report).collect();
    report.outputs = outputs;
}

/// Rows that a step was given; of a source, rows read, the bad ones among them.
fn rows_in(step: &LiveStep) -> u64 {
    let metrics = &step.metrics;
    match step.role {
        Role::Source => metrics.rows_read(),
        _ => metrics.rows_in.get(),
    }
}

fn step_report(step: &LiveStep) -> StepReport {
    let metrics = &step.metrics;
    StepReport {
        name: step.name.clone(),
        kind: step.component.to_owned(),
        rows_in: rows_in(step),
        rows_out: metrics.rows_out.get(),
        rows_rejected: metrics.rows_rejected.get(),
        bytes: metrics.bytes.get(),
        busy_ms: u64::try_from(metrics.busy().as_millis()).unwrap_or(u64::MAX),
        memory_peak_bytes: step.share.peak().get(),
        spilled_bytes: metrics.spilled_bytes.get(),
        spilled_raw_bytes: metrics.spilled_raw_bytes.get(),
        spill_merges: metrics.spill_merges.get(),
        counts: metrics.own(),
    }
}
