//! From a log that was read to a run that has begun: what was committed becomes public, what was not is removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Fs, Result, kill_point};
use serde_json::Value;

use crate::Mode;
use crate::carried::{Carrier, Places, without_runs};
use crate::dataset::Dataset;
use crate::disk::Disk;
use crate::history::{History, Pending, Run};
use crate::letters;
use crate::log::{Log, Put};
use crate::manifest::Manifest;
use crate::record::{About, Begin, Edit, Event, OutputRef};
use crate::run::{Began, KeptChange, LastRun, NewRun, Resumed, Stands, Start, Target};
use crate::stage::{Owner, Stage};
use crate::transaction::{Beginning, Claimed, Transaction};

/// A flow's log, read and not yet written to.
#[derive(Debug)]
pub struct FlowLog {
    pub(crate) disk: Disk,
    pub(crate) flow_dir: PathBuf,
    /// What is kept on this machine, wherever the log is.
    pub(crate) local_dir: PathBuf,
    log: Log,
    pub(crate) history: History,
    /// Whether what steps keep in files is on this machine.
    has_files: bool,
}

/// A run that has committed something and has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Unfinished<'a> {
    /// Its name.
    pub run_id: &'a str,
    /// What was fixed at its first start.
    pub fixed: &'a BTreeMap<String, String>,
    /// What made it the same flow: a hash by the key's path.
    pub identity: &'a BTreeMap<String, String>,
}

impl FlowLog {
    /// Reads the log of the flow whose state is in this folder. Changes nothing. Whoever calls it holds the flow's lock.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: the log is damaged, or was written by a newer version. Or it cannot be read.
    pub fn open(fs: &Arc<dyn Fs>, flow_dir: &Path) -> Result<Self> {
        let disk = Disk(Arc::clone(fs));
        let (log, history) = Log::open(&disk, flow_dir)?;
        let flow_dir = flow_dir.to_owned();
        Ok(Self { disk, local_dir: flow_dir.clone(), flow_dir, log, history, has_files: false })
    }

    /// Where to keep what only this machine needs, if not in the folder of the flow's state: that may be in an object store.
    #[must_use]
    pub fn with_local_dir(mut self, local_dir: &Path) -> Self {
        local_dir.clone_into(&mut self.local_dir);
        self
    }

    /// How many records lie between two checkpoints, 256 if nothing is said: whoever opens the log reads the newest one, and
    /// the records behind it.
    #[must_use]
    pub fn with_checkpoint_every(mut self, n_records: u64) -> Self {
        self.log.set_checkpoint_every(n_records);
        self
    }

