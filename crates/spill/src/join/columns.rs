//! Which columns come in, are compared and come out.

use std::sync::Arc;

use aqueduct_core::{Error, Problem, Result};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

use crate::plain::{plain_rows, plain_schema};
use crate::sort::{KeyEncoder, Keys};
use crate::{SortKey, SortOrder};

/// A pair of columns that are to be equal.
#[derive(Clone, Debug)]
pub(crate) struct KeyPair {
    /// The place among the left columns.
    pub(crate) left: usize,
    /// And among the right ones.
    pub(crate) right: usize,
    /// As what they are compared.
    pub(crate) kind: DataType,
}

/// The columns of both sides, of the keys and of what comes out.
#[derive(Clone, Debug)]
pub(crate) struct JoinColumns {
    pub(crate) left: SchemaRef,
    /// Those that are read: all, or the keys alone where no others come out.
    pub(crate) right: SchemaRef,
    /// Where those are in the input.
    taken: Vec<usize>,
    /// Places in `left` and in `right`.
    pub(crate) keys: Vec<KeyPair>,
    /// Places in `right` of the columns that come out.
    pub(crate) kept: Vec<usize>,
    pub(crate) output: SchemaRef,
}

impl JoinColumns {
    /// Left columns, then, if the join gives them, right ones without those that are compared; those whose name is
    /// taken get the suffix.
    pub(crate) fn new(
        left: &SchemaRef,
        right: &SchemaRef,
        mut keys: Vec<KeyPair>,
        gives_right: bool,
        suffix: &str,
    ) -> Self {
        let left = plain_schema(left);
        let (right, taken) = take_right(right, &mut keys, gives_right);
        let is_kept = |at: &usize| gives_right && keys.iter().all(|pair| pair.right != *at);
        let kept: Vec<usize> = (0..right.fields().len()).filter(is_kept).collect();
        let mut fields: Vec<Arc<Field>> = left.fields().to_vec();
        for at in &kept {
            let field = right.field(*at);
            let name = match fields.iter().any(|other| other.name() == field.name()) {
                true => format!("{}{suffix}", field.name()),
                false => field.name().clone(),
            };
            fields.push(Arc::new(field.clone().with_name(name).with_nullable(true)));
        }
        let output = Arc::new(Schema::new_with_metadata(Fields::from(fields), left.metadata().clone()));
        Self { left, right, taken, keys, kept, output }
    }

    pub(super) fn plain_left(&self, records: &RecordBatch) -> Result<RecordBatch> {
        plain_rows(records.columns().to_vec(), records.num_rows(), &self.left)
    }

    pub(super) fn plain_right(&self, records: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.taken.iter().map(|at| Arc::clone(records.column(*at))).collect();
        plain_rows(columns, records.num_rows(), &self.right)
    }

    /// Makes keys of both sides' rows, that compare.
    pub(super) fn encoder(&self) -> Result<SideEncoder> {
        let field = |(n, pair): (usize, &KeyPair)| Field::new(format!("key {n}"), pair.kind.clone(), true);
        let schema = Arc::new(Schema::new(self.keys.iter().enumerate().map(field).collect::<Fields>()));
        let key = |column| SortKey { column, options: Default::default() };
        let keys = (0..self.keys.len()).map(key).collect();
        let encoder = KeyEncoder::new(&schema, &SortOrder { keys, ..SortOrder::default() })?;
        Ok(SideEncoder { pairs: self.keys.clone(), schema, encoder })
    }
}

/// The right columns that are read, and where they are in the input. The keys are then of these columns.
fn take_right(right: &SchemaRef, keys: &mut [KeyPair], gives_right: bool) -> (SchemaRef, Vec<usize>) {
    let is_taken = |at: &usize| gives_right || keys.iter().any(|pair| pair.right == *at);
    let taken: Vec<usize> = (0..right.fields().len()).filter(is_taken).collect();
    for pair in keys {
        pair.right = taken.partition_point(|at| *at < pair.right);
    }
    let fields: Fields = taken.iter().map(|at| Arc::clone(&right.fields()[*at])).collect();
    (plain_schema(&Schema::new(fields)), taken)
}

/// Makes keys.
pub(super) struct SideEncoder {
    pairs: Vec<KeyPair>,
    schema: SchemaRef,
    encoder: KeyEncoder,
}

impl SideEncoder {
    pub(super) fn left(&self, records: &RecordBatch) -> Result<Keys> {
        self.encode(records, |pair| pair.left)
    }

    pub(super) fn right(&self, records: &RecordBatch) -> Result<Keys> {
        self.encode(records, |pair| pair.right)
    }

    fn encode(&self, records: &RecordBatch, place: impl Fn(&KeyPair) -> usize) -> Result<Keys> {
        let failed = |error| Error::bug("join", "keys cannot be compared").with_source(error);
        let column = |pair: &KeyPair| cast(records.column(place(pair)), &pair.kind);
        let columns: Result<Vec<ArrayRef>, _> = self.pairs.iter().map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
        let keys = columns
            .and_then(|columns| {
                RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            })
            .map_err(failed)?;
        self.encoder.encode(&keys)
    }
}

/// As what two columns are compared, so that values are equal and ordered as they are in each. They are plain: what
/// dictionaries and views hold is compared, and not how.
///
/// # Errors
/// There is no such type.
pub(crate) fn common_type(left: &Field, right: &Field, pointer: &str) -> Result<DataType, Problem> {
    let (l, r) = (left.data_type(), right.data_type());
    match (l, r) {
        _ if l == r => Ok(l.clone()),
        (DataType::Utf8 | DataType::LargeUtf8, DataType::Utf8 | DataType::LargeUtf8) => {
            Ok(DataType::LargeUtf8)
        }
        (DataType::Binary | DataType::LargeBinary, DataType::Binary | DataType::LargeBinary) => {
            Ok(DataType::LargeBinary)
        }
        _ if l.is_floating() && r.is_floating() => Ok(DataType::Float64),
        _ if l.is_unsigned_integer() && r.is_unsigned_integer() => Ok(DataType::UInt64),
        _ if l.is_integer() && r.is_integer() && *l != DataType::UInt64 && *r != DataType::UInt64 => {
            Ok(DataType::Int64)
        }
        _ => {
            let message = format!(
                "`{}` is {l} on the left, and `{}` is {r} on the right; expected one type: add a `cast` before",
                left.name(),
                right.name()
            );
            Err(Problem::at(pointer, message))
        }
    }
}
