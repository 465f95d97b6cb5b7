//! Our external sort as an operator of DataFusion's, and the rule that puts it in the place of DataFusion's own: that
//! one fails on rows of uneven width at any small lease, and takes two to five times what it is given.

use std::fmt;
use std::sync::Arc;

use aqueduct_primitives::ByteCount;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_stream::try_stream;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, internal_err};
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion_execution::{SendableRecordBatchStream, TaskContext};
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_expr::{LexOrdering, PhysicalExpr};
use datafusion_physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion_physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion_physical_plan::filter::FilterExec;
use datafusion_physical_plan::limit::GlobalLimitExec;
use datafusion_physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet, SpillMetrics};
use datafusion_physical_plan::sorts::sort::SortExec;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    apply_expression_roots,
};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::outside;
use crate::plain::{plain_rows, plain_schema};
use crate::{ExternalSort, SortKey, SortMemory, SortOrder, SortSpec, SpillDir};

/// Of a lease, so much is for all sorts that are at work at one moment, beside operators that fill memory, too.
const PERCENT_BESIDE_OTHERS: u64 = 60;
/// Operators that do.
const FILL_MEMORY: [&str; 4] = ["AggregateExec", "CrossJoinExec", "NestedLoopJoinExec", "SortMergeJoinExec"];
/// Else so much: the rest is for batches between operators.
const PERCENT_ALONE: u64 = 80;

/// A filter gathers rows until it has so many, however wide they are: it is to give what it has of each batch.
const GATHERED_ROWS: usize = 1;

/// Puts our sort in the place of every `SortExec`; where the input is in order already, nothing. Those that are at
/// work at one moment share their part of the lease equally. What comes out is one partition. Filters gather nothing.
pub(super) fn with_own_sorts(
    plan: Arc<dyn ExecutionPlan>,
    lease: ByteCount,
    dir: &SpillDir,
    stop: &CancellationToken,
) -> Result<Arc<dyn ExecutionPlan>> {
    let n_at_once = AtWork::of(&plan).at_most.max(1);
    let percent = if fills_memory(&plan) { PERCENT_BESIDE_OTHERS } else { PERCENT_ALONE };
    let lease = ByteCount::new(lease.percent(percent).get() / n_at_once);
    let replaced = plan.transform_up(|node| {
        if let Some(filter) = node.downcast_ref::<FilterExec>() {
            let filter = filter.with_batch_size(GATHERED_ROWS)?;
            return Ok(Transformed::yes(Arc::new(filter) as Arc<dyn ExecutionPlan>));
        }
        let Some(sort) = node.downcast_ref::<SortExec>() else { return Ok(Transformed::no(node)) };
        let (input, order) = (in_one(sort.input()), sort.expr().clone());
        if !input.equivalence_properties().ordering_satisfy(order.clone())? {
            let own = SortRunsExec::try_new(
                input,
                order,
                sort.fetch(),
                lease,
                Spill { dir: dir.clone(), stop: stop.clone() },
            )?;
            return Ok(Transformed::yes(Arc::new(own) as Arc<dyn ExecutionPlan>));
        }
        Ok(Transformed::yes(match sort.fetch() {
            Some(fetch) => Arc::new(GlobalLimitExec::new(input, 0, Some(fetch))) as _,
            None => input,
        }))
    })?;
    Ok(in_one(&replaced.data))
}

fn fills_memory(plan: &Arc<dyn ExecutionPlan>) -> bool {
    FILL_MEMORY.contains(&plan.name()) || plan.children().into_iter().any(fills_memory)
}

/// All partitions as one: the inputs of a union are.
fn in_one(input: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match input.output_partitioning().partition_count() {
        1 => Arc::clone(input),
        _ => Arc::new(CoalescePartitionsExec::new(Arc::clone(input))),
    }
}

/// How many sorts hold memory.
#[derive(Clone, Copy, Default)]
struct AtWork {
    /// While the first row comes out, and those after it.
    at_output: u64,
    /// At any moment.
    at_most: u64,
}

impl AtWork {
    fn of(plan: &Arc<dyn ExecutionPlan>) -> Self {
        // Who has several inputs may read them in turn: at worst all are at work.
        let inputs = plan.children().into_iter().map(Self::of).fold(Self::default(), |sum, input| Self {
            at_output: sum.at_output + input.at_output,
            at_most: sum.at_most + input.at_most,
        });
        match plan.is::<SortExec>() {
            true => Self { at_output: 1, at_most: inputs.at_most.max(inputs.at_output + 1) },
            false => inputs,
        }
    }
}

/// Where a sort may write, until it is stopped.
#[derive(Clone, Debug)]
pub(crate) struct Spill {
    pub(crate) dir: SpillDir,
    pub(crate) stop: CancellationToken,
}

