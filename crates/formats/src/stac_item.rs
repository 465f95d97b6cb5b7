//! A row as JSON: as it stands, or as the STAC item that it holds in the layout of stac-geoparquet.
//!
//! JSON cannot tell a member that is null from one that is not there once it has been a column: both are null in the row,
//! and neither is written, but for the two members that an item must have although they are null, `geometry` and
//! `properties.datetime`. Within lists nulls stay. Times are RFC 3339 in UTC, bytes base64, geometries GeoJSON.
//!
//! The memory is that of one row; [`JSON_WEIGHT`] says what to expect of it.

use arrow::array::{Array, ArrayRef, AsArray, MapArray, RecordBatch, StructArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::array_value_to_string;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Number, Value};

use crate::geo::wkb;
use crate::{FILE, ROW};

/// A row takes at most about so many times its own bytes as JSON: a coordinate is 8 bytes in a column and 72 as a
/// `Value`, and each list of two has a head of its own; a small number in a struct costs its name again.
pub const JSON_WEIGHT: u64 = 32;

/// The members of an item that are not in its `properties`, in the order of the specification.
pub const ITEM_MEMBERS: [&str; 9] =
    ["type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets", "collection"];

const GEOMETRY: &str = "geometry";
const DATETIME: &str = "datetime";
const BBOX: &str = "bbox";
const ASSETS: &str = "assets";
const TYPE: &str = "type";
const PROPERTIES: &str = "properties";
/// Geometries beside the geometry of the item, which are encoded like it.
const OTHER_GEOMETRIES: [&str; 1] = ["proj:geometry"];
/// What a field says of values that are more than their type.
const EXTENSION: &str = "ARROW:extension:name";
const JSON_TEXT: &str = "arrow.json";

/// A value that JSON cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotJson {
    /// Where it stands, as a JSON pointer.
    pub pointer: String,
    /// What it is.
    pub message: String,
}

impl NotJson {
    fn new(message: impl Into<String>) -> Self {
        Self { pointer: String::new(), message: message.into() }
    }

    fn within(mut self, name: &str) -> Self {
        self.pointer.insert_str(0, &aqueduct_core::pointer_to(name));
        self
    }
}

/// Whether columns are laid out as items: what an item has in `properties` are columns of their own.
pub fn is_item_layout(columns: &Schema) -> bool {
    let has = |name| columns.index_of(name).is_ok();
    has("id") && has("stac_version") && !has(PROPERTIES)
}

/// A row as an object. [`FILE`] and [`ROW`] say where it came from, and are no part of it.
///
/// # Errors
/// A value that JSON has no word for, NaN say.
pub fn row_to_json(rows: &RecordBatch, row: usize) -> Result<Value, NotJson> {
    let mut object = Map::new();
    for (field, column) in columns(rows) {
        insert_value(&mut object, field, column, row)?;
    }
    Ok(Value::Object(object))
}

/// A row as a STAC item. Columns that are no member of an item are members of its `properties`; `type` is `Feature`
/// where the rows do not say it, and `assets` is empty where there is no such column: objects without members have none.
///
/// # Errors
/// As [`row_to_json`], and a geometry that cannot be read.
pub fn row_to_item(rows: &RecordBatch, row: usize) -> Result<Value, NotJson> {
    let mut item = Map::new();
    item.insert(TYPE.into(), "Feature".into());
    let mut properties = Map::new();
    for (field, column) in columns(rows) {
        let name = field.name().as_str();
        match name {
            GEOMETRY => drop(item.insert(name.into(), geometry(column, row).map_err(|e| e.within(name))?)),
            BBOX => insert_bbox(&mut item, field, column, row)?,
            DATETIME if column.is_null(row) => drop(properties.insert(name.into(), Value::Null)),
            _ if ITEM_MEMBERS.contains(&name) => insert_value(&mut item, field, column, row)?,
            _ => insert_value(&mut properties, field, column, row).map_err(|e| e.within(PROPERTIES))?,
        }
    }
    item.insert(PROPERTIES.into(), Value::Object(properties));
    if rows.schema_ref().index_of(ASSETS).is_err() {
        item.insert(ASSETS.into(), Value::Object(Map::new()));
    }
    Ok(Value::Object(item))
}