    /// The run that has committed something and has not ended.
    pub fn unfinished(&self) -> Option<Unfinished<'_>> {
        let run = self.history.unfinished()?;
        Some(Unfinished { run_id: &run.run_id, fixed: &run.begin.fixed, identity: &run.begin.identity })
    }

    /// The last run that has committed something.
    pub fn last_run(&self) -> Option<LastRun<'_>> {
        let run = self.history.last_committed()?;
        let is_unfinished =
            self.history.unfinished().is_some_and(|unfinished| unfinished.run_id == run.run_id);
        let stands = match (run.is_complete, is_unfinished) {
            (true, _) => Stands::Finished,
            (false, true) => Stands::Unfinished,
            (false, false) => Stands::Dropped,
        };
        let committed = run.committed.unwrap_or(run.started);
        let (run_id, positions) = (run.run_id.as_str(), &run.positions);
        Some(LastRun { run_id, started: run.started, committed, stands, positions, counts: run.counts })
    }

    /// The number of the newest record that commits anything: another one later, if something was committed in between.
    pub fn newest_commit(&self) -> Option<u64> {
        self.history.newest().map(|newest| newest.n)
    }

    /// What steps keep, by step, as the next run will find it.
    pub fn kept(&self) -> &BTreeMap<String, Value> {
        self.history.kept_now()
    }

    /// Gives steps other values to keep, or none, in one record: all of it is so, or nothing. From then on a process that was
    /// thought dead cannot write to this log, and an unfinished run is not gone on with. Whoever calls it holds the flow's lock.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: another process has taken over. Or the disk fails; after it, whoever opens the log next sees
    /// whether it is so.
    pub fn edit(&mut self, change: KeptChange) -> Result<()> {
        let KeptChange { flow, name, now, kept } = change;
        let edit = Edit { kept };
        self.log.prepare()?;
        match self.log.put(&About { flow: &flow, run_id: &name, written: now }, Event::Edit(edit.clone())) {
            Put::Done => {
                self.history.edit(edit);
                Ok(())
            }
            Put::Refused(error) | Put::Unknown(error) => Err(error),
        }
    }

    /// Brings onto this machine what steps keep in files, where the log is in an object store; [`FlowLog::begin`] does so itself.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: some of it is gone or damaged. Or the disk or the store fails.
    pub fn fetch_files(&mut self) -> Result<()> {
        let Some(log_id) = self.history.log_id.clone() else { return Ok(()) };
        if let Some(places) = self.carried(&log_id).filter(|_| !self.has_files) {
            places.fetch(&self.history.files)?;
            self.has_files = true;
        }
        Ok(())
    }

    /// As [`FlowLog::fetch_files`] for a run that begins, or goes on.
    fn carrier(&mut self, log_id: &str, goes_on: bool, start: Start) -> Result<Option<Carrier>> {
        let Some(places) = self.carried(log_id) else { return Ok(None) };
        let opening = self.log.tip().n;
        let mut files = self.history.files.clone();
        if !goes_on {
            files = without_runs(&files);
        }
        match if self.has_files { Ok(()) } else { places.fetch(&files) } {
            Err(error) if start == Start::FullRefresh && error.kind() == ErrorKind::Conflict => {
                tracing::warn!(error = error.chain(), "what steps kept cannot be had, and is forgotten");
                places.forget()?;
                files.clear();
            }
            fetched => fetched?,
        }
        Ok(Some(Carrier::new(places, opening, files)))
    }

    /// Where files of steps are, if they are to be carried.
    fn carried(&self, log_id: &str) -> Option<Places> {
        self.disk.objects(&self.flow_dir)?;
        let (disk, local) = (self.disk.clone(), self.local_dir.clone());
        let remote = self.flow_dir.join("files").join(log_id);
        Some(Places { disk, local, remote, log_id: log_id.to_owned() })
    }

    /// Begins a run, or goes on with one. In this order: claims the outputs; writes the record from which on nobody else
    /// can write to this log; makes public what was committed and is not; removes what was staged and never committed.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: another run writes one of the outputs, a foreign file is in its place, a part of what stays
    /// there is missing, it was written with a log that this one does not know, or another process has taken over. Or the
    /// disk fails. What was committed stays so.
    pub fn begin(mut self, run: NewRun, start: Start) -> Result<Transaction> {
        let refs: Vec<_> = run.targets.iter().map(OutputRef::of).collect();
        let claims = self.claim(&refs)?;
        match self.begin_on(&claims[..refs.len()], &claims, &run, &refs, start) {
            Ok(begun) => Ok(self.transaction(begun, claims, run)),
            Err(error) => {
                claims.into_iter().for_each(Dataset::release);
                Err(error)
            }
        }
    }

    /// The outputs of the run, and behind them others to which the log has something to do.
    fn claim(&self, refs: &[OutputRef]) -> Result<Vec<Dataset>> {
        let earlier = self.history.newest().into_iter().flat_map(|newest| newest.outputs);
        let elsewhere = earlier.filter(|output| refs.iter().all(|target| target.path != output.path));
        let mut claims = Vec::new();
        for output in refs.iter().chain(elsewhere) {
            let claimed = match claims.len() < refs.len() || Dataset::has_staged(&self.disk, output)? {
                true => Dataset::claim(&self.disk, output),
                false => continue,
            };
            match claimed {
                Ok(claim) => claims.push(claim),
                Err(error) => {
                    claims.into_iter().for_each(Dataset::release);
                    return Err(error);
                }
            }
        }
        Ok(claims)
    }

    fn begin_on(
        &mut self,
        targets: &[Dataset],
        claims: &[Dataset],
        run: &NewRun,
        refs: &[OutputRef],
        start: Start,
    ) -> Result<Begun> {
        let (began, resumed) = self.decide(targets, run, refs, start)?;
        let run_id = resumed.as_ref().map_or(&run.run_id, |resumed| &resumed.run_id).clone();
        let log_id = self.history.log_id.clone().unwrap_or_else(|| run_id.clone());
        let owner = Owner { flow_dir: self.flow_dir.clone(), log_id };
        for (target, output) in targets.iter().zip(refs) {
            self.check_state(&owner, &run.flow, output, target.manifest()?.as_ref())?;
        }
        let is_same_name = |unfinished: &Run| resumed.is_none() && unfinished.run_id == run_id;
        if self.history.unfinished().is_some_and(is_same_name) {
            self.abandon(run)?;
        }
        self.fence(run, &run_id, refs, start)?;
        let seq = self.log.tip().n;
        let carrier = self.carrier(&owner.log_id, resumed.is_some(), start)?;
        let staged = claims.iter().map(|claim| claim.fence(&owner, seq)).collect::<Result<Vec<_>>>()?;
        unless_refreshed(start, self.redo(claims, &staged))?;
        for (claim, stages) in claims.iter().zip(&staged) {
            unless_refreshed(start, self.redo_of_others(claim, &owner))?;
            let goes_on =
                resumed.as_ref().filter(|_| targets.iter().any(|target| target.path() == claim.path()));
            sweep(claim, stages, goes_on)?;
        }
        let mut stages = Vec::new();
        self.disk.remove_dir_all(&self.outgoing())?;
        for (at, target) in targets.iter().enumerate() {
            let previous = target.checked_manifest()?;
            target.check_missing(previous.as_ref())?;
            let stage = Stage::of(target.layout(), &run_id, seq);
            stage.create(&self.disk, &owner)?;
            let parts = match target.is_in_store() {
                true => self.outgoing().join(at.to_string()),
                false => stage.parts(),
            };
            self.disk.create_dir_all(&parts)?;
            stages.push(((stage, parts), previous));
        }
        let kept = self.history.kept_from(&run_id, start == Start::FullRefresh);
        let kept_without = match refs.iter().any(OutputRef::waits_for_end) {
            true => self.history.kept_without(&run_id),
            false => BTreeMap::new(),
        };
        Ok(Begun { began, run_id, log_id: owner.log_id, resumed, stages, kept, kept_without, carrier })
    }

    /// Where parts lie on their way to an object store; what a dead process left there is of no use.
    fn outgoing(&self) -> PathBuf {
        self.local_dir.join("outgoing")
    }

    /// Whether an unfinished run is gone on with.
    fn decide(
        &self,
        targets: &[Dataset],
        run: &NewRun,
        refs: &[OutputRef],
        start: Start,
    ) -> Result<(Began, Option<Run>)> {
        let Some(unfinished) = self.history.unfinished() else { return Ok((Began::New, None)) };
        let changed = changed_keys(unfinished, run);
        let goes_on = match start {
            Start::Resume => true,
            Start::Fresh => false,
            // It was begun so, and was stopped.
            Start::FullRefresh => unfinished.begin.forgets && unfinished.run_id == run.run_id,
        };
        let is_same = goes_on && changed.is_empty() && unfinished.begin.outputs == refs;
        if !is_same || !has_all_staged(&self.disk, targets, unfinished)? {
            return Ok((Began::Dropped(changed), None));
        }
        let resumed = Resumed {
            since: unfinished.started,
            positions: unfinished.positions.clone(),
            counts: unfinished.counts,
            counters: unfinished.counters.clone(),
        };
        Ok((Began::Resumed(resumed), Some(unfinished.clone())))
    }

    /// What the unfinished run has committed is not gone on with, by a run that has its name: the two are told apart.
    fn abandon(&mut self, run: &NewRun) -> Result<()> {
        self.log.prepare()?;
        let about = About { flow: &run.flow, run_id: &run.run_id, written: run.now };
        match self.log.put(&about, Event::Abandon) {
            Put::Done => self.history.abandon(&run.run_id),
            Put::Refused(error) | Put::Unknown(error) => Err(error),
        }
    }

    /// From here on, whoever held this log before cannot write to it.
    fn fence(&mut self, run: &NewRun, run_id: &str, refs: &[OutputRef], start: Start) -> Result<()> {
        self.log.prepare()?;
        let begin = Begin {
            identity: run.identity.clone(),
            fixed: run.fixed.clone(),
            outputs: refs.to_vec(),
            forgets: start == Start::FullRefresh,
        };
        let about = About { flow: &run.flow, run_id, written: run.now };
        match self.log.put(&about, Event::Begin(begin)) {
            Put::Done => {
                kill_point("commit.begin.recorded");
                Ok(())
            }
            Put::Refused(error) | Put::Unknown(error) => Err(error),
        }
    }

    /// Makes public what this log's newest commit says and is not. What fails for one output does not keep the others.
    fn redo(&self, claims: &[Dataset], staged: &[Vec<Stage>]) -> Result<()> {
        let Some(newest) = self.history.newest() else { return Ok(()) };
        let mut failed =
            letters::publish(&self.disk, newest.epochs.last().map_or(&[], |epoch| &epoch.letters));
        for (claim, stages) in claims.iter().zip(staged) {
            let stage = stages.iter().find(|stage| stage.run_id() == newest.run_id);
            let result = stage.map_or(Ok(()), |stage| {
                kill_point("recovery.redo.begun");
                publish(claim, stage, &newest)?;
                kill_point("recovery.redo.done");
                Ok(())
            });
            failed = failed.and(result);
        }
        failed
    }

    /// The same for flows that wrote here before and died: what they committed comes before what this one will.
    fn redo_of_others(&self, claim: &Dataset, owner: &Owner) -> Result<()> {
        for (stage, other) in claim.of_others(owner)? {
            let (_, history) = Log::open(&self.disk, &other.flow_dir)?;
            let is_known = history.log_id.as_ref() == Some(&other.log_id);
            match history.newest().filter(|newest| is_known && newest.run_id == stage.run_id()) {
                Some(newest) => publish(claim, &stage, &newest)?,
                None if !is_known => tracing::warn!(
                    path = %stage.path().display(),
                    state = %other.flow_dir.display(),
                    "a flow whose state is not there staged rows here; remove the folder if nobody goes on with them"
                ),
                None => {}
            }
        }
        Ok(())
    }

    /// Whether the log, as it was read, knows all that was done to an output: what has been appended already is only known
    /// to the log.
    fn check_state(
        &self,
        owner: &Owner,
        flow: &str,
        output: &OutputRef,
        manifest: Option<&Manifest>,
    ) -> Result<()> {
        let Some(stamp) = manifest.and_then(|manifest| manifest.log.as_ref()) else { return Ok(()) };
        let is_ours = manifest.is_some_and(|manifest| manifest.flow == flow);
        let is_unknown = if stamp.id == owner.log_id { stamp.n > self.log.tip().n } else { is_ours };
        if output.mode == Mode::Replace || !is_unknown {
            return Ok(());
        }
        let message = "the output is newer than this flow's state, which was deleted or restored from a copy; restore \
                       it, or begin anew with `--full-refresh`";
        Err(Error::new(ErrorKind::Conflict, "check state", message)
            .with("path", output.path.display())
            .with("state", self.flow_dir.display()))
    }

    fn transaction(self, begun: Begun, mut claims: Vec<Dataset>, run: NewRun) -> Transaction {
        claims.split_off(run.targets.len()).into_iter().for_each(Dataset::release);
        let Begun { began, run_id, log_id, resumed, stages, kept, kept_without, carrier } = begun;
        let claimed = |((dataset, target), (places, previous)): ((Dataset, Target), Placed)| {
            Claimed::new(dataset, target, places, previous)
        };
        let outputs = claims.into_iter().zip(run.targets).zip(stages).map(claimed).collect();
        let epochs = resumed.map(|run| run.epochs).unwrap_or_default();
        let begun = Beginning { run_id, log_id, began, epochs, kept, kept_without, carrier };
        Transaction::new(self.disk, self.log, run.flow, begun, outputs)
    }
}

