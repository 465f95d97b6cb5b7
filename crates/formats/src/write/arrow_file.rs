//! Arrow IPC files (the file format with its footer), by `arrow-ipc`.

use std::io::Write;
use std::sync::Arc;

use aqueduct_core::Result;
use aqueduct_primitives::ByteCount;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Encoder, error};

/// A batch's place in the footer.
const BLOCK_BYTES: u64 = 24;
/// A footer of 16 MiB; a folder goes on in a new file.
const MAX_BLOCKS: u64 = (16 << 20) / BLOCK_BYTES;

/// How the buffers in an Arrow file are compressed. Readers unpack them by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArrowCompression {
    /// Not at all: the file can be mapped into memory and used as it is.
    #[default]
    None,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

pub(super) struct ArrowEncoder<W: Write> {
    writer: FileWriter<W>,
    schema: SchemaRef,
    n_batches: u64,
}

impl<W: Write + Send> ArrowEncoder<W> {
    pub(super) fn new(out: W, schema: &SchemaRef, compression: ArrowCompression) -> Result<Self> {
        let schema = without_dictionaries(schema);
        let compression = match compression {
            ArrowCompression::None => None,
            ArrowCompression::Lz4 => Some(CompressionType::LZ4_FRAME),
            ArrowCompression::Zstd => Some(CompressionType::ZSTD),
        };
        let writer = IpcWriteOptions::default()
            .try_with_compression(compression)
            .and_then(|options| FileWriter::try_new_with_options(out, &schema, options))
            .map_err(|cause| failed("an arrow file cannot have these columns", cause))?;
        Ok(Self { writer, schema, n_batches: 0 })
    }

    fn plain(&self, records: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = self.schema.fields().iter().zip(records.columns());
        let columns =
            columns.map(|(field, column)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }
}

fn failed(message: &str, cause: ArrowError) -> aqueduct_core::Error {
    error::encode("arrow", message, cause)
}

impl<W: Write + Send> Encoder<W> for ArrowEncoder<W> {
    fn write(&mut self, records: &RecordBatch) -> Result<()> {
        if records.num_rows() == 0 {
            return Ok(());
        }
        self.n_batches += 1;
        self.plain(records)
            .and_then(|records| self.writer.write(&records))
            .map_err(|cause| failed("the rows cannot be written", cause))
    }

    fn memory(&self) -> ByteCount {
        ByteCount::new(self.n_batches * BLOCK_BYTES)
    }

    fn is_full(&self) -> bool {
        self.n_batches >= MAX_BLOCKS
    }

    fn finish(mut self: Box<Self>) -> Result<W> {
        self.writer.finish().map_err(|cause| failed("the file could not be completed", cause))?;
        self.writer.into_inner().map_err(|cause| failed("the file could not be completed", cause))
    }
}

/// The file format allows one dictionary a column; batches bring their own, so values are written out.
fn without_dictionaries(schema: &SchemaRef) -> SchemaRef {
    let plain = |field: &Arc<Field>| match field.data_type() {
        DataType::Dictionary(_, values) => {
            Arc::new(field.as_ref().clone().with_data_type((**values).clone()))
        }
        _ => Arc::clone(field),
    };
    let fields: Vec<_> = schema.fields().iter().map(plain).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}
