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
use super::json::Json;
use super::plan::{Plan, PlanKind, first_record};
use super::rows::next_record;
use super::shape::{MAX_FIELDS, Shape, entry, merge, merge_fields, shape_of, shape_of_text};
use super::{LEAST_BLOCK, failed};
use crate::stac::{ItemPlan, Items};
use crate::unpack::Unpacker;
use crate::{Format, InferRows, LargeRecords, ReadOptions};

/// With `infer_rows: 1000`, so many bytes are enough whatever the rows: a sample, not a download.
const MAX_SAMPLE: ByteCount = ByteCount::mib(8);

/// What the first rows of text look like.
///
/// # Errors
/// It cannot be read.
pub(crate) async fn infer_text(
    unpacker: Unpacker,
    name: &str,
    options: &ReadOptions,
    tasks: &Tasks,
) -> Result<Inference> {
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
    let mut seen = Inference::default();
    let mut n_bytes = 0;
    while seen.n_rows < max_rows && n_bytes < max_bytes {
        let Some(block) = receiver.recv().await else { break };
        let block = block?;
        n_bytes += block.bytes.len() as u64;
        seen = tasks.compute(move || seen.with(block, max_rows)).await.map_err(failed)?;
    }
    Ok(seen)
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
            Format::Stac => (PlanKind::Item(ItemPlan::new(&Schema::empty())), 0),
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

/// What was seen of the rows of files, from which columns follow. That of several files can be merged: of items of STAC, of
/// which a file may hold but one.
///
/// ```
/// use aqueduct_formats::{Inference, ReadOptions, look};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> aqueduct_core::Result<()> {
/// let options: ReadOptions = serde_json::from_str(r#"{"format": "stac"}"#).unwrap_or_default();
/// let tasks = aqueduct_primitives::Tasks::new(1);
/// let mut found = Inference::default();
/// for item in [
///     r#"{"type": "Feature", "id": "a", "properties": {"datetime": null}}"#,
///     r#"{"type": "Feature", "id": "b", "properties": {"eo:cloud_cover": 7}}"#,
/// ] {
///     let body = Box::pin(futures::stream::iter([Ok(item.into())]));
///     found.merge(look(body, "item.json", &options, Default::default(), &tasks).await?);
/// }
/// let columns = found.schema()?;
/// assert!(columns.index_of("datetime").is_ok() && columns.index_of("eo:cloud_cover").is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Inference {
    fields: Vec<(String, Shape)>,
    items: Option<Items>,
    /// Whether there were lines of text.
    is_text: bool,
    /// Columns that need no rows to tell.
    columns: Option<SchemaRef>,
    n_rows: u64,
}

impl Inference {
    /// Of columns that are known.
    pub(crate) fn of_columns(columns: SchemaRef) -> Self {
        Self { columns: Some(columns), ..Self::default() }
    }

    /// How many rows were looked at, good and bad.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// From how many more rows to infer the columns, where `infer_rows` says from how many in all; nothing, when enough
    /// was seen.
    pub fn rows_left(&self, infer_rows: InferRows) -> Option<InferRows> {
        match infer_rows {
            _ if self.columns.is_some() => None,
            InferRows::All => Some(InferRows::All),
            InferRows::First(n) => {
                let left = n.saturating_sub(self.n_rows);
                (left > 0).then_some(InferRows::First(left))
            }
        }
    }

    /// Adds what was seen of rows that stand behind these. Columns that need no rows to tell, those of Parquet, are taken
    /// only where nothing was seen before them.
    pub fn merge(&mut self, later: Self) {
        if self.n_rows == 0 && self.columns.is_none() {
            self.columns = later.columns;
        }
        self.n_rows += later.n_rows;
        self.is_text |= later.is_text;
        merge_fields(&mut self.fields, later.fields);
        match (&mut self.items, later.items) {
            (Some(items), Some(others)) => items.merge(others),
            (items @ None, others) => *items = others,
            (Some(_), None) => {}
        }
    }

    /// The columns that follow; none, if there was nothing to tell them by.
    ///
    /// # Errors
    /// There are more than 10000 fields.
    pub fn schema(&self) -> Result<SchemaRef> {
        if let Some(columns) = &self.columns {
            return Ok(Arc::clone(columns));
        }
        if self.fields.len() > MAX_FIELDS || self.items.as_ref().is_some_and(Items::has_too_many) {
            let message = format!("more than {MAX_FIELDS} different fields; declare the columns in `schema`");
            return Err(Error::new(ErrorKind::Limit, "infer", message));
        }
        let columns = match (&self.items, self.is_text) {
            (Some(items), _) => items.schema(),
            (None, true) => Schema::new(vec![Field::new("line", DataType::Utf8, false)]),
            (None, false) => {
                let fields = self.fields.iter();
                Schema::new(
                    fields.map(|(name, shape)| Field::new(name, shape.data_type(), true)).collect::<Vec<_>>(),
                )
            }
        };
        Ok(Arc::new(columns))
    }

    /// With the records of a block, until there are `max_rows`.
    fn with(mut self, mut block: Block, max_rows: u64) -> Self {
        let plan = Arc::clone(&block.plan);
        if let PlanKind::Names(_, names) = &plan.kind {
            for name in names {
                entry(&mut self.fields, name);
            }
        }
        while self.n_rows < max_rows {
            let Some((start, end)) = next_record(&mut block) else { break };
            self.n_rows += 1;
            self.look_at(&plan.kind, &block.bytes[start..end]);
        }
        self
    }

    /// A row that cannot be read tells nothing here; it is rejected when rows are read.
    fn look_at(&mut self, kind: &PlanKind, record: &[u8]) {
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
            PlanKind::Item(_) => self.items.get_or_insert_default().look_at(record),
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
}
