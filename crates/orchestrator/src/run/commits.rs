//! The commits of a run: what its sinks have sealed, how far its sources were read, what its steps keep and what was
//! rejected become durable in one act, and are public after it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_commit::{
    Began, Committed, End, Epoch, FlowLog, ManifestPart, NewRun, Published, Resumed, Start, Target,
    Transaction,
};
use aqueduct_core::{
    Clock, Durable, Error, ErrorKind, Fs, Mode, Output, Part, Positions, Result, Stored, StoredPart,
    is_in_store,
};
use aqueduct_primitives::Tasks;

use crate::flow::Flow;
use crate::report::OutputReport;

/// What a run that may leave something behind begins with.
#[derive(Debug)]
pub(crate) struct Opening {
    /// The flow's log; whoever has it holds the flow's lock.
    pub(crate) log: FlowLog,
    /// The folder of the flow's state.
    pub(crate) flow_dir: PathBuf,
    /// What becomes of an unfinished run.
    pub(crate) start: Start,
    /// What is to be as it is now when the run is gone on with.
    pub(crate) fixed: BTreeMap<String, String>,
}

/// The commits of one run.
pub(super) struct Commits {
    /// None, if the run leaves nothing behind.
    transaction: Option<Transaction>,
    /// By step its place among the targets of the transaction.
    target_of: Vec<Option<usize>>,
    /// By target what is there.
    stored: Vec<Arc<Stored>>,
    /// What the run was given from outside and depends on.
    inputs: BTreeMap<String, String>,
    places: Option<Places>,
    run_id: String,
    base_dir: PathBuf,
    tasks: Tasks,
    fs: Arc<dyn Fs>,
    clock: Arc<dyn Clock>,
    /// What is public, as of the last commit.
    published: Vec<OutputReport>,
}

/// Where steps keep what outlives the process.
struct Places {
    /// Beyond the run.
    steps: PathBuf,
    /// As long as the run is not complete.
    runs: PathBuf,
}

