//! What the binary takes when it has nothing to do.

use anyhow::{Result, ensure};

use super::{Bench, Promise, megabytes};
use crate::measure::{measure, median};

/// The most that may be resident before any data moves: it is paid from what the process may take beside
/// `memory`.
const MAX_IDLE_BYTES: u64 = 32 * 1024 * 1024;

/// A flow with all its machinery and a single row.
const FLOW: &str = "name: bench-idle\nmemory: 64MB\n\
    source: { generate: { rows: 1, columns: { id: sequence } } }\nsink: { discard: {} }\n";

/// Runs it.
///
/// # Errors
/// A run fails.
pub(super) fn run(bench: &Bench) -> Result<Vec<Promise>> {
    let mut peaks = Vec::new();
    for _ in 0..bench.n_runs {
        let (mut command, _) = bench.flow("idle-rss", FLOW)?;
        let measured = measure(&mut command)?;
        ensure!(measured.status.success(), "{}: {}", measured.status, measured.last_line());
        peaks.push(measured.peak_rss_bytes);
    }
    let peak = median(peaks).unwrap_or(u64::MAX);
    let says = format!("idle RSS at most 32 MiB: {} of {} MB", megabytes(peak), megabytes(MAX_IDLE_BYTES));
    Ok(vec![Promise::must(says, peak <= MAX_IDLE_BYTES)])
}
