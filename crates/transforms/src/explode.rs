//! `explode`: makes one row of each element of a list; the other columns are repeated. Rows and elements stay
//! in order. A row whose list is null or empty makes no row and counts as filtered, as SQL's `unnest` has it.
//!
//! One row may become millions: what comes out is cut into batches of the usual rows and bytes, and each waits
//! for memory of its own before the next is made.

use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::rows::{element_bytes, row_bytes};
use aqueduct_core::{
    Batch, BatchStream, ComponentInfo, Context, Error, Factory, Inputs, Problem, Result, Stage, StageConfig,
    array_bytes, find_column, only_input,
};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use async_stream::try_stream;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::columns::schema_of;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "explode",
    summary: "Makes one row of each element of a list; rows with an empty list or none are dropped",
    example: "explode: tags",
});

/// The list column. It keeps its name and holds one element a row.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(String);

impl StageConfig for Config {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = only_input(inputs)?;
        let at = find_column(&input, &self.0, "").map_err(|problem| vec![problem])?;
        let Some(item) = item_of(input.field(at).data_type()) else {
            let message =
                format!("`{}` is {}; only a list has elements", self.0, input.field(at).data_type());
            return Err(vec![Problem::at("", message)]);
        };
        let mut fields = input.fields().to_vec();
        fields[at] = Arc::new(item.as_ref().clone().with_name(&self.0));
        Ok(Box::new(Explode { at, list_type: DataType::List(item), schema: schema_of(fields, &input) }))
    }
}

fn item_of(data_type: &DataType) -> Option<FieldRef> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(Arc::clone(item))
        }
        _ => None,
    }
}

struct Explode {
    at: usize,
    /// The column as a list with 32-bit offsets, whatever list it is.
    list_type: DataType,
    schema: SchemaRef,
}

impl Stage for Explode {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        Box::pin(try_stream! {
            let mut input = futures::stream::iter(inputs).flatten();
            while let Some(batch) = input.next().await {
                let batch = batch?;
                let mut elements = self.elements(batch.records(), &cx)?;
                let mut cut = batch.cut();
                while let Some(records) = elements.next_batch(&self.schema)? {
                    let none = Batch::new(RecordBatch::new_empty(self.schema()), Reservation::empty());
                    yield cx.recharge(none.with_cut(std::mem::take(&mut cut)), records).await?;
                }
                // What the input held and completes goes on when all of its rows have.
                yield batch.with_records(RecordBatch::new_empty(self.schema())).with_cut(cut);
            }
        })
    }
}

impl Explode {
    /// Gets ready to go through the elements of these rows.
    fn elements(&self, rows: &RecordBatch, cx: &Context) -> Result<Elements> {
        let fail = |error: ArrowError| Error::bug("explode", error.to_string());
        let lists = cast(rows.column(self.at), &self.list_type).map_err(fail)?;
        let lists = lists.as_list::<i32>().clone();
        let n_dropped = (0..lists.len()).filter(|row| range_of(&lists, *row).is_empty()).count();
        cx.metrics().rows_filtered.add_len(n_dropped);
        let max_bytes = cx.batch_bytes().min(cx.share().total()).get() / 2;
        Ok(Elements {
            weights: Weights::of(rows, self.at, &lists, max_bytes)?,
            rows: rows.clone(),
            at: self.at,
            lists,
            next: (0, 0),
            max_rows: cx.batch_rows().max(1),
            max_bytes,
        })
    }
}

/// The elements of one batch's lists that are still to be made rows of.
struct Elements {
    rows: RecordBatch,
    at: usize,
    lists: ListArray,
    /// The row, and the element within its list, that come next.
    next: (usize, usize),
    /// None when they do not matter.
    weights: Option<Weights>,
    max_rows: usize,
    max_bytes: u64,
}

