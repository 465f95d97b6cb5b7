//! CSV, by `arrow-csv`. What CSV cannot say (lists, structs, maps, bytes) is written as text.

use std::io::Write;
use std::sync::Arc;

use aqueduct_core::Result;
use aqueduct_primitives::ByteCount;
use arrow::array::{Array, ArrayRef, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_csv::WriterBuilder;
use arrow_json::writer::make_encoder;

use super::{CompressedWriter, Encoder, error, json};

/// Rows are turned into text so many at a time, so that the text of a batch is never held whole.
const ROWS_AT_ONCE: usize = 512;

pub(super) struct CsvEncoder<W> {
    out: CompressedWriter<W>,
    schema: SchemaRef,
    as_text: SchemaRef,
    has_header: bool,
    text: Vec<u8>,
}

impl<W: Write + Send> CsvEncoder<W> {
    pub(super) fn new(out: CompressedWriter<W>, schema: SchemaRef) -> Result<Self> {
        let as_text = Arc::new(Schema::new(schema.fields().iter().map(text_field).collect::<Vec<_>>()));
        let encoder = Self { out, schema, as_text, has_header: false, text: Vec::new() };
        let empty = RecordBatch::new_empty(Arc::clone(&encoder.schema));
        encoder.as_text(&empty).map_err(|cause| failed("a column has a type that CSV lacks", cause))?;
        Ok(encoder)
    }

    fn as_text(&self, records: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = self.schema.fields().iter().zip(records.columns());
        let columns = columns.map(|(field, column)| text_column(field, column)).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.as_text), columns, &options)
    }

    fn write_some(&mut self, records: &RecordBatch) -> Result<()> {
        self.text.clear();
        let records = self.as_text(records).map_err(|cause| failed("a value has no text", cause))?;
        WriterBuilder::new()
            .with_header(!self.has_header)
            .build(&mut self.text)
            .write(&records)
            .map_err(|cause| failed("a value has no text", cause))?;
        self.has_header = true;
        self.out.write_all(&self.text).map_err(|cause| error::encode("csv", "", cause))
    }
}

fn failed(message: &str, cause: ArrowError) -> aqueduct_core::Error {
    error::encode("csv", message, cause)
}

impl<W: Write + Send> Encoder<W> for CsvEncoder<W> {
    fn write(&mut self, records: &RecordBatch) -> Result<()> {
        let n_rows = records.num_rows();
        for first in (0..n_rows).step_by(ROWS_AT_ONCE) {
            self.write_some(&records.slice(first, ROWS_AT_ONCE.min(n_rows - first)))?;
        }
        Ok(())
    }

    fn memory(&self) -> ByteCount {
        ByteCount::of(self.text.capacity()).saturating_add(self.out.memory())
    }

    fn flush(&mut self) -> Result<()> {
        self.text = Vec::new();
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<W> {
        if !self.has_header {
            self.write_some(&RecordBatch::new_empty(Arc::clone(&self.schema)))?;
        }
        self.out.finish().map_err(|cause| error::encode("csv", "", cause))
    }
}

fn text_field(field: &FieldRef) -> FieldRef {
    if needs_text(field.data_type()) {
        Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable()))
    } else {
        Arc::clone(field)
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary};
    matches!(data_type, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

fn needs_text(data_type: &DataType) -> bool {
    data_type.is_nested() || is_bytes(data_type)
}

/// JSON text of each value; of bytes, the base64 without its quotes.
fn text_column(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if !needs_text(column.data_type()) {
        return Ok(Arc::clone(column));
    }
    let options = json::options();
    let mut values = make_encoder(field, column.as_ref(), &options)?;
    let mut texts = StringBuilder::new();
    let mut text = Vec::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        values.encode(row, &mut text);
        let text = std::str::from_utf8(&text).map_err(|cause| ArrowError::CsvError(cause.to_string()))?;
        texts.append_value(if is_bytes(column.data_type()) { text.trim_matches('"') } else { text });
    }
    Ok(Arc::new(texts.finish()))
}
