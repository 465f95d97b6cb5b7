//! What steps keep in files, where the log is in an object store: sent before the record that counts on it, and fetched by
//! whoever opens the log next, on whichever machine.
//!
//! A file is in the store in pieces, because some grow with each commit; the record names all pieces of all files. What is on
//! this machine is a copy, beside which stands of which record it is.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use aqueduct_core::{Error, ErrorKind, FsEntry, FsRead, Objects, Result, kill_point};
use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::in_store::has_bytes;

/// Where steps keep files: beyond the run, and as long as it is not complete.
const STEPS: &str = "steps";
const RUNS: &str = "runs";
/// Says of which record the files on this machine are.
const MARKER: &str = "carried.json";
/// Piece names in a marker take far less.
const MAX_MARKER_BYTES: u64 = 64 << 20;
/// Steps keep their files less deep.
const MAX_DEPTH: usize = 16;
/// Of objects that nobody names, so many are removed at an opening.
const MAX_SWEPT: usize = 10_000;
/// A piece of no more is sent in one request, from memory.
const MAX_PUT_BYTES: u64 = 4 << 20;
/// Bytes that are copied at once.
const BLOCK_BYTES: usize = 1 << 20;

/// By its name below the flow's folder, what a file consists of.
pub(crate) type Files = BTreeMap<String, Vec<Piece>>;

/// What a record changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilesChange {
    /// Files that are new, or consist of other pieces than before.
    pub(crate) put: Files,
    /// Files that are there no more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    gone: BTreeSet<String>,
}

impl FilesChange {
    fn between(before: &Files, after: &Files) -> Self {
        let is_new = |(name, pieces): &(&String, &Vec<Piece>)| before.get(*name) != Some(pieces);
        let put = after.iter().filter(is_new).map(|(name, pieces)| (name.clone(), pieces.clone())).collect();
        let gone = before.keys().filter(|name| !after.contains_key(*name)).cloned().collect();
        Self { put, gone }
    }

    pub(crate) fn apply(self, files: &mut Files) {
        files.retain(|name, _| !self.gone.contains(name));
        files.extend(self.put);
    }
}

/// Those of the files that outlive the run they are of.
pub(crate) fn without_runs(files: &Files) -> Files {
    let of_steps = files.iter().filter(|(name, _)| Path::new(name).starts_with(STEPS));
    of_steps.map(|(name, pieces)| (name.clone(), pieces.clone())).collect()
}

/// Bytes of a file, as an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// The object's name.
    object: String,
    bytes: u64,
    blake3: String,
}

/// Where files are, on this machine and in the store.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) disk: Disk,
    /// The flow's folder on this machine.
    pub(crate) local: PathBuf,
    /// The folder of the objects: another for each log, so that one that is begun anew meets no names of the old one.
    pub(crate) remote: PathBuf,
    /// The log's name.
    pub(crate) log_id: String,
}

/// What a machine has, as its marker says.
#[derive(Serialize, Deserialize)]
struct Marker {
    log: String,
    files: Files,
}

impl Places {
    /// Brings the files that the newest record names onto this machine, those that are not there as it names them. All else
    /// that lies in their folders goes: what no record names was never kept.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: a piece is gone or damaged. Or the disk or the store fails; it can be done again.
    pub(crate) fn fetch(&self, files: &Files) -> Result<()> {
        let mut here = self.marked()?;
        for (name, pieces) in &here.clone() {
            // Whoever was here last may have gone on writing, or have removed what it needed no more.
            let entry = self.disk.stat(&self.local.join(name))?;
            if files.get(name) != Some(pieces) || entry.is_none_or(|entry| entry.n_bytes < n_bytes(pieces)) {
                here.remove(name);
            }
        }
        let missing = || files.iter().filter(|(name, _)| !here.contains_key(*name));
        if missing().next().is_some() {
            self.mark(&here)?;
        }
        self.forget_but(&here)?;
        kill_point("store.state.forgotten");
        missing().try_for_each(|(name, pieces)| self.fetch_file(name, pieces))?;
        if here != *files {
            self.mark(files)?;
        }
        Ok(())
    }

    /// Removes all that is on this machine.
    pub(crate) fn forget(&self) -> Result<()> {
        self.mark(&Files::new())?;
        self.forget_but(&Files::new())
    }

