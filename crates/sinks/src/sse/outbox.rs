//! Events that wait for the commit that has their rows.
//!
//! They lie in files of the step's folder and take from what the run may put on the disk. A seal makes a file durable, a
//! commit names it, and then its events go out. The files of the last commit stay: whoever was killed before all had gone
//! out, or before all clients had them, sends them again at the next opening, under the same numbers. Memory: what is not
//! written yet of one file, and what is read at once of another, both reserved at the opening.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_core::{Context, Error, ErrorKind, Fs, FsRead, Result, Scratch, StepMetrics};
use aqueduct_primitives::{ByteCount, Reservation};

use super::folder::Folder;
use super::frames;
use super::kept::{EventsFile, Kept};
use crate::scratch_file::{self, ScratchFile};

/// What is not written yet of a file.
const WRITE_BYTES: usize = 256 << 10;
/// What is read at once, if no event is larger.
const READ_BYTES: u64 = 256 << 10;

const SUFFIX: &str = ".events";
const WRITING: &str = "keep waiting events";
const READING: &str = "read waiting events";
const SWEEPING: &str = "remove events";

/// The files of a stream, and which of them wait.
pub(super) struct Outbox {
    folder: Folder,
    scratch: Scratch,
    metrics: Arc<StepMetrics>,
    run_id: String,
    part_run: String,
    /// What counts again if the run never sees its end.
    fallback: Vec<EventsFile>,
    files: Mutex<Files>,
    _memory: Reservation,
}

#[derive(Default)]
struct Files {
    n_made: usize,
    /// Sealed and not announced, in order.
    waiting: Vec<Held>,
    /// So many of them the next commit announces.
    n_named: usize,
    /// What the last commit announced: it names them.
    announced: Vec<Held>,
}

/// A file, and what it takes of the disk.
struct Held {
    file: EventsFile,
    _taken: Reservation,
}

/// A file being written.
pub(super) struct Writing {
    writer: BufWriter<ScratchFile>,
    path: PathBuf,
    file: EventsFile,
}

impl Outbox {
    /// What it takes, beside rows that are being written: an event may be so large.
    pub(super) fn memory(max_event_bytes: ByteCount) -> ByteCount {
        ByteCount::of(WRITE_BYTES).saturating_add(max_event_bytes.max(ByteCount::new(READ_BYTES)))
    }

