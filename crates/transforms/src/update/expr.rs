//! What is set: a value of the flow file, or one made of the row by its templates.

use std::cell::Cell;
use std::sync::Arc;

use aqueduct_core::BeyondMemory;
use aqueduct_core::rows::element_bytes;
use aqueduct_primitives::ByteCount;
use arrow::array::builder::StringBuilder;
use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, RecordBatch, StructArray, UInt64Array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{can_cast_types, cast, concat, take};
use arrow::datatypes::{DataType, Field, Fields, Schema};
use arrow::error::ArrowError;
use serde_json::Value;

use super::apply::masked;
use super::literal;
use super::path::{Path, PathStep};
use super::shape::{nullable, unknown};

/// What is set.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    /// The same in each row.
    Literal(Value),
    /// A value of the row, as it is.
    Column(Template),
    /// A text with values of the row in it.
    Text(Vec<Part>),
    Object(Vec<(String, Expr)>),
    List(Vec<Expr>),
}

/// A value of the row: where it stands, and its type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template {
    text: String,
    /// The column, then the member within, and so on.
    at: Vec<usize>,
    of: DataType,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Text(String),
    Value(Template),
}

/// For each new value, which row of the batch it is made of.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    /// One of each.
    Each(usize),
    Of(&'a UInt64Array),
}

impl Rows<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Each(n) => *n,
            Self::Of(rows) => rows.len(),
        }
    }

    /// A value of each row becomes one of each element: a long list makes much of a wide value.
    fn spread(&self, column: ArrayRef, room: &Room) -> Result<ArrayRef, ArrowError> {
        let Self::Of(rows) = self else { return Ok(column) };
        let bytes = element_bytes(&column);
        let of = |row: &u64| usize::try_from(*row).ok().and_then(|row| bytes.get(row)).copied();
        room.take(rows.values().iter().filter_map(of).fold(0, u64::saturating_add))?;
        take(&column, *rows, None)
    }
}

/// The memory that is left for what all edits of a batch make: looked at before it is made.
pub(super) struct Room(Cell<u64>);

impl Room {
    pub(super) fn new(n_bytes: ByteCount) -> Self {
        Self(Cell::new(n_bytes.get()))
    }

    fn take(&self, n_bytes: u64) -> Result<(), ArrowError> {
        match self.0.get().checked_sub(n_bytes) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(ArrowError::ExternalError(Box::new(BeyondMemory { n_bytes }))),
        }
    }
}

/// What values are made of.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// The rows as they came.
    pub(super) batch: &'a RecordBatch,
    pub(super) room: &'a Room,
}

impl Expr {
    /// Reads a value with its templates.
    ///
    /// # Errors
    /// A template names nothing, or a brace is left open.
    pub(super) fn new(value: &Value, input: &Schema, is_item: bool) -> Result<Self, String> {
        let expr = match value {
            Value::String(text) => Self::of_text(text, input, is_item)?,
            Value::Array(elements) => {
                let elements = elements.iter().map(|element| Self::new(element, input, is_item));
                Self::List(elements.collect::<Result<_, _>>()?)
            }
            Value::Object(members) => {
                let members =
                    members.iter().map(|(name, value)| Ok((name.clone(), Self::new(value, input, is_item)?)));
                Self::Object(members.collect::<Result<_, String>>()?)
            }
            scalar => Self::Literal(scalar.clone()),
        };
        Ok(expr.folded())
    }

    /// Without templates, it is a literal.
    fn folded(self) -> Self {
        let literal = |expr: &Self| match expr {
            Self::Literal(value) => Some(value.clone()),
            _ => None,
        };
        let folded = match &self {
            Self::List(elements) => elements.iter().map(literal).collect::<Option<_>>().map(Value::Array),
            Self::Object(members) => {
                let members = members.iter().map(|(name, expr)| Some((name.clone(), literal(expr)?)));
                members.collect::<Option<_>>().map(Value::Object)
            }
            _ => None,
        };
        folded.map_or(self, Self::Literal)
    }

    fn of_text(text: &str, input: &Schema, is_item: bool) -> Result<Self, String> {
        let mut parts = parts(text)?.into_iter().map(|part| match part {
            Raw::Text(text) => Ok(Part::Text(text)),
            Raw::Name(name) => Template::new(&name, input, is_item).map(Part::Value),
        });
        let parts = parts.by_ref().collect::<Result<Vec<_>, _>>()?;
        if let Some(nested) = parts.iter().find_map(Part::unprintable)
            && parts.len() > 1
        {
            return Err(format!("`{{{}}}` is {}, which cannot stand within a text", nested.text, nested.of));
        }
        Ok(match parts.as_slice() {
            [] => Self::Literal("".into()),
            [Part::Text(text)] => Self::Literal(text.as_str().into()),
            [Part::Value(template)] => Self::Column(template.clone()),
            _ => Self::Text(parts),
        })
    }

