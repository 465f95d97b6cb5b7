//! Where runs lie: in a folder that outlives the process, or in scratch.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aqueduct_core::{Error, ErrorKind, Fs, FsFile, FsRead, Result, Scratch, kill_point};
use aqueduct_primitives::{ByteCount, Reservation};

use crate::disk::{Disk, or_here};

/// Names of files that nobody else in this process has.
static N_SCRATCH: AtomicU64 = AtomicU64::new(0);

/// What runs of one kind are called: two kinds may lie in one folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files {
    prefix: &'static str,
    suffix: &'static str,
}

/// Runs of keys.
pub(super) const KEYS: Files = Files { prefix: "seen-", suffix: ".keys" };

/// Runs of sightings.
pub(super) const SIGHTINGS: Files = Files { prefix: "sighted-", suffix: ".sightings" };

/// The folder of the runs.
#[derive(Debug)]
pub(super) struct Home {
    disk: Disk,
    folder: PathBuf,
    files: Files,
    /// What is on the disk is taken from here, and has no name once it is written.
    scratch: Option<Scratch>,
}

impl Home {
    pub(super) fn durable(disk: Disk, folder: PathBuf, files: Files) -> Self {
        Self { disk, folder, files, scratch: None }
    }

    pub(super) fn scratch(disk: Disk, scratch: Scratch) -> Self {
        Self { disk, folder: scratch.dir.clone(), files: KEYS, scratch: Some(scratch) }
    }

    pub(super) fn fs(&self) -> &Arc<dyn Fs> {
        &self.disk.0
    }

    /// The number in the name of a run of this home's kind.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.files.number(name)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The name of the run of this number.
    pub(super) fn name(&self, n: u64) -> String {
        let Files { prefix, suffix } = self.files;
        match self.scratch {
            None => format!("{prefix}{n:08}{suffix}"),
            Some(_) => {
                format!("{prefix}{}-{}{suffix}", std::process::id(), N_SCRATCH.fetch_add(1, Relaxed))
            }
        }
    }

    /// A new file, to write and to read. One in scratch loses its name at once, so that nothing is left of it when the
    /// process ends, however it ends.
    pub(super) fn create(&self, path: &Path) -> Result<(Box<dyn FsFile>, Box<dyn FsRead>)> {
        self.disk.create_dir_all(&self.folder)?;
        let file = self.disk.create_new(path)?;
        let reader =
            self.disk.0.open_read(path).map_err(|error| Error::io("open file", path.display(), error))?;
        if self.scratch.is_some() {
            self.disk.remove_file(path)?;
        }
        Ok((file, reader))
    }

    /// Room for so many bytes, where that is bounded.
    pub(super) fn take(&self, bytes: ByteCount) -> Result<Reservation> {
        self.scratch.as_ref().map_or_else(|| Ok(Reservation::empty()), |scratch| scratch.take(bytes))
    }

    /// Makes a file that is written durable, where it is to last.
    pub(super) fn finish(&self, file: &mut dyn FsFile, path: &Path) -> Result<()> {
        if self.scratch.is_some() {
            return Ok(());
        }
        kill_point("keys.run.written");
        file.sync().map_err(|error| Error::io("write seen keys", path.display(), error))?;
        kill_point("keys.run.synced");
        Ok(())
    }

    /// Makes the names of all runs durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.disk.sync_dir(&self.folder)?;
        kill_point("keys.folder.synced");
        Ok(())
    }

    /// Makes the folder and those above it durable: whoever made them may have been killed before it could.
    pub(super) fn sync_above(&self) -> Result<()> {
        for folder in self.folder.ancestors().skip(1) {
            match self.disk.sync_dir(or_here(folder)) {
                // Where one may not look, one has made nothing.
                Err(error) if error.kind() == ErrorKind::Denied => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes a run; in scratch it has no name any more.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        if self.scratch.is_some() { Ok(()) } else { self.disk.remove_file(&self.path(name)) }
    }

    /// The names of all runs in the folder.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        if self.scratch.is_some() || !self.disk.exists(&self.folder)? {
            return Ok(Vec::new());
        }
        let names = self.disk.list(&self.folder)?.into_iter().filter(|entry| !entry.is_dir);
        let names = names.filter_map(|entry| Some(entry.path.file_name()?.to_str()?.to_owned()));
        Ok(names.filter(|name| self.files.number(name).is_some()).collect())
    }
}

impl Files {
    /// The number in the name of a run.
    pub(super) fn number(self, name: &str) -> Option<u64> {
        name.strip_prefix(self.prefix)?.strip_suffix(self.suffix)?.parse().ok()
    }
}
