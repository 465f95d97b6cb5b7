//! What GROUP BY needs: groups, aggregates over the rows of each, and the columns that come of both.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, ScalarValue};
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Expr as Logical, ExprSchemable, lit};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion_sql::sqlparser::ast::Expr as Ast;

use crate::ExprError;
use crate::expr::result_field;
use crate::functions::Functions;
use crate::plan::{Plan, on_deep_stack, physical, props};

/// Groups and aggregates over rows of one schema, as DataFusion's operators take them.
#[derive(Clone, Debug)]
pub struct Grouping {
    /// What makes rows one group, and what it is called inside the plan.
    pub groups: Vec<(Arc<dyn PhysicalExpr>, String)>,
    /// What is computed over the rows of a group.
    pub aggregates: Vec<Arc<AggregateFunctionExpr>>,
    /// For each aggregate, which rows count; all, if there is none.
    pub filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// The columns that come out, over rows of all groups and then all aggregates.
    pub columns: Vec<(Arc<dyn PhysicalExpr>, FieldRef)>,
}

/// A part of a grouping, by its place in the list it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupingPart {
    /// What makes rows one group.
    By(usize),
    /// A column over the rows of a group.
    Column(usize),
}

/// What makes a column, and the column.
type Made = (Arc<dyn PhysicalExpr>, FieldRef);

/// What is wrong with a part.
pub type GroupingError = (GroupingPart, ExprError);

impl Grouping {
    /// Parses and types what makes a group (a column, or an expression with `as NAME`) and the columns over each, by
    /// name: aggregates such as `count(*)`, `sum(x) filter (where y > 0)`, and what is computed of them and of what
    /// makes the group. The groups come out first, under their names. Of numbers with a point, one zero and one NaN
    /// make groups.
    ///
    /// # Errors
    /// All parts that do not parse or type, or that name a column outside of an aggregate.
    pub fn parse<S: AsRef<str> + Sync>(
        by: &[S],
        columns: &[(S, S)],
        schema: &SchemaRef,
    ) -> Result<Self, Vec<GroupingError>> {
        let by: Vec<&str> = by.iter().map(AsRef::as_ref).collect();
        let columns: Vec<(&str, &str)> =
            columns.iter().map(|(name, sql)| (name.as_ref(), sql.as_ref())).collect();
        on_deep_stack(|| Parts::parse(&by, &columns, schema).map_err(Failed)).map_err(|Failed(errors)| errors)
    }
}

/// All errors; one that belongs to no part is told at the first.
struct Failed(Vec<GroupingError>);

impl From<ExprError> for Failed {
    fn from(error: ExprError) -> Self {
        Self(vec![(GroupingPart::Column(0), error)])
    }
}

/// A group as it is written.
struct Group {
    name: String,
    logical: Logical,
}

/// What is found while columns are parsed.
struct Parts<'a> {
    schema: &'a SchemaRef,
    logical_schema: DFSchema,
    now: DateTime<Utc>,
    options: Arc<ConfigOptions>,
    groups: Vec<Group>,
    aggregates: Vec<Logical>,
}

impl<'a> Parts<'a> {
    fn parse(
        by: &[&str],
        columns: &[(&str, &str)],
        schema: &'a SchemaRef,
    ) -> Result<Grouping, Vec<GroupingError>> {
        let (plain, aggregate) = (Functions::new(), Functions::with_aggregates());
        let alone = |error: DataFusionError| vec![(GroupingPart::Column(0), error.into())];
        let mut parts = Self {
            schema,
            logical_schema: DFSchema::try_from(Arc::clone(schema)).map_err(alone)?,
            now: Utc::now(),
            options: Arc::clone(aggregate.shared_options()),
            groups: Vec::new(),
            aggregates: Vec::new(),
        };
        let mut errors = Vec::new();
        for (n, sql) in by.iter().enumerate() {
            match parts.group(sql, &plain) {
                Ok(group) => parts.groups.push(group),
                Err(error) => errors.push((GroupingPart::By(n), error)),
            }
        }
        if !errors.is_empty() {
            // Columns of groups that are wrong would seem to be wrong, too.
            return Err(errors);
        }
        let mut made = Vec::new();
        for (n, (name, sql)) in columns.iter().enumerate() {
            match parts.column(sql, &aggregate) {
                Ok(logical) => made.push((n, *name, logical)),
                Err(error) => errors.push((GroupingPart::Column(n), error)),
            }
        }
        if errors.is_empty() { parts.finish(made) } else { Err(errors) }
    }

