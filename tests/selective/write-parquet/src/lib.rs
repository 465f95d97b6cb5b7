//! A Parquet dataset from a stream of record batches, through a fixed amount of memory.

use std::path::{Path, PathBuf};

use aqueduct_sinks::core::{Context, Error, ErrorKind, Part, Problem, Result, Sink, SinkFactory};
use aqueduct_sinks::parquet;
use aqueduct_sinks::primitives::Budget;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{Stream, StreamExt};
use serde_json::Value;

/// Where parts lie until all of them are complete, within the dataset's folder.
const STAGED: &str = "_staged";

/// Writes all rows to a folder that is new, with the options of the sink `parquet`: `{"partition_by": ["key"]}`.
/// The parts appear in it when the last row is on disk; if anything fails before, none does.
///
/// # Errors
/// The options do not fit the columns, or the rows cannot be written.
pub async fn write(
    rows: impl Stream<Item = RecordBatch>,
    schema: SchemaRef,
    options: Value,
    folder: &Path,
    memory: &Budget,
) -> Result<Vec<Part>> {
    let staged = folder.join(STAGED);
    let made = std::fs::create_dir_all(&staged);
    made.map_err(|error| Error::io("make folder", staged.display(), error))?;
    let cx = Context::standalone_with(memory, |_| {}, |step| step.stage_dir = Some(staged.clone()))?;
    let mut sink = open(with_path(options, folder), schema, &cx).await?;
    match write_all(&mut *sink, rows, &cx).await {
        Ok(parts) => publish(parts, folder, &staged),
        Err(error) => {
            sink.abort().await;
            Err(error)
        }
    }
}

async fn open(options: Value, schema: SchemaRef, cx: &Context) -> Result<Box<dyn Sink>> {
    let config = parquet::FACTORY.configure(options).map_err(wrong_options)?;
    let unfit = config.fit(&schema);
    if !unfit.is_empty() {
        return Err(wrong_options(unfit));
    }
    config.open(schema, cx).await
}

/// Each batch waits for memory before it is handed over.
async fn write_all(
    sink: &mut dyn Sink,
    rows: impl Stream<Item = RecordBatch>,
    cx: &Context,
) -> Result<Vec<Part>> {
    let mut rows = std::pin::pin!(rows);
    while let Some(records) = rows.next().await {
        sink.write(cx.admit(records).await?).await?;
    }
    sink.seal().await
}

/// Moves the sealed parts to where they are seen, one rename each. The crate `aqueduct-commit` makes all of them
/// public in one act.
fn publish(parts: Vec<Part>, folder: &Path, staged: &Path) -> Result<Vec<Part>> {
    let moved = parts.iter().try_for_each(|part| {
        let to: PathBuf = folder.join(&part.name);
        std::fs::create_dir_all(to.parent().unwrap_or(folder))?;
        std::fs::rename(&part.staged, to)
    });
    let cleared = moved.and_then(|()| std::fs::remove_dir_all(staged));
    cleared.map_err(|error| Error::io("publish", folder.display(), error))?;
    Ok(parts)
}

fn with_path(mut options: Value, folder: &Path) -> Value {
    options["path"] = folder.display().to_string().into();
    options
}

fn wrong_options(problems: Vec<Problem>) -> Error {
    let told: Vec<_> =
        problems.iter().map(|problem| format!("{}: {}", problem.pointer, problem.message)).collect();
    Error::new(ErrorKind::Config, "read options", told.join("; "))
}
