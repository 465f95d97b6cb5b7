//! Which files are committed: by earlier runs, and by this one as far as their rows are. For sources that read each file once.
//!
//! A commit keeps them with the rows that came of them: keys of 128 bits in a [`KeyStore`], however many there are, and the
//! few files of which some rows are committed and some are not. So they are right whatever becomes of the run.

use std::collections::{BTreeMap, BTreeSet};
use std::num::ParseIntError;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aqueduct_commit::{KeyStore, Keyed, KeysIn, Remembering};
use aqueduct_core::{Context, Durable, Error, ErrorKind, Result};
use aqueduct_formats::ReadOptions;
use aqueduct_net::{Location, Validator};
use aqueduct_primitives::{ByteCount, Reservation, Tasks};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gaps::Gaps;
use super::input::{Input, Note};
use super::progress::Partial;

/// What is kept has this form. A newer one is refused, never guessed at.
const FORMAT: u32 = 1;
/// With less, keys would be written to disk every few thousand files.
const MIN_MEMORY: ByteCount = ByteCount::mib(1);
/// With more, ten million files are looked up no faster.
const MAX_MEMORY: ByteCount = ByteCount::mib(8);
/// Of the step's share, one part in so many is for keys.
const PART_OF_SHARE: u64 = 8;
/// So many files that are done wait for the next look into the keys. More would take memory that nobody counts.
const MAX_WAITING: usize = 1024;
/// At most so many files may be committed in part: each stands in every commit.
const MAX_OPEN: usize = 1000;

/// By what a file is known again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// By its name and its version: the ETag of a URL or an object, else the time of its last change and its length. A file
    /// that changed is read again, all of it. A place that tells neither ETag nor time is an error.
    #[default]
    Modified,
    /// By its name alone: its path from the flow's folder, or its URL without secrets. Whatever becomes of it later, it is
    /// not read again.
    Name,
    /// By its bytes (BLAKE3): a file that was touched, renamed or copied is not read again. Each file is read once more to be
    /// hashed, in every run; of a URL or an object that is left out while its ETag, if that is a strong one, is a committed one.
    Content,
}

/// Reading only what no earlier run has committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnlyNew {
    /// By what files are known again.
    pub(crate) by: By,
    /// How long what is missing is asked for again, where a list says what should be there.
    pub(crate) retry_gaps: Option<Duration>,
}

impl By {
    fn word(self) -> &'static str {
        match self {
            Self::Modified => "modified",
            Self::Name => "name",
            Self::Content => "content",
        }
    }
}

/// The part of a share that is for keys.
pub(crate) fn memory_of_keys(share: ByteCount) -> ByteCount {
    ByteCount::new(share.get() / PART_OF_SHARE).clamp(MIN_MEMORY, MAX_MEMORY)
}

/// The least memory for keys, and the most.
pub(crate) fn need_of_keys() -> (ByteCount, ByteCount) {
    (MIN_MEMORY, MAX_MEMORY)
}

/// The files that are committed, or will be with the next commit. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Seen {
    keys: Arc<Mutex<Remembered>>,
    given: Arc<Mutex<Given>>,
    by: By,
    reading: String,
    retry_gaps: Option<Duration>,
    base_dir: PathBuf,
    tasks: Tasks,
}

/// The keys, and the memory that they are in.
struct Remembered {
    store: KeyStore,
    _memory: Reservation,
}

/// What was given since the keys were looked into, and what of it is not whole.
#[derive(Default)]
struct Given {
    waiting: Vec<Keyed>,
    open: BTreeMap<Key, Begun>,
    reach: Option<Reach>,
}

/// What a file or a version of it is known by. In JSON 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Key(pub(super) u128);

impl From<Key> for String {
    fn from(Key(key): Key) -> Self {
        format!("{key:032x}")
    }
}

impl TryFrom<String> for Key {
    type Error = ParseIntError;

    fn try_from(text: String) -> Result<Self, ParseIntError> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

/// From where on, and how far, files of a list without end are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reach {
    /// As the flow says from where on.
    pub(crate) from: String,
    /// What that meant in the first run, in seconds since 1970: what the clock says later changes nothing.
    pub(crate) first: i64,
    /// The newest that there was.
    pub(crate) newest: u64,
}

