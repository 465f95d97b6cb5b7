//! From the parser's tree to something that can be evaluated: planned, coerced, made physical.
//!
//! All of it recurses over the tree, so it runs on a thread with a stack that fits the deepest tree allowed.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion_common::{DFSchema, Result};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{Expr as Logical, Volatility};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, PhysicalExprSimplifier, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::Expr as Ast;

use crate::ExprError;
use crate::functions::Functions;
use crate::parse::{MAX_DEPTH, too_deep};

/// Enough for [`crate::MAX_OPERATORS`] levels of the planner's largest frames. Only what is used is ever paid.
const STACK_BYTES: usize = 64 << 20;

/// Runs a job on a thread with a deep stack, and waits for it.
pub(crate) fn on_deep_stack<T: Send>(
    job: impl FnOnce() -> Result<T, ExprError> + Send,
) -> Result<T, ExprError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("expression".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, job)
            .map_err(|error| ExprError::new(format!("no thread to plan an expression on: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(ExprError::new("the expression makes the planner fail")))
    })
}

/// A planned expression, typed against a schema.
#[derive(Debug)]
pub(crate) struct Plan {
    logical: Logical,
    schema: Arc<DFSchema>,
    options: Arc<ConfigOptions>,
}

impl Plan {
    /// Plans and types a parsed expression.
    pub(crate) fn new(ast: Ast, schema: &SchemaRef, functions: &Functions) -> Result<Self, ExprError> {
        let schema = Arc::new(DFSchema::try_from(Arc::clone(schema))?);
        let options = ParserOptions::new().with_map_string_types_to_utf8view(false);
        let planner = SqlToRel::new_with_options(functions, options);
        let logical = planner.sql_to_expr(ast, &schema, &mut PlannerContext::new())?;
        check_depth(&logical)?;
        let context = SimplifyContext::builder().with_schema(Arc::clone(&schema)).build();
        let logical = ExprSimplifier::new(context).coerce(logical, &schema)?;
        Ok(Self { logical, schema, options: Arc::clone(functions.shared_options()) })
    }

    /// Whether it calls `now()` or the like, whose value is fixed when the plan is made physical.
    pub(crate) fn tells_time(&self) -> Result<bool, ExprError> {
        Ok(self.logical.exists(|node| {
            Ok(matches!(node, Logical::ScalarFunction(call)
                if call.func.signature().volatility == Volatility::Stable))
        })?)
    }

    /// Makes it physical, with `now` as the time that `now()` tells.
    pub(crate) fn physical(&self, now: DateTime<Utc>) -> Result<Arc<dyn PhysicalExpr>, ExprError> {
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(&self.schema))
            .with_config_options(Arc::clone(&self.options))
            .with_query_execution_start_time(Some(now))
            .build();
        let written_out = write_out_functions(self.logical.clone(), &context)?;
        let mut props = ExecutionProps::new().with_query_execution_start_time(now);
        props.config_options = Some(Arc::clone(&self.options));
        let physical =
            create_physical_expr(&written_out, &self.schema, &props, &PhysicalPlanningContext::default())?;
        Ok(PhysicalExprSimplifier::new(self.schema.as_arrow()).simplify(physical)?)
    }
}

/// A function may stand for a function that stands for another, but not for longer chains than this.
const MAX_PASSES: usize = 8;

/// Puts in the place of functions that are only names for something else what they stand for: `coalesce` is a
/// `case`, `now()` a constant.
///
/// DataFusion's logical simplifier would do this too. It is not used: it also takes
/// `a in (1) and a in (2)` for false where `a` is null, so that `not` of it keeps rows that SQL drops.
fn write_out_functions(logical: Logical, context: &SimplifyContext) -> Result<Logical> {
    let mut written_out = logical;
    for _ in 0..MAX_PASSES {
        let pass = written_out.transform_up(|node| write_out(node, context))?;
        written_out = pass.data;
        if !pass.transformed {
            break;
        }
    }
    Ok(written_out)
}

fn write_out(node: Logical, context: &SimplifyContext) -> Result<Transformed<Logical>> {
    let Logical::ScalarFunction(call) = node else { return Ok(Transformed::no(node)) };
    Ok(match call.func.simplify(call.args, context)? {
        ExprSimplifyResult::Simplified(meaning) => Transformed::yes(meaning),
        ExprSimplifyResult::Original(args) => {
            Transformed::no(Logical::ScalarFunction(ScalarFunction { func: call.func, args }))
        }
    })
}

fn check_depth(logical: &Logical) -> Result<(), ExprError> {
    let mut depth = Depth::default();
    logical.visit(&mut depth)?;
    if depth.deepest > MAX_DEPTH { Err(too_deep()) } else { Ok(()) }
}

#[derive(Default)]
struct Depth {
    now: usize,
    deepest: usize,
}

impl TreeNodeVisitor<'_> for Depth {
    type Node = Logical;

    fn f_down(&mut self, _node: &Logical) -> Result<TreeNodeRecursion> {
        self.now += 1;
        self.deepest = self.deepest.max(self.now);
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, _node: &Logical) -> Result<TreeNodeRecursion> {
        self.now -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}
