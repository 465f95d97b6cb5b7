//! Rows to bytes: NDJSON, JSON, CSV, Arrow and Parquet files, written as the rows come.
//!
//! [`WriteFormat::encoder`] gives an [`Encoder`] over anything that takes bytes. All calls compute and write:
//! make them through `Tasks::compute` from async code. What an encoder holds back it tells
//! ([`Encoder::memory`]) and can be made to let go of ([`Encoder::flush`]).
//!
//! | | in JSON | in CSV |
//! |---|---|---|
//! | null | `null` | nothing between the delimiters |
//! | time with a zone | RFC 3339, `Z` for UTC | the same |
//! | time without a zone | RFC 3339 without an offset | the same |
//! | NaN, infinities | `null` | `NaN`, `inf`, `-inf` |
//! | bytes | base64 (RFC 4648, padded) | the same |
//! | list, struct, map | array, object | JSON text |

mod arrow_file;
mod compress;
mod csv;
mod error;
mod geo;
mod json;
mod parallel;
mod parquet_file;

use std::io::Write;
use std::sync::Arc;

use aqueduct_core::Result;
use aqueduct_primitives::ByteCount;
use arrow::array::new_null_array;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

pub use arrow_file::ArrowCompression;
pub use compress::{CompressedWriter, TextCompression};
pub use geo::{GeoColumns, wrong_geometries};
pub use parquet_file::{ParquetCompression, ParquetOptions};

/// Turns rows into the bytes of one file. `W` takes the bytes and comes back at the end.
pub trait Encoder<W>: Send {
    /// Writes rows after those before.
    ///
    /// # Errors
    /// They cannot be encoded, or `W` fails; the encoder is then of no more use.
    fn write(&mut self, records: &RecordBatch) -> Result<()>;

    /// The bytes that it holds back now.
    fn memory(&self) -> ByteCount;

    /// Lets go of as much as the format allows: a Parquet file ends its row group.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Whether the file had better end here, because its index keeps growing in memory.
    fn is_full(&self) -> bool {
        false
    }

    /// Completes the file. One without rows still has its columns, where the format can say them.
    ///
    /// # Errors
    /// As [`Encoder::write`].
    fn finish(self: Box<Self>) -> Result<W>;
}

/// How to write a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteFormat {
    /// One JSON object a line.
    Ndjson(TextCompression),
    /// One array of JSON objects (RFC 8259).
    Json(TextCompression),
    /// Comma-separated values with a header (RFC 4180, lines end in LF).
    Csv(TextCompression),
    /// Arrow IPC file.
    Arrow(ArrowCompression),
    /// Apache Parquet.
    Parquet(ParquetOptions),
}

impl WriteFormat {
    /// Its name, as the sink has it that writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ndjson(_) => "ndjson",
            Self::Json(_) => "json",
            Self::Csv(_) => "csv",
            Self::Arrow(_) => "arrow",
            Self::Parquet(_) => "parquet",
        }
    }

    /// What names of such files end in, without the first dot: `parquet`, `ndjson.gz`.
    pub fn suffix(&self) -> String {
        match self {
            Self::Ndjson(compression) => format!("ndjson{}", compression.suffix()),
            Self::Json(compression) => format!("json{}", compression.suffix()),
            Self::Csv(compression) => format!("csv{}", compression.suffix()),
            Self::Arrow(_) => "arrow".into(),
            Self::Parquet(_) => "parquet".into(),
        }
    }

    /// With less memory than this, a file of these columns cannot be written well.
    pub fn least_memory(&self, n_leaves: usize) -> ByteCount {
        match self {
            Self::Ndjson(compression) | Self::Json(compression) | Self::Csv(compression) => {
                ByteCount::kib(64).saturating_add(compression.memory())
            }
            Self::Arrow(_) => ByteCount::kib(64),
            Self::Parquet(_) => parquet_file::least_memory(n_leaves),
        }
    }

    /// Begins a file. `memory` is what the encoder should hold back at most; Parquet cuts its pages by it.
    ///
    /// # Errors
    /// The format has no such columns, or `out` fails.
    pub fn encoder<W: Write + Send + 'static>(
        &self,
        schema: SchemaRef,
        out: W,
        memory: ByteCount,
    ) -> Result<Box<dyn Encoder<W>>> {
        Ok(match self {
            Self::Ndjson(compression) => json::lines(CompressedWriter::new(out, *compression), schema)?,
            Self::Json(compression) => json::array(CompressedWriter::new(out, *compression), schema)?,
            Self::Csv(compression) => {
                Box::new(csv::CsvEncoder::new(CompressedWriter::new(out, *compression), schema)?)
            }
            Self::Arrow(compression) => Box::new(arrow_file::ArrowEncoder::new(out, &schema, *compression)?),
            Self::Parquet(options) => {
                Box::new(parquet_file::ParquetEncoder::new(out, schema, options, memory)?)
            }
        })
    }

    /// Whether the format has such columns.
    ///
    /// # Errors
    /// It has not; the message names what it lacks.
    pub fn check(&self, schema: &SchemaRef) -> Result<()> {
        // Some types are refused only when a value is written, so one row of nulls is.
        let nullable = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let nulls = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::clone(&schema), nulls, &options)
            .map_err(|cause| error::encode("file", "the columns cannot be written", cause))?;
        let mut encoder = self.encoder(schema, std::io::sink(), ByteCount::mib(1))?;
        encoder.write(&row)?;
        encoder.finish().map(drop)
    }
}

/// The columns that are not made of other columns, as a file of columns stores them.
pub fn n_leaves(schema: &SchemaRef) -> usize {
    schema.fields().iter().map(|field| leaves_of(field.data_type())).sum()
}

fn leaves_of(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| leaves_of(field.data_type())).sum(),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => leaves_of(field.data_type()),
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
