//! A file that a sink stages: hashed and counted while it is written, durable at its end.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::collections::Extents;
use aqueduct_core::{Counter, Error, Fs, FsFile, Part, Result, StepMetrics, kill_point};

/// Bytes go to the hash and the disk in pieces of this size; BLAKE3 is fast from 16 KiB on.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;

/// Complete files that wait to become durable together. More hold more file handles, fewer leave the disk
/// waiting.
const MAX_WAITING: usize = 64;
/// Files synced at once. Eight make it ten times as fast as one after the other; more, hardly faster.
const N_SYNCS: usize = 8;

/// A place in the staging folder. What lies there is removed when this is dropped: only a seal keeps it. Blocks.
pub(crate) struct Place {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    is_kept: bool,
}

impl Place {
    /// Creates a file there, and its folder if need be.
    pub(crate) fn create(fs: &Arc<dyn Fs>, path: PathBuf) -> Result<(Self, Box<dyn FsFile>)> {
        if let Some(folder) = path.parent() {
            fs.create_dir_all(folder).map_err(|error| Error::io("create folder", folder.display(), error))?;
        }
        let file = fs.create_new(&path).map_err(|error| Error::io("create file", path.display(), error))?;
        Ok((Self { fs: Arc::clone(fs), path, is_kept: false }, file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves what lies there to somebody else; where that is.
    fn keep(mut self) -> PathBuf {
        self.is_kept = true;
        std::mem::take(&mut self.path)
    }

    /// Removes what lies there now. If that fails, it is told, and tried once more as the sink lets go of its files.
    pub(crate) fn remove(self) -> Result<()> {
        self.fs
            .remove_file(&self.path)
            .map_err(|error| Error::io("remove file", self.path.display(), error))?;
        self.keep();
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = self.fs.remove_file(&self.path) {
            // Whoever owns the folder sweeps it, if not now then at the next run.
            tracing::warn!(path = %self.path.display(), "a staged file could not be removed: {error}");
        }
    }
}

/// A staged file. Blocks.
pub(crate) struct StagedFile {
    file: Box<dyn FsFile>,
    place: Place,
    /// Boxed, for it is 2 kB, and the file is moved from task to task.
    hasher: Box<blake3::Hasher>,
    n_bytes: Arc<Counter>,
    metrics: Arc<StepMetrics>,
}

impl StagedFile {
    /// Creates the file, and its folder if need be.
    pub(crate) fn create(fs: &Arc<dyn Fs>, path: PathBuf, metrics: Arc<StepMetrics>) -> Result<Self> {
        let (place, file) = Place::create(fs, path)?;
        kill_point("sink.part.created");
        let (hasher, n_bytes) = (Box::new(blake3::Hasher::new()), Arc::default());
        Ok(Self { file, place, hasher, n_bytes, metrics })
    }

    /// The same, with a buffer for encoders that write in small pieces.
    pub(crate) fn buffered(self) -> BufWriter<Self> {
        BufWriter::with_capacity(BUFFER_BYTES, self)
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    /// Counts the bytes written, while somebody else has the file.
    pub(crate) fn counter(&self) -> Arc<Counter> {
        Arc::clone(&self.n_bytes)
    }

    /// All bytes are written; they are not durable yet.
    pub(crate) fn complete(self, name: String, n_rows: u64) -> Complete {
        kill_point("sink.part.closed");
        let part = Part {
            name,
            rows: n_rows,
            n_bytes: self.n_bytes.get(),
            blake3: self.hasher.finalize().to_hex().to_string(),
            staged: PathBuf::new(),
            extents: None,
        };
        Complete { file: self.file, staged: StagedPart { part, place: self.place } }
    }
}

/// A staged file to which nothing is added any more.
pub(crate) struct Complete {
    file: Box<dyn FsFile>,
    staged: StagedPart,
}

impl Complete {
    /// The same with what its items tell.
    pub(crate) fn with_extents(mut self, extents: Option<Extents>) -> Self {
        self.staged.part.extents = extents;
        self
    }

    /// Makes it durable.
    pub(crate) fn sync(mut self) -> Result<StagedPart> {
        let synced = self.file.sync();
        synced.map_err(|error| Error::io("sync file", self.staged.place.path().display(), error))?;
        kill_point("sink.part.synced");
        Ok(self.staged)
    }

    /// Leaves it to the system when it becomes durable.
    pub(crate) fn unsynced(self) -> StagedPart {
        self.staged
    }
}

/// A part that waits for the seal; dropped, its file goes.
pub(crate) struct StagedPart {
    /// Where it lies is told by the seal: there may be very many, and a path is the longest thing about them.
    part: Part,
    place: Place,
}

impl StagedPart {
    /// Seals parts: their files stay, whatever becomes of the sink.
    pub(crate) fn seal(parts: Vec<Self>) -> Vec<Part> {
        parts.into_iter().map(|Self { part, place }| Part { staged: place.keep(), ..part }).collect()
    }
}

/// Complete files, made durable side by side: a disk confirms many at once as fast as one.
#[derive(Default)]
pub(crate) struct Syncs {
    waiting: Vec<Complete>,
    done: Vec<StagedPart>,
}

impl Syncs {
    /// Takes a file, and makes those that wait durable once they are many.
    pub(crate) fn push(&mut self, file: Complete) -> Result<()> {
        self.waiting.push(file);
        if self.waiting.len() < MAX_WAITING { Ok(()) } else { self.sync_waiting() }
    }

    /// The parts since the last call, all durable, and sealed.
    pub(crate) fn finish(&mut self) -> Result<Vec<Part>> {
        self.sync_waiting()?;
        Ok(StagedPart::seal(std::mem::take(&mut self.done)))
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
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<StagedPart>>>| {
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
        kill_point("sink.part.written");
        self.hasher.update(bytes.get(..n_written).unwrap_or(bytes));
        self.n_bytes.add_len(n_written);
        self.metrics.bytes.add_len(n_written);
        Ok(n_written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
