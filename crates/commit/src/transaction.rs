//! A run that has begun: commits, and how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aqueduct_core::{Error, ErrorKind, Part, Positions, Result, TableShape, kill_point};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::carried::Carrier;
use crate::dataset::Dataset;
use crate::disk::Disk;
use crate::history::{Epoch as Recorded, Pending, add_epoch};
use crate::log::{Log, Put};
use crate::manifest::{LogStamp, Manifest, ManifestPart, RunStamp};
use crate::record::{About, Change, Commit, Event, OutputRef};
use crate::run::{Began, Committed, End, Epoch, Target};
use crate::stage::Stage;
use crate::{Mode, Published, letters, names};

/// A run that has begun. It holds its outputs until it is closed. Blocks, as all of this crate.
///
/// After an error of [`Transaction::commit`] only [`Transaction::close`] may follow.
#[derive(Debug)]
pub struct Transaction {
    disk: Disk,
    log: Log,
    flow: String,
    run_id: String,
    log_id: String,
    began: Began,
    epochs: Vec<Recorded>,
    outputs: Vec<Claimed>,
    opening: u64,
    kept: BTreeMap<String, Value>,
    kept_without: BTreeMap<String, Value>,
    /// Of a log in an object store.
    carrier: Option<Carrier>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A commit failed, and it is certain that it is not in the log.
    Failed,
    /// What is staged may be committed or be another's: it is not touched.
    Unknown,
    /// All is public.
    Done,
}

/// An output of the run.
#[derive(Debug)]
pub(crate) struct Claimed {
    dataset: Dataset,
    stage: Stage,
    /// Where the sink writes its parts, on this machine.
    parts_dir: PathBuf,
    target: Target,
    previous: Option<Manifest>,
}

impl Claimed {
    pub(crate) fn new(
        dataset: Dataset,
        target: Target,
        (stage, parts_dir): (Stage, PathBuf),
        previous: Option<Manifest>,
    ) -> Self {
        Self { dataset, stage, parts_dir, target, previous }
    }

    /// Whether anybody but aqueduct could have put something here since the run began that would be lost.
    fn may_replace_foreign(&self) -> bool {
        // What is added to an object store has names of its own, and looking means listing all that is there.
        !self.dataset.is_in_store() || self.dataset.waits_for_end()
    }

    /// The record whose rows are updated, where another flow could update them meanwhile.
    fn updates(&self) -> Option<LogStamp> {
        let log = self.previous.as_ref()?.log.clone();
        log.filter(|_| self.dataset.is_in_store() && self.target.mode.updates())
    }

    /// Whether a commit with these parts makes something public here.
    fn publishes(&self, epochs: &[Recorded], index: usize, new: &New, end: End) -> bool {
        match (self.target.output.is_file, self.target.mode) {
            (true, _) => end == End::Finish && !new.parts.is_empty(),
            (false, Mode::Replace) => end == End::Finish,
            (false, Mode::Append) => !new.parts.is_empty(),
            (false, Mode::ReplacePartitions | Mode::Merge) => {
                let changes = |change: &Change| change.parts.is_some() || !change.replaced.is_empty();
                let has_changed = epochs.iter().filter_map(|epoch| epoch.outputs.get(index)).any(changes);
                let is_changed = has_changed || !new.parts.is_empty() || !new.replaced.is_empty();
                end == End::Finish && (is_changed || self.previous.is_none())
            }
        }
    }

    /// What is there, when the parts of this commit are public as well.
    fn parts_then(&self, epochs: &[Recorded], index: usize, new: &New) -> Result<Vec<ManifestPart>> {
        let mut parts: Vec<_> = new.parts.iter().cloned().map(ManifestPart::from).collect();
        let there = || self.previous.iter().flat_map(|there| &there.parts);
        if self.target.output.is_file {
            return names::sorted(parts);
        }
        if self.target.mode != Mode::Append {
            let staged = self.dataset.staged_parts(&self.stage, epochs, index)?;
            parts.extend(staged.into_iter().flat_map(|(_, parts)| parts));
        }
        match self.target.mode {
            Mode::Replace => {}
            Mode::Append => parts.extend(there().cloned()),
            Mode::ReplacePartitions | Mode::Merge => {
                let earlier = epochs.iter().filter_map(|epoch| epoch.outputs.get(index));
                let replaced = earlier.flat_map(|change| &change.replaced).chain(&new.replaced);
                let replaced: BTreeSet<&str> = replaced.map(String::as_str).collect();
                parts.extend(there().filter(|part| !replaced.contains(names::folder(&part.name))).cloned());
            }
        }
        names::sorted(parts)
    }

