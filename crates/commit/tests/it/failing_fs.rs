//! A disk whose n-th change fails, and every change after it: what a crash leaves behind.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use aqueduct_core::{Fs, FsEntry, FsFile, StdFs};

/// Counts down to the change that fails.
#[derive(Debug)]
pub(crate) struct FailingFs {
    left: Arc<AtomicU64>,
    pub(crate) can_exchange: AtomicBool,
}

impl FailingFs {
    /// Changes until `n_good` of them have been made.
    pub(crate) fn after(n_good: u64) -> Self {
        Self { left: Arc::new(AtomicU64::new(n_good)), can_exchange: AtomicBool::new(true) }
    }
}

fn change(left: &AtomicU64) -> io::Result<()> {
    match left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => Ok(()),
        Err(_) => Err(io::Error::other("the disk is gone")),
    }
}

struct FailingFile(Box<dyn FsFile>, Arc<AtomicU64>);

impl Write for FailingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        change(&self.1)?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl FsFile for FailingFile {
    fn sync(&mut self) -> io::Result<()> {
        change(&self.1)?;
        self.0.sync()
    }
}

impl Fs for FailingFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        change(&self.left)?;
        Ok(Box::new(FailingFile(StdFs.create_new(path)?, Arc::clone(&self.left))))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        change(&self.left)?;
        StdFs.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        change(&self.left)?;
        StdFs.sync_dir(path)
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        change(&self.left)?;
        StdFs.rename_no_replace(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        change(&self.left)?;
        StdFs.rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        if !self.can_exchange.load(SeqCst) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        change(&self.left)?;
        StdFs.exchange(a, b)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        change(&self.left)?;
        StdFs.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        change(&self.left)?;
        StdFs.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        change(&self.left)?;
        StdFs.remove_dir_all(path)
    }

    fn remove_empty_dir(&self, path: &Path) -> io::Result<()> {
        change(&self.left)?;
        StdFs.remove_empty_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FsEntry>> {
        StdFs.list(path)
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        StdFs.read(path, max_bytes)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<FsEntry>> {
        StdFs.stat(path)
    }
}
