//! The key of a row as bits: the same for the same values, whatever the width of their columns.

use std::sync::Arc;

use aqueduct_core::{Error, Result};
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

pub(super) const MILLIS_A_DAY: i64 = 86_400_000;
/// Longer keys are hashed as they come: nothing holds them whole.
const MOST_HELD: usize = 4096;

/// What kind of value comes next in a key. Never changed, for keys are kept from run to run.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Null = 0,
    Bool = 1,
    Integer = 2,
    Number = 3,
    Text = 4,
    Bytes = 5,
    Date = 6,
    Instant = 7,
    TimeOfDay = 8,
    Duration = 9,
    Decimal = 10,
}

/// Puts down the value of a row.
type Put = Box<dyn Fn(usize, &mut KeyBytes)>;

/// The keys of the rows of a batch.
///
/// A key is the first half of the BLAKE3 of its values, each with its kind before it, and texts with their length: none is
/// the beginning of another. Integers of all widths are one kind, and so are times of all units; decimals are without
/// zeroes at their end. There is one zero and one NaN.
pub(super) struct Fingerprints {
    columns: Vec<Put>,
    bytes: KeyBytes,
}

impl Fingerprints {
    pub(super) fn can_be_key(data_type: &DataType) -> bool {
        match data_type {
            DataType::Dictionary(_, values) => Self::can_be_key(values),
            other => putter(&arrow::array::new_empty_array(other)).is_some(),
        }
    }

    /// Of the rows of these columns.
    pub(super) fn new<'a>(columns: impl Iterator<Item = &'a ArrayRef>) -> Result<Self> {
        let columns = columns.map(putter).collect::<Option<_>>();
        let columns =
            columns.ok_or_else(|| Error::bug("make keys", "a column is of no type that keys have"))?;
        Ok(Self { columns, bytes: KeyBytes::default() })
    }

    pub(super) fn of(&mut self, row: usize) -> u128 {
        for put in &self.columns {
            put(row, &mut self.bytes);
        }
        self.bytes.end()
    }
}

/// The bytes of one key.
#[derive(Default)]
struct KeyBytes {
    bytes: Vec<u8>,
    /// What came before, where that is much.
    hasher: Option<Box<blake3::Hasher>>,
}

