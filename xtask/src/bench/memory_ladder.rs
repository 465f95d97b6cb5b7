//! Peak memory at 64 MB over 1, 10 and 100 times the input.

use std::path::Path;

use anyhow::{Result, ensure};

use super::contest::clear;
use super::{Bench, Events, Promise, Report, megabytes, ratio};
use crate::measure::measure;
use crate::text::{self, say};

/// The smallest input; the others are 10 and 100 times as large. It is several times `memory`, so that every buffer of
/// the smallest is as full as it will ever be, and what grows after it grows with the input.
const SMALLEST_BYTES: u64 = 100_000_000;

/// `memory:` of the flow, in bytes and as a flow says it.
const MEMORY_BYTES: u64 = 64_000_000;
const MEMORY: &str = "64MB";

/// What the process may take beside `memory`, for all that is not data.
pub(crate) const BESIDE_BYTES: u64 = 64 * 1024 * 1024;

/// One step of the ladder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// The size of the input.
    pub(crate) input_bytes: u64,
    /// The most memory that was resident, by the kernel.
    pub(crate) peak_rss_bytes: u64,
    /// The same, by the run's report.
    pub(crate) reported_bytes: u64,
}

/// Runs it.
///
/// # Errors
/// A run fails or loses rows.
pub(super) fn run(bench: &Bench) -> Result<Vec<Promise>> {
    let ladder = climb(bench)?;
    say(format_args!("{}\n", table(&ladder)));
    Ok(promises(&ladder))
}

/// The three steps.
///
/// # Errors
/// A run fails or loses rows.
pub(crate) fn climb(bench: &Bench) -> Result<[Step; 3]> {
    let step = |times: u64| one(bench, SMALLEST_BYTES * times / bench.divisor);
    Ok([step(1)?, step(10)?, step(100)?])
}

fn one(bench: &Bench, input_bytes: u64) -> Result<Step> {
    let events = Events::of_size(&bench.cache, input_bytes)?;
    let output = bench.output("ladder.parquet");
    clear(&output)?;
    let (mut command, report) = bench.flow("memory-ladder", &flow(&events.path, &output))?;
    let measured = measure(&mut command)?;
    ensure!(measured.status.success(), "{}: {}", measured.status, measured.last_line());
    let report = Report::read(&report)?;
    ensure!(report.rows_out == events.n_rows, "{} rows came out of {}", report.rows_out, events.n_rows);
    clear(&output)?;
    let (peak_rss_bytes, reported_bytes) = (measured.peak_rss_bytes, report.rss_peak_bytes);
    Ok(Step { input_bytes, peak_rss_bytes, reported_bytes })
}

fn flow(source: &Path, target: &Path) -> String {
    format!(
        "name: bench-memory-ladder\nmemory: {MEMORY}\n\
         source: {{ files: {{ paths: [\"{}\"], format: ndjson }} }}\n\
         sink: {{ parquet: {{ path: \"{}\" }} }}\n",
        source.display(),
        target.display()
    )
}

/// What a ladder must show.
pub(crate) fn promises(ladder: &[Step; 3]) -> Vec<Promise> {
    let [_, middle, last] = ladder;
    let limit = MEMORY_BYTES + BESIDE_BYTES;
    let peak = ladder.iter().map(|step| step.peak_rss_bytes).max().unwrap_or(0);
    let growth = ratio(last.peak_rss_bytes, middle.peak_rss_bytes);
    let exact = |step: &Step| (0.99..=1.01).contains(&ratio(step.reported_bytes, step.peak_rss_bytes));
    vec![
        Promise::must(
            format!("peak RSS at most memory + 64 MiB: {} of {} MB", megabytes(peak), megabytes(limit)),
            peak <= limit,
        ),
        Promise::must(format!("100 times within 5 % of 10 times: {growth:.3}"), growth <= 1.05),
        Promise::must("the report's peak within 1 % of the kernel's", ladder.iter().all(exact)),
    ]
}

fn table(ladder: &[Step]) -> String {
    let head = ["input MB", "peak RSS MB", "reported MB"].map(str::to_owned).to_vec();
    let row = |step: &Step| {
        vec![megabytes(step.input_bytes), megabytes(step.peak_rss_bytes), megabytes(step.reported_bytes)]
    };
    text::table(&std::iter::once(head).chain(ladder.iter().map(row)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(peaks: [u64; 3], reported: u64) -> Vec<bool> {
        let steps =
            peaks.map(|peak_rss_bytes| Step { input_bytes: 1, peak_rss_bytes, reported_bytes: reported });
        promises(&steps).iter().map(|promise| promise.holds).collect()
    }

    #[test]
    fn each_promise_can_be_missed() {
        assert_eq!(holds([100_000_000; 3], 100_500_000), [true, true, true]);
        assert_eq!(holds([140_000_000; 3], 140_000_000), [false, true, true]);
        assert_eq!(holds([100_000_000, 100_000_000, 106_000_000], 101_000_000), [true, false, false]);
    }
}
