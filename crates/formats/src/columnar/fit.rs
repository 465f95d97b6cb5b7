//! A file's own columns fitted to those that are wanted: by name, without loss, or the row is rejected.

use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Result, nearest};
use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, new_null_array,
};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::origin::with_origin;
use crate::stac::fit_boxes;
use crate::text::{fill_column, type_name};
use crate::{DecodeSpec, Decoded, NewFields, RowReject, output_schema, without_hints};

/// The places of the file's columns to read.
///
/// # Errors
/// The file has a column that is not wanted, and `new_fields` says that this is an error.
pub(super) fn wanted(file: &Schema, spec: &DecodeSpec) -> Result<Vec<usize>> {
    let mut places = Vec::new();
    for (at, field) in file.fields().iter().enumerate() {
        if spec.schema.index_of(field.name()).is_ok() || spec.options.new_fields == NewFields::Extra {
            places.push(at);
        } else if spec.options.new_fields == NewFields::Fail {
            let near = nearest(field.name(), spec.schema.fields().iter().map(|field| field.name().as_str()));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let message = format!(
                "the file has a column that is not declared; declare it in `schema`, or see `new_fields`{hint}"
            );
            return Err(Error::new(ErrorKind::Data, "read", message).with("column", field.name()));
        }
    }
    Ok(places)
}

/// How the columns of a batch become those that are wanted.
pub(super) struct Fit<'a> {
    spec: &'a DecodeSpec,
    /// The columns read, without hints.
    schema: SchemaRef,
    /// Columns that nobody wants, for `_extra`.
    extra: Vec<usize>,
}

impl<'a> Fit<'a> {
    pub(super) fn new(spec: &'a DecodeSpec, batch: &RecordBatch) -> Result<Self> {
        let schema = without_hints(&spec.schema);
        let fields = batch.schema_ref().fields();
        let extra = (0..fields.len()).filter(|at| schema.index_of(fields[*at].name()).is_err()).collect();
        Ok(Self { spec, schema, extra })
    }

    /// The batch's rows; `n_before` rows of the file came before them.
    pub(super) fn apply(&self, batch: &RecordBatch, n_before: u64) -> Result<Decoded> {
        let n = batch.num_rows();
        let mut rejects: Vec<RowReject> = Vec::new();
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for (field, hinted) in self.schema.fields().iter().zip(self.spec.schema.fields()) {
            columns.push(match batch.column_by_name(field.name()) {
                None => new_null_array(field.data_type(), n),
                Some(column) => {
                    let fitted = fit_column(column, hinted, field.data_type())?;
                    rejects.extend(fitted.bad.into_iter().map(|(row, message)| bad_row(row, field, message)));
                    fitted.column
                }
            });
        }
        if self.spec.options.new_fields == NewFields::Extra {
            columns.push(self.extra(batch)?);
        }
        rejects.sort_by_key(|reject| reject.row);
        rejects.dedup_by_key(|reject| reject.row);
        self.finish(columns, n, rejects, n_before)
    }

    /// Leaves out the bad rows and adds where the others came from.
    fn finish(
        &self,
        columns: Vec<ArrayRef>,
        n: usize,
        mut rejects: Vec<RowReject>,
        n_before: u64,
    ) -> Result<Decoded> {
        let read = output_schema(&self.spec.schema, &self.spec.options, false);
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        let mut records = RecordBatch::try_new_with_options(read, columns, &options).map_err(unfit)?;
        let bad: Vec<u64> = rejects.iter().map(|reject| reject.row).collect();
        if !bad.is_empty() {
            let keep: BooleanArray =
                (1..=n as u64).map(|row| Some(bad.binary_search(&row).is_err())).collect();
            records = filter_record_batch(&records, &keep).map_err(unfit)?;
        }
        if self.spec.origin {
            let schema = output_schema(&self.spec.schema, &self.spec.options, true);
            let n_good = records.num_rows();
            let columns = with_origin(records.columns().to_vec(), &self.spec.name, n_before, n_good, &bad);
            records = RecordBatch::try_new(schema, columns).map_err(unfit)?;
        }
        rejects.iter_mut().for_each(|reject| reject.row += n_before);
        Ok(super::rejected(rejects, records, n as u64))
    }

