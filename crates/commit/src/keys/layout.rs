//! What a run of keys is made of: entries of one width in pages, and the fences by which a page is found.

use std::cmp::Ordering;

/// Pages are read, written and checked as a whole. Larger ones make a look-up dearer, smaller ones the fences.
pub(super) const PAGE_BYTES: usize = 4096;
/// A fence: the first key of a page, and the checksum of the page.
pub(super) const FENCE_BYTES: usize = 24;
/// So many pages have one page of fences, which lies behind them.
pub(super) const PAGES_IN_GROUP: u64 = (PAGE_BYTES / FENCE_BYTES) as u64;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: u128,
    /// The greatest that was seen; 0 where keys have none.
    pub(super) version: u128,
    /// When it was seen last: days since 1970.
    pub(super) day: u16,
}

/// Which fields entries have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) versioned: bool,
}

impl Layout {
    pub(super) const fn entry_bytes(self) -> usize {
        if self.versioned { 34 } else { 18 }
    }

    pub(super) const fn entries_in_page(self) -> usize {
        PAGE_BYTES / self.entry_bytes()
    }

    pub(super) fn n_pages(self, n_keys: u64) -> u64 {
        n_keys.div_ceil(self.entries_in_page() as u64)
    }

    /// How many entries a page has.
    pub(super) fn n_entries(self, page: u64, n_keys: u64) -> usize {
        let in_page = self.entries_in_page();
        let left = n_keys.saturating_sub(page * in_page as u64);
        usize::try_from(left).map_or(in_page, |left| left.min(in_page))
    }

    pub(super) fn push(self, entry: &Entry, page: &mut Vec<u8>) {
        page.extend_from_slice(&entry.key.to_be_bytes());
        page.extend_from_slice(&entry.day.to_be_bytes());
        if self.versioned {
            page.extend_from_slice(&entry.version.to_be_bytes());
        }
    }

    /// The entry at a place of a page; none beyond its end.
    pub(super) fn entry(self, page: &[u8], at: usize) -> Option<Entry> {
        let bytes = page.get(at * self.entry_bytes()..)?;
        let (key, bytes) = bytes.split_first_chunk()?;
        let (day, bytes) = bytes.split_first_chunk()?;
        let version = if self.versioned { u128::from_be_bytes(*bytes.first_chunk()?) } else { 0 };
        Some(Entry { key: u128::from_be_bytes(*key), version, day: u16::from_be_bytes(*day) })
    }

    /// The entry of a key among the first so many of a page.
    pub(super) fn find(self, page: &[u8], n_entries: usize, key: u128) -> Option<Entry> {
        let (mut low, mut high) = (0, n_entries);
        while low < high {
            let middle = usize::midpoint(low, high);
            let entry = self.entry(page, middle)?;
            match entry.key.cmp(&key) {
                Ordering::Equal => return Some(entry),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// By what a page is found and known for unharmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) first_key: u128,
    pub(super) checksum: u64,
}

impl Fence {
    pub(super) fn push(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.first_key.to_be_bytes());
        bytes.extend_from_slice(&self.checksum.to_be_bytes());
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let (key, checksum) = bytes.split_first_chunk()?;
        let checksum = u64::from_be_bytes(*checksum.first_chunk()?);
        Some(Self { first_key: u128::from_be_bytes(*key), checksum })
    }

    /// The first so many fences in some bytes.
    pub(super) fn all(bytes: &[u8], n: usize) -> impl Iterator<Item = Self> {
        bytes.chunks_exact(FENCE_BYTES).take(n).filter_map(Self::of)
    }
}

/// The checksum of a page: the first bytes of its BLAKE3.
pub(super) fn checksum(page: &[u8]) -> u64 {
    blake3::hash(page).as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Where a page of entries lies: behind each group of them is a page of fences.
pub(super) fn page_offset(page: u64) -> u64 {
    (page + page / PAGES_IN_GROUP) * PAGE_BYTES as u64
}

/// Where the page of fences of a group lies.
pub(super) fn fences_offset(group: u64, n_pages: u64) -> u64 {
    (((group + 1) * PAGES_IN_GROUP).min(n_pages) + group) * PAGE_BYTES as u64
}

/// How many pages a group has.
pub(super) fn pages_in_group(group: u64, n_pages: u64) -> u64 {
    n_pages.saturating_sub(group * PAGES_IN_GROUP).min(PAGES_IN_GROUP)
}

/// How many bytes all pages take.
pub(super) fn pages_bytes(n_pages: u64) -> u64 {
    (n_pages + n_pages.div_ceil(PAGES_IN_GROUP)) * PAGE_BYTES as u64
}