    fn group(&self, sql: &str, functions: &Functions) -> Result<Group, ExprError> {
        let as_written = sql.trim();
        if self.schema.index_of(as_written).is_ok() {
            let logical = Logical::Column(datafusion_common::Column::from_name(as_written));
            return Ok(Group { name: as_written.to_owned(), logical });
        }
        let parsed = crate::parse::parse(sql, self.schema, functions)?;
        let name = match (&parsed.alias, &parsed.expr) {
            (Some(alias), _) => alias.value.clone(),
            (None, Ast::Identifier(column)) => column.value.clone(),
            (None, _) => as_written.to_owned(),
        };
        let logical = Plan::new(parsed.expr, self.schema, functions)?.written_out(self.now)?;
        Ok(Group { name, logical })
    }

    /// A column over groups and aggregates, which are found in it.
    fn column(&mut self, sql: &str, functions: &Functions) -> Result<Logical, ExprError> {
        let parsed = crate::parse::parse(sql, self.schema, functions)?;
        if parsed.alias.is_some() {
            return Err(ExprError::new("the column has a name already; leave out `as …`"));
        }
        let logical = Plan::new(parsed.expr, self.schema, functions)?.written_out(self.now)?;
        let mut wrong = None;
        let replaced = logical.transform_down(|node| Ok(self.replace(node, &mut wrong)))?.data;
        match wrong {
            Some(error) => Err(error),
            None => Ok(replaced),
        }
    }

    /// What makes the group, or an aggregate, as a column of the plan.
    fn replace(&mut self, node: Logical, wrong: &mut Option<ExprError>) -> Transformed<Logical> {
        let column = |name: String| {
            let column = Logical::Column(datafusion_common::Column::from_name(name));
            Transformed::new(column, true, TreeNodeRecursion::Jump)
        };
        if let Some(n) = self.groups.iter().position(|group| group.logical == node) {
            return column(group_name(n));
        }
        match &node {
            Logical::AggregateFunction(call) => {
                let is_aggregate = |node: &Logical| Ok(matches!(node, Logical::AggregateFunction(_)));
                if call.params.args.iter().any(|arg| arg.exists(is_aggregate).unwrap_or(true)) {
                    *wrong =
                        Some(ExprError::new("an aggregate cannot stand in an aggregate; use two stages"));
                }
                let known = self.aggregates.iter().position(|other| *other == node);
                let n = known.unwrap_or_else(|| {
                    self.aggregates.push(node.clone());
                    self.aggregates.len() - 1
                });
                column(aggregate_name(n))
            }
            Logical::Column(found) => {
                let message = format!("the column `{}` is neither in `by` nor in an aggregate", found.name);
                *wrong =
                    Some(ExprError::new(message).hint("write `first_value(…)`, `max(…)`, or add it to `by`"));
                Transformed::no(node)
            }
            _ => Transformed::no(node),
        }
    }

