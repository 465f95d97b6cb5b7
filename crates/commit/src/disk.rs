//! The file system with errors that name the path and what was being done.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Error, Fs, FsEntry, FsFile, Objects, Result};

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

    /// Makes a folder and those above it, durable up to the first that was there before.
    pub(crate) fn create_durable_dir(&self, path: &Path) -> Result<()> {
        if self.objects(path).is_some() {
            return Ok(());
        }
        let missing = self.missing_above(path)?;
        if missing.is_empty() {
            return Ok(());
        }
        self.create_dir_all(path)?;
        let changed = missing.iter().filter_map(|folder| folder.parent());
        changed.map(or_here).try_for_each(|folder| self.sync_dir(folder))
    }

    /// A folder and those above it that are not there, the deepest first.
    pub(crate) fn missing_above(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut missing = Vec::new();
        let mut folder = Some(folder).filter(|folder| self.objects(folder).is_none());
        while let Some(here) = folder.filter(|here| !here.as_os_str().is_empty()) {
            if self.exists(here)? {
                break;
            }
            missing.push(here.to_owned());
            folder = here.parent();
        }
        Ok(missing)
    }

    /// Writes a new file; it is durable once its folder is.
    pub(crate) fn write_durable(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = self.create_new(path)?;
        named("write", path, file.write_all(bytes).and_then(|()| file.sync()))
    }

    /// Gives a file a second name that is free.
    pub(crate) fn link(&self, from: &Path, to: &Path) -> Result<()> {
        named("link file", to, self.0.link(from, to))
    }

    pub(crate) fn remove_file(&self, path: &Path) -> Result<()> {
        named("remove file", path, self.0.remove_file(path))
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

    /// What more there is to do, if a path is in an object store.
    pub(crate) fn objects(&self, path: &Path) -> Option<&dyn Objects> {
        self.0.objects(path)
    }

    pub(crate) fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.stat(path)?.is_some())
    }
}

/// The folder itself; of a bare name, the one that it stands in.
pub(crate) fn or_here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

fn named<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Error::io(operation, path.display(), error))
}