impl Elements {
    /// The next rows, or nothing when all are made.
    fn next_batch(&mut self, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
        let (from_rows, from_elements) = self.pick();
        if from_rows.is_empty() {
            return Ok(None);
        }
        let from_rows = UInt64Array::from(from_rows);
        let from_elements = UInt64Array::from(from_elements);
        let columns: Result<Vec<ArrayRef>, ArrowError> = (0..self.rows.num_columns())
            .map(|at| match at == self.at {
                true => take(self.lists.values(), &from_elements, None),
                false => take(self.rows.column(at), &from_rows, None),
            })
            .collect();
        columns
            .and_then(|columns| RecordBatch::try_new(SchemaRef::clone(schema), columns))
            .map(Some)
            .map_err(|error| Error::bug("explode", error.to_string()))
    }

    /// Which rows and which elements make the next batch: as many as fit, but at least one.
    fn pick(&mut self) -> (Vec<u64>, Vec<u64>) {
        let (mut from_rows, mut from_elements, mut n_bytes) = (Vec::new(), Vec::new(), 0_u64);
        while self.next.0 < self.lists.len() {
            let (row, done) = self.next;
            let elements = range_of(&self.lists, row);
            for element in elements.skip(done) {
                let weight = self.weights.as_ref().map_or(0, |weights| weights.of_row(row, element));
                n_bytes = n_bytes.saturating_add(weight);
                let is_full = from_rows.len() >= self.max_rows || n_bytes > self.max_bytes;
                if is_full && !from_rows.is_empty() {
                    return (from_rows, from_elements);
                }
                from_rows.push(row as u64);
                from_elements.push(element as u64);
                self.next.1 += 1;
            }
            self.next = (row + 1, 0);
        }
        (from_rows, from_elements)
    }
}

/// The places of a row's elements among all; none if its list is null.
fn range_of(lists: &ListArray, row: usize) -> Range<usize> {
    let offsets = lists.value_offsets();
    match (usize::try_from(offsets[row]), usize::try_from(offsets[row + 1])) {
        (Ok(start), Ok(end)) if lists.is_valid(row) => start..end,
        _ => 0..0,
    }
}

/// What a row that comes out weighs.
struct Weights {
    /// One copy of each row's other columns.
    others: Vec<u64>,
    elements: Vec<u64>,
}

impl Weights {
    /// Not worth finding out when the longest list cannot make too much of all rows together.
    fn of(rows: &RecordBatch, at: usize, lists: &ListArray, max_bytes: u64) -> Result<Option<Self>> {
        let all: ByteCount = rows.columns().iter().map(|column| array_bytes(column)).sum();
        let longest = (0..lists.len()).map(|row| range_of(lists, row).len()).max().unwrap_or(0);
        if all.get().saturating_mul(longest as u64) <= max_bytes {
            return Ok(None);
        }
        let others: Vec<usize> = (0..rows.num_columns()).filter(|other| *other != at).collect();
        let others = rows.project(&others).map_err(|error| Error::bug("explode", error.to_string()))?;
        Ok(Some(Self { others: row_bytes(&others), elements: element_bytes(lists.values()) }))
    }

