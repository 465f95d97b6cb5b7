//! Rows of both sides on their way out, put together when there is a batch of them.

use std::sync::Arc;

use aqueduct_core::rows::row_bytes;
use aqueduct_core::{Error, Result, retained_bytes};
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::interleave;

use super::JoinSpec;
use crate::beside::Output;

/// Rows of one side, and what each weighs.
#[derive(Debug)]
pub(super) struct WeighedRows {
    pub(super) records: RecordBatch,
    sizes: Vec<u32>,
    pub(super) n_bytes: u64,
}

impl WeighedRows {
    pub(super) fn new(records: RecordBatch) -> Arc<Self> {
        let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let sizes = row_bytes(&records).into_iter().map(size).collect();
        let n_bytes = retained_bytes(&records).get();
        Arc::new(Self { records, sizes, n_bytes })
    }

    fn size(&self, row: usize) -> u64 {
        self.sizes.get(row).copied().map_or(0, u64::from)
    }
}

/// Blocks that rows were taken of, and which rows.
#[derive(Default)]
struct Taken {
    blocks: Vec<Arc<WeighedRows>>,
    places: Vec<(usize, usize)>,
    held_bytes: u64,
}

impl Taken {
    fn push(&mut self, block: &Arc<WeighedRows>, row: usize) {
        // Rows of few blocks are taken at a time, mostly of the last one.
        let known = self.blocks.iter().rposition(|other| Arc::ptr_eq(other, block));
        let slot = known.unwrap_or_else(|| {
            self.held_bytes += block.n_bytes;
            self.blocks.push(Arc::clone(block));
            self.blocks.len() - 1
        });
        self.places.push((slot, row));
    }

    /// The rows of some of the columns.
    fn columns(&self, columns: impl Iterator<Item = usize>) -> Result<Vec<ArrayRef>> {
        let column = |at: usize| {
            let arrays: Vec<&dyn Array> =
                self.blocks.iter().map(|block| block.records.column(at).as_ref()).collect();
            interleave(&arrays, &self.places)
                .map_err(|error| Error::bug("join", "rows cannot be put together").with_source(error))
        };
        columns.map(column).collect()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Rows on their way out.
pub(super) struct Pairs<'o> {
    spec: Arc<JoinSpec>,
    out: &'o Output,
    /// At most so many rows in a batch.
    max_rows: usize,
    left: Taken,
    right: Taken,
    /// In the place of a right row where there is none.
    none: Arc<WeighedRows>,
    n_bytes: u64,
}

impl<'o> Pairs<'o> {
    pub(super) fn new(spec: &Arc<JoinSpec>, out: &'o Output, max_rows: usize) -> Result<Self> {
        let fields = spec.columns.right.fields().iter();
        let nullable =
            fields.map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect::<Vec<_>>();
        let nulls = nullable.iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let schema = Arc::new(arrow::datatypes::Schema::new(nullable));
        let none = RecordBatch::try_new_with_options(schema, nulls, &options)
            .map_err(|error| Error::bug("join", "there is no row of nulls").with_source(error))?;
        let (left, right, none) = (Taken::default(), Taken::default(), WeighedRows::new(none));
        Ok(Self { spec: Arc::clone(spec), out, max_rows, left, right, none, n_bytes: 0 })
    }

    /// A left row with a right one.
    pub(super) fn push(
        &mut self,
        left: (&Arc<WeighedRows>, usize),
        right: (&Arc<WeighedRows>, usize),
    ) -> Result<()> {
        let n_bytes = left.0.size(left.1) + right.0.size(right.1);
        self.make_room(n_bytes)?;
        self.left.push(left.0, left.1);
        self.right.push(right.0, right.1);
        self.n_bytes += n_bytes;
        Ok(())
    }

    /// A left row alone.
    pub(super) fn push_alone(&mut self, block: &Arc<WeighedRows>, row: usize) -> Result<()> {
        let none = Arc::clone(&self.none);
        self.push((block, row), (&none, 0))
    }

    /// All rows of a block, each alone.
    pub(super) fn push_all_alone(&mut self, block: &Arc<WeighedRows>) -> Result<()> {
        (0..block.records.num_rows()).try_for_each(|row| self.push_alone(block, row))
    }

    fn make_room(&mut self, n_bytes: u64) -> Result<()> {
        let most = self.out.batch_bytes().get();
        let held = self.left.held_bytes + self.right.held_bytes;
        let is_full = self.left.places.len() >= self.max_rows || self.n_bytes + n_bytes > most;
        if is_full || held > 4 * most {
            self.flush()?;
        }
        Ok(())
    }

    /// Gives what there is.
    pub(super) fn flush(&mut self) -> Result<()> {
        if self.left.places.is_empty() {
            return Ok(());
        }
        let columns = &self.spec.columns;
        let mut made = self.left.columns(0..columns.left.fields().len())?;
        made.extend(self.right.columns(columns.kept.iter().copied())?);
        let options = RecordBatchOptions::new().with_row_count(Some(self.left.places.len()));
        let records = RecordBatch::try_new_with_options(Arc::clone(&columns.output), made, &options)
            .map_err(|error| Error::bug("join", "rows do not fit the columns").with_source(error))?;
        self.left.clear();
        self.right.clear();
        self.n_bytes = 0;
        self.out.send_blocking(records, false)
    }
}
