//! An edit, carried out on columns. What `shape` found to fit cannot fail here but for defects.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, StructArray, UInt64Array, make_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use arrow::error::ArrowError;

use super::expr::{Given, Rows};
use super::path::PathStep;
use super::shape::reaches;
use super::{Change, Edit};

/// Rows after an edit. Templates are of the rows as they came, `batch`.
///
/// # Errors
/// There is not the room for what is set; all else is a defect.
pub(super) fn edited(rows: &StructArray, edit: &Edit, given: Given<'_>) -> Result<StructArray, ArrowError> {
    let work = Work { change: &edit.change, given };
    work.members(rows, &edit.fields, &edit.steps, Rows::Each(given.batch.num_rows()), Missing::IsMade)
}

/// What an edit does where a struct is null.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// There is one afterwards, with what is set.
    IsMade,
    /// It stays so: only what is there is edited.
    Stays,
}

struct Work<'a> {
    change: &'a Change,
    given: Given<'a>,
}

impl Work<'_> {
    /// A struct of these fields, of one whose member is edited.
    fn members(
        &self,
        of: &StructArray,
        fields: &Fields,
        steps: &[PathStep],
        rows: Rows<'_>,
        missing: Missing,
    ) -> Result<StructArray, ArrowError> {
        let made = missing == Missing::IsMade && !matches!(self.change, Change::Remove);
        let (mut columns, nulls) =
            if made { (visible(of)?, None) } else { (of.columns().to_vec(), of.nulls().cloned()) };
        match steps.split_first() {
            Some((PathStep::Name(name), rest)) => match (of.fields().find(name), fields.find(name)) {
                (Some((at, _)), None) => drop(columns.remove(at)),
                (Some((at, _)), Some((_, field))) => {
                    columns[at] = self.member(&columns[at], field, rest, rows)?
                }
                (None, Some((_, field))) => columns.push(self.made(field, rest, rows)?),
                (None, None) => {}
            },
            Some((PathStep::Every, rest)) => {
                for (column, field) in columns.iter_mut().zip(fields) {
                    if reaches(column.data_type(), rest, self.change) {
                        *column = self.within(column, field.data_type(), rest, rows, Missing::Stays)?;
                    }
                }
            }
            None => {}
        }
        StructArray::try_new_with_length(fields.clone(), columns, nulls, of.len())
    }

    /// A member that is there.
    fn member(
        &self,
        column: &ArrayRef,
        field: &Field,
        rest: &[PathStep],
        rows: Rows<'_>,
    ) -> Result<ArrayRef, ArrowError> {
        match (self.change, rest) {
            (Change::Set(expr), []) => expr.values(field.data_type(), rows, self.given),
            _ => self.within(column, field.data_type(), rest, rows, Missing::IsMade),
        }
    }

    /// A struct or a list that is edited somewhere within.
    fn within(
        &self,
        column: &ArrayRef,
        of: &DataType,
        steps: &[PathStep],
        rows: Rows<'_>,
        missing: Missing,
    ) -> Result<ArrayRef, ArrowError> {
        match (of, steps) {
            (DataType::Struct(fields), _) => {
                Ok(Arc::new(self.members(column.as_struct(), fields, steps, rows, missing)?))
            }
            (DataType::List(field), [PathStep::Every, rest @ ..]) => {
                self.elements::<i32>(column.as_list(), field, rest, rows)
            }
            (DataType::LargeList(field), [PathStep::Every, rest @ ..]) => {
                self.elements::<i64>(column.as_list(), field, rest, rows)
            }
            _ => Err(ArrowError::SchemaError(format!("nothing to edit in {of}"))),
        }
    }

    fn elements<O: OffsetSizeTrait>(
        &self,
        lists: &GenericListArray<O>,
        field: &FieldRef,
        rest: &[PathStep],
        rows: Rows<'_>,
    ) -> Result<ArrayRef, ArrowError> {
        let lengths: Vec<usize> = lists.offsets().lengths().collect();
        let first = lists.offsets().first().map_or(0, |first| first.as_usize());
        let values = lists.values().slice(first, lengths.iter().sum());
        let row = |at: usize| match rows {
            Rows::Each(_) => at as u64,
            Rows::Of(rows) => rows.value(at),
        };
        let of_rows =
            lengths.iter().enumerate().flat_map(|(at, length)| std::iter::repeat_n(row(at), *length));
        let of_rows = UInt64Array::from(of_rows.collect::<Vec<_>>());
        let values = self.within(&values, field.data_type(), rest, Rows::Of(&of_rows), Missing::Stays)?;
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(GenericListArray::<O>::try_new(
            Arc::clone(field),
            offsets,
            values,
            lists.nulls().cloned(),
        )?))
    }

    /// What was not there: structs within each other, with what is set in the innermost.
    fn made(&self, field: &Field, rest: &[PathStep], rows: Rows<'_>) -> Result<ArrayRef, ArrowError> {
        match (self.change, field.data_type(), rest.split_first()) {
            (Change::Set(expr), of, None) => expr.values(of, rows, self.given),
            (_, DataType::Struct(fields), Some((_, rest))) if fields.len() == 1 => {
                let inner = self.made(&fields[0], rest, rows)?;
                Ok(Arc::new(StructArray::try_new(fields.clone(), vec![inner], None)?))
            }
            (_, of, _) => Err(ArrowError::SchemaError(format!("nothing to make of {of}"))),
        }
    }
}

/// The members of structs, null where the struct itself is.
fn visible(of: &StructArray) -> Result<Vec<ArrayRef>, ArrowError> {
    of.columns().iter().map(|column| masked(column, of.nulls())).collect()
}

/// A column that is null too where its parent is.
pub(super) fn masked(column: &ArrayRef, parent: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let has_no_validity = matches!(column.data_type(), DataType::Null | DataType::Union(..));
    if has_no_validity || parent.is_none_or(|nulls| nulls.null_count() == 0) {
        return Ok(Arc::clone(column));
    }
    let nulls = NullBuffer::union(parent, column.nulls());
    Ok(make_array(column.to_data().into_builder().nulls(nulls).build()?))
}
