//! What stages say about columns: the one input, a column by name, names that clash.

use std::collections::HashSet;
use std::sync::Arc;

use aqueduct_core::{Problem, nearest};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};

/// The columns of the only input.
pub(crate) fn only(inputs: &[SchemaRef]) -> Result<SchemaRef, Vec<Problem>> {
    match inputs {
        [input] => Ok(Arc::clone(input)),
        _ => Err(vec![Problem::at("", format!("takes one input, found {}", inputs.len()))]),
    }
}

/// Where a column stands.
pub(crate) fn find(schema: &Schema, name: &str, pointer: &str) -> Result<usize, Problem> {
    schema.index_of(name).map_err(|_| {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let hint = match nearest(name, names.clone()) {
            Some(near) => format!("nearest `{near}`"),
            None => format!("there are: {}", names.take(MAX_NAMES).collect::<Vec<_>>().join(", ")),
        };
        Problem::at(pointer, format!("unknown column `{name}`; {hint}"))
    })
}

/// A message that lists more names than this cannot be read.
const MAX_NAMES: usize = 12;

/// The schema of these columns, with the metadata of the one that they come from.
pub(crate) fn schema_of(fields: Vec<FieldRef>, from: &Schema) -> SchemaRef {
    Arc::new(Schema::new_with_metadata(fields, from.metadata().clone()))
}

/// A problem for each name that stands twice.
pub(crate) fn clashes(schema: &Schema, pointer: &str) -> Vec<Problem> {
    let mut seen = HashSet::new();
    schema
        .fields()
        .iter()
        .filter(|field| !seen.insert(field.name()))
        .map(|field| {
            let message =
                format!("there would be two columns `{}`; rename or drop one of them before", field.name());
            Problem::at(pointer, message)
        })
        .collect()
}

/// A key as a part of a JSON pointer (RFC 6901).
pub(crate) fn pointer(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The problems, if there are any.
pub(crate) fn check(problems: Vec<Problem>) -> Result<(), Vec<Problem>> {
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field};

    #[test]
    fn an_unknown_column_is_told_with_the_nearest() {
        let schema = Schema::new(vec![Field::new("country", DataType::Utf8, true)]);
        assert_eq!(find(&schema, "country", "").unwrap(), 0);
        assert_eq!(
            find(&schema, "contry", "/0").unwrap_err(),
            Problem::at("/0", "unknown column `contry`; nearest `country`")
        );
        assert!(find(&schema, "x", "").unwrap_err().message.contains("there are: country"));
    }

    #[test]
    fn pointers_are_escaped() {
        assert_eq!(pointer("a/b~c"), "/a~1b~0c");
    }
}
