//! SQL over one input, planned so that every operator keeps within a lease, or refused.
//!
//! DataFusion plans for one partition and the rest is put right here: joins are sort-merge joins, since hash joins
//! cannot spill; aggregates get a sort between their two halves; what holds its whole input in memory is refused by
//! its name.

use std::sync::Arc;

use aqueduct_expr::{ExprError, MAX_SQL_BYTES, on_deep_stack};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DataFusionError, Result};
use datafusion_physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion_physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion_physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion_physical_plan::sorts::sort::SortExec;
use datafusion_physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion_physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, InputOrderMode, ReplaceChildrenOptions,
};
use futures::executor::block_on;

use super::grouped::by_columns;
use super::{Input, session};

/// The name of the one table.
pub(crate) const TABLE: &str = "input";

/// A query that is ready to be run.
pub(crate) struct Query {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) input: Arc<Input>,
}

impl Query {
    /// Plans a query over rows of this schema.
    ///
    /// # Errors
    /// It is not one SELECT, does not fit the columns, or cannot be run in bounded memory.
    pub(crate) fn plan(sql: &str, schema: &SchemaRef) -> Result<Self, ExprError> {
        if sql.len() > MAX_SQL_BYTES {
            return Err(refused(format!(
                "the query has {} bytes, at most {MAX_SQL_BYTES} are read",
                sql.len()
            )));
        }
        let input = Input::new(schema);
        let plan = on_deep_stack::<_, ExprError>(|| Ok(block_on(planned(sql, &input))?))?;
        check(&plan)?;
        input.set_spooled(n_reads(&plan) > 1);
        Ok(Self { plan, input })
    }
}

fn refused(message: impl Into<String>) -> ExprError {
    ExprError::from(DataFusionError::Plan(message.into()))
}

async fn planned(sql: &str, input: &Arc<Input>) -> Result<Arc<dyn ExecutionPlan>> {
    let state = SessionStateBuilder::new()
        .with_config(session::config())
        .with_default_features()
        .with_physical_optimizer_rules(rules())
        .build();
    let session = SessionContext::new_with_state(state);
    let table =
        StreamingTable::try_new(Arc::clone(PartitionStream::schema(&**input)), vec![Arc::clone(input) as _])?;
    session.register_table(TABLE, Arc::new(table))?;
    let state = session.state();
    let logical = state.create_logical_plan(sql).await?;
    let only_select =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_select.verify_plan(&logical)?;
    state.create_physical_plan(&logical).await
}

/// Rules of DataFusion that put the two halves of an aggregate together, keep rows in memory, or plan for partitions.
const LEFT_OUT: [&str; 6] = [
    "CombinePartialFinalAggregate",
    "HashJoinBuffering",
    "LimitAggregation",
    "PushdownSort",
    "TopKRepartition",
    "WindowTopN",
];

fn rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = Vec::new();
    for rule in PhysicalOptimizer::new().rules.into_iter().filter(|rule| !LEFT_OUT.contains(&rule.name())) {
        let chooses_joins = rule.name() == "join_selection";
        rules.push(rule);
        if chooses_joins {
            // Before orders are required and made: a merge join needs them, and gives others than a hash join.
            rules.push(Arc::new(MergeJoins) as _);
        }
    }
    // After orders that nobody requires are taken away.
    rules.push(Arc::new(SortedGroups));
    rules
}

/// Makes sort-merge joins of hash joins.
#[derive(Debug)]
struct MergeJoins;

impl PhysicalOptimizerRule for MergeJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(plan.transform_up(merge_join)?.data)
    }

    fn name(&self) -> &'static str {
        "MergeJoins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn merge_join(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let Some(join) = node.downcast_ref::<HashJoinExec>().filter(|join| !join.null_aware) else {
        return Ok(Transformed::no(node));
    };
    let on = join.on().to_vec();
    let orders = vec![SortOptions::default(); on.len()];
    let merged: Arc<dyn ExecutionPlan> = Arc::new(SortMergeJoinExec::try_new(
        Arc::clone(join.left()),
        Arc::clone(join.right()),
        on,
        join.filter().cloned(),
        *join.join_type(),
        orders,
        join.null_equality(),
    )?);
    Ok(Transformed::yes(match &join.projection {
        None => merged,
        Some(columns) => projected(merged, columns)?,
    }))
}

