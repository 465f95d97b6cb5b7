//! What the tests of stages share: a bench that runs one stage over batches and watches what it does.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aqueduct_core::{
    Batch, BatchStream, Context, FailOnReject, Positions, Problem, Reject, RejectPolicy, Result,
    StageFactory, StepContext, StepMetrics,
};
use aqueduct_primitives::{Budget, ByteCount};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use async_stream::stream;
use futures::TryStreamExt;
use serde_json::Value;

/// One stage, what it is given and what it reports.
pub(crate) struct Bench {
    pub(crate) cx: Context,
    rejects: Arc<Kept>,
    n_pulled: Arc<AtomicUsize>,
    flow_held: Arc<AtomicU64>,
    positions: Mutex<Positions>,
}

/// A policy that keeps what it is given.
#[derive(Debug, Default)]
struct Kept(Mutex<Vec<Reject>>);

impl RejectPolicy for Kept {
    fn reject(&self, _step: &str, reject: Reject) -> Result<()> {
        self.0.lock().unwrap().push(reject);
        Ok(())
    }
}

impl Bench {
    /// The first bad row is an error.
    pub(crate) fn new() -> Self {
        Self::with_policy(|_| Arc::new(FailOnReject))
    }

    /// Bad rows are kept aside: see [`Bench::rejects`].
    pub(crate) fn forgiving() -> Self {
        Self::with_policy(|kept| Arc::clone(kept) as _)
    }

    /// The stage's own memory is so small.
    pub(crate) fn with_share(bytes: ByteCount) -> Self {
        Self::made(|_| Arc::new(FailOnReject), |step| step.share = Budget::new("share", bytes))
    }

    /// As [`Bench::forgiving`], and the stage's own memory is so small.
    #[cfg(feature = "validate")]
    pub(crate) fn forgiving_with_share(bytes: ByteCount) -> Self {
        Self::made(|kept| Arc::clone(kept) as _, |step| step.share = Budget::new("share", bytes))
    }

    fn with_policy(policy: impl FnOnce(&Arc<Kept>) -> Arc<dyn RejectPolicy>) -> Self {
        Self::made(policy, |_| {})
    }

    fn made(
        policy: impl FnOnce(&Arc<Kept>) -> Arc<dyn RejectPolicy>,
        change_step: impl FnOnce(&mut StepContext),
    ) -> Self {
        let rejects = Arc::new(Kept::default());
        let budget = Budget::new("test", ByteCount::mib(32));
        let cx =
            Context::standalone_with(&budget, |run| run.rejects = policy(&rejects), change_step).unwrap();
        Self { cx, rejects, n_pulled: Arc::default(), flow_held: Arc::default(), positions: Mutex::default() }
    }

    /// The stage over these rows, each batch completing `split-0`, `split-1`….
    pub(crate) fn stream(&self, name: &str, options: Value, rows: Vec<RecordBatch>) -> BatchStream {
        let schema = rows.first().unwrap().schema();
        run_stage(name, options, &schema, self.input(rows, Duration::ZERO), &self.cx)
    }

    /// An input that waits before each batch but the first.
    pub(crate) fn slow_input(&self, rows: Vec<RecordBatch>, wait: Duration) -> (SchemaRef, BatchStream) {
        (rows.first().unwrap().schema(), self.input(rows, wait))
    }

    fn input(&self, rows: Vec<RecordBatch>, wait: Duration) -> BatchStream {
        let (cx, n_pulled, flow_held) =
            (self.cx.clone(), Arc::clone(&self.n_pulled), Arc::clone(&self.flow_held));
        Box::pin(stream! {
            for (n, rows) in rows.into_iter().enumerate() {
                if n > 0 && !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                n_pulled.fetch_add(1, Relaxed);
                let batch = cx.admit(rows).await?;
                yield Ok(batch.with_positions(Positions::done(format!("split-{n}"))));
                flow_held.store(cx.flow().total().saturating_sub(cx.flow().free()).get(), Relaxed);
            }
        })
    }

    pub(crate) async fn batches(
        &self,
        name: &str,
        options: Value,
        rows: Vec<RecordBatch>,
    ) -> Result<Vec<Batch>> {
        self.stream(name, options, rows).try_collect().await
    }

