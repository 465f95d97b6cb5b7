//! Columns inferred from the first rows of text.
//!
//! JSON: whole numbers are `int64`, others `float64`; lists and objects keep their shape. CSV: the same out
//! of fields' text. Values that do not go together make a `string`, which keeps them as they are written.
//! Dates and times stay strings until they are declared or cast: no guess is better than a wrong one.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::{ByteCount, Tasks};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use tokio::sync::mpsc;

use super::blocks::{Block, Cutting, read_blocks};
use super::csv::{Dialect, FieldText, column_names, trim_line_end};
use super::json::{Json, Kind, unescaped};
use super::plan::{Plan, PlanKind, first_record};
use super::rows::next_record;
use super::value::{BadValue, float, integer};
use super::{LEAST_BLOCK, failed};
use crate::unpack::Unpacker;
use crate::{Format, InferRows, LargeRecords, ReadOptions};

/// With `infer_rows: 1000`, so many bytes are enough whatever the rows: a sample, not a download.
const MAX_SAMPLE: ByteCount = ByteCount::mib(8);

/// More fields than this are data in the place of names.
const MAX_FIELDS: usize = 10_000;

/// The columns of text.
///
/// # Errors
/// It cannot be read, or has more than [`MAX_FIELDS`] fields.
pub(crate) async fn infer_text(
    unpacker: Unpacker,
    name: &str,
    options: &ReadOptions,
    tasks: &Tasks,
) -> Result<SchemaRef> {
    let (sender, mut receiver) = mpsc::channel(1);
    let cutting = Cutting {
        name: name.into(),
        options: Arc::new(options.clone()),
        block_bytes: LEAST_BLOCK.as_usize() * 4,
        large_records: Arc::new(Sample),
        flush_after: Duration::from_millis(200),
        planner: planner(options),
    };
    let _reader = tasks.spawn(read_blocks(unpacker, cutting, sender));
    let max_rows = match options.infer_rows {
        InferRows::All => u64::MAX,
        InferRows::First(n) => n,
    };
    let max_bytes = if max_rows == u64::MAX { u64::MAX } else { MAX_SAMPLE.get() };
    let mut shape = Shapes { max_rows, ..Shapes::default() };
    let mut n_bytes = 0;
    while shape.n_rows < max_rows && n_bytes < max_bytes {
        let Some(block) = receiver.recv().await else { break };
        let block = block?;
        n_bytes += block.bytes.len() as u64;
        shape = tasks.compute(move || shape.look_at(block)).await.map_err(failed)?;
    }
    shape.schema()
}

/// Large records are looked at one at a time, within the sample.
struct Sample;

#[async_trait]
impl LargeRecords for Sample {
    async fn reserve(&self, _: ByteCount, _: ByteCount) -> Result<aqueduct_primitives::Reservation> {
        Ok(aqueduct_primitives::Reservation::empty())
    }
}

fn planner(options: &ReadOptions) -> super::plan::Planner {
    let options = options.clone();
    Box::new(move |format, text| {
        let (kind, start) = match format {
            Format::Csv | Format::Tsv => {
                let dialect = Dialect::new(&options.csv, format);
                let Some((start, end)) = first_record(&dialect, text) else { return Ok(None) };
                let names = column_names(&dialect, trim_line_end(&text[start..end]))?;
                let rows = if dialect.has_header { end } else { start };
                (PlanKind::Names(dialect, names), rows)
            }
            Format::Text => (PlanKind::Text, 0),
            _ => (PlanKind::Json, 0),
        };
        let plan = Plan {
            kind,
            schema: Arc::new(Schema::empty()),
            new_fields: options.new_fields,
            batch_rows: 1,
            batch_bytes: 1,
            max_record_bytes: options.max_record_bytes,
        };
        Ok(Some((Arc::new(plan), start)))
    })
}

/// What has been seen of a value.
#[derive(Clone, Debug, Default, PartialEq)]
enum Shape {
    /// Only nulls.
    #[default]
    Unknown,
    Bool,
    Int,
    Float,
    /// Strings, or what does not go together.
    Text,
    List(Box<Shape>),
    Object(Vec<(String, Shape)>),
}

/// What has been seen of a file.
#[derive(Default)]
struct Shapes {
    fields: Vec<(String, Shape)>,
    n_rows: u64,
    max_rows: u64,
    is_text: bool,
    too_many: bool,
}

