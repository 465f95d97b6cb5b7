//! The log of one flow: records in files that are made once and never changed.
//!
//! `DIR/log/00000000000000000007.json` is record 7. It becomes a record by getting that name, which only one
//! writer can give (`link`, the local form of put-if-absent); it is durable once the folder is. Each record
//! names the hash of the one before, so that a gap, a swap or a changed byte is told and never passed over.

use std::path::{Path, PathBuf};

use aqueduct_core::{Error, ErrorKind, Objects, Result, kill_point};

use crate::checkpoint::{self, Checkpoint};
use crate::disk::Disk;
use crate::history::History;
use crate::record::{About, Event, Record, Tip};

/// A record has what one commit changed. A larger file in its place is not one of ours.
const MAX_RECORD_BYTES: u64 = 256 << 20;
/// More records than this are not read: the log has then grown past what a start may take.
const MAX_RECORDS: usize = 1_000_000;
/// How often a record is sent to an object store that does not say what became of it.
const MAX_TRIES: usize = 5;
/// A record that is being written.
const DRAFT_PREFIX: &str = "draft-";

/// The records of one flow, open at their end.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Disk,
    folder: PathBuf,
    tip: Tip,
    /// What follows from its records.
    history: History,
    /// The records behind which there are checkpoints, in order.
    checkpoints: Vec<u64>,
    /// After so many records there is another.
    checkpoint_every: u64,
}

/// What became of a record.
#[derive(Debug)]
pub(crate) enum Put {
    /// It is durable.
    Done,
    /// It is not in the log, and never will be: nothing that it says has happened.
    Refused(Error),
    /// It may be in the log or not: the next one to open it will see.
    Unknown(Error),
}

impl Log {
    /// Reads a log from its beginning; an empty one where there is none. Changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: a record is missing, damaged, or was written by a newer version. Or it cannot
    /// be read.
    pub(crate) fn open(disk: &Disk, flow_dir: &Path) -> Result<(Self, History)> {
        let folder = flow_dir.join("log");
        let mut log = Self {
            disk: disk.clone(),
            folder,
            tip: Tip::default(),
            history: History::default(),
            checkpoints: Vec::new(),
            checkpoint_every: checkpoint::EVERY,
        };
        if log.disk.exists(&log.folder)? {
            // What the last writer put there may be seen and yet not be durable: nothing may build on it before.
            log.disk.sync_dir(&log.folder)?;
            let records = log.list()?;
            log.begin_at_checkpoint(&records);
            let known = log.path_of(log.tip.n);
            for path in records.into_iter().filter(|path| *path > known) {
                let record = log.read(&path)?;
                log.history.add(record).map_err(|error| error.with("path", path.display()))?;
            }
        }
        let history = log.history.clone();
        Ok((log, history))
    }

    pub(crate) fn set_checkpoint_every(&mut self, n_records: u64) {
        self.checkpoint_every = n_records.max(1);
    }

    /// Begins behind the newest checkpoint that is of this log.
    fn begin_at_checkpoint(&mut self, records: &[PathBuf]) {
        for n in self.checkpoints.iter().rev() {
            let path = self.folder.join(checkpoint::name(*n));
            let read = self.disk.read(&path, MAX_RECORD_BYTES).ok();
            let found = read.and_then(|bytes| Checkpoint::decode(&bytes)).filter(|one| one.tip.n == *n);
            match found.filter(|one| self.has(&one.tip, records)) {
                Some(Checkpoint { tip, history, .. }) => {
                    (self.tip, self.history) = (tip, history);
                    return;
                }
                None => {
                    tracing::warn!(path = %path.display(), "a checkpoint of the log cannot be used; more of it is read")
                }
            }
        }
    }

    /// Whether this is one of the log's records.
    fn has(&self, tip: &Tip, records: &[PathBuf]) -> bool {
        let path = self.path_of(tip.n);
        let read = || self.disk.read(&path, MAX_RECORD_BYTES).and_then(|bytes| Record::decode(&bytes));
        records.contains(&path) && read().is_ok_and(|(_, hash)| Some(hash) == tip.hash)
    }

