//! Writes runs: of sorted entries, and of several runs merged.

use std::io::Write;
use std::path::PathBuf;

use aqueduct_core::{Error, FsFile, FsRead, Result};
use aqueduct_primitives::{ByteCount, Reservation};

use super::filter::Filter;
use super::home::Home;
use super::layout::{Entry, FENCE_BYTES, Fence, Layout, PAGE_BYTES, PAGES_IN_GROUP, checksum};
use super::run::{Cursor, Run, RunName, TAIL_BYTES, Tail};

/// A run that is being written; it takes entries with ascending keys.
pub(super) struct Writer<'a> {
    home: &'a Home,
    name: String,
    path: PathBuf,
    layout: Layout,
    file: Box<dyn FsFile>,
    reader: Box<dyn FsRead>,
    /// What is not written yet; full pages before the one that is being filled.
    buffer: Vec<u8>,
    most_buffered: usize,
    /// Where the page that is being filled begins, its first key, and its entries.
    page_at: usize,
    first_key: u128,
    in_page: usize,
    /// The fences of the pages since the last page of fences, as bytes, and their first.
    fences: Vec<u8>,
    group_key: u128,
    groups: Vec<Fence>,
    filter: Option<Filter>,
    n_keys: u64,
    n_bytes: u64,
    disk: Reservation,
}

impl<'a> Writer<'a> {
    /// Buffers at most so many bytes beside a page of entries and one of fences.
    pub(super) fn create(
        home: &'a Home,
        name: String,
        layout: Layout,
        filter: Option<Filter>,
        most_buffered: usize,
    ) -> Result<Self> {
        let path = home.path(&name);
        let (file, reader) = home.create(&path)?;
        Ok(Self {
            home,
            name,
            path,
            layout,
            file,
            reader,
            buffer: Vec::with_capacity(most_buffered + PAGE_BYTES),
            most_buffered,
            page_at: 0,
            first_key: 0,
            in_page: 0,
            fences: Vec::with_capacity(PAGE_BYTES),
            group_key: 0,
            groups: Vec::new(),
            filter,
            n_keys: 0,
            n_bytes: 0,
            disk: Reservation::empty(),
        })
    }

    pub(super) fn push(&mut self, entry: Entry) -> Result<()> {
        if self.in_page == 0 {
            self.first_key = entry.key;
        }
        self.layout.push(&entry, &mut self.buffer);
        self.in_page += 1;
        self.n_keys += 1;
        if let Some(filter) = &mut self.filter {
            filter.insert(entry.key);
        }
        if self.in_page == self.layout.entries_in_page() { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> Result<()> {
        self.buffer.resize(self.page_at + PAGE_BYTES, 0);
        let checksum = checksum(self.buffer.get(self.page_at..).unwrap_or_default());
        if self.fences.is_empty() {
            self.group_key = self.first_key;
        }
        Fence { first_key: self.first_key, checksum }.push(&mut self.fences);
        (self.page_at, self.in_page) = (self.buffer.len(), 0);
        let pages = self.fences.len() / FENCE_BYTES;
        if pages as u64 == PAGES_IN_GROUP {
            self.end_group()?;
        }
        self.flush(self.most_buffered)
    }

    fn end_group(&mut self) -> Result<()> {
        self.fences.resize(PAGE_BYTES, 0);
        self.groups.push(Fence { first_key: self.group_key, checksum: checksum(&self.fences) });
        self.buffer.extend_from_slice(&self.fences);
        self.fences.clear();
        self.page_at = self.buffer.len();
        Ok(())
    }

    /// Writes what is buffered, if it is more than so many bytes.
    fn flush(&mut self, most: usize) -> Result<()> {
        if self.buffer.len() <= most {
            return Ok(());
        }
        self.disk.merge(self.home.take(ByteCount::of(self.buffer.len()))?);
        self.file.write_all(&self.buffer).map_err(|error| self.failed(error))?;
        self.n_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        self.page_at = 0;
        Ok(())
    }

    /// The run, which is durable once its folder is.
    pub(super) fn end(mut self) -> Result<Run> {
        if self.in_page > 0 {
            self.end_page()?;
        }
        if !self.fences.is_empty() {
            self.end_group()?;
        }
        let filter_hash = self.write_filter()?;
        let mut index = Vec::with_capacity(self.groups.len() * FENCE_BYTES);
        self.groups.iter().for_each(|fence| fence.push(&mut index));
        let tail = Tail {
            layout: self.layout,
            n_keys: self.n_keys,
            filter_bytes: self.filter.as_ref().map_or(0, Filter::n_bytes),
            filter_hash,
            index_hash: *blake3::hash(&index).as_bytes(),
        };
        let tail = tail.encode();
        debug_assert_eq!(tail.len(), TAIL_BYTES);
        self.buffer.extend_from_slice(&index);
        self.buffer.extend_from_slice(&tail);
        self.flush(0)?;
        self.home.finish(&mut *self.file, &self.path)?;
        let blake3 = blake3::hash(&tail).to_hex().to_string();
        let name = RunName { name: self.name, keys: self.n_keys, bytes: self.n_bytes, blake3 };
        Ok(Run::written(name, self.path, self.reader, (self.layout, self.groups, self.filter, self.disk)))
    }

    fn write_filter(&mut self) -> Result<[u8; 32]> {
        let mut hasher = Box::new(blake3::Hasher::new());
        let filter = self.filter.take();
        let mut piece = Vec::with_capacity(PAGE_BYTES);
        let mut words = filter.iter().flat_map(Filter::bytes).peekable();
        while words.peek().is_some() {
            piece.clear();
            piece.extend(words.by_ref().take(PAGE_BYTES / 8).flatten());
            hasher.update(&piece);
            self.buffer.extend_from_slice(&piece);
            self.flush(self.most_buffered)?;
        }
        drop(words);
        self.filter = filter;
        Ok(*hasher.finalize().as_bytes())
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io("write seen keys", self.path.display(), error)
    }
}

/// Gives the entries of runs by key, of several with one key that of the newest run. The oldest comes first.
pub(super) fn merge(
    runs: &[Run],
    most_pages: usize,
    mut take: impl FnMut(Entry) -> Result<()>,
) -> Result<()> {
    let newest_first = runs.iter().rev().map(|run| Cursor::new(run, most_pages));
    let mut cursors = newest_first.collect::<Result<Vec<_>>>()?;
    loop {
        let heads = cursors.iter().filter_map(Cursor::current);
        // Of equal ones the first, which is the newest.
        let Some(least) = heads.min_by_key(|entry| entry.key) else { return Ok(()) };
        take(least)?;
        for cursor in &mut cursors {
            if cursor.current().is_some_and(|entry| entry.key == least.key) {
                cursor.advance()?;
            }
        }
    }
}
