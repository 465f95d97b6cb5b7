//! The external sort: sorted runs on disk, merged as often as memory asks for.
//!
//! Rows wait until their part of the lease is full, then go to disk, sorted, as a run of small blocks. At the end,
//! neighbouring runs are merged until the rest fits into one last merge, whose output is the result. Memory is
//! bounded by bytes, not by rows: a few very wide rows among narrow ones, wherever they lie in the order, take what
//! they take and no more. Rows that fit into the lease never touch the disk. Where rows are to be unique, those that
//! are like an earlier one are dropped as early as they meet: while a run forms, and in every merge.
//!
//! Everything here blocks; async code calls it from [`Tasks::block`](aqueduct_primitives::Tasks::block).

mod block;
mod fill;
mod floats;
mod key_bytes;
mod keys;
mod memory;
mod merge;
mod run;
mod spool;
#[cfg(test)]
mod tests;

use std::ops::Range;

use aqueduct_core::rows::{copied, row_bytes, runs};
use aqueduct_core::{Error, ErrorKind, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use tokio_util::sync::CancellationToken;

pub use self::block::SpillCompression;
use self::fill::{BYTES_BESIDE_ROW, Fill, SortedFill};
pub(crate) use self::keys::{KeyEncoder, Keys, has_order};
pub use self::keys::{SortKey, SortOrder};
use self::memory::MergeNeed;
pub use self::memory::SortMemory;
use self::merge::{Merge, OutputLimit};
pub use self::run::Run;
use self::run::{RunReader, RunWriter};
pub(crate) use self::spool::{Spool, SpoolWriter};
use crate::disk::SpillDir;
use crate::plain::shares;

/// What a sort did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SortReport {
    /// Runs written, those of merges among them.
    pub n_runs: u64,
    /// Merges of runs to runs, before the last.
    pub n_merges: u64,
    /// Bytes written to disk.
    pub spilled_bytes: u64,
    /// What those bytes were in memory.
    pub raw_bytes: u64,
    /// Rows left out because they are like an earlier one.
    pub n_duplicates: u64,
}

/// What is sorted, and how.
#[derive(Clone, Debug)]
pub struct SortSpec {
    /// The columns; no views and no dictionaries among them, which would share what a block is to hold alone.
    pub schema: SchemaRef,
    /// The order, and which rows are alike.
    pub order: SortOrder,
    /// How the lease is divided.
    pub memory: SortMemory,
    /// How blocks lie on disk; by default as the [room on it](SpillDir::compression) says when a run is begun.
    pub compression: Option<SpillCompression>,
    /// At most so many rows in a batch that comes out.
    pub max_rows: usize,
}

/// Rows in order, and the bytes of their keys.
#[derive(Debug)]
struct SortedBlock {
    records: RecordBatch,
    /// Of all together.
    key_bytes: u64,
    /// Of the widest one.
    widest_key: u64,
}

/// A sort that is being filled.
///
/// ```
/// use std::sync::Arc;
/// use aqueduct_primitives::{Budget, ByteCount};
/// use aqueduct_spill::{ExternalSort, SortKey, SortMemory, SortOrder, SortSpec, SpillCompression, SpillDir};
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
///
/// let ids: ArrayRef = Arc::new(Int64Array::from(vec![3, 1, 2]));
/// let records = RecordBatch::try_from_iter([("id", ids)])?;
/// let keys = vec![SortKey { column: 0, options: Default::default() }];
/// let spec = SortSpec {
///     schema: records.schema(),
///     order: SortOrder { keys, ..SortOrder::default() },
///     memory: SortMemory::of_lease(ByteCount::mib(16)),
///     compression: Some(SpillCompression::Lz4),
///     max_rows: 8192,
/// };
/// let disk = Budget::new("disk", ByteCount::mib(64));
/// let mut sort = ExternalSort::new(spec, SpillDir::new(&std::env::temp_dir(), disk)?)?;
/// sort.push(&records)?;
/// let sorted = sort.finish()?.collect::<Result<Vec<_>, _>>()?;
/// let expected: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
/// assert_eq!(sorted, [RecordBatch::try_from_iter([("id", expected)])?]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ExternalSort {
    spec: SortSpec,
    keys: KeyEncoder,
    disk: SpillDir,
    fill: Fill,
    /// What the widest row of the run takes that may still be being written.
    widest_pending: u64,
    runs: Vec<Run>,
    report: SortReport,
    stop: CancellationToken,
}

impl ExternalSort {
    /// An empty one.
    ///
    /// # Errors
    /// A key is no column, or of a type without an order; a column has views or a dictionary.
    pub fn new(spec: SortSpec, disk: SpillDir) -> Result<Self> {
        check_columns(&spec.schema)?;
        let keys = KeyEncoder::new(&spec.schema, &spec.order)?;
        let (fill, runs, report) = (Fill::default(), Vec::new(), SortReport::default());
        let stop = CancellationToken::new();
        Ok(Self { spec, keys, disk, fill, widest_pending: 0, runs, report, stop })
    }