    /// What all rows look like then.
    fn table_then(&self, new: &New) -> Option<TableShape> {
        let there = self.previous.as_ref().and_then(|there| there.table.as_ref());
        match (there, &new.table) {
            (Some(there), Some(new)) if self.target.mode != Mode::Replace => {
                Some(there.clone().with_columns_of(new))
            }
            (_, new) => new.clone(),
        }
    }

    fn check_not_empty(&self, manifest: &Manifest) -> Result<()> {
        let before = self.previous.as_ref().map_or(0, |there| there.rows);
        if self.target.output.allow_empty || before == 0 || manifest.rows > 0 {
            return Ok(());
        }
        let message =
            "the run gave no rows, and the output has some; it was kept (`allow_empty: true` replaces it)";
        Err(Error::new(ErrorKind::Conflict, "replace output", message)
            .with("path", self.dataset.path().display())
            .with("rows", before))
    }
}

/// What a commit brings to one output.
struct New {
    parts: Vec<Part>,
    replaced: BTreeSet<String>,
    table: Option<TableShape>,
}

/// How a run has begun.
pub(crate) struct Beginning {
    pub(crate) run_id: String,
    pub(crate) log_id: String,
    pub(crate) began: Began,
    pub(crate) epochs: Vec<Recorded>,
    pub(crate) kept: BTreeMap<String, Value>,
    pub(crate) kept_without: BTreeMap<String, Value>,
    pub(crate) carrier: Option<Carrier>,
}

impl Transaction {
    pub(crate) fn new(disk: Disk, log: Log, flow: String, begun: Beginning, outputs: Vec<Claimed>) -> Self {
        let Beginning { run_id, log_id, began, epochs, kept, kept_without, carrier } = begun;
        let (opening, state) = (log.tip().n, State::Open);
        Self {
            disk,
            log,
            flow,
            run_id,
            log_id,
            began,
            epochs,
            outputs,
            opening,
            kept,
            kept_without,
            carrier,
            state,
        }
    }

    /// The run's name: of one that is gone on with, its own.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// Whether it goes on with an unfinished run.
    pub fn began(&self) -> &Began {
        &self.began
    }

    /// The number of the record with which this process took over: no other has it.
    pub fn opening(&self) -> u64 {
        self.opening
    }

    /// What steps kept with the last commit that counts, by step.
    pub fn kept(&self) -> &BTreeMap<String, Value> {
        &self.kept
    }

    /// What counts again, by step, if this run waits for its end and never sees it.
    pub fn kept_without(&self) -> &BTreeMap<String, Value> {
        &self.kept_without
    }

    /// Whether it makes its rows public at its end alone.
    pub fn waits_for_end(&self) -> bool {
        self.outputs.iter().any(|output| output.dataset.waits_for_end())
    }

    /// Where the sink of a target writes its parts, each under its name or any other. On the output's file system.
    pub fn stage_dir(&self, target: usize) -> Option<&Path> {
        self.outputs.get(target).map(|output| output.parts_dir.as_path())
    }

    /// The folder that the names of a target's parts start from.
    pub fn folder(&self, target: usize) -> Option<PathBuf> {
        let layout = self.outputs.get(target)?.dataset.layout();
        Some(if layout.is_file { layout.parent().to_owned() } else { layout.path.clone() })
    }

    /// What stood at a target's path when the run began, or stands there since its last commit.
    pub fn previous(&self, target: usize) -> Option<&Manifest> {
        self.outputs.get(target)?.previous.as_ref()
    }

    /// The parts that earlier commits of this run have staged for a target and that nobody sees yet, in order: what a
    /// target of one file is joined from.
    ///
    /// # Errors
    /// What was staged is gone or damaged.
    pub fn staged(&self, target: usize) -> Result<Vec<PathBuf>> {
        let Some(output) = self.outputs.get(target).filter(|output| output.dataset.waits_for_end()) else {
            return Ok(Vec::new());
        };
        let staged = output.dataset.staged_parts(&output.stage, &self.epochs, target)?;
        let paths = |(n, parts): (u64, Vec<ManifestPart>)| {
            let folder = output.stage.epoch(n);
            parts.into_iter().map(move |part| folder.join(part.name))
        };
        Ok(staged.into_iter().flat_map(paths).collect())
    }

