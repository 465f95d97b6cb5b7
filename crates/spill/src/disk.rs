//! The folder that spilled rows go to: one for each stage of a run, named, bounded and removed with it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::ByteCount;

/// A folder for spilled rows. It is made with the first file and removed, with all that is in it, when the last clone
/// is dropped; what a killed process left, [`sweep`] removes.
#[derive(Clone, Debug)]
pub struct SpillDir {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    max_bytes: u64,
    used_bytes: AtomicU64,
    written_bytes: AtomicU64,
    n_files: AtomicU64,
}

impl SpillDir {
    /// One below `parent`, for at most so many bytes at a time.
    pub fn new(parent: &Path, name: &str, max_bytes: ByteCount) -> Self {
        let dir = parent.join(format!("{PREFIX}{}-{name}", std::process::id()));
        let zero = AtomicU64::default;
        let (used_bytes, written_bytes, n_files) = (zero(), zero(), zero());
        Self {
            shared: Arc::new(Shared { dir, max_bytes: max_bytes.get(), used_bytes, written_bytes, n_files }),
        }
    }

    /// All bytes ever written to it.
    pub fn written_bytes(&self) -> ByteCount {
        ByteCount::new(self.shared.written_bytes.load(Relaxed))
    }

    /// A new file, for writing.
    pub(crate) fn create(&self) -> Result<(SpillFile, File)> {
        let n = self.shared.n_files.fetch_add(1, Relaxed);
        let path = self.shared.dir.join(format!("run-{n}"));
        fs::create_dir_all(&self.shared.dir)
            .and_then(|()| File::create_new(&path))
            .map(|file| (SpillFile { dir: self.clone(), path: path.clone(), n_bytes: 0 }, file))
            .map_err(|error| Error::io("spill", path.display(), error))
    }
}

/// Folders of this beginning belong to processes of the number behind it.
const PREFIX: &str = "spill-";

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody is left to be told; the next run sweeps.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes what processes that are no more have left below a folder. Gives the number of folders removed.
///
/// # Errors
/// The folder cannot be listed. That it is not there is no error.
pub fn sweep(parent: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut n_removed = 0;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            fs::remove_dir_all(entry.path())?;
            n_removed += 1;
        }
    }
    Ok(n_removed)
}

/// A file of spilled rows, removed when dropped.
#[derive(Debug)]
pub(crate) struct SpillFile {
    dir: SpillDir,
    path: PathBuf,
    n_bytes: u64,
}

impl SpillFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Counts bytes that are about to be written.
    pub(crate) fn grow(&mut self, n_bytes: u64) -> Result<()> {
        let shared = &self.dir.shared;
        let used = shared.used_bytes.fetch_add(n_bytes, Relaxed) + n_bytes;
        self.n_bytes += n_bytes;
        shared.written_bytes.fetch_add(n_bytes, Relaxed);
        if used <= shared.max_bytes {
            return Ok(());
        }
        let message = "more rows than memory holds, and they take more disk than they may";
        Err(Error::new(ErrorKind::Limit, "spill", message)
            .with("needed_bytes", used)
            .with("limit_bytes", shared.max_bytes)
            .with("dir", shared.dir.display()))
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.dir.shared.used_bytes.fetch_sub(self.n_bytes, Relaxed);
        // The folder goes with all that is in it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_bounded_and_removed() {
        let parent = tempfile::tempdir().unwrap();
        let dir = SpillDir::new(parent.path(), "sort", ByteCount::new(100));
        let (mut a, _) = dir.create().unwrap();
        let (mut b, _) = dir.create().unwrap();
        assert_ne!(a.path(), b.path());
        a.grow(60).unwrap();
        let error = b.grow(60).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        drop((a, b));
        let (mut c, _) = dir.create().unwrap();
        c.grow(100).unwrap();
        assert_eq!(dir.written_bytes(), ByteCount::new(220));
        drop((c, dir));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_the_dead_left_is_swept_and_what_the_living_use_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let own = SpillDir::new(parent.path(), "sort", ByteCount::new(100));
        let (_file, _) = own.create().unwrap();
        for name in ["spill-4000000000-sort", "spill-of-mine", "data"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        assert_eq!(sweep(parent.path()).unwrap(), 1);
        assert!(!parent.path().join("spill-4000000000-sort").exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 3);
        assert_eq!(sweep(&parent.path().join("nothing")).unwrap(), 0);
    }
}
