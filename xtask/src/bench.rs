//! `cargo xtask bench NAME`: aqueduct and its peers over the same input, in turn, and a table. A *must* that
//! does not hold fails; a *goal* is told beside it.

mod contest;
mod download;
mod events;
pub(crate) mod file_server;
mod idle_rss;
mod input;
pub(crate) mod memory_ladder;
mod ndjson_parquet;
mod peers;
mod sort_dedup;
mod sse;
mod stac;
mod stac_items;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::process::command;
use crate::text::{self, say};
use crate::workspace::Workspace;
pub(crate) use contest::clear;
use events::{Events, Random};
pub(crate) use peers::python;

/// Numbers out of a seed.
pub(crate) fn random(seed: u64) -> Random {
    Random(seed)
}

/// What `bench` is asked to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which one
    #[arg(value_enum)]
    name: Name,
    /// How often each side runs; the table shows the middle one
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// A binary that is built already; without it a release build is made
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// A smaller input, a hundredth: to try the bench itself, not for figures
    #[arg(long)]
    small: bool,
    /// How large the input of `sort-dedup` is
    #[arg(long, value_name = "SIZE", default_value = "1GB", value_parser = text::parse_bytes)]
    bytes: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Name {
    /// 1 GB of nested events from NDJSON to Parquet with zstd, beside DuckDB
    NdjsonParquet,
    /// 200 files of 20 MB onto the disk, ten at a time, beside curl and obstore
    Download,
    /// Peak memory at 64 MB over 1, 10 and 100 times the input
    MemoryLadder,
    /// What the binary takes when it has nothing to do
    IdleRss,
    /// The first event of each id, in order of time, beside DuckDB, DataFusion, and sort with awk
    SortDedup,
    /// 100,000 items of STAC from NDJSON to stac-geoparquet, beside rustac and stac-geoparquet
    Stac,
    /// Events to 1,000 and 5,000 subscribers, some of them stalled, beside nginx with nchan
    Sse,
}

/// Runs one bench.
///
/// # Errors
/// Something cannot be made or started, or a *must* does not hold.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let bench = Bench::new(workspace, args)?;
    let promises = match args.name {
        Name::NdjsonParquet => ndjson_parquet::run(&bench)?,
        Name::Download => download::run(&bench)?,
        Name::MemoryLadder => memory_ladder::run(&bench)?,
        Name::IdleRss => idle_rss::run(&bench)?,
        Name::SortDedup => sort_dedup::run(&bench, args.bytes)?,
        Name::Stac => stac::run(&bench)?,
        Name::Sse => sse::run(workspace, &bench)?,
    };
    judge(&promises)
}

/// Something that a bench is to show.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// Whether it blocks, or is only chased.
    pub(crate) is_must: bool,
    /// What it says, with the figures.
    pub(crate) says: String,
    /// Whether it holds.
    pub(crate) holds: bool,
}

impl Promise {
    /// One that blocks.
    pub(crate) fn must(says: impl Into<String>, holds: bool) -> Self {
        Self { is_must: true, says: says.into(), holds }
    }

    /// One that is chased.
    pub(crate) fn goal(says: impl Into<String>, holds: bool) -> Self {
        Self { is_must: false, says: says.into(), holds }
    }
}

/// Tells which promises hold.
///
/// # Errors
/// One that must does not.
pub(crate) fn judge(promises: &[Promise]) -> Result<()> {
    for promise in promises {
        let kind = if promise.is_must { "must" } else { "goal" };
        say(format_args!("{kind}: {} {}", if promise.holds { "holds " } else { "MISSED" }, promise.says));
    }
    let n_missed = promises.iter().filter(|promise| promise.is_must && !promise.holds).count();
    ensure!(n_missed == 0, "{n_missed} of what must hold does not");
    Ok(())
}

/// Where a bench works and what it runs.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Inputs and peers, kept between runs.
    pub(crate) cache: PathBuf,
    /// Outputs, removed afterwards.
    pub(crate) scratch: tempfile::TempDir,
    /// The binary.
    pub(crate) binary: PathBuf,
    /// How often each side runs.
    pub(crate) n_runs: u32,
    /// What sizes are divided by.
    pub(crate) divisor: u64,
}

impl Bench {
    fn new(workspace: &Workspace, args: &Args) -> Result<Self> {
        let binary = match &args.binary {
            Some(path) => path.canonicalize()?,
            None => workspace.binary("release")?,
        };
        Self::with(workspace, binary, args.runs, if args.small { 100 } else { 1 })
    }

    /// A bench of this binary.
    ///
    /// # Errors
    /// Its folders cannot be made.
    pub(crate) fn with(workspace: &Workspace, binary: PathBuf, n_runs: u32, divisor: u64) -> Result<Self> {
        let cache = workspace.cache().join("bench");
        text::make_dir(&cache)?;
        let scratch = tempfile::tempdir_in(&cache)?;
        Ok(Self { cache, scratch, binary, n_runs, divisor })
    }

    /// A path for an output.
    pub(crate) fn output(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A command that runs a flow, from a folder of its own, and the report it leaves.
    ///
    /// # Errors
    /// The flow cannot be written.
    pub(crate) fn flow(&self, name: &str, flow: &str) -> Result<(Command, PathBuf)> {
        let folder = self.output(&format!("flow-{name}"));
        text::write(&folder.join("flow.yaml"), flow)?;
        let report = folder.join("report.json");
        let mut command = command(&self.binary, &folder);
        command.args(["run", "flow.yaml", "--fresh", "--progress", "none", "--report"]).arg(&report);
        Ok((command, report))
    }
}

/// What a bench reads of a run's report.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Report {
    /// Rows read, bad ones among them.
    #[serde(default)]
    pub(crate) rows_in: u64,
    /// Rows written.
    #[serde(default)]
    pub(crate) rows_out: u64,
    /// Rows that were bad.
    #[serde(default)]
    pub(crate) rows_rejected: u64,
    /// The most memory that was resident, as the run saw it.
    #[serde(default)]
    pub(crate) rss_peak_bytes: u64,
    /// Bytes written to spill files.
    #[serde(default)]
    pub(crate) spilled_bytes: u64,
}

impl Report {
    /// Reads one.
    ///
    /// # Errors
    /// It is not there, or no report.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Ok(serde_json::from_str(&text::read(path)?)?)
    }
}

/// Bytes in MB, one digit.
#[expect(clippy::cast_precision_loss, reason = "for people; 53 bits are enough")]
pub(crate) fn megabytes(n_bytes: u64) -> String {
    format!("{:.1}", n_bytes as f64 / 1e6)
}

/// One count by another.
#[expect(clippy::cast_precision_loss, reason = "for people; 53 bits are enough")]
pub(crate) fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_must_fails_and_a_missed_goal_does_not() {
        assert!(judge(&[Promise::must("quick", true), Promise::goal("quicker", false)]).is_ok());
        let error = judge(&[Promise::must("quick", false)]).unwrap_err();
        assert_eq!(error.to_string(), "1 of what must hold does not");
    }
}
