//! What the operators below cannot do, pinned: when one of these fails, something here can go.

use std::sync::Arc;

use aqueduct_core::retained_bytes;
use aqueduct_primitives::{Budget, ByteCount};
use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use datafusion_common::{DataFusionError, JoinType, NullEquality, Result};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion_physical_plan::joins::{HashJoinExec, PartitionMode, SortMergeJoinExec};
use datafusion_physical_plan::sorts::sort::SortExec;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion_physical_plan::{ExecutionPlan, execute_stream};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::pool::LeasePool;
use super::session;
use super::sort_runs::with_own_sorts;
use crate::SpillDir;

const LEASE: ByteCount = ByteCount::mib(4);

#[derive(Debug)]
struct Table(Vec<RecordBatch>, SchemaRef);

impl PartitionStream for Table {
    fn schema(&self) -> &SchemaRef {
        &self.1
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = futures::stream::iter(self.0.clone().into_iter().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.1), rows))
    }
}

fn scan(batches: Vec<RecordBatch>) -> Arc<dyn ExecutionPlan> {
    let schema = batches[0].schema();
    let table: Arc<dyn PartitionStream> = Arc::new(Table(batches, Arc::clone(&schema)));
    Arc::new(StreamingTableExec::try_new(schema, vec![table], None, [], false, None).unwrap())
}

fn batch(keys: &[i64], width: impl Fn(i64) -> usize) -> RecordBatch {
    let pads: ArrayRef =
        Arc::new(StringArray::from_iter_values(keys.iter().map(|key| "x".repeat(width(*key)))));
    let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    RecordBatch::try_from_iter([("key", keys), ("pad", pads)]).unwrap()
}

fn key() -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new("key", 0))
}

fn sorted(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let by = PhysicalSortExpr::new(key(), Default::default());
    Arc::new(SortExec::new(LexOrdering::new([by]).unwrap(), plan))
}

/// How many rows came out of a plan, the largest batch of them, and the most bytes that operators held.
struct Outcome {
    n_rows: Result<usize>,
    largest_batch: ByteCount,
    peak: ByteCount,
}

fn run_in_lease(plan: Arc<dyn ExecutionPlan>) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let dir = SpillDir::new(folder.path(), Budget::new("disk", ByteCount::mib(1024))).unwrap();
    let pool = Arc::new(LeasePool::new(LEASE, Arc::default()));
    let task = Arc::new(session::task(Arc::clone(&pool), dir.clone(), LEASE, 300, 8192).unwrap());
    let plan = with_own_sorts(plan, LEASE, &dir, &CancellationToken::new()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut largest_batch = ByteCount::ZERO;
    let n_rows = runtime.block_on(async {
        let mut n_rows = 0;
        let mut rows = execute_stream(plan, task)?;
        while let Some(records) = rows.try_next().await? {
            n_rows += records.num_rows();
            largest_batch = largest_batch.max(retained_bytes(&records));
        }
        Ok(n_rows)
    });
    Outcome { n_rows, largest_batch, peak: pool.peak() }
}

/// One row in a hundred is 40 KB wide, and those lie next to each other in the order.
fn skewed() -> Arc<dyn ExecutionPlan> {
    let key = |n: i64| if n % 100 == 0 { 500_000 + n } else { (n * 7919) % 1000 };
    let keys: Vec<i64> = (0..20_000).map(key).collect();
    let width = |key: i64| if key >= 500_000 { 40_000 } else { 20 };
    sorted(scan(keys.chunks(500).map(|keys| batch(keys, width)).collect()))
}

// not a limit, but what stands in the place of one
#[test]
fn wide_rows_that_lie_together_come_out_in_small_batches() {
    let outcome = run_in_lease(skewed());
    assert_eq!(outcome.n_rows.unwrap(), 20_000);
    assert!(outcome.peak <= LEASE);
    assert!(outcome.largest_batch < ByteCount::kib(256), "{}", outcome.largest_batch);
}

fn join_sides() -> (Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>) {
    let right: Vec<_> = (0..60).map(|_| batch(&[7; 500], |_| 300)).collect();
    (scan(vec![batch(&[7; 2], |_| 10)]), scan(right))
}

// the reason for a join of our own
#[test]
fn the_merge_join_below_takes_more_than_the_lease_for_a_key_with_many_rows() {
    let (left, right) = join_sides();
    let on = vec![(key(), key())];
    let orders = vec![Default::default()];
    let nothing = NullEquality::NullEqualsNothing;
    let join =
        SortMergeJoinExec::try_new(sorted(left), sorted(right), on, None, JoinType::Inner, orders, nothing)
            .unwrap();
    let outcome = run_in_lease(Arc::new(join));
    assert!(outcome.n_rows.is_err() || outcome.peak > LEASE, "{:?}, {}", outcome.n_rows, outcome.peak);
}

#[test]
fn the_hash_join_below_cannot_spill() {
    let (left, right) = join_sides();
    let on = vec![(key(), key())];
    let (mode, nothing) = (PartitionMode::CollectLeft, NullEquality::NullEqualsNothing);
    let join =
        HashJoinExec::try_new(right, left, on, None, &JoinType::Inner, None, mode, nothing, false).unwrap();
    let rows = run_in_lease(Arc::new(join)).n_rows;
    assert!(matches!(rows.unwrap_err().find_root(), DataFusionError::ResourcesExhausted(_)));
}

// our sort takes -0.0 and 0.0 for one value, operators below for two: they are sorted as those expect it
#[test]
fn for_the_operators_below_there_are_two_zeros() {
    let keys: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, 0.0, -1.0, f64::NAN]));
    let records = RecordBatch::try_from_iter([("key", keys)]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dir = SpillDir::new(folder.path(), Budget::new("disk", LEASE)).unwrap();
    let plan = with_own_sorts(sorted(scan(vec![records])), LEASE, &dir, &CancellationToken::new()).unwrap();
    let pool = Arc::new(LeasePool::new(LEASE, Arc::default()));
    let task = Arc::new(session::task(pool, dir, LEASE, 8, 8192).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let found: Vec<RecordBatch> =
        runtime.block_on(async { execute_stream(plan, task).unwrap().try_collect().await.unwrap() });
    let expected = Float64Array::from(vec![-1.0, -0.0, 0.0, 0.0, f64::NAN]);
    assert_eq!(found[0].column(0).to_data(), arrow::array::Array::to_data(&expected));
}
