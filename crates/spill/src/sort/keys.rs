//! Sort keys as bytes: two rows compare as their bytes do (arrow-row's encoding).

use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Result};
use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::Schema;
use arrow::row::{Row, RowConverter, Rows, SortField};

/// A column to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// Its place among the columns.
    pub column: usize,
    /// Which way, and where nulls go.
    pub options: SortOptions,
}

/// Makes keys. Those of different batches compare, if they come from one encoder.
#[derive(Debug)]
pub(crate) struct KeyEncoder {
    converter: RowConverter,
    columns: Vec<usize>,
}

impl KeyEncoder {
    pub(crate) fn new(schema: &Schema, keys: &[SortKey]) -> Result<Self> {
        let field = |key: &SortKey| {
            let kind = schema.fields().get(key.column).map(|field| field.data_type().clone());
            Some(SortField::new_with_options(kind?, key.options))
        };
        let fields: Option<Vec<_>> = keys.iter().map(field).collect();
        let fields = fields.ok_or_else(|| Error::bug("sort", "a key is no column"))?;
        let converter = RowConverter::new(fields).map_err(|error| {
            Error::new(ErrorKind::Config, "sort", "a column of this type has no order").with_source(error)
        })?;
        Ok(Self { converter, columns: keys.iter().map(|key| key.column).collect() })
    }

    pub(crate) fn encode(&self, records: &RecordBatch) -> Result<Rows> {
        let columns: Vec<_> = self.columns.iter().map(|at| Arc::clone(records.column(*at))).collect();
        self.converter.convert_columns(&columns).map_err(|error| {
            Error::new(ErrorKind::Data, "sort", "the keys cannot be compared").with_source(error)
        })
    }
}

/// The first bytes of a key as a number: most comparisons end here, without a look at the key itself.
pub(crate) fn prefix(row: Row<'_>) -> u64 {
    let mut bytes = [0; 8];
    let n = row.data().len().min(8);
    bytes[..n].copy_from_slice(&row.data()[..n]);
    u64::from_be_bytes(bytes)
}
