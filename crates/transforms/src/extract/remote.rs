//! A file at the service, from before it is uploaded until it is deleted.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{Result, StepMetrics};

use super::call::{CallFailed, Caller};
use super::journal::{Journal, RemoteFile};
use super::service::Service;

/// A deletion is tried so often. The next run tries again.
const DELETE_TRIES: u32 = 3;
/// Between two tries.
const DELETE_PAUSE: Duration = Duration::from_millis(500);
/// When so many files in a row cannot be deleted, the service is not there, or does not know us: the rest is left to the next
/// run.
const MAX_FAILED_IN_A_ROW: usize = 3;

/// Deletes files at the service.
pub(super) struct Remotes {
    pub(super) service: Box<dyn Service>,
    pub(super) caller: Caller,
    /// Whose interface the service has, and where it is.
    pub(super) place: (&'static str, String),
    pub(super) metrics: Arc<StepMetrics>,
    /// Nothing where a run leaves nothing behind.
    pub(super) journal: Option<Journal>,
}

impl Remotes {
    /// Writes down that a file may be there.
    ///
    /// # Errors
    /// The disk fails: the file must not be uploaded.
    pub(super) async fn note(&self, file: &RemoteFile) -> Result<()> {
        match &self.journal {
            Some(journal) => journal.note(file).await,
            None => Ok(()),
        }
    }

    /// Deletes a file, however often that takes within its tries. One that stays is told and counted, and left to the next run:
    /// it changes nothing about the section's answer.
    pub(super) async fn release(&self, file: &RemoteFile) -> bool {
        match self.delete(file).await {
            Ok(()) => {
                self.metrics.count("deletes", 1);
                tracing::debug!(file = file.shown_name, "Deleted section file");
                self.forget(file).await;
                true
            }
            Err(failed) => {
                self.metrics.count("deletes_failed", 1);
                tracing::warn!(
                    file = file.shown_name,
                    name = file.name,
                    error = failed.message,
                    "a section's file at the service was not deleted; the next run tries again"
                );
                false
            }
        }
    }

    async fn delete(&self, file: &RemoteFile) -> Result<(), CallFailed> {
        let mut n_failed = 0;
        loop {
            match self.service.delete(&self.caller, file).await {
                Ok(()) => return Ok(()),
                Err(failed) => {
                    n_failed += 1;
                    if !failed.may_pass || n_failed == DELETE_TRIES {
                        return Err(failed);
                    }
                }
            }
            tokio::time::sleep(DELETE_PAUSE).await;
        }
    }

    async fn forget(&self, file: &RemoteFile) {
        let Some(journal) = &self.journal else { return };
        if let Err(error) = journal.forget(file).await {
            // It is deleted once more by the next run, which finds nothing.
            tracing::warn!(error = error.chain(), "a deleted file was not crossed out");
        }
    }

    /// Deletes what killed runs have left at the service.
    pub(super) async fn delete_orphans(&self, orphans: Vec<RemoteFile>) {
        let n_deleted = self.release_all(orphans).await;
        if n_deleted > 0 {
            self.metrics.count("orphans_deleted", n_deleted);
            tracing::info!(n_deleted, "deleted files that an earlier run had left at the service");
        }
    }

    /// Tries once more to delete what this run could not.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn delete_rest(&self) -> Result<()> {
        if let Some(journal) = &self.journal {
            self.release_all(journal.left().await?).await;
        }
        Ok(())
    }

    /// How many could be deleted.
    async fn release_all(&self, files: Vec<RemoteFile>) -> u64 {
        let (mut n_failed, mut n_deleted) = (0, 0);
        for file in &files {
            if (file.service.as_str(), &file.url) != (self.place.0, &self.place.1) {
                let (name, url) = (&file.name, &file.url);
                tracing::warn!(
                    name,
                    url,
                    "an earlier run has left a file at another service, which is not asked here"
                );
            } else if self.release(file).await {
                (n_failed, n_deleted) = (0, n_deleted + 1);
            } else {
                n_failed += 1;
                if n_failed == MAX_FAILED_IN_A_ROW {
                    break;
                }
            }
        }
        n_deleted
    }
}