/// A file of which some rows are committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// As it is shown.
    pub(crate) file: String,
    #[serde(flatten)]
    pub(crate) upto: Partial,
}

/// The value that a commit keeps.
#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    by: By,
    /// What decides which row is which; places within files mean nothing under another.
    reading: String,
    seen: Value,
    #[serde(default)]
    open: BTreeMap<Key, Begun>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reach: Option<Reach>,
}

/// A value without what a newer version may have changed.
#[derive(Deserialize)]
struct Header {
    format: u32,
}

/// How a file ended that will not be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All of it was given.
    Whole,
    /// It is bad, as far as this version of it goes.
    Bad,
}

impl Seen {
    /// What the last commit kept.
    ///
    /// # Errors
    /// Earlier runs knew files by something else; what was kept is damaged, or of a newer version.
    pub(crate) async fn open(
        cx: &Context,
        durable: &Durable,
        only_new: OnlyNew,
        options: &ReadOptions,
    ) -> Result<Self> {
        let OnlyNew { by, retry_gaps } = only_new;
        let reading = reading(options);
        let kept = durable.kept().map(|value| Kept::read(value, by)).transpose()?;
        let open = kept.as_ref().map(|kept| kept.open_files(&reading)).unwrap_or_default();
        let reach = kept.as_ref().and_then(|kept| kept.reach.clone());
        let memory = memory_of_keys(cx.share().total());
        let reservation = cx.share().reserve(memory).await?;
        let how = Remembering { versioned: true, forget_after_days: None, memory };
        let (fs, folder, seen) = (Arc::clone(cx.fs()), durable.dir().clone(), kept.map(|kept| kept.seen));
        let beside = durable.fallback().cloned();
        let opening = cx.tasks().block(move || {
            KeyStore::open_beside(&fs, KeysIn::Folder(folder), how, seen.as_ref(), beside.as_ref())
        });
        let remembered = Remembered { store: opening.await??, _memory: reservation };
        Ok(Self {
            keys: Arc::new(Mutex::new(remembered)),
            given: Arc::new(Mutex::new(Given { waiting: Vec::new(), open, reach })),
            by,
            reading,
            retry_gaps,
            base_dir: absolute(cx.base_dir()),
            tasks: cx.tasks().clone(),
        })
    }

    pub(crate) fn by(&self) -> By {
        self.by
    }

    /// Which of these keys are committed; what this run has given counts only as it has been written down.
    pub(crate) async fn are_known(&self, keys: Vec<Key>) -> Result<Vec<bool>> {
        Ok(self.versions(keys).await?.into_iter().map(|version| version.is_some()).collect())
    }

    /// Since when these are missing, if they are.
    pub(crate) async fn since(&self, keys: Vec<Key>) -> Result<Vec<Option<u64>>> {
        let since = |version| u64::try_from(version).unwrap_or(u64::MAX);
        Ok(self.versions(keys).await?.into_iter().map(|version| version.map(since)).collect())
    }

    async fn versions(&self, keys: Vec<Key>) -> Result<Vec<Option<u128>>> {
        let keys: Vec<_> = keys.into_iter().map(|Key(key)| key).collect();
        self.with_keys(move |store| store.known(&keys)).await
    }

    /// Remembers since when something is missing. There is [room](Self::make_room) for it.
    pub(crate) fn note(&self, Note { key: Key(key), since }: Note) {
        self.given().waiting.push(Keyed { key, version: since.into() });
    }

    /// From where on, and how far, the last committed run looked for files of a list without end.
    pub(crate) fn reach(&self) -> Option<Reach> {
        self.given().reach.clone()
    }

    /// From where on, and how far, this run looks.
    pub(crate) fn set_reach(&self, reach: Reach) {
        self.given().reach = Some(reach);
    }

    /// How long what is missing is asked for again, if it is.
    pub(crate) fn gaps(&self) -> Option<Gaps> {
        let retry_seconds = self.retry_gaps?.as_secs();
        Some(Gaps { newest: self.reach()?.newest, retry_seconds })
    }

    /// How far a file is committed that is not committed whole.
    pub(crate) fn begun(&self, input: &Input) -> Option<Begun> {
        self.given().open.get(&self.name(input)).cloned()
    }

