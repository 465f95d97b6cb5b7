//! The columns to partition by: taken from the rows or computed, as keys and as folder names.

use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Problem, Result};
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::folder::folder;

/// `partition_by` and what goes with it.
#[derive(Clone, Debug)]
pub(crate) struct ByOptions {
    /// Each a column, or `expression as name`.
    pub(crate) items: Vec<String>,
    /// Whether the columns stay in the files, too.
    pub(crate) keep_columns: bool,
}

/// [`ByOptions`] bound to columns.
pub(crate) struct By {
    keys: Vec<Key>,
    converter: RowConverter,
    /// The columns that go into the files.
    data: Vec<usize>,
    data_schema: SchemaRef,
}

struct Key {
    name: String,
    values: Values,
}

enum Values {
    Column(usize),
    #[cfg(feature = "expr")]
    Expr(aqueduct_expr::Expr),
}

impl By {
    /// Binds to columns.
    ///
    /// # Errors
    /// All that does not fit them.
    pub(crate) fn bind(options: &ByOptions, schema: &SchemaRef) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut keys = Vec::new();
        let mut fields = Vec::new();
        for (at, item) in options.items.iter().enumerate() {
            match Key::bind(item, schema) {
                Ok((key, data_type)) => {
                    keys.push(key);
                    fields.push(SortField::new(data_type));
                }
                Err(message) => problems.push(Problem::at(format!("/partition_by/{at}"), message)),
            }
        }
        let data = data_columns(&keys, schema, options.keep_columns);
        if problems.is_empty() && data.is_empty() {
            let message = "no column is left to write; `partition_columns: true` keeps those in the files";
            problems.push(Problem::at("/partition_by", message));
        }
        match (RowConverter::new(fields), schema.project(&data)) {
            (Ok(converter), Ok(data_schema)) if problems.is_empty() => {
                Ok(Self { keys, converter, data, data_schema: Arc::new(data_schema) })
            }
            (Err(error), _) | (_, Err(error)) if problems.is_empty() => {
                Err(vec![Problem::at("/partition_by", error.to_string())])
            }
            _ => Err(problems),
        }
    }

    /// The columns in the files.
    pub(crate) fn data_schema(&self) -> &SchemaRef {
        &self.data_schema
    }

    /// The rows as they go into the files.
    pub(super) fn data(&self, records: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.data.iter().map(|at| Arc::clone(records.column(*at))).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.data_schema), columns, &options).map_err(failed)
    }

    /// The values to partition by.
    pub(crate) fn columns(&self, records: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.keys.iter().map(|key| key.values.of(records)).collect()
    }

    /// The same as bytes: equal where the values are.
    pub(crate) fn keys(&self, columns: &[ArrayRef]) -> Result<Rows> {
        self.converter.convert_columns(columns).map_err(failed)
    }

    /// The folder of a row, with a slash at its end.
    pub(crate) fn folder(&self, columns: &[ArrayRef], row: usize) -> Result<String> {
        let names = self.keys.iter().zip(columns).map(|(key, column)| {
            if column.is_null(row) {
                return Ok(folder(&key.name, None));
            }
            let options = FormatOptions::default();
            let text = ArrayFormatter::try_new(column.as_ref(), &options)?.value(row).try_to_string()?;
            Ok(folder(&key.name, Some(&text)))
        });
        names.collect::<Result<String, ArrowError>>().map_err(failed)
    }
}

impl Key {
    /// The key and its type, or what is wrong.
    fn bind(item: &str, schema: &SchemaRef) -> Result<(Self, DataType), String> {
        let (key, data_type) = match schema.index_of(item) {
            Ok(at) => {
                let key = Self { name: item.to_owned(), values: Values::Column(at) };
                (key, schema.field(at).data_type().clone())
            }
            Err(_) => Self::computed(item, schema)?,
        };
        if data_type.is_nested() || data_type.is_null() || is_bytes(&data_type) {
            return Err(format!("`{item}` is {data_type}, of which no folder name can be made"));
        }
        Ok((key, data_type))
    }

    #[cfg(feature = "expr")]
    fn computed(item: &str, schema: &SchemaRef) -> Result<(Self, DataType), String> {
        let item = aqueduct_expr::SelectItem::parse(item, schema).map_err(|error| error.to_string())?;
        let data_type = item.expr().data_type().clone();
        let key = Self { name: item.name().to_owned(), values: Values::Expr(item.expr().clone()) };
        Ok((key, data_type))
    }

    #[cfg(not(feature = "expr"))]
    fn computed(item: &str, schema: &SchemaRef) -> Result<(Self, DataType), String> {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        Err(match aqueduct_core::nearest(item, names) {
            Some(near) => format!("there is no column `{item}`; did you mean `{near}`?"),
            None => format!("there is no column `{item}`"),
        })
    }
}

impl Values {
    fn of(&self, records: &RecordBatch) -> Result<ArrayRef> {
        match self {
            Self::Column(at) => Ok(Arc::clone(records.column(*at))),
            #[cfg(feature = "expr")]
            Self::Expr(expr) => expr.evaluate(records),
        }
    }
}

fn data_columns(keys: &[Key], schema: &Schema, keep: bool) -> Vec<usize> {
    let is_key = |at: &usize| keys.iter().any(|key| matches!(key.values, Values::Column(key) if key == *at));
    (0..schema.fields().len()).filter(|at| keep || !is_key(at)).collect()
}

fn is_bytes(data_type: &DataType) -> bool {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary};
    matches!(data_type, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

pub(super) fn failed(error: ArrowError) -> Error {
    Error::new(ErrorKind::Data, "partition", "the rows cannot be partitioned").with_source(error)
}
