//! 1 GB of nested events from NDJSON to Parquet with zstd, beside DuckDB at its 256 MB limit.

use std::path::Path;

use anyhow::{Result, ensure};

use super::contest::{Contestant, clear, compete, named, times, times_rss};
use super::{Bench, Events, Promise, peers};
use crate::process::command;

/// The input.
const INPUT_BYTES: u64 = 1_000_000_000;

/// What is given to ours: a quarter of DuckDB's limit.
const MEMORY: &str = "64MB";

const DUCKDB: &str = include_str!("duckdb_ndjson.py");

/// Runs it.
///
/// # Errors
/// A side cannot be started, or ours comes out wrong.
pub(super) fn run(bench: &Bench) -> Result<Vec<Promise>> {
    let events = Events::of_size(&bench.cache, INPUT_BYTES / bench.divisor)?;
    let python = peers::python(&bench.cache)?;
    let output = bench.output("events.parquet");
    let check = || right_rows(&python, &output, events.n_rows);
    let ours = Contestant {
        name: "aqueduct",
        prepare: Box::new(|| {
            clear(&output)?;
            Ok(bench.flow("ndjson-parquet", &flow(&events.path, &output))?.0)
        }),
        outcome: Box::new(check),
    };
    let duckdb = Contestant {
        name: "duckdb at 256 MB",
        prepare: Box::new(|| {
            clear(&output)?;
            let mut run = command(&python, bench.scratch.path());
            run.args(["-c", DUCKDB]).args([&events.path, &output]).arg(bench.output("spill"));
            Ok(run)
        }),
        outcome: Box::new(check),
    };
    let figures = compete(&[ours, duckdb], bench.n_runs)?;
    let (Some(ours), Some(duckdb)) = (figures.first(), named(&figures, "duckdb at 256 MB")) else {
        return Ok(vec![Promise::must("there is no figure of DuckDB to compare with", false)]);
    };
    let (wall, rss) = (times(ours.wall, duckdb.wall), times_rss(ours, duckdb));
    Ok(vec![
        Promise::must(format!("at most 1.25 times DuckDB's time: {wall:.2}"), wall <= 1.25),
        Promise::must(format!("at most half of DuckDB's memory: {rss:.2}"), rss <= 0.5),
        Promise::goal(format!("quicker than DuckDB: {wall:.2}"), wall < 1.0),
    ])
}

fn flow(source: &Path, target: &Path) -> String {
    format!(
        "name: bench-ndjson-parquet\nmemory: {MEMORY}\n\
         source: {{ files: {{ paths: [\"{}\"], format: ndjson }} }}\n\
         sink: {{ parquet: {{ path: \"{}\", compression: zstd }} }}\n",
        source.display(),
        target.display()
    )
}

/// `seq` counts the rows from 0, so that its sum is known.
fn right_rows(python: &Path, parquet: &Path, n_rows: u64) -> Result<String> {
    let found = peers::rows_and_sum(python, parquet)?;
    let expected = (n_rows, n_rows * n_rows.saturating_sub(1) / 2);
    ensure!(found == expected, "rows and sum of `seq` are {found:?}, not {expected:?}");
    let n_bytes = parquet.metadata()?.len();
    Ok(format!("{n_rows} rows, {} MB", super::megabytes(n_bytes)))
}
