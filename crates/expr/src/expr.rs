//! An expression that is ready to be evaluated, and one with the name of the column it makes.

use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use chrono::{DateTime, Utc};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;
use datafusion_sql::sqlparser::ast::Expr as Ast;

use crate::ExprError;
use crate::error::text_of;
use crate::functions::Functions;
use crate::plan::{Plan, on_deep_stack};

/// A SQL expression over rows of one schema. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Expr {
    sql: Arc<str>,
    evaluator: Evaluator,
    /// Type and nullability of what comes out; the name is not meant for anybody.
    result: FieldRef,
}

#[derive(Clone, Debug)]
enum Evaluator {
    /// Made physical once.
    Fixed(Arc<dyn PhysicalExpr>),
    /// Made physical for each batch, because `now()` becomes a constant by that.
    EachBatch(Arc<Plan>),
}

impl Expr {
    /// Parses and types an expression over rows of this schema.
    ///
    /// # Errors
    /// It is not SQL, names an unknown column or function, does not type, looks at other rows, or passes
    /// [`MAX_SQL_BYTES`](crate::MAX_SQL_BYTES), [`MAX_OPERATORS`](crate::MAX_OPERATORS) or
    /// [`MAX_DEPTH`](crate::MAX_DEPTH).
    pub fn parse(sql: &str, schema: &SchemaRef) -> Result<Self, ExprError> {
        on_deep_stack(|| {
            let functions = Functions::new();
            let parsed = crate::parse::parse(sql, schema, &functions)?;
            if parsed.alias.is_some() {
                return Err(ExprError::new("a name has no use here; leave out `as …`"));
            }
            Self::plan(sql, parsed.expr, schema, &functions)
        })
    }

    /// The column of exactly this name.
    ///
    /// # Errors
    /// There is none.
    pub fn column(name: &str, schema: &SchemaRef) -> Result<Self, ExprError> {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let at = schema.index_of(name).map_err(|_| ExprError::unknown("column", name, names))?;
        let physical: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, at));
        let result = result_field(&physical, schema)?;
        Ok(Self { sql: name.into(), evaluator: Evaluator::Fixed(physical), result })
    }

    fn plan(sql: &str, ast: Ast, schema: &SchemaRef, functions: &Functions) -> Result<Self, ExprError> {
        let plan = Plan::new(ast, schema, functions).map_err(|error| hint_quotes(error, sql))?;
        let physical = plan.physical(Utc::now())?;
        let result = result_field(&physical, schema)?;
        let evaluator = if plan.tells_time()? {
            Evaluator::EachBatch(Arc::new(plan))
        } else {
            Evaluator::Fixed(physical)
        };
        Ok(Self { sql: sql.trim().into(), evaluator, result })
    }

    /// The expression as it was written.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The type of what comes out.
    pub fn data_type(&self) -> &DataType {
        self.result.data_type()
    }

    /// Whether nulls may come out.
    pub fn nullable(&self) -> bool {
        self.result.is_nullable()
    }

    /// Whether it tells true from false, as a condition must.
    pub fn is_boolean(&self) -> bool {
        *self.data_type() == DataType::Boolean
    }

    /// The column that it makes, under this name. A column taken over keeps its metadata.
    pub fn field(&self, name: impl Into<String>) -> Field {
        self.result.as_ref().clone().with_name(name)
    }

    /// One value a row. `now()` is the system's time, the same for all rows; `random()` differs by row.
    ///
    /// `rows` must have the schema that the expression was parsed with.
    ///
    /// # Errors
    /// A value cannot be computed (a division by zero, a cast that fails): none of the rows is. Which row it
    /// was, evaluating slices tells.
    pub fn evaluate(&self, rows: &RecordBatch) -> aqueduct_core::Result<ArrayRef> {
        self.evaluate_at(rows, Utc::now())
    }

    /// [`Expr::evaluate`], with the time that `now()` tells.
    ///
    /// # Errors
    /// As [`Expr::evaluate`].
    pub fn evaluate_at(&self, rows: &RecordBatch, now: DateTime<Utc>) -> aqueduct_core::Result<ArrayRef> {
        let fail =
            |message: String| Error::new(ErrorKind::Data, "evaluate", message).with("expression", &self.sql);
        let values = match &self.evaluator {
            Evaluator::Fixed(physical) => physical.evaluate(rows),
            Evaluator::EachBatch(plan) => {
                let physical =
                    on_deep_stack(|| plan.physical(now)).map_err(|error| fail(error.to_string()))?;
                physical.evaluate(rows)
            }
        };
        let values = values
            .and_then(|values| values.into_array_of_size(rows.num_rows()))
            .map_err(|error| fail(text_of(error.find_root())))?;
        if values.data_type() == self.data_type() {
            return Ok(values);
        }
        cast(&values, self.data_type()).map_err(|error| fail(error.to_string()))
    }
}

/// An expression and the name of the column that it makes: `score * 2 as double`.
#[derive(Clone, Debug)]
pub struct SelectItem {
    name: String,
    expr: Expr,
}

impl SelectItem {
    /// Parses an expression that may end in `as NAME`. Without that, a column keeps its name and anything else
    /// is named by its text. Text that is exactly the name of a column means it, whatever characters it has.
    ///
    /// # Errors
    /// As [`Expr::parse`].
    pub fn parse(sql: &str, schema: &SchemaRef) -> Result<Self, ExprError> {
        let name_as_written = sql.trim();
        if let Ok(expr) = Expr::column(name_as_written, schema) {
            return Ok(Self { name: name_as_written.to_owned(), expr });
        }
        on_deep_stack(|| {
            let functions = Functions::new();
            let parsed = crate::parse::parse(sql, schema, &functions)?;
            let name = match (&parsed.alias, &parsed.expr) {
                (Some(alias), _) => alias.value.clone(),
                (None, Ast::Identifier(column)) => column.value.clone(),
                (None, _) => name_as_written.to_owned(),
            };
            let expr = Expr::plan(sql, parsed.expr, schema, &functions)?;
            Ok(Self { name, expr })
        })
    }

    /// What the column is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What makes its values.
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// The column.
    pub fn field(&self) -> Field {
        self.expr.field(&self.name)
    }
}

/// Type, nullability and metadata of what comes out. Only a column is as little nullable as the schema says:
/// DataFusion's word for computed values is an estimate, and a wrong one would fail a run.
pub(crate) fn result_field(
    physical: &Arc<dyn PhysicalExpr>,
    schema: &SchemaRef,
) -> Result<FieldRef, ExprError> {
    let field = physical.return_field(schema)?;
    let nullable = field.is_nullable() || !physical.is::<Column>();
    let plain = plain_type(field.data_type());
    Ok(Arc::new(field.as_ref().clone().with_data_type(plain).with_nullable(nullable)))
}

/// Whoever quotes text as in other languages names a column that is not there.
fn hint_quotes(error: ExprError, sql: &str) -> ExprError {
    let quoted = error.message().strip_prefix("unknown column `").and_then(|rest| rest.split('`').next());
    match quoted.map(str::to_owned) {
        Some(name) if sql.contains(&format!("\"{name}\"")) => {
            error.hint("text stands in single quotes: 'text'")
        }
        _ => error,
    }
}

/// The same type without view layouts, which not every sink and format knows.
fn plain_type(data_type: &DataType) -> DataType {
    let plain =
        |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::ListView(item) => DataType::List(plain(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(plain(item)),
        DataType::FixedSizeList(item, len) => DataType::FixedSizeList(plain(item), *len),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
        other => other.clone(),
    }
}
