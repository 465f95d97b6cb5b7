//! What the conformance suites share: cases over a registry list, and one message that names all that is wrong.
//!
//! A suite is a list of components and a table of fixtures. Each case is a `#[test]` of its own, which tries
//! every fixture in turn, each in [surroundings](room::Room) of its own, and fails once, at the end, with a line
//! for every component that does not keep the promise. Time stands still in a trial and moves on only when
//! nothing else does: what waits for ever is found at once, and nothing has to sleep. What hangs in a job that blocks
//! is found by a deadline on the wall.

pub(crate) mod room;
mod rows;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use aqueduct_core::{ComponentInfo, Error, Problem, RunContext, SinkFactory, SourceFactory, StageFactory};
use aqueduct_primitives::Budget;

pub(crate) use rows::same_rows;
pub use rows::texts;

/// So much later, on a clock that moves only when nothing else does, a trial hangs.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A trial hangs after so long on the wall, too: while a blocking job runs, no clock moves on by itself. Less than a
/// test may take, so that whoever looks is told which component it was.
const DEADLINE: Duration = Duration::from_secs(90);

/// How often, on the wall, somebody looks whether a trial has come to rest.
const LOOK: Duration = Duration::from_millis(1);

/// What is said of a trial in which nothing moves any more.
const HANGS: &str = "it waits for ever: nothing moves any more";

/// How a trial ended.
pub type Verdict = Result<(), Objection>;

/// Why a trial did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// The component breaks its promise, or the fixture is not as the suite needs it.
    Wrong(String),
    /// The case says nothing about this component, for a reason.
    DoesNotApply(&'static str),
}

impl From<Error> for Objection {
    fn from(error: Error) -> Self {
        Self::Wrong(format!("unexpected error: {}", error.chain()))
    }
}

impl From<std::io::Error> for Objection {
    fn from(error: std::io::Error) -> Self {
        Self::Wrong(format!("the trial's own files: {error}"))
    }
}

impl From<Vec<Problem>> for Objection {
    fn from(problems: Vec<Problem>) -> Self {
        let one = |problem: &Problem| format!("`{}` {}", problem.pointer, problem.message);
        Self::Wrong(format!("options: {}", problems.iter().map(one).collect::<Vec<_>>().join("; ")))
    }
}

/// Ends a trial unless something is so.
macro_rules! ensure {
    ($is_so:expr, $($told:tt)+) => {
        if !$is_so {
            return Err($crate::suite::Objection::Wrong(format!($($told)+)));
        }
    };
}
pub(crate) use ensure;

/// The kinds of component, as a suite sees them.
pub trait Component: Send + Sync {
    /// `source`, `stage` or `sink`.
    const KIND: &'static str;

    /// Its name and how it is used.
    fn info(&self) -> &ComponentInfo;
}

impl Component for dyn SourceFactory {
    const KIND: &'static str = "source";

    fn info(&self) -> &ComponentInfo {
        SourceFactory::info(self)
    }
}

impl Component for dyn StageFactory {
    const KIND: &'static str = "stage";

    fn info(&self) -> &ComponentInfo {
        StageFactory::info(self)
    }
}

impl Component for dyn SinkFactory {
    const KIND: &'static str = "sink";

    fn info(&self) -> &ComponentInfo {
        SinkFactory::info(self)
    }
}

/// A row of a table of fixtures.
pub trait Row {
    /// The component that it is for.
    fn component(&self) -> &'static str;

    /// Which of several fixtures of the component; may be empty.
    fn variant(&self) -> &'static str;
}

/// A fixture is a row by its own `component` and `variant`.
macro_rules! row {
    ($fixture:ty) => {
        impl $crate::suite::Row for $fixture {
            fn component(&self) -> &'static str {
                self.component
            }

            fn variant(&self) -> &'static str {
                self.variant
            }
        }
    };
}
pub(crate) use row;

/// Makes `suite()` and one `#[test]` of every case: what `source_suite!` and its siblings come to. The list of cases
/// comes last, out of `source_cases!` and its siblings.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($suite:ident, $components:expr, $fixtures:expr, $services:expr; $($case:ident,)+) => {
        fn suite() -> $crate::$suite::Suite {
            $crate::$suite::Suite {
                components: $components,
                fixtures: $fixtures(),
                services: $services,
                file: file!(),
            }
        }

        #[test]
        fn every_component_has_a_fixture() {
            suite().every_component_has_a_fixture();
        }

        $(
            #[test]
            fn $case() {
                $crate::$suite::judge(suite(), stringify!($case), $crate::$suite::$case);
            }
        )+
    };
}

/// A registry list and its fixtures.
pub struct Suite<C: ?Sized + 'static, F> {
    /// All components of a kind.
    pub components: &'static [&'static C],
    /// The table: at least one row for each component.
    pub fixtures: Vec<F>,
    /// Puts clients and pools into the context of every trial.
    pub services: fn(&mut RunContext),
    /// The file that holds the table.
    pub file: &'static str,
}

