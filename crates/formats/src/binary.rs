//! Files as they are, in pieces: no copy is made of bytes that come as they are.

use std::sync::Arc;

use aqueduct_core::{Error, Result};
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use bytes::Bytes;

use crate::unpack::Unpacker;
use crate::{DecodeSpec, Decoded, DecodedStream};

/// Bytes in a row at most.
const MAX_PIECE: usize = 256 << 10;

/// The pieces of a file: `_file`, `_offset`, `bytes`. An empty file has one empty piece, so that it is
/// written where files are written.
pub(crate) fn decode_binary(mut unpacker: Unpacker, spec: DecodeSpec) -> DecodedStream {
    Box::pin(try_stream! {
        let mut offset = 0;
        while unpacker.next_member().await? {
            while let Some(bytes) = unpacker.next_bytes(MAX_PIECE).await? {
                let n = bytes.len() as u64;
                yield piece(&spec, offset, bytes)?;
                offset += n;
            }
        }
        if offset == 0 {
            yield piece(&spec, 0, Bytes::new())?;
        }
    })
}

fn piece(spec: &DecodeSpec, offset: u64, bytes: Bytes) -> Result<Decoded> {
    let records = row(&spec.schema, &spec.name, offset, bytes)
        .map_err(|error| Error::bug("decode", "a piece does not fit its columns").with_source(error))?;
    Ok(Decoded { records, rows_read: 1, rejects: Vec::new(), reservation: Default::default() })
}

fn row(
    schema: &SchemaRef,
    name: &str,
    offset: u64,
    bytes: Bytes,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let offsets = OffsetBuffer::from_lengths([bytes.len()]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values([name])),
        Arc::new(UInt64Array::from_iter_values([offset])),
        Arc::new(BinaryArray::try_new(offsets, Buffer::from(bytes), None)?),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns)
}
