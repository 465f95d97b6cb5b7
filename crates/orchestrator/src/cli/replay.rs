//! `aqueduct replay`: rejected items, run through their flow once more.
//!
//! A replay is a run of the flow, in the flow's own log, with other things to read ([`crate::run::over_rejected`]): each letter's
//! raw record goes to a file of the run's folder, in the format that its source reads, and the source reads that. A file that could
//! not be read at all is read again where it is.
//!
//! **Once.** Which letters were replayed is kept as keys that were seen are ([`KeyStore`]), under a name that no step has, and
//! committed in the one record that ends the run: with the rows that came of them and with the letters of those that were rejected
//! once more. A replay commits nothing before. Killed at any moment it was not, and is made again; or it was, and its letters are
//! known. A letter is known by all of its text, in which its run is named: in whatever file it stands, and not when it was edited.
//!
//! **Added.** Rows are added to the outputs, whatever their mode: a flow into one file cannot be replayed. The next run of a flow
//! in mode `replace` replaces all, as ever.

mod letters;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_commit::{FlowLog, KeyStore, KeysIn, Remembering, Start};
use aqueduct_core::{Durable, Keeper, Result, StdFs};
use aqueduct_primitives::{ByteCount, Tasks};
use async_trait::async_trait;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::letters::{Gathered, gather};
use super::arguments::ReplayArguments;
use super::begin::fixed_now;
use super::execute::{Attempt, Ready, Signals, carry_out};
use super::state::REPLAYED;
use super::{Program, exit};
use crate::flow::{Flow, StepKind};
use crate::progress::grouped;
use crate::run::{Opening, RunOptions, over_rejected};

/// For the keys of replayed letters: from what the process may take beside its `memory`.
const KEYS_MEMORY: ByteCount = ByteCount::mib(2);

/// Replays what was rejected; the exit code.
pub(super) async fn replay(program: &Program, arguments: ReplayArguments) -> u8 {
    let signals = Signals::listen();
    let stop = CancellationToken::new();
    let signals = signals.stop(stop.clone(), program.console.clone());
    tokio::select! {
        code = Box::pin(program.replay(arguments, stop)) => code.unwrap_or_else(|code| code),
        () = signals => exit::INTERRUPTED,
    }
}

impl Program {
    async fn replay(&self, arguments: ReplayArguments, stop: CancellationToken) -> Result<u8, u8> {
        let flow = self.only_flow(&arguments)?;
        check_outputs(&flow).map_err(|message| self.wrong(&message))?;
        if let Err(error) = std::fs::metadata(&arguments.rejected) {
            return Err(
                self.wrong(&format!("cannot read letters in {}: {error}", arguments.rejected.display()))
            );
        }
        let lock = self.lock(&flow.state_dir, &flow.lock_name())?;
        let mut log = flow.open_log().map_err(|error| self.refuse(&error))?;
        log.fetch_files().map_err(|error| self.refuse(&error))?;
        if let Some(unfinished) = log.unfinished() {
            let (run, file) = (unfinished.run_id, &flow.file);
            let message = format!(
                "run {run} is not finished; finish it with `aqueduct run {file}` or drop it with `aqueduct run {file} --fresh`, \
                 then replay"
            );
            return Err(self.wrong(&message));
        }
        let (gathered, flow, replayed) = self.gather(arguments.rejected, flow, &log).await?;
        self.say_gathered(&gathered);
        if gathered.again.is_empty() {
            let has_refused = gathered.n_refused > 0;
            return Ok(if has_refused { exit::FAILED } else { exit::DONE });
        }
        let flow_dir = flow.flow_dir();
        let fixed = fixed_now(&flow.run, Start::Resume);
        let flow =
            over_rejected(flow, &gathered.again, &self.registry).map_err(|message| self.wrong(&message))?;
        self.warn_of_partial(&flow);
        let plan = self.planned(&flow)?;
        let opening = Opening { log, flow_dir, start: Start::Resume, fixed };
        let at_end = vec![(REPLAYED.to_owned(), Arc::new(replayed))];
        let options = RunOptions { stop, at_end, ..RunOptions::default() };
        let ready = Ready { attempt: Attempt { flow, plan, opening }, lock };
        Ok(Box::pin(carry_out(self, ready, None, options, arguments.progress)).await.code)
    }

