//! An output in an object store: what is different where nothing can be moved.
//!
//! Parts are sent before their record, and appear after it; who reads by the manifest sees the one or the other. It is
//! changed only in the place of the version that was read, so that of two writers neither undoes what the other did.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind as IoKind;
use std::path::Path;

use aqueduct_core::{Error, ErrorKind, FsEntry, Objects, Part, Result, Version, kill_point};

use crate::Mode;
use crate::carried::copy;
use crate::disk::Disk;
use crate::layout::{DOCUMENTS, Layout, tells_of_data};
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestPart};
use crate::stage::{Stage, Staged};

/// How often another writer may change the manifest between two looks at it.
const MAX_TRIES: usize = 16;
/// More logs than flows write to one output.
const MAX_LOGS: usize = 64;

/// An output in an object store.
#[derive(Clone, Copy)]
pub(crate) struct InStore<'a> {
    pub(crate) disk: &'a Disk,
    pub(crate) objects: &'a dyn Objects,
    pub(crate) layout: &'a Layout,
}

/// What a record makes public.
pub(crate) struct Publishing<'a> {
    pub(crate) stage: &'a Stage,
    /// Of one file, which has all its rows anew, [`Mode::Replace`].
    pub(crate) mode: Mode,
    /// The record.
    pub(crate) n: u64,
    /// The BLAKE3 of the manifest that was kept for it.
    pub(crate) hashed: &'a str,
    /// The records whose parts appear.
    pub(crate) epochs: Vec<u64>,
    /// Their parts.
    pub(crate) parts: Vec<Staged>,
}