    /// Over a folder that files of earlier runs may lie in; those that no commit names are removed.
    pub(super) async fn open(cx: &Context, folder: Folder, memory: Reservation) -> Result<Self> {
        let fallback = Kept::fallback(cx).unwrap_or_default().files;
        let kept = Kept::of(cx).unwrap_or_default().files;
        let named: BTreeSet<_> = kept.into_iter().chain(fallback.clone()).map(|file| file.name).collect();
        folder.work(SWEEPING, move |fs, dir| sweep(fs, dir, &named)).await?;
        Ok(Self {
            folder,
            scratch: cx.scratch().clone(),
            metrics: Arc::clone(cx.metrics()),
            run_id: cx.run_id().to_owned(),
            part_run: cx.part_run().to_owned(),
            fallback,
            files: Mutex::default(),
            _memory: memory,
        })
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether these files are as they were written.
    pub(super) async fn has(&self, files: &[EventsFile]) -> Result<bool> {
        let files = files.to_vec();
        let has_all = move |fs: &dyn Fs, dir: &Path| {
            for file in &files {
                if fs.stat(&dir.join(&file.name))?.is_none_or(|there| there.n_bytes != file.n_bytes) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        self.folder.work(READING, has_all).await
    }

    /// These files of an earlier commit wait for the next one: the run that wrote them goes on.
    pub(super) fn wait(&self, files: Vec<EventsFile>) -> Result<()> {
        self.files().waiting = self.held(files)?;
        Ok(())
    }

    /// These files of an earlier commit are announced; they stay until the next commit.
    pub(super) fn announce(&self, files: Vec<EventsFile>) -> Result<()> {
        self.files().announced = self.held(files)?;
        Ok(())
    }

    fn held(&self, files: Vec<EventsFile>) -> Result<Vec<Held>> {
        let take = |file: EventsFile| {
            let taken = self.scratch.take(ByteCount::new(file.n_bytes))?;
            Ok(Held { file, _taken: taken })
        };
        files.into_iter().map(take).collect()
    }

    /// Adds events to a file, or to a new one.
    pub(super) async fn write(
        &self,
        writing: Option<Writing>,
        bytes: Vec<u8>,
        n_events: u64,
    ) -> Result<Writing> {
        let (Folder { fs, tasks, path: dir }, scratch) = (self.folder.clone(), self.scratch.clone());
        let name = format!("{}-{:05}{SUFFIX}", self.part_run, self.files().n_made);
        if writing.is_none() {
            self.files().n_made += 1;
        }
        let write = move || {
            let mut writing = match writing {
                Some(writing) => writing,
                None => {
                    let path = dir.join(&name);
                    let failed = |error| Error::io(WRITING, path.display(), error);
                    fs.create_dir_all(&dir).map_err(failed)?;
                    let file = ScratchFile::new(fs.create_new(&path).map_err(failed)?, scratch);
                    let writer = BufWriter::with_capacity(WRITE_BYTES, file);
                    Writing { writer, path, file: EventsFile { name, n_events: 0, n_bytes: 0 } }
                }
            };
            match writing.add(&bytes, n_events) {
                Ok(()) => Ok(writing),
                Err(error) => {
                    writing.discard(&*fs);
                    Err(error)
                }
            }
        };
        tasks.block(write).await?
    }

    /// Makes a file durable. The next commit names it.
    pub(super) async fn seal(&self, writing: Writing) -> Result<()> {
        let Folder { fs, tasks, path } = self.folder.clone();
        let held = tasks.block(move || writing.seal(&*fs, &path)).await??;
        self.metrics.spilled_bytes.add(held.file.n_bytes);
        self.files().waiting.push(held);
        Ok(())
    }

    /// Removes a file that is not sealed.
    pub(super) async fn discard(&self, writing: Writing) -> Result<()> {
        let discard = move |fs: &dyn Fs, _: &Path| {
            writing.discard(fs);
            Ok(())
        };
        self.folder.work(SWEEPING, discard).await
    }

    /// What the commit that comes keeps, where this is the number of the next event that goes out.
    pub(super) fn keep(&self, next_id: u64) -> Kept {
        let mut files = self.files();
        files.n_named = files.waiting.len();
        let named: Vec<_> = files.waiting.iter().map(|held| held.file.clone()).collect();
        let run_id = if named.is_empty() { String::new() } else { self.run_id.clone() };
        Kept { next_id: next_id + n_events(&named), files: named, run_id }
    }

    /// The commit stands: what it announces, in order. What the one before it had announced is removed.
    pub(super) async fn committed(&self, is_last: bool) -> Result<Vec<EventsFile>> {
        let (due, old) = {
            let mut files = self.files();
            let n_named = std::mem::take(&mut files.n_named);
            let due: Vec<_> = files.waiting.drain(..n_named).collect();
            let named = due.iter().map(|held| held.file.clone()).collect();
            (named, std::mem::replace(&mut files.announced, due))
        };
        // They count again if the run never sees its end.
        let is_needed = |held: &Held| !is_last && self.fallback.contains(&held.file);
        let (needed, old): (Vec<_>, Vec<_>) = old.into_iter().partition(is_needed);
        self.files().announced.extend(needed);
        let remove = move |fs: &dyn Fs, dir: &Path| {
            old.iter().try_for_each(|held| fs.remove_file(&dir.join(&held.file.name)))
        };
        self.folder.work(SWEEPING, remove).await?;
        Ok(due)
    }

    /// Reads a file from its beginning.
    pub(super) fn read(&self, file: &EventsFile) -> Reading {
        let path = self.folder.path.join(&file.name);
        Reading { folder: self.folder.clone(), path, file: None, at: 0, end: file.n_bytes }
    }
}

/// How many events there are in files.
pub(super) fn n_events(files: &[EventsFile]) -> u64 {
    files.iter().map(|file| file.n_events).sum()
}

/// Removes files of events that have none of these names.
fn sweep(fs: &dyn Fs, dir: &Path, named: &BTreeSet<String>) -> io::Result<()> {
    if fs.stat(dir)?.is_none() {
        return Ok(());
    }
    for entry in fs.list(dir)? {
        let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(SUFFIX) && !named.contains(name) {
            fs.remove_file(&entry.path)?;
        }
    }
    Ok(())
}

impl Writing {
    fn add(&mut self, bytes: &[u8], n_events: u64) -> Result<()> {
        self.writer.write_all(bytes).map_err(|error| scratch_file::failed(WRITING, &self.path, error))?;
        self.file.n_events += n_events;
        self.file.n_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Removes the file. If it cannot be, the next opening does.
    fn discard(self, fs: &dyn Fs) {
        let _ = fs.remove_file(&self.path);
        // Not to be written out when it is dropped.
        drop(self.writer.into_parts());
    }

    fn seal(self, fs: &dyn Fs, dir: &Path) -> Result<Held> {
        let failed = |error| scratch_file::failed(WRITING, &self.path, error);
        let mut file = self.writer.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync().map_err(failed)?;
        // The folders above were made with it.
        for folder in dir.ancestors().take(3).filter(|folder| !folder.as_os_str().is_empty()) {
            fs.sync_dir(folder).map_err(failed)?;
        }
        Ok(Held { file: self.file, _taken: file.close() })
    }
}

/// A file being read.
pub(super) struct Reading {
    folder: Folder,
    path: PathBuf,
    file: Option<Arc<dyn FsRead>>,
    at: u64,
    end: u64,
}

impl Reading {
    /// The next events, as [`frames`] wrote them; nothing at the end.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let (path, opened, at, end) = (self.path.clone(), self.file.clone(), self.at, self.end);
        let read = move |fs: &dyn Fs, _: &Path| {
            let file = match opened {
                Some(file) => file,
                None => Arc::from(fs.open_read(&path)?),
            };
            let bytes = read_whole(&*file, at, end)?;
            Ok((file, bytes))
        };
        let (file, bytes) = self.folder.work(READING, read).await?;
        if bytes.is_empty() {
            return Err(self.damaged());
        }
        self.file = Some(file);
        self.at += bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// To say when its bytes are no events.
    pub(super) fn damaged(&self) -> Error {
        let message =
            "a file of events that a commit keeps is damaged; remove it, and they are told as missing";
        Error::new(ErrorKind::Conflict, READING, message).with("path", self.path.display())
    }
}

/// Events from a place on, as many as fit, one at least; nothing if what is there is cut.
fn read_whole(file: &dyn FsRead, at: u64, end: u64) -> io::Result<Vec<u8>> {
    let read = |n_bytes: u64| {
        let mut bytes = vec![0; ByteCount::new(n_bytes).as_usize()];
        file.read_exact_at(&mut bytes, at).map(|()| bytes)
    };
    let rest = end - at;
    let mut bytes = read(rest.min(READ_BYTES))?;
    if let Some(first) = frames::first_bytes(&bytes).filter(|first| *first > READ_BYTES && *first <= rest) {
        bytes = read(first)?;
    }
    bytes.truncate(frames::whole_bytes(&bytes));
    Ok(bytes)
}
