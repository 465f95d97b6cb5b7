//! Sort keys as bytes: two rows compare as their bytes do (arrow-row's encoding).

use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use arrow::row::{RowConverter, Rows, SortField};

/// A column to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// Its place among the columns.
    pub column: usize,
    /// Which way, and where nulls go.
    pub options: SortOptions,
}

/// In which order rows come, and which of them are alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SortOrder {
    /// The most significant first. As in SQL, -0.0 equals 0.0, and NaN equals itself and comes after all numbers.
    pub keys: Vec<SortKey>,
    /// Of rows that are equal in every key, the one that came last comes first.
    pub latest_first: bool,
    /// Of rows that are equal in so many of the first keys, only the first one is given.
    pub unique: Option<usize>,
    /// Only so many of the first rows are given. The others go to no disk, or leave it with the first merge.
    pub fetch: Option<usize>,
}

/// Makes keys. Those of different batches compare, if they come from encoders of one order.
#[derive(Debug)]
pub(crate) struct KeyEncoder {
    all: Encoder,
    /// Only where rows are alike in a part of their keys.
    unique: Option<Encoder>,
}

impl KeyEncoder {
    pub(crate) fn new(schema: &Schema, order: &SortOrder) -> Result<Self> {
        let part =
            order.unique.and_then(|n| order.keys.get(..n)).filter(|part| part.len() < order.keys.len());
        Ok(Self {
            all: Encoder::new(schema, &order.keys)?,
            unique: part.map(|keys| Encoder::new(schema, keys)).transpose()?,
        })
    }

    pub(crate) fn encode(&self, records: &RecordBatch) -> Result<Keys> {
        let rows = self.all.encode(records)?;
        let unique_lens = match &self.unique {
            None => None,
            Some(unique) => {
                let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                Some(unique.encode(records)?.iter().map(|row| length(row.data().len())).collect())
            }
        };
        Ok(Keys { rows, unique_lens })
    }
}

#[derive(Debug)]
struct Encoder {
    converter: RowConverter,
    columns: Vec<usize>,
}

impl Encoder {
    fn new(schema: &Schema, keys: &[SortKey]) -> Result<Self> {
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

    fn encode(&self, records: &RecordBatch) -> Result<Rows> {
        let columns: Vec<_> = self.columns.iter().map(|at| comparable(records.column(*at))).collect();
        self.converter.convert_columns(&columns).map_err(|error| {
            Error::new(ErrorKind::Data, "sort", "the keys cannot be compared").with_source(error)
        })
    }
}

/// A column whose bytes are equal where SQL says that its values are: of numbers with a point, one zero and one NaN.
fn comparable(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 => {
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        DataType::Float64 => {
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        _ => Arc::clone(column),
    }
}

/// The keys of a batch's rows.
#[derive(Debug)]
pub(crate) struct Keys {
    rows: Rows,
    /// How many of a key's bytes make rows alike, where that is not all of them.
    unique_lens: Option<Vec<u32>>,
}

impl Keys {
    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// The bytes of a row's key: they compare as the rows do.
    pub(crate) fn key(&self, row: usize) -> &[u8] {
        self.rows.row(row).data()
    }

    /// The bytes that a row shares with those that are like it.
    pub(crate) fn unique(&self, row: usize) -> &[u8] {
        let key = self.key(row);
        let length = self.unique_lens.as_ref().and_then(|lens| lens.get(row));
        length.and_then(|length| key.get(..*length as usize)).unwrap_or(key)
    }

    /// What they take in memory.
    pub(crate) fn n_bytes(&self) -> u64 {
        let lens = self.unique_lens.as_ref().map_or(0, |lens| size_of::<u32>() * lens.capacity());
        (self.rows.size() + lens) as u64
    }
}

/// The first bytes of a key as a number: most comparisons end here, without a look at the key itself.
pub(crate) fn prefix(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut bytes = [0; 8];
            bytes[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;

    use super::*;

    fn keys_of(values: Vec<f64>) -> Vec<Vec<u8>> {
        let column: ArrayRef = Arc::new(Float64Array::from(values));
        let records = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let keys = vec![SortKey { column: 0, options: SortOptions::default() }];
        let encoder =
            KeyEncoder::new(&records.schema(), &SortOrder { keys, ..SortOrder::default() }).unwrap();
        let keys = encoder.encode(&records).unwrap();
        (0..records.num_rows()).map(|row| keys.key(row).to_vec()).collect()
    }

    #[test]
    fn there_is_one_zero_and_one_nan() {
        let keys = keys_of(vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY]);
        assert_eq!(keys[0], keys[1]);
        assert_eq!(keys[2], keys[3]);
        assert!(keys[4] < keys[2]);
    }
}
