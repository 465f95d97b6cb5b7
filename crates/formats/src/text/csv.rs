//! CSV and TSV: where records end, their fields, and which field goes to which column.
//!
//! RFC 4180 with the usual freedoms: any delimiter, LF or CRLF, an optional quote that counts only at the
//! start of a field, empty lines and comments passed over. Cutting blocks and splitting records go by the
//! same rules, which is why both are here rather than in a library.

use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Result, nearest};
use arrow::datatypes::SchemaRef;

use super::column::Fields;
use super::fill::{Filling, fill_text};
use super::value::BadValue;
use crate::{CsvOptions, Format, NewFields, ReadOptions};

/// A longer header is not told with a bad row.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// The characters with a meaning.
#[derive(Clone, Debug)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    pub(crate) quote: Option<u8>,
    pub(crate) comment: Option<u8>,
    pub(crate) has_header: bool,
    /// The text of a null, if one was named.
    pub(crate) null: Option<Box<[u8]>>,
}

impl Dialect {
    pub(crate) fn new(options: &CsvOptions, format: Format) -> Self {
        Self {
            delimiter: options.delimiter_of(format),
            quote: options.quote_of(format),
            comment: options.comment_byte(),
            has_header: options.header,
            null: options.null.as_ref().map(|text| text.as_bytes().into()),
        }
    }

    /// Whether a record is none: an empty line or a comment.
    pub(crate) fn is_skipped(&self, record: &[u8]) -> bool {
        record.is_empty() || self.comment.is_some_and(|comment| record.first() == Some(&comment))
    }

    fn ends_field(&self, byte: Option<&u8>) -> bool {
        byte.is_none_or(|byte| *byte == self.delimiter || *byte == b'\n' || *byte == b'\r')
    }

    /// The end of the record that begins at `start`, after its line end; nothing when the text ends first
    /// and more may come.
    pub(crate) fn record_end(&self, text: &[u8], start: usize) -> Option<usize> {
        let mut scan = QuoteScan::default();
        let Some(quote) = self.quote.filter(|_| !self.is_skipped(&text[start..])) else {
            return memchr::memchr(b'\n', &text[start..]).map(|n| start + n + 1);
        };
        let mut at = start;
        while let Some(n) = memchr::memchr2(quote, b'\n', text.get(at..)?) {
            at += n;
            if text[at] == quote {
                at += scan.quote_at(self, text, start, at);
                continue;
            }
            at += 1;
            if !scan.is_open {
                return Some(at);
            }
        }
        None
    }

    /// Splits a record into fields, unquoted into `unquoted` where need be.
    pub(crate) fn split<'a>(
        &self,
        record: &'a [u8],
        fields: &mut Vec<FieldText<'a>>,
    ) -> Result<(), BadValue> {
        fields.clear();
        let has_quotes = self.quote.is_some_and(|quote| memchr::memchr(quote, record).is_some());
        let mut rest = record;
        loop {
            let (field, after) = match self.quote {
                Some(quote) if has_quotes && rest.first() == Some(&quote) => self.quoted(rest, quote)?,
                _ => {
                    let end = memchr::memchr(self.delimiter, rest).unwrap_or(rest.len());
                    (FieldText::Plain(&rest[..end]), &rest[end..])
                }
            };
            fields.push(field);
            match after.split_first() {
                None => return Ok(()),
                Some((_, next)) => rest = next,
            }
        }
    }

    fn quoted<'a>(&self, text: &'a [u8], quote: u8) -> Result<(FieldText<'a>, &'a [u8]), BadValue> {
        let mut at = 1;
        let mut is_doubled = false;
        loop {
            let Some(n) = memchr::memchr(quote, &text[at..]) else {
                return Err(BadValue::new("csv", "a quote is opened and never closed"));
            };
            at += n + 1;
            if text.get(at) != Some(&quote) {
                break;
            }
            is_doubled = true;
            at += 1;
        }
        if !self.ends_field(text.get(at)) {
            return Err(BadValue::new(
                "csv",
                format!("text goes on after a closing quote, at its byte {at}"),
            ));
        }
        let inner = &text[1..at - 1];
        let field =
            if is_doubled { FieldText::Owned(undoubled(inner, quote)) } else { FieldText::Plain(inner) };
        Ok((field, &text[at..]))
    }
}

/// Whether the text so far ends within quotes.
#[derive(Clone, Copy, Default)]
pub(crate) struct QuoteScan {
    pub(crate) is_open: bool,
}

impl QuoteScan {
    /// Takes a quote at `at` into account; the first record begins at `start`. Returns how many bytes it
    /// takes: two for a doubled one, so the byte behind it must be there unless the text is at its end.
    pub(crate) fn quote_at(&mut self, dialect: &Dialect, text: &[u8], start: usize, at: usize) -> usize {
        if !self.is_open {
            let before = (at > start).then(|| &text[at - 1]);
            self.is_open = dialect.ends_field(before);
            return 1;
        }
        if dialect.quote == text.get(at + 1).copied() {
            return 2;
        }
        self.is_open = false;
        1
    }
}