impl Shapes {
    fn look_at(mut self, mut block: Block) -> Self {
        let plan = Arc::clone(&block.plan);
        if let PlanKind::Names(_, names) = &plan.kind {
            for name in names {
                entry(&mut self.fields, name);
            }
        }
        while self.n_rows < self.max_rows {
            let Some((start, end)) = next_record(&mut block) else { break };
            self.n_rows += 1;
            self.look_at_row(&plan.kind, &block.bytes[start..end]);
        }
        self.too_many |= self.fields.len() > MAX_FIELDS;
        self
    }

    /// A row that cannot be read tells nothing here; it is rejected when rows are read.
    fn look_at_row(&mut self, kind: &PlanKind, record: &[u8]) {
        match kind {
            PlanKind::Json => {
                let mut json = Json::new(record);
                if std::str::from_utf8(record).is_ok()
                    && let Ok(Shape::Object(fields)) = shape_of(&mut json, 0)
                    && json.end().is_ok()
                {
                    merge_fields(&mut self.fields, fields);
                }
            }
            PlanKind::Names(dialect, names) => {
                let mut texts = Vec::new();
                if dialect.split(record, &mut texts).is_ok() && texts.len() == names.len() {
                    self.look_at_fields(dialect, names, &texts);
                }
            }
            PlanKind::Text | PlanKind::Csv(_) => self.is_text = true,
        }
    }

    fn look_at_fields(&mut self, dialect: &Dialect, names: &[String], texts: &[FieldText<'_>]) {
        for (name, text) in names.iter().zip(texts) {
            let text = text.bytes();
            if dialect.null.as_deref() != Some(text) {
                merge(entry(&mut self.fields, name), shape_of_text(text));
            }
        }
    }

    fn schema(self) -> Result<SchemaRef> {
        if self.too_many {
            let message = format!("more than {MAX_FIELDS} different fields; declare the columns in `schema`");
            return Err(Error::new(ErrorKind::Limit, "infer", message));
        }
        let fields: Vec<_> = match self.is_text {
            true => vec![Field::new("line", DataType::Utf8, false)],
            false => {
                self.fields.iter().map(|(name, shape)| Field::new(name, shape.data_type(), true)).collect()
            }
        };
        Ok(Arc::new(Schema::new(fields)))
    }
}

impl Shape {
    fn data_type(&self) -> DataType {
        match self {
            Self::Unknown | Self::Text => DataType::Utf8,
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
}

fn shape_of(json: &mut Json<'_>, depth: usize) -> Result<Shape, BadValue> {
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
            json.enter(depth + 1)?;
            let mut fields = Vec::new();
            if !json.eat(b'}') {
                loop {
                    let raw = json.key()?;
                    let meant = unescaped(raw);
                    let name = String::from_utf8_lossy(meant.as_deref().unwrap_or(raw)).into_owned();
                    fields.push((name, shape_of(json, depth + 1)?));
                    if !json.another(b'}')? {
                        break;
                    }
                }
            }
            Shape::Object(fields)
        }
    })
}

/// A whole number beyond 64 bits is kept as text: no float is equal to it.
fn number_shape(text: &[u8]) -> Shape {
    let is_written_whole = !text.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    match integer(text).map(i64::try_from) {
        Some(Ok(_)) if is_written_whole => Shape::Int,
        _ if !is_written_whole && float(text).is_some() => Shape::Float,
        _ => Shape::Text,
    }
}

fn shape_of_text(text: &[u8]) -> Shape {
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

fn merge(into: &mut Shape, other: Shape) {
    match (&mut *into, other) {
        (_, Shape::Unknown) => {}
        (Shape::Unknown, other) => *into = other,
        (Shape::List(item), Shape::List(other)) => merge(item, *other),
        (Shape::Object(fields), Shape::Object(others)) => merge_fields(fields, others),
        (Shape::Int, Shape::Float) => *into = Shape::Float,
        (Shape::Float, Shape::Int) => {}
        (one, other) if *one == other => {}
        _ => *into = Shape::Text,
    }
}

fn merge_fields(into: &mut Vec<(String, Shape)>, others: Vec<(String, Shape)>) {
    for (at, (name, shape)) in others.into_iter().enumerate() {
        // Rows name their fields in the same order most of the time.
        if into.get(at).is_some_and(|(known, _)| *known == name) {
            merge(&mut into[at].1, shape);
        } else if into.len() <= MAX_FIELDS {
            merge(entry(into, &name), shape);
        }
    }
}

fn entry<'a>(fields: &'a mut Vec<(String, Shape)>, name: &str) -> &'a mut Shape {
    let at = fields.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        fields.push((name.to_owned(), Shape::Unknown));
        fields.len() - 1
    });
    &mut fields[at].1
}
