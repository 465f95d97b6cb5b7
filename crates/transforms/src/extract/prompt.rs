//! The prompt: a text with values of the row in it.

use aqueduct_core::{Problem, find_column};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::trouble::{Trouble, TroubleKind};

/// A text in which names of columns stand between braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prompt(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(usize),
}

impl Prompt {
    /// Reads a text: `{name}` is a column, `{{` a brace; other braces stand for themselves, as those of JSON.
    ///
    /// # Errors
    /// There is no such column, or its values are no texts.
    pub(super) fn new(text: &str, input: &Schema) -> Result<Self, Problem> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find('{') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('{') {
                plain.push('{');
                rest = after;
            } else if let Some(name) = name_at(rest) {
                let column = find_column(input, name, "/prompt")?;
                let data_type = input.field(column).data_type();
                if !can_cast_types(data_type, &DataType::Utf8) || data_type.is_nested() || is_bytes(data_type)
                {
                    return Err(Problem::at("/prompt", format!("`{name}` is {data_type}, which is no text")));
                }
                parts.extend([Part::Text(std::mem::take(&mut plain)), Part::Column(column)]);
                rest = &rest[name.len() + 1..];
            } else {
                plain.push('{');
            }
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// The prompt of a row.
    ///
    /// # Errors
    /// It is longer than it may be.
    pub(super) fn of(&self, rows: &RecordBatch, row: usize, max_bytes: usize) -> Result<String, Trouble> {
        let mut prompt = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => prompt.push_str(text),
                Part::Column(column) => {
                    let column = rows.column(*column);
                    // Looked at before it is copied.
                    if bytes_of(column, row) > max_bytes {
                        return Err(too_long(max_bytes));
                    }
                    let value = ArrayFormatter::try_new(column, &FormatOptions::default())
                        .and_then(|values| values.value(row).try_to_string());
                    prompt.push_str(&value.unwrap_or_default());
                }
            }
            if prompt.len() > max_bytes {
                return Err(too_long(max_bytes));
            }
        }
        Ok(prompt)
    }
}

/// A name that ends with a brace, if the text begins with one.
fn name_at(text: &str) -> Option<&str> {
    let name = text.split_once('}')?.0;
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let begins = name.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    (begins && name.chars().all(is_name)).then_some(name)
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
    )
}

fn bytes_of(column: &dyn Array, row: usize) -> usize {
    match column.data_type() {
        DataType::Utf8 => usize::try_from(column.as_string::<i32>().value_length(row)).unwrap_or(usize::MAX),
        DataType::LargeUtf8 => {
            usize::try_from(column.as_string::<i64>().value_length(row)).unwrap_or(usize::MAX)
        }
        _ => 0,
    }
}

fn too_long(max_bytes: usize) -> Trouble {
    let message = format!("the prompt is longer than {max_bytes} bytes; raise `max_prompt_bytes`");
    Trouble::new(TroubleKind::PromptTooLong, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::batch_of;

    fn prompt(text: &str) -> Result<String, Trouble> {
        let rows = batch_of(r#"[{"section": "Tides", "index": 3, "nothing": null}]"#);
        Prompt::new(text, &rows.schema()).unwrap().of(&rows, 0, 40)
    }

    #[test]
    fn values_of_the_row_are_filled_in_and_other_braces_stay() {
        assert_eq!(prompt("What is {section} ({index})?").unwrap(), "What is Tides (3)?");
        assert_eq!(prompt(r#"As {"title": …} or {{section}"#).unwrap(), r#"As {"title": …} or {section}"#);
        assert_eq!(prompt("{ } {1} {section").unwrap(), "{ } {1} {section");
        let trouble = prompt("{section} {section} {section} {section} {section} {section} {section}");
        assert_eq!(trouble.unwrap_err().kind, TroubleKind::PromptTooLong);
        let rows = batch_of(r#"[{"section": "Tides"}]"#);
        let problem = Prompt::new("{sektion}", &rows.schema()).unwrap_err();
        assert!(problem.message.contains("nearest `section`"), "{}", problem.message);
    }
}
