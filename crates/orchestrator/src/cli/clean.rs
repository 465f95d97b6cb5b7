//! `aqueduct clean`: what killed and forgotten runs left behind, told and removed.
//!
//! Of a flow its state and the staging folders beside its outputs; of a state folder rows that were spilled by processes that are
//! gone, and reports beyond the number that the ledger keeps. Symbolic links are not followed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_commit::{Clean, Cleaned, FlowLog, Leftover};
use aqueduct_core::{Error, Fs, FsEntry, Result, StdFs};
use aqueduct_net::StoreFs;
use aqueduct_primitives::ByteCount;

use super::arguments::{CleanArguments, FlowArguments};
use super::{Program, exit};
use crate::ledger::Ledger;
use crate::lock::{FlowLock, LockError};
use crate::progress::grouped;

/// The state folder of the flows of a folder.
const STATE: &str = ".aqueduct";
/// The folders for spilled rows, each with the lock file that its process holds (see `SpillDir` in `aqueduct-spill`).
const SPILL_PREFIX: &str = "aqueduct-spill-";
const SPILL_LOCK: &str = "aqueduct.lock";

/// Tells what nothing needs any more, and removes it unless told otherwise; the exit code.
pub(super) fn clean(program: &Program, arguments: CleanArguments) -> u8 {
    let how = if arguments.dry_run { Clean::Tell } else { Clean::Remove };
    let cleaned = match arguments.flow {
        Some(flow) => program.clean_flow(&FlowArguments { flow, values: arguments.values }, how),
        None => program.clean_all(Path::new(STATE), how),
    };
    let (cleaned, code) = match cleaned {
        Ok(cleaned) => cleaned,
        Err(code) => return code,
    };
    program.tell_cleaned(&cleaned, how);
    code
}

impl Program {
    /// The flows of a file: each must be free.
    fn clean_flow(&self, arguments: &FlowArguments, how: Clean) -> Result<(Cleaned, u8), u8> {
        let (mut cleaned, mut code) = (Cleaned::default(), exit::DONE);
        let flows = self.load(arguments)?;
        for flow in &flows {
            let found = match flow.state_store {
                None => self.clean_one(flow.fs(), &flow.state_dir, &flow.lock_name(), how)?,
                Some(_) => self.clean_locked(&flow.state_dir, &flow.lock_name(), how, || flow.open_log())?,
            };
            match found {
                Ok(one) => cleaned.extend(one),
                Err(running) => {
                    cleaned.kept_back.push(running);
                    code = exit::RUNNING;
                }
            }
        }
        if let Some(flow) = flows.first() {
            cleaned.extend(self.clean_state(&flow.state_dir, how)?);
        }
        Ok((cleaned, code))
    }

    /// All flows of a state folder that are free.
    fn clean_all(&self, state_dir: &Path, how: Clean) -> Result<(Cleaned, u8), u8> {
        let mut cleaned = Cleaned::default();
        let flows = folders(&state_dir.join("flows")).map_err(|error| self.refuse(&error))?;
        for name in flows.iter().filter_map(|flow| flow.file_name()?.to_str()) {
            match self.clean_one(Arc::new(StoreFs::default()), state_dir, name, how)? {
                Ok(one) => cleaned.extend(one),
                Err(running) => cleaned.kept_back.push(running),
            }
        }
        cleaned.extend(self.clean_state(state_dir, how)?);
        Ok((cleaned, exit::DONE))
    }

    /// What belongs to one flow; or that it is running.
    fn clean_one(
        &self,
        fs: Arc<dyn Fs>,
        state_dir: &Path,
        name: &str,
        how: Clean,
    ) -> Result<std::result::Result<Cleaned, String>, u8> {
        let flow_dir = state_dir.join("flows").join(name);
        if !folders(&state_dir.join("flows")).map_err(|error| self.refuse(&error))?.contains(&flow_dir) {
            return Ok(Ok(Cleaned::default()));
        }
        // Staging folders name it as a run does.
        let flow_dir = std::path::absolute(&flow_dir).unwrap_or(flow_dir);
        self.clean_locked(state_dir, name, how, || FlowLog::open(&fs, &flow_dir))
    }

    /// What belongs to a flow whose log is opened when its lock is held; or that it is running.
    fn clean_locked(
        &self,
        state_dir: &Path,
        name: &str,
        how: Clean,
        open: impl FnOnce() -> Result<FlowLog>,
    ) -> std::result::Result<std::result::Result<Cleaned, String>, u8> {
        let _lock = match FlowLock::take(&StdFs, state_dir, name) {
            Ok(lock) => lock,
            Err(error @ LockError::Running { .. }) => return Ok(Err(format!("{name}: {error}"))),
            Err(error) => {
                self.say_error(&error.to_string());
                return Err(exit::FAILED);
            }
        };
        open().and_then(|log| log.clean(how)).map(Ok).map_err(|error| self.refuse(&error))
    }

    /// What belongs to no flow.
    fn clean_state(&self, state_dir: &Path, how: Clean) -> Result<Cleaned, u8> {
        let spilled = clean_spilled(&state_dir.join("spill"), how);
        let reports = spilled.and_then(|spilled| Ok((spilled, clean_ledger(state_dir, how)?)));
        let (mut cleaned, reports) = reports.map_err(|error| self.refuse(&error))?;
        cleaned.extend(reports);
        Ok(cleaned)
    }

