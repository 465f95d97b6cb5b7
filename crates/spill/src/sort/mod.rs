//! The external sort: sorted runs on disk, merged as often as memory asks for.
//!
//! Rows wait until their part of the lease is full, then go to disk, sorted, as a run of small blocks. At the end,
//! neighbouring runs are merged until the rest fits into one last merge, whose output is the result. The order is
//! stable. Memory is bounded by bytes, not by rows: a few very wide rows among narrow ones, wherever they lie in the
//! order, take what they take and no more. Rows that fit into the lease never touch the disk.
//!
//! Everything here blocks; async code calls it from [`Tasks::block`](aqueduct_primitives::Tasks::block).

mod block;
mod fill;
mod keys;
mod merge;
mod run;
#[cfg(test)]
mod tests;

use aqueduct_core::rows::row_bytes;
use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::ByteCount;
use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;

pub use self::block::SpillCompression;
use self::fill::{Fill, SortedFill};
use self::keys::KeyEncoder;
pub use self::keys::SortKey;
use self::merge::Merge;
use self::run::{Run, RunReader, RunWriter};
use crate::disk::SpillDir;

/// The most runs that are merged at once: each has a file open.
const MAX_FAN_IN: usize = 256;

/// How a sort divides its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortMemory {
    /// Rows that wait, and the blocks of a merge, take at most so much.
    pub rows: ByteCount,
    /// Blocks of a run, and outputs, have about so many bytes.
    pub block: ByteCount,
}

/// Of the lease, one part in so many is a block: a merge holds a block of each run.
const BLOCK_PART: u64 = 128;
/// Smaller blocks cost more than they save, larger ones gain nothing.
const BLOCK_BYTES: std::ops::RangeInclusive<u64> = (32 << 10)..=(1 << 20);

impl SortMemory {
    /// For a lease of so many bytes.
    pub fn of_lease(lease: ByteCount) -> Self {
        let block = (lease.get() / BLOCK_PART).clamp(*BLOCK_BYTES.start(), *BLOCK_BYTES.end());
        // A block being encoded is there three times: its rows, its bytes, its bytes on disk.
        Self { rows: lease.saturating_sub(ByteCount::new(4 * block)), block: ByteCount::new(block) }
    }
}

/// What a sort did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SortReport {
    /// Runs written, those of merges among them.
    pub n_runs: u64,
    /// Merges of runs to runs, before the last.
    pub n_merges: u64,
    /// Bytes written to disk.
    pub spilled_bytes: ByteCount,
}

/// A sort that is being filled.
///
/// ```
/// use std::sync::Arc;
/// use aqueduct_spill::{ExternalSort, SortKey, SortMemory, SpillCompression, SpillDir};
/// use aqueduct_primitives::ByteCount;
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
///
/// let ids: ArrayRef = Arc::new(Int64Array::from(vec![3, 1, 2]));
/// let records = RecordBatch::try_from_iter([("id", ids)])?;
/// let disk = SpillDir::new(&std::env::temp_dir(), "example", ByteCount::mib(64));
/// let keys = vec![SortKey { column: 0, options: Default::default() }];
/// let memory = SortMemory::of_lease(ByteCount::mib(16));
/// let mut sort = ExternalSort::new(records.schema(), keys, memory, SpillCompression::Lz4, disk)?;
/// sort.push(&records)?;
/// let sorted = sort.finish()?.collect::<Result<Vec<_>, _>>()?;
/// let expected: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
/// assert_eq!(sorted, [RecordBatch::try_from_iter([("id", expected)])?]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ExternalSort {
    schema: SchemaRef,
    sort_keys: Vec<SortKey>,
    keys: KeyEncoder,
    memory: SortMemory,
    compression: SpillCompression,
    disk: SpillDir,
    fill: Fill,
    runs: Vec<Run>,
    report: SortReport,
}

impl ExternalSort {
    /// An empty one. Its rows have no views and no dictionaries inside.
    ///
    /// # Errors
    /// A key is no column, or of a type without an order.
    pub fn new(
        schema: SchemaRef,
        sort_keys: Vec<SortKey>,
        memory: SortMemory,
        compression: SpillCompression,
        disk: SpillDir,
    ) -> Result<Self> {
        let keys = KeyEncoder::new(&schema, &sort_keys)?;
        let (fill, runs, report) = (Fill::default(), Vec::new(), SortReport::default());
        Ok(Self { schema, sort_keys, keys, memory, compression, disk, fill, runs, report })
    }

    /// Adds rows; they are copied. When memory is full, a run goes to disk.
    ///
    /// # Errors
    /// The disk is full or has no room left by its limit.
    pub fn push(&mut self, records: &RecordBatch) -> Result<()> {
        for piece in pieces(records, self.memory.block.get())? {
            self.fill.push(piece, &self.keys)?;
            if self.fill.n_bytes() >= self.memory.rows.get() {
                self.spill()?;
            }
        }
        Ok(())
    }

