//! What flows: rows, the memory they take, and what of the source they complete.

use std::collections::HashSet;
use std::sync::Arc;

use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::{Array, ArrayData, RecordBatch};
use arrow::datatypes::SchemaRef;

use crate::Positions;

/// Rows on their way, with the [`Reservation`] that covers them and the source [`Positions`] they complete.
///
/// A stage that drops all rows still passes the positions on, in an empty batch. A `cut` batch asks sinks
/// that write files to start a new file with it.
#[derive(Debug)]
pub struct Batch {
    records: RecordBatch,
    reservation: Reservation,
    positions: Positions,
    cut: bool,
}

impl Batch {
    /// Rows and what is reserved for them.
    pub fn new(records: RecordBatch, reservation: Reservation) -> Self {
        Self { records, reservation, positions: Positions::default(), cut: false }
    }

    /// No rows, only positions.
    pub fn only_positions(schema: SchemaRef, positions: Positions) -> Self {
        Self { positions, ..Self::new(RecordBatch::new_empty(schema), Reservation::empty()) }
    }

    /// Sets what of the source is complete once these rows are.
    #[must_use]
    pub fn with_positions(mut self, positions: Positions) -> Self {
        self.positions = positions;
        self
    }

    /// Asks for a new file, or not.
    #[must_use]
    pub fn with_cut(mut self, cut: bool) -> Self {
        self.cut = cut;
        self
    }

    /// The rows.
    pub fn records(&self) -> &RecordBatch {
        &self.records
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        self.records.schema()
    }

    /// How many rows.
    pub fn num_rows(&self) -> usize {
        self.records.num_rows()
    }

    /// What is complete of the source once these rows are.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Takes the mark of a checkpoint off: where streams merge, it is given when all of them have given it.
    pub fn take_checkpoint(&mut self) -> Option<u64> {
        self.positions.take_checkpoint()
    }

    /// Whether a new file is to begin with this batch.
    pub fn cut(&self) -> bool {
        self.cut
    }

    /// The bytes reserved for it.
    pub fn reserved(&self) -> ByteCount {
        self.reservation.size()
    }

    /// The reservation, to grow, shrink or attach to.
    pub fn reservation_mut(&mut self) -> &mut Reservation {
        &mut self.reservation
    }

    /// Rows, reservation, positions and cut apart.
    pub fn into_parts(self) -> (RecordBatch, Reservation, Positions, bool) {
        (self.records, self.reservation, self.positions, self.cut)
    }

    /// Other rows in the place of these, under the same reservation, which is made smaller when they weigh
    /// less. When they may weigh more, use [`Context::recharge`](crate::Context::recharge).
    #[must_use]
    pub fn with_records(mut self, records: RecordBatch) -> Self {
        self.reservation.shrink_to(retained_bytes(&records));
        self.records = records;
        self
    }

    /// `n` batches with these rows, for so many readers. They share one reservation, which goes back when the
    /// last of them is dropped.
    pub fn share(self, n: usize) -> Vec<Self> {
        let shared = Arc::new(self.reservation);
        let one = || {
            let mut reservation = Reservation::empty();
            reservation.attach(Arc::clone(&shared));
            Self {
                records: self.records.clone(),
                reservation,
                positions: self.positions.clone(),
                cut: self.cut,
            }
        };
        std::iter::repeat_with(one).take(n).collect()
    }
}

/// The bytes that these rows keep alive: every buffer once, by its capacity (invariant MEM-3).
///
/// A slice keeps its whole parent alive and weighs as much; a buffer shared by columns weighs once. Arrow's
/// own size methods count such buffers twice or not at all, and are banned in `clippy.toml`.
pub fn retained_bytes(records: &RecordBatch) -> ByteCount {
    let mut seen = HashSet::new();
    records.columns().iter().map(|column| buffers_of(&column.to_data(), &mut seen)).sum()
}

/// [`retained_bytes`] of one array.
pub fn array_bytes(array: &dyn Array) -> ByteCount {
    buffers_of(&array.to_data(), &mut HashSet::new())
}

fn buffers_of(data: &ArrayData, seen: &mut HashSet<usize>) -> ByteCount {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    let own: ByteCount = data
        .buffers()
        .iter()
        .chain(nulls)
        .filter(|buffer| seen.insert(buffer.data_ptr().as_ptr().addr()))
        .map(|buffer| ByteCount::of(buffer.capacity()))
        .sum();
    let children: ByteCount = data.child_data().iter().map(|child| buffers_of(child, seen)).sum();
    own.saturating_add(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_primitives::Budget;
    use arrow::array::{ArrayRef, Int64Array};

    fn rows(n: i64) -> RecordBatch {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
        RecordBatch::try_from_iter([("a", Arc::clone(&ids)), ("b", ids)]).unwrap()
    }

    // MEM-3
    #[test]
    fn shared_buffers_weigh_once_and_slices_weigh_their_parent() {
        let records = rows(1000);
        let whole = retained_bytes(&records);
        assert!((8000..8200).contains(&whole.get()), "{whole}");
        assert_eq!(retained_bytes(&records.slice(10, 1)), whole);
    }

    // MEM-1
    #[test]
    fn shared_batches_give_back_when_the_last_is_gone() {
        let budget = Budget::new("test", ByteCount::kib(64));
        let batch = Batch::new(rows(1000), budget.try_reserve(ByteCount::new(8000)).unwrap());
        let mut both = batch.share(2);
        both.pop();
        assert_eq!(budget.free().get(), 65536 - 8000);
        both.pop();
        assert_eq!(budget.free().get(), 65536);
    }
}