impl KeyBytes {
    fn put(&mut self, bytes: &[u8]) {
        if self.bytes.len().saturating_add(bytes.len()) > MOST_HELD {
            let hasher = self.hasher.get_or_insert_default();
            hasher.update(&self.bytes);
            hasher.update(bytes);
            self.bytes.clear();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn tag(&mut self, tag: Tag) {
        self.put(&[tag as u8]);
    }

    fn number(&mut self, tag: Tag, number: i128) {
        self.tag(tag);
        self.put(&number.to_le_bytes());
    }

    fn text(&mut self, tag: Tag, text: &[u8]) {
        self.tag(tag);
        self.put(&(text.len() as u64).to_le_bytes());
        self.put(text);
    }

    /// The key; what comes next belongs to another.
    fn end(&mut self) -> u128 {
        let hash = match self.hasher.take() {
            None => blake3::hash(&self.bytes),
            Some(mut hasher) => hasher.update(&self.bytes).finalize(),
        };
        self.bytes.clear();
        hash.as_bytes().first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
    }
}

/// How the values of a column are put down; none, if they are of no type that keys have.
fn putter(column: &ArrayRef) -> Option<Put> {
    use DataType as T;
    let column = Arc::clone(column);
    Some(match column.data_type() {
        T::Null => Box::new(|_, key| key.tag(Tag::Null)),
        T::Boolean => {
            let values = column.as_boolean().clone();
            put_valid(column, move |row, key| {
                key.tag(Tag::Bool);
                key.put(&[u8::from(values.value(row))]);
            })
        }
        T::Int8 => integers::<Int8Type>(&column, Tag::Integer, 1),
        T::Int16 => integers::<Int16Type>(&column, Tag::Integer, 1),
        T::Int32 => integers::<Int32Type>(&column, Tag::Integer, 1),
        T::Int64 => integers::<Int64Type>(&column, Tag::Integer, 1),
        T::UInt8 => integers::<UInt8Type>(&column, Tag::Integer, 1),
        T::UInt16 => integers::<UInt16Type>(&column, Tag::Integer, 1),
        T::UInt32 => integers::<UInt32Type>(&column, Tag::Integer, 1),
        T::UInt64 => integers::<UInt64Type>(&column, Tag::Integer, 1),
        T::Float16 => numbers::<Float16Type>(&column),
        T::Float32 => numbers::<Float32Type>(&column),
        T::Float64 => numbers::<Float64Type>(&column),
        T::Date32 => integers::<Date32Type>(&column, Tag::Date, 1),
        T::Date64 => primitives::<Date64Type>(&column, |millis, key| {
            key.number(Tag::Date, millis.div_euclid(MILLIS_A_DAY).into());
        }),
        T::Timestamp(TimeUnit::Second, _) => integers::<TimestampSecondType>(&column, Tag::Instant, SECOND),
        T::Timestamp(TimeUnit::Millisecond, _) => {
            integers::<TimestampMillisecondType>(&column, Tag::Instant, MILLI)
        }
        T::Timestamp(TimeUnit::Microsecond, _) => {
            integers::<TimestampMicrosecondType>(&column, Tag::Instant, MICRO)
        }
        T::Timestamp(TimeUnit::Nanosecond, _) => {
            integers::<TimestampNanosecondType>(&column, Tag::Instant, 1)
        }
        T::Time32(TimeUnit::Second) => integers::<Time32SecondType>(&column, Tag::TimeOfDay, SECOND),
        T::Time32(TimeUnit::Millisecond) => integers::<Time32MillisecondType>(&column, Tag::TimeOfDay, MILLI),
        T::Time64(TimeUnit::Microsecond) => integers::<Time64MicrosecondType>(&column, Tag::TimeOfDay, MICRO),
        T::Time64(TimeUnit::Nanosecond) => integers::<Time64NanosecondType>(&column, Tag::TimeOfDay, 1),
        T::Duration(TimeUnit::Second) => integers::<DurationSecondType>(&column, Tag::Duration, SECOND),
        T::Duration(TimeUnit::Millisecond) => {
            integers::<DurationMillisecondType>(&column, Tag::Duration, MILLI)
        }
        T::Duration(TimeUnit::Microsecond) => {
            integers::<DurationMicrosecondType>(&column, Tag::Duration, MICRO)
        }
        T::Duration(TimeUnit::Nanosecond) => integers::<DurationNanosecondType>(&column, Tag::Duration, 1),
        T::Decimal32(_, scale) => decimals::<Decimal32Type>(&column, *scale),
        T::Decimal64(_, scale) => decimals::<Decimal64Type>(&column, *scale),
        T::Decimal128(_, scale) => decimals::<Decimal128Type>(&column, *scale),
        T::Utf8 => texts(column.as_string::<i32>(), Tag::Text, |all, row| all.value(row).as_bytes()),
        T::LargeUtf8 => texts(column.as_string::<i64>(), Tag::Text, |all, row| all.value(row).as_bytes()),
        T::Utf8View => texts(column.as_string_view(), Tag::Text, |all, row| all.value(row).as_bytes()),
        T::Binary => texts(column.as_binary::<i32>(), Tag::Bytes, |all, row| all.value(row)),
        T::LargeBinary => texts(column.as_binary::<i64>(), Tag::Bytes, |all, row| all.value(row)),
        T::BinaryView => texts(column.as_binary_view(), Tag::Bytes, |all, row| all.value(row)),
        T::FixedSizeBinary(_) => texts(column.as_fixed_size_binary(), Tag::Bytes, |all, row| all.value(row)),
        T::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let put = putter(dictionary.values())?;
            let places =
                if dictionary.values().is_empty() { Vec::new() } else { dictionary.normalized_keys() };
            put_valid(column, move |row, key| match places.get(row) {
                Some(place) => put(*place, key),
                None => key.tag(Tag::Null),
            })
        }
        _ => return None,
    })
}

/// In nanoseconds.
pub(super) const SECOND: i128 = 1_000_000_000;
pub(super) const MILLI: i128 = 1_000_000;
pub(super) const MICRO: i128 = 1_000;

fn put_valid(column: ArrayRef, put: impl Fn(usize, &mut KeyBytes) + 'static) -> Put {
    let nulls = column.nulls().cloned();
    Box::new(move |row, key| match nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
        true => key.tag(Tag::Null),
        false => put(row, key),
    })
}

fn primitives<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    put: impl Fn(T::Native, &mut KeyBytes) + 'static,
) -> Put {
    let values: PrimitiveArray<T> = column.as_primitive::<T>().clone();
    put_valid(Arc::clone(column), move |row, key| put(values.value(row), key))
}

/// Whole numbers, each times as many.
fn integers<T: ArrowPrimitiveType<Native: Into<i128>>>(column: &ArrayRef, tag: Tag, times: i128) -> Put {
    primitives::<T>(column, move |value, key| key.number(tag, value.into() * times))
}

fn numbers<T: ArrowPrimitiveType<Native: Into<f64>>>(column: &ArrayRef) -> Put {
    primitives::<T>(column, |value, key| {
        key.tag(Tag::Number);
        key.put(&with_one_zero(value.into()).to_bits().to_le_bytes());
    })
}

