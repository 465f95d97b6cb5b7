//! The columns of local files, for `check`, which touches no network.

use std::sync::Arc;

use aqueduct_core::{Planning, Result, StepMetrics};
use aqueduct_formats::{DecodedLimits, infer, infer_file, needs_random_access};
use aqueduct_net::{Fetcher, HttpOptions, Location, StorageOptions, Trust};
use aqueduct_primitives::Tasks;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;

use super::{Config, Paths};

/// The columns of the first file, if the first name is local. What is wrong with it is said when it is read.
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
    let Some(listed) = fetcher.list(pattern, &planning.base_dir).next().await else { return Ok(None) };
    let at = listed?.location;
    let (metrics, name, limits) =
        (Arc::new(StepMetrics::default()), at.to_string(), DecodedLimits::default());
    let schema = if needs_random_access(&name, &config.read) {
        let file = fetcher.random_access(&at, Trust::Flow, &metrics).await?.file;
        infer_file(file, &name, &config.read, limits, &tasks).await?
    } else {
        let body = fetcher.get(&at, Trust::Flow, &metrics).await?.body;
        infer(body, &name, &config.read, limits, &tasks).await?
    };
    Ok((!schema.fields().is_empty()).then_some(schema))
}
