//! Sort keys as bytes: two rows compare as their bytes do (arrow-row's encoding).

use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

use super::floats::{has_floats, with_one_zero};
use super::key_bytes::most_key_bytes;

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
    /// The most significant first. As in SQL, -0.0 equals 0.0, and NaN equals itself and comes after all numbers; inside
    /// of lists, structs and maps as well.
    pub keys: Vec<SortKey>,
    /// Numbers with a point are compared bit by bit instead: -0.0 comes before 0.0, and NaNs are as many values as they
    /// have bits (IEEE 754, 5.10).
    pub total_order: bool,
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
        let encoder = |keys| Encoder::new(schema, keys, order.total_order);
        Ok(Self { all: encoder(&order.keys)?, unique: part.map(encoder).transpose()? })
    }

    /// What the keys of some rows take at most, all that is needed to make them among it.
    pub(crate) fn most_bytes(&self, records: &RecordBatch, rows: &Range<usize>) -> u64 {
        let of_unique = |unique: &Encoder| unique.most_bytes(records, rows) + LENGTH * rows.len() as u64;
        self.all.most_bytes(records, rows) + self.unique.as_ref().map_or(0, of_unique)
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

/// What the length of a part of a key takes.
const LENGTH: u64 = size_of::<u32>() as u64;
/// What the place where a key begins takes.
const PLACE: u64 = size_of::<usize>() as u64;

#[derive(Debug)]
struct Encoder {
    converter: RowConverter,
    columns: Vec<KeyColumn>,
}

#[derive(Debug)]
struct KeyColumn {
    at: usize,
    /// It has numbers with a point of which only one zero is to be.
    has_zeros: bool,
}

impl KeyColumn {
    fn comparable(&self, records: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let column = records.column(self.at);
        if self.has_zeros { with_one_zero(column) } else { Ok(Arc::clone(column)) }
    }
}

impl Encoder {
    fn new(schema: &Schema, keys: &[SortKey], total_order: bool) -> Result<Self> {
        let mut fields = Vec::with_capacity(keys.len());
        let mut columns = Vec::with_capacity(keys.len());
        for key in keys {
            let field = schema.fields().get(key.column);
            let kind = field.ok_or_else(|| Error::bug("sort", "a key is no column"))?.data_type();
            if !has_order(kind) {
                let message = "a column of this type has no order";
                return Err(Error::new(ErrorKind::Config, "sort", message).with("type", kind));
            }
            columns.push(KeyColumn { at: key.column, has_zeros: !total_order && has_floats(kind) });
            fields.push(SortField::new_with_options(kind.clone(), key.options));
        }
        let converter = RowConverter::new(fields)
            .map_err(|error| Error::bug("sort", "keys of no type have an order").with_source(error))?;
        Ok(Self { converter, columns })
    }

    fn encode(&self, records: &RecordBatch) -> Result<Rows> {
        let columns = self.columns.iter().map(|column| column.comparable(records));
        let columns = columns.collect::<Result<Vec<_>, _>>();
        columns.and_then(|columns| self.converter.convert_columns(&columns)).map_err(|error| {
            Error::new(ErrorKind::Data, "sort", "the keys cannot be compared").with_source(error)
        })
    }

    fn most_bytes(&self, records: &RecordBatch, rows: &Range<usize>) -> u64 {
        let of_column = |column: &KeyColumn| {
            let copies = if column.has_zeros { 2 } else { 1 };
            copies * most_key_bytes(records.column(column.at), rows.clone())
        };
        self.columns.iter().map(of_column).sum::<u64>() + PLACE * (1 + rows.len() as u64)
    }
}

/// Whether values of a plain type have an order. Those of a union have none: they are of several types.
pub(crate) fn has_order(kind: &DataType) -> bool {
    match kind {
        DataType::Union(..) => false,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            has_order(item.data_type())
        }
        DataType::Map(entries, _) => has_order(entries.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| has_order(field.data_type())),
        kind => RowConverter::supports_fields(&[SortField::new(kind.clone())]),
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
    use arrow::array::{Array, Float64Array, Int64Array, ListArray, MapArray, StringArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::compute::cast;
    use arrow::datatypes::{Field, Fields};

    use super::*;

    fn keys_with(column: &ArrayRef, total_order: bool) -> Vec<Vec<u8>> {
        let records = RecordBatch::try_from_iter([("x", Arc::clone(column))]).unwrap();
        let keys = vec![SortKey { column: 0, options: SortOptions::default() }];
        let order = SortOrder { keys, total_order, ..SortOrder::default() };
        let keys = KeyEncoder::new(&records.schema(), &order).unwrap().encode(&records).unwrap();
        (0..records.num_rows()).map(|row| keys.key(row).to_vec()).collect()
    }

    const NUMBERS: [f64; 5] = [0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY];

    fn lists(values: ArrayRef) -> ArrayRef {
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        let lengths = OffsetBuffer::from_repeated_length(1, values.len());
        Arc::new(ListArray::new(item, lengths, values, None))
    }

    fn structs(values: ArrayRef) -> ArrayRef {
        let fields = Fields::from(vec![Field::new("inside", values.data_type().clone(), true)]);
        Arc::new(StructArray::new(fields, vec![values], None))
    }

    fn maps(values: ArrayRef) -> ArrayRef {
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values((0..values.len()).map(|_| "key")));
        let key = Field::new("keys", DataType::Utf8, false);
        let fields = Fields::from(vec![key, Field::new("values", values.data_type().clone(), true)]);
        let offsets = OffsetBuffer::from_repeated_length(1, values.len());
        let entries = StructArray::new(fields.clone(), vec![keys, values], None);
        let entry = Arc::new(Field::new("entries", DataType::Struct(fields), false));
        Arc::new(MapArray::new(entry, offsets, entries, None, false))
    }

    fn pairs(values: ArrayRef) -> ArrayRef {
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        cast(&lists(values), &DataType::FixedSizeList(item, 1)).unwrap()
    }

    /// The numbers in every type that can hold them.
    fn columns() -> Vec<ArrayRef> {
        let wide: ArrayRef = Arc::new(Float64Array::from(NUMBERS.to_vec()));
        let narrow = cast(&wide, &DataType::Float32).unwrap();
        let half = cast(&wide, &DataType::Float16).unwrap();
        let nested = [lists, structs, maps, pairs].into_iter().map(|nest| nest(lists(Arc::clone(&wide))));
        let nested: Vec<_> =
            nested.chain([structs(Arc::clone(&half)), pairs(structs(Arc::clone(&narrow)))]).collect();
        [wide, narrow, half].into_iter().chain(nested).collect()
    }

    #[test]
    fn there_is_one_zero_and_one_nan_wherever_they_are() {
        for column in columns() {
            let keys = keys_with(&column, false);
            assert_eq!(keys[0], keys[1], "{}", column.data_type());
            assert_eq!(keys[2], keys[3], "{}", column.data_type());
            assert!(keys[4] < keys[2], "{}", column.data_type());
            assert_ne!(keys[0], keys[4], "{}", column.data_type());
            let keys = keys_with(&column, true);
            assert!(keys[1] < keys[0], "{}", column.data_type());
        }
    }

    #[test]
    fn keys_take_no_more_than_was_told_before() {
        let texts = |width: usize| -> ArrayRef {
            let text = |n: usize| (!n.is_multiple_of(5)).then(|| "x".repeat(n % 3 * width));
            Arc::new(StringArray::from_iter((0..100).map(text)))
        };
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..100).map(|n| (n % 3 > 0).then_some(n))));
        let plain = [numbers, texts(0), texts(3), texts(16), texts(33), texts(10_000)];
        let nested = plain.clone().into_iter().flat_map(|column| {
            [lists, structs, maps, pairs]
                .map(|nest| [nest(Arc::clone(&column)), nest(lists(Arc::clone(&column)))])
        });
        for column in plain.clone().into_iter().chain(nested.flatten()).chain(columns()) {
            let records = RecordBatch::try_from_iter([("x", Arc::clone(&column)), ("y", column)]).unwrap();
            let key = |column| SortKey { column, options: SortOptions::default() };
            let order = SortOrder { keys: vec![key(0), key(1)], unique: Some(1), ..SortOrder::default() };
            let encoder = KeyEncoder::new(&records.schema(), &order).unwrap();
            let (from, n_rows) = (1, records.num_rows() - 2);
            let most = encoder.most_bytes(&records, &(from..from + n_rows));
            let taken = encoder.encode(&records.slice(from, n_rows)).unwrap().n_bytes();
            let kind = records.column(0).data_type();
            assert!(taken <= most + size_of::<Rows>() as u64, "{kind}: {taken} of {most}");
        }
    }
}
