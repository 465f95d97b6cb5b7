//! Files of any size as a stream of record batches, through a fixed amount of memory.

use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_sources::core::{
    BatchStream, Context, Error, ErrorKind, Positions, Problem, Result, SourceFactory,
};
use aqueduct_sources::files;
use aqueduct_sources::net::{Fetcher, HttpOptions, StorageOptions};
use aqueduct_sources::primitives::Budget;
use arrow::datatypes::SchemaRef;
use serde_json::Value;

/// Rows, and what they come from.
pub struct Rows {
    /// The columns of every batch.
    pub schema: SchemaRef,
    /// The batches. Each holds its memory until it is dropped; when all is held, reading waits.
    pub batches: BatchStream,
    /// What they are read in: its `tasks()` are joined, its `share()` and `flow()` are free, at the end.
    pub cx: Context,
}

/// Opens files with the options of the source `files`: `{"paths": ["data/*.csv"], "window": 4}`.
/// Relative paths start from `base_dir`.
///
/// # Errors
/// The options are wrong, no file is there, or the first one cannot be read.
pub async fn read(options: Value, base_dir: PathBuf, memory: &Budget) -> Result<Rows> {
    let cx = context(base_dir, memory)?;
    let config = files::FACTORY.configure(options).map_err(wrong_options)?;
    let source = config.open(&cx).await?;
    let schema = source.schema();
    Ok(Rows { schema, batches: source.run(cx.clone(), Positions::default()), cx })
}

/// A source that reads files finds its client in the context; whoever makes the context puts one in.
fn context(base_dir: PathBuf, memory: &Budget) -> Result<Context> {
    let mut fetcher = None;
    let cx = Context::standalone_with(
        memory,
        |run| {
            run.base_dir = base_dir;
            let made = Fetcher::new(HttpOptions::default(), StorageOptions::default(), run.tasks.clone());
            fetcher = Some(made.map(|made| run.services.insert(Arc::new(made))));
        },
        |_| {},
    )?;
    fetcher.transpose()?;
    Ok(cx)
}

fn wrong_options(problems: Vec<Problem>) -> Error {
    let told: Vec<_> =
        problems.iter().map(|problem| format!("{}: {}", problem.pointer, problem.message)).collect();
    Error::new(ErrorKind::Config, "read options", told.join("; "))
}
