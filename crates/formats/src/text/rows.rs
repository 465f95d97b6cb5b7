//! A block of records decoded, a batch at a time: good rows into columns, bad ones aside.

use std::sync::Arc;

use aqueduct_core::{Error, Result};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};

use super::blocks::{Block, record_too_long};
use super::column::{Column, Fields};
use super::csv::{FieldText, trim_line_end};
use super::fill::{Filling, fill_object, fill_text};
use super::json::{Json, Kind};
use super::plan::{Plan, PlanKind};
use super::value::BadValue;
use crate::stac::fill_item;
use crate::{EXTRA, NewFields, RowReject};

/// Bad rows in one part at most: each costs more memory than its text.
const MAX_REJECTS: usize = 1024;

/// As much of a bad row is kept.
const MAX_RAW_BYTES: usize = 64 << 10;

/// What one call decoded.
pub(crate) struct Part {
    /// The columns read, and `_extra`.
    pub(crate) columns: Vec<ArrayRef>,
    pub(crate) n_good: usize,
    /// Their rows count from 1 within the part.
    pub(crate) rejects: Vec<RowReject>,
    /// What is left of the block.
    pub(crate) rest: Option<Block>,
    pub(crate) large: Reservation,
}

impl Part {
    /// Rows read, good and bad.
    pub(crate) fn n_rows(&self) -> u64 {
        (self.n_good + self.rejects.len()) as u64
    }
}

/// Decodes the next rows of a block.
///
/// # Errors
/// A record is too long, or a column is of a type that text is not read into.
pub(crate) fn decode_part(mut block: Block) -> Result<Part> {
    let plan = Arc::clone(&block.plan);
    let is_clean = *block.is_clean.get_or_insert_with(|| is_clean(&block.bytes[block.start..], &plan.kind));
    let mut rows = Rows::new(&plan)?;
    while let Some((start, end)) = next_record(&mut block) {
        let record = &block.bytes[start..end];
        if record.len() > plan.max_record_bytes.as_usize() {
            return Err(record_too_long(plan.max_record_bytes).with("byte", block.offset + start as u64));
        }
        rows.add(record, block.offset + start as u64, is_clean);
        if rows.is_full() {
            break;
        }
    }
    let is_done = match &block.spans {
        Some(spans) => block.next_span >= spans.len(),
        None => block.start >= block.bytes.len(),
    };
    let (columns, n_good, rejects) = rows.finish()?;
    // A record that is larger than a block comes first in its own. Its memory goes with its rows: what is left of
    // the block is small, and must not hold what these rows may have to wait for.
    let large = std::mem::take(&mut block.large);
    let is_large = large.size() > ByteCount::ZERO;
    let rest = (!is_done).then(|| if is_large { block.rest() } else { block });
    Ok(Part { columns, n_good, rejects, rest, large })
}

/// Whether no row needs a look of its own: all is UTF-8, and without NUL where that could be text.
fn is_clean(text: &[u8], kind: &PlanKind) -> bool {
    let may_hold_nul = is_json(kind);
    simdutf8::basic::from_utf8(text).is_ok() && (may_hold_nul || memchr::memchr(0, text).is_none())
}

fn is_json(kind: &PlanKind) -> bool {
    matches!(kind, PlanKind::Json | PlanKind::Item(_))
}

/// Start and end of the next record that is one, without its line end.
pub(crate) fn next_record(block: &mut Block) -> Option<(usize, usize)> {
    if let Some(spans) = &block.spans {
        let span = *spans.get(block.next_span)?;
        block.next_span += 1;
        return Some(span);
    }
    while block.start < block.bytes.len() {
        let start = block.start;
        let end = match &block.plan.kind {
            PlanKind::Csv(plan) => plan.dialect.record_end(&block.bytes, start),
            PlanKind::Names(dialect, _) => dialect.record_end(&block.bytes, start),
            _ => memchr::memchr(b'\n', &block.bytes[start..]).map(|n| start + n + 1),
        };
        block.start = end.unwrap_or(block.bytes.len());
        let record = trim_line_end(&block.bytes[start..block.start]);
        let is_skipped = match &block.plan.kind {
            PlanKind::Csv(plan) => plan.dialect.is_skipped(record),
            PlanKind::Names(dialect, _) => dialect.is_skipped(record),
            PlanKind::Json | PlanKind::Item(_) => record.trim_ascii().is_empty(),
            PlanKind::Text => false,
        };
        if !is_skipped {
            return Some((start, start + record.len()));
        }
    }
    None
}

/// Rows of a part so far.
struct Rows<'a> {
    plan: &'a Plan,
    fields: Fields,
    extra: Option<Column>,
    filling: Filling,
    rejects: Vec<RowReject>,
    n_good: usize,
    max_rows: usize,
    n_bytes: usize,
}

