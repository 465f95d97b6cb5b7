//! Runs a stage over some inputs in a share of memory, to its end.

use std::sync::Arc;

use aqueduct_core::{Batch, Context, Inputs, Problem, Result, Scratch, retained_bytes};
use aqueduct_primitives::{Budget, ByteCount};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) rows: RecordBatch,
    pub(crate) spilled_bytes: u64,
    /// Merges of runs to runs.
    pub(crate) n_merges: u64,
    pub(crate) largest_batch_bytes: u64,
}

/// Runs a stage. Checks what holds for all: batches have the columns it said, nothing is left in memory or on disk.
pub(crate) fn run(
    stage: &str,
    options: Value,
    inputs: Vec<Vec<RecordBatch>>,
    share: ByteCount,
) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let flow: ByteCount = inputs.iter().flatten().map(retained_bytes).sum();
    let unused = Budget::new("unused", ByteCount::ZERO);
    let cx = Context::standalone_with(
        &unused,
        |run| {
            run.scratch = Scratch::new(folder.path().to_owned(), ByteCount::mib(512));
            run.flow = Budget::new("flow", flow);
            (run.batch_rows, run.batch_bytes) = (1000, ByteCount::kib(256));
        },
        |step| step.share = Budget::new("share", share),
    )?;
    let outcome = runtime.block_on(async {
        let schemas: Vec<SchemaRef> = inputs.iter().map(|input| input[0].schema()).collect();
        let config = factory(stage).configure(options).unwrap();
        let stage = config.bind(&schemas).unwrap();
        let schema = stage.schema();
        let input = |batches: Vec<RecordBatch>| {
            let flow = cx.flow().clone();
            let admitted = batches.into_iter().map(move |records| {
                let reservation = flow.try_reserve(retained_bytes(&records))?;
                Ok(Batch::new(records, reservation))
            });
            futures::stream::iter(admitted).boxed()
        };
        let inputs: Inputs = inputs.into_iter().map(input).collect();
        let mut stream = stage.run(inputs, cx.clone());
        let (mut rows, mut largest_batch_bytes) = (Vec::new(), 0);
        while let Some(batch) = stream.try_next().await? {
            assert_eq!(batch.schema(), schema);
            largest_batch_bytes = largest_batch_bytes.max(batch.reserved().get());
            rows.push(batch.records().clone());
        }
        drop(stream);
        cx.tasks().join().await;
        for budget in [cx.flow(), cx.share()] {
            assert_eq!(budget.free(), budget.total(), "MEM-1: {}", budget.name());
        }
        let rows = concat_batches(&schema, &rows).unwrap();
        let (spilled_bytes, n_merges) = (cx.metrics().spilled_bytes.get(), cx.metrics().spill_merges.get());
        Ok(Outcome { rows, spilled_bytes, n_merges, largest_batch_bytes })
    });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left on disk");
    outcome
}

/// What is wrong with a stage over inputs of these columns.
pub(crate) fn problems(stage: &str, options: Value, inputs: &[SchemaRef]) -> Vec<Problem> {
    match factory(stage).configure(options) {
        Err(problems) => problems,
        Ok(config) => config.bind(inputs).err().expect("something is wrong"),
    }
}

fn factory(name: &str) -> &'static dyn aqueduct_core::StageFactory {
    *aqueduct_spill::ALL.iter().find(|factory| factory.info().name == name).unwrap()
}

/// Rows in batches of so many, each with memory of its own; among them and at the end one without rows.
pub(crate) fn batches(rows: &RecordBatch, n_rows: usize) -> Vec<RecordBatch> {
    let piece = |rows_of: std::ops::Range<usize>| aqueduct_core::rows::copied(rows, rows_of).unwrap();
    let starts = (0..rows.num_rows()).step_by(n_rows);
    let mut batches: Vec<_> = starts.map(|from| piece(from..(from + n_rows).min(rows.num_rows()))).collect();
    batches.insert(batches.len() / 2, piece(0..0));
    batches.push(piece(0..0));
    batches
}

/// Rows as texts, columns apart by `|`, nulls as `-`.
pub(crate) fn texts(records: &RecordBatch) -> Vec<String> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let options = FormatOptions::new().with_null("-");
    let column = |column: &Arc<dyn arrow::array::Array>| {
        let texts = ArrayFormatter::try_new(column, &options).unwrap();
        (0..column.len()).map(|row| texts.value(row).to_string()).collect::<Vec<_>>()
    };
    let columns: Vec<_> = records.columns().iter().map(column).collect();
    (0..records.num_rows())
        .map(|row| columns.iter().map(|column| column[row].as_str()).collect::<Vec<_>>().join("|"))
        .collect()
}

/// [`texts`] in an order of their own.
pub(crate) fn sorted_texts(records: &RecordBatch) -> Vec<String> {
    let mut texts = texts(records);
    texts.sort_unstable();
    texts
}
