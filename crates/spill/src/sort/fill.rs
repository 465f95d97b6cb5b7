//! Rows that wait in memory until there are enough for a run.

use aqueduct_core::rows::row_bytes;
use aqueduct_core::{Error, Result, retained_bytes};
use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::row::Rows;

use super::keys::{KeyEncoder, prefix};

/// What a row takes beside its columns and its key: its place in the order, its size, its key's place.
const BYTES_BESIDE_ROW: u64 = 32;

/// Rows in the order in which they arrived, and their keys.
#[derive(Debug, Default)]
pub(super) struct Fill {
    batches: Vec<RecordBatch>,
    keys: Vec<Rows>,
    sizes: Vec<Vec<u32>>,
    n_bytes: u64,
    n_rows: usize,
}

impl Fill {
    /// What all of it takes, its order among that.
    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Adds rows. They must hold no memory but their own.
    pub(super) fn push(&mut self, records: RecordBatch, encoder: &KeyEncoder) -> Result<()> {
        let keys = encoder.encode(&records)?;
        let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        self.sizes.push(row_bytes(&records).into_iter().map(size).collect());
        let n_rows = records.num_rows();
        self.n_bytes +=
            retained_bytes(&records).get() + keys.size() as u64 + BYTES_BESIDE_ROW * n_rows as u64;
        self.n_rows += n_rows;
        self.keys.push(keys);
        self.batches.push(records);
        Ok(())
    }

    /// The rows in order, in blocks of at most so many bytes, or of one row. Rows of one key stay as they arrived.
    pub(super) fn sorted(self, block_bytes: u64) -> SortedFill {
        let mut order = Vec::with_capacity(self.n_rows);
        for (batch, keys) in (0..).zip(&self.keys) {
            order.extend((0..).zip(keys.iter()).map(|(row, key)| Place { prefix: prefix(key), batch, row }));
        }
        let key = |place: &Place| self.keys[place.batch as usize].row(place.row as usize);
        order.sort_unstable_by(|a, b| {
            let by_prefix = a.prefix.cmp(&b.prefix);
            by_prefix.then_with(|| key(a).cmp(&key(b))).then_with(|| (a.batch, a.row).cmp(&(b.batch, b.row)))
        });
        SortedFill { fill: Fill { keys: Vec::new(), ..self }, order, at: 0, block_bytes }
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
    order: Vec<Place>,
    at: usize,
    block_bytes: u64,
}

impl SortedFill {
    fn block(&self, to: usize) -> Result<RecordBatch> {
        let places: Vec<_> =
            self.order[self.at..to].iter().map(|place| (place.batch as usize, place.row as usize)).collect();
        let batches: Vec<_> = self.fill.batches.iter().collect();
        interleave_record_batch(&batches, &places)
            .map_err(|error| Error::bug("sort", "rows cannot be put in order").with_source(error))
    }

    /// How far the block that begins here goes.
    fn end(&self) -> usize {
        let mut n_bytes = 0;
        let size = |place: &Place| u64::from(self.fill.sizes[place.batch as usize][place.row as usize]);
        let fits = |place: &&Place| {
            n_bytes += size(place);
            n_bytes <= self.block_bytes
        };
        self.at + self.order[self.at..].iter().take_while(fits).count().max(1)
    }
}

impl Iterator for SortedFill {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.order.len() {
            return None;
        }
        let end = self.end();
        let block = self.block(end);
        self.at = end;
        Some(block)
    }
}