    /// Letters do not say of which entry of a matrix they are.
    fn only_flow(&self, arguments: &ReplayArguments) -> Result<Flow, u8> {
        let mut flows = self.load(&arguments.flow)?;
        match (flows.pop(), flows.is_empty()) {
            (Some(flow), true) => Ok(flow),
            _ => Err(self.wrong(
                "the flow has several matrix entries; name the one that rejected with `--only KEY=VALUE`",
            )),
        }
    }

    async fn gather(
        &self,
        rejected: PathBuf,
        flow: Flow,
        log: &FlowLog,
    ) -> Result<(Gathered, Flow, Durable), u8> {
        let (flow_dir, tasks) = (flow.flow_dir(), Tasks::default());
        let (dir, run_dir) =
            (flow_dir.join("steps").join(REPLAYED), flow_dir.join("runs").join(&flow.run.id));
        let kept = log.kept().get(REPLAYED).cloned();
        let durable = Durable::new(kept.clone(), dir.clone(), run_dir.clone());
        let work = move || {
            let how = Remembering { versioned: false, forget_after_days: None, memory: KEYS_MEMORY };
            let mut store = KeyStore::open(&(Arc::new(StdFs) as _), KeysIn::Folder(dir), how, kept.as_ref())?;
            let gathered = gather(&rejected, &flow, &run_dir.join(REPLAYED), &mut store)?;
            Ok::<_, aqueduct_core::Error>((gathered, flow, store))
        };
        let done = tasks.block(work).await.map_err(aqueduct_core::Error::from).and_then(|done| done);
        let (gathered, flow, store) = done.map_err(|error| self.refuse(&error))?;
        durable.register(Arc::new(ReplayedKeeper { store: Arc::new(Mutex::new(store)), tasks }));
        Ok((gathered, flow, durable))
    }

    fn say_gathered(&self, gathered: &Gathered) {
        for refused in &gathered.refused {
            self.console.line(&format!("stays: {refused}"));
        }
        let more = gathered.n_refused.saturating_sub(gathered.refused.len() as u64);
        if more > 0 {
            self.console.line(&format!("stays: {} more", grouped(more)));
        }
        let (n_again, n_known) = (grouped(gathered.n_again), grouped(gathered.n_known));
        let n_refused = grouped(gathered.n_refused);
        self.console
            .line(&format!("{n_again} to replay, {n_known} replayed before, {n_refused} that cannot be"));
    }

    /// Steps whose rows depend on others see the replayed ones alone.
    fn warn_of_partial(&self, flow: &Flow) {
        for step in &flow.steps {
            if matches!(&step.kind, StepKind::Stage(stage) if stage.spills() || !stage.is_resumable()) {
                tracing::warn!(step = %step.name, "sees the replayed rows alone, not those of earlier runs");
            }
        }
    }

    fn wrong(&self, message: &str) -> u8 {
        self.say_error(message);
        exit::WRONG
    }
}

/// Rows are added to outputs, and one file cannot be added to.
fn check_outputs(flow: &Flow) -> Result<(), String> {
    for (at, step) in flow.steps.iter().enumerate() {
        if let Some((output, _)) = flow.output_of(at).filter(|(output, _)| output.is_file) {
            return Err(format!(
                "`{}` writes one file, {}, to which a replay cannot add; let it write to a folder, or mend the input and run the \
                 flow again",
                step.name,
                output.path.display()
            ));
        }
    }
    Ok(())
}

/// Makes durable which letters were replayed.
struct ReplayedKeeper {
    store: Arc<Mutex<KeyStore>>,
    tasks: Tasks,
}

#[async_trait]
impl Keeper for ReplayedKeeper {
    async fn keep(&self) -> Result<Option<Value>> {
        let store = Arc::clone(&self.store);
        // After a panic the store says that it has failed.
        let keep = move || store.lock().unwrap_or_else(PoisonError::into_inner).keep();
        self.tasks.block(keep).await?.map(Some)
    }
}
