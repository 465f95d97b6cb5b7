//! Parquet, page by page: of each column one page, its dictionary and a small piece read ahead are in memory, not its
//! chunk.

use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, RandomAccess, Result, retained_bytes};
use aqueduct_primitives::{ByteCount, Reservation, Tasks};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use async_stream::try_stream;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::{ColumnChunkMetaData, FileMetaData, ParquetMetaData, RowGroupMetaData};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::pages::Pages;
use super::ranges::Ranges;
use super::{Batches, damaged, fit, thrift};
use crate::DecodeSpec;
use crate::text::failed;

/// A footer larger than this is refused: it is held several times over while it is decoded.
const MAX_FOOTER_BYTES: u64 = 64 << 20;

const MAGIC: &[u8] = b"PAR1";

/// Pages of so many bytes in all are never asked for, as little as what a decompressor takes: most writers make them
/// of one MiB.
const USUAL_PAGES: ByteCount = ByteCount::mib(16);

/// Read at once of a column: fewer requests with more, less memory with less.
const PIECE_BYTES: std::ops::RangeInclusive<u64> = (16 << 10)..=(1 << 20);

/// The file's own columns.
pub(super) async fn schema(file: Arc<dyn RandomAccess>, tasks: &Tasks) -> Result<SchemaRef> {
    Ok(Arc::clone(load(&file, tasks).await?.schema()))
}

/// How many rows its row groups have.
pub(super) async fn count(file: &Arc<dyn RandomAccess>, tasks: &Tasks) -> Result<u64> {
    Ok(rows_of_groups(load(file, tasks).await?.metadata()))
}

/// The file's batches, of the columns that are wanted.
pub(super) async fn batches(
    file: Arc<dyn RandomAccess>,
    spec: Arc<DecodeSpec>,
    tasks: &Tasks,
) -> Result<Batches> {
    let metadata = load(&file, tasks).await?;
    let stop = CancellationToken::new();
    let ranges = ranges(file, &metadata, &spec, stop.clone());
    let stops_with_the_stream = stop.drop_guard();
    let wanted = fit::wanted(metadata.schema(), &spec)?;
    let mask = ProjectionMask::roots(metadata.parquet_schema(), wanted);
    let rows = batch_rows(&metadata, &spec);
    let n_promised = rows_of_groups(metadata.metadata());
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(ranges.clone(), metadata);
    let builder = builder.with_projection(mask).with_batch_size(rows);
    let tasks = tasks.clone();
    Ok(Box::pin(try_stream! {
        let _stops_with_the_stream = stops_with_the_stream;
        let built = tasks.block(move || builder.build()).await.map_err(failed)?;
        let mut reader = built.map_err(|error| ranges.why_failed(error))?;
        let mut n_found = 0;
        loop {
            let (back, batch) = tasks.block(move || next(reader)).await.map_err(failed)?;
            reader = back;
            let Some(batch) = batch.transpose().map_err(|error| ranges.why_failed(error))? else { break };
            n_found += batch.num_rows() as u64;
            let is_wide = retained_bytes(&batch) > spec.batch_bytes;
            let reservation = if is_wide { ranges.hand_over() } else { Reservation::empty() };
            yield (batch, reservation);
        }
        if n_found != n_promised {
            let message = format!("its footer promises {n_promised} rows, its pages hold {n_found}");
            Err(damaged("Parquet file", message))?;
        }
    }))
}

fn next(
    mut reader: ParquetRecordBatchReader,
) -> (ParquetRecordBatchReader, Option<std::result::Result<RecordBatch, ArrowError>>) {
    let batch = reader.next();
    (reader, batch)
}

/// Rows whose columns take `batch_bytes` or so, by what the footer says.
fn batch_rows(metadata: &ArrowReaderMetadata, spec: &DecodeSpec) -> usize {
    let chunks = metadata.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns);
    let n_bytes = chunks.map(unpacked_bytes).fold(0, u64::saturating_add);
    let row = (n_bytes / rows_of_groups(metadata.metadata()).max(1)).max(1);
    let fitting = usize::try_from(spec.batch_bytes.get() / row).unwrap_or(usize::MAX);
    fitting.clamp(1, spec.batch_rows.max(1))
}

