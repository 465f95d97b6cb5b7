//! `with`: adds columns, or replaces them in their place. All expressions see the columns as they come in.
//! Rows stay in order; the memory is that of the new columns.

use aqueduct_core::{
    ComponentInfo, Factory, Problem, Result, Stage, StageConfig, map_stage, only_input, pointer_to,
};
use aqueduct_expr::Expr;
use arrow::datatypes::{FieldRef, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::columns::{check, schema_of};
use crate::pairs::Pairs;
use crate::select::Compute;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "with",
    summary: "Adds columns made by SQL expressions, or replaces columns",
    example: "with: { double: \"score * 2\", label: \"upper(city) || '/' || country\" }",
});

/// Column names and the SQL expressions that make them. New columns come last, in this order.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(Pairs);

impl StageConfig for Config {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = only_input(inputs)?;
        let (mut columns, mut problems) = taken_over(&input);
        for (name, sql) in self.0.iter() {
            let expr = match Expr::parse(sql, &input) {
                Ok(expr) => expr,
                Err(error) => {
                    problems.push(Problem::at(pointer_to(name), error.to_string()));
                    continue;
                }
            };
            let made: (FieldRef, Expr) = (expr.field(name).into(), expr);
            match columns.iter_mut().find(|(field, _)| field.name() == name) {
                Some(replaced) => *replaced = made,
                None => columns.push(made),
            }
        }
        check(problems)?;
        let (fields, columns) = columns.into_iter().unzip();
        Ok(map_stage(Compute::new(columns, schema_of(fields, &input))))
    }
}

/// Every column of the input, as itself.
fn taken_over(input: &SchemaRef) -> (Vec<(FieldRef, Expr)>, Vec<Problem>) {
    let mut columns = Vec::new();
    let mut problems = Vec::new();
    for field in input.fields() {
        match Expr::column(field.name(), input) {
            Ok(expr) => columns.push((expr.field(field.name()).into(), expr)),
            Err(error) => problems.push(Problem::at("", error.to_string())),
        }
    }
    (columns, problems)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, batch_of, int_column, names, problems};
    use serde_json::json;

    #[tokio::test]
    async fn columns_are_replaced_in_place_and_new_ones_come_last() {
        let rows = batch_of(r#"[{"a": 1, "b": 2}]"#);
        let options = json!({"z": "a + b", "a": "a * 10", "y": "a"});
        let out = Bench::new().run("with", options, vec![rows]).await.unwrap();
        assert_eq!(names(&out), ["a", "b", "z", "y"]);
        assert_eq!(int_column(&out, "a"), [10]);
        assert_eq!(int_column(&out, "z"), [3]);
        assert_eq!(int_column(&out, "y"), [1]);
    }

    #[test]
    fn problems_name_the_column() {
        let wrong = problems("with", json!({"c/d": "nix + 1"}), &batch_of(r#"[{"a": 1}]"#));
        assert_eq!(wrong[0].pointer, "/c~1d");
    }
}
