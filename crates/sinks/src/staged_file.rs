//! A file that a sink stages: hashed and counted while it is written, durable at its end.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Counter, Error, Fs, FsFile, Part, Result, StepMetrics};

/// Bytes go to the hash and the disk in pieces of this size; BLAKE3 is fast from 16 KiB on.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;

/// Complete files that wait to become durable together. More hold more file handles, fewer leave the disk
/// waiting.
const MAX_WAITING: usize = 64;
/// Files synced at once. Eight make it ten times as fast as one after the other; more, hardly faster.
const N_SYNCS: usize = 8;

/// A staged file. Blocks.
pub(crate) struct StagedFile {
    path: PathBuf,
    file: Box<dyn FsFile>,
    hasher: blake3::Hasher,
    n_bytes: Arc<Counter>,
    metrics: Arc<StepMetrics>,
}

impl StagedFile {
    /// Creates the file, and its folder if need be.
    pub(crate) fn create(fs: &dyn Fs, path: PathBuf, metrics: Arc<StepMetrics>) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs.create_dir_all(folder).map_err(|error| Error::io("create folder", folder.display(), error))?;
        }
        let file = fs.create_new(&path).map_err(|error| Error::io("create file", path.display(), error))?;
        let (hasher, n_bytes) = (blake3::Hasher::new(), Arc::default());
        Ok(Self { path, file, hasher, n_bytes, metrics })
    }

    /// The same, with a buffer for encoders that write in small pieces.
    pub(crate) fn buffered(self) -> BufWriter<Self> {
        BufWriter::with_capacity(BUFFER_BYTES, self)
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Counts the bytes written, while somebody else has the file.
    pub(crate) fn counter(&self) -> Arc<Counter> {
        Arc::clone(&self.n_bytes)
    }

    /// All bytes are written; they are not durable yet.
    pub(crate) fn complete(self, name: String, n_rows: u64) -> Complete {
        let part = Part {
            name,
            rows: n_rows,
            n_bytes: self.n_bytes.get(),
            blake3: self.hasher.finalize().to_hex().to_string(),
            staged: self.path,
        };
        Complete { file: self.file, part }
    }
}

/// A staged file to which nothing is added any more.
pub(crate) struct Complete {
    file: Box<dyn FsFile>,
    part: Part,
}

impl Complete {
    /// Makes it durable.
    pub(crate) fn sync(mut self) -> Result<Part> {
        self.file.sync().map_err(|error| Error::io("sync file", self.part.staged.display(), error))?;
        Ok(self.part)
    }

    /// Leaves it to the system when it becomes durable.
    pub(crate) fn unsynced(self) -> Part {
        self.part
    }
}

/// Complete files, made durable side by side: a disk confirms many at once as fast as one.
#[derive(Default)]
pub(crate) struct Syncs {
    waiting: Vec<Complete>,
    done: Vec<Part>,
}

impl Syncs {
    /// Takes a file, and makes those that wait durable once they are many.
    pub(crate) fn push(&mut self, file: Complete) -> Result<()> {
        self.waiting.push(file);
        if self.waiting.len() < MAX_WAITING { Ok(()) } else { self.sync_waiting() }
    }

    /// The parts since the last call, all durable.
    pub(crate) fn finish(&mut self) -> Result<Vec<Part>> {
        self.sync_waiting()?;
        Ok(std::mem::take(&mut self.done))
    }

    fn sync_waiting(&mut self) -> Result<()> {
        let n_each = self.waiting.len().div_ceil(N_SYNCS).max(1);
        let sync = |files: Vec<Complete>| files.into_iter().map(Complete::sync).collect::<Result<Vec<_>>>();
        let parts = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            while !self.waiting.is_empty() {
                let files = self.waiting.split_off(self.waiting.len().saturating_sub(n_each));
                threads.push(scope.spawn(move || sync(files)));
            }
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<Part>>>| {
                thread.join().unwrap_or_else(|_| Err(Error::bug("sync file", "a thread panicked")))
            };
            // All are joined before the first error counts.
            threads.into_iter().map(join).collect::<Vec<_>>()
        });
        for parts in parts {
            self.done.extend(parts?);
        }
        Ok(())
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_written = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..n_written).unwrap_or(bytes));
        self.n_bytes.add_len(n_written);
        self.metrics.bytes.add_len(n_written);
        Ok(n_written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
