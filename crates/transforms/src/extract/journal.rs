//! Files at the service that may be there: each is written down before it is uploaded, and crossed out when it is deleted, so
//! that a killed run's files are deleted by the next.
//!
//! One small file for each, in the step's folder: no more than sections are asked about at once, and those that could not be
//! deleted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Fs, Result};
use aqueduct_primitives::Tasks;
use serde::{Deserialize, Serialize};

use super::durably::{is_draft, make_dir_durably, write_durably};

/// The folder.
const FOLDER: &str = "remote";
/// What is written of a file is no longer.
const MAX_ENTRY_BYTES: u64 = 64 << 10;
/// Of files that a service has not deleted again and again, so many are tried at an opening.
const MAX_LEFTOVERS: usize = 10_000;

/// A file at the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RemoteFile {
    /// Whose interface the service has.
    pub(super) service: String,
    /// Where the service is.
    pub(super) url: String,
    /// What we have called it; no other file has this name.
    pub(super) name: String,
    /// What people see: `report_0a1b2c3d.pdf`.
    pub(super) shown_name: String,
    /// What the service calls it, once it has said so.
    pub(super) id: Option<String>,
}

/// Remembers files at the service.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    tasks: Tasks,
}

impl Journal {
    /// In the step's folder, with the files that earlier runs have left there.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn open(
        fs: &Arc<dyn Fs>,
        step_dir: &Path,
        tasks: &Tasks,
    ) -> Result<(Self, Vec<RemoteFile>)> {
        let journal = Self { fs: Arc::clone(fs), dir: step_dir.join(FOLDER), tasks: tasks.clone() };
        let (this, above) = (journal.clone(), step_dir.parent().unwrap_or(step_dir).to_owned());
        tasks.block(move || make_dir_durably(&*this.fs, &this.dir, &above)).await??;
        let leftovers = journal.left().await?;
        Ok((journal, leftovers))
    }

    /// The files that are written down now.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn left(&self) -> Result<Vec<RemoteFile>> {
        let this = self.clone();
        self.tasks.block(move || this.leftovers()).await?
    }

    fn leftovers(&self) -> Result<Vec<RemoteFile>> {
        let at = |error| Error::io("open journal", self.dir.display(), error);
        let entries = self.fs.list(&self.dir).map_err(at)?;
        let mut found = Vec::new();
        for entry in entries.into_iter().filter(|entry| !entry.is_dir).take(MAX_LEFTOVERS) {
            if is_draft(&entry.path) {
                // Its writer was killed, and has not uploaded the file; or what it was to take the place of is there.
                self.fs.remove_file(&entry.path).map_err(at)?;
                continue;
            }
            let bytes = self.fs.read(&entry.path, MAX_ENTRY_BYTES).map_err(at)?;
            found.push(serde_json::from_slice(&bytes).map_err(|error| {
                let message = "a file at the service was written down in another way; it is to be deleted by hand, and then \
                               this one";
                Error::new(ErrorKind::Conflict, "open journal", message)
                    .with("path", entry.path.display())
                    .with_source(error)
            })?);
        }
        Ok(found)
    }

    /// Writes a file down, durably: before it is uploaded, and once more with what the service calls it.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn note(&self, file: &RemoteFile) -> Result<()> {
        let bytes = serde_json::to_vec(file)
            .map_err(|error| Error::bug("write journal", "a file has no JSON").with_source(error))?;
        let (this, name) = (self.clone(), entry_of(&file.name));
        self.tasks.block(move || write_durably(&*this.fs, &this.dir, &name, &bytes)).await?
    }

    /// Crosses a file out. After a crash it may be there again: it is then deleted once more, which does no harm.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn forget(&self, file: &RemoteFile) -> Result<()> {
        let (this, path) = (self.clone(), self.dir.join(entry_of(&file.name)));
        let removed = self.tasks.block(move || {
            let removed = this.fs.remove_file(&path);
            removed.map_err(|error| Error::io("write journal", path.display(), error))
        });
        removed.await?
    }
}

fn entry_of(name: &str) -> String {
    format!("{name}.json")
}
