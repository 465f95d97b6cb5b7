//! `rename`: gives columns other names. Columns keep their places, and nothing is copied.

use std::collections::HashMap;
use std::sync::Arc;

use aqueduct_core::{
    ComponentInfo, Context, Error, Factory, MapRows, Problem, Result, Stage, StageConfig, column_clashes,
    find_column, map_stage, only_input, pointer_to,
};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::columns::{check, schema_of};
use crate::pairs::Pairs;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "rename",
    summary: "Gives columns other names",
    example: "rename: { id: event_id }",
});

/// Old names and new names. All change at once, so that two columns may exchange theirs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(Pairs);

impl StageConfig for Config {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = only_input(inputs)?;
        check(
            self.0.iter().filter_map(|(old, _)| find_column(&input, old, &pointer_to(old)).err()).collect(),
        )?;
        let new_names: HashMap<&str, &str> = self.0.iter().collect();
        let fields = input
            .fields()
            .iter()
            .map(|field| match new_names.get(field.name().as_str()) {
                Some(new) => Arc::new(field.as_ref().clone().with_name(*new)),
                None => Arc::clone(field),
            })
            .collect();
        let schema = schema_of(fields, &input);
        check(column_clashes(&schema, ""))?;
        Ok(map_stage(Rename { schema }))
    }
}

struct Rename {
    schema: SchemaRef,
}

impl MapRows for Rename {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn map(&mut self, records: RecordBatch, _cx: &Context) -> Result<RecordBatch> {
        RecordBatch::try_new(self.schema(), records.columns().to_vec())
            .map_err(|error| Error::bug("rename", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, batch_of, int_column, names, problems};
    use serde_json::json;

    #[tokio::test]
    async fn two_columns_can_exchange_their_names() {
        let rows = batch_of(r#"[{"a": 1, "b": 2, "c": 3}]"#);
        let out = Bench::new().run("rename", json!({"a": "b", "b": "a"}), vec![rows]).await.unwrap();
        assert_eq!(names(&out), ["b", "a", "c"]);
        assert_eq!(int_column(&out, "b"), [1]);
    }

    #[test]
    fn unknown_names_and_clashes_are_told() {
        let rows = batch_of(r#"[{"a": 1, "b": 2}]"#);
        assert_eq!(problems("rename", json!({"x": "y"}), &rows)[0].pointer, "/x");
        assert!(problems("rename", json!({"a": "b"}), &rows)[0].message.contains("two columns `b`"));
    }
}