    /// The type of what is set, where there is already something of a type, or nothing.
    ///
    /// # Errors
    /// It does not fit what is there.
    pub(super) fn type_over(&self, there: Option<&DataType>) -> Result<DataType, String> {
        let there = there.filter(|there| **there != DataType::Null);
        match (self, there) {
            (Self::Literal(value), there) => literal::type_over(there, value),
            (Self::Column(template), None) => Ok(template.of.clone()),
            (Self::Column(template), Some(there)) if template.of == *there => Ok(there.clone()),
            (Self::Column(template), Some(there)) => Err(format!(
                "is {there}, and `{{{}}}` is {}; cast one of them before",
                template.text, template.of
            )),
            (Self::Text(_), None) => Ok(DataType::Utf8),
            (Self::Text(_), Some(there)) if there.is_string() => Ok(there.clone()),
            (Self::Text(_), Some(there)) => Err(format!("is {there}, and a text does not fit")),
            (Self::Object(members), None) => Ok(DataType::Struct(extended(&Fields::empty(), members)?)),
            (Self::Object(members), Some(DataType::Struct(fields))) => {
                Ok(DataType::Struct(extended(&nullable(fields), members)?))
            }
            (Self::List(elements), None) => {
                literal::list_of(elements.iter().map(|element| element.type_over(None)))
            }
            (Self::List(elements), Some(DataType::List(of))) => {
                let element = elements
                    .iter()
                    .try_fold(of.data_type().clone(), |of, element| element.type_over(Some(&of)))?;
                Ok(DataType::List(Arc::new(of.as_ref().clone().with_data_type(element).with_nullable(true))))
            }
            (Self::Object(_), Some(there)) => Err(format!("is {there}, and an object does not fit")),
            (Self::List(_), Some(there)) => Err(format!("is {there}, and a list does not fit")),
        }
    }

    /// The values of a type that [`Expr::type_over`] gave.
    ///
    /// # Errors
    /// It did not give it, or there is not the room for them ([`BeyondMemory`]).
    pub(super) fn values(
        &self,
        of: &DataType,
        rows: Rows<'_>,
        from: Given<'_>,
    ) -> Result<ArrayRef, ArrowError> {
        let Given { batch, room } = from;
        match (self, of) {
            (Self::Literal(value), of) => {
                let one = literal::one(value, of).map_err(ArrowError::ComputeError)?;
                let n_bytes = element_bytes(&one).first().copied().unwrap_or_default();
                room.take(n_bytes.saturating_mul(rows.len() as u64))?;
                take(&one, &UInt64Array::from(vec![0; rows.len()]), None)
            }
            (Self::Column(template), _) => rows.spread(template.values(batch)?, room),
            (Self::Text(parts), of) => rows.spread(cast(&texts(parts, from)?, of)?, room),
            (Self::Object(members), DataType::Struct(fields)) => {
                let columns =
                    fields.iter().map(|field| match members.iter().find(|(name, _)| name == field.name()) {
                        Some((_, expr)) => expr.values(field.data_type(), rows, from),
                        None => Ok(new_null_array(field.data_type(), rows.len())),
                    });
                let columns = columns.collect::<Result<Vec<_>, _>>()?;
                Ok(Arc::new(StructArray::try_new(fields.clone(), columns, None)?))
            }
            (Self::List(elements), DataType::List(field)) => {
                let columns = elements.iter().map(|element| element.values(field.data_type(), rows, from));
                Ok(Arc::new(lists(field, &columns.collect::<Result<Vec<_>, _>>()?, rows.len())?))
            }
            (expr, of) => Err(ArrowError::SchemaError(format!("{expr:?} as {of}"))),
        }
    }
}

fn extended(fields: &Fields, members: &[(String, Expr)]) -> Result<Fields, String> {
    let mut all = fields.to_vec();
    for (name, expr) in members {
        match all.iter_mut().find(|field| field.name() == name) {
            Some(field) => {
                let of = expr.type_over(Some(field.data_type()))?;
                *field = Arc::new(field.as_ref().clone().with_data_type(of));
            }
            None => all.push(Arc::new(Field::new(name, expr.type_over(None)?, true))),
        }
    }
    Ok(all.into())
}

/// Lists of one element of each column.
fn lists(field: &Arc<Field>, columns: &[ArrayRef], n_rows: usize) -> Result<ListArray, ArrowError> {
    let all: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
    let place = |row: usize| (0..columns.len()).map(move |column| (column * n_rows + row) as u64);
    let places: UInt64Array = (0..n_rows).flat_map(place).collect::<Vec<_>>().into();
    let values = take(&concat(&all)?, &places, None)?;
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(columns.len(), n_rows));
    ListArray::try_new(Arc::clone(field), offsets, values, None)
}