/// Sorts all rows with [`ExternalSort`], stable. Holds what it was given from the first row in to the last row out.
#[derive(Clone, Debug)]
pub(crate) struct SortRunsExec {
    input: Arc<dyn ExecutionPlan>,
    order: LexOrdering,
    /// At most so many rows come out.
    fetch: Option<usize>,
    lease: ByteCount,
    spill: Spill,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl SortRunsExec {
    pub(crate) fn try_new(
        input: Arc<dyn ExecutionPlan>,
        order: LexOrdering,
        fetch: Option<usize>,
        lease: ByteCount,
        spill: Spill,
    ) -> Result<Self> {
        let mut equivalence = input.equivalence_properties().clone();
        equivalence.reorder(order.clone())?;
        let one = Partitioning::UnknownPartitioning(1);
        let properties = PlanProperties::new(equivalence, one, EmissionType::Final, Boundedness::Bounded);
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { input, order, fetch, lease, spill, metrics, properties: Arc::new(properties) })
    }
}

impl DisplayAs for SortRunsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SortRunsExec: expr=[{}], lease={}", self.order, self.lease)?;
        self.fetch.map_or(Ok(()), |fetch| write!(f, ", fetch={fetch}"))
    }
}

impl ExecutionPlan for SortRunsExec {
    fn name(&self) -> &'static str {
        "SortRunsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.order.iter().map(|by| &by.expr), f)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return internal_err!("a sort has one input") };
        let order = self.order.clone();
        Ok(Arc::new(Self::try_new(input, order, self.fetch, self.lease, self.spill.clone())?))
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let max_rows = task.session_config().batch_size();
        let held = MemoryConsumer::new("SortRuns").register(task.memory_pool());
        let input = self.input.execute(partition, task)?;
        let keyed = Keyed::new(&self.schema(), &self.order)?;
        let spec = SortSpec {
            schema: Arc::clone(&keyed.schema),
            order: SortOrder {
                keys: keyed.keys.clone(),
                fetch: self.fetch,
                // As DataFusion's operators see numbers: they rely on it above.
                total_order: true,
                ..SortOrder::default()
            },
            memory: SortMemory::of_lease(self.lease),
            compression: None,
            max_rows,
        };
        let sort = ExternalSort::new(spec, self.spill.dir.clone())
            .map(|sort| sort.stopped_by(self.spill.stop.clone()));
        let metrics = SpillMetrics::new(&self.metrics, partition);
        let work = Work { keyed, sort: sort.map_err(outside)?, held, metrics };
        let rows = work.run(input, ByteCount::as_usize(self.lease));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// One execution.
struct Work {
    keyed: Keyed,
    sort: ExternalSort,
    held: MemoryReservation,
    metrics: SpillMetrics,
}

impl Work {
    fn run(
        self,
        mut input: SendableRecordBatchStream,
        lease_bytes: usize,
    ) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
        let Self { keyed, mut sort, held, metrics } = self;
        try_stream! {
            while let Some(records) = input.next().await {
                let records = keyed.with_keys(&records?)?;
                // Not before: a sort below may need it until its first row comes.
                if held.size() == 0 {
                    held.try_grow(lease_bytes)?;
                }
                sort.push(&records).map_err(outside)?;
            }
            drop(input);
            let sorted = sort.finish().map_err(outside)?;
            let report = sorted.report();
            metrics.spilled_bytes.add(usize::try_from(report.spilled_bytes).unwrap_or(usize::MAX));
            metrics.spill_file_count.add(usize::try_from(report.n_runs).unwrap_or(usize::MAX));
            for records in sorted {
                let records = keyed.without_keys(&records.map_err(outside)?)?;
                // Takes nothing, and tells the pool that something happens.
                held.try_grow(0)?;
                yield records;
            }
        }
    }
}

/// Rows with their keys as columns: what is no column is computed and stands behind the others while they are sorted.
struct Keyed {
    /// The rows as they come and go.
    outer: SchemaRef,
    /// As they are sorted: without views, with the keys that are computed.
    schema: SchemaRef,
    keys: Vec<SortKey>,
    computed: Vec<Arc<dyn PhysicalExpr>>,
}

impl Keyed {
    fn new(outer: &SchemaRef, order: &LexOrdering) -> Result<Self> {
        let mut fields = outer.fields().to_vec();
        let mut keys = Vec::new();
        let mut computed = Vec::new();
        for by in order {
            let column = match by.expr.downcast_ref::<Column>() {
                Some(column) => column.index(),
                None => {
                    let kind = by.expr.data_type(outer)?;
                    let name = format!("key {}", computed.len());
                    fields.push(Arc::new(Field::new(name, kind, true)));
                    computed.push(Arc::clone(&by.expr));
                    fields.len() - 1
                }
            };
            keys.push(SortKey { column, options: by.options });
        }
        let schema = plain_schema(&Schema::new_with_metadata(fields, outer.metadata().clone()));
        Ok(Self { outer: Arc::clone(outer), schema, keys, computed })
    }

    fn with_keys(&self, records: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = records.columns().to_vec();
        for key in &self.computed {
            columns.push(key.evaluate(records)?.into_array_of_size(records.num_rows())?);
        }
        plain_rows(columns, records.num_rows(), &self.schema).map_err(outside)
    }

    fn without_keys(&self, records: &RecordBatch) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = records.columns()[..self.outer.fields().len()].to_vec();
        plain_rows(columns, records.num_rows(), &self.outer).map_err(outside)
    }
}
