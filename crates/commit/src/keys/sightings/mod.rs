//! Sightings: of each key when it was seen first and last, how often, and where.
//!
//! Nobody asks for one key while rows pass: whether it is new the [`KeyStore`](super::KeyStore) says. So there is nothing
//! to look up, and no filter. What was seen gathers by key in memory; when that is full, or at a commit, it becomes a *run*,
//! a file by key that is never changed. Runs of like size are merged, which adds their counts. Whoever reads all merges the
//! runs that a commit names, a block of each at a time.
//!
//! What is joined gives the same whichever is joined first, so a count is that of the rows that were committed, however
//! often a run was killed and gone on with.
//!
//! **Memory**: what it is given; beside it, while runs are merged or read, 34 KiB for each, of which there are as many as
//! the number of keys has binary digits, at most.
//!
//! **Commits**: as those of keys. [`Sightings::keep`] makes all durable and names the runs that hold it. Only what a
//! committed value names counts at the next opening, which removes the rest.

mod file;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Fs, Result};
use aqueduct_primitives::ByteCount;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::file::{Reader, RunName, Writer};
pub use self::record::Sighting;
use self::record::short;
use super::home::{Home, SIGHTINGS};
use super::{Commits, STAYS_APART};
use crate::disk::Disk;

/// The format written by this version. A newer one is refused, never guessed at.
const VERSION: u32 = 1;

/// What an entry takes beside its texts: nodes of the map are half full at worst.
const ENTRY_BYTES: usize = 128;

/// The sightings of keys, in this run and in earlier ones as far as they were committed.
///
/// After an error it is good for nothing but to be dropped. All calls block.
///
/// ```
/// # use std::sync::Arc;
/// # use aqueduct_commit::{Sightings, SightingsReader};
/// # use aqueduct_core::{Fs, StdFs};
/// # use aqueduct_primitives::ByteCount;
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let fs: Arc<dyn Fs> = Arc::new(StdFs);
/// # let (folder, memory) = (folder.path().join("keys"), ByteCount::mib(1));
/// let mut sightings = Sightings::open(&fs, folder.clone(), memory, None, None, None)?;
/// sightings.add("{\"id\":7}", 1_000_000, Some("https://host/feed"))?;
/// sightings.add("{\"id\":7}", 2_000_000, None)?;
/// let kept = sightings.keep()?;
/// // Once the value is committed:
/// let mut all = SightingsReader::open(&fs, folder, &kept)?;
/// let (key, sighting) = all.next().expect("one key")?;
/// assert_eq!((key.as_str(), sighting.count, sighting.last_seen), ("{\"id\":7}", 2, 2_000_000));
/// assert!(all.next().is_none());
/// # Ok::<(), aqueduct_core::Error>(())
/// ```
pub struct Sightings {
    home: Home,
    forget_after_days: Option<u16>,
    max_bytes: usize,
    /// The latest time that anybody told.
    now: i64,
    /// Since the last run was written, and about what that takes.
    fresh: BTreeMap<Box<str>, Sighting>,
    n_bytes: usize,
    /// The oldest, which is the largest, first.
    runs: Vec<RunName>,
    next_number: u64,
    commits: Commits,
    has_failed: bool,
}

/// The value that a commit keeps.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    forget_after_days: Option<u16>,
    /// The oldest first.
    sightings: Vec<RunName>,
}

/// Sightings that a committed value stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SightingsKept {
    /// How many there are of all keys.
    pub n_sightings: u64,
    /// Bytes of their files.
    pub n_bytes: u64,
    /// Their files, in the folder of the keys.
    pub files: Vec<String>,
}

impl SightingsKept {
    /// The sightings that a value stands for, or a field of it; nothing, if it has none.
    ///
    /// # Errors
    /// [`ErrorKind::Newer`]: a newer version wrote it.
    pub fn of(value: &Value) -> Result<Option<Self>> {
        let Some(kept) = Kept::within(value)? else { return Ok(None) };
        Ok(Some(Self {
            n_sightings: kept.sightings.iter().map(|run| run.sightings).sum(),
            n_bytes: kept.sightings.iter().map(|run| run.bytes).sum(),
            files: kept.sightings.into_iter().map(|run| run.name).collect(),
        }))
    }
}

impl Kept {
    /// The value, or the field of it, that is one of sightings.
    fn within(value: &Value) -> Result<Option<Self>> {
        let fields = value.as_object().into_iter().flat_map(|object| object.values());
        let is_of_sightings =
            |value: &&Value| ["format", "sightings"].iter().all(|key| value.get(key).is_some());
        let Some(kept) = std::iter::once(value).chain(fields).find(is_of_sightings) else { return Ok(None) };
        let format = kept.get("format").and_then(Value::as_u64).unwrap_or_default();
        if format > u64::from(VERSION) {
            let message = "written by a newer aqueduct; use that one";
            let error = Error::new(ErrorKind::Newer, "read sightings", message);
            return Err(error.with("version", format).with("known", VERSION));
        }
        Ok(Self::deserialize(kept).ok())
    }