    /// The columns that nobody wants, as one of JSON.
    fn extra(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        if self.extra.is_empty() {
            return Ok(new_null_array(&DataType::Utf8, batch.num_rows()));
        }
        let unwanted = batch.project(&self.extra).map_err(unfit)?;
        let mut writer = arrow_json::LineDelimitedWriter::new(Vec::new());
        writer.write(&unwanted).and_then(|()| writer.finish()).map_err(unfit)?;
        let lines = writer.into_inner();
        let lines = lines.split(|byte| *byte == b'\n').take(batch.num_rows());
        let texts: StringArray =
            lines.map(|line| Some(String::from_utf8_lossy(line)).filter(|text| text != "{}")).collect();
        Ok(Arc::new(texts))
    }
}

fn bad_row(row: usize, field: &Field, message: String) -> RowReject {
    RowReject {
        row: row as u64 + 1,
        byte: None,
        column: Some(field.name().clone()),
        reason: "type",
        message,
        raw: Vec::new(),
        header: None,
    }
}

struct Fitted {
    column: ArrayRef,
    /// Rows, from 0, whose values would be lost, and why.
    bad: Vec<(usize, String)>,
}

fn fit_column(column: &ArrayRef, hinted: &Field, to: &DataType) -> Result<Fitted> {
    if column.data_type() == to {
        return Ok(Fitted { column: Arc::clone(column), bad: Vec::new() });
    }
    if column.data_type().is_string() && !to.is_string() {
        return parse_column(column, hinted);
    }
    if let Some((boxes, bad)) = fit_boxes(column, to).map_err(unfit)? {
        let shown = |row| format!("found {}, expected a box of 4 or 6 numbers", shown(column, row));
        return Ok(Fitted { column: boxes, bad: bad.into_iter().map(|row| (row, shown(row))).collect() });
    }
    let from = column.data_type().clone();
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let clash = |error| {
        let message = format!("the file has {}, expected {}", type_name(&from), type_name(to));
        Error::new(ErrorKind::Data, "read", message).with("column", hinted.name()).with_source(error)
    };
    let cast = cast_with_options(column, to, &options).map_err(clash)?;
    let lost = lost_rows(column, &cast, &options);
    let shown = |row| format!("found {}, expected {}", shown(column, row), type_name(to));
    let bad = lost.into_iter().map(|row| (row, shown(row))).collect();
    Ok(Fitted { column: cast, bad })
}

/// Rows whose value is not the same there and back.
fn lost_rows(before: &ArrayRef, after: &ArrayRef, options: &CastOptions<'_>) -> Vec<usize> {
    let is_nested = before.data_type().is_nested() || after.data_type().is_nested();
    let back = cast_with_options(after, before.data_type(), options).ok().filter(|_| !is_nested);
    let lost = back.and_then(|back| distinct(before, &back).ok());
    let is_lost = |row: &usize| match &lost {
        Some(lost) => lost.value(*row),
        None => after.is_null(*row) && before.is_valid(*row),
    };
    (0..before.len()).filter(is_lost).collect()
}

/// Text is read as it is in CSV.
fn parse_column(column: &ArrayRef, hinted: &Field) -> Result<Fitted> {
    let texts = arrow::compute::cast(column, &DataType::Utf8).map_err(unfit)?;
    let texts = texts.as_any().downcast_ref::<StringArray>();
    let (column, bad) = fill_column(hinted, texts.into_iter().flatten())?;
    Ok(Fitted { column, bad })
}

fn shown(column: &ArrayRef, row: usize) -> String {
    let formatter = ArrayFormatter::try_new(column, &FormatOptions::default());
    let text = formatter.map(|formatter| formatter.value(row).to_string()).unwrap_or_default();
    format!("{} {}", type_name(column.data_type()), crate::text::shown(text.as_bytes()))
}

fn unfit(error: arrow::error::ArrowError) -> Error {
    Error::bug("read", "columns do not fit the schema").with_source(error)
}