fn undoubled(text: &[u8], quote: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(n) = memchr::memchr(quote, rest) {
        out.extend_from_slice(&rest[..=n]);
        rest = rest.get(n + 2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

/// A field of a record, without its quotes.
pub(crate) enum FieldText<'a> {
    Plain(&'a [u8]),
    Owned(Vec<u8>),
}

impl FieldText<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A record without its line end.
pub(crate) fn trim_line_end(record: &[u8]) -> &[u8] {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

/// Which field goes where.
pub(crate) struct CsvPlan {
    pub(crate) dialect: Dialect,
    /// The record that names the fields.
    pub(crate) header: Option<Arc<str>>,
    targets: Vec<Target>,
}

enum Target {
    /// The column of this index.
    Column(usize),
    /// `_extra`, under this name, as JSON writes it but for the quotes.
    Extra(Box<[u8]>),
    Ignored,
}

impl CsvPlan {
    /// Fields by place.
    pub(crate) fn by_place(dialect: Dialect, schema: &SchemaRef) -> Self {
        let targets = (0..schema.fields().len()).map(Target::Column).collect();
        Self { dialect, header: None, targets }
    }

    /// Fields by the names in the header.
    ///
    /// # Errors
    /// A name is there twice, or is that of no column with `new_fields: fail`, or none is that of a column.
    pub(crate) fn by_header(
        dialect: Dialect,
        names: &[String],
        schema: &SchemaRef,
        options: &ReadOptions,
    ) -> Result<Self> {
        let mut targets = Vec::with_capacity(names.len());
        for name in names {
            targets.push(match schema.index_of(name) {
                Ok(at) => Target::Column(at),
                Err(_) => new_column(name, schema, options)?,
            });
        }
        let has_column = targets.iter().any(|target| matches!(target, Target::Column(_)));
        if !has_column && !schema.fields().is_empty() {
            return Err(header_error(
                "no name in the header is that of a column; with no header, say `csv: {header: false}`",
            ));
        }
        Ok(Self { dialect, header: None, targets })
    }

    /// The same, that knows the record which names the fields, unless that is too long to be told with each bad row.
    pub(crate) fn with_header(self, record: &[u8]) -> Self {
        let header = std::str::from_utf8(record).ok().filter(|text| text.len() <= MAX_HEADER_BYTES);
        Self { header: header.map(Arc::from), ..self }
    }

    /// Fills the columns from a record.
    pub(crate) fn fill(
        &self,
        fields: &mut Fields,
        record: &[FieldText<'_>],
        filling: &mut Filling,
    ) -> Result<(), BadValue> {
        if record.len() != self.targets.len() {
            let message = format!("found {} fields, expected {}", record.len(), self.targets.len());
            return Err(BadValue::new("csv", message));
        }
        let n = fields.columns.first().map_or(0, super::column::Column::len);
        let mut n_filled = 0;
        for (field, target) in record.iter().zip(&self.targets) {
            let text = field.bytes();
            match target {
                Target::Ignored => {}
                Target::Extra(name) if !self.is_null(text, false) => {
                    let value = serde_json::to_vec(&String::from_utf8_lossy(text)).unwrap_or_default();
                    filling.keep_extra(name, &value);
                }
                Target::Extra(_) => {}
                Target::Column(at) => {
                    let column = &mut fields.columns[*at];
                    n_filled += 1;
                    if self.is_null(text, column.is_string()) {
                        column.push_null();
                    } else {
                        fill_text(column, text, filling)
                            .map_err(|error| error.within(column.field.name()))?;
                    }
                }
            }
        }
        if n_filled < fields.columns.len() {
            let unfilled = fields.columns.iter_mut().filter(|column| column.len() == n);
            unfilled.for_each(super::column::Column::push_null);
        }
        Ok(())
    }

    fn is_null(&self, text: &[u8], is_string: bool) -> bool {
        self.dialect.null.as_deref().is_some_and(|null| null == text) || (text.is_empty() && !is_string)
    }
}

fn new_column(name: &str, schema: &SchemaRef, options: &ReadOptions) -> Result<Target> {
    match options.new_fields {
        NewFields::Ignore => Ok(Target::Ignored),
        NewFields::Extra => {
            let quoted = serde_json::to_vec(name).unwrap_or_default();
            let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
            Ok(Target::Extra(inner.into()))
        }
        NewFields::Fail => {
            let near = nearest(name, schema.fields().iter().map(|field| field.name().as_str()));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let message =
                "the header names a field that is no column; declare it in `schema`, or see `new_fields`";
            Err(header_error(format!("{message}{hint}")).with("column", name))
        }
    }
}

fn header_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Data, "read header", message)
}

/// The names in a header record, or `column_1`… of a record that is none.
///
/// # Errors
/// The header is no UTF-8, or names two columns alike.
pub(crate) fn column_names(dialect: &Dialect, record: &[u8]) -> Result<Vec<String>> {
    let mut fields = Vec::new();
    dialect.split(record, &mut fields).map_err(|error| header_error(error.into_parts().2))?;
    if !dialect.has_header {
        return Ok((1..=fields.len()).map(|n| format!("column_{n}")).collect());
    }
    let mut names = Vec::with_capacity(fields.len());
    let mut seen = std::collections::HashSet::new();
    for field in &fields {
        let name = std::str::from_utf8(field.bytes()).map_err(|_| header_error("the header is not UTF-8"))?;
        let name = name.trim().to_owned();
        if !seen.insert(name.clone()) {
            return Err(header_error(
                "the header names a column twice; name them in `schema` and say `csv: {header: false}`",
            )
            .with("column", name));
        }
        names.push(name);
    }
    Ok(names)
}
