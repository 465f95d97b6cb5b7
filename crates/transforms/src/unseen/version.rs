//! The version of a row as a number: greater for a greater one.

use aqueduct_core::{Error, Result};
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

use super::fingerprint::{MICRO, MILLI, SECOND, with_one_zero};

const DAY: i128 = 86_400 * SECOND;
/// Less than every other.
const NULL: u128 = 0;

/// The versions of the rows of a batch. A null is less than all others.
pub(super) struct Versions(Box<dyn Fn(usize) -> u128>);

impl Versions {
    /// Versions of one kind can be compared; none, where they cannot be at all.
    pub(super) fn kind(data_type: &DataType) -> Option<String> {
        Some(match data_type {
            other if other.is_integer() => "integer".into(),
            other if other.is_floating() => "number".into(),
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => "time".into(),
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale) => {
                format!("decimal with {scale} digits after the point")
            }
            _ => return None,
        })
    }

    pub(super) fn new(column: &ArrayRef) -> Result<Self> {
        use DataType as T;
        Ok(match column.data_type() {
            T::Int8 => integers::<Int8Type>(column, 1),
            T::Int16 => integers::<Int16Type>(column, 1),
            T::Int32 => integers::<Int32Type>(column, 1),
            T::Int64 => integers::<Int64Type>(column, 1),
            T::UInt8 => integers::<UInt8Type>(column, 1),
            T::UInt16 => integers::<UInt16Type>(column, 1),
            T::UInt32 => integers::<UInt32Type>(column, 1),
            T::UInt64 => integers::<UInt64Type>(column, 1),
            T::Float16 => numbers::<Float16Type>(column),
            T::Float32 => numbers::<Float32Type>(column),
            T::Float64 => numbers::<Float64Type>(column),
            T::Date32 => integers::<Date32Type>(column, DAY),
            T::Date64 => integers::<Date64Type>(column, MILLI),
            T::Timestamp(TimeUnit::Second, _) => integers::<TimestampSecondType>(column, SECOND),
            T::Timestamp(TimeUnit::Millisecond, _) => integers::<TimestampMillisecondType>(column, MILLI),
            T::Timestamp(TimeUnit::Microsecond, _) => integers::<TimestampMicrosecondType>(column, MICRO),
            T::Timestamp(TimeUnit::Nanosecond, _) => integers::<TimestampNanosecondType>(column, 1),
            T::Decimal32(..) => integers::<Decimal32Type>(column, 1),
            T::Decimal64(..) => integers::<Decimal64Type>(column, 1),
            T::Decimal128(..) => integers::<Decimal128Type>(column, 1),
            _ => return Err(Error::bug("compare versions", "the column is of no type that versions have")),
        })
    }

    pub(super) fn of(&self, row: usize) -> u128 {
        (self.0)(row)
    }
}

fn integers<T: ArrowPrimitiveType<Native: Into<i128>>>(column: &ArrayRef, times: i128) -> Versions {
    primitives::<T>(column, move |value| (value.into() * times).cast_unsigned() ^ (1 << 127))
}

fn numbers<T: ArrowPrimitiveType<Native: Into<f64>>>(column: &ArrayRef) -> Versions {
    primitives::<T>(column, |value| {
        let value = with_one_zero(value.into());
        // Turned so that unsigned numbers compare as they do; NaN is greater than all.
        let bits = value.to_bits();
        let is_negative = value.is_sign_negative() && !value.is_nan();
        1 + u128::from(if is_negative { !bits } else { bits | 1 << 63 })
    })
}

fn primitives<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    number: impl Fn(T::Native) -> u128 + 'static,
) -> Versions {
    let values = column.as_primitive::<T>().clone();
    Versions(Box::new(move |row| if values.is_null(row) { NULL } else { number(values.value(row)) }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
        TimestampMillisecondArray, TimestampSecondArray, UInt64Array,
    };

    use super::*;

    fn of(column: impl Array + 'static) -> Vec<u128> {
        let column: ArrayRef = Arc::new(column);
        let versions = Versions::new(&column).unwrap();
        (0..column.len()).map(|row| versions.of(row)).collect()
    }

    #[test]
    fn versions_compare_as_their_values_do() {
        let infinite = f64::INFINITY;
        for ascending in [
            of(Int64Array::from(vec![None, Some(i64::MIN), Some(-1), Some(0), Some(1), Some(i64::MAX)])),
            of(UInt64Array::from(vec![None, Some(0), Some(1), Some(u64::MAX)])),
            of(Float64Array::from(vec![
                None,
                Some(-infinite),
                Some(-1.5),
                Some(-1e-300),
                Some(0.0),
                Some(1e-300),
            ])),
            of(Float64Array::from(vec![0.5, 2.0, infinite, f64::NAN])),
            of(TimestampMillisecondArray::from(vec![-1, 0, 1, i64::MAX])),
            of(Decimal128Array::from(vec![-5, 0, 5]).with_precision_and_scale(38, 2).unwrap()),
        ] {
            assert!(ascending.is_sorted_by(|a, b| a < b), "{ascending:?}");
        }
        for same in [
            [of(Int32Array::from(vec![-7, 7])), of(Int64Array::from(vec![-7, 7]))],
            [of(Float32Array::from(vec![0.5, 0.0])), of(Float64Array::from(vec![0.5, -0.0]))],
            [of(TimestampSecondArray::from(vec![86_400])), of(Date32Array::from(vec![1]))],
        ] {
            assert_eq!(same[0], same[1]);
        }
    }
}
