//! The names in a parsed expression: columns are found in any case, calls are checked, and what belongs
//! into another stage is refused by name.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Fields, Schema};
use datafusion_sql::sqlparser::ast::{Expr as Ast, Function, Ident, visit_expressions_mut};

use crate::ExprError;
use crate::functions::Functions;

/// Writes every column's real name into the expression, and refuses what cannot stand in one.
pub(crate) fn resolve(ast: &mut Ast, schema: &Schema, functions: &Functions) -> Result<(), ExprError> {
    let visited = visit_expressions_mut(ast, |node| match visit(node, schema, functions) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    });
    match visited {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

fn visit(node: &mut Ast, schema: &Schema, functions: &Functions) -> Result<(), ExprError> {
    match node {
        Ast::Identifier(ident) => {
            find(ident, schema.fields());
            Ok(())
        }
        Ast::CompoundIdentifier(idents) => {
            find_path(idents, schema.fields());
            Ok(())
        }
        Ast::Function(call) => check_call(call, functions),
        Ast::Subquery(_) | Ast::Exists { .. } | Ast::InSubquery { .. } => {
            Err(ExprError::new("a subquery cannot stand in an expression; use a `sql` or `join` stage"))
        }
        _ => Ok(()),
    }
}

/// `geo.lat`: the column, then the fields of its struct.
fn find_path(idents: &mut [Ident], fields: &Fields) {
    let mut fields = fields;
    for ident in idents {
        find(ident, fields);
        match fields.find(&ident.value).map(|(_, field)| field.data_type()) {
            Some(DataType::Struct(inner)) => fields = inner,
            _ => return,
        }
    }
}

/// Gives the identifier the name of the field that it means, quoted so that its case stays.
fn find(ident: &mut Ident, fields: &Fields) {
    if ident.quote_style.is_some() {
        return;
    }
    let name = ident.value.as_str();
    let lower = name.to_lowercase();
    let found = named(fields, |field| field == name)
        .or_else(|| named(fields, |field| field == lower))
        .or_else(|| named(fields, |field| field.to_lowercase() == lower));
    if let Some(found) = found {
        ident.value = found;
        ident.quote_style = Some('"');
    }
}

/// The one field whose name fits, or none.
fn named(fields: &Fields, fits: impl Fn(&str) -> bool) -> Option<String> {
    let mut found = fields.iter().map(|field| field.name()).filter(|name| fits(name));
    match (found.next(), found.next()) {
        (Some(name), None) => Some(name.clone()),
        _ => None,
    }
}

fn check_call(call: &Function, functions: &Functions) -> Result<(), ExprError> {
    let name = call.name.to_string().to_lowercase();
    if call.over.is_some() {
        let message = format!("`{name}(…) over …` looks at other rows; use a `sql` stage");
        return Err(ExprError::new(message));
    }
    if functions.has(name.trim_matches('"')) {
        return Ok(());
    }
    if AGGREGATES.contains(&name.as_str()) {
        let message = format!("`{name}` works on many rows; use an `aggregate` or `sql` stage");
        return Err(ExprError::new(message));
    }
    if name.starts_with("unnest") {
        return Err(ExprError::new(format!("`{name}` makes rows; use an `explode` stage")));
    }
    Err(ExprError::unknown("function", &name, functions.names()))
}

/// What people try in a `filter`, to tell them where it belongs. Others are unknown functions.
const AGGREGATES: &[&str] = &[
    "approx_distinct",
    "approx_median",
    "approx_percentile_cont",
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "first_value",
    "last_value",
    "max",
    "mean",
    "median",
    "min",
    "nth_value",
    "row_number",
    "stddev",
    "string_agg",
    "sum",
    "var",
];
