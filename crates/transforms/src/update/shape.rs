//! What the columns are after an edit. Pure: all that can be wrong with an edit is found here.

use std::sync::Arc;

use aqueduct_core::nearest;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};

use super::Change;
use super::path::PathStep;

/// A message that lists more names than this cannot be read.
const MAX_NAMES: usize = 12;

/// The members after an edit.
///
/// # Errors
/// There is nothing to edit at the path, or the new value does not fit.
pub(super) fn changed(fields: &Fields, steps: &[PathStep], change: &Change) -> Result<Fields, String> {
    match steps.split_first() {
        Some((PathStep::Name(name), rest)) => match fields.find(name) {
            Some((at, field)) => changed_at(fields, at, field, rest, change),
            None => added(fields, name, rest, change),
        },
        Some((PathStep::Every, rest)) => changed_each(fields, rest, change),
        None => Err("a path names something".into()),
    }
}

fn changed_at(
    fields: &Fields,
    at: usize,
    field: &FieldRef,
    rest: &[PathStep],
    change: &Change,
) -> Result<Fields, String> {
    let mut members = fields.to_vec();
    match (change, rest) {
        (Change::Remove, []) => drop(members.remove(at)),
        (Change::Set(expr), []) => {
            let of = expr
                .type_over(Some(field.data_type()))
                .map_err(|error| format!("`{}` {error}", field.name()))?;
            members[at] = retyped(field, of);
        }
        (Change::BeObject, []) => match field.data_type() {
            DataType::Struct(inner) => members[at] = retyped(field, DataType::Struct(nullable(inner))),
            other => return Err(format!("`{}` is {other}, and an object is merged onto it", field.name())),
        },
        (_, rest) => members[at] = retyped(field, changed_within(field, rest, change)?),
    }
    Ok(members.into())
}

fn added(fields: &Fields, name: &str, rest: &[PathStep], change: &Change) -> Result<Fields, String> {
    if matches!(change, Change::Remove) || rest.contains(&PathStep::Every) {
        return Err(unknown(name, fields));
    }
    let mut members = fields.to_vec();
    members.push(Arc::new(Field::new(name, new_type(rest, change)?, true)));
    Ok(members.into())
}

/// The type of what was not there before.
fn new_type(rest: &[PathStep], change: &Change) -> Result<DataType, String> {
    match (rest.split_first(), change) {
        (Some((PathStep::Name(name), rest)), _) => {
            Ok(DataType::Struct(Fields::from(vec![Field::new(name, new_type(rest, change)?, true)])))
        }
        (None, Change::Set(expr)) => expr.type_over(None).map_err(|error| format!("the new value {error}")),
        _ => Err("an empty object has no columns; give it a member".into()),
    }
}

fn changed_each(fields: &Fields, rest: &[PathStep], change: &Change) -> Result<Fields, String> {
    let mut members = fields.to_vec();
    let mut is_any = false;
    for member in &mut members {
        if reaches(member.data_type(), rest, change) {
            *member = retyped(member, changed_within(member, rest, change)?);
            is_any = true;
        }
    }
    if is_any { Ok(members.into()) } else { Err(format!("none of `*` has {}", written(rest))) }
}

/// The type of a column or member, changed somewhere within.
fn changed_within(field: &Field, rest: &[PathStep], change: &Change) -> Result<DataType, String> {
    let name = field.name();
    match (field.data_type(), rest) {
        (DataType::Struct(inner), rest) => {
            let inner = changed(inner, rest, change)?;
            if inner.is_empty() {
                return Err(format!("nothing would be left of `{name}`; remove it as a whole"));
            }
            // A struct that was null becomes one with a single member.
            Ok(DataType::Struct(if matches!(change, Change::Remove) { inner } else { nullable(&inner) }))
        }
        (DataType::List(of), [PathStep::Every, rest @ ..]) => {
            Ok(DataType::List(retyped_element(of, changed_within(of, rest, change)?)))
        }
        (DataType::LargeList(of), [PathStep::Every, rest @ ..]) => {
            Ok(DataType::LargeList(retyped_element(of, changed_within(of, rest, change)?)))
        }
        (DataType::List(_) | DataType::LargeList(_), _) => {
            Err(format!("`{name}` is a list; `{name}.*.{}` is each of its elements", written(rest)))
        }
        (other, _) => Err(format!("`{name}` is {other}, which has no members")),
    }
}

fn retyped(field: &Field, of: DataType) -> FieldRef {
    Arc::new(field.clone().with_data_type(of).with_nullable(true))
}

fn retyped_element(field: &Field, of: DataType) -> FieldRef {
    Arc::new(field.clone().with_data_type(of))
}

/// Each of them may be missing.
pub(super) fn nullable(fields: &Fields) -> Fields {
    fields.iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect()
}

/// Whether each value of this type, as one of many, is edited: others are left alone.
pub(super) fn reaches(of: &DataType, steps: &[PathStep], change: &Change) -> bool {
    match (of, steps) {
        (DataType::Struct(fields), _) => !matches!(change, Change::Remove) || is_there(fields, steps),
        (DataType::List(of) | DataType::LargeList(of), [PathStep::Every, rest @ ..]) => {
            reaches(of.data_type(), rest, change)
        }
        _ => false,
    }
}

/// Whether a path leads to something.
pub(super) fn is_there(fields: &Fields, steps: &[PathStep]) -> bool {
    let leads_on = |field: &Field, rest: &[PathStep]| rest.is_empty() || is_within(field.data_type(), rest);
    match steps.split_first() {
        Some((PathStep::Name(name), rest)) => {
            fields.find(name).is_some_and(|(_, field)| leads_on(field, rest))
        }
        Some((PathStep::Every, rest)) => fields.iter().any(|field| leads_on(field, rest)),
        None => true,
    }
}

fn is_within(of: &DataType, steps: &[PathStep]) -> bool {
    match (of, steps) {
        (DataType::Struct(fields), _) => is_there(fields, steps),
        (DataType::List(of) | DataType::LargeList(of), [PathStep::Every, rest @ ..]) => {
            is_within(of.data_type(), rest)
        }
        _ => false,
    }
}

/// That there is no such name, and which is near.
pub(super) fn unknown(name: &str, fields: &Fields) -> String {
    let names = fields.iter().map(|field| field.name().as_str());
    let hint = match nearest(name, names.clone()) {
        Some(near) => format!("nearest `{near}`"),
        None => format!("there are: {}", names.take(MAX_NAMES).collect::<Vec<_>>().join(", ")),
    };
    format!("nothing is called `{name}`; {hint}")
}

fn written(steps: &[PathStep]) -> String {
    let names = steps.iter().map(|step| match step {
        PathStep::Name(name) => name.as_str(),
        PathStep::Every => "*",
    });
    names.collect::<Vec<_>>().join(".")
}
