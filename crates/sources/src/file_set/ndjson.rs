//! Lines of JSON in a file of the run, written and read through the seam to the disk, a piece at a time.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{ByteStream, Context, Error, Fs, FsFile, Result};
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
            let mut file = disk.block(move |fs| fs.open(&opened).map_err(|error| failed(&opened, error))).await?;
            loop {
                let at = path.clone();
                let read = move |_: &dyn Fs| read_block(file, &at);
                let (rest, block) = disk.block(read).await?;
                if block.is_empty() {
                    break;
                }
                file = rest;
                yield block;
            }
        });
        lines_up_to(MAX_LINE_BYTES, body, name)
    }
}

fn read_block(mut file: Box<dyn Read + Send>, path: &Path) -> Result<(Box<dyn Read + Send>, Bytes)> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    file.by_ref()
        .take(BLOCK_BYTES as u64)
        .read_to_end(&mut block)
        .map_err(|error| Error::io("read", path.display(), error))?;
    Ok((file, block.into()))
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
