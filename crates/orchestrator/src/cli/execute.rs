//! Runs one flow with its lock, its progress, its ledger entry and its last line.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use aqueduct_core::{ErrorKind, Fs, StdFs, is_in_store};
use aqueduct_primitives::ByteCount;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::attempts::Attempts;
use super::begin::Asked;
use super::notify::Notifier;
use super::{Program, exit};
use crate::flow::Flow;
use crate::ledger::Ledger;
use crate::lock::{FlowLock, LockError};
use crate::logging::Console;
use crate::plan::{Plan, plan};
use crate::progress::{self, ProgressKind, grouped};
use crate::report::{Report, Status};
use crate::run::{self, Ended, Failure, Live, Opening, RunOptions};

/// What the system tells of a process is a page.
const MAX_STATUS_BYTES: u64 = 64 << 10;

/// How one flow ended.
pub(super) struct Executed {
    pub(super) code: u8,
    /// `None` when it never began.
    pub(super) report: Option<Report>,
}

/// Runs one flow to its end and says how it went.
pub(super) async fn execute(
    program: &Program,
    asked: Asked<'_>,
    options: RunOptions,
    progress: ProgressKind,
) -> Executed {
    let attempts = Attempts::of(&asked);
    match ready(program, asked) {
        Ok(ready) => Box::pin(carry_out(program, ready, Some(attempts), options, progress)).await,
        Err(code) => Executed { code, report: None },
    }
}

/// Runs a flow that is ready, in several attempts if it may, and says how it went.
pub(super) async fn carry_out(
    program: &Program,
    ready: Ready,
    attempts: Option<Attempts<'_>>,
    options: RunOptions,
    progress: ProgressKind,
) -> Executed {
    let Ready { attempt, lock } = ready;
    say_how_it_writes(&attempt.flow);
    let state_dir = attempt.flow.state_dir.clone();
    let notifier = Notifier::of(&attempt.flow);
    let ended = Box::pin(carry_on(program, attempt, attempts, options, progress)).await;
    let report = masked(ended.report, &program.console);
    let before = || Ledger::new(&StdFs, &state_dir).status_before(&report).ok()?;
    let news = notifier.and_then(|notifier| Some((notifier.event(&report, before)?, notifier)));
    drop(lock);
    let code = say_how_it_ended(program, &report, ended.failure.as_ref());
    keep(program, &StdFs, &state_dir, &report);
    if let Some((event, notifier)) = news {
        notifier.tell(event, &report, &program.console).await;
    }
    Executed { code, report: Some(report) }
}

/// One attempt after the other, until one is the last. All of them are one run, which began with the first.
async fn carry_on(
    program: &Program,
    first: Attempt,
    attempts: Option<Attempts<'_>>,
    options: RunOptions,
    progress: ProgressKind,
) -> Ended {
    let mut ended = first.make(program, options.clone(), progress).await;
    let Some(mut attempts) = attempts else { return ended };
    let (started, resumed_from) = (ended.report.started.clone(), ended.report.resumed_from.clone());
    let Ended { report, failure } = loop {
        match attempts.after(program, ended) {
            ControlFlow::Continue(attempt) => ended = attempt.make(program, options.clone(), progress).await,
            ControlFlow::Break(last) => break last,
        }
    };
    Ended { report: Report { started, resumed_from, rereads: attempts.n_rereads, ..report }, failure }
}

/// A flow that may run now.
pub(super) struct Ready {
    pub(super) attempt: Attempt,
    pub(super) lock: FlowLock,
}

/// A flow and all that one attempt at its run begins with.
pub(super) struct Attempt {
    pub(super) flow: Flow,
    pub(super) plan: Plan,
    pub(super) opening: Opening,
}

impl Attempt {
    /// Runs the flow, and shows how far it is.
    async fn make(self, program: &Program, options: RunOptions, progress: ProgressKind) -> Ended {
        let Self { flow, plan, opening } = self;
        let (console, shown) = (program.console.clone(), CancellationToken::new());
        let show = async |live: Arc<Live>| {
            progress::show(progress, live, console, shown.clone()).await;
        };
        Box::pin(run::run(flow, plan, Some(opening), options, show)).await
    }
}

/// Plans a flow, takes its lock and opens its log; the exit code if that cannot be, said why.
fn ready(program: &Program, asked: Asked<'_>) -> Result<Ready, u8> {
    // What does not fit is refused before anything is touched.
    program.planned(&asked.flow)?;
    let lock = program.lock(&asked.flow.state_dir, &asked.flow.lock_name())?;
    let (flow, opening) = program.begin(asked)?;
    let plan = program.planned(&flow)?;
    Ok(Ready { attempt: Attempt { flow, plan, opening }, lock })
}

impl Program {
    /// The plan of a flow; the exit code if it does not fit its memory, said why.
    pub(super) fn planned(&self, flow: &Flow) -> Result<Plan, u8> {
        plan(flow).map_err(|errors| {
            self.console.line(&errors.to_string());
            exit::WRONG
        })
    }

