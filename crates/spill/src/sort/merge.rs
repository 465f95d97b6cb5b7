//! Several sorted runs into one, with a tree of losers (Knuth, The Art of Computer Programming, vol. 3, 5.4.1).
//!
//! Memory: of each run one block; the blocks that were used up since the last output, as many bytes as an output has
//! and one block more; the output; where rows are to be unique, the last key. Of rows with one key, those of an earlier
//! run come first, or of a later one.

use std::cmp::Ordering;

use aqueduct_core::rows::row_bytes;
use aqueduct_core::{Error, Result};
use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use tokio_util::sync::CancellationToken;

use super::keys::{KeyEncoder, prefix};
use super::run::{Block, RunReader};
use super::{SortOrder, SortedBlock, go_on};

/// One run while it is merged.
#[derive(Debug)]
struct Cursor {
    reader: RunReader,
    block: Option<Block>,
    sizes: Vec<u32>,
    row: usize,
    prefix: u64,
    /// Its block's place among those of the output that is being made.
    slot: Option<usize>,
}

impl Cursor {
    fn open(mut reader: RunReader, keys: &KeyEncoder) -> Result<Self> {
        let block = reader.next(keys)?;
        let mut cursor = Self { reader, block: None, sizes: Vec::new(), row: 0, prefix: 0, slot: None };
        cursor.put(block);
        Ok(cursor)
    }

    fn put(&mut self, block: Option<Block>) {
        let size = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        let sizes = |block: &Block| row_bytes(&block.records).into_iter().map(size).collect();
        self.sizes = block.as_ref().map(sizes).unwrap_or_default();
        self.block = block;
        self.row = 0;
        self.slot = None;
        self.look();
    }

    /// Takes the key of the row it stands on.
    fn look(&mut self) {
        self.prefix = self.block.as_ref().map_or(u64::MAX, |block| prefix(block.keys.key(self.row)));
    }

    /// Before another: by key; one that is at its end comes after all.
    fn compare(&self, other: &Self) -> Ordering {
        let (Some(a), Some(b)) = (&self.block, &other.block) else {
            return self.block.is_none().cmp(&other.block.is_none());
        };
        let by_prefix = self.prefix.cmp(&other.prefix);
        by_prefix.then_with(|| a.keys.key(self.row).cmp(b.keys.key(other.row)))
    }
}

/// The merge of some runs.
#[derive(Debug)]
pub(super) struct Merge {
    cursors: Vec<Cursor>,
    /// At 0 the winner; at `n` the loser of the match played at node `n`, whose children are `2n` and `2n + 1`.
    tree: Vec<usize>,
    keys: KeyEncoder,
    limit: OutputLimit,
    latest_first: bool,
    unique: Option<Unique>,
    /// So many rows may still come out.
    rows_left: usize,
    stop: CancellationToken,
}

/// How much goes into one output: at most so many bytes and rows, or one row.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputLimit {
    pub(super) n_bytes: u64,
    pub(super) n_rows: usize,
}

/// The row before, and how many were like the one before them.
#[derive(Debug, Default)]
struct Unique {
    last: Option<Vec<u8>>,
    n_duplicates: u64,
}

impl Unique {
    /// Whether a row is like the one before. If so, it is counted.
    fn is_duplicate(&mut self, key: &[u8]) -> bool {
        let is_duplicate = self.last.as_deref() == Some(key);
        self.n_duplicates += u64::from(is_duplicate);
        is_duplicate
    }

    fn taken(&mut self, key: &[u8]) {
        let last = self.last.get_or_insert_default();
        last.clear();
        // Not more than the widest key: so much is counted.
        last.reserve_exact(key.len());
        last.extend_from_slice(key);
    }
}

impl Merge {
    /// Reads the first block of each run.
    pub(super) fn open(
        readers: Vec<RunReader>,
        keys: KeyEncoder,
        order: &SortOrder,
        limit: OutputLimit,
        stop: CancellationToken,
    ) -> Result<Self> {
        let open = |reader| Cursor::open(reader, &keys);
        let cursors = readers.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        let unique = order.unique.map(|_| Unique::default());
        let tree = vec![0; cursors.len()];
        let (latest_first, rows_left) = (order.latest_first, order.fetch.unwrap_or(usize::MAX));
        let mut merge = Self { tree, cursors, keys, limit, latest_first, unique, rows_left, stop };
        if !merge.cursors.is_empty() {
            merge.tree[0] = merge.play(1);
        }
        Ok(merge)
    }

