//! NDJSON and one array of objects, by `arrow-json`; nulls are written out, bytes as base64.

use std::fmt::Debug;
use std::io::Write;
use std::sync::Arc;

use aqueduct_core::Result;
use aqueduct_primitives::ByteCount;
use arrow::array::{Array, ArrayAccessor, AsArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow_json::writer::{JsonArray, JsonFormat, LineDelimited, NullableEncoder, Writer, make_encoder};
use arrow_json::{Encoder as JsonEncoder, EncoderFactory, EncoderOptions, WriterBuilder};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{CompressedWriter, Encoder, error};

/// `arrow-json` passes rows on in pieces of 8 KiB and more; its buffer then holds one row on top.
const BUFFER: ByteCount = ByteCount::kib(16);

/// One object a line.
pub(super) fn lines<W: Write + Send + 'static>(
    out: CompressedWriter<W>,
    schema: SchemaRef,
) -> Result<Box<dyn Encoder<W>>> {
    JsonText::<_, LineDelimited>::boxed("ndjson", out, schema)
}

/// One array.
pub(super) fn array<W: Write + Send + 'static>(
    out: CompressedWriter<W>,
    schema: SchemaRef,
) -> Result<Box<dyn Encoder<W>>> {
    JsonText::<_, JsonArray>::boxed("json", out, schema)
}

struct JsonText<W: Write, F: JsonFormat> {
    name: &'static str,
    writer: Writer<CompressedWriter<W>, F>,
}

impl<W: Write + Send + 'static, F: JsonFormat + Send + 'static> JsonText<W, F> {
    fn boxed(name: &'static str, out: CompressedWriter<W>, schema: SchemaRef) -> Result<Box<dyn Encoder<W>>> {
        check(&schema).map_err(|cause| error::encode(name, "a column has a type that JSON lacks", cause))?;
        let builder = WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Base64));
        Ok(Box::new(Self { name, writer: builder.build(out) }))
    }
}

impl<W: Write + Send, F: JsonFormat + Send> Encoder<W> for JsonText<W, F> {
    fn write(&mut self, records: &RecordBatch) -> Result<()> {
        self.writer
            .write(records)
            .map_err(|cause| error::encode(self.name, "a value cannot be written as JSON", cause))
    }

    fn memory(&self) -> ByteCount {
        BUFFER.saturating_add(self.writer.get_ref().memory())
    }

    fn finish(mut self: Box<Self>) -> Result<W> {
        let name = self.name;
        let failed = |cause| error::encode(name, "the file could not be completed", cause);
        self.writer.finish().map_err(failed)?;
        let out = self.writer.into_inner();
        out.finish().map_err(|cause| error::encode(name, "the file could not be completed", cause))
    }
}

/// The options of every JSON value here.
pub(super) fn options() -> EncoderOptions {
    EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Base64))
}

fn check(schema: &SchemaRef) -> Result<(), ArrowError> {
    let rows = StructArray::from(RecordBatch::new_empty(Arc::clone(schema)));
    let field = Arc::new(Field::new_struct("", schema.fields().clone(), false));
    make_encoder(&field, &rows, &options()).map(drop)
}

/// Bytes as base64, in the place of `arrow-json`'s hexadecimal digits.
#[derive(Debug)]
struct Base64;

impl EncoderFactory for Base64 {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn JsonEncoder + 'a> = match array.data_type() {
            DataType::Binary => Box::new(Base64Values(array.as_binary::<i32>())),
            DataType::LargeBinary => Box::new(Base64Values(array.as_binary::<i64>())),
            DataType::BinaryView => Box::new(Base64Values(array.as_binary_view())),
            DataType::FixedSizeBinary(_) => Box::new(Base64Values(array.as_fixed_size_binary())),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Base64Values<A>(A);

impl<'a, A: ArrayAccessor<Item = &'a [u8]>> JsonEncoder for Base64Values<A> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(BASE64_STANDARD.encode(self.0.value(row)).as_bytes());
        out.push(b'"');
    }
}