fn texts(parts: &[Part], from: Given<'_>) -> Result<ArrayRef, ArrowError> {
    let Given { batch, room } = from;
    let columns = parts.iter().map(|part| match part {
        Part::Text(_) => Ok(None),
        Part::Value(template) => cast(&template.values(batch)?, &DataType::Utf8).map(Some),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let mut texts = StringBuilder::new();
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        text.clear();
        let is_null = columns.iter().flatten().any(|column| column.is_null(row));
        for (part, column) in parts.iter().zip(&columns) {
            match (part, column) {
                (_, Some(column)) if column.is_valid(row) => {
                    text.push_str(column.as_string::<i32>().value(row));
                }
                (Part::Text(fixed), None) => text.push_str(fixed),
                _ => {}
            }
        }
        room.take(text.len() as u64)?;
        texts.append_option((!is_null).then_some(text.as_str()));
    }
    Ok(Arc::new(texts.finish()))
}

impl Part {
    /// What has no text.
    fn unprintable(&self) -> Option<&Template> {
        match self {
            Self::Value(template)
                if template.of.is_nested() || !can_cast_types(&template.of, &DataType::Utf8) =>
            {
                Some(template)
            }
            _ => None,
        }
    }
}

impl Template {
    /// A column of this name, else what a path leads to.
    fn new(text: &str, input: &Schema, is_item: bool) -> Result<Self, String> {
        if let Some((at, field)) = input.fields().find(text) {
            return Ok(Self { text: text.to_owned(), at: vec![at], of: field.data_type().clone() });
        }
        let steps = Path::parse(text)?.steps(is_item)?;
        let mut at = Vec::new();
        let mut of = DataType::Struct(input.fields().clone());
        for step in &steps {
            let (PathStep::Name(name), DataType::Struct(fields)) = (step, &of) else {
                return Err(format!(
                    "`{{{text}}}` does not lead to one value: what is before `{step:?}` is {of}"
                ));
            };
            let (place, field) = fields.find(name).ok_or_else(|| unknown(name, fields))?;
            at.push(place);
            of = field.data_type().clone();
        }
        Ok(Self { text: text.to_owned(), at, of })
    }

    fn values(&self, batch: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let mut within = StructArray::from(batch.clone());
        let mut found: ArrayRef = Arc::new(within.clone());
        for place in &self.at {
            found = masked(within.column(*place), within.nulls())?;
            if let Some(deeper) = found.as_struct_opt() {
                within = deeper.clone();
            }
        }
        Ok(found)
    }
}

/// A part of a text: as it is, or the name of a value.
#[derive(Debug, PartialEq, Eq)]
enum Raw {
    Text(String),
    Name(String),
}

/// Cuts a text at its templates. `{{` is a brace.
fn parts(text: &str) -> Result<Vec<Raw>, String> {
    let mut parts = Vec::new();
    let mut fixed = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, behind) = rest.split_at(at);
        fixed.push_str(before);
        if behind.starts_with("{{") || behind.starts_with("}}") {
            fixed.push_str(&behind[..1]);
            rest = &behind[2..];
            continue;
        }
        let name = behind.strip_prefix('{').and_then(|behind| behind.split_once('}'));
        let Some((name, after)) = name.filter(|(name, _)| !name.is_empty() && !name.contains('{')) else {
            return Err(format!(
                "`{text}` has a single brace; a value is `{{column}}`, a brace is `{{{{` or `}}}}`"
            ));
        };
        if !fixed.is_empty() {
            parts.push(Raw::Text(std::mem::take(&mut fixed)));
        }
        parts.push(Raw::Name(name.to_owned()));
        rest = after;
    }
    fixed.push_str(rest);
    if !fixed.is_empty() {
        parts.push(Raw::Text(fixed));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_their_templates() {
        let (text, name) = (|text: &str| Raw::Text(text.into()), |name: &str| Raw::Name(name.into()));
        assert_eq!(parts("a{b}{c}d").unwrap(), [text("a"), name("b"), name("c"), text("d")]);
        assert_eq!(parts("{{a}} {b}").unwrap(), [text("{a} "), name("b")]);
        assert_eq!(parts("ä{x}").unwrap(), [text("ä"), name("x")]);
        assert!(parts("").unwrap().is_empty());
        for wrong in ["{", "}", "{}", "{a", "a}", "{a{b}}"] {
            assert!(parts(wrong).unwrap_err().contains("single brace"), "{wrong}");
        }
    }
}
