//! Left rows in the order in which they came, kept until the right side is known to be small or large.

use aqueduct_core::rows::{copied, row_bytes, runs};
use aqueduct_core::{Error, ErrorKind, Result, retained_bytes};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::SpillDir;
use crate::beside::Desk;
use crate::sort::SpoolWriter;

/// Of the lease, rows of one part in so many wait in memory, and a row is at most as wide. With more there is
/// no room for both sorts beside them, nor for a right side that becomes a table.
const MEMORY_PART: u64 = 8;
/// Of the lease, a piece in which rows are kept and come back is one part in so many, or a row. Larger ones
/// take too much while they are written, smaller ones are slow.
const PIECE_PART: u64 = 64;

/// Rows that are being kept: the last ones in memory, those before them on disk once there are too many.
pub(super) struct Kept {
    schema: SchemaRef,
    dir: SpillDir,
    most_bytes: u64,
    piece_bytes: u64,
    writer: Option<SpoolWriter>,
    pieces: Vec<RecordBatch>,
    n_bytes: u64,
}

impl Kept {
    pub(super) fn new(desk: &Desk, schema: &SchemaRef) -> Self {
        Self {
            schema: SchemaRef::clone(schema),
            dir: desk.dir.clone(),
            most_bytes: desk.lease.get() / MEMORY_PART,
            piece_bytes: desk.lease.get() / PIECE_PART,
            writer: None,
            pieces: Vec::new(),
            n_bytes: 0,
        }
    }

    /// Adds rows; they are copied.
    pub(super) fn push(&mut self, records: &RecordBatch) -> Result<()> {
        let sizes = row_bytes(records);
        for rows in runs(&sizes, self.piece_bytes) {
            self.make_room(sizes[rows.clone()].iter().sum())?;
            let own = copied(records, rows)?;
            self.n_bytes += retained_bytes(&own).get();
            self.pieces.push(own);
        }
        Ok(())
    }

    fn make_room(&mut self, n_bytes: u64) -> Result<()> {
        if n_bytes > self.most_bytes {
            return Err(self.too_wide(n_bytes));
        }
        if self.n_bytes + n_bytes <= self.most_bytes {
            return Ok(());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(SpoolWriter::create(&self.dir, &self.schema)?),
        };
        self.n_bytes = 0;
        self.pieces.drain(..).try_for_each(|records| writer.write(records))
    }

    fn too_wide(&self, row_bytes: u64) -> Error {
        let message = "a row is too wide for the memory of this step; raise `memory`";
        Error::new(ErrorKind::Limit, "join", message)
            .with("row_bytes", row_bytes)
            .with("limit_bytes", self.most_bytes)
    }

    /// All rows in their order.
    pub(super) fn into_rows(self) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
        let spooled = self.writer.map(|writer| writer.finish().read()).transpose()?;
        Ok(spooled.into_iter().flatten().chain(self.pieces.into_iter().map(Ok)))
    }
}
