//! Files as they are, in pieces: no copy is made of bytes that come as they are.

use std::sync::Arc;

use aqueduct_core::{Error, Result};
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use bytes::Bytes;

use crate::unpack::Unpacker;
use crate::{DecodeSpec, Decoded, DecodedStream, NeedsSpool};

/// Bytes in a row at most.
const MAX_PIECE: usize = 256 << 10;

/// The pieces of a file: `_file`, `_offset`, `bytes`. An empty file has one empty piece, so that it is
/// written where files are written.
pub(crate) fn decode_binary(mut unpacker: Unpacker, spec: DecodeSpec) -> DecodedStream {
    Box::pin(try_stream! {
        let mut offset = spec.after.as_ref().map_or(0, |after| after.n_rows);
        while unpacker.next_member().await.map_err(|error| located(error, offset))? {
            while let Some(bytes) =
                unpacker.next_bytes(MAX_PIECE).await.map_err(|error| located(error, offset))?
            {
                let end = offset + bytes.len() as u64;
                let n_skipped = usize::try_from(spec.skip.saturating_sub(offset)).unwrap_or(usize::MAX);
                if n_skipped < bytes.len() {
                    let left = bytes.slice(n_skipped..);
                    yield piece(&spec, offset + n_skipped as u64, left)?;
                }
                offset = end;
            }
        }
        if offset == 0 && spec.skip == 0 {
            yield piece(&spec, 0, Bytes::new())?;
        }
    })
}

/// Says how far the file was read, where the rest must be read from a disk.
fn located(error: Error, offset: u64) -> Error {
    match NeedsSpool::of(&error) {
        Some(needs) => needs.after_rows(offset),
        None => error,
    }
}

fn piece(spec: &DecodeSpec, offset: u64, bytes: Bytes) -> Result<Decoded> {
    let rows_read = (bytes.len() as u64).max(1);
    let records = row(&spec.schema, &spec.name, offset, bytes)
        .map_err(|error| Error::bug("decode", "a piece does not fit its columns").with_source(error))?;
    Ok(Decoded { records, rows_read, rejects: Vec::new(), reservation: Default::default() })
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
