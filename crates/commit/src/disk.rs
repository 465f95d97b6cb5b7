//! The file system with errors that name the path and what was being done.

use std::io;
use std::path::Path;
use std::sync::Arc;

use aqueduct_core::{Error, Fs, FsEntry, FsFile, Result};

/// [`Fs`], whose errors are [`Error`]s.
#[derive(Clone, Debug)]
pub(crate) struct Disk(pub(crate) Arc<dyn Fs>);

impl Disk {
    pub(crate) fn create_new(&self, path: &Path) -> Result<Box<dyn FsFile>> {
        named("create file", path, self.0.create_new(path))
    }

    pub(crate) fn create_dir_all(&self, path: &Path) -> Result<()> {
        named("create folder", path, self.0.create_dir_all(path))
    }

    pub(crate) fn sync_dir(&self, path: &Path) -> Result<()> {
        named("sync folder", path, self.0.sync_dir(path))
    }

    pub(crate) fn rename_no_replace(&self, from: &Path, to: &Path) -> Result<()> {
        named("publish", to, self.0.rename_no_replace(from, to))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        named("publish", to, self.0.rename(from, to))
    }

    /// Whether the two were exchanged; not, where the file system cannot.
    pub(crate) fn exchange(&self, a: &Path, b: &Path) -> Result<bool> {
        match self.0.exchange(a, b) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
            other => named("publish", b, other.map(|()| true)),
        }
    }

    pub(crate) fn remove_dir_all(&self, path: &Path) -> Result<()> {
        named("remove folder", path, self.0.remove_dir_all(path))
    }

    pub(crate) fn remove_empty_dir(&self, path: &Path) -> Result<()> {
        named("remove folder", path, self.0.remove_empty_dir(path))
    }

    pub(crate) fn list(&self, path: &Path) -> Result<Vec<FsEntry>> {
        named("list folder", path, self.0.list(path))
    }

    pub(crate) fn read(&self, path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
        named("read", path, self.0.read(path, max_bytes))
    }

    /// What is there; below a file there is nothing.
    pub(crate) fn stat(&self, path: &Path) -> Result<Option<FsEntry>> {
        match self.0.stat(path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
            other => named("look at", path, other),
        }
    }

    pub(crate) fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.stat(path)?.is_some())
    }
}

fn named<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Error::io(operation, path.display(), error))
}
