//! GROUP BY over any number of groups: what a hash table of some memory holds is summed up at once; the partial states
//! are sorted by their groups, and summed up for good one group after another.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion_physical_plan::sorts::sort::SortExec;

/// One row for each group, in the order of the groups; without groups one row. `filters` has one for each aggregate.
pub(crate) fn grouped(
    groups: PhysicalGroupBy,
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    input: Arc<dyn ExecutionPlan>,
    input_schema: SchemaRef,
) -> Result<Arc<dyn ExecutionPlan>> {
    let aggregate = |mode, groups, filters, input| {
        AggregateExec::try_new(mode, groups, aggregates.clone(), filters, input, Arc::clone(&input_schema))
    };
    if groups.is_true_no_grouping() {
        return Ok(Arc::new(aggregate(AggregateMode::Single, groups, filters, input)?));
    }
    let unfiltered = vec![None; filters.len()];
    let last_groups = groups.as_final();
    let partial: Arc<dyn ExecutionPlan> =
        Arc::new(aggregate(AggregateMode::Partial, groups, filters, input)?);
    let by_group = by_columns(&partial.schema(), last_groups.expr().len());
    let sorted: Arc<dyn ExecutionPlan> = match by_group {
        Some(order) => Arc::new(SortExec::new(order, partial)),
        None => partial,
    };
    Ok(Arc::new(aggregate(AggregateMode::Final, last_groups, unfiltered, sorted)?))
}

/// The first columns, ascending.
pub(super) fn by_columns(schema: &SchemaRef, n: usize) -> Option<LexOrdering> {
    let by = |(at, field): (usize, &Arc<arrow::datatypes::Field>)| {
        PhysicalSortExpr::new(Arc::new(Column::new(field.name(), at)), SortOptions::default())
    };
    LexOrdering::new(schema.fields().iter().enumerate().take(n).map(by))
}