    fn read(value: &Value) -> Result<Self> {
        Self::within(value)?.ok_or_else(|| {
            let message = "this names no sightings; forget them with `aqueduct run --full-refresh`";
            Error::new(ErrorKind::Conflict, "read sightings", message)
        })
    }
}

impl Sightings {
    /// The sightings as of a value that [`Sightings::keep`] gave and that was committed, or none. Files of the folder are
    /// removed that neither the value names nor `beside`, which may count again in its place.
    ///
    /// # Errors
    /// The value is of no sightings, or a newer version wrote it; a file of an earlier run is gone.
    pub fn open(
        fs: &Arc<dyn Fs>,
        folder: PathBuf,
        memory: ByteCount,
        forget_after_days: Option<u16>,
        kept: Option<&Value>,
        beside: Option<&Value>,
    ) -> Result<Self> {
        let runs = kept.map(Kept::read).transpose()?.map(|kept| kept.sightings).unwrap_or_default();
        let beside = beside.map(SightingsKept::of).transpose()?.flatten();
        let mut sightings = Self {
            home: Home::durable(Disk(Arc::clone(fs)), folder, SIGHTINGS),
            forget_after_days,
            max_bytes: memory.as_usize(),
            now: 0,
            fresh: BTreeMap::new(),
            n_bytes: 0,
            runs,
            next_number: 1,
            commits: Commits::default(),
            has_failed: false,
        };
        sightings.commits.beside = beside.into_iter().flat_map(|beside| beside.files).collect();
        sightings.look_around()?;
        Ok(sightings)
    }

    /// Removes what nobody names, and looks whether all is there that is named.
    fn look_around(&mut self) -> Result<()> {
        self.commits.committed = self.names();
        let there: BTreeSet<_> = self.home.names()?.into_iter().collect();
        for name in &there {
            let number = self.home.number(name).map_or(1, |n| n.saturating_add(1));
            self.next_number = self.next_number.max(number);
            if !self.commits.names(name) {
                self.home.remove(name)?;
            }
        }
        match self.runs.iter().find(|run| !there.contains(&run.name)) {
            Some(run) => Err(file::damaged(&self.home.path(&run.name))),
            None => Ok(()),
        }
    }

    /// One more row with a key, at a time in microseconds since 1970, from a place. A key or place of more than 1 KiB is
    /// known by its digest.
    ///
    /// # Errors
    /// A file cannot be read or written, or is damaged.
    pub fn add(&mut self, key: &str, at: i64, from: Option<&str>) -> Result<()> {
        self.now = self.now.max(at);
        let key = short(key);
        let fresh = Sighting::once(at, from);
        match self.fresh.get_mut(&*key) {
            Some(known) => {
                let before = known.weight();
                let joined = known.clone().then(fresh, self.forget_after_days);
                self.n_bytes = self.n_bytes.saturating_add(joined.weight()).saturating_sub(before);
                *known = joined;
            }
            None => {
                self.n_bytes += ENTRY_BYTES + key.len() + fresh.weight();
                self.fresh.insert(key.into(), fresh);
            }
        }
        if self.n_bytes < self.max_bytes { Ok(()) } else { self.guarded(Self::write_out) }
    }

    /// Makes all sightings durable, and gives the value that stands for them. It counts once it is committed: at the next
    /// opening, and from the next call on, before which the caller must have committed it.
    ///
    /// # Errors
    /// A file cannot be written, or is damaged.
    pub fn keep(&mut self) -> Result<Value> {
        self.guarded(|sightings| {
            if let Some(given) = sightings.commits.given.take() {
                sightings.commits.committed = given;
            }
            let replaced = std::mem::take(&mut sightings.commits.replaced);
            replaced.into_iter().try_for_each(|name| sightings.let_go(name))?;
            sightings.write_out()?;
            let names = sightings.names();
            if names != sightings.commits.committed {
                sightings.home.sync()?;
            }
            if sightings.commits.committed.is_empty() && !names.is_empty() {
                sightings.home.sync_above()?;
            }
            sightings.commits.given = Some(names);
            let forget_after_days = sightings.forget_after_days;
            let kept = Kept { format: VERSION, forget_after_days, sightings: sightings.runs.clone() };
            serde_json::to_value(kept).map_err(|error| {
                Error::bug("keep sightings", "the names of runs have no JSON").with_source(error)
            })
        })
    }

