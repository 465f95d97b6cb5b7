//! Reading a file: from a stream of bytes, or by range.

use std::sync::Arc;

use aqueduct_core::{ByteStream, Error, RandomAccess, Result};
use aqueduct_primitives::Tasks;
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::StreamExt;

use crate::binary::decode_binary;
use crate::columnar::{decode_columnar, infer_columnar};
use crate::stac::in_layout;
use crate::text::{Inference, decode_text, infer_text};
use crate::unpack::Unpacker;
use crate::{
    Compression, DecodeSpec, DecodedLimits, DecodedStream, Format, NeedsSpool, ReadOptions, declared_schema,
};

/// Whether a file of this name is to be read with [`decode_file`] rather than [`decode`], as far as name and
/// options tell. When they do not, [`decode`] fails with [`NeedsSpool`](crate::NeedsSpool).
pub fn needs_random_access(name: &str, options: &ReadOptions) -> bool {
    format_by_name(name, options).is_some_and(Format::needs_random_access)
}

fn format_by_name(name: &str, options: &ReadOptions) -> Option<Format> {
    match (options.format.named(), Format::of_name(name)) {
        // Items may lie in Parquet, too.
        (Some(Format::Stac), Some(by_name)) if by_name.needs_random_access() => Some(by_name),
        (named, by_name) => named.or(by_name),
    }
}

/// The compression that the options name; binary files stay as they are unless one is named.
fn compression(options: &ReadOptions) -> Option<Compression> {
    let is_binary = options.format.named() == Some(Format::Binary);
    options.compression.named().or(is_binary.then_some(Compression::None))
}

/// The rows of a file that comes as a stream, in order. Decompression and decoding run as compute jobs of
/// `tasks`; a bounded number of blocks is in flight.
///
/// # Errors
/// In the stream: what is wrong with the whole file, or [`NeedsSpool`](crate::NeedsSpool).
pub fn decode(body: ByteStream, spec: DecodeSpec, tasks: &Tasks) -> DecodedStream {
    let tasks = tasks.clone();
    let name = Arc::clone(&spec.name);
    let stream = try_stream! {
        let named = compression(&spec.options);
        if needs_random_access(&spec.name, &spec.options) {
            Err(NeedsSpool::error(0, "the format is read from its end"))?;
        }
        let unpacker = Unpacker::of_stream(body, &spec.name, named, spec.limits, &tasks).await?;
        let mut rows = decode_unpacked(unpacker, spec, &tasks);
        while let Some(decoded) = rows.next().await {
            yield decoded?;
        }
    };
    in_file(name, stream)
}

/// The rows of a file that is read by range, in order: of any format, best for Parquet, Arrow and zip.
///
/// # Errors
/// In the stream: what is wrong with the whole file.
pub fn decode_file(file: Arc<dyn RandomAccess>, spec: DecodeSpec, tasks: &Tasks) -> DecodedStream {
    let tasks = tasks.clone();
    let name = Arc::clone(&spec.name);
    let stream = try_stream! {
        let mut rows = match columnar_format(&file, &spec.name, &spec.options).await? {
            Some(format) => {
                let skip = spec.skip;
                without_first(decode_columnar(file, format, spec, &tasks), 0, skip)
            }
            None => {
                let from = spec.after.as_ref().map_or(0, |after| after.offset);
                let named = compression(&spec.options);
                let unpacker = Unpacker::of_file(&file, from, &spec.name, named, spec.limits, &tasks).await?;
                decode_unpacked(unpacker, spec, &tasks)
            }
        };
        while let Some(decoded) = rows.next().await {
            yield decoded?;
        }
    };
    in_file(name, stream)
}

fn decode_unpacked(unpacker: Unpacker, spec: DecodeSpec, tasks: &Tasks) -> DecodedStream {
    match spec.options.format.named() {
        Some(Format::Binary) => decode_binary(unpacker, spec),
        _ => {
            let (n_before, skip) = (spec.after.as_ref().map_or(0, |after| after.n_rows), spec.skip);
            without_first(decode_text(unpacker, spec, tasks), n_before, skip)
        }
    }
}

/// Leaves out the rows up to `skip`, of a stream that begins after `n_before` others.
fn without_first(mut rows: DecodedStream, mut n_before: u64, skip: u64) -> DecodedStream {
    if skip <= n_before {
        return rows;
    }
    Box::pin(try_stream! {
        while let Some(decoded) = rows.next().await {
            let decoded = decoded?;
            let n_read = decoded.rows_read;
            if let Some(left) = decoded.after(skip, n_before) {
                yield left;
            }
            n_before += n_read;
        }
    })
}

/// Parquet or Arrow, by name or by the first bytes; nothing for what is read in order.
async fn columnar_format(
    file: &Arc<dyn RandomAccess>,
    name: &str,
    options: &ReadOptions,
) -> Result<Option<Format>> {
    match format_by_name(name, options) {
        None | Some(Format::Stac) => Ok(Format::columnar(&file.read(0..file.len().min(8)).await?)),
        Some(format) => Ok(Some(format).filter(|format| format.needs_random_access())),
    }
}

/// Says in errors which file it was.
fn in_file(
    name: Arc<str>,
    stream: impl futures::Stream<Item = Result<crate::Decoded>> + Send + 'static,
) -> DecodedStream {
    Box::pin(stream.map(move |item| item.map_err(|error| named(error, &name))))
}

fn named(error: Error, name: &str) -> Error {
    if error.context("file").is_some() { error } else { error.with("file", name) }
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
    look(body, name, options, limits, tasks).await?.schema().map_err(|error| named(error, name))
}

/// What the first rows of a file look like that comes as a stream, `infer_rows` of them: to be merged with what others look
/// like. Reads no more of the body than it needs.
///
/// # Errors
/// As [`infer`].
///
/// # Cancel safety
/// Dropping the future drops the body.
pub async fn look(
    body: ByteStream,
    name: &str,
    options: &ReadOptions,
    limits: DecodedLimits,
    tasks: &Tasks,
) -> Result<Inference> {
    if let Some(schema) = declared_schema(options, format_by_name(name, options))? {
        return Ok(Inference::of_columns(schema));
    }
    if needs_random_access(name, options) {
        return Err(named(NeedsSpool::error(0, "the format is read from its end"), name));
    }
    let result = async {
        let unpacker = Unpacker::of_stream(body, name, compression(options), limits, tasks).await?;
        infer_text(unpacker, name, options, tasks).await
    };
    result.await.map_err(|error| named(error, name))
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
    look_at_file(file, name, options, limits, tasks).await?.schema().map_err(|error| named(error, name))
}

/// What the first rows of a file look like that is read by range. As [`look`].
///
/// # Errors
/// It cannot be read.
///
/// # Cancel safety
/// Dropping the future loses nothing.
pub async fn look_at_file(
    file: Arc<dyn RandomAccess>,
    name: &str,
    options: &ReadOptions,
    limits: DecodedLimits,
    tasks: &Tasks,
) -> Result<Inference> {
    if let Some(schema) = declared_schema(options, format_by_name(name, options))? {
        return Ok(Inference::of_columns(schema));
    }
    let result = async {
        if let Some(format) = columnar_format(&file, name, options).await? {
            let columns = infer_columnar(file, format, tasks).await?;
            let is_stac = options.format.named() == Some(Format::Stac);
            return Ok(Inference::of_columns(if is_stac { in_layout(&columns) } else { columns }));
        }
        let unpacker = Unpacker::of_file(&file, 0, name, compression(options), limits, tasks).await?;
        infer_text(unpacker, name, options, tasks).await
    };
    result.await.map_err(|error| named(error, name))
}
