//! Rows kept in memory for `preview` and `test`, a bounded number of them.

use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::{
    Batch, BatchStream, Context, Error, ErrorKind, Guarantee, Inputs, MapRows, MemoryNeed, Output, Part,
    Planning, Problem, Result, Sink, SinkConfig, Stage, StageConfig, map_stage, only_input,
};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;

/// Rows that a run leaves behind in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collected {
    shared: Arc<Mutex<Rows>>,
}

#[derive(Debug, Default)]
struct Rows {
    schema: Option<SchemaRef>,
    batches: Vec<RecordBatch>,
}

impl Collected {
    /// The schema, once known, and the rows.
    pub(crate) fn take(&self) -> (Option<SchemaRef>, Vec<RecordBatch>) {
        let mut rows = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        (rows.schema.clone(), std::mem::take(&mut rows.batches))
    }
}

/// A sink that keeps at most so many rows; one more is an error.
#[derive(Clone, Debug)]
pub(crate) struct CollectSink {
    pub(crate) into: Collected,
    pub(crate) max_rows: u64,
}

#[async_trait]
impl SinkConfig for CollectSink {
    fn output(&self, _planning: &Planning) -> Option<Output> {
        None
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::Live
    }

    fn memory(&self, _planning: &Planning) -> MemoryNeed {
        MemoryNeed::between(ByteCount::kib(64), ByteCount::mib(1))
    }

    async fn open(self: Box<Self>, input: SchemaRef, _cx: &Context) -> Result<Box<dyn Sink>> {
        self.into.shared.lock().unwrap_or_else(PoisonError::into_inner).schema = Some(input);
        Ok(Box::new(Collecting { sink: *self, n_rows: 0 }))
    }
}

struct Collecting {
    sink: CollectSink,
    n_rows: u64,
}

#[async_trait]
impl Sink for Collecting {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.n_rows += batch.num_rows() as u64;
        if self.n_rows > self.sink.max_rows {
            let message = format!("more than {} rows came; use a smaller input", self.sink.max_rows);
            return Err(Error::new(ErrorKind::Limit, "collect", message));
        }
        if batch.num_rows() > 0 {
            // Copied, so that a few rows do not keep the buffers of a whole batch alive.
            let everything = arrow::array::UInt32Array::from_iter_values(
                0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX),
            );
            let rows = arrow::compute::take_record_batch(batch.records(), &everything);
            let rows =
                rows.map_err(|error| Error::bug("collect", "rows cannot be copied").with_source(error))?;
            self.sink.into.shared.lock().unwrap_or_else(PoisonError::into_inner).batches.push(rows);
        }
        Ok(())
    }

    async fn seal(&mut self) -> Result<Vec<Part>> {
        Ok(Vec::new())
    }

    async fn abort(self: Box<Self>) {}
}

/// A stage that lets the first rows pass and ends its input there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstRows(pub(crate) u64);

impl StageConfig for FirstRows {
    fn is_resumable(&self) -> bool {
        false
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        Ok(map_stage(FirstRowsMap { schema: only_input(inputs)?, left: self.0 }))
    }
}

struct FirstRowsMap {
    schema: SchemaRef,
    left: u64,
}

impl MapRows for FirstRowsMap {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn map(&mut self, records: RecordBatch, _cx: &Context) -> Result<RecordBatch> {
        let keep = usize::try_from(self.left).unwrap_or(usize::MAX).min(records.num_rows());
        self.left -= keep as u64;
        Ok(records.slice(0, keep))
    }

    fn is_finished(&self) -> bool {
        self.left == 0
    }
}

/// A stage that lets everything pass, in the place of one that must not do what it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassThrough;

impl StageConfig for PassThrough {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        Ok(Box::new(Passing(only_input(inputs)?)))
    }
}

struct Passing(SchemaRef);

impl Stage for Passing {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn run(self: Box<Self>, inputs: Inputs, _: Context) -> BatchStream {
        Box::pin(futures::stream::iter(inputs).flatten())
    }
}
