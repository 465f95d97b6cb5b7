//! Before rows are written as GeoParquet, those with a geometry that it cannot have go to the flow's policy: one bad item
//! does not end a run that may go on without it.

use aqueduct_core::{Batch, Context, Error, Origin, Part, Reject, RejectedItem, Result, Sink};
use aqueduct_formats::stac_item::row_to_json;
use aqueduct_formats::write::wrong_geometries;
use aqueduct_formats::{FILE, ROW};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, UInt64Type};
use async_trait::async_trait;

/// A rejected row keeps so many bytes of its JSON: enough to recognise it, however many points it has.
const MAX_RAW_BYTES: usize = 4096;

/// A sink of items, behind a look at their geometries.
pub(crate) struct SoundItems {
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) cx: Context,
    /// The column of geometries.
    pub(crate) column: &'static str,
}

impl SoundItems {
    /// The rows that can be written. The others have gone to the policy.
    async fn sound(&mut self, batch: Batch) -> Result<Batch> {
        let Some(geometries) = batch.records().column_by_name(self.column).cloned() else { return Ok(batch) };
        let wrong = self.cx.tasks().compute(move || wrong_geometries(&geometries)).await??;
        if wrong.is_empty() {
            return Ok(batch);
        }
        let records = batch.records().clone();
        let mut is_sound = vec![true; records.num_rows()];
        for (row, error) in wrong {
            is_sound[row] = false;
            self.cx.reject(self.reject(&records, row, &error))?;
        }
        let kept = filter_record_batch(&records, &BooleanArray::from(is_sound))
            .map_err(|error| Error::bug("write", error.to_string()))?;
        Ok(batch.with_records(kept))
    }

    fn reject(&self, rows: &RecordBatch, row: usize, error: &Error) -> Reject {
        let mut raw = row_to_json(rows, row).map(|row| row.to_string().into_bytes()).unwrap_or_default();
        raw.truncate(MAX_RAW_BYTES);
        let column = |name| rows.column_by_name(name).map(|column| column.slice(row, 1));
        let origin = Origin {
            file: column(FILE)
                .and_then(text)
                .unwrap_or_else(|| format!("the input of step `{}`", self.cx.step())),
            row: column(ROW).and_then(number),
            column: Some(self.column.into()),
            ..Origin::default()
        };
        let (item, reason, message) = (RejectedItem::Row, "geometry", error.chain());
        Reject { item, reason, message, origin, raw }
    }
}

fn text(value: ArrayRef) -> Option<String> {
    let value = cast(&value, &DataType::Utf8).ok().filter(|value| value.is_valid(0))?;
    Some(value.as_string::<i32>().value(0).to_owned())
}

fn number(value: ArrayRef) -> Option<u64> {
    let value = cast(&value, &DataType::UInt64).ok().filter(|value| value.is_valid(0))?;
    Some(value.as_primitive::<UInt64Type>().value(0))
}

#[async_trait]
impl Sink for SoundItems {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let batch = self.sound(batch).await?;
        self.sink.write(batch).await
    }

    async fn seal(&mut self) -> Result<Vec<Part>> {
        self.sink.seal().await
    }

    async fn abort(self: Box<Self>) {
        self.sink.abort().await;
    }
}
