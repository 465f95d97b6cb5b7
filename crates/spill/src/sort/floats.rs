//! Numbers with a point as SQL compares them, wherever in a value they are: one zero and one NaN.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, FixedSizeListArray, GenericListArray, MapArray,
    OffsetSizeTrait, StructArray,
};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use arrow::error::ArrowError;

type F16 = <Float16Type as ArrowPrimitiveType>::Native;

/// Whether there are such numbers in values of a type.
pub(super) fn has_floats(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            has_floats(item.data_type())
        }
        DataType::Map(entries, _) => has_floats(entries.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_floats(field.data_type())),
        kind => kind.is_floating(),
    }
}

/// A column whose values are the same bytes where they are equal.
pub(super) fn with_one_zero(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match column.data_type() {
        DataType::Float16 => {
            let one = |value: F16| if value.is_nan() { F16::NAN } else { value + F16::ZERO };
            Arc::new(column.as_primitive::<Float16Type>().unary::<_, Float16Type>(one))
        }
        DataType::Float32 => {
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        DataType::Float64 => {
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        kind if !has_floats(kind) => Arc::clone(column),
        DataType::List(_) => Arc::new(of_list(column.as_list::<i32>())?),
        DataType::LargeList(_) => Arc::new(of_list(column.as_list::<i64>())?),
        DataType::FixedSizeList(item, n) if *n > 0 => {
            let list = column.as_fixed_size_list();
            let values = with_one_zero(list.values())?;
            Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *n, values, list.nulls().cloned())?)
        }
        DataType::Map(entry, is_sorted) => {
            let map = column.as_map();
            let (entries, nulls) = (of_struct(map.entries())?, map.nulls().cloned());
            Arc::new(MapArray::try_new(Arc::clone(entry), map.offsets().clone(), entries, nulls, *is_sorted)?)
        }
        DataType::Struct(_) => Arc::new(of_struct(column.as_struct())?),
        _ => Arc::clone(column),
    })
}

fn of_list<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> Result<GenericListArray<O>, ArrowError> {
    let (item, offsets, values, nulls) = list.clone().into_parts();
    GenericListArray::try_new(item, offsets, with_one_zero(&values)?, nulls)
}

fn of_struct(values: &StructArray) -> Result<StructArray, ArrowError> {
    let columns = values.columns().iter().map(with_one_zero).collect::<Result<_, _>>()?;
    StructArray::try_new(values.fields().clone(), columns, values.nulls().cloned())
}