    fn tell_cleaned(&self, cleaned: &Cleaned, how: Clean) {
        let human = |n_bytes| ByteCount::new(n_bytes).human();
        let verb = if how == Clean::Remove { "removed" } else { "would remove" };
        for Leftover { path, n_bytes } in &cleaned.leftovers {
            self.console.line(&format!("{verb} {} ({})", path.display(), human(*n_bytes)));
        }
        for what in &cleaned.kept_back {
            self.console.line(&format!("left as it is: {what}"));
        }
        let sum = cleaned.leftovers.iter().map(|leftover| leftover.n_bytes).sum();
        let n = cleaned.leftovers.len() as u64;
        let things = if n == 1 { "file or folder" } else { "files and folders" };
        self.console.line(&format!("{verb} {} {things}, {}", grouped(n), human(sum)));
    }
}

/// The folders in a folder that is one itself, links left out.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = entries(folder)?.into_iter().filter(|entry| entry.is_dir);
    Ok(entries.map(|entry| entry.path).collect())
}

fn entries(folder: &Path) -> Result<Vec<FsEntry>> {
    let failed = |error| Error::io("clean", folder.display(), error);
    match StdFs.stat(folder).map_err(failed)? {
        Some(there) if there.is_dir => StdFs.list(folder).map_err(failed),
        _ => Ok(Vec::new()),
    }
}

fn n_bytes(entry: &FsEntry) -> Result<u64> {
    match entry.is_dir {
        true => entries(&entry.path)?.iter().map(n_bytes).sum(),
        false => Ok(entry.n_bytes),
    }
}

/// Folders of spilled rows whose processes are gone: whoever holds the lock of one may remove it.
fn clean_spilled(folder: &Path, how: Clean) -> Result<Cleaned> {
    let mut cleaned = Cleaned::default();
    let is_spill = |entry: &FsEntry| {
        entry
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(SPILL_PREFIX))
    };
    for spill in entries(folder)?.into_iter().filter(|entry| entry.is_dir).filter(is_spill) {
        let failed = |error| Error::io("clean", spill.path.display(), error);
        let lock = spill.path.join(SPILL_LOCK);
        // One that has no lock file yet is being made; whoever makes the next one sees to it.
        if !matches!(StdFs.stat(&lock), Ok(Some(file)) if !file.is_dir) {
            continue;
        }
        let Ok(Some(_held)) = StdFs.try_lock(&lock) else { continue };
        cleaned.leftovers.push(Leftover { path: spill.path.clone(), n_bytes: n_bytes(&spill)? });
        if how == Clean::Remove {
            StdFs.remove_dir_all(&spill.path).map_err(failed)?;
        }
    }
    Ok(cleaned)
}

/// Reports beyond the number that is kept.
fn clean_ledger(state_dir: &Path, how: Clean) -> Result<Cleaned> {
    let mut cleaned = Cleaned::default();
    for path in Ledger::new(&StdFs, state_dir).too_many()? {
        let failed = |error| Error::io("clean", path.display(), error);
        let n_bytes = StdFs.stat(&path).map_err(failed)?.map_or(0, |entry| entry.n_bytes);
        if how == Clean::Remove {
            StdFs.remove_file(&path).map_err(failed)?;
        }
        cleaned.leftovers.push(Leftover { path, n_bytes });
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spilled_rows_that_somebody_holds_and_what_links_lead_to_stay() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        for name in ["spill/aqueduct-spill-dead", "spill/aqueduct-spill-held", "spill/mine", "elsewhere"] {
            std::fs::create_dir_all(at(name)).unwrap();
            std::fs::write(at(name).join(SPILL_LOCK), "").unwrap();
            std::fs::write(at(name).join("run-0"), "rows").unwrap();
        }
        std::os::unix::fs::symlink(at("elsewhere"), at("spill/aqueduct-spill-link")).unwrap();
        std::os::unix::fs::symlink(at("elsewhere"), at("spill/aqueduct-spill-dead/link")).unwrap();
        let held = StdFs.try_lock(&at("spill/aqueduct-spill-held").join(SPILL_LOCK)).unwrap().unwrap();
        let told = clean_spilled(&at("spill"), Clean::Tell).unwrap();
        assert!(at("spill/aqueduct-spill-dead").exists());
        let removed = clean_spilled(&at("spill"), Clean::Remove).unwrap();
        assert_eq!(told.leftovers, removed.leftovers);
        assert_eq!(removed.leftovers.len(), 1);
        assert!(removed.leftovers[0].n_bytes >= 4);
        assert_eq!(removed.leftovers[0].path, at("spill/aqueduct-spill-dead"));
        assert!(!at("spill/aqueduct-spill-dead").exists());
        for kept in ["spill/aqueduct-spill-held/run-0", "spill/mine/run-0", "elsewhere/run-0"] {
            assert!(at(kept).exists(), "{kept}");
        }
        drop(held);
        std::os::unix::fs::symlink(at("spill"), at("link")).unwrap();
        assert!(clean_spilled(&at("link"), Clean::Remove).unwrap().leftovers.is_empty());
    }
}
