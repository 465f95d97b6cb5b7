//! The settings under which plans are made and run.

use std::sync::Arc;

use aqueduct_primitives::ByteCount;
use datafusion_common::Result;
use datafusion_common::config::{ConfigOptions, SpillCompression};
use datafusion_execution::TaskContext;
use datafusion_execution::config::SessionConfig;
use datafusion_execution::runtime_env::RuntimeEnvBuilder;

use super::pool::LeasePool;
use super::spill_files::disk_manager;
use crate::SpillDir;

/// Of a lease, a batch is one part in so many.
const BATCH_PART: u64 = 128;
/// Fewer rows in a batch cost more than they save.
const MIN_BATCH_ROWS: u64 = 16;

/// What is the same for every plan: one partition, nothing that plans around memory it does not have, times in UTC.
pub(crate) fn config() -> SessionConfig {
    let mut options = ConfigOptions::default();
    options.execution.target_partitions = 1;
    options.execution.planning_concurrency = 1;
    options.execution.collect_statistics = false;
    options.execution.time_zone = Some("UTC".to_owned());
    options.execution.spill_compression = SpillCompression::Lz4Frame;
    options.sql_parser.map_string_types_to_utf8view = false;
    let optimizer = &mut options.optimizer;
    optimizer.enable_round_robin_repartition = false;
    optimizer.repartition_aggregations = false;
    optimizer.repartition_joins = false;
    optimizer.repartition_windows = false;
    optimizer.repartition_sorts = false;
    optimizer.repartition_file_scans = false;
    // What a join or a limit learns while it runs is of use to scans of files, and there are none.
    optimizer.enable_dynamic_filter_pushdown = false;
    optimizer.enable_join_dynamic_filter_pushdown = false;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    optimizer.enable_sort_pushdown = false;
    SessionConfig::from(options)
}

/// How a plan is run under a lease, over rows of about so many bytes.
pub(super) fn task(
    pool: Arc<LeasePool>,
    dir: SpillDir,
    lease: ByteCount,
    row_bytes: u64,
    most_rows: usize,
) -> Result<TaskContext> {
    let lease_part = |part| lease.get() / part;
    let n_rows = (lease_part(BATCH_PART) / row_bytes.max(1)).max(MIN_BATCH_ROWS);
    let mut config = config().with_batch_size(usize::try_from(n_rows).unwrap_or(most_rows).min(most_rows));
    let options = config.options_mut();
    options.execution.sort_spill_reservation_bytes = as_len(lease_part(8));
    options.execution.sort_in_place_threshold_bytes = as_len(lease_part(32));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .with_disk_manager_builder(disk_manager(dir))
        .build_arc()?;
    Ok(TaskContext::default().with_session_config(config).with_runtime(runtime))
}

fn as_len(n_bytes: u64) -> usize {
    usize::try_from(n_bytes).unwrap_or(usize::MAX)
}
