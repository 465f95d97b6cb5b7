//! Local files, read in blocks off the async threads.

use std::fs::{File, Metadata};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use aqueduct_core::{ByteStream, Changed, Error, ErrorKind, RandomAccess, Result};
use aqueduct_primitives::{Task, TaskError, Tasks};
use async_stream::try_stream;
use async_trait::async_trait;
use bytes::Bytes;

use crate::fetched::{Fetched, Meta, Ranged};
use crate::{Location, Validator};

/// Larger blocks would hold more memory for each open file, smaller ones would switch threads more often.
const BLOCK_BYTES: u64 = 1 << 20;

/// An open file, and what it was when it was opened.
struct LocalFile {
    file: File,
    path: PathBuf,
    n_bytes: u64,
    modified: Option<SystemTime>,
}

/// What is known of a file.
pub(crate) async fn meta(path: &Path, tasks: &Tasks) -> Result<Meta> {
    let path = path.to_owned();
    tasks.block(move || found(&path)).await?
}

/// What is known of a file. Blocks.
pub(crate) fn found(path: &Path) -> Result<Meta> {
    check_kind(path).map(|found| meta_of(path, &found))
}

/// Opens a file to be read from its start, a block ahead.
pub(crate) async fn get(path: &Path, tasks: &Tasks) -> Result<Fetched> {
    let (file, meta) = open(path, tasks).await?;
    let tasks = tasks.clone();
    let body: ByteStream = Box::pin(try_stream! {
        let mut n_read = 0;
        let mut ahead = (file.n_bytes > 0).then(|| read_block(&tasks, &file));
        while let Some(reading) = ahead.take() {
            let block = reading.await??;
            if block.is_empty() {
                break;
            }
            n_read += block.len() as u64;
            ahead = (n_read < file.n_bytes).then(|| read_block(&tasks, &file));
            yield block;
        }
        let pinned = Arc::clone(&file);
        tasks.block(move || pinned.check_unchanged(n_read)).await??;
    });
    Ok(Fetched { meta, body })
}

/// Opens a file to be read by range.
pub(crate) async fn random_access(path: &Path, tasks: &Tasks) -> Result<Ranged> {
    let (file, meta) = open(path, tasks).await?;
    Ok(Ranged { validator: meta.validator(), file: Arc::new(LocalRanges { file, tasks: tasks.clone() }) })
}

async fn open(path: &Path, tasks: &Tasks) -> Result<(Arc<LocalFile>, Meta)> {
    let path = path.to_owned();
    tasks
        .block(move || {
            // Before it is opened: opening a pipe would wait for its writer.
            check_kind(&path)?;
            let file = File::open(&path).map_err(|error| Error::io("open", path.display(), error))?;
            let found = file.metadata().map_err(|error| Error::io("open", path.display(), error))?;
            let meta = meta_of(&path, &found);
            let (n_bytes, modified) = (found.len(), found.modified().ok());
            Ok((Arc::new(LocalFile { file, path, n_bytes, modified }), meta))
        })
        .await?
}

fn check_kind(path: &Path) -> Result<Metadata> {
    let found = std::fs::metadata(path).map_err(|error| Error::io("open", path.display(), error))?;
    let kind = found.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(found),
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    let message = format!("it is {what}; expected a file");
    Err(Error::new(ErrorKind::Data, "open", message).with("path", path.display()))
}

fn meta_of(path: &Path, found: &Metadata) -> Meta {
    Meta {
        n_bytes: Some(found.len()),
        modified: found.modified().ok().map(Into::into),
        etag: None,
        content_type: None,
        content_encoding: None,
        location: Location::Local(path.to_owned()),
    }
}

fn read_block(tasks: &Tasks, file: &Arc<LocalFile>) -> Task<Result<Bytes>> {
    let (reader, file) = (tasks.clone(), Arc::clone(file));
    tasks.spawn(
        async move { reader.block(move || file.next_block()).await.unwrap_or_else(|e| Err(failed(e))) },
    )
}

fn failed(error: TaskError) -> Error {
    error.into()
}

impl LocalFile {
    fn next_block(&self) -> Result<Bytes> {
        let expected = self.n_bytes.clamp(1, BLOCK_BYTES);
        let mut block = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
        (&self.file).take(BLOCK_BYTES).read_to_end(&mut block).map_err(|error| self.io(error))?;
        Ok(block.into())
    }

    fn read_at(&self, range: Range<u64>) -> Result<Bytes> {
        if range.end > self.n_bytes {
            let message = format!("bytes {}..{} of a file of {}", range.start, range.end, self.n_bytes);
            return Err(Error::new(ErrorKind::Data, "read", message).with("path", self.path.display()));
        }
        let n_bytes = range.end.saturating_sub(range.start);
        let mut bytes = vec![0; usize::try_from(n_bytes).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, range.start).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.changed("it became shorter"),
            _ => self.io(error),
        })?;
        self.check_unchanged(self.n_bytes)?;
        Ok(bytes.into())
    }

    /// What was read must be what there was at the start, and still is.
    fn check_unchanged(&self, n_read: u64) -> Result<()> {
        let now = self.file.metadata().map_err(|error| self.io(error))?;
        if n_read != self.n_bytes || now.len() != self.n_bytes {
            let message = format!("it had {} bytes and has {}", self.n_bytes, now.len());
            return Err(self.changed(&message));
        }
        if now.modified().ok() != self.modified {
            return Err(self.changed("it was written to"));
        }
        Ok(())
    }

    fn changed(&self, what: &str) -> Error {
        let was = Validator::new(None, self.modified.map(Into::into), Some(self.n_bytes));
        let now = self.file.metadata().map(|now| meta_of(&self.path, &now).validator());
        let change = Changed { was: was.to_string(), is: now.unwrap_or_default().to_string() };
        Error::new(ErrorKind::Io, "read", format!("it changed while it was read: {what}; run again"))
            .with("path", self.path.display())
            .with_source(change)
            .retry_later()
    }

    fn io(&self, error: std::io::Error) -> Error {
        Error::io("read", self.path.display(), error)
    }
}

/// A local file read by range.
struct LocalRanges {
    file: Arc<LocalFile>,
    tasks: Tasks,
}

#[async_trait]
impl RandomAccess for LocalRanges {
    fn len(&self) -> u64 {
        self.file.n_bytes
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let file = Arc::clone(&self.file);
        self.tasks.block(move || file.read_at(range)).await?
    }
}
