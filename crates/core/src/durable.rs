//! What a step keeps beyond the process: committed together with the rows, or not at all.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use serde_json::Value;

use crate::Result;

/// Where a step keeps what it must know when its run goes on, and in later runs of the flow.
///
/// Only what a commit names counts. A step that keeps something registers a [`Keeper`]; at each commit, when all rows that
/// were let in are written, the runner asks it for one JSON value and commits that with the rows. What is too large for a
/// value lies in files in [`Durable::dir`] that the value names; a file that neither it nor the
/// [fallback](Durable::fallback) names is a leftover of a commit that never was, and whoever opens the folder next removes it.
pub struct Durable {
    kept: Option<Value>,
    fallback: Option<Value>,
    counts_at_end: bool,
    dir: PathBuf,
    run_dir: PathBuf,
    keeper: OnceLock<Arc<dyn Keeper>>,
}

/// Says what a step keeps.
#[async_trait]
pub trait Keeper: Send + Sync {
    /// Makes durable what was added since the last call, and gives the value to commit. Called when no row is on its way.
    /// What it gave counts from the next call on, or at the next opening: until then the commit may still fail.
    ///
    /// # Errors
    /// It cannot be made durable. The run fails, and nothing of this commit counts.
    async fn keep(&self) -> Result<Option<Value>>;

    /// Told after each commit: what [`Keeper::keep`] gave counts, and the rows of all seals before that are public, unless the
    /// run [counts at its end](Durable::counts_at_end) and this is not it. `is_last`: no row of this run follows. It is not
    /// called for a commit that failed. Rows stand until it returns.
    ///
    /// # Errors
    /// What is to follow from the commit cannot be done. The run fails, and the commit stands.
    async fn committed(&self, is_last: bool) -> Result<()> {
        let _ = is_last;
        Ok(())
    }
}

impl Durable {
    /// With what the last commit kept; nothing is made on the disk.
    pub fn new(kept: Option<Value>, dir: PathBuf, run_dir: PathBuf) -> Self {
        Self { kept, fallback: None, counts_at_end: false, dir, run_dir, keeper: OnceLock::new() }
    }

    /// With what counts again if the run never sees its end.
    #[must_use]
    pub fn with_fallback(self, fallback: Option<Value>) -> Self {
        Self { fallback, ..self }
    }

    /// For a run that makes its rows public at its end alone.
    #[must_use]
    pub fn counting_at_end(self, counts_at_end: bool) -> Self {
        Self { counts_at_end, ..self }
    }

    /// What the step's last commit kept, in this or an earlier run of the flow.
    pub fn kept(&self) -> Option<&Value> {
        self.kept.as_ref()
    }

    /// What counts again if the run never sees its end: what an earlier run kept, where this one replaces its rows at the end,
    /// or begins without what was kept. Files that it names stay until the run is complete.
    pub fn fallback(&self) -> Option<&Value> {
        self.fallback.as_ref()
    }

    /// Whether commits before the run's end are for this run alone: it goes on from them, but their rows are public, and count,
    /// with the last one only.
    pub fn counts_at_end(&self) -> bool {
        self.counts_at_end
    }

    /// A folder of the step's own that outlives the run. Who writes there makes it.
    pub fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// The same, removed when the run is complete: it is there again when the run goes on. Who writes there makes it.
    pub fn run_dir(&self) -> &PathBuf {
        &self.run_dir
    }

    /// From now on each commit asks this keeper. A step has one at most; later ones are not asked.
    pub fn register(&self, keeper: Arc<dyn Keeper>) {
        // A second one is a mistake of the component that no row suffers from.
        let _ = self.keeper.set(keeper);
    }

    /// Who says what the step keeps.
    pub fn keeper(&self) -> Option<&Arc<dyn Keeper>> {
        self.keeper.get()
    }
}

impl fmt::Debug for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable")
            .field("dir", &self.dir)
            .field("run_dir", &self.run_dir)
            .finish_non_exhaustive()
    }
}
