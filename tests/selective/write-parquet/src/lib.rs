//! A Parquet dataset from a stream of record batches, through a fixed amount of memory.

use std::path::Path;

use aqueduct_sinks::core::{Context, Error, ErrorKind, Fs, Part, Problem, Result, Sink, SinkFactory, StdFs};
use aqueduct_sinks::parquet;
use aqueduct_sinks::primitives::{Budget, Tasks};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{Stream, StreamExt};
use serde_json::Value;
use tempfile::TempDir;

/// Where parts lie until all of them are complete, within a folder beside the dataset.
const STAGED: &str = "staged";

/// Where they then stand as they will in the dataset, within the same folder.
const COMPLETE: &str = "complete";

/// Writes all rows to a folder that is new, with the options of the sink `parquet`: `{"partition_by": ["key"]}`.
/// The folder appears when the last row is on disk; if anything fails before, there is none, and nothing beside it.
///
/// # Errors
/// The folder exists, the options do not fit the columns, or the rows cannot be written.
pub async fn write(
    rows: impl Stream<Item = RecordBatch>,
    schema: SchemaRef,
    options: Value,
    folder: &Path,
    memory: &Budget,
) -> Result<Vec<Part>> {
    let tasks = Tasks::default();
    let to = folder.to_path_buf();
    let beside = tasks.block(move || folder_beside(&to)).await??;
    let cx = Context::standalone_with(
        memory,
        |run| run.tasks = tasks.clone(),
        |step| step.stage_dir = Some(beside.path().join(STAGED)),
    )?;
    let written = stage(rows, schema, with_path(options, folder), &cx).await;
    let to = folder.to_path_buf();
    tasks.block(move || publish(written?, &beside, &to)).await?
}

/// A folder on the same disk, which is removed when it is dropped.
fn folder_beside(folder: &Path) -> Result<TempDir> {
    let failed = |error| Error::io("make folder beside", folder.display(), error);
    if folder.try_exists().map_err(failed)? {
        return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let beside = tempfile::tempdir_in(parent.unwrap_or(Path::new("."))).map_err(failed)?;
    std::fs::create_dir(beside.path().join(STAGED)).map_err(failed)?;
    Ok(beside)
}

/// All rows in parts that nobody sees yet.
async fn stage(
    rows: impl Stream<Item = RecordBatch>,
    schema: SchemaRef,
    options: Value,
    cx: &Context,
) -> Result<Vec<Part>> {
    let mut sink = open(options, schema, cx).await?;
    match write_all(&mut *sink, rows, cx).await {
        Ok(parts) => Ok(parts),
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

/// Puts the sealed parts in their places, and makes all of them the dataset by one rename, which replaces nothing. The
/// crate `aqueduct-commit` does so for outputs that are there already.
fn publish(parts: Vec<Part>, beside: &TempDir, folder: &Path) -> Result<Vec<Part>> {
    let complete = beside.path().join(COMPLETE);
    let placed = std::fs::create_dir(&complete).and_then(|()| {
        parts.iter().try_for_each(|part| {
            let to = complete.join(&part.name);
            std::fs::create_dir_all(to.parent().unwrap_or(&complete))?;
            std::fs::rename(&part.staged, to)
        })
    });
    let published = placed.and_then(|()| StdFs.rename_no_replace(&complete, folder));
    published.map_err(|error| Error::io("publish", folder.display(), error))?;
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
