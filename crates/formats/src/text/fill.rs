//! How a column takes a value: out of JSON, or out of a field of CSV.

use aqueduct_core::Error;
use arrow::array::ArrayRef;
use arrow::compute::kernels::cast_utils::parse_decimal;
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Field};
use base64::Engine;

use super::column::{Column, Fields, Values};
use super::geometry::{fill_bbox, fill_geometry};
use super::json::{Json, Kind, unescaped};
use super::value::{BadValue, boolean, date, float, instant, integer, patterned, shown};
use crate::NewFields;

type Result<T> = std::result::Result<T, BadValue>;

/// What values are read under.
pub(crate) struct Filling {
    /// What to do with fields that are no columns.
    pub(crate) new_fields: NewFields,
    /// Fields that are no columns, `"path":value` joined by commas.
    pub(crate) extra: Vec<u8>,
    /// The least that the values of this row take so far, in memory.
    pub(crate) row_bytes: usize,
    /// A row may take so many.
    pub(crate) max_row_bytes: usize,
    /// Whether `null`, `{}`, `[]` and objects of nothing else need no column: they carry nothing.
    pub(crate) drops_empty: bool,
    /// The `bbox` of the geometry of an item, as it is written: it has no column, and another member may say the same.
    pub(crate) box_of_geometry: Option<Vec<u8>>,
    scratch: Vec<u8>,
}

impl Filling {
    pub(crate) fn new(new_fields: NewFields, max_row_bytes: usize) -> Self {
        let (extra, scratch) = (Vec::new(), Vec::new());
        let box_of_geometry = None;
        Self { new_fields, extra, row_bytes: 0, max_row_bytes, drops_empty: false, box_of_geometry, scratch }
    }

    /// How many more bytes the values of this row may take.
    pub(super) fn bytes_left(&self) -> usize {
        self.max_row_bytes.saturating_sub(self.row_bytes)
    }

    /// Counts a value's memory, so that short text cannot stand for much of it: `[{},{},…]`.
    pub(super) fn weigh(&mut self, width: usize) -> Result<()> {
        self.row_bytes += width;
        if self.row_bytes <= self.max_row_bytes {
            return Ok(());
        }
        let limit = self.max_row_bytes;
        Err(BadValue::new(
            "too long",
            format!("the row takes more than {limit} bytes of memory; raise `max_record_bytes`"),
        ))
    }

    /// Keeps, drops or refuses a field that is no column, of which the key is as it is written. The parser stands before
    /// its value.
    pub(crate) fn new_field(
        &mut self,
        path: Option<&Path<'_>>,
        key: &[u8],
        json: &mut Json<'_>,
        depth: usize,
    ) -> Result<()> {
        let message = || "a field that is no column; declare it in `schema`, or see `new_fields`".to_owned();
        self.field_without_column(path, key, json, depth, message)
    }

    /// [`Filling::new_field`], with a reason of its own why it is no column.
    pub(crate) fn field_without_column(
        &mut self,
        path: Option<&Path<'_>>,
        key: &[u8],
        json: &mut Json<'_>,
        depth: usize,
        message: impl FnOnce() -> String,
    ) -> Result<()> {
        if self.new_fields == NewFields::Fail && !(self.drops_empty && is_empty(&mut json.clone(), depth)) {
            return Err(BadValue::new("new field", message()).within(&String::from_utf8_lossy(key)));
        }
        let value = json.skip_value(depth)?;
        if self.new_fields == NewFields::Extra
            && !(self.drops_empty && is_empty(&mut Json::new(value), depth))
        {
            self.keep_extra(&dotted(path, key), value);
        }
        Ok(())
    }

    /// `path` and `value` are JSON, the path without its quotes.
    pub(crate) fn keep_extra(&mut self, path: &[u8], value: &[u8]) {
        if !self.extra.is_empty() {
            self.extra.push(b',');
        }
        for part in [b"\"", path, b"\":", value] {
            self.extra.extend_from_slice(part);
        }
    }
}