    fn names(&self) -> BTreeSet<String> {
        self.runs.iter().map(|run| run.name.clone()).collect()
    }

    /// Does something after which it is used no more, if it fails.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.has_failed {
            return Err(Error::bug("use sightings", "they are used after an error"));
        }
        self.has_failed = true;
        let done = work(self)?;
        self.has_failed = false;
        Ok(done)
    }

    /// Writes what is in memory as a run, and merges it with those that are not much larger.
    fn write_out(&mut self) -> Result<()> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let name = self.new_name();
        let mut writer = Writer::create(&self.home, name)?;
        while let Some((key, sighting)) = self.fresh.pop_first() {
            writer.push(&key, &sighting)?;
        }
        self.n_bytes = 0;
        self.runs.push(writer.end()?);
        self.merge_some()
    }

    fn merge_some(&mut self) -> Result<()> {
        let (mut n_merged, mut n_keys) = (0, 0_u64);
        for run in self.runs.iter().rev() {
            if n_merged > 0 && run.keys >= n_keys.saturating_mul(STAYS_APART) {
                break;
            }
            (n_merged, n_keys) = (n_merged + 1, n_keys.saturating_add(run.keys));
        }
        if n_merged < 2 {
            return Ok(());
        }
        let merged = self.runs.split_off(self.runs.len() - n_merged);
        let name = self.new_name();
        let mut writer = Writer::create(&self.home, name)?;
        for record in Merge::of(&self.home, &merged, self.forget_after_days)? {
            let (key, sighting) = record?;
            if !sighting.is_forgotten(self.now, self.forget_after_days) {
                writer.push(&key, &sighting)?;
            }
        }
        self.runs.push(writer.end()?);
        merged.into_iter().try_for_each(|run| self.let_go(run.name))
    }

    fn let_go(&mut self, name: String) -> Result<()> {
        match self.commits.names(&name) {
            true => self.commits.replaced.push(name),
            false => self.home.remove(&name)?,
        }
        Ok(())
    }

    fn new_name(&mut self) -> String {
        let n = self.next_number;
        self.next_number += 1;
        self.home.name(n)
    }
}

impl fmt::Debug for Sightings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sightings")
            .field("home", &self.home)
            .field("n_runs", &self.runs.len())
            .finish_non_exhaustive()
    }
}

/// The records of runs by key, those of one key joined. The oldest run comes first.
struct Merge {
    readers: Vec<Reader>,
    forget_after_days: Option<u16>,
}

impl Merge {
    fn of(home: &Home, runs: &[RunName], forget_after_days: Option<u16>) -> Result<Self> {
        let readers = runs.iter().map(|run| Reader::open(home, run)).collect::<Result<_>>()?;
        Ok(Self { readers, forget_after_days })
    }

    fn next_key(&mut self) -> Result<Option<(String, Sighting)>> {
        let heads = self.readers.iter().filter_map(|reader| reader.current.as_ref());
        let Some(least) = heads.map(|(key, _)| key).min().cloned() else { return Ok(None) };
        let mut joined: Option<Sighting> = None;
        for reader in &mut self.readers {
            let Some((_, sighting)) = reader.current.take_if(|(key, _)| *key == least) else { continue };
            joined = Some(match joined {
                Some(before) => before.then(sighting, self.forget_after_days),
                None => sighting,
            });
            reader.advance()?;
        }
        Ok(joined.map(|joined| (least, joined)))
    }
}

impl Iterator for Merge {
    type Item = Result<(String, Sighting)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_key().transpose()
    }
}

/// All sightings that a committed value stands for, by key. The first error is the last item.
///
/// Memory: a block of each run. It is read in the folder as a run of the flow has left it: whoever reads while one is under
/// way may find that a file is gone.
pub struct SightingsReader {
    merge: Option<Merge>,
}

impl SightingsReader {
    /// Those of a value, or of a field of it; none, if it has none.
    ///
    /// # Errors
    /// A newer version wrote it; a file is gone or damaged.
    pub fn open(fs: &Arc<dyn Fs>, folder: PathBuf, value: &Value) -> Result<Self> {
        let home = Home::durable(Disk(Arc::clone(fs)), folder, SIGHTINGS);
        let Some(kept) = Kept::within(value)? else { return Ok(Self { merge: None }) };
        Ok(Self { merge: Some(Merge::of(&home, &kept.sightings, kept.forget_after_days)?) })
    }
}

impl Iterator for SightingsReader {
    type Item = Result<(String, Sighting)>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.merge.as_mut()?.next();
        if next.as_ref().is_none_or(Result::is_err) {
            self.merge = None;
        }
        next
    }
}

impl fmt::Debug for SightingsReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SightingsReader").finish_non_exhaustive()
    }
}