impl<'a> Rows<'a> {
    fn new(plan: &'a Plan) -> Result<Self> {
        let unreadable = |error| Error::bug("decode", "a type that text is not read into").with_source(error);
        let fields = Fields::new(plan.schema.fields().iter()).map_err(unreadable)?;
        let extra = (plan.new_fields == NewFields::Extra && !matches!(plan.kind, PlanKind::Text))
            .then(|| Column::new(&Field::new(EXTRA, DataType::Utf8, true)))
            .transpose()
            .map_err(unreadable)?;
        let width: usize = fields.columns.iter().map(|column| column.width).sum();
        let max_rows = plan.batch_rows.min(plan.batch_bytes / width.max(1)).max(1);
        let mut filling = Filling::new(plan.new_fields, plan.max_record_bytes.as_usize());
        filling.drops_empty = matches!(plan.kind, PlanKind::Item(_));
        Ok(Self { plan, fields, extra, filling, rejects: Vec::new(), n_good: 0, max_rows, n_bytes: 0 })
    }

    fn is_full(&self) -> bool {
        self.n_good >= self.max_rows
            || self.n_bytes >= self.plan.batch_bytes
            || self.rejects.len() >= MAX_REJECTS
    }

    /// Adds a record as a row, or as a reject.
    fn add(&mut self, record: &[u8], byte: u64, is_clean: bool) {
        self.filling.row_bytes = 0;
        self.filling.extra.clear();
        let checked = if is_clean { Ok(()) } else { check_text(record, &self.plan.kind) };
        let filled = checked.and_then(|()| self.fill(record));
        match filled {
            Ok(()) => self.keep(record),
            Err(error) => self.reject(record, byte, error),
        }
    }

    fn keep(&mut self, record: &[u8]) {
        if let Some(column) = &mut self.extra {
            let extra = std::mem::take(&mut self.filling.extra);
            let is_filled = !extra.is_empty()
                && fill_text(column, &[b"{", &extra[..], b"}"].concat(), &mut self.filling).is_ok();
            if !is_filled {
                column.push_null();
            }
            self.filling.extra = extra;
        }
        self.n_good += 1;
        self.n_bytes += record.len() + self.filling.row_bytes;
    }

    #[cold]
    fn reject(&mut self, record: &[u8], byte: u64, error: BadValue) {
        let n = self.n_good;
        self.fields.columns.iter_mut().for_each(|column| column.truncate(n));
        let (column, reason, message) = error.into_parts();
        self.rejects.push(RowReject {
            row: (self.n_good + self.rejects.len() + 1) as u64,
            byte: Some(byte),
            column,
            reason,
            message,
            raw: record.get(..MAX_RAW_BYTES).unwrap_or(record).to_vec(),
            header: self.plan.header(),
        });
    }

    fn fill(&mut self, record: &[u8]) -> Result<(), BadValue> {
        match &self.plan.kind {
            PlanKind::Json => fill_record(&mut self.fields, record, &mut self.filling),
            PlanKind::Item(plan) => fill_item(plan, &mut self.fields, record, &mut self.filling),
            PlanKind::Csv(plan) => {
                let mut texts: Vec<FieldText<'_>> = Vec::with_capacity(self.fields.columns.len());
                plan.dialect.split(record, &mut texts)?;
                plan.fill(&mut self.fields, &texts, &mut self.filling)
            }
            PlanKind::Text | PlanKind::Names(..) => self
                .fields
                .columns
                .iter_mut()
                .try_for_each(|column| fill_text(column, record, &mut self.filling)),
        }
    }

    fn finish(self) -> Result<(Vec<ArrayRef>, usize, Vec<RowReject>)> {
        let columns = self.fields.columns.into_iter().chain(self.extra).map(Column::finish);
        let columns = columns
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::bug("decode", "columns do not fit their types").with_source(error))?;
        Ok((columns, self.n_good, self.rejects))
    }
}

fn fill_record(fields: &mut Fields, record: &[u8], filling: &mut Filling) -> Result<(), BadValue> {
    let mut json = Json::new(record);
    let kind = json.kind()?;
    if kind != Kind::Object {
        json.skip_value(0)?;
        return Err(BadValue::new("json", format!("found {}, expected an object", kind.name())));
    }
    fill_object(fields, &mut json, filling, 1, None)?;
    json.end()
}

#[cold]
fn check_text(record: &[u8], kind: &PlanKind) -> Result<(), BadValue> {
    if let Err(error) = std::str::from_utf8(record) {
        return Err(BadValue::new("utf8", format!("not UTF-8 from its byte {} on", error.valid_up_to())));
    }
    match memchr::memchr(0, record) {
        Some(at) if !is_json(kind) => Err(BadValue::new("utf8", format!("a NUL at its byte {at}"))),
        _ => Ok(()),
    }
}