fn columns(rows: &RecordBatch) -> impl Iterator<Item = (&Field, &ArrayRef)> {
    let schema = rows.schema_ref();
    let columns = schema.fields().iter().map(AsRef::as_ref).zip(rows.columns());
    columns.filter(|(field, _): &(&Field, _)| ![FILE, ROW].contains(&field.name().as_str()))
}

fn insert_value(
    object: &mut Map<String, Value>,
    field: &Field,
    column: &dyn Array,
    row: usize,
) -> Result<(), NotJson> {
    if !column.is_null(row) && *column.data_type() != DataType::Null {
        let value = value(field, column, row).map_err(|error| error.within(field.name()))?;
        object.insert(field.name().clone(), value);
    }
    Ok(())
}

/// The corners of a box, which may be a struct of them.
fn insert_bbox(
    item: &mut Map<String, Value>,
    field: &Field,
    column: &dyn Array,
    row: usize,
) -> Result<(), NotJson> {
    let Some(corners) = column.as_struct_opt().filter(|corners| corners.is_valid(row)) else {
        return insert_value(item, field, column, row);
    };
    let mut numbers = Vec::new();
    for (field, corner) in corners.fields().iter().zip(corners.columns()) {
        if corner.is_valid(row) {
            numbers.push(value(field, corner, row).map_err(|error| error.within(BBOX))?);
        }
    }
    item.insert(BBOX.into(), Value::Array(numbers));
    Ok(())
}

fn geometry(column: &dyn Array, row: usize) -> Result<Value, NotJson> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    match bytes_at(column, row) {
        Some(bytes) => wkb::to_geojson(bytes).map_err(|error| NotJson::new(error.to_string())),
        None => value(&Field::new(GEOMETRY, column.data_type().clone(), true), column, row),
    }
}