    fn of_row(&self, row: usize, element: usize) -> u64 {
        let of = |weights: &[u64], at: usize| weights.get(at).copied().unwrap_or_default();
        of(&self.others, row).saturating_add(of(&self.elements, element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, batch_of, int_column, names, problems, strings_column};
    use aqueduct_core::Positions;
    use arrow::array::{FixedSizeListArray, Int64Array, LargeListArray, StringArray};
    use arrow::buffer::{NullBuffer, OffsetBuffer};
    use arrow::datatypes::{Field, Int64Type, Schema};
    use serde_json::json;

    #[tokio::test]
    async fn each_element_is_a_row_and_the_rest_is_repeated() {
        let rows = batch_of(
            r#"[{"id": 1, "tags": ["a", "b"], "z": 10}, {"id": 2, "tags": [], "z": 20},
                {"id": 3, "tags": null, "z": 30}, {"id": 4, "tags": [null], "z": 40}]"#,
        );
        let bench = Bench::new();
        let out = bench.run("explode", json!("tags"), vec![rows]).await.unwrap();
        assert_eq!(names(&out), ["id", "tags", "z"]);
        assert_eq!(int_column(&out, "id"), [1, 1, 4]);
        assert_eq!(strings_column(&out, "tags"), ["a", "b", ""]);
        assert_eq!(int_column(&out, "z"), [10, 10, 40]);
        assert_eq!(bench.metrics().rows_filtered.get(), 2);
    }

    #[tokio::test]
    async fn every_kind_of_list_and_slices_of_lists() {
        let lists = || [Some(vec![Some(1_i64), Some(2)]), None, Some(vec![Some(3), Some(4)])];
        let item = Arc::new(Field::new_list_field(DataType::Int64, true));
        let kinds: [ArrayRef; 3] = [
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists())),
            Arc::new(LargeListArray::from_iter_primitive::<Int64Type, _, _>(lists())),
            Arc::new(FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(lists(), 2)),
        ];
        for list in kinds {
            let rows = RecordBatch::try_from_iter([("l", list)]).unwrap();
            let out = Bench::new().run("explode", json!("l"), vec![rows.slice(1, 2)]).await.unwrap();
            assert_eq!(int_column(&out, "l"), [3, 4]);
        }
        // A null list may still cover elements.
        let offsets = OffsetBuffer::new(vec![0, 2, 3].into());
        let values = Arc::new(Int64Array::from(vec![7, 8, 9]));
        let nulls = NullBuffer::from(vec![false, true]);
        let hidden = ListArray::new(item, offsets, values, Some(nulls));
        let rows = RecordBatch::try_from_iter([("l", Arc::new(hidden) as ArrayRef)]).unwrap();
        assert_eq!(int_column(&Bench::new().run("explode", json!("l"), vec![rows]).await.unwrap(), "l"), [9]);
    }

    // MEM-2
    #[tokio::test]
    async fn one_wide_row_with_a_long_list_comes_out_in_batches_that_fit() {
        let wide = "x".repeat(100_000);
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some((0..2000).map(Some))]);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![wide]));
        let rows = RecordBatch::try_from_iter([("text", texts), ("n", Arc::new(list) as ArrayRef)]).unwrap();
        let bench = Bench::new();
        let mut n_rows = 0;
        let mut stream = bench.stream("explode", json!("n"), vec![rows]);
        let mut positions = Positions::default();
        while let Some(batch) = stream.next().await {
            let (records, reservation, later, _) = batch.unwrap().into_parts();
            assert!(aqueduct_core::retained_bytes(&records) <= bench.cx.batch_bytes());
            assert!(records.num_rows() == 0 || positions.is_empty(), "positions come with the last rows");
            n_rows += records.num_rows();
            positions.merge(later);
            drop(reservation);
        }
        assert_eq!(n_rows, 2000); // 200 MB in all, through a budget of 32 MiB
        assert!(positions.is_done("split-0"));
    }

    // MEM-2
    #[tokio::test]
    async fn wide_elements_at_the_end_of_a_long_list_come_out_in_batches_that_fit() {
        let element = |n: usize| "x".repeat(if n < 1000 { 1 } else { 400_000 });
        let elements = StringArray::from_iter_values((0..1020).map(element));
        let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
        let list = ListArray::new(item, OffsetBuffer::from_lengths([1020]), Arc::new(elements), None);
        let rows = RecordBatch::try_from_iter([("texts", Arc::new(list) as ArrayRef)]).unwrap();
        let bench = Bench::new();
        let mut n_rows = 0;
        let mut stream = bench.stream("explode", json!("texts"), vec![rows]);
        while let Some(batch) = stream.next().await {
            let (records, _reservation, _, _) = batch.unwrap().into_parts();
            assert!(aqueduct_core::retained_bytes(&records) <= bench.cx.batch_bytes());
            n_rows += records.num_rows();
        }
        assert_eq!(n_rows, 1020);
    }

    #[test]
    fn only_lists_explode() {
        let rows = batch_of(r#"[{"a": 1}]"#);
        assert!(problems("explode", json!("a"), &rows)[0].message.contains("only a list"));
        let schema = Schema::new(vec![Field::new("tags", DataType::Utf8, true)]);
        let rows = RecordBatch::new_empty(Arc::new(schema));
        assert!(problems("explode", json!("tag"), &rows)[0].message.contains("nearest `tags`"));
    }
}