/// Where a target's parts are staged and where its sink writes them, and what is public there.
type Placed = ((Stage, PathBuf), Option<Manifest>);

/// Where all is to be replaced, what cannot be made public any more is let go of.
fn unless_refreshed(start: Start, redone: Result<()>) -> Result<()> {
    match redone {
        Err(error) if start == Start::FullRefresh && error.kind() == ErrorKind::Conflict => {
            tracing::warn!(error = error.chain(), "what was committed and not public is let go of");
            Ok(())
        }
        redone => redone,
    }
}

/// What a beginning has found and made.
struct Begun {
    began: Began,
    run_id: String,
    log_id: String,
    resumed: Option<Run>,
    /// By target, with what is public there.
    stages: Vec<Placed>,
    kept: BTreeMap<String, Value>,
    kept_without: BTreeMap<String, Value>,
    carrier: Option<Carrier>,
}

fn changed_keys(unfinished: &Run, run: &NewRun) -> Vec<String> {
    let (before, now) = (&unfinished.begin.identity, &run.identity);
    let all: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).collect();
    all.into_iter().filter(|key| before.get(*key) != now.get(*key)).cloned().collect()
}

/// Whether all that an unfinished run committed and nobody sees yet is still staged.
fn has_all_staged(disk: &Disk, targets: &[Dataset], run: &Run) -> Result<bool> {
    for (index, target) in targets.iter().enumerate() {
        let mut stage = None;
        for one in Stage::all(disk, target.layout())?.into_iter().filter(|one| one.run_id() == run.run_id) {
            // To one that is a copy still, its process was copying when it died.
            stage = if one.is_copying(disk)? { stage } else { Some(one) };
        }
        for epoch in run.epochs.iter().filter(|_| target.waits_for_end()) {
            let is_needed = epoch.outputs.get(index).is_some_and(|change| change.parts.is_some());
            let is_there = match &stage {
                Some(stage) => disk.exists(&stage.list(epoch.n))?,
                None => false,
            };
            if is_needed && !is_there {
                tracing::warn!(path = %target.path().display(), "what the unfinished run had staged is gone");
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn publish(claim: &Dataset, stage: &Stage, pending: &Pending<'_>) -> Result<()> {
    match pending.outputs.iter().position(|output| output.path == claim.path()) {
        Some(index) => claim.publish(stage, pending, index),
        None => Ok(()),
    }
}

/// Removes what dead openings of this flow have staged and the run that goes on does not need.
fn sweep(claim: &Dataset, stages: &[Stage], goes_on: Option<&Run>) -> Result<()> {
    for stage in stages {
        match goes_on.filter(|run| run.run_id == stage.run_id()) {
            Some(run) if claim.waits_for_end() => {
                let committed: Vec<_> = run.epochs.iter().map(|epoch| epoch.n).collect();
                claim.sweep_but(stage, &committed)?;
            }
            Some(_) => claim.sweep_but(stage, &[])?,
            None => claim.discard(stage)?,
        }
        kill_point("recovery.stage.swept");
    }
    Ok(())
}
