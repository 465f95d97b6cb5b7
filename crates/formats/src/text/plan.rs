//! How the records of a file become rows: decided once a member, used by all its blocks.

use std::sync::Arc;

use aqueduct_core::Result;
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;

use super::csv::{CsvPlan, Dialect, column_names, trim_line_end};
use crate::stac::{ItemPlan, with_hints};
use crate::{DecodeSpec, Format, NewFields, ReadOptions};

/// How the records of a member become rows.
pub(crate) struct Plan {
    pub(crate) kind: PlanKind,
    /// The columns to read, with hints.
    pub(crate) schema: SchemaRef,
    pub(crate) new_fields: NewFields,
    pub(crate) batch_rows: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) max_record_bytes: ByteCount,
}

impl Plan {
    /// The record that names the fields of the others, if there is one.
    pub(crate) fn header(&self) -> Option<Arc<str>> {
        match &self.kind {
            PlanKind::Csv(plan) => plan.header.clone(),
            _ => None,
        }
    }
}

/// What a record is.
pub(crate) enum PlanKind {
    /// One JSON value.
    Json,
    /// An item of STAC.
    Item(ItemPlan),
    Csv(CsvPlan),
    /// One line of text.
    Text,
    /// To be looked at by inference: with the names of CSV's fields.
    Names(Dialect, Vec<String>),
}

/// Makes the plan of a member out of its first records; returns where those begin that are rows. Nothing
/// while there is only what comes before a header.
pub(crate) type Planner = Box<dyn Fn(Format, &[u8]) -> Result<Option<(Arc<Plan>, usize)>> + Send + Sync>;

/// Plans members for decoding.
pub(crate) fn planner(spec: &DecodeSpec, batch_bytes: usize) -> Planner {
    let (schema, options) = (Arc::clone(&spec.schema), Arc::clone(&spec.options));
    let batch_rows = spec.batch_rows.max(1);
    Box::new(move |format, text| {
        let (kind, start) = match format {
            Format::Csv | Format::Tsv => {
                let Some((plan, start)) = plan_csv(format, text, &schema, &options)? else { return Ok(None) };
                (PlanKind::Csv(plan), start)
            }
            Format::Text => (PlanKind::Text, 0),
            Format::Stac => (PlanKind::Item(ItemPlan::new(&schema)), 0),
            _ => (PlanKind::Json, 0),
        };
        let schema = match &kind {
            PlanKind::Item(_) => with_hints(&schema),
            _ => Arc::clone(&schema),
        };
        let plan = Plan {
            kind,
            schema,
            new_fields: options.new_fields,
            batch_rows,
            batch_bytes,
            max_record_bytes: options.max_record_bytes,
        };
        Ok(Some((Arc::new(plan), start)))
    })
}

fn plan_csv(
    format: Format,
    text: &[u8],
    schema: &SchemaRef,
    options: &ReadOptions,
) -> Result<Option<(CsvPlan, usize)>> {
    let dialect = Dialect::new(&options.csv, format);
    if !dialect.has_header {
        return Ok(Some((CsvPlan::by_place(dialect, schema), 0)));
    }
    let Some((start, end)) = first_record(&dialect, text) else { return Ok(None) };
    let header = trim_line_end(&text[start..end]);
    let names = column_names(&dialect, header)?;
    let plan = CsvPlan::by_header(dialect, &names, schema, options)?;
    Ok(Some((plan.with_header(header), end)))
}

/// Start and end of the first record that is one.
pub(crate) fn first_record(dialect: &Dialect, text: &[u8]) -> Option<(usize, usize)> {
    let mut start = 0;
    while start < text.len() {
        let end = dialect.record_end(text, start).unwrap_or(text.len());
        if !dialect.is_skipped(trim_line_end(&text[start..end])) {
            return Some((start, end));
        }
        start = end;
    }
    None
}
