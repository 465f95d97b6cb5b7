//! The columns of local files, for `check`, which touches no network.

use std::sync::Arc;

use aqueduct_core::{Planning, Result, StepMetrics};
use aqueduct_formats::{
    DecodedLimits, Inference, ReadOptions, look as look_at_body, look_at_file, needs_random_access,
};
use aqueduct_net::{Fetcher, HttpOptions, Location, StorageOptions, Trust};
use aqueduct_primitives::Tasks;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;

use super::{Config, Paths};
use crate::file_set::sample::looks_at_several;

/// Where columns are looked for in several files, so many; if they are not enough, the columns are unknown before the run.
const MAX_FILES: usize = 100;

/// The columns of the first file, if the first name is local; of STAC those of the first files. What is wrong with them is
/// said when they are read.
pub(super) fn columns_of_local_file(config: &Config, planning: &Planning) -> Option<SchemaRef> {
    if matches!(config.paths, Some(Paths::Listed(_))) {
        return None;
    }
    let pattern = config.patterns().first()?;
    if Location::parse(pattern, &planning.base_dir).ok()?.is_remote() {
        return None;
    }
    // A thread of its own: the caller may be inside a runtime, where another one cannot be waited for.
    std::thread::scope(|scope| {
        let look = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(look(config, pattern, planning)).ok()?
        });
        look.join().ok()?
    })
}

async fn look(config: &Config, pattern: &str, planning: &Planning) -> Result<Option<SchemaRef>> {
    let tasks = Tasks::new(1);
    let fetcher = Fetcher::new(HttpOptions::default(), StorageOptions::default(), tasks.clone())?;
    let found = match looks_at_several(&config.read) {
        true => at_several(config, &fetcher, planning, &tasks).await?,
        false => match fetcher.list(pattern, &planning.base_dir).next().await {
            Some(listed) => Some(at_one(&config.read, &fetcher, listed?.location, &tasks).await?),
            None => None,
        },
    };
    let columns = found.map(|found| found.schema()).transpose()?;
    Ok(columns.filter(|columns| !columns.fields().is_empty()))
}

/// What the first files look like together; nothing, where more are to be looked at, or some that are far.
async fn at_several(
    config: &Config,
    fetcher: &Fetcher,
    planning: &Planning,
    tasks: &Tasks,
) -> Result<Option<Inference>> {
    let mut found = Inference::default();
    let mut n_files = 0;
    for pattern in config.patterns() {
        if Location::parse(pattern, &planning.base_dir)?.is_remote() {
            return Ok(None);
        }
        let mut listed = fetcher.list(pattern, &planning.base_dir);
        while let Some(file) = listed.next().await {
            let Some(left) = found.rows_left(config.read.infer_rows) else { return Ok(Some(found)) };
            n_files += 1;
            if n_files > MAX_FILES {
                return Ok(None);
            }
            let options = ReadOptions { infer_rows: left, ..config.read.clone() };
            found.merge(at_one(&options, fetcher, file?.location, tasks).await?);
        }
    }
    let is_all = config.list.is_none();
    Ok(is_all.then_some(found))
}

async fn at_one(options: &ReadOptions, fetcher: &Fetcher, at: Location, tasks: &Tasks) -> Result<Inference> {
    let (metrics, name, limits) =
        (Arc::new(StepMetrics::default()), at.to_string(), DecodedLimits::default());
    if needs_random_access(&name, options) {
        let file = fetcher.random_access(&at, Trust::Flow, &metrics).await?.file;
        return look_at_file(file, &name, options, limits, tasks).await;
    }
    let body = fetcher.get(&at, Trust::Flow, &metrics).await?.body;
    look_at_body(body, &name, options, limits, tasks).await
}