    /// Those of which some rows are committed and that nobody has met are not there any more; what is committed of them stays
    /// as it is.
    pub(crate) fn forget_begun(&self, met: &BTreeSet<Key>) -> Vec<Begun> {
        let mut given = self.given();
        let gone: Vec<_> = given.open.keys().filter(|key| !met.contains(*key)).copied().collect();
        gone.iter().filter_map(|key| given.open.remove(key)).collect()
    }

    /// A file was given up to here, in the batch that is given next.
    ///
    /// # Errors
    /// Too many files are given in part.
    pub(crate) fn give(&self, input: &Input, rows: u64, is: &Validator) -> Result<()> {
        let key = self.name(input);
        let mut given = self.given();
        if given.open.len() >= MAX_OPEN && !given.open.contains_key(&key) {
            let message =
                "so many files were given up half-way that they cannot be told apart; see what was rejected";
            return Err(Error::new(ErrorKind::Limit, "read", message).with("limit", MAX_OPEN));
        }
        let upto = Partial { rows, is: is.clone() };
        given.open.insert(key, Begun { file: input.name.to_string(), upto });
        Ok(())
    }

    /// Makes room for the next file that ends.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn make_room(&self) -> Result<()> {
        if self.given().waiting.len() < MAX_WAITING {
            return Ok(());
        }
        let given = Arc::clone(&self.given);
        self.with_keys(move |store| take_in(store, &given)).await
    }

    /// A file has ended, with the batch that is given next. `read` is the version that was read.
    pub(crate) fn end(&self, input: &Input, read: &Validator, ended: Ended) {
        let mut given = self.given();
        let is_begun = given.open.remove(&self.name(input)).is_some();
        let keys = self.keys_of(input, read, ended, is_begun);
        given.waiting.extend(keys.into_iter().map(|Key(key)| Keyed { key, version: 0 }));
    }

    /// What a file is known by from now on.
    fn keys_of(&self, input: &Input, read: &Validator, ended: Ended, is_begun: bool) -> Vec<Key> {
        // What was looked at is what the next run will look at, unless the file has changed in between.
        let is_other = input.listed.is_empty() || input.listed.has_become_another(read);
        let version = if is_other && !read.is_empty() { read } else { &input.listed };
        let versioned = self.version(input, version);
        match (self.by, ended, versioned) {
            (By::Name, Ended::Bad, Some(versioned)) => vec![self.bad(input), versioned],
            // No version tells when it is good: what came of it must not come again, and if nothing came it is tried again.
            (By::Name, Ended::Bad, None) if !is_begun => Vec::new(),
            (By::Name, ..) => vec![self.name(input)],
            (By::Modified, _, versioned) => versioned.into_iter().collect(),
            (By::Content, ..) => {
                let digest = input.digest.as_deref().map(content);
                digest.into_iter().chain(self.strong(input, version)).collect()
            }
        }
    }

    /// Makes durable what was given, and gives the value to commit.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn keep(&self) -> Result<Value> {
        let (given, by, reading) = (Arc::clone(&self.given), self.by, self.reading.clone());
        self.with_keys(move |store| {
            take_in(store, &given)?;
            let seen = store.keep()?;
            let (open, reach) = {
                let given = lock(&given);
                (given.open.clone(), given.reach.clone())
            };
            let kept = Kept { format: FORMAT, by, reading, seen, open, reach };
            serde_json::to_value(kept)
                .map_err(|error| Error::bug("keep files", "they have no JSON").with_source(error))
        })
        .await
    }

    /// The key of a file's name.
    pub(crate) fn name(&self, input: &Input) -> Key {
        key(Kind::Name, &[&self.name_bytes(&input.location)])
    }

    /// The key of a file whose name is all that is known by, and that was bad.
    pub(crate) fn bad(&self, input: &Input) -> Key {
        key(Kind::Bad, &[&self.name_bytes(&input.location)])
    }

    /// The key of a version of a file, if the version has a name.
    pub(crate) fn version(&self, input: &Input, is: &Validator) -> Option<Key> {
        Some(key(Kind::Version, &[&self.name_bytes(&input.location), is.name()?.as_bytes()]))
    }

    /// The key of a version that is the same bytes wherever its ETag is the same.
    pub(crate) fn strong(&self, input: &Input, is: &Validator) -> Option<Key> {
        Some(key(Kind::Strong, &[&self.name_bytes(&input.location), is.strong_etag()?.as_bytes()]))
    }

    /// The key of a file that no list names.
    pub(crate) fn unlisted(&self, input: &Input) -> Key {
        key(Kind::Unlisted, &[&self.name_bytes(&input.location)])
    }

    /// The key of a file that a list names and that is not there.
    pub(crate) fn gone(&self, input: &Input) -> Key {
        key(Kind::Gone, &[&self.name_bytes(&input.location)])
    }

    /// A name that stays the same wherever the flow is started from, and wherever its folder is moved with all that is in it.
    fn name_bytes(&self, location: &Location) -> Vec<u8> {
        let Location::Local(path) = location else { return location.to_string().into_bytes() };
        let path = absolute(path);
        path.strip_prefix(&self.base_dir).unwrap_or(&path).as_os_str().as_bytes().to_vec()
    }

    /// Does something with the keys, on a thread that may block.
    async fn with_keys<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut KeyStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let keys = Arc::clone(&self.keys);
        let done = self.tasks.block(move || {
            // After a panic the store says that it has failed.
            let mut remembered = keys.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut remembered.store)
        });
        done.await?
    }

    fn given(&self) -> MutexGuard<'_, Given> {
        lock(&self.given)
    }
}