    fn finish(self, made: Vec<(usize, &str, Logical)>) -> Result<Grouping, Vec<GroupingError>> {
        let (mut groups, mut fields, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (n, group) in self.groups.iter().enumerate() {
            match self.physical_group(&group.logical) {
                Ok((group, field)) => {
                    fields.push(Arc::new(field.as_ref().clone().with_name(group_name(n))));
                    groups.push((group, group_name(n)));
                }
                Err(error) => errors.push((GroupingPart::By(n), error)),
            }
        }
        let (mut aggregates, mut filters) = (Vec::new(), Vec::new());
        for (n, logical) in self.aggregates.iter().enumerate() {
            match self.physical_aggregate(n, logical) {
                Ok((aggregate, filter)) => {
                    fields.push(aggregate.field());
                    aggregates.push(aggregate);
                    filters.push(filter);
                }
                // A column that uses it is to blame; which one, its text says.
                Err(error) => errors.push((GroupingPart::Column(self.first_use(n, &made)), error)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let columns = self.columns(made, fields)?;
        Ok(Grouping { groups, aggregates, filters, columns })
    }

    fn first_use(&self, aggregate: usize, made: &[(usize, &str, Logical)]) -> usize {
        let name = aggregate_name(aggregate);
        let uses = |node: &Logical| Ok(matches!(node, Logical::Column(column) if column.name == name));
        made.iter().find(|(_, _, logical)| logical.exists(uses).unwrap_or(false)).map_or(0, |(n, ..)| *n)
    }

    fn physical_group(&self, logical: &Logical) -> Result<Made, ExprError> {
        let props = props(self.now, &self.options);
        let as_written = physical(logical, &self.logical_schema, &props)?;
        let field = result_field(&as_written, self.schema)?;
        let kind = logical.get_type(&self.logical_schema)?;
        match one_zero_and_one_nan(logical, &kind) {
            Some(logical) => Ok((physical(&logical, &self.logical_schema, &props)?, field)),
            None => Ok((as_written, field)),
        }
    }

    #[expect(clippy::type_complexity, reason = "an aggregate and which rows count")]
    fn physical_aggregate(
        &self,
        n: usize,
        logical: &Logical,
    ) -> Result<(Arc<AggregateFunctionExpr>, Option<Arc<dyn PhysicalExpr>>), ExprError> {
        let (props, planning) = (props(self.now, &self.options), PhysicalPlanningContext::default());
        let lowered =
            LoweredAggregateBuilder::new(logical, &self.logical_schema, self.schema, &props, &planning)
                .with_name(aggregate_name(n))
                .build()?;
        Ok((lowered.aggregate, lowered.filter))
    }

    /// The columns that come out: the groups, then those that were made.
    fn columns(
        &self,
        made: Vec<(usize, &str, Logical)>,
        fields: Vec<FieldRef>,
    ) -> Result<Vec<Made>, Vec<GroupingError>> {
        let between = Arc::new(Schema::new(fields));
        let group = |(n, group): (usize, &Group)| {
            let column = Logical::Column(datafusion_common::Column::from_name(group_name(n)));
            (GroupingPart::By(n), group.name.clone(), column)
        };
        let made =
            made.into_iter().map(|(n, name, logical)| (GroupingPart::Column(n), name.to_owned(), logical));
        let all = self.groups.iter().enumerate().map(group).chain(made);
        let (mut columns, mut errors) = (Vec::new(), Vec::new());
        for (part, name, logical) in all {
            match self.column_over(&logical, &between) {
                Ok((column, field)) => {
                    columns.push((column, Arc::new(field.as_ref().clone().with_name(name))))
                }
                Err(error) => errors.push((part, error)),
            }
        }
        if errors.is_empty() { Ok(columns) } else { Err(errors) }
    }

    fn column_over(&self, logical: &Logical, between: &SchemaRef) -> Result<Made, ExprError> {
        let schema = DFSchema::try_from(Arc::clone(between))?;
        let column = physical(logical, &schema, &props(self.now, &self.options))?;
        let field = result_field(&column, between)?;
        Ok((column, field))
    }
}

/// Names inside the plan, which no column of a user's can have in the same place.
fn group_name(n: usize) -> String {
    format!("group {n}")
}

fn aggregate_name(n: usize) -> String {
    format!("aggregate {n}")
}

/// The same number, of all zeros the positive one and of all NaNs one; nothing for other types.
fn one_zero_and_one_nan(logical: &Logical, kind: &DataType) -> Option<Logical> {
    let (zero, nan) = match kind {
        DataType::Float64 => (lit(0.0_f64), ScalarValue::Float64(Some(f64::NAN))),
        DataType::Float32 => (lit(0.0_f32), ScalarValue::Float32(Some(f32::NAN))),
        _ => return None,
    };
    let one_zero = logical.clone() + zero;
    Some(datafusion_functions::math::nanvl().call(vec![one_zero, Logical::Literal(nan, None)]))
}
