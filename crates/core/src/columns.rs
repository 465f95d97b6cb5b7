//! What components say about columns: the one input, a column by name, names that clash, places of options.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::{Problem, nearest};

/// The columns of the only input.
///
/// # Errors
/// There are more, or none.
pub fn only_input(inputs: &[SchemaRef]) -> Result<SchemaRef, Vec<Problem>> {
    match inputs {
        [input] => Ok(Arc::clone(input)),
        _ => Err(vec![Problem::at("", format!("takes one input, found {}", inputs.len()))]),
    }
}

/// Where a column stands.
///
/// # Errors
/// There is none of this name; the nearest is named.
pub fn find_column(schema: &Schema, name: &str, pointer: &str) -> Result<usize, Problem> {
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

/// A problem for each name that stands twice.
pub fn column_clashes(schema: &Schema, pointer: &str) -> Vec<Problem> {
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
pub fn pointer_to(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field};

    #[test]
    fn an_unknown_column_is_told_with_the_nearest() {
        let schema = Schema::new(vec![Field::new("country", DataType::Utf8, true)]);
        assert_eq!(find_column(&schema, "country", "").unwrap(), 0);
        assert_eq!(
            find_column(&schema, "contry", "/0").unwrap_err(),
            Problem::at("/0", "unknown column `contry`; nearest `country`")
        );
        assert!(find_column(&schema, "x", "").unwrap_err().message.contains("there are: country"));
    }

    #[test]
    fn pointers_are_escaped() {
        assert_eq!(pointer_to("a/b~c"), "/a~1b~0c");
    }
}
