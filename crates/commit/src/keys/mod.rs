//! Keys that were seen: in this run, and in earlier ones as far as they were committed.

mod filter;
mod home;
mod layout;
mod memtable;
mod run;
mod sightings;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Fs, Result, Scratch, kill_point};
use aqueduct_primitives::ByteCount;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::filter::Filter;
use self::home::{Home, KEYS, SIGHTINGS};
use self::layout::{Entry, Layout, PAGE_BYTES};
use self::memtable::Memtable;
use self::run::{Pages, Run, RunName};
use self::write::{Writer, merge};
use crate::disk::Disk;

pub use self::sightings::{Sighting, Sightings, SightingsKept, SightingsReader};

/// The format written by this version. A newer one is refused, never guessed at.
const VERSION: u32 = 1;
/// A run stays by itself while it is so many times as large as what is to be merged with it. With less there are more runs
/// to look into, with more they are written more often.
const STAYS_APART: u64 = 2;
/// Keys are looked up so many at a time, at most. With more a look-up takes more memory, with fewer its reads lie further
/// apart.
const MOST_AT_ONCE: usize = 8192;
/// At most so many bytes are read or written at once.
const MOST_BUFFERED: u64 = 256 << 10;
/// With fewer a run would be written every few keys.
const LEAST_IN_MEMORY: usize = 16;

/// A set of keys, each known by a fingerprint of 128 bits, with the greatest version of each and the day it was seen last.
///
/// New keys gather in memory; when that is full they become a *run*, a sorted file that is never changed. Runs of like size
/// are merged, so there are few: as many as the number of keys has binary digits, at most. Keys are looked up in batches,
/// sorted, in one pass over each run behind a filter; at most one page of a run is read for a key. Where there is no room
/// for all filters, the largest are halved, and then left out.
///
/// **Memory**: half of it keys that are not written yet, three eighths filters, one eighth buffers; beside it one page for
/// each run, and one fence of 48 bytes for each 38,000 keys.
///
/// **Commits**: [`KeyStore::keep`] makes all keys durable and names the runs that hold them. Only what a committed value
/// names counts at the next [`KeyStore::open`], which removes the rest; a run that is named stays until a later value that
/// does not name it is committed. A set in scratch ends with the process.
///
/// After an error the set is good for nothing but to be dropped. All calls block.
///
/// ```
/// # use std::sync::Arc;
/// # use aqueduct_commit::{Keyed, KeyStore, KeysIn, Remembering};
/// # use aqueduct_core::{Fs, StdFs};
/// # use aqueduct_primitives::ByteCount;
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let open = |kept| {
/// #     let fs: Arc<dyn Fs> = Arc::new(StdFs);
/// let place = KeysIn::Folder(folder.path().join("keys"));
/// let how = Remembering { versioned: false, forget_after_days: None, memory: ByteCount::mib(8) };
/// let mut keys = KeyStore::open(&fs, place, how, kept)?;
/// #     Ok::<_, aqueduct_core::Error>(keys)
/// # };
/// # let mut keys = open(None)?;
/// let rows = [7, 8, 7].map(|key| Keyed { key, version: 0 });
/// assert_eq!(keys.admit(&rows, 20_000)?, [true, true, false]);
/// let kept = keys.keep()?;
/// # drop(keys);
/// // Once the value is committed, a later run goes on from there.
/// # let mut keys = open(Some(&kept))?;
/// assert_eq!(keys.admit(&[Keyed { key: 8, version: 0 }], 20_000)?, [false]);
/// # Ok::<(), aqueduct_core::Error>(())
/// ```
pub struct KeyStore {
    home: Home,
    layout: Layout,
    how: Remembering,
    plan: Plan,
    memtable: Memtable,
    /// The oldest, which is the largest, first.
    runs: Vec<Run>,
    next_number: u64,
    /// The latest day that anybody told.
    today: u16,
    commits: Commits,
    pages: Pages,
    has_failed: bool,
    stats: KeyStats,
}

/// How keys are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembering {
    /// Whether keys have versions. The same in all runs.
    pub versioned: bool,
    /// Keys that were not seen for more than so many days are forgotten.
    pub forget_after_days: Option<u16>,
    /// The memory to work in.
    pub memory: ByteCount,
}

