//! A live stream of batches as the leaf of a plan.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_primitives::ByteCount;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use datafusion_common::{DataFusionError, Result};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{Stream, StreamExt, TryStreamExt};

use super::outside;
use crate::SpillDir;
use crate::beside::{Fed, Feed, pieces};
use crate::plain::{plain_pieces, plain_schema};
use crate::sort::{Spool, SpoolWriter};

/// An input of a plan. It is made with the plan and gets its rows when the plan is run. It gives them once; one that is
/// spooled, as often as the plan asks.
pub(crate) struct Input {
    schema: SchemaRef,
    is_spooled: AtomicBool,
    source: Mutex<Option<Source>>,
}

/// Where the rows come from.
enum Source {
    Live(Box<Live>),
    Spooled(Spool),
}

type Rows = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

impl Input {
    /// One of these columns; in the plan they are of plain types.
    pub(crate) fn new(schema: &SchemaRef) -> Arc<Self> {
        Arc::new(Self {
            schema: plain_schema(schema),
            is_spooled: AtomicBool::new(false),
            source: Mutex::default(),
        })
    }

    /// Whether all rows are written to disk first, because the plan reads them more than once.
    #[cfg(feature = "sql")]
    pub(crate) fn set_spooled(&self, is_spooled: bool) {
        self.is_spooled.store(is_spooled, Relaxed);
    }

    /// The leaf of a plan.
    pub(crate) fn scan(self: &Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        let (schema, partition) = (Arc::clone(&self.schema), Arc::clone(self) as _);
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![partition], None, [], false, None)?))
    }

    /// Gives it its rows.
    pub(super) async fn connect(&self, live: Live, dir: &SpillDir) -> aqueduct_core::Result<()> {
        let source = match self.is_spooled.load(Relaxed) {
            false => Source::Live(Box::new(live)),
            true => Source::Spooled(spooled(live, &self.schema, dir).await?),
        };
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
        Ok(())
    }

    fn rows(&self) -> Rows {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Source::Spooled(spool)) = &*source {
            return match spool.read() {
                Ok(rows) => Box::pin(futures::stream::iter(rows).map_err(outside)),
                Err(error) => failed(outside(error)),
            };
        }
        match source.take() {
            Some(Source::Live(live)) => Box::pin(live.rows(Arc::clone(&self.schema))),
            _ => failed(DataFusionError::Internal(
                "a plan reads one input twice, and its rows come once".into(),
            )),
        }
    }
}

fn failed(error: DataFusionError) -> Rows {
    Box::pin(futures::stream::once(async { Err(error) }))
}

async fn spooled(live: Live, schema: &SchemaRef, dir: &SpillDir) -> aqueduct_core::Result<Spool> {
    let mut writer = SpoolWriter::create(dir, schema)?;
    let mut rows = Box::pin(live.rows(Arc::clone(schema)));
    while let Some(records) = rows.next().await {
        writer.write(records.map_err(super::inside)?)?;
    }
    Ok(writer.finish())
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PartitionStream for Input {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), self.rows()))
    }
}

/// The rows of a stage's input.
pub(super) struct Live {
    /// What was taken of the feed already.
    first: Option<Fed>,
    feed: Feed,
    piece_bytes: ByteCount,
}

/// Of a lease, a batch that comes in is one part in so many.
const INPUT_PART: u64 = 64;
/// Smaller pieces cost more than they save, larger ones gain nothing.
const INPUT_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 20);

impl Live {
    pub(super) fn new(first: Fed, feed: Feed, lease: ByteCount) -> Self {
        let piece_bytes = (lease.get() / INPUT_PART).clamp(*INPUT_BYTES.start(), *INPUT_BYTES.end());
        Self { first: Some(first), feed, piece_bytes: ByteCount::new(piece_bytes) }
    }

    async fn next(&mut self) -> aqueduct_core::Result<Fed> {
        match self.first.take() {
            Some(first) => Ok(first),
            None => self.feed.next().await,
        }
    }

    /// The rows in pieces, of plain types. What is reserved for a batch goes back when the next one is asked for: who
    /// does is done with it.
    fn rows(mut self, schema: SchemaRef) -> impl Stream<Item = Result<RecordBatch>> + Send {
        try_stream! {
            while let Some((records, _held)) = self.next().await.map_err(outside)?.rows {
                let (n_rows, columns) = (records.num_rows(), records.columns().to_vec());
                drop(records);
                if n_rows == 0 {
                    continue;
                }
                let most = self.piece_bytes;
                for plain in plain_pieces(columns, n_rows, &schema, most).map_err(outside)? {
                    for piece in pieces(plain.map_err(outside)?, most) {
                        yield piece.map_err(outside)?;
                    }
                }
            }
        }
    }
}
