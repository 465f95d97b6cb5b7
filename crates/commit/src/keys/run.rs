//! A run: sorted keys in a file that is never changed. Nothing is read of it that is not checked against the hash by which
//! it is known.
//!
//! | | |
//! |---|---|
//! | groups | 170 pages of entries, then a page of their fences: the first key and the checksum of each |
//! | filter | as it was when the run was written; may be empty |
//! | index | a fence for each group, whose checksum is that of the page of fences |
//! | tail | magic, version, fields, number of keys, bytes of the filter, BLAKE3 of the filter and of the index |
//!
//! The BLAKE3 of the tail is that of the run: by way of the index it stands for every page.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Fs, FsRead, Result};
use aqueduct_primitives::Reservation;
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::layout::{
    Entry, FENCE_BYTES, Fence, Layout, PAGE_BYTES, PAGES_IN_GROUP, checksum, fences_offset, page_offset,
    pages_bytes, pages_in_group,
};

const MAGIC: &[u8; 8] = b"aq keys\n";
/// The format written by this version. A newer one is refused, never guessed at.
const VERSION: u32 = 1;
pub(super) const TAIL_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 32 + 32;
/// A filter is read in pieces of so many bytes.
const FILTER_PIECE: usize = 64 << 10;

/// A run as a commit names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunName {
    /// The file, in the folder of the keys.
    pub(super) name: String,
    pub(super) keys: u64,
    pub(super) bytes: u64,
    /// BLAKE3 of the file's tail, in hex.
    pub(super) blake3: String,
}

/// A run that is open.
pub(super) struct Run {
    pub(super) name: RunName,
    pub(super) path: PathBuf,
    pub(super) filter: Option<Filter>,
    file: Box<dyn FsRead>,
    layout: Layout,
    n_pages: u64,
    /// A fence for each group of pages.
    groups: Vec<Fence>,
    /// What it takes of the disk, where that is counted.
    _disk: Reservation,
}

/// The end of the file.
pub(super) struct Tail {
    pub(super) layout: Layout,
    pub(super) n_keys: u64,
    pub(super) filter_bytes: u64,
    pub(super) filter_hash: [u8; 32],
    pub(super) index_hash: [u8; 32],
}

impl Tail {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TAIL_BYTES);
        bytes.extend_from_slice(&u32::from(self.layout.versioned).to_be_bytes());
        bytes.extend_from_slice(&self.n_keys.to_be_bytes());
        bytes.extend_from_slice(&self.filter_bytes.to_be_bytes());
        bytes.extend_from_slice(&self.filter_hash);
        bytes.extend_from_slice(&self.index_hash);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(MAGIC);
        bytes
    }

    /// What is in the bytes; none, if they are no tail.
    fn decode(bytes: &[u8; TAIL_BYTES]) -> Option<Self> {
        let (fields, bytes) = bytes.split_first_chunk()?;
        let (n_keys, bytes) = bytes.split_first_chunk()?;
        let (filter_bytes, bytes) = bytes.split_first_chunk()?;
        let (filter_hash, bytes) = bytes.split_first_chunk()?;
        let index_hash = bytes.first_chunk()?;
        Some(Self {
            layout: Layout { versioned: u32::from_be_bytes(*fields) == 1 },
            n_keys: u64::from_be_bytes(*n_keys),
            filter_bytes: u64::from_be_bytes(*filter_bytes),
            filter_hash: *filter_hash,
            index_hash: *index_hash,
        })
    }
}

/// The version in a tail, if it is one.
fn version(tail: &[u8; TAIL_BYTES]) -> Option<u32> {
    let (rest, magic) = tail.split_last_chunk::<8>()?;
    (magic == MAGIC).then(|| rest.last_chunk().map(|version| u32::from_be_bytes(*version)))?
}

impl Run {
    /// Opens a run that is there as it was named, with as much of its filter as there is room for.
    ///
    /// # Errors
    /// It is gone or damaged; a newer version wrote it.
    pub(super) fn open(
        fs: &Arc<dyn Fs>,
        path: PathBuf,
        name: RunName,
        layout: Layout,
        filter_room: u64,
    ) -> Result<Self> {
        let file = fs.open_read(&path).map_err(|error| unreadable(&path, error))?;
        let groups = Vec::new();
        let mut run = Self {
            n_pages: layout.n_pages(name.keys),
            name,
            path,
            filter: None,
            file,
            layout,
            groups,
            _disk: Reservation::empty(),
        };
        let tail = run.tail()?;
        run.groups = run.index(&tail)?;
        run.filter = run.load_filter(&tail, filter_room)?;
        Ok(run)
    }

