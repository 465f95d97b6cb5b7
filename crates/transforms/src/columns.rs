//! What stages of this crate say about columns.

use std::sync::Arc;

use aqueduct_core::Problem;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};

/// The schema of these columns, with the metadata of the one that they come from.
pub(crate) fn schema_of(fields: Vec<FieldRef>, from: &Schema) -> SchemaRef {
    Arc::new(Schema::new_with_metadata(fields, from.metadata().clone()))
}

/// The problems, if there are any.
pub(crate) fn check(problems: Vec<Problem>) -> Result<(), Vec<Problem>> {
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