/// Where keys are remembered.
#[derive(Debug)]
pub enum KeysIn {
    /// In a folder that nobody else writes to, from run to run.
    Folder(PathBuf),
    /// In files without a name, until the set is dropped.
    Scratch(Scratch),
}

/// The key of a row, and its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// Bits of a good hash: keys with the same bits are the same.
    pub key: u128,
    /// Compared as a number; of no account where keys have no versions.
    pub version: u128,
}

/// What a [`KeyStore`] has done to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyStats {
    /// Bytes written, merges among them.
    pub written_bytes: u64,
    /// Times that runs were merged.
    pub n_merges: u64,
}

/// What the memory is for.
#[derive(Clone, Copy, Debug)]
struct Plan {
    keys_in_memory: usize,
    filter_bytes: u64,
    buffer_bytes: u64,
    at_once: usize,
}

impl Plan {
    fn of(memory: ByteCount, layout: Layout) -> Self {
        let bytes = memory.get();
        let keys_in_memory = bytes / 2 / Memtable::bytes_an_entry(layout) as u64;
        let keys_in_memory = usize::try_from(keys_in_memory).unwrap_or(usize::MAX).max(LEAST_IN_MEMORY);
        Self {
            keys_in_memory,
            filter_bytes: bytes / 8 * 3,
            buffer_bytes: bytes / 8,
            at_once: MOST_AT_ONCE.min(keys_in_memory),
        }
    }

    /// How many bytes each of some files may buffer.
    fn each_of(&self, n_files: usize) -> usize {
        let each = (self.buffer_bytes / n_files.max(1) as u64).min(MOST_BUFFERED);
        usize::try_from(each).unwrap_or_default()
    }
}

/// Which files commits name.
#[derive(Debug, Default)]
struct Commits {
    /// Those of the last value that is known to be committed.
    committed: BTreeSet<String>,
    /// Those of the last value that was given, committed or not.
    given: Option<BTreeSet<String>>,
    /// Those of a value that may count again.
    beside: BTreeSet<String>,
    /// Those that nobody reads any more, and that one of the three may name.
    replaced: Vec<String>,
}

impl Commits {
    fn names(&self, name: &str) -> bool {
        let is_given = self.given.as_ref().is_some_and(|given| given.contains(name));
        is_given || self.committed.contains(name) || self.beside.contains(name)
    }
}

/// The value that a commit keeps.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    versioned: bool,
    /// The oldest first.
    runs: Vec<RunName>,
}

/// Whether a file is one that keys or sightings are kept in, by its name.
pub(crate) fn is_keys_file(name: &str) -> bool {
    KEYS.number(name).or_else(|| SIGHTINGS.number(name)).is_some()
}

/// Keys that a committed value stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysKept {
    /// How many, those that were seen again and again more than once.
    pub n_keys: u64,
    /// Bytes of their files.
    pub n_bytes: u64,
    /// Their files, in the folder of the keys.
    pub files: Vec<String>,
}

impl KeysKept {
    /// The keys that a value stands for, or a field of it; nothing, if it is a value of another kind.
    ///
    /// # Errors
    /// [`ErrorKind::Newer`]: a newer version wrote it.
    pub fn of(value: &Value) -> Result<Option<Self>> {
        let fields = value.as_object().into_iter().flat_map(|object| object.values());
        let is_of_keys =
            |value: &&Value| ["format", "versioned", "runs"].iter().all(|key| value.get(key).is_some());
        let Some(kept) = std::iter::once(value).chain(fields).find(is_of_keys) else { return Ok(None) };
        let format = kept.get("format").and_then(Value::as_u64).unwrap_or_default();
        if format > u64::from(VERSION) {
            let error =
                Error::new(ErrorKind::Newer, "read seen keys", "written by a newer aqueduct; use that one");
            return Err(error.with("version", format).with("known", VERSION));
        }
        let Ok(kept) = Kept::deserialize(kept) else { return Ok(None) };
        Ok(Some(Self {
            n_keys: kept.runs.iter().map(|run| run.keys).sum(),
            n_bytes: kept.runs.iter().map(|run| run.bytes).sum(),
            files: kept.runs.into_iter().map(|run| run.name).collect(),
        }))
    }
}