    /// Ends with [`ErrorKind::Cancelled`] soon after the token is cancelled, in the middle of a run or of a merge.
    #[must_use]
    pub fn stopped_by(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// Adds rows; they are copied. When memory is full, a run goes to disk.
    ///
    /// # Errors
    /// A row is too wide for the lease; the disk is full or has no room left by its limit.
    pub fn push(&mut self, records: &RecordBatch) -> Result<()> {
        self.push_with(records, |pending| pending.write().map(Some))
    }

    /// As [`push`](Self::push), but hands each run that is to be written to `write`, before more rows are taken in: who
    /// has another thread writes it there while more come, at most [so many](SortMemory::with_run_makers) at a time.
    /// `write` gives the run that was written, or an earlier one, which is added; those that are still being written
    /// when the rows have ended are [added](Self::add) then, all in the order in which they were given.
    ///
    /// # Errors
    /// A row is too wide for the lease; an error of `write`.
    pub fn push_with(
        &mut self,
        records: &RecordBatch,
        mut write: impl FnMut(PendingRun) -> Result<Option<Run>>,
    ) -> Result<()> {
        let sizes = row_bytes(records);
        for rows in runs(&sizes, self.spec.memory.block_bytes()) {
            let sizes = &sizes[rows.clone()];
            let (n_bytes, key_bytes) = (sizes.iter().sum(), self.most_beside(records, &rows));
            if !self.fill.is_empty() && !self.has_room(n_bytes, key_bytes, self.widest_pending) {
                write(self.take_fill())?.into_iter().for_each(|run| self.add(run));
            }
            // What is still being written is no reason to refuse a row: it makes the next run short.
            if !self.has_room(n_bytes, key_bytes, 0) {
                return Err(self.spec.memory.too_wide(n_bytes, key_bytes));
            }
            self.fill.push(copied(records, rows)?, sizes, &self.keys)?;
        }
        Ok(())
    }

    /// What rows take at most beside their columns, when they wait.
    fn most_beside(&self, records: &RecordBatch, rows: &Range<usize>) -> u64 {
        self.keys.most_bytes(records, rows) + BYTES_BESIDE_ROW * rows.len() as u64
    }

    fn has_room(&self, n_bytes: u64, key_bytes: u64, widest_pending: u64) -> bool {
        let widest_row = self.fill.widest_row().max(n_bytes).max(widest_pending);
        self.spec.memory.holds(self.fill.n_bytes() + n_bytes + key_bytes, widest_row)
    }

    /// The rows that wait, as a run to be written.
    fn take_fill(&mut self) -> PendingRun {
        self.widest_pending = self.fill.widest_row();
        let (spec, disk, stop) = (self.spec.clone(), self.disk.clone(), self.stop.clone());
        PendingRun { fill: std::mem::take(&mut self.fill), spec, disk, stop }
    }

    /// Adds a run that was written.
    pub fn add(&mut self, run: Run) {
        self.report(&run);
        self.runs.push(run);
    }

    fn report(&mut self, run: &Run) {
        self.report.n_runs += 1;
        self.report.spilled_bytes += run.n_bytes;
        self.report.raw_bytes += run.raw_bytes;
        self.report.n_duplicates += run.n_duplicates;
    }

    /// Ends the filling; the rows in order.
    ///
    /// # Errors
    /// The disk is full or has no room left by its limit; rows are too wide to be merged within the lease; the sort [was
    /// stopped](Self::stopped_by).
    pub fn finish(mut self) -> Result<Sorted> {
        let memory = self.spec.memory;
        if self.runs.is_empty()
            && memory.outputs_beside(self.fill.n_bytes(), self.fill.widest_row()).is_some()
        {
            return Ok(self.in_memory());
        }
        if !self.fill.is_empty() {
            let run = self.take_fill().write()?;
            self.add(run);
        }
        while !memory.merges(&self.need_of(&self.runs)) {
            self.merge_some()?;
        }
        let need = self.need_of(&self.runs);
        let runs = std::mem::take(&mut self.runs);
        let rows = Rows::Merged(self.merge(runs)?);
        Ok(Sorted { rows, report: self.report, room_bytes: memory.beside_merge(&need) })
    }

    fn in_memory(mut self) -> Sorted {
        let fill = std::mem::take(&mut self.fill);
        let room_bytes =
            self.spec.memory.outputs_beside(fill.n_bytes(), fill.widest_row()).unwrap_or_default();
        let sorted = fill.sorted(&self.spec.order, self.spec.memory.block_bytes(), self.spec.max_rows);
        self.report.n_duplicates += sorted.n_duplicates();
        Sorted { rows: Rows::InMemory(sorted), report: self.report, room_bytes }
    }

    fn merge(&self, runs: Vec<Run>) -> Result<Merge> {
        let readers = runs.into_iter().map(RunReader::open).collect::<Result<Vec<_>>>()?;
        let keys = KeyEncoder::new(&self.spec.schema, &self.spec.order)?;
        let limit = OutputLimit { n_bytes: self.spec.memory.block_bytes(), n_rows: self.spec.max_rows };
        Merge::open(readers, keys, &self.spec.order, limit, self.stop.clone())
    }

    /// Merges neighbours, never others, for the order of arrival.
    fn merge_some(&mut self) -> Result<()> {
        let (from, to) =
            self.cheapest().ok_or_else(|| self.spec.memory.too_wide_to_merge(&self.need_of(&self.runs)))?;
        let runs: Vec<_> = self.runs.splice(from..to, []).collect();
        let mut merge = self.merge(runs)?;
        let mut writer = RunWriter::create(&self.disk, &self.spec.schema, self.spec.compression)?;
        while let Some(block) = merge.next_output()? {
            writer.write(block)?;
        }
        let run = writer.finish(merge.n_duplicates());
        self.report(&run);
        self.report.n_merges += 1;
        self.disk.metrics().spill_merges.add(1);
        self.runs.insert(from, run);
        Ok(())
    }

    /// The neighbours to merge next: no more than it takes for the last merge to have as many runs, and of such
    /// the fewest bytes.
    fn cheapest(&self) -> Option<(usize, usize)> {
        let widest = (0..self.runs.len()).map(|from| self.fitting(from) - from).max().filter(|n| *n > 1)?;
        let n_runs = (self.runs.len() + 1).saturating_sub(widest).clamp(2, widest);
        let n_bytes =
            |from: &usize| self.runs[*from..from + n_runs].iter().map(|run| run.n_bytes).sum::<u64>();
        let fits = |from: &usize| self.fitting(*from) >= from + n_runs;
        let from = (0..=self.runs.len() - n_runs).filter(fits).min_by_key(n_bytes)?;
        Some((from, from + n_runs))
    }

    /// How far a merge of runs that begins here may go.
    fn fitting(&self, from: usize) -> usize {
        let mut need = MergeNeed::default();
        let fits = |run: &&Run| {
            self.add_need(run, &mut need);
            self.spec.memory.merges(&need)
        };
        from + self.runs[from..].iter().take_while(fits).count()
    }

    fn need_of(&self, runs: &[Run]) -> MergeNeed {
        let mut need = MergeNeed::default();
        runs.iter().for_each(|run| self.add_need(run, &mut need));
        need
    }

    fn add_need(&self, run: &Run, need: &mut MergeNeed) {
        // The last key is kept where rows are compared with the one before.
        let last_key = if self.spec.order.unique.is_some() { run.widest_key } else { 0 };
        need.add(run.largest_block, last_key);
    }
}

/// Refuses columns that share what they hold with others.
fn check_columns(schema: &Schema) -> Result<()> {
    match schema.fields().iter().find(|field| shares(field.data_type())) {
        None => Ok(()),
        Some(field) => {
            let message = "a column has views or a dictionary; cast it to a plain type before";
            Err(Error::new(ErrorKind::Config, "sort", message)
                .with("column", field.name())
                .with("type", field.data_type()))
        }
    }
}

/// A run that is to be written.
#[derive(Debug)]
#[must_use = "its rows are nowhere else"]
pub struct PendingRun {
    fill: Fill,
    spec: SortSpec,
    disk: SpillDir,
    stop: CancellationToken,
}

impl PendingRun {
    /// Sorts its rows and writes them.
    ///
    /// # Errors
    /// The disk is full or has no room left by its limit; the sort [was stopped](ExternalSort::stopped_by).
    pub fn write(self) -> Result<Run> {
        let mut writer = RunWriter::create(&self.disk, &self.spec.schema, self.spec.compression)?;
        let mut sorted =
            self.fill.sorted(&self.spec.order, self.spec.memory.block_bytes(), self.spec.max_rows);
        for block in &mut sorted {
            go_on(&self.stop)?;
            writer.write(block?)?;
        }
        Ok(writer.finish(sorted.n_duplicates()))
    }
}

/// An error if the sort is to stop.
fn go_on(stop: &CancellationToken) -> Result<()> {
    if stop.is_cancelled() { Err(Error::cancelled("sort")) } else { Ok(()) }
}

/// Rows in order, in batches of a block's size.
#[derive(Debug)]
pub struct Sorted {
    rows: Rows,
    report: SortReport,
    room_bytes: u64,
}

#[derive(Debug)]
enum Rows {
    InMemory(SortedFill),
    Merged(Merge),
}

impl Sorted {
    /// What the sort did so far; all of it when the last row was given.
    pub fn report(&self) -> SortReport {
        let n_duplicates = match &self.rows {
            Rows::InMemory(_) => 0,
            Rows::Merged(merge) => merge.n_duplicates(),
        };
        SortReport { n_duplicates: self.report.n_duplicates + n_duplicates, ..self.report }
    }

    /// What is left of the lease: for batches that were given and are still on their way. The widest row fits twice.
    pub fn room_bytes(&self) -> u64 {
        self.room_bytes
    }
}

impl Iterator for Sorted {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = match &mut self.rows {
            Rows::InMemory(rows) => rows.next()?,
            Rows::Merged(merge) => merge.next_output().transpose()?,
        };
        Some(block.map(|block| block.records))
    }
}