    /// A run that was just written.
    pub(super) fn written(
        name: RunName,
        path: PathBuf,
        file: Box<dyn FsRead>,
        (layout, groups, filter, disk): (Layout, Vec<Fence>, Option<Filter>, Reservation),
    ) -> Self {
        let n_pages = layout.n_pages(name.keys);
        Self { name, path, filter, file, layout, n_pages, groups, _disk: disk }
    }

    pub(super) fn filter_bytes(&self) -> u64 {
        self.filter.as_ref().map_or(0, Filter::n_bytes)
    }

    fn tail(&self) -> Result<Tail> {
        let mut bytes = [0; TAIL_BYTES];
        let at = self.name.bytes.checked_sub(TAIL_BYTES as u64).ok_or_else(|| self.damaged("its length"))?;
        self.read(&mut bytes, at)?;
        match version(&bytes) {
            None => return Err(self.damaged("its end")),
            Some(found) if found > VERSION => {
                let message = "written by a newer aqueduct; use that one";
                let error = Error::new(ErrorKind::Conflict, "read seen keys", message);
                return Err(error.with("path", self.path.display()).with("version", found));
            }
            Some(_) => {}
        }
        let tail =
            Tail::decode(&bytes).filter(|_| blake3::hash(&bytes).to_hex().as_str() == self.name.blake3);
        tail.filter(|tail| tail.layout == self.layout && tail.n_keys == self.name.keys)
            .ok_or_else(|| self.damaged("its end"))
    }

    fn index(&self, tail: &Tail) -> Result<Vec<Fence>> {
        let n_groups = self.n_pages.div_ceil(PAGES_IN_GROUP);
        let n_bytes = n_groups * FENCE_BYTES as u64;
        let at = pages_bytes(self.n_pages) + tail.filter_bytes;
        let n_groups = usize::try_from(n_groups).unwrap_or_default();
        if at + n_bytes + TAIL_BYTES as u64 != self.name.bytes {
            return Err(self.damaged("its length"));
        }
        let mut bytes = vec![0; n_groups * FENCE_BYTES];
        self.read(&mut bytes, at)?;
        if *blake3::hash(&bytes).as_bytes() != tail.index_hash {
            return Err(self.damaged("its index"));
        }
        Ok(Fence::all(&bytes, n_groups).collect())
    }

    fn load_filter(&self, tail: &Tail, room: u64) -> Result<Option<Filter>> {
        let Some(mut loading) = Filter::loading(tail.n_keys, tail.filter_bytes, room) else {
            return Ok(None);
        };
        let (mut hasher, mut piece) = (Box::new(blake3::Hasher::new()), vec![0; FILTER_PIECE]);
        let (mut at, end) = (0, tail.filter_bytes);
        while at < end {
            piece.truncate(usize::try_from(end - at).unwrap_or(FILTER_PIECE));
            self.read(&mut piece, pages_bytes(self.n_pages) + at)?;
            hasher.update(&piece);
            loading.push(&piece);
            at += piece.len() as u64;
        }
        match *hasher.finalize().as_bytes() == tail.filter_hash {
            true => Ok(Some(loading.end())),
            false => Err(self.damaged("its filter")),
        }
    }

    /// Takes out of sorted keys those that the run has, and gives what it knows of them.
    pub(super) fn find(&self, keys: &mut Vec<u128>, pages: &mut Pages, found: &mut Vec<Entry>) -> Result<()> {
        pages.forget();
        let mut wrong = None;
        keys.retain(|key| {
            let is_denied = self.filter.as_ref().is_some_and(|filter| !filter.may_have(*key));
            if is_denied || wrong.is_some() {
                return true;
            }
            match self.find_one(*key, pages) {
                Ok(Some(entry)) => {
                    found.push(entry);
                    false
                }
                Ok(None) => true,
                Err(error) => {
                    wrong = Some(error);
                    true
                }
            }
        });
        wrong.map_or(Ok(()), Err)
    }

    fn find_one(&self, key: u128, pages: &mut Pages) -> Result<Option<Entry>> {
        let Some(group) = last_from(&self.groups, key) else { return Ok(None) };
        pages.fences.turn_to(self, group as u64)?;
        let Some(at) = last_from(&pages.fences.fences, key) else { return Ok(None) };
        let page = group as u64 * PAGES_IN_GROUP + at as u64;
        if pages.page != Some(page) {
            pages.page = None;
            self.read(&mut pages.bytes, page_offset(page))?;
            self.check(&pages.bytes, pages.fences.fences.get(at))?;
            pages.page = Some(page);
        }
        let n_entries = self.layout.n_entries(page, self.name.keys);
        Ok(self.layout.find(&pages.bytes, n_entries, key))
    }

    fn check(&self, page: &[u8], fence: Option<&Fence>) -> Result<()> {
        let is_whole = fence.is_some_and(|fence| fence.checksum == checksum(page));
        if is_whole { Ok(()) } else { Err(self.damaged("a page")) }
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        self.file.read_exact_at(buffer, at).map_err(|error| unreadable(&self.path, error))
    }

