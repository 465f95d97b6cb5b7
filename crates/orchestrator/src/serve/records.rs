//! What a server keeps of its runs on disk: one file a run, from the moment it is asked for.

use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_core::{Error, Fs, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{JobStatus, StartRequest};
use crate::report::Report;

/// A file larger than this is none of ours: a run has a report for each entry of its matrix.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// A run as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) id: String,
    pub(crate) request: StartRequest,
    pub(crate) asked: DateTime<Utc>,
    /// `waiting` and `running` of a server that is gone: the next one goes on with it.
    pub(crate) status: JobStatus,
    /// Whether somebody asked for its end.
    #[serde(default)]
    pub(crate) is_cancelled: bool,
    pub(crate) started: Option<DateTime<Utc>>,
    pub(crate) finished: Option<DateTime<Utc>>,
    pub(crate) error: Option<String>,
    /// One for each entry of the flow's matrix that was run.
    pub(crate) reports: Vec<Report>,
}

/// The records of one server.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    fs: Arc<dyn Fs>,
    folder: PathBuf,
}

impl Records {
    /// Those in this folder, which need not be there yet.
    pub(crate) fn new(fs: Arc<dyn Fs>, folder: PathBuf) -> Self {
        Self { fs, folder }
    }

    /// Keeps a record, in the place of an earlier one of the same run: whole or not at all. Values that were given for the run
    /// may be secret, so only the owner may read it.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn keep(&self, record: &RunRecord) -> Result<()> {
        let path = self.path(&record.id);
        let failed = |error| Error::io("keep run", path.display(), error);
        self.fs.create_dir_all(&self.folder).map_err(failed)?;
        let staged = path.with_extension("part");
        let text = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        self.fs.remove_file(&staged).map_err(failed)?;
        let mut file = self.fs.create_private(&staged).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync()).map_err(failed)?;
        self.fs.rename(&staged, &path).and_then(|()| self.fs.sync_dir(&self.folder)).map_err(failed)
    }

    /// The record of a run, if there is one that can be read.
    pub(crate) fn get(&self, id: &str) -> Option<RunRecord> {
        serde_json::from_slice(&self.fs.read(&self.path(id), MAX_RECORD_BYTES).ok()?).ok()
    }

    /// Forgets a run.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn forget(&self, id: &str) -> Result<()> {
        let path = self.path(id);
        self.fs.remove_file(&path).map_err(|error| Error::io("forget run", path.display(), error))
    }

    /// Each run in the order in which they were asked for, one at a time to `take`, without their reports' steps being held.
    /// What cannot be read is told and left.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn each(&self, mut take: impl FnMut(RunRecord)) -> Result<()> {
        let failed = |error| Error::io("read runs", self.folder.display(), error);
        if self.fs.stat(&self.folder).map_err(failed)?.is_none() {
            return Ok(());
        }
        let paths = self.fs.list(&self.folder).map_err(failed)?.into_iter().map(|entry| entry.path);
        for path in paths.filter(|path| path.extension().is_some_and(|suffix| suffix == "json")) {
            let read = self.fs.read(&path, MAX_RECORD_BYTES).map_err(|error| error.to_string());
            match read.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string())) {
                Ok(record) => take(record),
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "the record of a run cannot be read")
                }
            }
        }
        Ok(())
    }

    /// Names of runs are ours: letters and digits.
    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }
}
