//! The step's own folder, beyond the run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Context, Error, Fs, Result};
use aqueduct_primitives::Tasks;

/// The folder of a step that keeps something. It has nothing of the step's surroundings: those hold the keeper, which has this.
#[derive(Clone)]
pub(super) struct Folder {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) tasks: Tasks,
    pub(super) path: PathBuf,
}

impl Folder {
    /// Nothing where nothing is kept.
    pub(super) fn of(cx: &Context) -> Option<Self> {
        let path = cx.durable()?.dir().clone();
        Some(Self { fs: Arc::clone(cx.fs()), tasks: cx.tasks().clone(), path })
    }

    /// Works in it, off the tasks.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&dyn Fs, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (fs, path) = (Arc::clone(&self.fs), self.path.clone());
        let done = self.tasks.block(move || work(&*fs, &path)).await?;
        done.map_err(|error| Error::io(doing, self.path.display(), error))
    }
}
