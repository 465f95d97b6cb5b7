//! Values that stand in the flow file: their types, and columns of one of them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow_json::ReaderBuilder;
use serde_json::{Map, Value, json};

use super::shape::nullable;

const COLUMN: &str = "value";

/// The type of a value where there is already something of a type, or nothing.
///
/// # Errors
/// It does not fit what is there, or says nothing of its type.
pub(super) fn type_over(there: Option<&DataType>, value: &Value) -> Result<DataType, String> {
    let there = there.filter(|there| **there != DataType::Null);
    let of = match there {
        None => type_of(value)?,
        Some(there) => {
            extended(there, value).ok_or_else(|| format!("is {there}, and {} does not fit", shown(value)))?
        }
    };
    one(value, &of).map_err(|error| format!("is {of}, and {} does not fit: {error}", shown(value)))?;
    Ok(of)
}

/// The type of a value by itself.
fn type_of(value: &Value) -> Result<DataType, String> {
    Ok(match value {
        Value::Null => return Err("is null, which has no type; `remove` takes columns away".into()),
        Value::Bool(_) => DataType::Boolean,
        Value::Number(number) if number.is_i64() => DataType::Int64,
        Value::Number(number) if number.is_u64() => DataType::UInt64,
        Value::Number(_) => DataType::Float64,
        Value::String(_) => DataType::Utf8,
        Value::Array(elements) => list_of(elements.iter().map(type_of))?,
        Value::Object(members) if members.is_empty() => {
            return Err("is an empty object, which has no columns; give it a member".into());
        }
        Value::Object(members) => DataType::Struct(fields_of(members)?),
    })
}

fn fields_of(members: &Map<String, Value>) -> Result<Fields, String> {
    members.iter().map(|(name, value)| Ok(Field::new(name, type_of(value)?, true))).collect()
}

/// A list of elements of one type: of the widest of these, if they are numbers.
///
/// # Errors
/// There are none, or they differ.
pub(super) fn list_of(types: impl Iterator<Item = Result<DataType, String>>) -> Result<DataType, String> {
    let mut of: Option<DataType> = None;
    for next in types {
        let next = next?;
        of = Some(match of {
            None => next,
            Some(of) if of == next => of,
            Some(of) if of.is_numeric() && next.is_numeric() => DataType::Float64,
            Some(of) => return Err(format!("is a list of {of} and {next}; a column has one type")),
        });
    }
    let of = of.ok_or("is an empty list, which says nothing of its type")?;
    Ok(DataType::List(Arc::new(Field::new_list_field(of, true))))
}

/// The type that is there, with the members that a value adds; nothing, when it is of another kind.
fn extended(there: &DataType, value: &Value) -> Option<DataType> {
    let fits = match (there, value) {
        (_, Value::Null) => true,
        (DataType::Struct(fields), Value::Object(members)) => return extended_struct(fields, members),
        (DataType::List(of), Value::Array(elements)) => {
            let of = of.as_ref().clone().with_data_type(extended_elements(of.data_type(), elements)?);
            return Some(DataType::List(Arc::new(of)));
        }
        (DataType::LargeList(of), Value::Array(elements)) => {
            let of = of.as_ref().clone().with_data_type(extended_elements(of.data_type(), elements)?);
            return Some(DataType::LargeList(Arc::new(of)));
        }
        (DataType::FixedSizeList(..), Value::Array(_)) => true,
        (there, Value::Bool(_)) => *there == DataType::Boolean,
        (there, Value::Number(number)) => {
            there.is_floating() || is_decimal(there) || (there.is_integer() && !number.is_f64())
        }
        (there, Value::String(_)) => there.is_string() || there.is_temporal(),
        _ => false,
    };
    fits.then(|| there.clone())
}

fn extended_struct(fields: &Fields, members: &Map<String, Value>) -> Option<DataType> {
    let mut all = nullable(fields).to_vec();
    for (name, value) in members {
        match all.iter_mut().find(|field| field.name() == name) {
            Some(field) => {
                *field = Arc::new(field.as_ref().clone().with_data_type(extended(field.data_type(), value)?))
            }
            None => all.push(Arc::new(Field::new(name, type_of(value).ok()?, true))),
        }
    }
    Some(DataType::Struct(all.into()))
}

fn extended_elements(of: &DataType, elements: &[Value]) -> Option<DataType> {
    elements.iter().try_fold(of.clone(), |of, element| extended(&of, element))
}

fn is_decimal(of: &DataType) -> bool {
    use DataType::{Decimal32, Decimal64, Decimal128, Decimal256};
    matches!(of, Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..))
}

/// A column of this type with the value as its only row.
///
/// # Errors
/// It is no value of this type: out of its range, or no time.
pub(super) fn one(value: &Value, of: &DataType) -> Result<ArrayRef, String> {
    let schema = Arc::new(Schema::new(vec![Field::new(COLUMN, of.clone(), true)]));
    let decoded = ReaderBuilder::new(schema).build_decoder().and_then(|mut decoder| {
        decoder.serialize(&[json!({ COLUMN: value })])?;
        decoder.flush()
    });
    let rows = decoded.map_err(|error| error.to_string())?.ok_or("it is nothing")?;
    let column = Arc::clone(rows.column(0));
    debug_assert_eq!(column.len(), 1);
    Ok(column)
}

/// A value in a message.
fn shown(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
