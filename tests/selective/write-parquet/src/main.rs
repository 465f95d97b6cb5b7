//! Writes a million made-up rows to a folder, `write-parquet FOLDER`; without one, to a folder that it removes.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_sinks::primitives::{Budget, ByteCount};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::stream;
use serde_json::json;
use write_parquet::write;

const N_BATCHES: i64 = 100;
const ROWS_PER_BATCH: i64 = 10_000;

fn rows(batch: i64) -> RecordBatch {
    let first = batch * ROWS_PER_BATCH;
    let ids = Int64Array::from_iter_values(first..first + ROWS_PER_BATCH);
    RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef)]).expect("one column is as long as itself")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let given = std::env::args().nth(1).map(PathBuf::from);
    let folder =
        given.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("rows-{}", std::process::id())));
    let memory = Budget::new("memory", ByteCount::mb(32));
    let batches = stream::iter((0..N_BATCHES).map(rows));
    let parts = write(batches, rows(0).schema(), json!({}), &folder, &memory).await?;
    let (n_rows, n_bytes) =
        parts.iter().fold((0, 0), |(rows, bytes), part| (rows + part.rows, bytes + part.n_bytes));
    writeln!(std::io::stdout(), "{n_rows} rows, {n_bytes} bytes, {} files", parts.len())?;
    if given.is_none() {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(())
}
