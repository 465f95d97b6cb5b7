//! Formats that are read by range: Parquet and Arrow IPC files.

mod arrow_file;
mod fit;
mod pages;
mod parquet_file;
mod ranges;
mod thrift;

use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::rows::{copied, row_bytes, runs};
use aqueduct_core::{Error, ErrorKind, RandomAccess, Result, retained_bytes};
use aqueduct_primitives::{Reservation, Tasks};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_stream::try_stream;
use futures::StreamExt;

use crate::format::{found_html, is_html};
use crate::text::failed;
use crate::{DecodeSpec, Decoded, DecodedStream, Format};
use fit::Fit;

/// So much tells a page of HTML.
const HEAD_BYTES: u64 = 1024;

/// Batches as a file has them.
type Batches = std::pin::Pin<Box<dyn futures::Stream<Item = Result<(RecordBatch, Reservation)>> + Send>>;

/// The rows of a file, fitted to the columns that are wanted.
pub(crate) fn decode_columnar(
    file: Arc<dyn RandomAccess>,
    format: Format,
    spec: DecodeSpec,
    tasks: &Tasks,
) -> DecodedStream {
    let tasks = tasks.clone();
    Box::pin(try_stream! {
        let spec = Arc::new(spec);
        let opened = match format {
            Format::Parquet => parquet_file::batches(Arc::clone(&file), Arc::clone(&spec), &tasks).await,
            _ => arrow_file::batches(Arc::clone(&file), Arc::clone(&spec), &tasks).await,
        };
        let mut batches = or_what_it_is(opened, &file, format).await?;
        let mut n_rows = 0;
        while let Some(batch) = batches.next().await {
            let (batch, reservation) = batch?;
            let n = batch.num_rows();
            let fitting = Arc::clone(&spec);
            let decoded = tasks.compute(move || Fit::new(&fitting, &batch)?.apply(&batch, n_rows));
            let mut decoded = decoded.await.map_err(failed)??;
            decoded.reservation = reservation;
            n_rows += n as u64;
            yield decoded;
        }
    })
}

/// The columns of a file, all nullable: another file of the flow may lack one.
pub(crate) async fn infer_columnar(
    file: Arc<dyn RandomAccess>,
    format: Format,
    tasks: &Tasks,
) -> Result<SchemaRef> {
    let schema = match format {
        Format::Parquet => parquet_file::schema(Arc::clone(&file), tasks).await,
        _ => arrow_file::schema(&file, tasks).await,
    };
    let schema = or_what_it_is(schema, &file, format).await?;
    let fields: Vec<_> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// How many rows a file says it has. Reads no value.
pub(crate) async fn count_columnar(
    file: &Arc<dyn RandomAccess>,
    format: Format,
    tasks: &Tasks,
) -> Result<u64> {
    let n_rows = match format {
        Format::Parquet => parquet_file::count(file, tasks).await,
        _ => arrow_file::count(file, tasks).await,
    };
    or_what_it_is(n_rows, file, format).await
}

/// These formats are read from their end. Where that is none of theirs, the beginning may say what the file is instead: a
/// page to log in, with which a server answers whatever it is asked for.
async fn or_what_it_is<T>(read: Result<T>, file: &Arc<dyn RandomAccess>, format: Format) -> Result<T> {
    let Err(error) = read else { return read };
    if error.kind() != ErrorKind::Data {
        return Err(error);
    }
    match file.read(0..file.len().min(HEAD_BYTES)).await {
        Ok(head) if is_html(&head) => Err(found_html(format)),
        // What was wrong before is the news, and not that this cannot be read either.
        _ => Err(error),
    }
}

/// A file that is not what it should be.
fn damaged(format: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let message = format!("the file is damaged, or is no {format}");
    Error::new(ErrorKind::Data, "read", message).with_source(source)
}

/// Rows of a batch in pieces within the limits, each with memory of its own, so that one does not keep all.
fn pieces(batch: &RecordBatch, spec: &DecodeSpec) -> Result<Vec<RecordBatch>> {
    let n_rows = batch.num_rows();
    if n_rows <= spec.batch_rows && retained_bytes(batch) <= spec.batch_bytes {
        return Ok(vec![batch.clone()]);
    }
    let step = spec.batch_rows.max(1);
    let cut = |run: Range<usize>| {
        let starts = run.clone().step_by(step);
        starts.map(move |start| start..run.end.min(start.saturating_add(step)))
    };
    let runs = runs(&row_bytes(batch), spec.batch_bytes.get());
    runs.into_iter().flat_map(cut).map(|rows| copied(batch, rows)).collect()
}

/// A batch whose columns did not fit.
fn rejected(decoded: Vec<crate::RowReject>, records: RecordBatch, rows_read: u64) -> Decoded {
    Decoded { records, rows_read, rejects: decoded, reservation: Reservation::empty() }
}
