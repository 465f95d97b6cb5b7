//! Which version each file had that was read to its end, so that a run that goes on can tell whether one changed since.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_core::{Durable, Error, Result};
use aqueduct_net::Validator;
use async_stream::try_stream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::frozen::{Record, damaged};
use super::input::Input;
use super::ndjson::{Disk, Lines, failed, make_folder};
use super::progress::Progress;

const READ: &str = "read.ndjson";

/// A file that is done, and which version of it was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Read {
    number: u64,
    input: Record,
    is: Validator,
}

/// The files that are done, on the disk. Lines are added as files end, and durable with the next commit.
#[derive(Clone)]
pub(crate) struct Journal {
    disk: Disk,
    dir: PathBuf,
    /// Nothing before it was opened, and nothing any more after an error: a file whose sync failed must not be used.
    lines: Arc<Mutex<Option<Lines>>>,
}

impl Journal {
    /// The journal of a run. Nothing is made on the disk.
    pub(crate) fn new(disk: Disk, durable: &Durable) -> Self {
        Self { disk, dir: durable.run_dir().clone(), lines: Arc::default() }
    }

    /// Takes over from an earlier process what it noted of files that are done; what it noted of others was never
    /// committed. Gives how many that are.
    ///
    /// # Errors
    /// The journal is not there although files are done; it is damaged; the disk's.
    pub(crate) async fn open(&self, progress: &Progress) -> Result<u64> {
        let (path, folder) = (self.dir.join(READ), self.dir.clone());
        let fresh = self.dir.join(format!("{READ}.new"));
        let (there, begun) = (path.clone(), fresh.clone());
        let begin = move |fs: &dyn aqueduct_core::Fs| {
            make_folder(fs, &folder)?;
            let is_there = fs.stat(&there).map_err(|error| failed(&there, error))?.is_some();
            Ok((is_there, Lines::begin(fs, &begun)?))
        };
        let (is_there, mut lines) = self.disk.block(begin).await?;
        if progress.is_any_done() && !is_there {
            return Err(damaged(&path));
        }
        let mut n_taken = 0;
        let mut noted = if is_there { self.noted() } else { futures::stream::empty().boxed() };
        while let Some(read) = noted.try_next().await? {
            if !progress.is_done(read.number) {
                continue;
            }
            lines.push(&read)?;
            n_taken += 1;
            if lines.is_due() {
                let path = fresh.clone();
                let write = move |_: &dyn aqueduct_core::Fs| {
                    lines.write_out().map_err(|error| failed(&path, error))?;
                    Ok(lines)
                };
                lines = self.disk.block(write).await?;
            }
        }
        let publish = move |fs: &dyn aqueduct_core::Fs| {
            lines.publish(fs, &fresh, &path)?;
            Ok(lines)
        };
        let lines = self.disk.block(publish).await?;
        *self.lock() = Some(lines);
        Ok(n_taken)
    }

    /// What is noted, in the order in which files ended. A last line without its end is one that a process died over.
    pub(crate) fn noted(&self) -> BoxStream<'static, Result<Read>> {
        let path = self.dir.join(READ);
        let lines = self.disk.lines(path.clone());
        Box::pin(try_stream! {
            futures::pin_mut!(lines);
            let mut broken: Option<Error> = None;
            while let Some(line) = lines.next().await {
                let line = line?;
                broken.take().map_or(Ok(()), Err)?;
                match serde_json::from_str(&line) {
                    Ok(read) => yield read,
                    Err(error) => broken = Some(damaged(&path).with_source(error)),
                }
            }
        })
    }

    /// Notes that a file is done.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn note(&self, number: u64, input: &Input, is: &Validator) -> Result<()> {
        let read = Read { number, input: Record::of(input), is: is.clone() };
        let is_due = match self.lock().as_mut() {
            Some(lines) => {
                lines.push(&read)?;
                lines.is_due()
            }
            None => return Err(Error::bug("note file", "the journal is not open")),
        };
        if is_due { self.write(Lines::write_out).await } else { Ok(()) }
    }

    /// Makes durable what was noted. The positions say which lines count: nothing is left to commit beside them.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn sync(&self) -> Result<()> {
        self.write(Lines::sync).await
    }

    async fn write(&self, how: fn(&mut Lines) -> std::io::Result<()>) -> Result<()> {
        let (journal, path) = (self.clone(), self.dir.join(READ));
        let write = move |_: &dyn aqueduct_core::Fs| {
            let mut lines = journal.lock();
            let Some(open) = lines.as_mut() else { return Ok(()) };
            how(open).map_err(|error| {
                *lines = None;
                failed(&path, error)
            })
        };
        self.disk.block(write).await
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lines>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read {
    /// The file, and which version of it was read.
    pub(crate) fn into_parts(self) -> Result<(Input, Validator)> {
        Ok((self.input.into_input()?, self.is))
    }
}
