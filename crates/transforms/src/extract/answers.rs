//! Answers that were given: one for each hash of section, prompt, model and options.
//!
//! Each is a small file, durable before its row goes on: whatever becomes of the run, it was paid for. None of them is in
//! memory.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::{Error, Fs, Result};
use aqueduct_primitives::{ByteCount, Tasks};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::durably::{make_dir_durably, write_durably};

/// The folder.
const FOLDER: &str = "answers";

/// What a service has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answered {
    pub(super) text: String,
    /// How many tokens it took, if the service says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tokens: Option<u64>,
}

/// By what an answer is known.
pub(super) type Key = blake3::Hash;

/// The answers on the disk.
pub(super) struct Answers {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    tasks: Tasks,
    max_bytes: u64,
    turns: Arc<Turns>,
}

impl Answers {
    /// Those in a folder, which is made; none is longer than this.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn open(
        fs: &Arc<dyn Fs>,
        step_dir: &Path,
        tasks: &Tasks,
        max_answer: ByteCount,
    ) -> Result<Self> {
        let (dir, above, on) = (step_dir.join(FOLDER), step_dir.to_owned(), Arc::clone(fs));
        let making = dir.clone();
        let above = above.parent().map_or(above.clone(), Path::to_owned);
        tasks.block(move || make_dir_durably(&*on, &making, &above)).await??;
        // As JSON a text is six times as long at most.
        let max_bytes = max_answer.saturating_mul(6).saturating_add(ByteCount::kib(1)).get();
        Ok(Self { fs: Arc::clone(fs), dir, tasks: tasks.clone(), max_bytes, turns: Arc::default() })
    }

    /// Waits until nobody else asks for this answer.
    pub(super) async fn turn(&self, key: Key) -> Turn {
        self.turns.of(key).await
    }

    /// The answer, if there is one. One that cannot be read is as good as none.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn get(&self, key: Key) -> Result<Option<Answered>> {
        let (fs, path, max_bytes) = (Arc::clone(&self.fs), self.path(key), self.max_bytes);
        let read = self.tasks.block(move || match fs.read(&path, max_bytes) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => {
                Ok(None)
            }
            Err(error) => Err(Error::io("read answer", path.display(), error)),
        });
        read.await?
    }

    /// Keeps an answer, durably.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn put(&self, key: Key, answer: &Answered) -> Result<()> {
        let bytes = serde_json::to_vec(answer)
            .map_err(|error| Error::bug("keep answer", "it has no JSON").with_source(error))?;
        let (fs, dir, name) = (Arc::clone(&self.fs), self.dir.clone(), file_of(key));
        self.tasks.block(move || write_durably(&*fs, &dir, &name, &bytes)).await?
    }

    fn path(&self, key: Key) -> PathBuf {
        self.dir.join(file_of(key))
    }
}

fn file_of(key: Key) -> String {
    format!("{}.json", key.to_hex())
}

/// Who asks for which answer: no more than sections are asked about at once.
#[derive(Default)]
struct Turns {
    taken: Mutex<HashSet<Key>>,
    ended: Notify,
}

/// Nobody else asks for this answer until it is dropped.
pub(super) struct Turn {
    turns: Arc<Turns>,
    key: Key,
}

impl Turns {
    async fn of(self: &Arc<Self>, key: Key) -> Turn {
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            if self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(key) {
                return Turn { turns: Arc::clone(self), key };
            }
            ended.await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.turns.ended.notify_waiters();
    }
}
