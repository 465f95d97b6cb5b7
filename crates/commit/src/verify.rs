//! Reads a committed output again, and says where it is not what its manifest lists.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::{Error, ErrorKind, Fs, Output, Result};

use crate::disk::Disk;
use crate::in_store::hash_object;
use crate::layout::{Layout, tells_of_data};
use crate::{Manifest, ManifestPart};

/// Parts hashed at once. Hashing waits for the disk; more would only make it seek.
const N_HASHING: usize = 2;
/// Read at once of each part.
const PIECE_BYTES: usize = 1 << 20;
/// Folders in folders of an output; deeper ones are told and not looked into.
const MAX_DEPTH: usize = 64;
/// Files that the manifest does not list are named up to so many; a folder with a million of them is one mistake.
const MAX_FOREIGN: usize = 1000;

/// What a proof of an output found.
#[derive(Debug)]
pub struct Verified {
    /// What the output should be.
    pub manifest: Manifest,
    /// Whether it is one file; else a folder of parts.
    pub is_file: bool,
    /// The parts that are there byte by byte, and where each lies, in the manifest's order.
    pub intact: Vec<(ManifestPart, PathBuf)>,
    /// What is wrong, by name of the file. Empty: the output is what its manifest says.
    pub flaws: Vec<Flaw>,
}

/// One thing that is wrong with an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The file, as the manifest names it or would.
    pub name: String,
    /// What was found, and what was expected.
    pub found: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.found)
    }
}

/// Reads all parts of the output at `path`, a folder or one file, and compares them with its manifest: presence, size,
/// BLAKE3, that nothing else stands there, that the totals agree. What rows the bytes hold is not looked at. `None`: there
/// is no manifest, so no run of aqueduct has written this.
///
/// Blocks, for as long as reading the output takes; two parts are read at once, each in pieces of 1 MiB.
///
/// # Errors
/// - [`ErrorKind::Newer`]: a newer version wrote the manifest. [`ErrorKind::Conflict`]: another run replaced the output meanwhile,
///   so that nothing was proved.
/// - [`ErrorKind::Data`]: the manifest is damaged.
/// - As the system says, when folders cannot be listed. A part that cannot be read is a flaw.
pub fn verify(fs: &Arc<dyn Fs>, path: &Path) -> Result<Option<Verified>> {
    let disk = Disk(Arc::clone(fs));
    let Some((layout, manifest)) = find(&disk, path)? else { return Ok(None) };
    let mut flaws = wrong_totals(&layout, &manifest);
    let root = if layout.is_file { layout.parent().to_owned() } else { layout.path.clone() };
    let found = hash_all(&disk, &root, &manifest);
    if !layout.is_file {
        let mut foreign = Foreign { disk: &disk, manifest: &manifest, found: Vec::new(), n_more: 0 };
        foreign.look_in(&layout.path, "", 0)?;
        flaws.append(&mut foreign.into_flaws());
    }
    match find(&disk, path)? {
        Some((_, after)) if after == manifest => {}
        _ => {
            let message = "another run replaced the output while it was read; verify it again";
            return Err(
                Error::new(ErrorKind::Conflict, "verify", message).with("path", layout.path.display())
            );
        }
    }
    let mut intact = Vec::new();
    for (part, found) in manifest.parts.iter().zip(found) {
        match found {
            None => intact.push((part.clone(), root.join(&part.name))),
            Some(found) => flaws.push(Flaw { name: part.name.clone(), found }),
        }
    }
    flaws.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(Verified { manifest, is_file: layout.is_file, intact, flaws }))
}

/// The manifest of a path: the one in the folder, else the one beside the file.
fn find(disk: &Disk, path: &Path) -> Result<Option<(Layout, Manifest)>> {
    let failed = |error| Error::io("look at", path.display(), error);
    let named = match path.file_name() {
        Some(_) => path.to_owned(),
        None => path.canonicalize().map_err(failed)?,
    };
    for is_file in [false, true] {
        let layout = Layout::of(&Output { path: named.clone(), is_file, allow_empty: true, mode: None })?;
        if disk.exists(&layout.manifest())? {
            let manifest = Manifest::load(disk, &layout.manifest()).map_err(damaged_unless_newer)?;
            return Ok(manifest.map(|manifest| (layout, manifest)));
        }
    }
    Ok(None)
}

/// A manifest of another version is no damage.
fn damaged_unless_newer(error: Error) -> Error {
    if error.kind() != ErrorKind::Conflict {
        return error;
    }
    Error::new(ErrorKind::Data, "verify", "nothing can be proved without a whole manifest").with_source(error)
}

