//! `filter`: keeps the rows for which a condition is true, and drops those for which it is false or null.
//! Rows stay in order; the memory is that of the rows kept.

use aqueduct_core::{
    ComponentInfo, Context, Error, Factory, MapRows, Problem, Result, Stage, StageConfig, map_stage,
    only_input,
};
use aqueduct_expr::Expr;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::rows::{Findings, compute_rows};

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "filter",
    summary: "Keeps the rows for which a SQL condition is true",
    example: "filter: \"country = 'FR' AND score > 0.5\"",
});

/// A SQL condition over the columns; rows for which it is false or null are dropped.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(String);

impl StageConfig for Config {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let schema = only_input(inputs)?;
        let condition =
            Expr::parse(&self.0, &schema).map_err(|error| vec![Problem::at("", error.to_string())])?;
        if !condition.is_boolean() {
            let message = format!(
                "`{}` is {}; a filter needs a bool, true or false, as `score > 0.5` is",
                condition.sql(),
                condition.data_type()
            );
            return Err(vec![Problem::at("", message)]);
        }
        Ok(map_stage(Filter { condition, schema, findings: Findings::default() }))
    }
}

struct Filter {
    condition: Expr,
    schema: SchemaRef,
    findings: Findings,
}

impl MapRows for Filter {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn map(&mut self, records: RecordBatch, cx: &Context) -> Result<RecordBatch> {
        let now = cx.clock().now();
        let condition = &self.condition;
        let mut keep = |rows: &RecordBatch| {
            let truth = condition.evaluate_at(rows, now)?;
            filter_record_batch(rows, truth.as_boolean())
                .map_err(|error| Error::bug("filter", error.to_string()))
        };
        let kept = compute_rows(&records, &self.schema, cx, &mut self.findings, &mut keep)?;
        self.findings.filtered(records.num_rows(), kept.num_rows());
        Ok(kept)
    }

    fn settle(&mut self, cx: &Context) -> Result<()> {
        self.findings.settle(cx)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, batch_of, int_column, problems, strings_column};
    use aqueduct_core::Positions;
    use serde_json::json;

    // S2.5
    #[tokio::test]
    async fn true_rows_stay_false_and_null_rows_go() {
        let rows = batch_of(r#"[{"a": 1}, {"a": null}, {"a": 3}, {"a": 4}]"#);
        let bench = Bench::new();
        let out = bench.run("filter", json!("a <> 3"), vec![rows]).await.unwrap();
        assert_eq!(int_column(&out, "a"), [1, 4]);
        assert_eq!(bench.metrics().rows_filtered.get(), 2);
    }

    #[tokio::test]
    async fn positions_pass_when_no_row_does() {
        let bench = Bench::new();
        let batches =
            bench.batches("filter", json!("a > 99"), vec![batch_of(r#"[{"a": 1}]"#)]).await.unwrap();
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 0);
        assert_eq!(*batches[0].positions(), Positions::done("split-0"));
    }

    #[test]
    fn a_condition_must_be_true_or_false_and_know_its_columns() {
        let rows = batch_of(r#"[{"id": 1, "country": "FR"}]"#);
        let wrong = problems("filter", json!("id + 1"), &rows);
        assert!(wrong[0].message.contains("bool"), "{wrong:?}");
        let wrong = problems("filter", json!("contry = 'FR'"), &rows);
        assert!(wrong[0].message.contains("nearest `country`"), "{wrong:?}");
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_computed_is_rejected_alone() {
        let rows = batch_of(r#"[{"s": "1"}, {"s": "two"}, {"s": "3"}]"#);
        let bench = Bench::forgiving();
        let out = bench.run("filter", json!("cast(s as int) > 0"), vec![rows.clone()]).await.unwrap();
        assert_eq!(strings_column(&out, "s"), ["1", "3"]);
        let rejects = bench.rejects();
        assert_eq!(rejects.len(), 1);
        assert_eq!(rejects[0].raw, br#"{"s":"two"}"#);
        assert!(rejects[0].message.contains("two"), "{}", rejects[0].message);
        assert_eq!(bench.metrics().rows_filtered.get(), 0);

        let error = Bench::new().run("filter", json!("cast(s as int) > 0"), vec![rows]).await.unwrap_err();
        assert!(error.chain().contains("two"), "{error:?}");
    }
}