    /// The records' files in their order. Takes note of the checkpoints.
    fn list(&mut self) -> Result<Vec<PathBuf>> {
        let entries = self.disk.list(&self.folder)?;
        if entries.len() > MAX_RECORDS {
            return Err(Error::new(ErrorKind::Limit, "read log", "the log has too many records")
                .with("path", self.folder.display())
                .with("limit_records", MAX_RECORDS));
        }
        self.checkpoints = entries.iter().filter_map(|entry| checkpoint::number(&entry.path)).collect();
        let is_record = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "json");
        Ok(entries.into_iter().map(|entry| entry.path).filter(is_record).collect())
    }

    /// The record that is to come next, from its file.
    fn read(&mut self, path: &Path) -> Result<Record> {
        let at = |error: Error| error.with("path", path.display());
        if path != self.path_of(self.tip.n + 1) {
            let message = "a record of the log is missing; restore it, or begin anew with `--full-refresh`";
            return Err(
                at(Error::new(ErrorKind::Conflict, "read log", message)).with("record", self.tip.n + 1)
            );
        }
        let (record, hash) = Record::decode(&self.disk.read(path, MAX_RECORD_BYTES)?).map_err(at)?;
        if record.n != self.tip.n + 1 || record.previous != self.tip.hash {
            let message = "this record does not follow the one before it; the log was mixed up";
            return Err(at(Error::new(ErrorKind::Conflict, "read log", message)));
        }
        self.tip = Tip { n: record.n, hash: Some(hash) };
        Ok(record)
    }

    fn path_of(&self, n: u64) -> PathBuf {
        self.folder.join(format!("{n:020}.json"))
    }

    /// The newest record.
    pub(crate) fn tip(&self) -> &Tip {
        &self.tip
    }

    /// Makes the log's folder, durable with all folders above that were made for it, and removes the drafts of dead
    /// writers.
    pub(crate) fn prepare(&self) -> Result<()> {
        if self.disk.objects(&self.folder).is_some() {
            return Ok(());
        }
        self.disk.create_durable_dir(&self.folder)?;
        for entry in self.disk.list(&self.folder)? {
            if is_draft(&entry.path) {
                self.disk.remove_file(&entry.path)?;
                kill_point("recovery.draft.removed");
            }
        }
        Ok(())
    }

    /// Adds a record, unless somebody else has added one since this log was read.
    pub(crate) fn put(&mut self, about: &About<'_>, event: Event) -> Put {
        let record = Record::after(&self.tip, about, event);
        let (bytes, hash) = match record.encode() {
            Ok(encoded) => encoded,
            Err(error) => return Put::Refused(error),
        };
        let put = match self.disk.objects(&self.folder) {
            Some(objects) => self.put_object(objects, record.n, &bytes),
            None => self.put_file(about, record.n, &bytes),
        };
        if matches!(put, Put::Done) {
            self.tip = Tip { n: record.n, hash: Some(hash) };
            let known = self.history.add(record);
            if let Err(error) = known.and_then(|()| self.checkpoint_if_due()) {
                tracing::debug!(error = error.chain(), "no checkpoint of the log was written");
            }
        }
        put
    }

    fn checkpoint_if_due(&mut self) -> Result<()> {
        let n = self.tip.n;
        if n - self.checkpoints.last().copied().unwrap_or_default().min(n) < self.checkpoint_every {
            return Ok(());
        }
        let bytes = Checkpoint::new(self.tip.clone(), self.history.clone()).encode()?;
        let path = self.folder.join(checkpoint::name(n));
        match self.disk.objects(&self.folder) {
            Some(objects) => match objects.put_over(&path, &bytes, None) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                put => put.map_err(|error| Error::io("write checkpoint", path.display(), error))?,
            },
            None => {
                let draft = self.folder.join(format!("{DRAFT_PREFIX}{}", checkpoint::name(n)));
                self.draft(&draft, &bytes)?;
                self.disk.rename(&draft, &path)?;
            }
        }
        self.checkpoints.push(n);
        while self.checkpoints.len() > checkpoint::N_KEPT {
            self.disk.remove_file(&self.folder.join(checkpoint::name(self.checkpoints.remove(0))))?;
        }
        Ok(())
    }

    fn put_file(&self, about: &About<'_>, n: u64, bytes: &[u8]) -> Put {
        let draft = self.folder.join(format!("{DRAFT_PREFIX}{n}-{}", about.run_id));
        if let Err(error) = self.draft(&draft, bytes) {
            return Put::Refused(error);
        }
        kill_point("commit.record.drafted");
        let put = self.link(&draft, n, bytes);
        // What is left of it is removed by the next one to open the log.
        if let Err(error) = self.disk.remove_file(&draft) {
            tracing::debug!(error = error.chain(), "a draft was not removed");
        }
        put
    }

    fn draft(&self, draft: &Path, bytes: &[u8]) -> Result<()> {
        self.disk.remove_file(draft)?;
        self.disk.write_durable(draft, bytes)
    }

    /// Puts the record into an object store, where a request whose reply is lost may be carried out, now or later. What counts
    /// is what is there: this record, another's, or nothing, and then it is sent again.
    fn put_object(&self, objects: &dyn Objects, n: u64, bytes: &[u8]) -> Put {
        let path = self.path_of(n);
        let named = |error| Error::io("write record", path.display(), error);
        let mut last = None;
        for _ in 0..MAX_TRIES {
            match objects.put_over(&path, bytes, None) {
                Ok(()) => {
                    kill_point("store.record.put");
                    return Put::Done;
                }
                Err(error) => last = Some(named(error)),
            }
            match objects.read_version(&path, MAX_RECORD_BYTES) {
                Ok(Some((there, _))) if there == bytes => return Put::Done,
                Ok(Some(_)) => return Put::Refused(fenced(&path)),
                Ok(None) => {}
                Err(error) => last = Some(named(error)),
            }
        }
        Put::Unknown(last.unwrap_or_else(|| Error::bug("write record", "nothing was tried")))
    }

    /// Gives the draft its number. Whatever the system says, what counts is what is there then.
    fn link(&self, draft: &Path, n: u64, bytes: &[u8]) -> Put {
        let path = self.path_of(n);
        let linked = self.disk.link(draft, &path);
        kill_point("commit.record.linked");
        match self.disk.stat(&path) {
            Ok(Some(_)) => {}
            Ok(None) => {
                return match linked {
                    Err(error) => Put::Refused(error),
                    Ok(()) => Put::Unknown(Error::bug("write record", "a record vanished")),
                };
            }
            Err(error) => return Put::Unknown(error),
        }
        match self.disk.read(&path, MAX_RECORD_BYTES) {
            Err(error) => return Put::Unknown(error),
            Ok(there) if there != bytes => return Put::Refused(fenced(&path)),
            Ok(_) => {}
        }
        match self.disk.sync_dir(&self.folder) {
            Ok(()) => {
                kill_point("commit.record.synced");
                Put::Done
            }
            Err(error) => Put::Unknown(error),
        }
    }
}

/// Whether a file is a record that was being written.
pub(crate) fn is_draft(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(DRAFT_PREFIX))
}

fn fenced(path: &Path) -> Error {
    let message =
        "another process has taken over this flow; this one stops, and nothing of its last step counts";
    Error::new(ErrorKind::Conflict, "write record", message).with("path", path.display())
}