/// The seams that commits go through.
pub(super) struct Seams {
    pub(super) tasks: Tasks,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Commits {
    /// Claims every output, completes what an earlier run has committed, and begins, or goes on.
    ///
    /// # Errors
    /// An output cannot be written, or the log cannot; none is held then.
    pub(super) async fn begin(flow: &Flow, opening: Option<Opening>, seams: Seams) -> Result<Self> {
        let Seams { tasks, fs, clock } = seams;
        let mut commits = Self {
            transaction: None,
            target_of: vec![None; flow.steps.len()],
            stored: Vec::new(),
            inputs: BTreeMap::new(),
            places: None,
            run_id: flow.run.id.clone(),
            base_dir: absolute(&flow.base_dir),
            tasks,
            fs,
            clock,
            published: Vec::new(),
        };
        let Some(opening) = opening else { return Ok(commits) };
        commits.inputs = flow.inputs.clone();
        let (mut targets, mut is_chosen) = (Vec::<Target>::new(), Vec::new());
        let mut losses = Vec::new();
        for at in 0..flow.steps.len() {
            if let Some((output, mode)) = flow.output_of(at) {
                let loss = mode.loses_earlier_rows().filter(|_| opening.start != Start::FullRefresh);
                losses.push(loss.map(str::to_owned));
                let mode = if opening.start == Start::FullRefresh { Mode::Replace } else { mode.mode };
                is_chosen.push(output.mode.is_some() || opening.start == Start::FullRefresh);
                commits.target_of[at] = Some(targets.len());
                // The log names it: it must be the same from wherever the next run is started.
                let path = absolute(&output.path);
                let is_filled_last = flow.is_behind_global(at);
                targets.push(Target { output: Output { path, ..output }, mode, is_filled_last });
            }
        }
        let new_run = NewRun {
            flow: flow.name.clone(),
            run_id: flow.run.id.clone(),
            now: commits.clock.now(),
            identity: flow.identity.clone(),
            fixed: opening.fixed,
            targets,
        };
        let modes: Vec<_> = new_run.targets.iter().map(|target| target.mode).collect();
        let (log, start) = (opening.log, opening.start);
        let transaction = commits.tasks.block(move || log.begin(new_run, start)).await??;
        let is_same = (0..)
            .zip(&modes)
            .zip(is_chosen)
            .filter(|((_, mode), is_chosen)| **mode == Mode::Replace && !is_chosen);
        for ((target, _), _) in is_same {
            check_inputs(&transaction, target, &flow.inputs)?;
        }
        for (target, because) in losses.iter().enumerate().filter_map(|(at, loss)| Some((at, loss.as_ref()?)))
        {
            check_nothing_there(&transaction, target, because)?;
        }
        let stored = modes.into_iter().enumerate();
        commits.stored =
            stored.map(|(target, mode)| Arc::new(stored_in(&transaction, target, mode))).collect();
        let (steps, runs) = (opening.flow_dir.join("steps"), opening.flow_dir.join("runs"));
        commits.places = Some(Places { steps, runs });
        commits.transaction = Some(transaction);
        commits.forget_runs(Some(&flow.run.id)).await;
        Ok(commits)
    }

    /// Where the run goes on, if it does.
    pub(super) fn resumed(&self) -> Option<&Resumed> {
        match self.transaction.as_ref()?.began() {
            Began::Resumed(resumed) => Some(resumed),
            Began::New | Began::Dropped(_) => None,
        }
    }

    /// Whether anything can be committed.
    pub(super) fn can_commit(&self) -> bool {
        self.transaction.is_some()
    }

    /// What the names of numbered files have in common that this process writes.
    pub(super) fn part_run(&self) -> String {
        match (&self.transaction, self.resumed()) {
            (Some(transaction), Some(_)) => format!("{}.{}", self.run_id, transaction.opening()),
            _ => self.run_id.clone(),
        }
    }

    /// Where the sink at a step stages its parts.
    pub(super) fn stage_dir(&self, step: usize) -> Option<PathBuf> {
        let target = (*self.target_of.get(step)?)?;
        self.transaction.as_ref()?.stage_dir(target).map(Path::to_path_buf)
    }

    /// What is there of the output of the sink at a step.
    pub(super) fn stored(&self, step: usize) -> Option<Arc<Stored>> {
        self.stored.get((*self.target_of.get(step)?)?).cloned()
    }

    /// What a step keeps beyond the process.
    pub(super) fn durable(&self, step: &str) -> Option<Durable> {
        let (transaction, places) = (self.transaction.as_ref()?, self.places.as_ref()?);
        let run_dir = places.runs.join(&self.run_id).join(step);
        let durable = Durable::new(transaction.kept().get(step).cloned(), places.steps.join(step), run_dir);
        let durable = durable.with_fallback(transaction.kept_without().get(step).cloned());
        Some(durable.counting_at_end(transaction.waits_for_end()))
    }

    /// Makes parts durable and public, by step, with all that belongs to them.
    ///
    /// # Errors
    /// Nothing of it is committed; or it is, and cannot be made public: the next run does that first.
    pub(super) async fn commit(
        &mut self,
        parts: Vec<(usize, Vec<Part>)>,
        epoch: Epoch,
        end: End,
    ) -> Result<()> {
        let Some(mut transaction) = self.transaction.take() else { return Ok(()) };
        let n_targets = self.target_of.iter().flatten().count();
        let mut by_target = vec![Vec::new(); n_targets];
        for (step, parts) in parts {
            if let Some(target) = self.target_of.get(step).copied().flatten() {
                by_target[target].extend(parts);
            }
        }
        let replaced = self.stored.iter().map(|stored| stored.replaced()).enumerate().collect();
        let described = self.stored.iter().map(|stored| stored.described()).enumerate();
        let tables = described.filter_map(|(target, table)| Some((target, table?.clone()))).collect();
        let inputs = serde_json::to_value(&self.inputs).ok();
        let (epoch, now) = (Epoch { parts: by_target, replaced, tables, inputs, ..epoch }, self.clock.now());
        let (transaction, committed) = self
            .tasks
            .block(move || {
                let committed = transaction.commit(epoch, end, now);
                (transaction, committed)
            })
            .await?;
        self.transaction = Some(transaction);
        let Committed { published, pending } = committed?;
        self.published = published.iter().map(|one| report_of(&self.base_dir, one)).collect();
        match pending {
            Some(error) => {
                Err(error.with("state", "committed; the next run makes it public before anything else"))
            }
            None => Ok(()),
        }
    }

    /// Lets go of the outputs; what is public of them.
    pub(super) async fn close(mut self, is_complete: bool) -> Vec<OutputReport> {
        if let Some(transaction) = self.transaction.take() {
            let closed = self.tasks.block(move || transaction.close()).await;
            if let Err(error) = closed.map_err(Error::from).and_then(|closed| closed) {
                tracing::warn!(error = %error.chain(), "staged files were not removed; the next run will");
            }
        }
        if is_complete {
            self.forget_runs(None).await;
        }
        self.published
    }

    /// Removes what steps kept for other runs than this one.
    async fn forget_runs(&self, but: Option<&str>) {
        let Some(places) = &self.places else { return };
        let (fs, runs, but) = (Arc::clone(&self.fs), places.runs.clone(), but.map(str::to_owned));
        let forgotten = self.tasks.block(move || forget(&*fs, &runs, but.as_deref())).await;
        if let Err(error) = forgotten.map_err(Error::from).and_then(|forgotten| forgotten) {
            tracing::warn!(error = %error.chain(), "what an earlier run kept was not removed; the next run will");
        }
    }
}

/// What is there and would be replaced was made of the same inputs, or the flow says that it is to be replaced.
fn check_inputs(transaction: &Transaction, target: usize, now: &BTreeMap<String, String>) -> Result<()> {
    let there = transaction.previous(target).and_then(|manifest| manifest.inputs.clone());
    let Some(Ok(before)) = there.map(serde_json::from_value::<BTreeMap<String, String>>) else {
        return Ok(());
    };
    if before == *now {
        return Ok(());
    }
    let told = |inputs: &BTreeMap<String, String>| match inputs.is_empty() {
        true => "nothing given".to_owned(),
        false => inputs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", "),
    };
    let message = "what is there was made of other inputs, and this run would replace it. Choose `mode: append`, \
                   `mode: replace_partitions` or `mode: replace` at the sink, or a path with the value in it; or \
                   replace it this once with `--full-refresh`";
    let error = Error::new(ErrorKind::Conflict, "replace output", message);
    let error = error.with("before", told(&before)).with("now", told(now));
    Err(match transaction.folder(target) {
        Some(folder) => error.with("path", folder.display()),
        None => error,
    })
}

