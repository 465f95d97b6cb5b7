//! Rows that wait in memory until there are enough for a run.

use aqueduct_core::{Error, Result, retained_bytes};
use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;

use super::keys::{KeyEncoder, Keys, prefix};
use super::{SortOrder, SortedBlock};

/// What a row takes beside its columns and its key: its place in the order, its size, its key's place.
pub(super) const BYTES_BESIDE_ROW: u64 = 32;

/// Rows in the order in which they arrived, and their keys.
#[derive(Debug, Default)]
pub(super) struct Fill {
    batches: Vec<RecordBatch>,
    keys: Vec<Keys>,
    sizes: Vec<Vec<u32>>,
    n_bytes: u64,
    n_rows: usize,
    widest_row: u64,
}

impl Fill {
    /// What all of it takes, its order among that.
    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// What the widest row takes.
    pub(super) fn widest_row(&self) -> u64 {
        self.widest_row
    }

    pub(super) fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Adds rows of these sizes. They must hold no memory but their own.
    pub(super) fn push(&mut self, records: RecordBatch, sizes: &[u64], encoder: &KeyEncoder) -> Result<()> {
        let keys = encoder.encode(&records)?;
        let n_rows = records.num_rows();
        let beside = keys.n_bytes() + BYTES_BESIDE_ROW * n_rows as u64;
        self.widest_row = self.widest_row.max(sizes.iter().copied().max().unwrap_or(0));
        self.n_bytes += retained_bytes(&records).get() + beside;
        self.n_rows += n_rows;
        self.sizes.push(sizes.iter().map(|size| u32::try_from(*size).unwrap_or(u32::MAX)).collect());
        self.keys.push(keys);
        self.batches.push(records);
        Ok(())
    }

    /// The rows in order, in blocks of at most so many bytes and rows, or of one row.
    pub(super) fn sorted(self, order: &SortOrder, block_bytes: u64, block_rows: usize) -> SortedFill {
        let mut places = Vec::with_capacity(self.n_rows);
        for (batch, keys) in (0..).zip(&self.keys) {
            let n_rows = self.batches[batch as usize].num_rows();
            places.extend((0..).take(n_rows).map(|row| Place {
                prefix: prefix(keys.key(row as usize)),
                batch,
                row,
            }));
        }
        let key = |place: &Place| self.keys[place.batch as usize].key(place.row as usize);
        places.sort_unstable_by(|a, b| {
            let by_key = a.prefix.cmp(&b.prefix).then_with(|| key(a).cmp(key(b)));
            by_key.then_with(|| {
                let by_arrival = (a.batch, a.row).cmp(&(b.batch, b.row));
                if order.latest_first { by_arrival.reverse() } else { by_arrival }
            })
        });
        if order.unique.is_some() {
            let alike = |place: &Place| self.keys[place.batch as usize].unique(place.row as usize);
            places.dedup_by(|later, first| alike(later) == alike(first));
        }
        let n_duplicates = (self.n_rows - places.len()) as u64;
        places.truncate(order.fetch.unwrap_or(usize::MAX));
        SortedFill { fill: self, places, at: 0, block_bytes, block_rows, n_duplicates }
    }
}

/// Where a row is, and how its key begins.
#[derive(Clone, Copy, Debug)]
struct Place {
    prefix: u64,
    batch: u32,
    row: u32,
}

/// The blocks of a fill.
#[derive(Debug)]
pub(super) struct SortedFill {
    fill: Fill,
    places: Vec<Place>,
    at: usize,
    block_bytes: u64,
    block_rows: usize,
    n_duplicates: u64,
}

impl SortedFill {
    /// How many rows were like one before them.
    pub(super) fn n_duplicates(&self) -> u64 {
        self.n_duplicates
    }

    fn block(&self, to: usize) -> Result<SortedBlock> {
        let taken = &self.places[self.at..to];
        let bytes = |place: &Place| self.fill.keys[place.batch as usize].key(place.row as usize).len() as u64;
        let sum = |(all, widest): (u64, u64), bytes: u64| (all + bytes, widest.max(bytes));
        let (key_bytes, widest_key) = taken.iter().map(bytes).fold((0, 0), sum);
        let places: Vec<_> = taken.iter().map(|place| (place.batch as usize, place.row as usize)).collect();
        let batches: Vec<_> = self.fill.batches.iter().collect();
        let records = interleave_record_batch(&batches, &places)
            .map_err(|error| Error::bug("sort", "rows cannot be put in order").with_source(error))?;
        Ok(SortedBlock { records, key_bytes, widest_key })
    }

    /// How far the block that begins here goes.
    fn end(&self) -> usize {
        let mut n_bytes = 0;
        let size = |place: &Place| u64::from(self.fill.sizes[place.batch as usize][place.row as usize]);
        let fits = |place: &&Place| {
            n_bytes += size(place);
            n_bytes <= self.block_bytes
        };
        let rest = self.places[self.at..].iter().take(self.block_rows);
        self.at + rest.take_while(fits).count().max(1)
    }
}

impl Iterator for SortedFill {
    type Item = Result<SortedBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.places.len() {
            return None;
        }
        let end = self.end();
        let block = self.block(end);
        self.at = end;
        Some(block)
    }
}
