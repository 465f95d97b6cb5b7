//! What has been seen of values of JSON, or of fields of CSV, and the type that follows from it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};

use super::json::{Json, Kind, unescaped};
use super::value::{BadValue, float, integer};

/// More fields than this are data in the place of names.
pub(crate) const MAX_FIELDS: usize = 10_000;

/// What has been seen of a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Shape {
    /// Only nulls.
    #[default]
    Unknown,
    Bool,
    Int,
    Float,
    /// Strings.
    Text,
    /// What does not go together, or has no other type: kept as text, as it is written.
    Mixed,
    List(Box<Shape>),
    Object(Vec<(String, Shape)>),
}

impl Shape {
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Unknown | Self::Text | Self::Mixed => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::List(item) => DataType::List(Arc::new(Field::new("item", item.data_type(), true))),
            // A struct needs a field.
            Self::Object(fields) if fields.is_empty() => DataType::Utf8,
            Self::Object(fields) => {
                let fields = fields.iter().map(|(name, shape)| Field::new(name, shape.data_type(), true));
                DataType::Struct(fields.collect())
            }
        }
    }

    /// The type, or nothing for objects that have no members, at any depth.
    pub(crate) fn type_if_any(&self) -> Option<DataType> {
        match self {
            Self::Object(fields) => {
                let field =
                    |(name, shape): &(String, Self)| Some(Field::new(name, shape.type_if_any()?, true));
                let fields: Vec<_> = fields.iter().filter_map(field).collect();
                (!fields.is_empty()).then(|| DataType::Struct(fields.into()))
            }
            Self::List(item) => {
                let item = item.type_if_any().unwrap_or(DataType::Utf8);
                Some(DataType::List(Arc::new(Field::new("item", item, true))))
            }
            other => Some(other.data_type()),
        }
    }
}

/// The shape of the value that comes next, in `depth` lists and objects.
pub(crate) fn shape_of(json: &mut Json<'_>, depth: usize) -> Result<Shape, BadValue> {
    Ok(match json.kind()? {
        Kind::Null => json.null().map(|()| Shape::Unknown)?,
        Kind::Bool => json.bool().map(|_| Shape::Bool)?,
        Kind::String => json.raw_string().map(|_| Shape::Text)?,
        Kind::Number => number_shape(json.number()?),
        Kind::List => {
            json.enter(depth + 1)?;
            let mut item = Shape::Unknown;
            if !json.eat(b']') {
                loop {
                    merge(&mut item, shape_of(json, depth + 1)?);
                    if !json.another(b']')? {
                        break;
                    }
                }
            }
            Shape::List(Box::new(item))
        }
        Kind::Object => {
            let mut fields = Vec::new();
            each_member(json, depth + 1, |name, json| {
                fields.push((name.to_owned(), shape_of(json, depth + 1)?));
                Ok(())
            })?;
            Shape::Object(fields)
        }
    })
}

/// Goes through the members of the object that comes next, which is the innermost of `depth` lists and objects. The parser
/// stands before the value of each, and behind it afterwards.
pub(crate) fn each_member<'j>(
    json: &mut Json<'j>,
    depth: usize,
    mut member: impl FnMut(&str, &mut Json<'j>) -> Result<(), BadValue>,
) -> Result<(), BadValue> {
    json.enter(depth)?;
    if json.eat(b'}') {
        return Ok(());
    }
    loop {
        let raw = json.key()?;
        let meant = unescaped(raw);
        member(&String::from_utf8_lossy(meant.as_deref().unwrap_or(raw)), json)?;
        if !json.another(b'}')? {
            return Ok(());
        }
    }
}

/// A whole number beyond 64 bits is kept as text: no float is equal to it.
fn number_shape(text: &[u8]) -> Shape {
    let is_written_whole = !text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    match integer(text).map(i64::try_from) {
        Some(Ok(_)) if is_written_whole => Shape::Int,
        _ if !is_written_whole && float(text).is_some() => Shape::Float,
        _ => Shape::Mixed,
    }
}

/// The shape of a field of CSV.
pub(crate) fn shape_of_text(text: &[u8]) -> Shape {
    let trimmed = text.trim_ascii();
    if text.is_empty() {
        return Shape::Unknown;
    }
    if trimmed.eq_ignore_ascii_case(b"true") || trimmed.eq_ignore_ascii_case(b"false") {
        return Shape::Bool;
    }
    // A leading zero is that of a code, not of a number.
    let digits = trimmed.strip_prefix(b"-").unwrap_or(trimmed);
    let is_code = digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit();
    let is_number = digits.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.');
    if is_code || !is_number { Shape::Text } else { number_shape(trimmed) }
}

pub(crate) fn merge(into: &mut Shape, other: Shape) {
    match (&mut *into, other) {
        (_, Shape::Unknown) => {}
        (Shape::Unknown, other) => *into = other,
        (Shape::List(item), Shape::List(other)) => merge(item, *other),
        (Shape::Object(fields), Shape::Object(others)) => merge_fields(fields, others),
        (Shape::Int, Shape::Float) => *into = Shape::Float,
        (Shape::Float, Shape::Int) => {}
        (one, other) if *one == other => {}
        _ => *into = Shape::Mixed,
    }
}

pub(crate) fn merge_fields(into: &mut Vec<(String, Shape)>, others: Vec<(String, Shape)>) {
    for (at, (name, shape)) in others.into_iter().enumerate() {
        // Rows name their fields in the same order most of the time.
        if into.get(at).is_some_and(|(known, _)| *known == name) {
            merge(&mut into[at].1, shape);
        } else if into.len() <= MAX_FIELDS {
            merge(entry(into, &name), shape);
        }
    }
}

pub(crate) fn entry<'a>(fields: &'a mut Vec<(String, Shape)>, name: &str) -> &'a mut Shape {
    let at = fields.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        fields.push((name.to_owned(), Shape::Unknown));
        fields.len() - 1
    });
    &mut fields[at].1
}