/// Whether what comes next is `null`, `{}` or `[]`, or an object of nothing else.
fn is_empty(json: &mut Json<'_>, depth: usize) -> bool {
    match json.kind() {
        Ok(Kind::Null) => json.null().is_ok(),
        Ok(Kind::List) => json.enter(depth + 1).is_ok() && json.eat(b']'),
        Ok(Kind::Object) => {
            let mut is_more = json.enter(depth + 1).is_ok() && !json.eat(b'}');
            while is_more {
                if json.key().is_err() || !is_empty(json, depth + 1) {
                    return false;
                }
                is_more = json.another(b'}').unwrap_or(false);
            }
            true
        }
        _ => false,
    }
}

/// Where a value stands within its row, from the inside out.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    pub(crate) outer: Option<&'a Path<'a>>,
    pub(crate) name: &'a str,
}

/// The path of a key, as JSON writes it but for the quotes: `geo.lat`.
fn dotted(path: Option<&Path<'_>>, key: &[u8]) -> Vec<u8> {
    match path {
        None => key.to_vec(),
        Some(path) => [&dotted(path.outer, path.name.as_bytes())[..], b".", key].concat(),
    }
}

/// Fills the columns from an object. `depth` counts the lists and objects that are open, this one too;
/// `path` is the column that it is in.
pub(crate) fn fill_object(
    fields: &mut Fields,
    json: &mut Json<'_>,
    filling: &mut Filling,
    depth: usize,
    path: Option<&Path<'_>>,
) -> Result<()> {
    let n = fields.n_values();
    let mut n_filled = 0;
    json.enter(depth)?;
    if !json.eat(b'}') {
        let mut next = 0;
        loop {
            json.skip_space();
            let expected = fields.keys.get(next).is_some_and(|key| json.eat_bytes(key));
            let found = if expected { Some(next) } else { find(fields, json, filling, depth, path)? };
            if let Some(at) = found {
                fill_field(&mut fields.columns[at], n, json, filling, depth, path)?;
                n_filled += 1;
                next = at + 1;
            }
            if !json.another(b'}')? {
                break;
            }
        }
    }
    if n_filled < fields.columns.len() {
        fields.push_null_where_shorter(n);
    }
    Ok(())
}

/// Adds the value that comes next to a column that has `n` values if this one was not yet there.
pub(crate) fn fill_field(
    column: &mut Column,
    n: usize,
    json: &mut Json<'_>,
    filling: &mut Filling,
    depth: usize,
    path: Option<&Path<'_>>,
) -> Result<()> {
    if column.len() > n {
        return Err(BadValue::new("json", "the field is there twice").within(column.field.name()));
    }
    fill_json(column, json, filling, depth, path).map_err(|error| error.within(column.field.name()))
}

/// The column of the key that comes next; a key without a column is dealt with, value and all.
#[inline(never)]
fn find(
    fields: &Fields,
    json: &mut Json<'_>,
    filling: &mut Filling,
    depth: usize,
    path: Option<&Path<'_>>,
) -> Result<Option<usize>> {
    let raw = json.key()?;
    let meant = unescaped(raw);
    let name = meant.as_deref().unwrap_or(raw);
    let found = fields.named(name);
    if found.is_none() {
        filling.new_field(path, raw, json, depth)?;
    }
    Ok(found)
}