/// No rows of earlier runs are there, which a run that gives what is new alone would replace.
fn check_nothing_there(transaction: &Transaction, target: usize, because: &str) -> Result<()> {
    let Some(there) = transaction.previous(target).filter(|there| there.rows > 0) else { return Ok(()) };
    let message = "the rows of earlier runs would be replaced with what is new alone; write to a folder, which is added to, or \
                   choose `mode: replace` at the sink";
    let error = Error::new(ErrorKind::Conflict, "replace output", message);
    Err(error.with("because", because).with("rows", there.rows))
}

/// What earlier runs have written to a target, as far as one of this mode looks at it.
fn stored_in(transaction: &Transaction, target: usize, mode: Mode) -> Stored {
    let there = transaction.previous(target).filter(|_| mode != Mode::Replace);
    let Some(manifest) = there else { return Stored::default() };
    let part =
        |part: &ManifestPart| StoredPart { name: part.name.clone(), rows: part.rows, n_bytes: part.bytes };
    let parts = manifest.parts.iter().filter(|_| mode.updates()).map(part).collect();
    Stored::new(manifest.table.clone(), transaction.folder(target).unwrap_or_default(), parts)
}

/// A URL is left as it is, and so are symbolic links; without a working directory, the path is as good a name as any.
fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    if is_in_store(path) {
        return path.to_owned();
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn forget(fs: &dyn Fs, runs: &Path, but: Option<&str>) -> Result<()> {
    let failed = |error| Error::io("forget run", runs.display(), error);
    if fs.stat(runs).map_err(failed)?.is_none() {
        return Ok(());
    }
    for entry in fs.list(runs).map_err(failed)? {
        if but.is_none_or(|kept| entry.path.file_name().is_none_or(|name| name != kept)) {
            fs.remove_dir_all(&entry.path).map_err(failed)?;
        }
    }
    Ok(())
}

fn report_of(base_dir: &Path, published: &Published) -> OutputReport {
    let path = published.path.strip_prefix(base_dir).unwrap_or(&published.path);
    OutputReport { path: path.display().to_string(), rows: published.rows, bytes: published.n_bytes }
}

/// Where each source goes on.
pub(super) fn positions_of(resumed: Option<&Resumed>, source: &str) -> Positions {
    resumed.and_then(|resumed| resumed.positions.get(source)).cloned().unwrap_or_default()
}