fn lock(given: &Mutex<Given>) -> MutexGuard<'_, Given> {
    given.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whoever has the keys takes in what waits: so no commit misses what another is about to take in.
fn take_in(store: &mut KeyStore, given: &Mutex<Given>) -> Result<()> {
    let waiting = std::mem::take(&mut lock(given).waiting);
    store.admit(&waiting, 0).map(drop)
}

/// Symbolic links are left as they are; without a working directory, the path is as good a name as any.
fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The key of some bytes, wherever they are.
pub(crate) fn content(digest: &str) -> Key {
    key(Kind::Content, &[digest.as_bytes()])
}

/// What a key is of. Never changed, for keys are kept from run to run.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Name = 0,
    Version = 1,
    Content = 2,
    Strong = 3,
    Bad = 4,
    Unlisted = 5,
    Gone = 6,
}

/// The first half of the BLAKE3 of the kind and the parts, each with its length before it.
fn key(kind: Kind, parts: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind as u8]);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut half = [0; 16];
    hasher.finalize_xof().fill(&mut half);
    Key(u128::from_le_bytes(half))
}

/// What decides which row of a file is which.
fn reading(options: &ReadOptions) -> String {
    let ReadOptions { format, compression, csv, records, .. } = options;
    let told = format!("{format:?} {compression:?} {csv:?} {records:?}");
    blake3::hash(told.as_bytes()).to_hex().to_string()
}

impl Kept {
    fn read(value: &Value, by: By) -> Result<Self> {
        let refused = |message| Error::new(ErrorKind::Conflict, "read committed files", message);
        let unknown = |error| {
            let message =
                "what was kept names no committed files; forget them with `aqueduct run --full-refresh`";
            refused(message).with_source(error)
        };
        let header = Header::deserialize(value).map_err(unknown)?;
        if header.format > FORMAT {
            let message = "what was kept was written by a newer aqueduct; use that one";
            let error = Error::new(ErrorKind::Newer, "read committed files", message);
            return Err(error.with("version", header.format).with("known", FORMAT));
        }
        let kept = Self::deserialize(value).map_err(unknown)?;
        if kept.by == by {
            return Ok(kept);
        }
        let message = "earlier runs knew files by something else, which does not tell what is new; leave `incremental.by` as \
                       it was, or forget all files with `aqueduct run --full-refresh`";
        Err(refused(message).with("before", kept.by.word()).with("now", by.word()))
    }

    /// The files that were committed in part. Under another reading none of their rows can be found again.
    fn open_files(&self, reading: &str) -> BTreeMap<Key, Begun> {
        let mut open = self.open.clone();
        if self.reading != reading {
            open.values_mut().for_each(|begun| begun.upto.is = Validator::default());
        }
        open
    }
}