/// Adds the JSON value that comes next.
pub(crate) fn fill_json(
    column: &mut Column,
    json: &mut Json<'_>,
    filling: &mut Filling,
    depth: usize,
    path: Option<&Path<'_>>,
) -> Result<()> {
    let kind = json.kind()?;
    if kind == Kind::Null {
        json.null()?;
        column.push_null();
        return Ok(());
    }
    match (&mut column.values, kind) {
        (Values::List { .. }, Kind::List) => return fill_list(column, json, filling, depth + 1, path),
        (Values::Struct(fields), Kind::Object) => {
            let path = Path { outer: path, name: column.field.name() };
            fill_object(fields, json, filling, depth + 1, Some(&path))?;
        }
        (Values::Geometry(runs), Kind::Object) => {
            let path = Path { outer: path, name: column.field.name() };
            fill_geometry(runs, json, filling, depth + 1, &path)?;
        }
        (Values::Bbox(fields), Kind::List) => fill_bbox(fields, json, depth + 1)?,
        (Values::String(runs), Kind::String) => {
            json.string(&mut runs.bytes)?;
            close(runs)?;
        }
        // What is no string is kept as it is written.
        (Values::String(runs), _) => {
            runs.bytes.extend_from_slice(json.skip_value(depth)?);
            close(runs)?;
        }
        (Values::Bool(values), Kind::Bool) => values.append(json.bool()?),
        (Values::Int { .. } | Values::UInt64(_) | Values::Float(_), Kind::Number) => {
            let text = json.number()?;
            let data_type = column.field.data_type();
            let clash = || BadValue::type_clash(format!("the number {}", plain(text)), data_type);
            fill_number(&mut column.values, text, clash)?;
        }
        (Values::Decimal { .. } | Values::BigDecimal { .. }, Kind::Number) => {
            let text = json.number()?;
            fill_decimal(&mut column.values, text, column.field.data_type())?;
        }
        (
            Values::Decimal { .. }
            | Values::BigDecimal { .. }
            | Values::Date(_)
            | Values::Instant(_)
            | Values::Binary(_),
            Kind::String,
        ) => {
            let mut scratch = std::mem::take(&mut filling.scratch);
            scratch.clear();
            json.string(&mut scratch)?;
            let filled = fill_text(column, &scratch, filling);
            filling.scratch = scratch;
            return filled;
        }
        _ => return Err(clash(json, kind, &column.expected(), depth)),
    }
    column.added();
    Ok(())
}

#[cold]
fn clash(json: &mut Json<'_>, kind: Kind, expected: &str, depth: usize) -> BadValue {
    let found = match (json.skip_value(depth), kind) {
        (Err(error), _) => return error,
        (Ok(_), Kind::List | Kind::Object) => kind.name().to_owned(),
        (Ok(value), _) => format!("{} {}", kind.name(), plain(value)),
    };
    BadValue::new("type", format!("found {found}, expected {expected}"))
}

/// A JSON scalar in a message; strings are in quotes already.
fn plain(value: &[u8]) -> String {
    let shown = shown(value.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(value));
    if value.starts_with(b"\"") { shown } else { shown.trim_matches('"').to_owned() }
}

fn fill_list(
    column: &mut Column,
    json: &mut Json<'_>,
    filling: &mut Filling,
    depth: usize,
    path: Option<&Path<'_>>,
) -> Result<()> {
    let Values::List { offsets, items } = &mut column.values else { return Ok(()) };
    json.enter(depth)?;
    if !json.eat(b']') {
        let start = items.len();
        loop {
            filling.weigh(items.width)?;
            let at = items.len() - start;
            fill_json(items, json, filling, depth, path).map_err(|error| error.within(&format!("[{at}]")))?;
            if !json.another(b']')? {
                break;
            }
        }
    }
    let Ok(end) = i32::try_from(items.len()) else { return Err(too_many()) };
    offsets.push(end);
    column.added();
    Ok(())
}

#[cold]
fn too_many() -> BadValue {
    BadValue::new("too long", "more than 2 GiB of values in one batch; lower `batch_bytes`")
}

pub(super) fn close(runs: &mut super::column::Runs) -> Result<()> {
    if runs.close() { Ok(()) } else { Err(too_many()) }
}

fn fill_number(values: &mut Values, text: &[u8], clash: impl Fn() -> BadValue) -> Result<()> {
    match values {
        Values::Int { values, min, max } => {
            let value = integer(text).and_then(|value| i64::try_from(value).ok());
            let Some(value) = value.filter(|value| (*min..=*max).contains(value)) else {
                return Err(clash());
            };
            values.push(value);
        }
        Values::UInt64(values) => {
            let value = integer(text).and_then(|value| u64::try_from(value).ok());
            values.push(value.ok_or_else(clash)?);
        }
        Values::Float(values) => values.push(float(text).ok_or_else(clash)?),
        _ => return Err(clash()),
    }
    Ok(())
}