impl InStore<'_> {
    /// Sends parts to where they will appear.
    pub(crate) fn upload(&self, parts: &[Part]) -> Result<Vec<Staged>> {
        let mut sent = Vec::new();
        for part in parts {
            let to = self.place(&part.name);
            match self.objects.upload(&part.staged, &to) {
                Ok(upload) => {
                    sent.push(Staged { part: ManifestPart::from(part.clone()), upload: Some(upload) });
                    if let Err(error) = self.disk.remove_file(&part.staged) {
                        tracing::debug!(error = error.chain(), "a part that was sent was not removed");
                    }
                }
                Err(error) => {
                    self.abort(&sent);
                    return Err(failed("upload part", &to, error));
                }
            }
        }
        Ok(sent)
    }

    fn place(&self, name: &str) -> std::path::PathBuf {
        if self.layout.is_file { self.layout.path.clone() } else { self.layout.path.join(name) }
    }

    /// Drops what was sent. What cannot be dropped now is the store's to drop.
    pub(crate) fn abort(&self, staged: &[Staged]) {
        for Staged { part, upload } in staged {
            let dropped = upload.as_ref().map(|upload| self.objects.abort(&self.place(&part.name), upload));
            if let Some(Err(error)) = dropped {
                tracing::debug!(part = part.name, %error, "an upload was not dropped");
            }
        }
    }

    /// Makes public what a record says, unless that was done.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: a part is gone, or another flow has changed what was updated. Then, or when the store fails,
    /// it is still to be done.
    pub(crate) fn publish(&self, publishing: &Publishing<'_>) -> Result<()> {
        let Publishing { stage, n, hashed, .. } = publishing;
        let Some(waiting) = stage.waiting_manifest(self.disk, *n, hashed)? else { return Ok(()) };
        let Some(wanted) = Manifest::load(self.disk, &waiting)? else { return Ok(()) };
        let mut tries = 0;
        while let Changed::Not = self.try_to_publish(publishing, &wanted)? {
            tries += 1;
            if tries == MAX_TRIES {
                let message = "other runs change the output again and again";
                return Err(conflict("publish", &self.layout.path, message));
            }
        }
        self.put_document(publishing)?;
        self.remove_replaced(publishing)?;
        // What says that something is to be done goes first: the rest is of no use without it, and is swept.
        let lists = publishing.epochs.iter().map(|epoch| stage.list(*epoch));
        [waiting, stage.previous(*n)]
            .into_iter()
            .chain(lists)
            .try_for_each(|done| self.disk.remove_file(&done))
    }

    fn try_to_publish(&self, publishing: &Publishing<'_>, wanted: &Manifest) -> Result<Changed> {
        let path = self.layout.manifest();
        let (there, version) = self.manifest()?.unzip();
        if there.as_ref().is_some_and(|there| is_done(there, wanted)) {
            return Ok(Changed::Done);
        }
        let mut next = next(there.as_ref(), wanted, publishing)
            .map_err(|message| conflict("publish", &self.layout.path, message))?;
        for part in &publishing.parts {
            if self.layout.is_file && !self.is_there(&self.layout.path, &part.part)? {
                self.check_foreign(there.as_ref())?;
            }
            self.appear(part)?;
        }
        if let Some(there) = there.as_ref().filter(|_| publishing.mode != Mode::Append) {
            self.keep_previous(publishing, there)?;
        }
        next.logs = logs(there.as_ref(), wanted);
        let bytes = next.encode()?;
        match self.objects.put_over(&path, &bytes, version.as_ref()) {
            Ok(()) => {
                kill_point("store.manifest.put");
                Ok(Changed::Done)
            }
            Err(error) if error.kind() == IoKind::AlreadyExists => Ok(Changed::Not),
            // It may be there all the same.
            Err(error) => match self.manifest()? {
                Some((there, _)) if is_done(&there, wanted) => Ok(Changed::Done),
                _ => Err(failed("write manifest", &path, error)),
            },
        }
    }

    /// Puts the document that follows from the newest manifest, or removes what followed from one before. Whoever was between
    /// the two looks has changed the document or will: it is looked at again.
    fn put_document(&self, publishing: &Publishing<'_>) -> Result<()> {
        let tells = |manifest: &Manifest| manifest.parts.iter().any(|part| part.extents.is_some());
        let previous = Manifest::load(self.disk, &publishing.stage.previous(publishing.n))?;
        for _ in 0..MAX_TRIES {
            let there = self.document_versions()?;
            let Some((now, _)) = self.manifest()? else { return Ok(()) };
            if !tells(&now) && !previous.as_ref().is_some_and(tells) {
                return Ok(());
            }
            if self.try_to_put_document(&now, there)? {
                return Ok(());
            }
        }
        let message = "other runs change the document of collections again and again";
        Err(conflict("publish", &self.layout.path, message))
    }

    fn document_versions(&self) -> Result<Vec<(&'static str, Option<Version>)>> {
        let version = |name: &'static str| {
            let path = self.layout.described_in(name);
            let read = self.objects.read_version(&path, MAX_MANIFEST_BYTES);
            let read = read.map_err(|error| failed("read document", &path, error))?;
            Ok((name, read.map(|(_, version)| version)))
        };
        DOCUMENTS.into_iter().map(version).collect()
    }

    /// Whether nobody else was first.
    fn try_to_put_document(
        &self,
        now: &Manifest,
        there: Vec<(&'static str, Option<Version>)>,
    ) -> Result<bool> {
        let document = now.document();
        for (name, version) in there {
            let path = self.layout.described_in(name);
            match document.as_ref().filter(|(wanted, _)| *wanted == name) {
                Some((_, text)) => match self.objects.put_over(&path, text, version.as_ref()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == IoKind::AlreadyExists => return Ok(false),
                    Err(error) => return Err(failed("write document", &path, error)),
                },
                None if version.is_some() => self.disk.remove_file(&path)?,
                None => {}
            }
        }
        Ok(true)
    }

    /// What is public, and its version.
    fn manifest(&self) -> Result<Option<(Manifest, Version)>> {
        let path = self.layout.manifest();
        let read = self.objects.read_version(&path, MAX_MANIFEST_BYTES);
        let Some((bytes, version)) = read.map_err(|error| failed("read manifest", &path, error))? else {
            return Ok(None);
        };
        let mut manifest = Manifest::parse(&bytes).map_err(|error| error.with("path", path.display()))?;
        manifest.parts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Some((manifest, version)))
    }

    /// Lets a part appear. One whose upload is not there any more has appeared before.
    fn appear(&self, staged: &Staged) -> Result<()> {
        let (place, part) = (self.place(&staged.part.name), &staged.part);
        let Some(upload) = &staged.upload else {
            return Err(conflict("publish", &place, "the list of staged parts does not say how it was sent"));
        };
        let Err(error) = self.objects.complete(&place, upload) else {
            kill_point("store.part.completed");
            return Ok(());
        };
        // It may have appeared all the same, now or when this was tried before.
        if self.is_there(&place, part)? {
            return Ok(());
        }
        Err(match error.kind() {
            IoKind::NotFound => {
                let message = "a part that was committed is gone: it is neither staged nor public; begin anew with \
                               `--full-refresh`";
                conflict("publish", &place, message)
            }
            _ => failed("publish", &place, error),
        })
    }

    fn is_there(&self, place: &Path, part: &ManifestPart) -> Result<bool> {
        has_bytes(self.disk, place, part.bytes, &part.blake3)
    }

    /// Keeps the manifest that makes way: it says which objects are to go. One of an earlier try did not make way.
    fn keep_previous(&self, publishing: &Publishing<'_>, there: &Manifest) -> Result<()> {
        let path = publishing.stage.previous(publishing.n);
        self.disk.remove_file(&path)?;
        there.store(self.disk, &path)?;
        kill_point("store.previous.kept");
        Ok(())
    }

    /// Removes the objects that were public and are listed no more.
    fn remove_replaced(&self, publishing: &Publishing<'_>) -> Result<()> {
        let Some(previous) = Manifest::load(self.disk, &publishing.stage.previous(publishing.n))? else {
            return Ok(());
        };
        let Some((now, _)) = self.manifest()? else { return Ok(()) };
        let listed: BTreeSet<_> = now.parts.iter().map(|part| part.name.as_str()).collect();
        let gone = previous.parts.iter().filter(|part| !listed.contains(part.name.as_str()));
        gone.map(|part| self.place(&part.name)).try_for_each(|place| {
            self.disk.remove_file(&place)?;
            kill_point("store.replaced.removed");
            Ok(())
        })
    }

    /// Removes all that a run staged: of what was sent, what has not appeared.
    pub(crate) fn discard(&self, stage: &Stage, but: &[u64]) -> Result<()> {
        for (n, _) in stage.lists(self.disk)?.into_iter().filter(|(n, _)| !but.contains(n)) {
            if let Ok(staged) = stage.read_any_list(self.disk, n) {
                self.abort(&staged);
                kill_point("store.uploads.aborted");
            }
        }
        match but {
            [] => stage.remove(self.disk),
            _ => stage.sweep_but(self.disk, but),
        }
    }

    /// Makes sure that nothing is there but what the manifest lists.
    pub(crate) fn check_foreign(&self, manifest: Option<&Manifest>) -> Result<()> {
        if self.layout.is_file {
            return match self.disk.stat(&self.layout.path)? {
                Some(entry) if !entry.is_dir => self.check_one(&entry, &self.layout.name, manifest),
                _ => Ok(()),
            };
        }
        let mut wrong = None;
        let listed = self.objects.each_below(&self.layout.path, &mut |entry| {
            let name =
                entry.path.strip_prefix(&self.layout.path).ok().and_then(Path::to_str).unwrap_or_default();
            if !tells_of_data(name)
                && let Err(error) = self.check_one(&entry, name, manifest)
            {
                wrong = Some(error);
                return Err(IoKind::Other.into());
            }
            Ok(())
        });
        match (wrong, listed) {
            (Some(error), _) => Err(error),
            (None, listed) => listed.map_err(|error| failed("list objects", &self.layout.path, error)),
        }
    }

    /// Whether there are as many of the objects that a manifest lists as it lists.
    pub(crate) fn has_all(&self, manifest: &Manifest) -> Result<bool> {
        if self.layout.is_file {
            return Ok(false);
        }
        let mut n_there = 0;
        let listed = self.objects.each_below(&self.layout.path, &mut |entry| {
            let name = entry.path.strip_prefix(&self.layout.path).ok().and_then(Path::to_str);
            n_there += usize::from(name.is_some_and(|name| manifest.part(name).is_some()));
            Ok(())
        });
        listed.map_err(|error| failed("list objects", &self.layout.path, error))?;
        Ok(n_there == manifest.parts.len())
    }

    fn check_one(&self, entry: &FsEntry, name: &str, manifest: Option<&Manifest>) -> Result<()> {
        let found = match manifest.and_then(|manifest| manifest.part(name)) {
            Some(part) if part.bytes == entry.n_bytes => return Ok(()),
            Some(_) => "this object was changed after aqueduct wrote it",
            None => {
                "an object that no run of aqueduct wrote is in the way, or one that a run is making public right now"
            }
        };
        let message =
            format!("{found}; if so, try again, else move it, or choose another path for the output");
        Err(Error::new(ErrorKind::Conflict, "check output", message).with("path", entry.path.display()))
    }
}