    /// How many rows were like one before them, so far.
    pub(super) fn n_duplicates(&self) -> u64 {
        self.unique.as_ref().map_or(0, |unique| unique.n_duplicates)
    }

    /// Plays the matches below a node; the winner.
    fn play(&mut self, node: usize) -> usize {
        let n = self.cursors.len();
        if node >= n {
            return node - n;
        }
        let (a, b) = (self.play(2 * node), self.play(2 * node + 1));
        let (winner, loser) = if self.is_before(a, b) { (a, b) } else { (b, a) };
        self.tree[node] = loser;
        winner
    }

    fn is_before(&self, a: usize, b: usize) -> bool {
        let by_key = self.cursors[a].compare(&self.cursors[b]);
        by_key.then(if self.latest_first { b.cmp(&a) } else { a.cmp(&b) }).is_lt()
    }

    /// Plays again the matches of the winner, which stands on another row now.
    fn replay(&mut self) {
        let mut winner = self.tree[0];
        let mut node = (winner + self.cursors.len()) / 2;
        while node > 0 {
            if self.is_before(self.tree[node], winner) {
                std::mem::swap(&mut self.tree[node], &mut winner);
            }
            node /= 2;
        }
        self.tree[0] = winner;
    }

    /// The next rows; none when all runs are at their end, or no more rows are wanted.
    ///
    /// # Errors
    /// The disk cannot be read; the sort is to stop.
    pub(super) fn next_output(&mut self) -> Result<Option<SortedBlock>> {
        go_on(&self.stop)?;
        if self.rows_left == 0 {
            return Ok(None);
        }
        let limit = OutputLimit { n_rows: self.limit.n_rows.min(self.rows_left), ..self.limit };
        let mut output = Output::default();
        while let Some(cursor) = self.tree.first().map(|winner| &mut self.cursors[*winner]) {
            let Some(block) = &cursor.block else { break };
            let is_duplicate = match &mut self.unique {
                Some(unique) => unique.is_duplicate(block.keys.unique(cursor.row)),
                None => false,
            };
            if !is_duplicate {
                let size = u64::from(cursor.sizes[cursor.row]);
                if !output.has_room(size, limit) {
                    break;
                }
                if let Some(unique) = &mut self.unique {
                    unique.taken(block.keys.unique(cursor.row));
                }
                let slot = *cursor.slot.get_or_insert_with(|| output.slot(&block.records));
                output.take(slot, cursor.row, size, block.keys.key(cursor.row).len());
            }
            cursor.row += 1;
            if cursor.row < block.records.num_rows() {
                cursor.look();
            } else {
                output.used_up(if cursor.slot.is_some() { block.n_bytes() } else { 0 });
                let next = cursor.reader.next(&self.keys)?;
                cursor.put(next);
            }
            self.replay();
        }
        self.cursors.iter_mut().for_each(|cursor| cursor.slot = None);
        self.rows_left -= output.places.len();
        output.finish()
    }
}

/// Rows of several blocks, to be put in one.
#[derive(Default)]
struct Output {
    blocks: Vec<RecordBatch>,
    places: Vec<(usize, usize)>,
    n_bytes: u64,
    key_bytes: u64,
    widest_key: u64,
    used_up_bytes: u64,
}

impl Output {
    /// Whether a row of this size goes in: the first always does.
    fn has_room(&self, size: u64, limit: OutputLimit) -> bool {
        let fits = self.n_bytes + size <= limit.n_bytes
            && self.used_up_bytes <= limit.n_bytes
            && self.places.len() < limit.n_rows;
        fits || self.places.is_empty()
    }

    fn slot(&mut self, records: &RecordBatch) -> usize {
        self.blocks.push(records.clone());
        self.blocks.len() - 1
    }

    fn take(&mut self, slot: usize, row: usize, size: u64, key_bytes: usize) {
        self.places.push((slot, row));
        self.n_bytes += size;
        self.key_bytes += key_bytes as u64;
        self.widest_key = self.widest_key.max(key_bytes as u64);
    }

    fn used_up(&mut self, n_bytes: u64) {
        self.used_up_bytes += n_bytes;
    }

    fn finish(self) -> Result<Option<SortedBlock>> {
        if self.places.is_empty() {
            return Ok(None);
        }
        let blocks: Vec<_> = self.blocks.iter().collect();
        let records = interleave_record_batch(&blocks, &self.places)
            .map_err(|error| Error::bug("sort", "rows cannot be put in order").with_source(error))?;
        Ok(Some(SortedBlock { records, key_bytes: self.key_bytes, widest_key: self.widest_key }))
    }
}
