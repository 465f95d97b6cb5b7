//! Lines of JSON in a file of the run, written and read through the seam to the disk, a piece at a time.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{ByteStream, Context, Error, Fs, FsFile, FsRead, Result};
use aqueduct_primitives::Tasks;
use async_stream::try_stream;
use bytes::Bytes;
use futures::Stream;
use serde::Serialize;

use super::lines::lines_up_to;

/// What is written and read at once. Larger blocks only hold more memory.
const BLOCK_BYTES: usize = 64 << 10;

/// A longer line is an error: a file's name and version take less.
const MAX_LINE_BYTES: usize = 1 << 20;

/// The disk that the files of a run lie on.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) tasks: Tasks,
}

/// Lines on their way into a file.
pub(crate) struct Lines {
    file: Box<dyn FsFile>,
    pending: Vec<u8>,
}

impl Disk {
    pub(crate) fn of(cx: &Context) -> Self {
        Self { fs: Arc::clone(cx.fs()), tasks: cx.tasks().clone() }
    }

    /// Runs what blocks.
    pub(crate) async fn block<T: Send + 'static>(
        &self,
        job: impl FnOnce(&dyn Fs) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let fs = Arc::clone(&self.fs);
        self.tasks.block(move || job(&*fs)).await?
    }

    /// The lines of a file, in order.
    pub(crate) fn lines(&self, path: PathBuf) -> impl Stream<Item = Result<String>> + Send + use<> {
        let (disk, name) = (self.clone(), path.display().to_string());
        let body: ByteStream = Box::pin(try_stream! {
            let opened = path.clone();
            let mut pieces = disk.block(move |fs| Pieces::open(fs, opened)).await?;
            loop {
                let (rest, block) = disk.block(move |_: &dyn Fs| pieces.next()).await?;
                if block.is_empty() {
                    break;
                }
                pieces = rest;
                yield block;
            }
        });
        lines_up_to(MAX_LINE_BYTES, body, name)
    }
}

/// A file, piece by piece, as long as it was when it was opened.
struct Pieces {
    file: Box<dyn FsRead>,
    path: PathBuf,
    at: u64,
    n_bytes: u64,
}

impl Pieces {
    fn open(fs: &dyn Fs, path: PathBuf) -> Result<Self> {
        let opened = fs.open_read(&path).and_then(|file| Ok((file, fs.stat(&path)?)));
        let (file, entry) = opened.map_err(|error| failed(&path, error))?;
        Ok(Self { file, path, at: 0, n_bytes: entry.map_or(0, |entry| entry.n_bytes) })
    }

    /// The next piece, empty at the end.
    fn next(mut self) -> Result<(Self, Bytes)> {
        let left = usize::try_from(self.n_bytes - self.at).unwrap_or(usize::MAX);
        let mut block = vec![0; left.min(BLOCK_BYTES)];
        self.file
            .read_exact_at(&mut block, self.at)
            .map_err(|error| Error::io("read", self.path.display(), error))?;
        self.at += block.len() as u64;
        Ok((self, block.into()))
    }
}

impl Lines {
    /// Begins a file that only its owner can read: names of files may hold credentials. What an earlier process left at
    /// the path goes. Blocks.
    pub(crate) fn begin(fs: &dyn Fs, path: &Path) -> Result<Self> {
        let file = fs.remove_file(path).and_then(|()| fs.create_private(path));
        Ok(Self { file: file.map_err(|error| failed(path, error))?, pending: Vec::new() })
    }

    /// Adds a line.
    pub(crate) fn push(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.pending, line)
            .map_err(|error| Error::bug("write", "a line cannot be written as JSON").with_source(error))?;
        self.pending.push(b'\n');
        Ok(())
    }

    /// Whether there is enough to be worth a write.
    pub(crate) fn is_due(&self) -> bool {
        self.pending.len() >= BLOCK_BYTES
    }

    /// Writes what there is. Blocks.
    pub(crate) fn write_out(&mut self) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// Makes all lines durable, in a file of whatever name. Blocks.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.write_out()?;
        self.file.sync()
    }

    /// Makes all lines durable, under another name than the file was begun with. Blocks.
    pub(crate) fn publish(&mut self, fs: &dyn Fs, from: &Path, to: &Path) -> Result<()> {
        let synced = self.sync().map_err(|error| failed(from, error));
        synced.and_then(|()| rename(fs, from, to))
    }
}

/// Gives a file its name for good.
pub(crate) fn rename(fs: &dyn Fs, from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(Path::new(""));
    fs.rename(from, to).and_then(|()| fs.sync_dir(folder)).map_err(|error| failed(to, error))
}

/// Makes a folder and those above it, durably.
pub(crate) fn make_folder(fs: &dyn Fs, folder: &Path) -> Result<()> {
    let mut missing = Vec::new();
    for above in folder.ancestors().filter(|above| !above.as_os_str().is_empty()) {
        match fs.stat(above).map_err(|error| failed(above, error))? {
            Some(_) => break,
            None => missing.push(above),
        }
    }
    fs.create_dir_all(folder).map_err(|error| failed(folder, error))?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs.sync_dir(above).map_err(|error| failed(above, error))?;
    }
    Ok(())
}

/// What failed with a file of the run.
pub(crate) fn failed(path: &Path, error: io::Error) -> Error {
    Error::io("keep list of files", path.display(), error)
}
