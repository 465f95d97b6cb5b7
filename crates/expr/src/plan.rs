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

/// Runs a job on a thread with a deep stack, and waits for it: planning goes down as deep as SQL nests.
///
/// # Errors
/// The job's own; there is no thread to be had; the job panics.
pub fn on_deep_stack<T: Send, E: From<ExprError> + Send>(
    job: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("expression".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, job)
            .map_err(|error| ExprError::new(format!("no thread to plan an expression on: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(ExprError::new("the expression makes the planner fail").into()))
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
        physical(&self.written_out(now)?, &self.schema, &props(now, &self.options))
    }

    /// With functions that are only names for something else written out, and `now` as the time.
    pub(crate) fn written_out(&self, now: DateTime<Utc>) -> Result<Logical, ExprError> {
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(&self.schema))
            .with_config_options(Arc::clone(&self.options))
            .with_query_execution_start_time(Some(now))
            .build();
        write_out_functions(self.logical.clone(), &context)
    }
}

/// What stays the same while expressions are made physical.
pub(crate) fn props(now: DateTime<Utc>, options: &Arc<ConfigOptions>) -> ExecutionProps {
    let mut props = ExecutionProps::new().with_query_execution_start_time(now);
    props.config_options = Some(Arc::clone(options));
    props
}

/// Makes an expression physical that is typed and written out.
pub(crate) fn physical(
    logical: &Logical,
    schema: &DFSchema,
    props: &ExecutionProps,
) -> Result<Arc<dyn PhysicalExpr>, ExprError> {
    let physical = create_physical_expr(logical, schema, props, &PhysicalPlanningContext::default())?;
    Ok(PhysicalExprSimplifier::new(schema.as_arrow()).simplify(physical)?)
}

/// A function may stand for a function that stands for another, but not for longer chains than this.
const MAX_PASSES: usize = 8;

/// Puts in the place of functions that are only names for something else what they stand for: `coalesce` is a
/// `case`, `now()` a constant.
///
/// DataFusion's logical simplifier would do this too. It is not used: it also takes
/// `a in (1) and a in (2)` for false where `a` is null, so that `not` of it keeps rows that SQL drops.
fn write_out_functions(logical: Logical, context: &SimplifyContext) -> Result<Logical, ExprError> {
    let mut written_out = logical;
    for _ in 0..MAX_PASSES {
        let pass = written_out.transform_up(|node| write_out(node, context))?;
        if !pass.transformed {
            return Ok(pass.data);
        }
        written_out = pass.data;
    }
    let message = format!("a function stands for others in a chain longer than the limit of {MAX_PASSES}");
    Err(ExprError::new(message).hint("write out what it stands for"))
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

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, lit};

    use super::*;

    /// Stands for so many others of its kind, one after the other.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct StandsFor(usize, Signature);

    impl StandsFor {
        fn call(n_others: usize) -> Logical {
            ScalarUDF::from(Self(n_others, Signature::nullary(Volatility::Immutable))).call(Vec::new())
        }
    }

    impl ScalarUDFImpl for StandsFor {
        fn name(&self) -> &'static str {
            "stands_for"
        }

        fn signature(&self) -> &Signature {
            &self.1
        }

        fn return_type(&self, _: &[DataType]) -> Result<DataType> {
            Ok(DataType::Int64)
        }

        fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
            datafusion_common::internal_err!("it only stands for something else")
        }

        fn simplify(&self, _: Vec<Logical>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
            let meaning = if self.0 == 0 { lit(1_i64) } else { Self::call(self.0 - 1) };
            Ok(ExprSimplifyResult::Simplified(meaning))
        }
    }

    #[test]
    fn functions_that_stand_for_others_without_end_are_refused_by_the_limit() {
        let context = SimplifyContext::builder().build();
        let written_out = |n_others| write_out_functions(StandsFor::call(n_others), &context);
        assert_eq!(written_out(6).unwrap(), lit(1_i64));
        let error = written_out(1000).unwrap_err();
        assert!(error.message().contains("limit of 8"), "{error}");
    }
}