    /// Writes the rows that wait.
    fn spill(&mut self) -> Result<()> {
        let fill = std::mem::take(&mut self.fill);
        let mut writer = RunWriter::create(&self.disk, &self.schema, self.compression)?;
        for block in fill.sorted(self.memory.block.get()) {
            writer.write(&block?, &self.keys)?;
        }
        self.runs.push(writer.finish());
        self.report.n_runs += 1;
        Ok(())
    }

    /// Ends the filling; the rows in order.
    ///
    /// # Errors
    /// The disk is full or has no room left by its limit; two rows alone are larger than the lease.
    pub fn finish(mut self) -> Result<Sorted> {
        if self.runs.is_empty() {
            let rows = Rows::InMemory(self.fill.sorted(self.memory.block.get()));
            return Ok(Sorted { rows, report: self.report });
        }
        if !self.fill.is_empty() {
            self.spill()?;
        }
        while !self.fits(&self.runs) {
            self.merge_some()?;
        }
        let runs = std::mem::take(&mut self.runs);
        let rows = Rows::Merged(self.merge(runs)?);
        self.report.spilled_bytes = self.disk.written_bytes();
        Ok(Sorted { rows, report: self.report })
    }

    fn merge(&self, runs: Vec<Run>) -> Result<Merge> {
        let readers = runs.into_iter().map(RunReader::open).collect::<Result<Vec<_>>>()?;
        Merge::open(readers, KeyEncoder::new(&self.schema, &self.sort_keys)?, self.memory.block.get())
    }

    /// Whether a merge of these runs fits: a block of each, one used up, and the output, which may be one wide row.
    fn fits(&self, runs: &[Run]) -> bool {
        let blocks = runs.iter().map(|run| run.largest_block);
        let largest = blocks.clone().max().unwrap_or(0);
        runs.len() <= MAX_FAN_IN && blocks.sum::<u64>() + 2 * largest <= self.memory.rows.get()
    }

    /// Merges the neighbours that cost least, as many as fit: never others, for a stable order.
    fn merge_some(&mut self) -> Result<()> {
        let (from, to) = self.cheapest().ok_or_else(|| {
            let largest = self.runs.iter().map(|run| run.largest_block).max().unwrap_or(0);
            Error::new(
                ErrorKind::Limit,
                "sort",
                "rows are too wide for the memory of the sort; raise `memory`",
            )
            .with("row_bytes", largest)
            .with("limit_bytes", self.memory.rows)
        })?;
        let runs: Vec<_> = self.runs.splice(from..to, []).collect();
        let mut merge = self.merge(runs)?;
        let mut writer = RunWriter::create(&self.disk, &self.schema, self.compression)?;
        while let Some(block) = merge.next_output()? {
            writer.write(&block, merge.keys())?;
        }
        self.runs.insert(from, writer.finish());
        self.report.n_runs += 1;
        self.report.n_merges += 1;
        Ok(())
    }

    /// The neighbours to merge next: as many as fit, of those the fewest bytes. No more than are needed.
    fn cheapest(&self) -> Option<(usize, usize)> {
        let widest = |from: usize| {
            let fitting = (from + 2..=self.runs.len()).take_while(|to| self.fits(&self.runs[from..*to]));
            fitting.last().map(|to| (from, to))
        };
        let cost = |(from, to): &(usize, usize)| {
            let n_bytes: u64 = self.runs[*from..*to].iter().map(|run| run.n_bytes).sum();
            (std::cmp::Reverse(to - from), n_bytes)
        };
        (0..self.runs.len()).filter_map(widest).min_by_key(cost)
    }
}

/// Rows in order, in batches of a block's size.
#[derive(Debug)]
pub struct Sorted {
    rows: Rows,
    report: SortReport,
}

#[derive(Debug)]
enum Rows {
    InMemory(SortedFill),
    Merged(Merge),
}

impl Sorted {
    /// What the sort did.
    pub fn report(&self) -> SortReport {
        self.report
    }
}

impl Iterator for Sorted {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.rows {
            Rows::InMemory(rows) => rows.next(),
            Rows::Merged(merge) => merge.next_output().transpose(),
        }
    }
}

/// Copies of rows, each of at most so many bytes or of one row: a slice would keep all of its batch.
fn pieces(records: &RecordBatch, most: u64) -> Result<Vec<RecordBatch>> {
    let mut ends = Vec::new();
    let mut n_bytes = 0;
    for (row, size) in row_bytes(records).into_iter().enumerate() {
        if n_bytes + size > most && n_bytes > 0 {
            ends.push(row);
            n_bytes = 0;
        }
        n_bytes += size;
    }
    ends.push(records.num_rows());
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let copy = |(from, to): (usize, usize)| {
        let rows = UInt64Array::from_iter_values(from as u64..to as u64);
        take_record_batch(records, &rows)
            .map_err(|error| Error::bug("sort", "rows cannot be copied").with_source(error))
    };
    starts.zip(ends.iter().copied()).filter(|(from, to)| from < to).map(copy).collect()
}