/// The BLAKE3 of an object of this length, in hex.
///
/// # Errors
/// It is shorter, or as the store says.
pub(crate) fn hash_object(disk: &Disk, path: &Path, n_bytes: u64) -> std::io::Result<String> {
    copy(&*disk.0.open_read(path)?, 0..n_bytes, &mut |_| Ok(()))
}

/// Whether an object is there with these bytes.
///
/// # Errors
/// As the store says.
pub(crate) fn has_bytes(disk: &Disk, path: &Path, n_bytes: u64, blake3: &str) -> Result<bool> {
    match disk.stat(path)? {
        Some(entry) if entry.n_bytes == n_bytes => {}
        _ => return Ok(false),
    }
    let hash = hash_object(disk, path, n_bytes).map_err(|error| failed("read object", path, error))?;
    Ok(hash == blake3)
}

/// Whether the manifest was changed.
enum Changed {
    Done,
    /// Somebody else was first.
    Not,
}

/// Whether what a record brings is public, or was.
fn is_done(there: &Manifest, wanted: &Manifest) -> bool {
    let Some(wanted) = &wanted.log else { return false };
    let newest = there.log.iter().find(|log| log.id == wanted.id).map(|log| log.n);
    newest.or(there.logs.get(&wanted.id).copied()).is_some_and(|n| n >= wanted.n)
}

