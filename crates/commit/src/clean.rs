//! What killed and forgotten runs of a flow have left, which nothing needs any more.
//!
//! | where | what goes | what stays |
//! |---|---|---|
//! | `log/` | records that were being written | records |
//! | `runs/` | folders of runs that have ended | that of an unfinished run |
//! | `steps/STEP/` | files of keys that no value names | files that one names which some run may begin with |
//! | `PARENT/_aqueduct/NAME/` | this log's staging folders | those of an unfinished run, and of a commit that is not public |
//!
//! Symbolic links are not followed: one that stands where a folder should is passed over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aqueduct_core::{ErrorKind, FsEntry, Result};

use crate::dataset::Dataset;
use crate::disk::Disk;
use crate::flow_log::FlowLog;
use crate::keys::{KeysKept, SightingsKept, is_keys_file};
use crate::log::is_draft;
use crate::record::OutputRef;
use crate::stage::{Owner, Stage};

/// Deeper folders than this are nobody's that aqueduct made; their bytes are not counted.
const MAX_DEPTH: usize = 64;

/// Whether what is found is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clean {
    /// It is only told.
    Tell,
    /// It is told and removed.
    Remove,
}

/// A file or folder that nothing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is, or was.
    pub path: PathBuf,
    /// The bytes of its files.
    pub n_bytes: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Cleaned {
    /// What nothing needs.
    pub leftovers: Vec<Leftover>,
    /// What was left as it is, and why.
    pub kept_back: Vec<String>,
}

impl Cleaned {
    /// Takes another's in.
    pub fn extend(&mut self, other: Self) {
        self.leftovers.extend(other.leftovers);
        self.kept_back.extend(other.kept_back);
    }
}

impl FlowLog {
    /// Finds what nothing of this flow needs any more, and removes it if it is to: never an output, a record, or what an
    /// unfinished run goes on with. It may be killed at any moment and begun again. Whoever calls it holds the flow's lock.
    ///
    /// # Errors
    /// [`ErrorKind::Newer`]: a newer version wrote what a step keeps. Or the disk fails; what was removed before is gone.
    pub fn clean(&self, how: Clean) -> Result<Cleaned> {
        let mut sweep = Sweep { disk: &self.disk, how, cleaned: Cleaned::default() };
        if !sweep.is_folder(&self.local_dir)? {
            return Ok(sweep.cleaned);
        }
        let named = self.files_of_keys()?;
        self.clean_drafts(&mut sweep)?;
        self.clean_runs(&mut sweep)?;
        self.clean_keys(&named, &mut sweep)?;
        // No lock keeps other machines from running the flow: what is staged is the next run's to remove, which fences them.
        if self.disk.objects(&self.flow_dir).is_none() {
            self.clean_staged(&mut sweep)?;
        }
        Ok(sweep.cleaned)
    }

    /// The files that are named by values with which some run may begin.
    fn files_of_keys(&self) -> Result<BTreeSet<PathBuf>> {
        let mut named = BTreeSet::new();
        for (step, value) in self.history.all_kept() {
            let keys = KeysKept::of(value)?.into_iter().flat_map(|kept| kept.files);
            let sightings = SightingsKept::of(value)?.into_iter().flat_map(|kept| kept.files);
            named
                .extend(keys.chain(sightings).map(|file| self.local_dir.join("steps").join(step).join(file)));
        }
        Ok(named)
    }

    fn clean_drafts(&self, sweep: &mut Sweep<'_>) -> Result<()> {
        let drafts = sweep.entries(&self.local_dir.join("log"))?.into_iter();
        drafts.filter(|entry| is_draft(&entry.path)).try_for_each(|draft| sweep.take(&draft))
    }

    fn clean_runs(&self, sweep: &mut Sweep<'_>) -> Result<()> {
        let unfinished = self.unfinished().map(|run| run.run_id);
        let runs = sweep.entries(&self.local_dir.join("runs"))?.into_iter();
        let has_ended = |entry: &FsEntry| entry.path.file_name().and_then(|name| name.to_str()) != unfinished;
        runs.filter(|entry| unfinished.is_none() || has_ended(entry)).try_for_each(|run| sweep.take(&run))
    }

    fn clean_keys(&self, named: &BTreeSet<PathBuf>, sweep: &mut Sweep<'_>) -> Result<()> {
        for step in sweep.entries(&self.local_dir.join("steps"))? {
            for file in sweep.entries(&step.path)? {
                let name = file.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if !file.is_dir && is_keys_file(name) && !named.contains(&file.path) {
                    sweep.take(&file)?;
                }
            }
        }
        Ok(())
    }