    fn forget_but(&self, files: &Files) -> Result<()> {
        let mut found = Vec::new();
        for folder in [STEPS, RUNS] {
            self.walk(&self.local.join(folder), 0, &mut found)?;
        }
        let is_named = |entry: &FsEntry| self.name(&entry.path).is_some_and(|name| files.contains_key(name));
        let mut unnamed = found.iter().filter(|entry| !is_named(entry));
        unnamed.try_for_each(|entry| self.disk.remove_file(&entry.path))
    }

    /// What a file is called in a record.
    fn name<'p>(&self, path: &'p Path) -> Option<&'p str> {
        path.strip_prefix(&self.local).ok().and_then(Path::to_str)
    }

    /// The files that are here as some record named them.
    fn marked(&self) -> Result<Files> {
        let path = self.local.join(MARKER);
        if !self.disk.exists(&path)? {
            return Ok(Files::new());
        }
        // One that cannot be read says nothing: the files are fetched anew.
        let marker = serde_json::from_slice::<Marker>(&self.disk.read(&path, MAX_MARKER_BYTES)?);
        Ok(marker
            .ok()
            .filter(|marker| marker.log == self.log_id)
            .map(|marker| marker.files)
            .unwrap_or_default())
    }

    fn mark(&self, files: &Files) -> Result<()> {
        let marker = Marker { log: self.log_id.clone(), files: files.clone() };
        let bytes = serde_json::to_vec(&marker)
            .map_err(|error| Error::bug("keep files", "a marker has no JSON").with_source(error))?;
        let (path, draft) = (self.local.join(MARKER), self.local.join(format!("{MARKER}.new")));
        self.disk.create_dir_all(&self.local)?;
        self.disk.remove_file(&draft)?;
        self.disk.write_durable(&draft, &bytes)?;
        self.disk.rename(&draft, &path)
    }

    fn fetch_file(&self, name: &str, pieces: &[Piece]) -> Result<()> {
        let path = self.local.join(name);
        let is_plain = |step: Component<'_>| matches!(step, Component::Normal(_));
        if !Path::new(name).components().all(is_plain) {
            let message = "a record names a file outside of the flow's folder";
            return Err(Error::new(ErrorKind::Conflict, "fetch state", message).with("file", name));
        }
        let at = |error| Error::io("fetch state", path.display(), error);
        self.disk.create_dir_all(path.parent().unwrap_or(&self.local))?;
        // Lists of inputs have credentials in them.
        let mut file = self.disk.0.create_private(&path).map_err(at)?;
        for piece in pieces {
            let from = self.remote.join(&piece.object);
            let object = self.disk.0.open_read(&from).map_err(|error| self.unread(&from, error))?;
            let mut write = |block: &[u8]| file.write_all(block);
            let hash =
                copy(&*object, 0..piece.bytes, &mut write).map_err(|error| self.unread(&from, error))?;
            if hash != piece.blake3 {
                return Err(self.unread(&from, io::ErrorKind::InvalidData.into()));
            }
        }
        file.sync().map_err(at)?;
        kill_point("store.state.fetched");
        Ok(())
    }

    fn unread(&self, object: &Path, error: io::Error) -> Error {
        use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        if !matches!(error.kind(), NotFound | UnexpectedEof | InvalidData) {
            return Error::io("fetch state", object.display(), error);
        }
        let message = "a part of the flow's state is gone or damaged, or another machine is running the flow; if it is not, \
                       begin anew with `--full-refresh`";
        Error::new(ErrorKind::Conflict, "fetch state", message)
            .with("object", object.display())
            .with_source(error)
    }

    /// The files that steps keep, and those of a run, if it goes on.
    fn here(&self, run_id: Option<&str>) -> Result<Vec<FsEntry>> {
        let mut found = Vec::new();
        let run = run_id.map(|run_id| Path::new(RUNS).join(run_id));
        for folder in [Some(PathBuf::from(STEPS)), run].into_iter().flatten() {
            self.walk(&self.local.join(folder), 0, &mut found)?;
        }
        Ok(found)
    }

    fn walk(&self, folder: &Path, depth: usize, found: &mut Vec<FsEntry>) -> Result<()> {
        if depth == MAX_DEPTH || !self.disk.exists(folder)? {
            return Ok(());
        }
        for entry in self.disk.list(folder)? {
            match entry.is_dir {
                true => self.walk(&entry.path, depth + 1, found)?,
                false => found.push(entry),
            }
        }
        Ok(())
    }
}