    /// Makes new parts durable together with the positions they complete, over all targets at once, then public where
    /// the mode says so. All or nothing, whatever happens: what is committed becomes public, at once or by the next run.
    ///
    /// # Errors
    /// Nothing of it is committed: the disk failed, another process has taken over, a replaced output would be empty, a
    /// foreign file has appeared. Or it is not known, and the next run will see.
    pub fn commit(&mut self, epoch: Epoch, end: End, now: DateTime<Utc>) -> Result<Committed> {
        if self.state != State::Open {
            return Err(Error::bug("commit", "the run has ended or failed"));
        }
        self.state = State::Failed;
        let stamp = RunStamp {
            flow: self.flow.clone(),
            run_id: self.run_id.clone(),
            mode: "",
            written: now,
            inputs: epoch.inputs,
        };
        let mut new = Vec::new();
        for (target, parts) in epoch.parts.into_iter().enumerate() {
            let replaced = epoch.replaced.get(&target).cloned().unwrap_or_default();
            new.push(New { parts, replaced, table: epoch.tables.get(&target).cloned() });
        }
        let prepared = self.prepare(new, end, &stamp)?;
        let (changes, manifests): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
        let positions = epoch.positions.into_iter().map(|(source, splits)| (source, recorded(&splits)));
        let (positions, letters) = (positions.collect(), epoch.letters);
        let run_id = (end == End::GoOn).then_some(self.run_id.as_str());
        let files = self.carrier.as_mut().map(|carrier| carrier.send(run_id)).transpose()?.flatten();
        let commit = Commit {
            outputs: changes.clone(),
            positions,
            counts: epoch.counts,
            counters: epoch.counters,
            kept: epoch.kept.clone(),
            letters: letters.clone(),
            files,
        };
        self.record(commit, end, now)?;
        let recorded = Recorded { n: self.log.tip().n, outputs: changes, letters };
        let waits_for_end =
            |at: usize| self.outputs.get(at).is_some_and(|output| output.dataset.waits_for_end());
        add_epoch(&mut self.epochs, recorded, waits_for_end);
        self.kept.extend(epoch.kept);
        let pending = self.publish().err();
        if pending.is_none() {
            self.carrier.iter_mut().for_each(Carrier::committed);
        }
        self.settle(manifests, end, pending.is_none());
        Ok(Committed { published: self.published(), pending })
    }

    /// Everything that the next record will speak of, durable.
    fn prepare(&self, new: Vec<New>, end: End, stamp: &RunStamp) -> Result<Vec<(Change, Option<Manifest>)>> {
        if new.len() != self.outputs.len() {
            return Err(Error::bug("commit", "a commit needs a list of parts for each target"));
        }
        let mut prepared = Vec::new();
        for (index, (output, new)) in self.outputs.iter().zip(new).enumerate() {
            prepared.push(self.prepare_one(index, output, new, end, stamp)?);
        }
        Ok(prepared)
    }

    fn prepare_one(
        &self,
        index: usize,
        output: &Claimed,
        mut new: New,
        end: End,
        stamp: &RunStamp,
    ) -> Result<(Change, Option<Manifest>)> {
        let n = self.log.tip().n + 1;
        if output.target.mode != Mode::Replace && output.previous.is_some() {
            new.parts = self.without_empty(new.parts)?;
        }
        names::check_inside(&new.parts)?;
        if output.target.output.is_file && end == End::Finish && new.parts.len() > 1 {
            let message = "the output is one file, and the rows do not fit into one; write to a folder";
            return Err(Error::new(ErrorKind::Config, "commit", message)
                .with("path", output.dataset.path().display())
                .with("n_parts", new.parts.len()));
        }
        let manifest = match output.publishes(&self.epochs, index, &new, end) {
            false => None,
            true => {
                if output.may_replace_foreign() {
                    output.dataset.check_foreign(output.previous.as_ref())?;
                }
                let all = output.parts_then(&self.epochs, index, &new)?;
                let stamp = RunStamp { mode: output.target.mode.name(), ..stamp.clone() };
                let log = Some(LogStamp { id: self.log_id.clone(), n });
                let (table, updates) = (output.table_then(&new), output.updates());
                Some(Manifest { log, updates, table, ..Manifest::new(&stamp, all) })
            }
        };
        if output.target.mode == Mode::Replace {
            manifest.iter().try_for_each(|manifest| output.check_not_empty(manifest))?;
        }
        let listed = output.dataset.keep_parts(&output.stage, n, &new.parts)?;
        let hashed =
            manifest.as_ref().map(|manifest| output.dataset.keep_manifest(&output.stage, n, manifest));
        Ok((Change { parts: listed, manifest: hashed.transpose()?, replaced: new.replaced }, manifest))
    }

