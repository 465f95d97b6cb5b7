//! `aggregate`: one row for each group, however many groups there are; without groups one row.
//!
//! What a hash table of some memory holds is summed up at once; partial states go to disk sorted and are summed up for
//! good one group after another, so the groups come out in their order. Memory: the step's share, from the first row to
//! the last. What one group needs must fit: `count(distinct x)`, `array_agg(x)` and `median(x)` keep all values of it.

use std::sync::Arc;

use aqueduct_core::{
    BatchStream, ComponentInfo, Context, Factory, Inputs, MemoryNeed, Planning, Problem, Result, Stage,
    StageConfig, column_clashes, only_input, pointer_to,
};
use aqueduct_expr::{Grouping, GroupingPart};
use arrow::datatypes::{Fields, Schema, SchemaRef};
use datafusion_physical_plan::ExecutionPlan;
use datafusion_physical_plan::aggregates::PhysicalGroupBy;
use datafusion_physical_plan::projection::{ProjectionExec, ProjectionExpr};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{MIN_LEASE, WANTED_LEASE};
use crate::engine::{self, Input, grouped};
use crate::plain::bind_plain;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "aggregate",
    summary: "One row for each group: counts, sums, least and greatest",
    example: "aggregate: { by: [country, \"date_trunc('hour', ts) as hour\"], columns: { n: \"count(*)\" } }",
});

/// Groups, and the columns over each.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What makes rows one group: columns, or SQL expressions with `as NAME`. Without any, all rows are one group.
    #[serde(default)]
    by: Vec<String>,
    /// The columns over the rows of a group, by name: SQL over aggregates, `count(*)`, `sum(x) / count(x)`.
    #[serde(default)]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    columns: IndexMap<String, String>,
}

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        match self.by.is_empty() && self.columns.is_empty() {
            true => {
                vec![Problem::at("", "neither `by` nor `columns`; expected columns such as `n: count(*)`")]
            }
            false => Vec::new(),
        }
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::between(MIN_LEASE, WANTED_LEASE)
    }

    fn spills(&self) -> bool {
        true
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = only_input(inputs)?;
        let schema = bind_plain(&input)?;
        let columns: Vec<_> = self.columns.iter().map(|(name, sql)| (name.clone(), sql.clone())).collect();
        let grouping = Grouping::parse(&self.by, &columns, &schema).map_err(|errors| {
            let problem = |(part, error): (GroupingPart, aqueduct_expr::ExprError)| {
                Problem::at(self.pointer(part), error.to_string())
            };
            errors.into_iter().map(problem).collect::<Vec<_>>()
        })?;
        let fields: Fields = grouping.columns.iter().map(|(_, field)| Arc::clone(field)).collect();
        let output = Arc::new(Schema::new(fields));
        let clashes = column_clashes(&output, "");
        if !clashes.is_empty() {
            return Err(clashes);
        }
        let input = Input::new(&schema);
        let plan = plan(grouping, &input, schema)
            .map_err(|error| vec![Problem::at("", aqueduct_expr::ExprError::text_of(&error))])?;
        Ok(Box::new(Aggregate { input, plan, schema: output }))
    }
}

impl Config {
    fn pointer(&self, part: GroupingPart) -> String {
        match part {
            GroupingPart::By(n) => format!("/by/{n}"),
            GroupingPart::Column(n) => match self.columns.get_index(n) {
                Some((name, _)) => format!("/columns{}", pointer_to(name)),
                None => "/columns".to_owned(),
            },
        }
    }
}

fn plan(
    grouping: Grouping,
    input: &Arc<Input>,
    schema: SchemaRef,
) -> datafusion_common::Result<Arc<dyn ExecutionPlan>> {
    let Grouping { groups, aggregates, filters, columns } = grouping;
    let groups = PhysicalGroupBy::new_single(groups);
    let grouped = grouped(groups, aggregates, filters, input.scan()?, schema)?;
    let column =
        |(expr, field): (_, Arc<arrow::datatypes::Field>)| ProjectionExpr::new(expr, field.name().clone());
    Ok(Arc::new(ProjectionExec::try_new(columns.into_iter().map(column), grouped)?))
}

struct Aggregate {
    input: Arc<Input>,
    plan: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
}

impl Stage for Aggregate {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        let Self { input, plan, schema } = *self;
        let rows = Box::pin(futures::StreamExt::flatten(futures::stream::iter(inputs)));
        engine::run(plan, input, rows, schema, cx)
    }
}