/// Sends what steps keep, commit for commit.
#[derive(Debug)]
pub(crate) struct Carrier {
    places: Places,
    /// The number of the record with which this process took over: its objects have names that no other gives.
    opening: u64,
    n_objects: u64,
    /// What the newest record names.
    committed: Files,
    /// What the next one will.
    sent: Files,
    /// Whether it is certain that what was sent is what lies here.
    is_compared: bool,
}

impl Carrier {
    /// With the files that are on this machine and in the store alike. Removes objects of dead openings that nobody names, if
    /// it may.
    pub(crate) fn new(places: Places, opening: u64, committed: Files) -> Self {
        let sent = committed.clone();
        let carrier = Self { places, opening, n_objects: 0, committed, sent, is_compared: false };
        if let Err(error) = carrier.sweep() {
            tracing::warn!(error = error.chain(), "what nobody needs of the flow's state was not removed");
        }
        carrier
    }

    /// Objects of later openings are another's, who has taken over.
    fn sweep(&self) -> Result<()> {
        let Places { disk, remote, .. } = &self.places;
        let Some(objects) = disk.objects(remote) else { return Ok(()) };
        let named = names(&self.committed);
        let mut stale = Vec::new();
        let listed = objects.each_below(remote, &mut |entry| {
            let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let opening = name.split_once('-').and_then(|(opening, _)| opening.parse::<u64>().ok());
            let is_dead = opening.is_some_and(|opening| opening < self.opening);
            if is_dead && !named.contains(name) && stale.len() < MAX_SWEPT {
                stale.push(entry.path);
            }
            Ok(())
        });
        listed.map_err(|error| Error::io("list state", remote.display(), error))?;
        stale.iter().try_for_each(|object| disk.remove_file(object))?;
        kill_point("store.state.swept");
        Ok(())
    }

    /// Sends what has changed since the last commit; what the record is to say, if it is to say anything new. `run_id`: the
    /// files of the run as well, for it goes on.
    ///
    /// # Errors
    /// As the disk or the store says: then there is nothing to commit.
    pub(crate) fn send(&mut self, run_id: Option<&str>) -> Result<Option<FilesChange>> {
        let mut files = Files::new();
        for entry in self.places.here(run_id)? {
            let Some(name) = self.places.name(&entry.path) else {
                let message = "a step keeps a file whose name is no UTF-8, which an object cannot have";
                return Err(
                    Error::new(ErrorKind::Config, "keep files", message).with("path", entry.path.display())
                );
            };
            let pieces = self.send_file(&entry, self.sent.get(name).cloned().unwrap_or_default())?;
            files.insert(name.to_owned(), pieces);
        }
        (self.sent, self.is_compared) = (files, true);
        let change = FilesChange::between(&self.committed, &self.sent);
        Ok((change != FilesChange::default()).then_some(change))
    }

    fn send_file(&mut self, entry: &FsEntry, mut pieces: Vec<Piece>) -> Result<Vec<Piece>> {
        let at = |error| Error::io("keep files", entry.path.display(), error);
        let file = self.places.disk.0.open_read(&entry.path).map_err(at)?;
        // Within one process files grow, or are made anew when a source is opened; whoever was here before may have left others
        // of the same names.
        let is_known = match n_bytes(&pieces).cmp(&entry.n_bytes) {
            Ordering::Greater => false,
            Ordering::Equal if self.is_compared => true,
            Ordering::Equal | Ordering::Less => is_of(&*file, &pieces).map_err(at)?,
        };
        if !is_known {
            pieces.clear();
        }
        let mut from = n_bytes(&pieces);
        if from == entry.n_bytes {
            return Ok(pieces);
        }
        // A piece stays that is at least twice as long as all behind it: there are few, and a byte is seldom sent again.
        while pieces.last().is_some_and(|last| last.bytes < 2 * (entry.n_bytes - from)) {
            from -= pieces.pop().map_or(0, |piece| piece.bytes);
        }
        pieces.push(self.send_piece(&entry.path, &*file, from..entry.n_bytes)?);
        Ok(pieces)
    }

