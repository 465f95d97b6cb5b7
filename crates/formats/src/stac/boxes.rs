//! Bounding boxes of files that have columns already: those of other programs, and of earlier versions of the layout.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StructArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use arrow::error::ArrowError;

use super::columns::{BBOX_2D, BBOX_3D, bbox_type};

/// What a column of boxes is read as: a struct whose fields are in another order or of other numbers, or a list. Of a list only
/// its rows tell whether it has heights: there is room for them.
pub(super) fn read_as(column: &Field) -> Option<DataType> {
    if column.name() != "bbox" {
        return None;
    }
    match column.data_type() {
        DataType::Struct(fields) => {
            let of = |names: &[&str]| {
                let is_number =
                    |name: &&str| fields.find(name).is_some_and(|(_, it)| it.data_type().is_numeric());
                names.len() == fields.len() && names.iter().all(is_number)
            };
            [false, true].into_iter().find(|has_z| of(names(*has_z))).map(bbox_type)
        }
        DataType::FixedSizeList(item, n @ (4 | 6)) if item.data_type().is_numeric() => {
            Some(bbox_type(*n == 6))
        }
        DataType::List(item) | DataType::LargeList(item) if item.data_type().is_numeric() => {
            Some(bbox_type(true))
        }
        _ => None,
    }
}

/// Boxes laid out anew, where that is what is wanted, and the rows, from 0, that hold none.
///
/// # Errors
/// The numbers are none that floats are made of.
pub(crate) fn fit_boxes(
    column: &ArrayRef,
    wanted: &DataType,
) -> Result<Option<(ArrayRef, Vec<usize>)>, ArrowError> {
    let Some(has_z) = [false, true].into_iter().find(|has_z| bbox_type(*has_z) == *wanted) else {
        return Ok(None);
    };
    match column.data_type() {
        DataType::Struct(_) => {
            of_struct(column.as_struct(), names(has_z)).map(|boxes| boxes.map(|it| (it, Vec::new())))
        }
        DataType::FixedSizeList(..) | DataType::List(_) | DataType::LargeList(_) => {
            of_lists(column, has_z).map(Some)
        }
        _ => Ok(None),
    }
}

fn names(has_z: bool) -> &'static [&'static str] {
    if has_z { &BBOX_3D } else { &BBOX_2D }
}

fn of_struct(boxes: &StructArray, names: &[&str]) -> Result<Option<ArrayRef>, ArrowError> {
    let sides: Vec<_> = names.iter().filter_map(|name| boxes.column_by_name(name)).collect();
    if sides.len() != names.len() || boxes.num_columns() != names.len() {
        return Ok(None);
    }
    let sides =
        sides.into_iter().map(|side| cast(side, &DataType::Float64)).collect::<Result<Vec<_>, _>>()?;
    laid_out(sides, names.len() == BBOX_3D.len(), boxes.nulls().cloned()).map(Some)
}

fn laid_out(sides: Vec<ArrayRef>, has_z: bool, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let DataType::Struct(fields) = bbox_type(has_z) else {
        return Err(ArrowError::SchemaError("a box".into()));
    };
    Ok(Arc::new(StructArray::try_new(fields, sides, nulls)?))
}

fn of_lists(lists: &ArrayRef, has_z: bool) -> Result<(ArrayRef, Vec<usize>), ArrowError> {
    let lists = cast(lists, &DataType::new_list(DataType::Float64, true))?;
    let lists = lists.as_list::<i32>();
    let mut bad = Vec::new();
    let mut sides = vec![Vec::with_capacity(lists.len()); names(has_z).len()];
    let mut valid = Vec::with_capacity(lists.len());
    for row in 0..lists.len() {
        let numbers = lists.is_valid(row).then(|| lists.value(row));
        let numbers: Option<Vec<_>> = numbers.map(|it| it.as_primitive::<Float64Type>().iter().collect());
        let corners = numbers.as_deref().and_then(|numbers| corners(numbers, has_z));
        if numbers.is_some() && corners.is_none() {
            bad.push(row);
        }
        valid.push(corners.is_some());
        let corners = corners.unwrap_or_else(|| vec![None; sides.len()]);
        sides.iter_mut().zip(corners).for_each(|(side, number)| side.push(number));
    }
    let sides = sides.into_iter().map(|side| Arc::new(Float64Array::from(side)) as ArrayRef).collect();
    Ok((laid_out(sides, has_z, Some(NullBuffer::from(valid)))?, bad))
}

/// RFC 7946, section 5: all the least, then all the greatest.
fn corners(numbers: &[Option<f64>], has_z: bool) -> Option<Vec<Option<f64>>> {
    match (numbers, has_z) {
        ([_, _, _, _], false) | ([_, _, _, _, _, _], true) => Some(numbers.to_vec()),
        ([west, south, east, north], true) => Some(vec![*west, *south, None, *east, *north, None]),
        _ => None,
    }
}