/// The newest record of each log, after this one.
fn logs(there: Option<&Manifest>, wanted: &Manifest) -> BTreeMap<String, u64> {
    let before = there.into_iter().flat_map(|there| {
        let last = there.log.iter().map(|log| (log.id.clone(), log.n));
        there.logs.clone().into_iter().chain(last)
    });
    let mut logs: BTreeMap<_, _> = before.collect();
    // Names begin with the time of a log's first run: the oldest goes.
    while logs.len() >= MAX_LOGS {
        logs.pop_first();
    }
    logs.extend(wanted.log.iter().map(|log| (log.id.clone(), log.n)));
    logs
}

/// The manifest that follows the one that is there.
///
/// # Errors
/// What was updated is not what is there any more.
fn next(
    there: Option<&Manifest>,
    wanted: &Manifest,
    publishing: &Publishing<'_>,
) -> std::result::Result<Manifest, &'static str> {
    match publishing.mode {
        Mode::Replace => Ok(wanted.clone()),
        Mode::Append => {
            let parts = there.into_iter().flat_map(|there| &there.parts).cloned();
            let new = publishing.parts.iter().map(|staged| staged.part.clone());
            let mut next = wanted.with_parts(parts.chain(new));
            let table = there.and_then(|there| there.table.clone());
            next.table = match (table, next.table) {
                (Some(there), Some(new)) => Some(there.with_columns_of(&new)),
                (there, new) => new.or(there),
            };
            Ok(next)
        }
        Mode::ReplacePartitions | Mode::Merge
            if there.and_then(|there| there.log.as_ref()) == wanted.updates.as_ref() =>
        {
            Ok(wanted.clone())
        }
        Mode::ReplacePartitions | Mode::Merge => Err(
            "another flow has changed the output while this one updated it: what this run brought is staged beside it, and \
                 is not public; begin anew with `--full-refresh`",
        ),
    }
}

fn conflict(operation: &'static str, path: &Path, message: &str) -> Error {
    Error::new(ErrorKind::Conflict, operation, message).with("path", path.display())
}

fn failed(operation: &'static str, path: &Path, error: std::io::Error) -> Error {
    Error::io(operation, path.display(), error)
}