    fn send_piece(&mut self, path: &Path, file: &dyn FsRead, range: std::ops::Range<u64>) -> Result<Piece> {
        let bytes = range.end - range.start;
        let at = |error| Error::io("keep files", path.display(), error);
        if bytes <= MAX_PUT_BYTES {
            let mut piece = Vec::new();
            let mut take = |block: &[u8]| {
                piece.extend_from_slice(block);
                Ok(())
            };
            let blake3 = copy(file, range, &mut take).map_err(at)?;
            return self.put((bytes, blake3), |objects, to| objects.put_over(to, &piece, None));
        }
        if range.start == 0 {
            let blake3 = copy(file, range, &mut |_| Ok(())).map_err(at)?;
            return self.put((bytes, blake3), |objects, to| upload(objects, path, to));
        }
        let disk = self.places.disk.clone();
        let draft = self.places.local.join("piece.new");
        disk.remove_file(&draft)?;
        let mut written = disk.0.create_private(&draft).map_err(at)?;
        let blake3 = copy(file, range, &mut |block| written.write_all(block)).map_err(at)?;
        drop(written);
        let sent = self.put((bytes, blake3), |objects, to| upload(objects, &draft, to));
        disk.remove_file(&draft)?;
        sent
    }

    fn put(
        &mut self,
        (bytes, blake3): (u64, String),
        how: impl FnOnce(&dyn Objects, &Path) -> io::Result<()>,
    ) -> Result<Piece> {
        let object = format!("{:020}-{:08}", self.opening, self.n_objects);
        self.n_objects += 1;
        let Places { disk, remote, .. } = &self.places;
        let to = remote.join(&object);
        let failed = |error| Error::io("keep files", to.display(), error);
        let Some(objects) = disk.objects(remote) else {
            return Err(Error::bug("keep files", "the log is in no object store"));
        };
        match how(objects, &to) {
            // What was carried out may be told as failed.
            Err(error) if !has_bytes(disk, &to, bytes, &blake3)? => Err(failed(error)),
            _ => {
                kill_point("store.state.sent");
                Ok(Piece { object, bytes, blake3 })
            }
        }
    }

    /// What was sent last is committed, and what it has replaced is of no use any more: what stays of it, the next opening
    /// removes.
    pub(crate) fn committed(&mut self) {
        if self.sent == self.committed {
            return;
        }
        let marked = self.places.mark(&self.sent);
        kill_point("store.state.marked");
        if let Err(error) = marked.and_then(|()| self.remove_replaced()) {
            tracing::debug!(error = error.chain(), "what was replaced of the flow's state was not removed");
        }
        kill_point("store.state.replaced");
        self.committed = self.sent.clone();
    }

    fn remove_replaced(&self) -> Result<()> {
        let (before, now) = (names(&self.committed), names(&self.sent));
        let mut gone = before.difference(&now);
        gone.try_for_each(|gone| self.places.disk.remove_file(&self.places.remote.join(gone)))
    }
}

fn upload(objects: &dyn Objects, from: &Path, to: &Path) -> io::Result<()> {
    objects.complete(to, &objects.upload(from, to)?)
}

fn names(files: &Files) -> BTreeSet<&str> {
    files.values().flatten().map(|piece| piece.object.as_str()).collect()
}

fn n_bytes(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.bytes).sum()
}

/// Whether a file begins with these pieces; it is at least as long.
fn is_of(file: &dyn FsRead, pieces: &[Piece]) -> io::Result<bool> {
    let mut from = 0;
    for piece in pieces {
        if copy(file, from..from + piece.bytes, &mut |_| Ok(()))? != piece.blake3 {
            return Ok(false);
        }
        from += piece.bytes;
    }
    Ok(true)
}

/// Gives bytes of a file block by block; their BLAKE3 in hex.
///
/// # Errors
/// The file is shorter, or as the disk or whoever takes them says.
pub(crate) fn copy(
    from: &dyn FsRead,
    range: std::ops::Range<u64>,
    give: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<String> {
    let (mut hasher, mut block) = (Box::<blake3::Hasher>::default(), vec![0; BLOCK_BYTES]);
    let mut offset = range.start;
    while offset < range.end {
        let left = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
        let block = block.split_at_mut(left.min(BLOCK_BYTES)).0;
        from.read_exact_at(block, offset)?;
        hasher.update(block);
        give(block)?;
        offset += block.len() as u64;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