fn projected(plan: Arc<dyn ExecutionPlan>, columns: &[usize]) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = plan.schema();
    let column = |at: &usize| {
        let name = schema.field(*at).name();
        ProjectionExpr::new(
            Arc::new(datafusion_physical_expr::expressions::Column::new(name, *at)),
            name.clone(),
        )
    };
    Ok(Arc::new(ProjectionExec::try_new(columns.iter().map(column), plan)?))
}

/// Sorts the states of an aggregate by their groups, so that one group is summed up for good after another.
#[derive(Debug)]
struct SortedGroups;

impl PhysicalOptimizerRule for SortedGroups {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(plan.transform_up(sorted_groups)?.data)
    }

    fn name(&self) -> &'static str {
        "SortedGroups"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn sorted_groups(node: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let is_final = |aggregate: &&AggregateExec| {
        matches!(aggregate.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned)
            && *aggregate.input_order_mode() != InputOrderMode::Sorted
    };
    let Some(aggregate) = node.downcast_ref::<AggregateExec>().filter(is_final) else {
        return Ok(Transformed::no(node));
    };
    let partial = Arc::clone(aggregate.input());
    let Some(order) = by_columns(&partial.schema(), aggregate.group_expr().expr().len()) else {
        return Ok(Transformed::no(node));
    };
    let sorted: Arc<dyn ExecutionPlan> = Arc::new(SortExec::new(order, partial));
    let recomputed = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Ok(Transformed::yes(node.replace_children(vec![sorted], recomputed)?))
}

/// Operators that hold a few batches, or spill, or whose memory follows from what is written in the query.
const BOUNDED: [&str; 20] = [
    "AggregateExec",
    "BoundedWindowAggExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "DataSourceExec",
    "EmptyExec",
    "FilterExec",
    "GlobalLimitExec",
    "LazyMemoryExec",
    "LocalLimitExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "ScalarSubqueryExec",
    "SortExec",
    "SortMergeJoinExec",
    "SortPreservingMergeExec",
    "StreamingTableExec",
    "UnionExec",
    "UnnestExec",
];

/// Refuses operators that would hold all of their input in memory.
fn check(plan: &Arc<dyn ExecutionPlan>) -> Result<(), ExprError> {
    let mut wrong = None;
    plan.apply(|node| {
        wrong = unbounded(node);
        Ok(if wrong.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match wrong {
        None => Ok(()),
        Some((name, hint)) => {
            let message = format!("the query needs `{name}`, which holds all of its rows in memory; {hint}");
            Err(refused(message))
        }
    }
}

/// Its name, and what to do instead.
fn unbounded(node: &Arc<dyn ExecutionPlan>) -> Option<(String, &'static str)> {
    let name = node.name().trim_end_matches("(TopK)");
    if BOUNDED.contains(&name) {
        return None;
    }
    // The left side is held, and read again for each batch of the right one.
    let held = match (node.downcast_ref::<CrossJoinExec>(), node.downcast_ref::<NestedLoopJoinExec>()) {
        (Some(join), _) => Some(join.left()),
        (_, Some(join)) => Some(join.left()),
        _ => None,
    };
    if held.is_some_and(is_one_row) {
        return None;
    }
    let hint = match name {
        "WindowAggExec" => {
            "give the window an end (`rows between … and current row`), or use an `aggregate` and a `join` stage"
        }
        "CrossJoinExec" | "NestedLoopJoinExec" => "join on columns that are equal",
        "HashJoinExec" => "write `not exists` instead of `not in`",
        _ => "write it in another way, or in several stages",
    };
    Some((name.to_owned(), hint))
}

/// Whether at most one row comes out, whatever goes in.
fn is_one_row(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let groups_nothing = |aggregate: &AggregateExec| aggregate.group_expr().is_true_no_grouping();
    if plan.downcast_ref::<AggregateExec>().is_some_and(groups_nothing) || plan.fetch() == Some(1) {
        return true;
    }
    let passes_rows = ["CoalescePartitionsExec", "CooperativeExec", "FilterExec", "ProjectionExec"];
    passes_rows.contains(&plan.name()) && plan.children().first().is_some_and(|child| is_one_row(child))
}

/// How often the input is read.
fn n_reads(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan.downcast_ref::<StreamingTableExec>().map_or(0, |scan| scan.partitions().len());
    own + plan.children().into_iter().map(n_reads).sum::<usize>()
}