impl<C: Component + ?Sized, F: Row> Suite<C, F> {
    /// Tries every fixture.
    ///
    /// # Panics
    /// Some component breaks the promise: every one is named, with the case.
    pub(crate) fn judge(self, case: &str, trial: impl Fn(&'static C, F) -> Verdict) {
        let mut wrong = Vec::new();
        for fixture in self.fixtures {
            let Some(component) = find(self.components, fixture.component()) else { continue };
            let of = label::<C>(&fixture);
            match trial(component, fixture) {
                Ok(()) => {}
                Err(Objection::DoesNotApply(reason)) => skipped(&of, case, reason),
                Err(Objection::Wrong(told)) => wrong.push(format!("{of}, case `{case}`: {told}")),
            }
        }
        assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    }

    /// Compares the table with the list.
    ///
    /// # Panics
    /// A component has no fixture, or a fixture no component.
    pub fn every_component_has_a_fixture(&self) {
        let (fixtures, file, kind) = (&self.fixtures, self.file, C::KIND);
        let has = |name: &str| fixtures.iter().any(|fixture| fixture.component() == name);
        let names = self.components.iter().map(|component| component.info().name);
        let missing = names.filter(|name| !has(name)).map(|name| {
            format!("{kind} `{name}` has no fixture: add a row for it to the table `fixtures` in {file}")
        });
        let stale = fixtures
            .iter()
            .filter(|fixture| find(self.components, fixture.component()).is_none())
            .map(|fixture| format!("{} in {file}: there is no such {kind} in the list", label::<C>(fixture)));
        let wrong: Vec<_> = missing.chain(stale).collect();
        assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    }
}

fn find<C: Component + ?Sized>(components: &[&'static C], name: &str) -> Option<&'static C> {
    components.iter().find(|component| component.info().name == name).copied()
}

/// What a fixture is called in messages.
fn label<C: Component + ?Sized>(fixture: &impl Row) -> String {
    let (kind, name) = (C::KIND, fixture.component());
    match fixture.variant() {
        "" => format!("{kind} `{name}`"),
        variant => format!("{kind} `{name}` ({variant})"),
    }
}

#[expect(clippy::print_stderr, reason = "a case that was skipped is told, or nobody would know")]
fn skipped(of: &str, case: &str, reason: &str) {
    eprintln!("{of}, case `{case}`: does not apply, {reason}");
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// How time passes in a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// When nothing else moves.
    Still,
    /// As on the wall: for trials with a server, whose answers do not count as something that moves, and for
    /// those with a blocking job that waits for its consumer, which always counts.
    Real,
}

impl Time {
    /// Waits until what feeds the trial has gone as far as it can without it. In real time that is when it waits for
    /// memory: of the flow, which only the trial can give back, or of its own, which what the trial holds keeps from
    /// it. Inputs must be so that it comes to that.
    pub(crate) async fn until_quiet(self, memory: &[&Budget]) {
        match self {
            Self::Still => tokio::time::sleep(LOOK).await,
            Self::Real => {
                while memory.iter().all(|budget| budget.n_waiting() == 0) {
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }
}

/// Runs a trial on a thread and a runtime of its own. The thread of one that hangs is left behind: nothing could end
/// a job that does not end.
pub(crate) fn on_runtime<T: Future<Output = Verdict>>(
    time: Time,
    trial: impl FnOnce() -> T + Send + 'static,
) -> Verdict {
    let (ended, end) = mpsc::sync_channel(1);
    thread::spawn(move || ended.send(run(time, trial)));
    end.recv_timeout(DEADLINE).unwrap_or_else(|error| match error {
        RecvTimeoutError::Timeout => wrong(HANGS),
        RecvTimeoutError::Disconnected => wrong("it panicked once more while it was cleared away"),
    })
}

fn run<T: Future<Output = Verdict>>(time: Time, trial: impl FnOnce() -> T) -> Verdict {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(time == Time::Still).build()?;
    // A panic is one more way not to keep a promise, and must not hide the components that come after.
    let verdict = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async { tokio::time::timeout(NEVER, Box::pin(trial())).await })
    }));
    // Not dropped, not by a panic either: that would wait for a job that hangs.
    runtime.shutdown_background();
    match verdict {
        Ok(ended) => ended.unwrap_or_else(|_| wrong(HANGS)),
        Err(panic) => wrong(&format!("it panicked: {}", panic_message(&*panic))),
    }
}

fn wrong(told: &str) -> Verdict {
    Err(Objection::Wrong(told.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn what_waits_for_ever_is_found_at_once() {
        assert_eq!(on_runtime(Time::Still, std::future::pending), wrong(HANGS));
    }

    // The clock must stand still while a blocking job computes, or all that waits for one would hang.
    #[test]
    fn a_job_that_computes_is_waited_for() {
        let verdict = on_runtime(Time::Still, || async {
            let tasks = aqueduct_primitives::Tasks::default();
            let (go, gone) = mpsc::sync_channel::<()>(0);
            let flow = Budget::new("flow", aqueduct_primitives::ByteCount::ZERO);
            let memory = [&flow];
            let quiet = Time::Still.until_quiet(&memory);
            let job = tasks.compute(move || gone.recv().is_err());
            let thread = thread::spawn(move || drop(go));
            let (is_done, ()) = futures::join!(job, quiet);
            thread.join().unwrap();
            ensure!(is_done.unwrap(), "the job ended otherwise");
            Ok(())
        });
        assert_eq!(verdict, Ok(()));
    }

    // Without an end of its own: a runtime that is dropped would wait for the job, and the test with it.
    #[test]
    fn a_panic_is_told_although_a_job_hangs() {
        let (_go, gone) = mpsc::sync_channel::<()>(0);
        let verdict = on_runtime(Time::Still, move || async move {
            let tasks = aqueduct_primitives::Tasks::default();
            // One poll: it has begun.
            let begun = tasks.block(move || gone.recv()).now_or_never();
            panic!("all {}", if begun.is_none() { "wrong" } else { "over" });
        });
        assert_eq!(verdict, wrong("it panicked: all wrong"));
    }
}
