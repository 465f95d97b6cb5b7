//! The form of an answer: the columns that are asked for, as services are told of them, and how a text becomes them.

use std::sync::Arc;

use aqueduct_formats::{parse_type, without_hints};
use arrow::array::{ArrayRef, StringArray, StructArray, new_null_array};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow_json::ReaderBuilder;
use arrow_json::reader::Decoder;
use serde_json::{Map, Value, json};

use super::config::Answer;
use super::trouble::{Trouble, TroubleKind};

/// Names and types of what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form(SchemaRef);

impl Form {
    /// The form that the options ask for, if they do. They have been validated.
    pub(super) fn of(answer: &Answer) -> Option<Self> {
        let pairs = answer.schema.as_ref()?;
        let field = |(name, text): (&str, &str)| Some(parse_type(text).ok()?.field(name).with_nullable(true));
        let fields: Vec<Field> = pairs.iter().filter_map(field).collect();
        Some(Self(without_hints(&Schema::new(fields))))
    }

    /// As JSON Schema.
    pub(super) fn json_schema(&self) -> Value {
        object(self.0.fields(), Dialect::JsonSchema)
    }

    /// As the part of OpenAPI's schemas that Gemini knows.
    pub(super) fn open_api(&self) -> Value {
        object(self.0.fields(), Dialect::OpenApi)
    }

    fn array(&self, text: &str) -> Result<ArrayRef, Trouble> {
        let bad = |why: String| {
            Trouble::new(
                TroubleKind::BadAnswer,
                format!("the answer is not of the form that was asked for: {why}"),
            )
        };
        let text = without_fence(text);
        let builder = ReaderBuilder::new(Arc::clone(&self.0)).with_batch_size(1);
        let mut decoder: Decoder = builder.build_decoder().map_err(|error| bad(error.to_string()))?;
        let n_read = decoder.decode(text.as_bytes()).map_err(|error| bad(error.to_string()))?;
        let rows = decoder.flush().map_err(|error| bad(error.to_string()))?;
        match rows {
            Some(rows) if text[n_read..].trim().is_empty() && rows.num_rows() == 1 => {
                Ok(Arc::new(StructArray::from(rows)))
            }
            _ => Err(bad("expected one object of JSON".into())),
        }
    }
}

/// Some models put JSON between fences, whatever they are told.
fn without_fence(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inner.map_or(text, |inner| inner.strip_prefix("json").unwrap_or(inner).trim())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    JsonSchema,
    OpenApi,
}

impl Dialect {
    fn named(self, name: &str) -> Value {
        match self {
            Self::JsonSchema => name.into(),
            Self::OpenApi => name.to_uppercase().into(),
        }
    }
}

fn object(fields: &Fields, dialect: Dialect) -> Value {
    let of = |field: &Arc<Field>| (field.name().clone(), of_type(field.data_type(), dialect));
    let properties: Map<String, Value> = fields.iter().map(of).collect();
    let names: Vec<&String> = fields.iter().map(|field| field.name()).collect();
    let mut object = json!({"type": dialect.named("object"), "properties": properties, "required": names});
    match dialect {
        Dialect::JsonSchema => object["additionalProperties"] = Value::Bool(false),
        // Without it, members come by their names.
        Dialect::OpenApi => object["propertyOrdering"] = json!(names),
    }
    object
}

fn of_type(data_type: &DataType, dialect: Dialect) -> Value {
    match data_type {
        DataType::Boolean => json!({"type": dialect.named("boolean")}),
        data_type if data_type.is_integer() => json!({"type": dialect.named("integer")}),
        data_type if data_type.is_numeric() => json!({"type": dialect.named("number")}),
        DataType::Date32 => json!({"type": dialect.named("string"), "description": "a date, YYYY-MM-DD"}),
        DataType::Timestamp(..) => {
            json!({"type": dialect.named("string"), "description": "a time, RFC 3339"})
        }
        DataType::List(item) => {
            json!({"type": dialect.named("array"), "items": of_type(item.data_type(), dialect)})
        }
        DataType::Struct(fields) => object(fields, dialect),
        _ => json!({"type": dialect.named("string")}),
    }
}

/// What the type of the column of answers is.
pub(super) fn type_of(form: Option<&Form>) -> DataType {
    form.map_or(DataType::Utf8, |form| DataType::Struct(form.0.fields().clone()))
}

/// An answer as a column of one row; nothing, as a null.
///
/// # Errors
/// It is not of the form that was asked for.
pub(super) fn column_of(form: Option<&Form>, text: Option<&str>) -> Result<ArrayRef, Trouble> {
    match (form, text) {
        (_, None) => Ok(new_null_array(&type_of(form), 1)),
        (None, text) => Ok(Arc::new(StringArray::from(vec![text]))),
        (Some(form), Some(text)) => form.array(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array;
    use arrow::util::display::array_value_to_string;

    fn form() -> Form {
        let answer =
            json!({"schema": {"title": "string", "pages": "list<int64>", "about": "struct<year: int32>"}});
        Form::of(&serde_json::from_value(answer).unwrap()).unwrap()
    }

    #[test]
    fn an_answer_becomes_columns_or_says_why_not() {
        let (form, good) =
            (form(), r#"{"title": "Tides", "pages": [1, 2], "about": {"year": 1901}, "more": 1}"#);
        for text in [good.to_owned(), format!("\n```json\n{good}\n```\n")] {
            let column = column_of(Some(&form), Some(&text)).unwrap();
            let shown = array_value_to_string(&column, 0).unwrap();
            assert_eq!(shown, "{title: Tides, pages: [1, 2], about: {year: 1901}}");
        }
        assert!(column_of(Some(&form), None).unwrap().is_null(0));
        for bad in ["no JSON", "[1]", r#"{"pages": ["one"]}"#, r#"{"title": "a"} {"title": "b"}"#, "", "{"] {
            let trouble = column_of(Some(&form), Some(bad)).unwrap_err();
            assert_eq!(trouble.kind, TroubleKind::BadAnswer, "{bad}");
        }
    }

    #[test]
    fn services_are_told_of_the_form_in_their_own_words() {
        let schema = form().json_schema();
        assert_eq!(schema["properties"]["pages"], json!({"type": "array", "items": {"type": "integer"}}));
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema["required"], json!(["title", "pages", "about"]));
        let schema = form().open_api();
        assert_eq!(schema["properties"]["about"]["properties"]["year"], json!({"type": "INTEGER"}));
        assert_eq!(schema["propertyOrdering"], json!(["title", "pages", "about"]));
    }
}
