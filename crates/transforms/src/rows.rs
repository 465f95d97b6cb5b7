//! Rows that cannot be computed: found one by one, given to the flow's policy, the others go on.

use std::io::{self, Write};

use aqueduct_core::{Context, Error, ErrorKind, Origin, Reject, RejectedItem, Result};
use aqueduct_formats::{FILE, ROW};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, SchemaRef, UInt64Type};

/// A rejected row keeps so many bytes of its JSON: enough to recognise it, however wide it is.
const MAX_RAW_BYTES: usize = 4096;

/// What one pass over a batch found out beside its rows. Kept until the rows go on, because a pass whose
/// result does not fit is made again in halves.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    rejects: Vec<Reject>,
    n_filtered: usize,
}

impl Findings {
    /// Notes that of so many rows so many were kept; those neither kept nor rejected are filtered.
    #[cfg(feature = "expr")]
    pub(crate) fn filtered(&mut self, n_before: usize, n_kept: usize) {
        self.n_filtered = n_before.saturating_sub(n_kept + self.rejects.len());
    }

    /// Counts and hands over.
    pub(crate) fn settle(&mut self, cx: &Context) -> Result<()> {
        cx.metrics().rows_filtered.add_len(std::mem::take(&mut self.n_filtered));
        self.rejects.drain(..).try_for_each(|reject| cx.reject(reject))
    }
}

/// What can be computed of these rows. When `compute` fails over some value, the rows are halved until the
/// bad ones stand alone; each is a finding, and the others go on in order.
///
/// # Errors
/// `compute` fails with something else than bad data.
pub(crate) fn compute_rows(
    rows: &RecordBatch,
    schema: &SchemaRef,
    cx: &Context,
    findings: &mut Findings,
    compute: &mut dyn FnMut(&RecordBatch) -> Result<RecordBatch>,
) -> Result<RecordBatch> {
    *findings = Findings::default();
    good_rows(rows, schema, cx, findings, compute)
}

fn good_rows(
    rows: &RecordBatch,
    schema: &SchemaRef,
    cx: &Context,
    findings: &mut Findings,
    compute: &mut dyn FnMut(&RecordBatch) -> Result<RecordBatch>,
) -> Result<RecordBatch> {
    if rows.num_rows() == 0 {
        return Ok(RecordBatch::new_empty(SchemaRef::clone(schema)));
    }
    let error = match compute(rows) {
        Ok(computed) => return Ok(computed),
        Err(error) if error.kind() == ErrorKind::Data => error,
        Err(error) => return Err(error),
    };
    if rows.num_rows() == 1 {
        findings.rejects.push(reject(rows, &error, cx));
        return Ok(RecordBatch::new_empty(SchemaRef::clone(schema)));
    }
    let middle = rows.num_rows() / 2;
    let first = good_rows(&rows.slice(0, middle), schema, cx, findings, compute)?;
    let second = good_rows(&rows.slice(middle, rows.num_rows() - middle), schema, cx, findings, compute)?;
    concat_batches(schema, [&first, &second]).map_err(|error| Error::bug("transform", error.to_string()))
}

/// Where a row came from, as far as it says so itself.
pub(crate) fn origin_of(row: &RecordBatch, column: Option<String>, cx: &Context) -> Origin {
    let file = row.column_by_name(FILE).and_then(|files| text_at(files, 0));
    let number = row.column_by_name(ROW).and_then(|numbers| cast(numbers, &DataType::UInt64).ok());
    Origin {
        file: file.unwrap_or_else(|| format!("the input of step `{}`", cx.step())),
        row: number.filter(|numbers| numbers.is_valid(0)).map(|n| n.as_primitive::<UInt64Type>().value(0)),
        byte: None,
        column,
        header: None,
    }
}

fn reject(row: &RecordBatch, error: &Error, cx: &Context) -> Reject {
    let origin = origin_of(row, error.context("column").map(str::to_owned), cx);
    let message = match error.context("expression") {
        Some(expression) => format!("{} in `{expression}`", error.message()),
        None => error.message().to_owned(),
    };
    let reason = if error.context("expression").is_some() { "expression" } else { "type" };
    Reject { item: RejectedItem::Row, reason, message, origin, raw: row_as_json(row) }
}

fn text_at(values: &dyn Array, at: usize) -> Option<String> {
    let texts = cast(values, &DataType::Utf8).ok()?;
    texts.is_valid(at).then(|| texts.as_string::<i32>().value(at).to_owned())
}

/// The row as JSON, cut to [`MAX_RAW_BYTES`]; nothing when it cannot be written as JSON.
pub(crate) fn row_as_json(row: &RecordBatch) -> Vec<u8> {
    let mut cut = Cut(Vec::new());
    let mut writer = arrow_json::LineDelimitedWriter::new(&mut cut);
    let written = writer.write(row).and_then(|()| writer.finish());
    drop(writer);
    if written.is_err() {
        return Vec::new();
    }
    cut.0.truncate(cut.0.trim_ascii_end().len());
    cut.0
}

/// A document as JSON, cut to [`MAX_RAW_BYTES`].
#[cfg(feature = "validate")]
pub(crate) fn cut_json(document: &serde_json::Value) -> Vec<u8> {
    let mut cut = Cut(Vec::new());
    // It writes to memory: all that could fail is the document, and that is one already.
    let _ = serde_json::to_writer(&mut cut, document);
    cut.0
}

/// Keeps the first bytes and forgets the rest.
struct Cut(Vec<u8>);

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_RAW_BYTES.saturating_sub(self.0.len());
        self.0.extend_from_slice(&bytes[..room.min(bytes.len())]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
