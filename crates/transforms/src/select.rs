//! `select`: makes the columns of a list, in its order. Rows stay in order; columns that are taken over share
//! their memory with the input.

use aqueduct_core::{
    ComponentInfo, Context, Error, Factory, MapRows, Problem, Result, Stage, StageConfig, column_clashes,
    map_stage, only_input,
};
use aqueduct_expr::{Expr, SelectItem};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::columns::{check, schema_of};
use crate::rows::{Findings, compute_rows};

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "select",
    summary: "Makes exactly the columns of a list, by name or by SQL expression",
    example: "select: [id, \"score * 2 as double\"]",
});

/// Columns in order: a name, or a SQL expression with `as NAME`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(Vec<String>);

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        match self.0.is_empty() {
            true => vec![Problem::at("", "no column is listed; rows without columns cannot go on")],
            false => Vec::new(),
        }
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = only_input(inputs)?;
        let mut problems = Vec::new();
        let mut columns = Vec::new();
        for (n, text) in self.0.iter().enumerate() {
            match SelectItem::parse(text, &input) {
                Ok(item) => columns.push(item),
                Err(error) => problems.push(Problem::at(format!("/{n}"), error.to_string())),
            }
        }
        check(problems)?;
        let schema = schema_of(columns.iter().map(|item| item.field().into()).collect(), &input);
        check(column_clashes(&schema, ""))?;
        Ok(map_stage(Compute::new(columns.into_iter().map(|item| item.expr().clone()).collect(), schema)))
    }
}

/// Makes each column of a schema by one expression. Also what `with` is made of.
pub(crate) struct Compute {
    columns: Vec<Expr>,
    schema: SchemaRef,
    findings: Findings,
}

impl Compute {
    pub(crate) fn new(columns: Vec<Expr>, schema: SchemaRef) -> Self {
        Self { columns, schema, findings: Findings::default() }
    }
}

impl MapRows for Compute {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn map(&mut self, records: RecordBatch, cx: &Context) -> Result<RecordBatch> {
        let now = cx.clock().now();
        let (columns, schema) = (&self.columns, &self.schema);
        let mut compute = |rows: &RecordBatch| {
            let made: Result<Vec<_>> = columns
                .iter()
                .zip(schema.fields())
                .map(|(column, field)| {
                    column.evaluate_at(rows, now).map_err(|error| error.with("column", field.name()))
                })
                .collect();
            RecordBatch::try_new(SchemaRef::clone(schema), made?)
                .map_err(|error| Error::bug("select", error.to_string()))
        };
        compute_rows(&records, schema, cx, &mut self.findings, &mut compute)
    }

    fn settle(&mut self, cx: &Context) -> Result<()> {
        self.findings.settle(cx)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, batch_of, int_column, names, problems, strings_column};
    use serde_json::json;

    #[tokio::test]
    async fn columns_come_in_the_order_of_the_list() {
        let rows = batch_of(r#"[{"a": 1, "b": 2, "Odd name": "x"}]"#);
        let options = json!(["b", "a + 1 as c", "Odd name", r#"upper("Odd name")"#]);
        let out = Bench::new().run("select", options, vec![rows]).await;
        let out = out.unwrap();
        assert_eq!(names(&out), ["b", "c", "Odd name", "upper(\"Odd name\")"]);
        assert_eq!(int_column(&out, "c"), [2]);
        assert_eq!(strings_column(&out, "upper(\"Odd name\")"), ["X"]);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_and_where() {
        let rows = batch_of(r#"[{"a": 1}]"#);
        let wrong = problems("select", json!(["a", "b", "a +"]), &rows);
        let places: Vec<_> = wrong.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(places, ["/1", "/2"]);
        assert!(problems("select", json!(["a", "a"]), &rows)[0].message.contains("two columns `a`"));
        assert!(problems("select", json!([]), &rows)[0].message.contains("no column"));
    }

    #[tokio::test]
    async fn a_bad_value_names_its_column() {
        let rows = batch_of(r#"[{"a": 1}, {"a": 0}]"#);
        let bench = Bench::forgiving();
        let out = bench.run("select", json!(["10 / a as ratio"]), vec![rows]).await.unwrap();
        assert_eq!(int_column(&out, "ratio"), [10]);
        assert_eq!(bench.rejects()[0].origin.column.as_deref(), Some("ratio"));
    }
}