fn fill_decimal(values: &mut Values, text: &[u8], data_type: &DataType) -> Result<()> {
    let clash = || BadValue::type_clash(shown(text), data_type);
    let text = std::str::from_utf8(text).ok().filter(|text| fits_scale(text, data_type)).ok_or_else(clash)?;
    match values {
        Values::Decimal { values, precision, scale } => {
            values.push(parse_decimal::<Decimal128Type>(text, *precision, *scale).map_err(|_| clash())?);
        }
        Values::BigDecimal { values, precision, scale } => {
            values.push(parse_decimal::<Decimal256Type>(text, *precision, *scale).map_err(|_| clash())?);
        }
        _ => return Err(clash()),
    }
    Ok(())
}

/// Whether nothing but zeros stands behind the last decimal that the type keeps.
fn fits_scale(text: &str, data_type: &DataType) -> bool {
    let (DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale)) = data_type else { return false };
    let Some((_, fraction)) = text.split_once('.') else { return true };
    let kept = usize::try_from(*scale).unwrap_or(0);
    fraction.contains(['e', 'E']) || fraction.bytes().skip(kept).all(|digit| digit == b'0')
}

/// Adds a value out of a field of CSV, or out of a JSON string.
pub(crate) fn fill_text(column: &mut Column, text: &[u8], filling: &mut Filling) -> Result<()> {
    let data_type = column.field.data_type();
    let clash = || BadValue::type_clash(shown(text), data_type);
    let trimmed = text.trim_ascii();
    let utf8 = || std::str::from_utf8(text).ok();
    match &mut column.values {
        Values::String(runs) => {
            runs.bytes.extend_from_slice(text);
            close(runs)?;
        }
        Values::Int { .. } | Values::UInt64(_) | Values::Float(_) => {
            fill_number(&mut column.values, trimmed, clash)?;
        }
        Values::Decimal { .. } | Values::BigDecimal { .. } => {
            fill_decimal(&mut column.values, trimmed, data_type)?;
        }
        Values::Bool(values) => values.append(boolean(trimmed).ok_or_else(clash)?),
        Values::Date(values) => values.push(utf8().and_then(date).ok_or_else(clash)?),
        Values::Instant(values) => {
            let read =
                |text| column.time.as_ref().map_or_else(|| instant(text), |time| patterned(text, time));
            values.push(utf8().and_then(read).ok_or_else(clash)?);
        }
        Values::Binary(runs) => {
            let engine = &base64::engine::general_purpose::STANDARD;
            engine.decode_vec(trimmed, &mut runs.bytes).map_err(|_| clash())?;
            close(runs)?;
        }
        Values::List { .. } | Values::Struct(_) | Values::Geometry(_) | Values::Bbox(_) => {
            let mut json = Json::new(text);
            fill_json(column, &mut json, filling, 0, None)?;
            return json.end();
        }
    }
    column.added();
    Ok(())
}

/// A column out of texts, with the rows, from 0, that are none of its type, and why; those are null.
pub(crate) fn fill_column<'a>(
    field: &Field,
    texts: impl Iterator<Item = Option<&'a str>>,
) -> aqueduct_core::Result<(ArrayRef, Vec<(usize, String)>)> {
    let unreadable = |error| Error::bug("read", "a type that text is not read into").with_source(error);
    let mut column = Column::new(field).map_err(unreadable)?;
    let mut filling = Filling::new(NewFields::Fail, usize::MAX);
    let mut bad = Vec::new();
    for (row, text) in texts.enumerate() {
        let filled = match text.filter(|text| !text.is_empty()) {
            Some(text) => fill_text(&mut column, text.as_bytes(), &mut filling),
            None => {
                column.push_null();
                Ok(())
            }
        };
        if let Err(error) = filled {
            column.truncate(row);
            column.push_null();
            bad.push((row, error.into_parts().2));
        }
    }
    Ok((column.finish().map_err(unreadable)?, bad))
}