/// A value without what a newer version may have changed.
#[derive(Deserialize)]
struct Header {
    format: u32,
}

impl KeyStore {
    /// The keys as of a value that [`KeyStore::keep`] gave and that was committed, or none. Files of the folder that the
    /// value does not name are leftovers, and are removed.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: a file is gone or damaged, by its name; a newer version wrote it; keys were kept with
    /// versions and are asked for without, or the other way round.
    pub fn open(fs: &Arc<dyn Fs>, place: KeysIn, how: Remembering, kept: Option<&Value>) -> Result<Self> {
        Self::open_beside(fs, place, how, kept, None)
    }

    /// [`KeyStore::open`] beside another value, which may count again in the place of this one: the files stay that it names,
    /// or a field of it.
    ///
    /// # Errors
    /// As [`KeyStore::open`].
    pub fn open_beside(
        fs: &Arc<dyn Fs>,
        place: KeysIn,
        how: Remembering,
        kept: Option<&Value>,
        beside: Option<&Value>,
    ) -> Result<Self> {
        let disk = Disk(Arc::clone(fs));
        let home = match place {
            KeysIn::Folder(folder) => Home::durable(disk, folder, KEYS),
            KeysIn::Scratch(scratch) => Home::scratch(disk, scratch),
        };
        let layout = Layout { versioned: how.versioned };
        let plan = Plan::of(how.memory, layout);
        let mut store = Self {
            home,
            layout,
            how,
            plan,
            memtable: Memtable::new(layout, plan.keys_in_memory),
            runs: Vec::new(),
            next_number: 1,
            today: 0,
            commits: Commits::default(),
            pages: Pages::new(),
            has_failed: false,
            stats: KeyStats::default(),
        };
        let beside = beside.map(KeysKept::of).transpose()?.flatten();
        store.commits.beside = beside.into_iter().flat_map(|beside| beside.files).collect();
        store.open_runs(kept.map(|kept| Kept::read(kept, how)).transpose()?.unwrap_or_default())?;
        Ok(store)
    }

    fn open_runs(&mut self, names: Vec<RunName>) -> Result<()> {
        self.commits.committed = names.iter().map(|run| run.name.clone()).collect();
        for name in self.home.names()? {
            self.next_number =
                self.next_number.max(self.home.number(&name).map_or(1, |n| n.saturating_add(1)));
            if !self.commits.names(&name) {
                self.home.remove(&name)?;
                kill_point("recovery.keys.removed");
            }
        }
        // The newest is the smallest: its filter comes first.
        let mut room = self.plan.filter_bytes;
        for name in names.into_iter().rev() {
            let path = self.home.path(&name.name);
            let run = Run::open(self.home.fs(), path, name, self.layout, room)?;
            room -= run.filter_bytes();
            self.runs.insert(0, run);
        }
        Ok(())
    }

    /// Of some rows in the order of their arrival, which pass: those whose key was not seen before, or whose version is
    /// greater than the greatest that was seen. All of them are seen then. `today` counts days since 1970.
    ///
    /// # Errors
    /// A file cannot be read or written, or is damaged.
    pub fn admit(&mut self, rows: &[Keyed], today: u16) -> Result<Vec<bool>> {
        self.guarded(|store| {
            store.today = store.today.max(today);
            let mut passes = Vec::with_capacity(rows.len());
            for rows in rows.chunks(store.plan.at_once) {
                store.admit_some(rows, &mut passes)?;
            }
            Ok(passes)
        })
    }

    /// Of each key the greatest version that was seen, if it was. Nothing is seen by being asked for, and keys that were not
    /// seen for long are not forgotten by it.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged.
    pub fn known(&mut self, keys: &[u128]) -> Result<Vec<Option<u128>>> {
        self.guarded(|store| {
            let mut versions = Vec::with_capacity(keys.len());
            for keys in keys.chunks(store.plan.at_once) {
                let rows: Vec<_> = keys.iter().map(|key| Keyed { key: *key, version: 0 }).collect();
                let found = store.look_up(&rows)?;
                let known = keys.iter().map(|key| store.known_of(*key, &found));
                versions.extend(known.map(|entry| entry.map(|entry| entry.version)));
            }
            Ok(versions)
        })
    }