fn wrong_totals(layout: &Layout, manifest: &Manifest) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let mut flaw = |found: String| flaws.push(Flaw { name: layout.name.clone(), found });
    let n_rows = manifest.parts.iter().map(|part| part.rows).fold(0, u64::saturating_add);
    if n_rows != manifest.rows {
        flaw(format!("the manifest says {} rows in all, its parts have {n_rows}", manifest.rows));
    }
    for pair in manifest.parts.windows(2) {
        if let [one, other] = pair
            && one.name == other.name
        {
            flaw(format!("the manifest lists {} twice", one.name));
        }
    }
    if layout.is_file && manifest.parts.iter().any(|part| part.name != layout.name) {
        flaw("the manifest of this one file lists others".to_owned());
    }
    flaws
}

/// What is wrong with each part, in the manifest's order.
fn hash_all(disk: &Disk, root: &Path, manifest: &Manifest) -> Vec<Option<String>> {
    let waiting = Mutex::new(manifest.parts.iter().enumerate().collect::<VecDeque<_>>());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let hash = || {
        let mut piece = vec![0; PIECE_BYTES];
        let mut found = Vec::new();
        while let Some((at, part)) = next() {
            found.push((at, compare(disk, root, part, &mut piece).err()));
        }
        found
    };
    // A part that no thread has told of was not proved.
    let mut all: Vec<_> = manifest.parts.iter().map(|_| Some("it was not read".to_owned())).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..N_HASHING).map(|_| scope.spawn(hash)).collect();
        for (at, found) in threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()) {
            if let Some(place) = all.get_mut(at) {
                *place = found;
            }
        }
    });
    all
}

/// Compares one part with its line in the manifest.
///
/// # Errors
/// What is wrong with it.
fn compare(
    disk: &Disk,
    root: &Path,
    part: &ManifestPart,
    piece: &mut [u8],
) -> std::result::Result<(), String> {
    let stays_inside = |name: &str| {
        !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
    };
    if !stays_inside(&part.name) {
        return Err("the manifest's name for it leads out of the output".to_owned());
    }
    let path = root.join(&part.name);
    let unread = |error| format!("cannot be read: {error}");
    let is_in_store = disk.objects(&path).is_some();
    let n_bytes = if is_in_store { object_bytes(disk, &path).map_err(unread) } else { file_bytes(&path) };
    let n_bytes = n_bytes?;
    let n_bytes = n_bytes.ok_or_else(|| format!("missing; the manifest lists it with {} rows", part.rows))?;
    if n_bytes != part.bytes {
        return Err(format!("has {n_bytes} bytes, the manifest says {}", part.bytes));
    }
    let hash = if is_in_store { hash_object(disk, &path, n_bytes) } else { hash_file(&path, piece) };
    let hash = hash.map_err(unread)?;
    if hash != part.blake3 {
        return Err(format!(
            "its bytes were changed: their BLAKE3 is {hash}, the manifest says {}",
            part.blake3
        ));
    }
    Ok(())
}

/// How many bytes a file has; nothing, if there is none.
///
/// # Errors
/// Why it is not to be read.
fn file_bytes(path: &Path) -> std::result::Result<Option<u64>, String> {
    // Before it is opened: opening a pipe would wait for its writer.
    match std::fs::metadata(path) {
        Ok(there) if there.is_file() => Ok(Some(there.len())),
        Ok(_) => Err("no file any more; something else stands in its place".to_owned()),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

fn object_bytes(disk: &Disk, path: &Path) -> std::io::Result<Option<u64>> {
    Ok(disk.0.stat(path)?.filter(|there| !there.is_dir).map(|there| there.n_bytes))
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn hash_file(path: &Path, piece: &mut [u8]) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher: Box<blake3::Hasher> = Box::default();
    loop {
        match file.read(piece) {
            Ok(0) => return Ok(hasher.finalize().to_hex().to_string()),
            Ok(n) => {
                hasher.update(piece.get(..n).unwrap_or_default());
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Files in an output's folder that the manifest does not list.
struct Foreign<'a> {
    disk: &'a Disk,
    manifest: &'a Manifest,
    found: Vec<Flaw>,
    n_more: usize,
}

impl Foreign<'_> {
    fn look_in(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            self.add(prefix.to_owned(), "folders nest deeper than any that aqueduct writes".to_owned());
            return Ok(());
        }
        for entry in self.disk.list(folder)? {
            let last = entry.path.file_name().unwrap_or_default();
            let name = format!("{prefix}{}", last.to_string_lossy());
            match entry.is_dir {
                true => self.look_in(&entry.path, &format!("{name}/"), depth + 1)?,
                false if tells_of_data(&name) => {}
                // A name that is no text is none that aqueduct gave.
                false if last.to_str().is_some() && self.manifest.part(&name).is_some() => {}
                false => {
                    self.add(name, "the manifest does not list it; no run of aqueduct wrote it".to_owned())
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, name: String, found: String) {
        if self.found.len() < MAX_FOREIGN {
            self.found.push(Flaw { name, found });
        } else {
            self.n_more += 1;
        }
    }

    fn into_flaws(mut self) -> Vec<Flaw> {
        if self.n_more > 0 {
            let found = format!("{} more files that the manifest does not list", self.n_more);
            self.found.push(Flaw { name: "…".to_owned(), found });
        }
        self.found
    }
}