/// What a column chunk takes unpacked, as far as the footer says: with texts for places in a dictionary, if it counts
/// them.
fn unpacked_bytes(chunk: &ColumnChunkMetaData) -> u64 {
    let texts = chunk.unencoded_byte_array_data_bytes().map_or(0, positive);
    positive(chunk.uncompressed_size()).max(texts)
}

/// How many rows the row groups have.
fn rows_of_groups(metadata: &ParquetMetaData) -> u64 {
    metadata.row_groups().iter().map(|group| positive(group.num_rows())).fold(0, u64::saturating_add)
}

/// A count of the footer; a negative one is damage that the reader finds.
fn positive(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// The footer, with the file's number of rows as its row groups say. Some writers leave it at 0, and the reader would
/// then give no row and no error.
fn with_rows_of_groups(metadata: ArrowReaderMetadata) -> parquet::errors::Result<ArrowReaderMetadata> {
    let footer = metadata.metadata();
    let file = footer.file_metadata();
    let n_rows = rows_of_groups(footer);
    if positive(file.num_rows()) == n_rows {
        return Ok(metadata);
    }
    let file = FileMetaData::new(
        file.version(),
        i64::try_from(n_rows).unwrap_or(i64::MAX),
        file.created_by().map(str::to_owned),
        file.key_value_metadata().cloned(),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    let footer = ParquetMetaData::new(file, footer.row_groups().to_vec());
    ArrowReaderMetadata::try_new(Arc::new(footer), ArrowReaderOptions::new())
}

/// Reads and checks the footer.
async fn load(file: &Arc<dyn RandomAccess>, tasks: &Tasks) -> Result<ArrowReaderMetadata> {
    let footer = footer(file).await?;
    let is_plausible = move || thrift::is_plausible(&footer);
    if !tasks.compute(is_plausible).await.map_err(failed)? {
        return Err(damaged("Parquet file", "its footer claims more than it holds"));
    }
    let small = Ranges::new(Arc::clone(file), Handle::current(), 0, 0, None);
    let reading = small.clone();
    let load = move || with_rows_of_groups(ArrowReaderMetadata::load(&reading, ArrowReaderOptions::new())?);
    tasks.block(load).await.map_err(failed)?.map_err(|error| small.why_failed(error))
}

/// The file for the reader of its columns. Half of the reader's memory is for pieces read ahead, half for pages, of
/// which a few have the usual size at least.
fn ranges(
    file: Arc<dyn RandomAccess>,
    metadata: &ArrowReaderMetadata,
    spec: &DecodeSpec,
    stop: CancellationToken,
) -> Ranges {
    let half = spec.memory.get() / 2;
    let n_columns = metadata.parquet_schema().num_columns().max(1) as u64;
    let piece = (half / n_columns).clamp(*PIECE_BYTES.start(), *PIECE_BYTES.end());
    let lane = Arc::clone(&spec.large_records);
    let own_pages = ByteCount::new(half).max(USUAL_PAGES);
    let pages = Pages::new(metadata.metadata(), own_pages, lane, stop);
    Ranges::new(file, Handle::current(), piece, half.max(2 * piece), Some(pages))
}

/// The footer's bytes.
async fn footer(file: &Arc<dyn RandomAccess>) -> Result<bytes::Bytes> {
    let len = file.len();
    if len < 12 {
        return Err(damaged("Parquet file", format!("it has {len} bytes")));
    }
    let tail = file.read(len - 8..len).await?;
    let n = tail.first_chunk::<4>().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)));
    if tail.get(4..) != Some(MAGIC) {
        return Err(damaged("Parquet file", "it does not end with `PAR1`"));
    }
    if n > len - 12 {
        return Err(damaged("Parquet file", format!("its footer claims {n} of its {len} bytes")));
    }
    if n > MAX_FOOTER_BYTES {
        let message = format!("the footer is larger than {MAX_FOOTER_BYTES} bytes, which is the limit");
        return Err(Error::new(ErrorKind::Limit, "read parquet", message).with("footer_bytes", n));
    }
    file.read(len - 8 - n..len - 8).await
}