    pub(crate) async fn batches_of(
        &self,
        name: &str,
        options: Value,
        (schema, input): (SchemaRef, BatchStream),
    ) -> Result<Vec<Batch>> {
        run_stage(name, options, &schema, input, &self.cx).try_collect().await
    }

    /// All rows that come out. Checks what holds for every stage: batches have the schema it said, positions
    /// come in order, and all memory goes back.
    pub(crate) async fn run(
        &self,
        name: &str,
        options: Value,
        rows: Vec<RecordBatch>,
    ) -> Result<RecordBatch> {
        let input =
            rows.first().map_or_else(|| Arc::new(arrow::datatypes::Schema::empty()), RecordBatch::schema);
        let stage = factory(name).configure(options).unwrap().bind(&[input]).unwrap();
        let schema = stage.schema();
        let mut out = Vec::new();
        let mut stream = stage.run(vec![self.input(rows, Duration::ZERO)], self.cx.clone());
        while let Some(batch) = stream.try_next().await? {
            assert_eq!(batch.schema(), schema);
            self.positions.lock().unwrap().merge(batch.positions().clone());
            out.push(batch.records().clone());
        }
        drop(stream);
        assert_eq!(self.cx.flow().free(), self.cx.flow().total(), "MEM-1");
        assert_eq!(self.cx.share().free(), self.cx.share().total(), "MEM-1");
        Ok(concat_batches(&schema, &out).unwrap())
    }

    pub(crate) fn metrics(&self) -> &StepMetrics {
        self.cx.metrics()
    }

    pub(crate) fn rejects(&self) -> Vec<Reject> {
        self.rejects.0.lock().unwrap().clone()
    }

    /// The positions that came out of [`Bench::run`].
    pub(crate) fn positions(&self) -> Positions {
        self.positions.lock().unwrap().clone()
    }

    /// How many batches the stage asked for.
    pub(crate) fn n_pulled(&self) -> usize {
        self.n_pulled.load(Relaxed)
    }

    /// What was reserved of the flow's memory when the stage asked for more the last time.
    pub(crate) fn flow_held_at_last_pull(&self) -> ByteCount {
        ByteCount::new(self.flow_held.load(Relaxed))
    }
}

fn run_stage(
    name: &str,
    options: Value,
    schema: &SchemaRef,
    input: BatchStream,
    cx: &Context,
) -> BatchStream {
    let config = factory(name).configure(options).unwrap();
    config.bind(&[Arc::clone(schema)]).unwrap().run(vec![input], cx.clone())
}

fn factory(name: &str) -> &'static dyn StageFactory {
    *crate::ALL.iter().find(|factory| factory.info().name == name).unwrap()
}

/// What is wrong with a stage over such rows: with its options, or with how they fit.
pub(crate) fn problems(name: &str, options: Value, rows: &RecordBatch) -> Vec<Problem> {
    let bound = factory(name).configure(options).and_then(|config| config.bind(&[rows.schema()]));
    bound.err().expect("the options are wrong")
}

/// Rows from a JSON array of objects.
pub(crate) fn batch_of(json: &str) -> RecordBatch {
    let rows: Vec<Value> = serde_json::from_str(json).unwrap();
    let schema = arrow_json::reader::infer_json_schema_from_iterator(rows.iter().map(Ok)).unwrap();
    let mut decoder = arrow_json::ReaderBuilder::new(Arc::new(schema)).build_decoder().unwrap();
    decoder.serialize(&rows).unwrap();
    decoder
        .flush()
        .unwrap()
        .unwrap_or_else(|| RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty())))
}

pub(crate) fn names(rows: &RecordBatch) -> Vec<String> {
    rows.schema().fields().iter().map(|field| field.name().clone()).collect()
}

/// A column's integers, 0 for null.
pub(crate) fn int_column(rows: &RecordBatch, name: &str) -> Vec<i64> {
    let column = cast(rows.column_by_name(name).unwrap(), &DataType::Int64).unwrap();
    column.as_primitive::<Int64Type>().iter().map(Option::unwrap_or_default).collect()
}

/// A column's texts, empty for null.
pub(crate) fn strings_column(rows: &RecordBatch, name: &str) -> Vec<String> {
    let column = rows.column_by_name(name).unwrap();
    assert_eq!(column.data_type(), &DataType::Utf8);
    column.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect()
}