/// One zero, and one NaN.
pub(super) fn with_one_zero(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

fn decimals<T: ArrowPrimitiveType<Native: Into<i128>>>(column: &ArrayRef, scale: i8) -> Put {
    primitives::<T>(column, move |value, key| {
        let (mut value, mut scale) = (value.into(), i16::from(scale));
        while value != 0 && value % 10 == 0 {
            (value, scale) = (value / 10, scale - 1);
        }
        key.number(Tag::Decimal, value);
        key.put(&(if value == 0 { 0 } else { scale }).to_le_bytes());
    })
}

fn texts<A: Array + Clone + 'static>(values: &A, tag: Tag, bytes: fn(&A, usize) -> &[u8]) -> Put {
    let values = values.clone();
    let column: ArrayRef = Arc::new(values.clone());
    put_valid(column, move |row, key| key.text(tag, bytes(&values, row)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array, Float64Array,
        Int32Array, Int64Array, LargeStringArray, NullArray, StringArray, StringViewArray,
        TimestampMillisecondArray, TimestampSecondArray, UInt64Array,
    };
    use arrow::compute::cast;

    use super::*;

    fn keys(columns: &[ArrayRef]) -> Vec<u128> {
        let mut keys = Fingerprints::new(columns.iter()).unwrap();
        (0..columns[0].len()).map(|row| keys.of(row)).collect()
    }

    fn of(column: impl Array + 'static) -> Vec<u128> {
        keys(&[Arc::new(column)])
    }

    #[test]
    fn one_value_has_one_key_in_columns_of_all_widths() {
        let texts = vec![Some("a"), None, Some(""), Some("long enough for a view of its own")];
        let keyed: DictionaryArray<Int32Type> = texts.iter().copied().collect();
        for same in [
            vec![of(Int32Array::from(vec![-1, 7])), of(Int64Array::from(vec![-1, 7]))],
            vec![of(UInt64Array::from(vec![5])), of(Int32Array::from(vec![5]))],
            vec![of(Float32Array::from(vec![0.5])), of(Float64Array::from(vec![0.5]))],
            vec![of(Float64Array::from(vec![0.0, f64::NAN])), of(Float64Array::from(vec![-0.0, -f64::NAN]))],
            vec![
                of(TimestampSecondArray::from(vec![5]).with_timezone("UTC")),
                of(TimestampMillisecondArray::from(vec![5000])),
            ],
            vec![
                of(Decimal128Array::from(vec![150, 0]).with_precision_and_scale(10, 2).unwrap()),
                of(Decimal128Array::from(vec![15, 0]).with_precision_and_scale(10, 1).unwrap()),
            ],
            vec![
                of(StringArray::from(texts.clone())),
                of(LargeStringArray::from(texts.clone())),
                of(StringViewArray::from(texts)),
                of(keyed),
            ],
            vec![
                of(Date32Array::from(vec![-1, 3])),
                keys(&[cast(&Date32Array::from(vec![-1, 3]), &DataType::Date64).unwrap()]),
            ],
        ] {
            assert!(same.windows(2).all(|two| two[0] == two[1]), "{same:?}");
        }
    }

    #[test]
    fn other_values_have_other_keys() {
        let two = |a: &str, b: &str| -> [ArrayRef; 2] {
            [Arc::new(StringArray::from(vec![a])), Arc::new(StringArray::from(vec![b]))]
        };
        let wide = "x".repeat(3 * MOST_HELD);
        let all = [
            keys(&two("a", "bc")),
            keys(&two("ab", "c")),
            keys(&two("abc", "")),
            keys(&two("", "abc")),
            keys(&two(&wide, "a")),
            keys(&two(&wide, "b")),
            keys(&two("a", &wide)),
            of(StringArray::from(vec![None::<&str>])),
            of(StringArray::from(vec!["", "1", "true", &wide])),
            of(BinaryArray::from(vec![b"1".as_slice()])),
            of(Int64Array::from(vec![0, 1, 2, -1])),
            of(Float64Array::from(vec![0.0, 1.0, f64::NAN, f64::INFINITY])),
            of(BooleanArray::from(vec![false, true])),
            of(Date32Array::from(vec![0, 1])),
            of(TimestampSecondArray::from(vec![0, 1])),
            of(Decimal128Array::from(vec![1, 11]).with_precision_and_scale(10, 0).unwrap()),
        ]
        .concat();
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(of(NullArray::new(1)), of(StringArray::from(vec![None::<&str>])), "a null is a null");
    }

    /// Keys are kept from run to run: what they are must never change.
    #[test]
    fn keys_are_what_they_always_were() {
        let columns: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(vec![42])),
            Arc::new(StringArray::from(vec![Some("key")])),
            Arc::new(Float64Array::from(vec![None])),
        ];
        let mut bytes = vec![2];
        bytes.extend_from_slice(&42_i128.to_le_bytes());
        bytes.extend_from_slice(&[4, 3, 0, 0, 0, 0, 0, 0, 0, b'k', b'e', b'y', 0]);
        let expected = blake3::hash(&bytes);
        assert_eq!(keys(&columns)[0].to_be_bytes(), expected.as_bytes()[..16]);
    }
}