    /// Makes all keys durable, and gives the value that stands for them. It counts once it is committed: at the next
    /// opening, and from the next call on, before which the caller must have committed it.
    ///
    /// # Errors
    /// A file cannot be written, or is damaged.
    pub fn keep(&mut self) -> Result<Value> {
        self.guarded(|store| {
            if let Some(given) = store.commits.given.take() {
                store.commits.committed = given;
            }
            store.remove_replaced()?;
            if store.memtable.len() > 0 {
                store.write_out()?;
            }
            let names: BTreeSet<_> = store.runs.iter().map(|run| run.name.name.clone()).collect();
            if names != store.commits.committed {
                store.home.sync()?;
            }
            if store.commits.committed.is_empty() && !names.is_empty() {
                store.home.sync_above()?;
            }
            store.commits.given = Some(names);
            let runs = store.runs.iter().map(|run| run.name.clone()).collect();
            let kept = Kept { format: VERSION, versioned: store.layout.versioned, runs };
            serde_json::to_value(kept).map_err(|error| {
                Error::bug("keep seen keys", "the names of runs have no JSON").with_source(error)
            })
        })
    }

    /// What was done to the disk so far.
    pub fn stats(&self) -> KeyStats {
        self.stats
    }

    /// Does something after which the set is used no more, if it fails.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.has_failed {
            return Err(Error::bug("use seen keys", "they are used after an error"));
        }
        self.has_failed = true;
        let done = work(self)?;
        self.has_failed = false;
        Ok(done)
    }

    fn admit_some(&mut self, rows: &[Keyed], passes: &mut Vec<bool>) -> Result<()> {
        if self.memtable.len() + rows.len() > self.memtable.capacity() {
            self.write_out()?;
        }
        let found = self.look_up(rows)?;
        for row in rows {
            let known = self.known_of(row.key, &found);
            let is_new = known.is_none_or(|known| self.layout.versioned && row.version > known.version);
            let version = if is_new { row.version } else { known.map_or(0, |known| known.version) };
            let is_older = known.is_some_and(|known| known.day < self.today);
            if is_new || is_older && self.how.forget_after_days.is_some() {
                self.memtable.put(Entry { key: row.key, version, day: self.today });
            }
            passes.push(is_new);
        }
        Ok(())
    }

    /// What is known of a key, in memory or of what was found in runs.
    fn known_of(&self, key: u128, found: &[Entry]) -> Option<Entry> {
        let in_run = |key| found.binary_search_by_key(&key, |entry: &Entry| entry.key).ok();
        let known = self.memtable.get(key).or_else(|| found.get(in_run(key)?).copied());
        known.filter(|entry| !self.is_forgotten(entry.day))
    }

    /// What runs know of the keys that are not in memory, by key. What a newer run knows of a key is what counts.
    fn look_up(&mut self, rows: &[Keyed]) -> Result<Vec<Entry>> {
        let mut found = Vec::new();
        if self.runs.is_empty() {
            return Ok(found);
        }
        let keys = rows.iter().map(|row| row.key).filter(|key| self.memtable.get(*key).is_none());
        let mut keys: Vec<_> = keys.collect();
        keys.sort_unstable();
        keys.dedup();
        for run in self.runs.iter().rev() {
            run.find(&mut keys, &mut self.pages, &mut found)?;
        }
        found.sort_unstable_by_key(|entry| entry.key);
        Ok(found)
    }

    fn is_forgotten(&self, day: u16) -> bool {
        self.how.forget_after_days.is_some_and(|days| self.today.saturating_sub(day) > days)
    }

    /// Writes the keys that are in memory as a run, and merges it with those that are not much larger.
    fn write_out(&mut self) -> Result<()> {
        let n_keys = self.memtable.len() as u64;
        let filter = self.room_for_filter(n_keys);
        let name = self.new_name();
        let buffer = self.plan.each_of(1);
        let mut writer = Writer::create(&self.home, name, self.layout, filter, buffer)?;
        self.memtable.drain(|entry| writer.push(entry))?;
        let run = writer.end()?;
        self.add(run);
        self.merge_some()
    }

    fn merge_some(&mut self) -> Result<()> {
        let (mut n_merged, mut n_keys) = (0, 0_u64);
        for run in self.runs.iter().rev() {
            if n_merged > 0 && run.name.keys >= n_keys.saturating_mul(STAYS_APART) {
                break;
            }
            (n_merged, n_keys) = (n_merged + 1, n_keys.saturating_add(run.name.keys));
        }
        if n_merged < 2 {
            return Ok(());
        }
        let mut merged = self.runs.split_off(self.runs.len() - n_merged);
        // The filter of the merged run takes their place.
        merged.iter_mut().for_each(|run| run.filter = None);
        let filter = self.room_for_filter(n_keys);
        let name = self.new_name();
        let each = self.plan.each_of(n_merged + 1);
        let mut writer = Writer::create(&self.home, name, self.layout, filter, each)?;
        merge(&merged, each / PAGE_BYTES, |entry| match self.is_forgotten(entry.day) {
            true => Ok(()),
            false => writer.push(entry),
        })?;
        let run = writer.end()?;
        self.add(run);
        self.stats.n_merges += 1;
        kill_point("keys.run.merged");
        merged.into_iter().try_for_each(|run| self.let_go(run.name.name))
    }

    fn add(&mut self, run: Run) {
        self.stats.written_bytes += run.name.bytes;
        self.runs.push(run);
    }

    /// A run that is read no more: removed, unless a commit may name it.
    fn let_go(&mut self, name: String) -> Result<()> {
        match self.commits.names(&name) {
            true => self.commits.replaced.push(name),
            false => self.home.remove(&name)?,
        }
        Ok(())
    }

    fn remove_replaced(&mut self) -> Result<()> {
        let replaced = std::mem::take(&mut self.commits.replaced);
        replaced.into_iter().try_for_each(|name| self.let_go(name))
    }

    fn new_name(&mut self) -> String {
        let n = self.next_number;
        self.next_number += 1;
        self.home.name(n)
    }

    /// A filter for a run of so many keys that is smaller than the others: where there is no room, those of the largest are
    /// made smaller, for a filter of many keys says less often no for its bytes.
    fn room_for_filter(&mut self, n_keys: u64) -> Option<Filter> {
        let wanted = Filter::best_bytes(n_keys).min(self.plan.filter_bytes);
        for at in 0..self.runs.len() {
            while self.filter_room() < wanted && self.runs.get(at).is_some_and(|run| run.filter.is_some()) {
                let Some(run) = self.runs.get_mut(at) else { break };
                run.filter = run.filter.take().and_then(Filter::folded);
            }
        }
        Filter::new(n_keys, self.filter_room())
    }

    fn filter_room(&self) -> u64 {
        let taken: u64 = self.runs.iter().map(Run::filter_bytes).sum();
        self.plan.filter_bytes.saturating_sub(taken)
    }
}

impl Kept {
    /// The runs that a value names.
    fn read(kept: &Value, how: Remembering) -> Result<Vec<RunName>> {
        let refused = |message| Error::new(ErrorKind::Conflict, "read seen keys", message);
        let unknown = |error| {
            refused("this names no seen keys; forget them with `aqueduct run --full-refresh`")
                .with_source(error)
        };
        let header = Header::deserialize(kept).map_err(unknown)?;
        if header.format > VERSION {
            let error = refused("written by a newer aqueduct; use that one");
            return Err(error.with("version", header.format).with("known", VERSION));
        }
        let kept = Self::deserialize(kept).map_err(unknown)?;
        if kept.versioned != how.versioned {
            let message = "keys were kept with versions by earlier runs, and are now asked for without, or the other way \
                           round; leave the option as it was, or forget them with `aqueduct run --full-refresh`";
            return Err(refused(message).with("with_versions", kept.versioned));
        }
        Ok(kept.runs)
    }
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore")
            .field("home", &self.home)
            .field("n_runs", &self.runs.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
