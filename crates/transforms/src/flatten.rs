//! `flatten`: puts the fields of a struct in its place, as columns named by the fields. Where the struct is
//! null, they are. Rows stay in order; the values are not copied.

use std::sync::Arc;

use aqueduct_core::{
    ComponentInfo, Context, Error, Factory, MapRows, Problem, Result, Stage, StageConfig, column_clashes,
    find_column, map_stage, only_input,
};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::columns::{check, schema_of};

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "flatten",
    summary: "Puts the fields of a struct column in its place, as columns of their own",
    example: "flatten: geo",
});

/// The struct column. Its fields become columns under their own names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(String);

impl StageConfig for Config {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = only_input(inputs)?;
        let at = find_column(&input, &self.0, "").map_err(|problem| vec![problem])?;
        let DataType::Struct(inner) = input.field(at).data_type() else {
            let message =
                format!("`{}` is {}; only a struct has fields", self.0, input.field(at).data_type());
            return Err(vec![Problem::at("", message)]);
        };
        let nullable = input.field(at).is_nullable();
        let mut fields = input.fields().to_vec();
        fields.splice(at..=at, inner.iter().map(|field| on_its_own(field, nullable)));
        let schema = schema_of(fields, &input);
        check(column_clashes(&schema, ""))?;
        Ok(map_stage(Flatten { at, schema }))
    }
}

fn on_its_own(field: &FieldRef, parent_is_nullable: bool) -> FieldRef {
    let nullable = field.is_nullable() || parent_is_nullable;
    Arc::new(field.as_ref().clone().with_nullable(nullable))
}

struct Flatten {
    at: usize,
    schema: SchemaRef,
}

impl MapRows for Flatten {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn map(&mut self, records: RecordBatch, _cx: &Context) -> Result<RecordBatch> {
        let mut columns = records.columns().to_vec();
        fields_of(records.column(self.at).as_struct())
            .and_then(|inner| {
                columns.splice(self.at..=self.at, inner);
                RecordBatch::try_new(self.schema(), columns)
            })
            .map_err(|error| Error::bug("flatten", error.to_string()))
    }
}

/// The fields, null where the struct itself is.
fn fields_of(parent: &StructArray) -> Result<Vec<ArrayRef>, ArrowError> {
    parent.columns().iter().map(|column| also_null(column, parent.nulls())).collect()
}

fn also_null(column: &ArrayRef, parent: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let has_no_validity = matches!(column.data_type(), DataType::Null | DataType::Union(..));
    if parent.is_none() || has_no_validity {
        return Ok(Arc::clone(column));
    }
    let nulls = NullBuffer::union(parent, column.nulls());
    Ok(make_array(column.to_data().into_builder().nulls(nulls).build()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, batch_of, int_column, names, problems};
    use serde_json::json;

    #[tokio::test]
    async fn fields_stand_where_the_struct_stood() {
        let rows =
            batch_of(r#"[{"a": 1, "geo": {"lat": 2, "lon": 3}, "z": 4}, {"a": 5, "geo": null, "z": 6}]"#);
        let out = Bench::new().run("flatten", json!("geo"), vec![rows]).await.unwrap();
        assert_eq!(names(&out), ["a", "lat", "lon", "z"]);
        assert_eq!(int_column(&out, "lat"), [2, 0]);
        assert!(out.column(1).is_null(1), "a field of a null struct is null");
    }

    #[tokio::test]
    async fn values_hidden_under_a_null_struct_stay_hidden() {
        let rows = batch_of(r#"[{"geo": {"lat": 2}}, {"geo": {"lat": 3}}]"#);
        let parent = rows.column(0).as_struct().clone();
        let (fields, columns, _) = parent.into_parts();
        let hidden = StructArray::new(fields, columns, Some(NullBuffer::from(vec![true, false])));
        let rows = RecordBatch::try_new(rows.schema(), vec![Arc::new(hidden)]).unwrap();
        let out = Bench::new().run("flatten", json!("geo"), vec![rows]).await.unwrap();
        assert!(out.column(0).is_valid(0) && out.column(0).is_null(1));
    }

    #[test]
    fn clashes_and_what_is_no_struct_are_refused() {
        let rows = batch_of(r#"[{"lat": 1, "geo": {"lat": 2}}]"#);
        assert!(problems("flatten", json!("geo"), &rows)[0].message.contains("two columns `lat`"));
        assert!(problems("flatten", json!("lat"), &rows)[0].message.contains("struct"));
        assert!(problems("flatten", json!("gee"), &rows)[0].message.contains("nearest `geo`"));
    }
}
