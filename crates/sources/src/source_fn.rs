//! A source of a few lines: a schema, and a function that gives rows.

use std::pin::Pin;

use aqueduct_core::{BatchStream, Context, Positions, Result, Source, SourceCaps};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::{Stream, StreamExt};

/// A source of the rows that a function gives. Rows come in that order; each batch waits for the flow's memory
/// before the next is asked for, so that at most one is held outside it. It cannot be resumed: a run that is
/// taken up again calls the function again.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::sync::Arc;
/// use aqueduct_core::{Context, Positions};
/// use aqueduct_primitives::{Budget, ByteCount};
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use futures::{StreamExt, stream};
///
/// let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3));
/// let rows = RecordBatch::try_from_iter([("id", ids)])?;
/// let source = aqueduct_sources::source_fn(rows.schema(), move |_| stream::iter([Ok(rows)]));
///
/// let cx = Context::standalone(&Budget::new("example", ByteCount::mib(8)))?;
/// let batches: Vec<_> = source.run(cx, Positions::default()).collect().await;
/// assert_eq!(batches[0].as_ref().unwrap().num_rows(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn source_fn<F, S>(schema: SchemaRef, rows: F) -> Box<dyn Source>
where
    F: FnOnce(Context) -> S + Send + 'static,
    S: Stream<Item = Result<RecordBatch>> + Send + 'static,
{
    let rows = move |cx| -> Rows { Box::pin(rows(cx)) };
    Box::new(SourceFn { schema, rows: Box::new(rows) })
}

type Rows = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

struct SourceFn {
    schema: SchemaRef,
    rows: Box<dyn FnOnce(Context) -> Rows + Send>,
}

impl Source for SourceFn {
    fn schema(&self) -> SchemaRef {
        std::sync::Arc::clone(&self.schema)
    }

    fn capabilities(&self) -> SourceCaps {
        SourceCaps::default()
    }

    fn run(self: Box<Self>, cx: Context, _from: Positions) -> BatchStream {
        let mut rows = (self.rows)(cx.clone());
        Box::pin(try_stream! {
            while let Some(records) = rows.next().await {
                let records = records?;
                let batch = cx.admit(records).await?;
                yield batch;
            }
        })
    }
}