    fn damaged(&self, what: &'static str) -> Error {
        damaged(&self.path).with("changed", what)
    }
}

/// The last of the fences at or before a key.
fn last_from(fences: &[Fence], key: u128) -> Option<usize> {
    fences.partition_point(|fence| fence.first_key <= key).checked_sub(1)
}

fn damaged(path: &Path) -> Error {
    let message = "what earlier runs have seen is gone or was changed after it was written; put the file back, or forget \
                   all keys with `aqueduct run --full-refresh`";
    Error::new(ErrorKind::Conflict, "read seen keys", message).with("path", path.display())
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => damaged(path).with_source(error),
        _ => Error::io("read seen keys", path.display(), error),
    }
}

/// The page that was looked at last, and the fences that led there.
pub(super) struct Pages {
    fences: Fences,
    page: Option<u64>,
    bytes: Vec<u8>,
}

impl Pages {
    pub(super) fn new() -> Self {
        Self { fences: Fences::new(), page: None, bytes: vec![0; PAGE_BYTES] }
    }

    fn forget(&mut self) {
        self.page = None;
        self.fences.group = None;
    }
}

/// The fences of one group of pages.
struct Fences {
    group: Option<u64>,
    fences: Vec<Fence>,
    bytes: Vec<u8>,
}

impl Fences {
    fn new() -> Self {
        Self { group: None, fences: Vec::new(), bytes: vec![0; PAGE_BYTES] }
    }

    fn turn_to(&mut self, run: &Run, group: u64) -> Result<()> {
        if self.group == Some(group) {
            return Ok(());
        }
        self.group = None;
        run.read(&mut self.bytes, fences_offset(group, run.n_pages))?;
        run.check(&self.bytes, usize::try_from(group).ok().and_then(|group| run.groups.get(group)))?;
        let n = usize::try_from(pages_in_group(group, run.n_pages)).unwrap_or_default();
        self.fences.clear();
        self.fences.extend(Fence::all(&self.bytes, n));
        self.group = Some(group);
        Ok(())
    }
}

/// A run read from its beginning to its end, some pages at a time.
pub(super) struct Cursor<'a> {
    run: &'a Run,
    current: Option<Entry>,
    /// The page that the current entry is in, and its place there.
    page: u64,
    at: usize,
    fences: Fences,
    bytes: Vec<u8>,
    /// The first page in the bytes.
    first: u64,
    most_pages: u64,
}

impl<'a> Cursor<'a> {
    /// At the first entry; reads at most so many pages at once.
    pub(super) fn new(run: &'a Run, most_pages: usize) -> Result<Self> {
        let (fences, most_pages) = (Fences::new(), most_pages.max(1) as u64);
        let mut cursor =
            Self { run, current: None, page: 0, at: 0, fences, bytes: Vec::new(), first: 0, most_pages };
        cursor.load()?;
        cursor.current = cursor.entry();
        Ok(cursor)
    }

    pub(super) fn current(&self) -> Option<Entry> {
        self.current
    }

    pub(super) fn advance(&mut self) -> Result<()> {
        self.at += 1;
        if self.at >= self.run.layout.n_entries(self.page, self.run.name.keys) {
            (self.page, self.at) = (self.page + 1, 0);
            let n_loaded = (self.bytes.len() / PAGE_BYTES) as u64;
            if self.page >= self.first + n_loaded {
                self.load()?;
            }
        }
        self.current = self.entry();
        Ok(())
    }

    fn entry(&self) -> Option<Entry> {
        let page = usize::try_from(self.page - self.first).ok()?;
        let bytes = self.bytes.get(page * PAGE_BYTES..)?;
        self.run.layout.entry(bytes, self.at)
    }

    /// Reads the pages from the current one on, within its group.
    fn load(&mut self) -> Result<()> {
        self.first = self.page;
        let group = self.page / PAGES_IN_GROUP;
        let end = self.run.n_pages.min((group + 1) * PAGES_IN_GROUP);
        let n_pages = usize::try_from(end.saturating_sub(self.page).min(self.most_pages)).unwrap_or(1);
        self.bytes.resize(n_pages * PAGE_BYTES, 0);
        if n_pages == 0 {
            return Ok(());
        }
        self.fences.turn_to(self.run, group)?;
        self.run.read(&mut self.bytes, page_offset(self.page))?;
        let from = usize::try_from(self.page % PAGES_IN_GROUP).unwrap_or_default();
        let fences = self.fences.fences.iter().skip(from).map(Some).chain(std::iter::repeat(None));
        self.bytes
            .chunks_exact(PAGE_BYTES)
            .zip(fences)
            .try_for_each(|(page, fence)| self.run.check(page, fence))
    }
}
