//! Rows on disk in the order in which they came, to be read as often as asked for.

use std::sync::Arc;

use aqueduct_core::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::SortedBlock;
use super::run::{Run, RunReader, RunWriter};
use crate::disk::SpillDir;

/// Rows on disk; the file is removed when this and its last reader are dropped.
#[derive(Debug)]
pub(crate) struct Spool {
    run: Arc<Run>,
}

/// Writes a spool.
pub(crate) struct SpoolWriter {
    writer: RunWriter,
}

impl SpoolWriter {
    pub(crate) fn create(dir: &SpillDir, schema: &SchemaRef) -> Result<Self> {
        Ok(Self { writer: RunWriter::create(dir, schema, None)? })
    }

    /// Adds the next rows. They come back in batches of the same rows; of none, no batch comes back.
    pub(crate) fn write(&mut self, records: RecordBatch) -> Result<()> {
        if records.num_rows() == 0 {
            return Ok(());
        }
        self.writer.write(SortedBlock { records, key_bytes: 0, widest_key: 0 })
    }

    pub(crate) fn finish(self) -> Spool {
        Spool { run: Arc::new(self.writer.finish(0)) }
    }
}

impl Spool {
    /// The rows, from the first one on.
    pub(crate) fn read(&self) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
        let mut reader = RunReader::open(Arc::clone(&self.run))?;
        Ok(std::iter::from_fn(move || reader.next_records().transpose()))
    }
}