    /// A run that adds nothing leaves no empty file.
    fn without_empty(&self, parts: Vec<Part>) -> Result<Vec<Part>> {
        let (kept, empty): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.rows > 0);
        empty.iter().try_for_each(|part| self.disk.remove_file(&part.staged))?;
        Ok(kept)
    }

    fn record(&mut self, commit: Commit, end: End, now: DateTime<Utc>) -> Result<()> {
        match end {
            End::GoOn => {
                self.put(Event::Epoch(commit), now)?;
                kill_point("commit.epoch.recorded");
            }
            End::Finish => {
                self.put(Event::Finish(commit), now)?;
                kill_point("commit.finish.recorded");
            }
        }
        Ok(())
    }

    fn put(&mut self, event: Event, now: DateTime<Utc>) -> Result<()> {
        let about = About { flow: &self.flow, run_id: &self.run_id, written: now };
        match self.log.put(&about, event) {
            Put::Done => Ok(()),
            Put::Refused(error) if error.kind() != ErrorKind::Conflict => Err(error),
            Put::Refused(error) | Put::Unknown(error) => {
                self.state = State::Unknown;
                Err(error)
            }
        }
    }

    /// Of every target what the last record says; what fails for one does not keep the others.
    fn publish(&self) -> Result<()> {
        let outputs: Vec<_> = self.outputs.iter().map(|output| OutputRef::of(&output.target)).collect();
        let (run_id, epochs) = (self.run_id.as_str(), self.epochs.as_slice());
        let pending = Pending { n: self.log.tip().n, run_id, outputs: &outputs, epochs };
        let mut result =
            self.epochs.last().map_or(Ok(()), |epoch| letters::publish(&self.disk, &epoch.letters));
        for (index, output) in self.outputs.iter().enumerate() {
            let published = output.dataset.publish(&output.stage, &pending, index);
            result = result.and(published);
        }
        result
    }

    fn settle(&mut self, manifests: Vec<Option<Manifest>>, end: End, is_public: bool) {
        self.state = match (is_public, end) {
            (false, _) => State::Unknown,
            (true, End::GoOn) => State::Open,
            (true, End::Finish) => State::Done,
        };
        for (output, manifest) in self.outputs.iter_mut().zip(manifests) {
            output.previous = manifest.or(output.previous.take());
        }
        if self.state == State::Open {
            self.outputs.iter().for_each(|output| output.forget_published(&self.disk, self.log.tip().n));
        }
    }

    fn published(&self) -> Vec<Published> {
        let of = |output: &Claimed| Some(output.dataset.published(output.previous.as_ref()?));
        self.outputs.iter().filter_map(of).collect()
    }

    /// Ends a run that is not to be gone on with: what it committed and appended stays, what it staged is removed.
    ///
    /// # Errors
    /// The log cannot be written: the next run goes on with this one.
    pub fn abandon(mut self, now: DateTime<Utc>) -> Result<()> {
        if self.state == State::Failed {
            self.state = State::Open;
        }
        if self.state == State::Open {
            self.put(Event::Abandon, now)?;
            self.epochs.clear();
        }
        self.close()
    }

    /// Lets go. Of a run that is not complete, what it committed stays, and the next one goes on from there; what was
    /// only staged is removed.
    ///
    /// # Errors
    /// What was staged cannot be removed; the next run tries again.
    pub fn close(self) -> Result<()> {
        let (state, epochs) = (self.state, self.epochs);
        let mut result = Ok(());
        for output in self.outputs {
            let swept = match state {
                State::Unknown => Ok(()),
                State::Done => output.dataset.discard(&output.stage),
                State::Open | State::Failed => output.sweep(&self.disk, &epochs),
            };
            result = result.and(swept);
            kill_point("commit.stage.removed");
            if output.dataset.is_in_store() {
                result = result.and(self.disk.remove_dir_all(&output.parts_dir));
            }
            output.dataset.release();
        }
        result
    }
}

impl Claimed {
    /// Removes what no commit speaks of.
    fn sweep(&self, disk: &Disk, epochs: &[Recorded]) -> Result<()> {
        let committed: Vec<_> =
            epochs.iter().filter(|_| self.dataset.waits_for_end()).map(|epoch| epoch.n).collect();
        match committed.is_empty() {
            true if self.dataset.is_in_store() => self.dataset.discard(&self.stage),
            true => disk.remove_dir_all(self.stage.path()),
            false => self.dataset.sweep_but(&self.stage, &committed),
        }
    }

    /// What an epoch has left behind once its parts are public; if it stays now, the end removes it.
    fn forget_published(&self, disk: &Disk, n: u64) {
        if self.dataset.waits_for_end() || self.dataset.is_in_store() {
            return;
        }
        let removed = disk.remove_dir_all(&self.stage.epoch(n)).and_then(|()| {
            kill_point("commit.epoch.forgotten");
            disk.remove_file(&self.stage.list(n))
        });
        if let Err(error) = removed {
            tracing::debug!(error = error.chain(), "an empty folder was not removed");
        }
    }
}

fn recorded(splits: &Positions) -> BTreeMap<String, Value> {
    splits.iter().map(|(split, position)| (split.to_owned(), position.clone())).collect()
}