    fn clean_staged(&self, sweep: &mut Sweep<'_>) -> Result<()> {
        let Some(log_id) = self.history.log_id.clone() else { return Ok(()) };
        let owner = Owner { flow_dir: self.flow_dir.clone(), log_id };
        let mut seen = BTreeSet::new();
        for output in self.history.outputs() {
            if !seen.insert(&output.path) || !sweep.has_staged(output)? {
                continue;
            }
            let claimed = match sweep.how {
                Clean::Tell => Dataset::look(&self.disk, output),
                Clean::Remove => Dataset::claim(&self.disk, output),
            };
            match claimed {
                Ok(claim) => {
                    let cleaned = self.clean_stages(&claim, &owner, sweep);
                    if sweep.how == Clean::Remove {
                        claim.release();
                    }
                    cleaned?;
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    sweep.cleaned.kept_back.push(error.chain());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn clean_stages(&self, claim: &Dataset, owner: &Owner, sweep: &mut Sweep<'_>) -> Result<()> {
        for stage in claim.stages()? {
            if !sweep.is_folder(stage.path())?
                || stage.owner(&self.disk)?.is_some_and(|other| other != *owner)
            {
                continue;
            }
            let entry = FsEntry { path: stage.path().to_owned(), is_dir: true, n_bytes: 0 };
            if self.is_needed(claim, &stage)? {
                // What was being written and is in no commit. The next opening makes the folder anew.
                let written = stage.parts();
                if !sweep.entries(&written)?.is_empty() {
                    sweep.take(&FsEntry { path: written, ..entry })?;
                }
            } else {
                sweep.take_by(&entry, || claim.discard(&stage))?;
            }
        }
        Ok(())
    }

    /// Whether a run goes on with what is staged there, or something committed is not public yet.
    fn is_needed(&self, claim: &Dataset, stage: &Stage) -> Result<bool> {
        if self.history.unfinished().is_some_and(|run| run.run_id == stage.run_id()) {
            return Ok(true);
        }
        match self.history.newest().filter(|newest| newest.run_id == stage.run_id()) {
            Some(newest) => claim.has_to_publish(stage, &newest),
            None => Ok(false),
        }
    }
}

struct Sweep<'a> {
    disk: &'a Disk,
    how: Clean,
    cleaned: Cleaned,
}

impl Sweep<'_> {
    /// Whether a folder is there, and no link to one.
    fn is_folder(&self, path: &Path) -> Result<bool> {
        Ok(self.disk.stat(path)?.is_some_and(|entry| entry.is_dir))
    }

    /// What is in a folder; nothing, if there is none.
    fn entries(&self, folder: &Path) -> Result<Vec<FsEntry>> {
        if self.is_folder(folder)? { self.disk.list(folder) } else { Ok(Vec::new()) }
    }

    /// Whether something is staged for an output, where it was made for that.
    fn has_staged(&self, output: &OutputRef) -> Result<bool> {
        let layout = Dataset::layout_of(output)?;
        let are_folders = self.is_folder(&layout.hidden())? && self.is_folder(&layout.home())?;
        Ok(are_folders && !Stage::all(self.disk, &layout)?.is_empty())
    }

    fn take(&mut self, entry: &FsEntry) -> Result<()> {
        let disk = self.disk;
        self.take_by(entry, || match entry.is_dir {
            true => disk.remove_dir_all(&entry.path),
            false => disk.remove_file(&entry.path),
        })
    }

    fn take_by(&mut self, entry: &FsEntry, remove: impl FnOnce() -> Result<()>) -> Result<()> {
        let n_bytes = n_bytes(self.disk, entry, 0)?;
        if self.how == Clean::Remove {
            match remove() {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    self.cleaned.kept_back.push(error.chain());
                    return Ok(());
                }
                removed => removed?,
            }
        }
        self.cleaned.leftovers.push(Leftover { path: entry.path.clone(), n_bytes });
        Ok(())
    }
}

/// The bytes of a file, or of all files in a folder.
fn n_bytes(disk: &Disk, entry: &FsEntry, depth: usize) -> Result<u64> {
    if !entry.is_dir {
        return Ok(entry.n_bytes);
    }
    if depth >= MAX_DEPTH {
        return Ok(0);
    }
    disk.list(&entry.path)?.iter().map(|below| n_bytes(disk, below, depth + 1)).sum()
}
