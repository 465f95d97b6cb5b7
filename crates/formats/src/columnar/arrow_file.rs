//! Arrow IPC files, batch by batch. A batch of the file must be in memory whole; what it takes is asked for
//! before it is read, if it is more than the reader's own.

use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, RandomAccess, Result};
use aqueduct_primitives::{ByteCount, Reservation, Tasks};
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::{Block, Message, MetadataVersion, convert, root_as_footer, root_as_message};
use async_stream::try_stream;

use super::{Batches, damaged, fit, pieces};
use crate::DecodeSpec;
use crate::text::failed;

/// A footer larger than this is refused.
const MAX_FOOTER_BYTES: u64 = 64 << 20;

/// The head of a batch lists its buffers; of any table that can be used it is smaller than this.
const MAX_HEAD_BYTES: u64 = 64 << 20;

/// The magic and the footer's length, at the end.
const TRAILER_BYTES: u64 = 10;

/// What the footer says.
struct Footer {
    schema: SchemaRef,
    version: MetadataVersion,
    dictionaries: Vec<Block>,
    batches: Vec<Block>,
}

/// The file's own columns.
pub(super) async fn schema(file: &Arc<dyn RandomAccess>, tasks: &Tasks) -> Result<SchemaRef> {
    Ok(read_footer(file, tasks).await?.schema)
}

/// How many rows its batches have, as the head of each says.
pub(super) async fn count(file: &Arc<dyn RandomAccess>, tasks: &Tasks) -> Result<u64> {
    let mut n_rows = 0;
    for block in read_footer(file, tasks).await?.batches {
        let (head, _) = places(&block, file.len())?;
        if head.end - head.start > MAX_HEAD_BYTES {
            return Err(not_arrow("a batch has a head larger than 64 MiB"));
        }
        let head = file.read(head).await?;
        let message = message_of(&head)?;
        let n = message.header_as_record_batch().map_or(0, |batch| batch.length());
        n_rows += u64::try_from(n).map_err(|_| not_arrow("a batch with a negative number of rows"))?;
    }
    Ok(n_rows)
}

/// The file's batches, of the columns that are wanted.
pub(super) async fn batches(
    file: Arc<dyn RandomAccess>,
    spec: Arc<DecodeSpec>,
    tasks: &Tasks,
) -> Result<Batches> {
    let footer = read_footer(&file, tasks).await?;
    let wanted = fit::wanted(&footer.schema, &spec)?;
    let mut decoder = FileDecoder::new(footer.schema, footer.version).with_projection(wanted);
    let mut kept = Reservation::empty();
    for block in &footer.dictionaries {
        let (bytes, reservation) = read_block(&file, block, &spec).await?;
        kept.merge(reservation);
        decoder.read_dictionary(block, &bytes).map_err(not_arrow)?;
    }
    let decoder = Arc::new(decoder);
    let tasks = tasks.clone();
    Ok(Box::pin(try_stream! {
        let _kept = kept;
        for block in footer.batches {
            let (bytes, mut reservation) = read_block(&file, &block, &spec).await?;
            let (decoder, limits) = (Arc::clone(&decoder), Arc::clone(&spec));
            let job = move || decode(&decoder, &block, &bytes, &limits);
            let mut batches = tasks.compute(job).await.map_err(failed)??.into_iter().peekable();
            while let Some(batch) = batches.next() {
                let is_last = batches.peek().is_none();
                yield (batch, if is_last { std::mem::take(&mut reservation) } else { Reservation::empty() });
            }
        }
    }))
}

fn decode(
    decoder: &FileDecoder,
    block: &Block,
    bytes: &Buffer,
    spec: &DecodeSpec,
) -> Result<Vec<RecordBatch>> {
    match decoder.read_record_batch(block, bytes).map_err(not_arrow)? {
        Some(batch) => pieces(&batch, spec),
        None => Ok(Vec::new()),
    }
}

/// A message and its data, with memory for what it unpacks to when that is more than the reader's own.
async fn read_block(
    file: &Arc<dyn RandomAccess>,
    block: &Block,
    spec: &DecodeSpec,
) -> Result<(Buffer, Reservation)> {
    let (head, body) = places(block, file.len())?;
    let n = body.end - head.start;
    let mut reservation = reserve(spec, ByteCount::ZERO, n.saturating_mul(2)).await?;
    let bytes = file.read(head.start..body.end).await?;
    let n_head = usize::try_from(head.end - head.start).unwrap_or(usize::MAX);
    let n_unpacked = unpacked_bytes(&bytes, n_head)?;
    if n_unpacked > n {
        reservation.merge(reserve(spec, reservation.size(), n_unpacked).await?);
    }
    Ok((Buffer::from(bytes), reservation))
}