    /// Takes the lock of a flow; the exit code if that cannot be, said why.
    pub(super) fn lock(&self, state_dir: &Path, name: &str) -> Result<FlowLock, u8> {
        FlowLock::take(&StdFs, state_dir, name).map_err(|error| {
            self.say_error(&error.to_string());
            if matches!(error, LockError::Running { .. }) { exit::RUNNING } else { exit::FAILED }
        })
    }
}

/// Of each output, whether rows replace what is there, and why not.
fn say_how_it_writes(flow: &Flow) {
    for (output, mode) in (0..flow.steps.len()).filter_map(|at| flow.output_of(at)) {
        tracing::info!(flow = %flow.name, memory = %flow.memory, "{}: {}", output.path.display(), mode.sentence());
        if flow.state_store.is_some() && !is_in_store(&output.path) {
            tracing::warn!(path = %output.path.display(), "is on this machine, and the state is not: others that run the flow do not see it");
        }
    }
}

fn say_how_it_ended(program: &Program, report: &Report, failure: Option<&Failure>) -> u8 {
    match failure {
        None => {
            tracing::info!("{}", summary(report));
            exit::DONE
        }
        Some(Failure::Flow(errors)) => {
            program.console.line(&errors.to_string());
            exit::WRONG
        }
        Some(Failure::Interrupted { is_committed: true }) => {
            tracing::warn!("interrupted; what was complete is committed, the next run goes on from there");
            exit::INTERRUPTED
        }
        Some(Failure::Interrupted { is_committed: false }) => {
            tracing::warn!("interrupted; the outputs are as they were");
            exit::INTERRUPTED
        }
        Some(Failure::Error(error)) => {
            program.say_error(&error.chain());
            for output in &report.outputs {
                tracing::warn!(path = %output.path, "public all the same, with {} rows", grouped(output.rows));
            }
            if error.kind() == ErrorKind::Newer { exit::WRONG } else { exit::FAILED }
        }
    }
}

/// One sentence about a run that is done.
fn summary(report: &Report) -> String {
    let mut text =
        format!("done: {} rows in, {} rows out", grouped(report.rows_in), grouped(report.rows_out));
    for (n, what) in [
        (report.rows_rejected, "rows rejected"),
        (report.files_rejected, "files rejected"),
        (report.files_known, "files committed before"),
        (report.rereads, "times begun again for a file that changed"),
        (report.gaps.len() as u64, "missing"),
    ] {
        if n > 0 {
            text.push_str(&format!(", {} {what}", grouped(n)));
        }
    }
    let memory = |bytes| ByteCount::new(bytes).human();
    text.push_str(&format!(
        "; memory {} of {}, resident {}",
        memory(report.memory_peak_bytes),
        memory(report.memory_limit_bytes),
        memory(report.rss_peak_bytes)
    ));
    text
}

/// The report without secrets: whatever text came from outside may hold one.
fn masked(mut report: Report, console: &Console) -> Report {
    report.error = report.error.map(|error| console.masked(&error));
    for text in report
        .gaps
        .iter_mut()
        .chain(&mut report.warnings)
        .chain(report.outputs.iter_mut().map(|output| &mut output.path))
    {
        *text = console.masked(text);
    }
    for value in report.entry.values_mut() {
        *value = console.masked(value);
    }
    report
}

/// Keeps the report in the ledger; a flow that was refused before anything was touched leaves none.
fn keep(program: &Program, fs: &dyn Fs, state_dir: &Path, report: &Report) {
    if let Err(error) = Ledger::new(fs, state_dir).keep(report) {
        let failed = if report.status == Status::Done {
            "the run is done, but its report was not kept"
        } else {
            "the report was not kept"
        };
        program.say_error(&format!("{failed}: {}", error.chain()));
    }
}

/// A file that may not grow any more is an error of the one who writes it: the signal that says so would end the process,
/// unless somebody listens to it once.
pub(super) fn write_errors_instead_of_death() {
    if let Err(error) = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())) {
        tracing::debug!(%error, "a file that is too large will end the process");
    }
}

/// ctrl-c, SIGTERM and the end of the terminal, from the moment this is made: what comes before anybody waits for it is not
/// lost.
pub(super) struct Signals(Vec<Signal>);

impl Signals {
    pub(super) fn listen() -> Self {
        let hangup = (!ignores_hangup()).then(SignalKind::hangup);
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()].into_iter().chain(hangup);
        Self(kinds.filter_map(|kind| signal(kind).ok()).collect())
    }

    /// The first one stops the run; returns at the second, when waiting is over.
    pub(super) async fn stop(mut self, stop: CancellationToken, console: Console) {
        self.next().await;
        console.line("stopping; once more to stop at once");
        stop.cancel();
        self.next().await;
    }

    async fn next(&mut self) {
        let any =
            std::future::poll_fn(|cx| match self.0.iter_mut().any(|one| one.poll_recv(cx).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
        any.await;
    }
}

/// Who started the process wants it to outlive the terminal: `nohup` does.
fn ignores_hangup() -> bool {
    let bit = 1_u64 << (rustix::process::Signal::HUP.as_raw() - 1);
    let status = StdFs.read(Path::new("/proc/self/status"), MAX_STATUS_BYTES).unwrap_or_default();
    let ignored = String::from_utf8_lossy(&status)
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored & bit != 0)
}
