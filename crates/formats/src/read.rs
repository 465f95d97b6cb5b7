//! Reading a file: from a stream of bytes, or by range.

use std::sync::Arc;

use aqueduct_core::{ByteStream, Error, RandomAccess, Result};
use aqueduct_primitives::Tasks;
use arrow::datatypes::SchemaRef;

use crate::{DecodeSpec, DecodedLimits, DecodedStream, Format, ReadOptions};

/// Whether a file of this name is to be read with [`decode_file`] rather than [`decode`], as far as name and
/// options tell. When they do not, [`decode`] fails with [`NeedsSpool`](crate::NeedsSpool).
pub fn needs_random_access(name: &str, options: &ReadOptions) -> bool {
    let format = options.format.named().or_else(|| Format::of_name(name));
    format.is_some_and(Format::needs_random_access)
}

/// The rows of a file that comes as a stream, in order. Decompression and decoding run as compute jobs of
/// `tasks`; a bounded number of blocks is in flight.
///
/// # Errors
/// In the stream: what is wrong with the whole file, or [`NeedsSpool`](crate::NeedsSpool).
pub fn decode(body: ByteStream, spec: DecodeSpec, tasks: &Tasks) -> DecodedStream {
    let _ = (body, spec, tasks);
    Box::pin(futures::stream::once(async { Err(Error::bug("decode", "not there yet")) }))
}

/// The rows of a file that is read by range, in order: of any format, best for Parquet, Arrow and zip.
///
/// # Errors
/// In the stream: what is wrong with the whole file.
pub fn decode_file(file: Arc<dyn RandomAccess>, spec: DecodeSpec, tasks: &Tasks) -> DecodedStream {
    let _ = (file, spec, tasks);
    Box::pin(futures::stream::once(async { Err(Error::bug("decode", "not there yet")) }))
}

/// The columns of a file that comes as a stream: the declared ones, else those of its first rows. Reads no
/// more of the body than it needs.
///
/// # Errors
/// It cannot be read, or [`NeedsSpool`](crate::NeedsSpool).
///
/// # Cancel safety
/// Dropping the future drops the body.
pub async fn infer(
    body: ByteStream,
    name: &str,
    options: &ReadOptions,
    limits: DecodedLimits,
    tasks: &Tasks,
) -> Result<SchemaRef> {
    let _ = (body, name, options, limits, tasks);
    Err(Error::bug("infer", "not there yet"))
}

/// The columns of a file that is read by range. As [`infer`].
///
/// # Errors
/// It cannot be read.
///
/// # Cancel safety
/// Dropping the future loses nothing.
pub async fn infer_file(
    file: Arc<dyn RandomAccess>,
    name: &str,
    options: &ReadOptions,
    limits: DecodedLimits,
    tasks: &Tasks,
) -> Result<SchemaRef> {
    let _ = (file, name, options, limits, tasks);
    Err(Error::bug("infer", "not there yet"))
}