fn bytes_at(column: &dyn Array, row: usize) -> Option<&[u8]> {
    match column.data_type() {
        DataType::Binary => Some(column.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Some(column.as_binary::<i64>().value(row)),
        DataType::BinaryView => Some(column.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => Some(column.as_fixed_size_binary().value(row)),
        _ => None,
    }
}

/// A value; null where it is.
fn value(field: &Field, column: &dyn Array, at: usize) -> Result<Value, NotJson> {
    if column.is_null(at) {
        return Ok(Value::Null);
    }
    match column.data_type() {
        DataType::Null => Ok(Value::Null),
        DataType::Boolean => Ok(column.as_boolean().value(at).into()),
        DataType::Utf8 => text(field, column.as_string::<i32>().value(at)),
        DataType::LargeUtf8 => text(field, column.as_string::<i64>().value(at)),
        DataType::Utf8View => text(field, column.as_string_view().value(at)),
        DataType::Struct(_) => object(column.as_struct(), at),
        DataType::List(of) => list(of, &column.as_list::<i32>().value(at)),
        DataType::LargeList(of) => list(of, &column.as_list::<i64>().value(at)),
        DataType::ListView(of) => list(of, &column.as_list_view::<i32>().value(at)),
        DataType::LargeListView(of) => list(of, &column.as_list_view::<i64>().value(at)),
        DataType::FixedSizeList(of, _) => list(of, &column.as_fixed_size_list().value(at)),
        DataType::Map(..) => map(column.as_map(), at),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let key = number(dictionary.keys(), at).and_then(Result::ok).and_then(|key| key.as_u64());
            let key = key.and_then(|key| usize::try_from(key).ok()).unwrap_or(usize::MAX);
            value(field, dictionary.values(), key)
        }
        DataType::Timestamp(unit, _) => time(column, *unit, at),
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => decimal(column, at),
        _ => match (number(column, at), bytes_at(column, at)) {
            (Some(number), _) => number,
            (None, Some(bytes)) => Ok(bytes_value(field, bytes)),
            (None, None) => displayed(column, at).map(Value::String),
        },
    }
}

fn text(field: &Field, text: &str) -> Result<Value, NotJson> {
    if field.metadata().get(EXTENSION).is_some_and(|name| name == JSON_TEXT) {
        return serde_json::from_str(text)
            .map_err(|error| NotJson::new(format!("a text that is no JSON: {error}")));
    }
    Ok(text.into())
}

fn bytes_value(field: &Field, bytes: &[u8]) -> Value {
    let as_geometry = OTHER_GEOMETRIES.contains(&field.name().as_str());
    let geometry = as_geometry.then(|| wkb::to_geojson(bytes).ok()).flatten();
    geometry.unwrap_or_else(|| BASE64_STANDARD.encode(bytes).into())
}

fn object(column: &StructArray, at: usize) -> Result<Value, NotJson> {
    let mut members = Map::new();
    for (field, member) in column.fields().iter().zip(column.columns()) {
        insert_value(&mut members, field, member, at)?;
    }
    Ok(Value::Object(members))
}

fn list(field: &Field, elements: &ArrayRef) -> Result<Value, NotJson> {
    let element = |at: usize| value(field, elements, at).map_err(|error| error.within(&at.to_string()));
    (0..elements.len()).map(element).collect::<Result<_, _>>().map(Value::Array)
}

fn map(column: &MapArray, at: usize) -> Result<Value, NotJson> {
    let entries = column.value(at);
    let [keys, values] = entries.columns() else { return Err(NotJson::new("a map without keys or values")) };
    let field = &entries.fields()[1];
    let mut members = Map::new();
    for at in 0..entries.len() {
        let key = displayed(keys, at)?;
        let value = value(field, values, at).map_err(|error| error.within(&key))?;
        members.insert(key, value);
    }
    Ok(Value::Object(members))
}

/// Nothing, where the column is none of numbers.
fn number(column: &dyn Array, at: usize) -> Option<Result<Value, NotJson>> {
    Some(match column.data_type() {
        DataType::Int8 => Ok(native::<Int8Type>(column, at).into()),
        DataType::Int16 => Ok(native::<Int16Type>(column, at).into()),
        DataType::Int32 => Ok(native::<Int32Type>(column, at).into()),
        DataType::Int64 => Ok(native::<Int64Type>(column, at).into()),
        DataType::UInt8 => Ok(native::<UInt8Type>(column, at).into()),
        DataType::UInt16 => Ok(native::<UInt16Type>(column, at).into()),
        DataType::UInt32 => Ok(native::<UInt32Type>(column, at).into()),
        DataType::UInt64 => Ok(native::<UInt64Type>(column, at).into()),
        DataType::Float16 => finite(native::<Float16Type>(column, at).to_f64()),
        DataType::Float32 => finite(native::<Float32Type>(column, at).into()),
        DataType::Float64 => finite(native::<Float64Type>(column, at)),
        _ => return None,
    })
}

fn native<T: ArrowPrimitiveType>(column: &dyn Array, at: usize) -> T::Native {
    column.as_primitive::<T>().value(at)
}

fn finite(number: f64) -> Result<Value, NotJson> {
    Number::from_f64(number)
        .map(Value::Number)
        .ok_or_else(|| NotJson::new(format!("{number} is no number of JSON")))
}

fn decimal(column: &dyn Array, at: usize) -> Result<Value, NotJson> {
    let digits = displayed(column, at)?;
    finite(digits.parse().map_err(|_| NotJson::new(format!("{digits} is no number")))?)
}

fn time(column: &dyn Array, unit: TimeUnit, at: usize) -> Result<Value, NotJson> {
    let time: Option<DateTime<Utc>> = match unit {
        TimeUnit::Second => DateTime::from_timestamp_secs(native::<TimestampSecondType>(column, at)),
        TimeUnit::Millisecond => {
            DateTime::from_timestamp_millis(native::<TimestampMillisecondType>(column, at))
        }
        TimeUnit::Microsecond => {
            DateTime::from_timestamp_micros(native::<TimestampMicrosecondType>(column, at))
        }
        TimeUnit::Nanosecond => {
            Some(DateTime::from_timestamp_nanos(native::<TimestampNanosecondType>(column, at)))
        }
    };
    let time = time.ok_or_else(|| NotJson::new("a time beyond what dates can say"))?;
    Ok(time.to_rfc3339_opts(SecondsFormat::AutoSi, true).into())
}

fn displayed(column: &dyn Array, at: usize) -> Result<String, NotJson> {
    array_value_to_string(column, at).map_err(|error| NotJson::new(error.to_string()))
}

#[cfg(test)]
mod tests;
