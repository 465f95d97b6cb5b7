//! `drop`: removes columns. Nothing is copied.

use aqueduct_core::{
    ComponentInfo, Context, Error, Factory, MapRows, Problem, Result, Stage, StageConfig, find_column,
    map_stage, only_input,
};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::columns::check;

pub(crate) static FACTORY: Factory<Config> =
    Factory::new(ComponentInfo { name: "drop", summary: "Removes columns", example: "drop: [internal_id]" });

/// The columns to remove.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(Vec<String>);

impl StageConfig for Config {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = only_input(inputs)?;
        let mut dropped = Vec::new();
        let mut problems = Vec::new();
        for (n, name) in self.0.iter().enumerate() {
            match find_column(&input, name, &format!("/{n}")) {
                Ok(at) => dropped.push(at),
                Err(problem) => problems.push(problem),
            }
        }
        let kept: Vec<usize> = (0..input.fields().len()).filter(|at| !dropped.contains(at)).collect();
        if kept.is_empty() && problems.is_empty() {
            problems.push(Problem::at("", "no column would be left; keep at least one"));
        }
        check(problems)?;
        let schema = input.project(&kept).map_err(|error| vec![Problem::at("", error.to_string())])?;
        Ok(map_stage(Keep { kept, schema: schema.into() }))
    }
}

struct Keep {
    kept: Vec<usize>,
    schema: SchemaRef,
}

impl MapRows for Keep {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn map(&mut self, records: RecordBatch, _cx: &Context) -> Result<RecordBatch> {
        records.project(&self.kept).map_err(|error| Error::bug("drop", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, batch_of, names, problems};
    use serde_json::json;

    #[tokio::test]
    async fn the_other_columns_stay_in_order() {
        let rows = batch_of(r#"[{"a": 1, "b": 2, "c": 3}]"#);
        let out = Bench::new().run("drop", json!(["b"]), vec![rows]).await.unwrap();
        assert_eq!(names(&out), ["a", "c"]);
    }

    #[test]
    fn unknown_columns_are_told_and_one_must_stay() {
        let rows = batch_of(r#"[{"alpha": 1}]"#);
        let wrong = problems("drop", json!(["alpha", "alhpa"]), &rows);
        assert_eq!((wrong.len(), wrong[0].pointer.as_str()), (1, "/1"));
        assert!(problems("drop", json!(["alpha"]), &rows)[0].message.contains("no column would be left"));
    }
}