/// Where the head and the data of a message lie.
fn places(block: &Block, n_bytes: u64) -> Result<(Range<u64>, Range<u64>)> {
    let n_head = u64::try_from(block.metaDataLength()).ok();
    let n_body = u64::try_from(block.bodyLength()).ok();
    let start = u64::try_from(block.offset()).ok();
    let (Some(start), Some(n_head), Some(n_body)) = (start, n_head, n_body) else {
        return Err(not_arrow("a block of negative length"));
    };
    let middle = start.checked_add(n_head);
    let end = middle.and_then(|middle| middle.checked_add(n_body));
    match (middle, end.filter(|end| *end <= n_bytes && n_head >= 8)) {
        (Some(middle), Some(end)) => Ok((start..middle, middle..end)),
        _ => Err(not_arrow("a block beyond the end of the file")),
    }
}

async fn reserve(spec: &DecodeSpec, held: ByteCount, bytes: u64) -> Result<Reservation> {
    if bytes <= spec.memory.get() {
        return Ok(Reservation::empty());
    }
    spec.large_records.reserve(held, ByteCount::new(bytes)).await.map_err(|error| {
        let message = "a record batch of the file is larger than the memory left for it; raise `memory`, \
                       or write the file in smaller batches";
        Error::new(ErrorKind::Limit, "read arrow", message).with("batch_bytes", bytes).with_source(error)
    })
}

/// What the buffers of a message claim to unpack to; nothing when they are not packed.
fn unpacked_bytes(bytes: &[u8], n_head: usize) -> Result<u64> {
    let (head, body) = bytes.split_at_checked(n_head).unwrap_or((bytes, &[]));
    let message = message_of(head)?;
    let Some(batch) = record_batch(&message) else { return Ok(0) };
    if batch.compression().is_none() {
        return Ok(0);
    }
    let mut sum = 0u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let start = usize::try_from(buffer.offset()).ok();
        let prefix = start.and_then(|start| body.get(start..)).and_then(|rest| rest.first_chunk::<8>());
        let claimed = prefix.map_or(0, |bytes| i64::from_le_bytes(*bytes));
        // -1 says that this buffer is not packed.
        sum = sum.saturating_add(u64::try_from(claimed).unwrap_or(0));
    }
    Ok(sum)
}

/// The message in a block's head, behind its length and perhaps a mark.
fn message_of(head: &[u8]) -> Result<Message<'_>> {
    let head = head.strip_prefix(&[0xff; 4]).unwrap_or(head);
    root_as_message(head.get(4..).unwrap_or_default()).map_err(|error| not_arrow(error.to_string()))
}

fn record_batch<'a>(message: &Message<'a>) -> Option<arrow_ipc::RecordBatch<'a>> {
    let of_dictionary = || message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    message.header_as_record_batch().or_else(of_dictionary)
}

async fn read_footer(file: &Arc<dyn RandomAccess>, tasks: &Tasks) -> Result<Footer> {
    let len = file.len();
    if len < 2 * TRAILER_BYTES {
        return Err(not_arrow(format!("it has {len} bytes")));
    }
    let trailer = file.read(len - TRAILER_BYTES..len).await?;
    let trailer = trailer.first_chunk::<10>().copied().unwrap_or_default();
    let n = read_footer_length(trailer).map_err(not_arrow)? as u64;
    if n > len - 2 * TRAILER_BYTES || n > MAX_FOOTER_BYTES {
        return Err(not_arrow(format!("its footer claims {n} of its {len} bytes")));
    }
    let bytes = file.read(len - TRAILER_BYTES - n..len - TRAILER_BYTES).await?;
    // The library panics at some damaged schemas; as a job, that is an error of this file.
    tasks.compute(move || parse_footer(&bytes)).await.map_err(failed)?
}

fn parse_footer(bytes: &[u8]) -> Result<Footer> {
    let footer = root_as_footer(bytes).map_err(|error| not_arrow(error.to_string()))?;
    let Some(schema) = footer.schema() else { return Err(not_arrow("its footer has no schema")) };
    if !schema.endianness().equals_to_target_endianness() {
        return Err(not_arrow("it was written on a machine of the other byte order"));
    }
    let schema: Schema = convert::fb_to_schema(schema);
    Ok(Footer {
        schema: Arc::new(schema),
        version: footer.version(),
        dictionaries: footer
            .dictionaries()
            .map(|blocks| blocks.iter().copied().collect())
            .unwrap_or_default(),
        batches: footer.recordBatches().map(|blocks| blocks.iter().copied().collect()).unwrap_or_default(),
    })
}

fn not_arrow(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    damaged("Arrow file", source)
}
