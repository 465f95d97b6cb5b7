//! The folder that spilled rows go to: one for each sort, locked, bounded and removed with it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aqueduct_core::{Error, ErrorKind, Result, StepMetrics};
use aqueduct_primitives::{Budget, ByteCount, Reservation};

use crate::SpillCompression;

/// A folder for spilled rows, removed with all that is in it when the last clone is dropped. Cheap to clone.
///
/// It holds a lock for as long as its process lives, so that whoever makes the next one beside it knows which
/// folders a killed process left, and removes those.
#[derive(Clone, Debug)]
pub struct SpillDir {
    shared: Arc<Shared>,
    metrics: Arc<StepMetrics>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    disk: Budget,
    n_files: AtomicU64,
    _lock: File,
}

/// How every such folder begins.
const PREFIX: &str = "aqueduct-spill-";
const LOCK_FILE: &str = "aqueduct.lock";
/// How often a folder may vanish before it is locked, because somebody took it for one that was left behind.
const MAX_TRIES: usize = 16;

impl SpillDir {
    /// One below `parent`, whose files take from `disk`. Removes what killed processes left there.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn new(parent: &Path, disk: Budget) -> Result<Self> {
        let failed =
            |error| Error::io("make a folder for rows that memory does not hold", parent.display(), error);
        fs::create_dir_all(parent).map_err(failed)?;
        sweep(parent).map_err(failed)?;
        for _ in 0..MAX_TRIES {
            if let Some((dir, lock)) = locked_dir(parent).map_err(failed)? {
                let n_files = AtomicU64::default();
                let shared = Arc::new(Shared { dir, disk, n_files, _lock: lock });
                return Ok(Self { shared, metrics: Arc::default() });
            }
        }
        let message = "the folder vanishes again and again; is something else cleaning it?";
        Err(Error::new(ErrorKind::Io, "spill", message).with("dir", parent.display()))
    }

    /// How rows go to this disk: as they are while half of it is free, which is quicker, then compressed.
    pub fn compression(&self) -> SpillCompression {
        let disk = &self.shared.disk;
        let has_room = disk.free().get() > disk.total().get() / 2;
        if has_room { SpillCompression::None } else { SpillCompression::Lz4 }
    }

    /// What is spilled, and merged, is counted here from now on, as it happens.
    #[must_use]
    pub fn counted_in(self, metrics: &Arc<StepMetrics>) -> Self {
        Self { metrics: Arc::clone(metrics), ..self }
    }

    /// Where it is counted.
    pub(crate) fn metrics(&self) -> &StepMetrics {
        &self.metrics
    }

    /// A new file, for writing.
    pub(crate) fn create(&self) -> Result<(SpillFile, File)> {
        let n = self.shared.n_files.fetch_add(1, Relaxed);
        let path = self.shared.dir.join(format!("run-{n}"));
        let file = File::create_new(&path).map_err(|error| Error::io("spill", path.display(), error))?;
        Ok((SpillFile { dir: self.clone(), path, taken: Reservation::empty() }, file))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody is left to be told; the next run sweeps.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A new folder and its lock; none if it was swept away in between.
fn locked_dir(parent: &Path) -> io::Result<Option<(PathBuf, File)>> {
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?.keep();
    let lock = match File::create_new(dir.join(LOCK_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    match lock.try_lock() {
        Ok(()) => Ok(dir.join(LOCK_FILE).exists().then_some((dir, lock))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the folders that nobody holds.
fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            remove_if_left_behind(&entry.path())?;
        }
    }
    Ok(())
}

/// Holds the lock while it removes, so that nobody takes the folder meanwhile. One without a lock file is being made,
/// or was left before it had one: it goes only if it is empty, and whoever makes it then makes another.
fn remove_if_left_behind(dir: &Path) -> io::Result<()> {
    let removed = match File::open(dir.join(LOCK_FILE)) {
        Ok(lock) if lock.try_lock().is_ok() => fs::remove_dir_all(dir),
        Ok(_held) => Ok(()),
        Err(_) => fs::remove_dir(dir).or(Ok(())),
    };
    match removed {
        // Somebody else was quicker.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A file of spilled rows, removed when dropped.
#[derive(Debug)]
pub(crate) struct SpillFile {
    dir: SpillDir,
    path: PathBuf,
    taken: Reservation,
}

impl SpillFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes room for bytes that are about to be written, which are so many in memory.
    pub(crate) fn grow(&mut self, n_bytes: u64, raw_bytes: u64) -> Result<()> {
        let disk = &self.dir.shared.disk;
        let more = disk.try_reserve(ByteCount::new(n_bytes)).map_err(|error| {
            let message = "there are more rows than memory holds, and they take more disk than they may; raise \
                           `execution.spill.max_bytes`, or give `execution.spill.dir` a disk with more room";
            Error::new(ErrorKind::Limit, "spill", message)
                .with("limit_bytes", disk.total())
                .with("dir", self.dir.shared.dir.display())
                .with_source(error)
        })?;
        self.taken.merge(more);
        self.dir.metrics.spilled_bytes.add(n_bytes);
        self.dir.metrics.spilled_raw_bytes.add(raw_bytes);
        Ok(())
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        // The folder goes with all that is in it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(parent: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        fs::read_dir(parent).unwrap().map(name).collect()
    }

    #[test]
    fn files_are_counted_bounded_and_removed() {
        let parent = tempfile::tempdir().unwrap();
        let disk = Budget::new("disk", ByteCount::new(100));
        let dir = SpillDir::new(parent.path(), disk.clone()).unwrap();
        let (mut a, _) = dir.create().unwrap();
        let (mut b, _) = dir.create().unwrap();
        assert_ne!(a.path(), b.path());
        assert_eq!(dir.compression(), SpillCompression::None);
        a.grow(60, 80).unwrap();
        assert_eq!(dir.compression(), SpillCompression::Lz4, "less than half is left");
        let error = b.grow(60, 80).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.to_string().contains("execution.spill.max_bytes"), "{error}");
        drop((a, b));
        let (mut c, _) = dir.create().unwrap();
        c.grow(100, 100).unwrap();
        drop((c, dir));
        assert_eq!(disk.free(), ByteCount::new(100));
        assert!(names(parent.path()).is_empty());
    }

    #[test]
    fn what_the_dead_left_is_swept_and_what_the_living_use_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let disk = Budget::new("disk", ByteCount::new(100));
        let living = SpillDir::new(parent.path(), disk.clone()).unwrap();
        let (file, _) = living.create().unwrap();
        for dir in ["aqueduct-spill-dead", "aqueduct-spill-never-begun", "data"] {
            fs::create_dir(parent.path().join(dir)).unwrap();
        }
        let dead = parent.path().join("aqueduct-spill-dead");
        fs::write(dead.join(LOCK_FILE), "").unwrap();
        fs::write(dead.join("run-0"), "rows").unwrap();
        let second = SpillDir::new(parent.path(), disk).unwrap();
        assert!(file.path().exists());
        let left = names(parent.path());
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(left.contains(&"data".to_owned()), "{left:?}");
        drop((file, living, second));
        assert_eq!(names(parent.path()), ["data"]);
    }
}
