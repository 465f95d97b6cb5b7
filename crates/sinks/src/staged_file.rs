//! A file that a sink stages: hashed and counted while it is written, durable at its end.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Counter, Error, Fs, FsFile, Part, Result, StepMetrics};

/// Bytes go to the hash and the disk in pieces of this size; BLAKE3 is fast from 16 KiB on.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;

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

    /// Makes the bytes durable: the part is complete.
    pub(crate) fn finish(mut self, name: String, n_rows: u64) -> Result<Part> {
        self.file.sync().map_err(|error| Error::io("sync file", self.path.display(), error))?;
        Ok(self.finish_unsynced(name, n_rows))
    }

    /// The part is complete, and durable whenever the system gets round to it.
    pub(crate) fn finish_unsynced(self, name: String, n_rows: u64) -> Part {
        Part {
            name,
            rows: n_rows,
            n_bytes: self.n_bytes.get(),
            blake3: self.hasher.finalize().to_hex().to_string(),
            staged: self.path,
        }
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
