//! `cargo xtask soak ladder`: every global stage over every kind of data at every memory, each cell a process of its
//! own. It must end, be right, stay within the memory and leave no spill. What was shown is committed.

mod data;
mod duckdb;
mod oracle;
mod results;
mod stage;
mod verdict;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::bench::{Bench, Report, clear, megabytes, memory_ladder::BESIDE_BYTES, python};
use crate::measure::{Measured, measure_for};
use crate::process::{command, output};
use crate::text::{self, parse_bytes, say};
use crate::workspace::Workspace;
use data::{Data, KINDS, Kind};
use duckdb::Duckdb;
use results::{Build, Results, Shown};
use stage::{Inputs, STAGES, Stage};
use verdict::{Expected, Output};

/// Where the results are kept, in the project.
const RESULTS: &str = "docs/proofs/ladder.tsv";

/// The memories of the ladder, in MB.
const MEMORIES: [u64; 4] = [64, 128, 256, 1000];

/// How long a cell may take, at the full size.
const MAX_PER_CELL: Duration = Duration::from_secs(900);

/// What `soak ladder` is asked to do beside what every soak is.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Ladder: how large the data are
    #[arg(long, value_name = "SIZE", default_value = "1GB", value_parser = parse_bytes)]
    bytes: u64,
    /// Ladder: only cells with one of these words for each of stage, data and memory that is named, as in
    /// `--only sort,dedup,64MB`
    #[arg(long, value_name = "WORD", value_delimiter = ',')]
    only: Vec<String>,
    /// Ladder: once more what was shown by another build
    #[arg(long)]
    again: bool,
    /// Ladder: the cells of CI instead, judged without DuckDB; nothing is kept
    #[arg(long)]
    ci: bool,
}

/// One cell of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    stage: Stage,
    kind: Kind,
    memory_mb: u64,
    n_bytes: u64,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stage, kind, n_mb) = (self.stage.name(), self.kind.name(), self.n_bytes / 1_000_000);
        write!(f, "{stage} {kind} {} of {n_mb} MB", self.memory())
    }
}

impl Cell {
    fn data(self) -> Data {
        Data { kind: self.kind, n_bytes: self.n_bytes }
    }

    fn memory(self) -> &'static str {
        memory_name(self.memory_mb)
    }

    fn memory_bytes(self) -> u64 {
        self.memory_mb * 1_000_000
    }
}

fn memory_name(memory_mb: u64) -> &'static str {
    match memory_mb {
        64 => "64MB",
        128 => "128MB",
        256 => "256MB",
        _ => "1GB",
    }
}

/// Runs the cells that are due until the time is up.
///
/// # Errors
/// A cell failed, now or when it was last run.
pub(super) fn run(
    workspace: &Workspace,
    bench: &Bench,
    state: Option<&Path>,
    minutes: u64,
    options: &Options,
) -> Result<()> {
    if options.ci {
        return ci(workspace, &bench.binary);
    }
    let cells = chosen(options.bytes, &options.only)?;
    let path = state.map_or_else(|| workspace.root().join(RESULTS), Path::to_owned);
    let mut results = Results::read(&path)?;
    let build = build(workspace, bench)?;
    let again = options.again.then_some(&build);
    let judge = judge(bench)?;
    let (started, at_most) = (Instant::now(), Duration::from_secs(minutes * 60));
    for cell in cells.iter().filter(|cell| results.is_due(cell, again)).copied().collect::<Vec<_>>() {
        if started.elapsed() > at_most {
            break;
        }
        let (data, side) = judge.inputs(cell.data())?;
        let inputs = Inputs { data: &data, side: &side, format: "parquet" };
        let expected = judge.expected(cell.stage, cell.data())?;
        let shown = try_cell(bench, cell, &inputs, &build, &expected, |out| {
            judge.look(cell.stage, cell.data(), out)
        })?;
        results.add(cell, shown)?;
    }
    let (n_right, failed) = (results.n_right(&cells), results.failed(&cells));
    say(format_args!("{}: {n_right} of {} cells right", path.display(), cells.len()));
    tell(&failed)
}

/// The judge, tried on what it must refuse before anything is built on it.
fn judge(bench: &Bench) -> Result<Duckdb> {
    let judge = Duckdb { python: python(&bench.cache)?, folder: bench.cache.join("ladder") };
    text::make_dir(&judge.folder)?;
    judge.try_itself(bench.scratch.path())?;
    Ok(judge)
}

fn build(workspace: &Workspace, bench: &Bench) -> Result<Build> {
    let version = output(command(&bench.binary, bench.scratch.path()).arg("--version"))?;
    let commit = output(command("git", workspace.root()).args(["rev-parse", "--short", "HEAD"]))?;
    Ok(Build { version: version.trim().to_owned(), commit: commit.trim().to_owned() })
}

fn tell(failed: &[String]) -> Result<()> {
    ensure!(failed.is_empty(), "{} cells failed:\n  {}", failed.len(), failed.join("\n  "));
    Ok(())
}

/// The cells that these words choose. A memory, a stage and a kind each narrow the ladder; several of a sort widen it.
fn chosen(n_bytes: u64, only: &[String]) -> Result<Vec<Cell>> {
    let stages: Vec<_> = STAGES.map(Stage::name).to_vec();
    let kinds: Vec<_> = KINDS.map(Kind::name).to_vec();
    let memories: Vec<_> = MEMORIES.map(memory_name).to_vec();
    for word in only.iter().map(String::as_str) {
        let is_known = [&stages, &kinds, &memories].iter().any(|known| known.contains(&word));
        ensure!(is_known, "`{word}` is none of {}", [&stages[..], &kinds, &memories].concat().join(", "));
    }
    let is_named = |known: &[&str], name: &str| {
        let mut named = only.iter().filter(|word| known.contains(&word.as_str())).peekable();
        named.peek().is_none() || named.any(|word| word == name)
    };
    let mut cells = Vec::new();
    for stage in STAGES.into_iter().filter(|it| is_named(&stages, it.name())) {
        for kind in KINDS.into_iter().filter(|it| is_named(&kinds, it.name())) {
            for memory_mb in MEMORIES.into_iter().filter(|it| is_named(&memories, memory_name(*it))) {
                cells.push(Cell { stage, kind, memory_mb, n_bytes });
            }
        }
    }
    Ok(cells)
}

/// Runs a cell and judges it.
fn try_cell(
    bench: &Bench,
    cell: Cell,
    inputs: &Inputs<'_>,
    build: &Build,
    expected: &Expected,
    look: impl Fn(&Path) -> Result<Output>,
) -> Result<Shown> {
    let folder = bench.output("flow-ladder");
    clear(&folder)?;
    let (mut run, report) = bench.flow("ladder", &cell.stage.flow(cell.data(), cell.memory(), inputs))?;
    let measured = measure_for(&mut run, MAX_PER_CELL)?;
    let report = Report::read(&report).unwrap_or_default();
    let out = folder.join(format!("out.{}", inputs.format));
    let wrong = wrong_run(cell, &measured, &folder).or_else(|| match look(&out) {
        Ok(output) => expected.wrong(&output),
        Err(error) => Some(format!("{error:#}")),
    });
    clear(&folder)?;
    let shown = Shown {
        wrong,
        seconds: format!("{:.1}", measured.wall.as_secs_f64()),
        peak_rss_mb: megabytes(measured.peak_rss_bytes),
        spilled_mb: megabytes(report.spilled_bytes),
        rows_out: report.rows_out,
        build: build.clone(),
    };
    say(format_args!(
        "{cell}: {} in {} s, peak {} MB, spilled {} MB",
        shown.wrong.as_deref().unwrap_or("right"),
        shown.seconds,
        shown.peak_rss_mb,
        shown.spilled_mb
    ));
    Ok(shown)
}

/// What is wrong with a run, whatever it wrote.
fn wrong_run(cell: Cell, measured: &Measured, folder: &Path) -> Option<String> {
    if !measured.status.success() {
        return Some(format!("{}: {}", measured.status, measured.last_line()));
    }
    let limit = cell.memory_bytes() + BESIDE_BYTES;
    if measured.peak_rss_bytes > limit {
        let peak = megabytes(measured.peak_rss_bytes);
        return Some(format!("peak RSS {peak} MB, more than {} MB", megabytes(limit)));
    }
    let left = left_in(&folder.join("spill"));
    (!left.is_empty()).then(|| format!("left in the spill folder: {}", left.join(", ")))
}

/// The files below a folder, which need not be there.
fn left_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            files.extend(left_in(&path));
        } else {
            files.push(path.display().to_string());
        }
    }
    files
}

/// The size of the data of CI's cells.
const CI_BYTES: u64 = 100_000_000;

/// CI's twelve: each stage, each kind that ever broke one, the smallest memory.
const CI_CELLS: [(Stage, Kind, u64); 12] = [
    (Stage::Sort, Kind::Narrow, 64),
    (Stage::Sort, Kind::Equal, 64),
    (Stage::Sort, Kind::Wide100k, 64),
    (Stage::Sort, Kind::Adjacent, 64),
    (Stage::Dedup, Kind::Narrow, 64),
    (Stage::Dedup, Kind::Spread, 64),
    (Stage::Join, Kind::Wide2k, 64),
    (Stage::Join, Kind::Equal, 64),
    (Stage::Aggregate, Kind::Narrow, 64),
    (Stage::Aggregate, Kind::Adjacent, 128),
    (Stage::Tile, Kind::Spread, 64),
    (Stage::Tile, Kind::Equal, 64),
];

/// The twelve cells of CI at 100 MB, from NDJSON and judged by [`oracle`], so that nothing needs to be installed.
///
/// # Errors
/// A cell fails; all are run before that is told.
pub(crate) fn ci(workspace: &Workspace, binary: &Path) -> Result<()> {
    let bench = Bench::with(workspace, binary.to_owned(), 1, 1)?;
    let (folder, build) = (bench.cache.join("ladder"), Build::default());
    let mut failed = Vec::new();
    for (stage, kind, memory_mb) in CI_CELLS {
        let cell = Cell { stage, kind, memory_mb, n_bytes: CI_BYTES };
        let (data, side) = (cell.data().ndjson(&folder)?, cell.data().side_ndjson(&folder)?);
        let inputs = Inputs { data: &data, side: &side, format: "ndjson" };
        let expected = oracle::expected(stage, cell.data());
        let shown = try_cell(&bench, cell, &inputs, &build, &expected, |out| oracle::look(stage, kind, out))?;
        failed.extend(shown.wrong.map(|wrong| format!("{cell}: {wrong}")));
    }
    tell(&failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::measure;

    fn cell() -> Cell {
        Cell { stage: Stage::Sort, kind: Kind::Narrow, memory_mb: 64, n_bytes: 1_000_000_000 }
    }

    #[test]
    fn words_choose_cells_and_strange_ones_are_named() {
        let n_chosen = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            chosen(1, &words).map(|cells| cells.len())
        };
        assert_eq!(n_chosen(&[]).unwrap(), 5 * 9 * 4);
        assert_eq!(n_chosen(&["sort", "dedup", "64MB"]).unwrap(), 2 * 9);
        assert_eq!(n_chosen(&["few", "1GB", "tile"]).unwrap(), 1);
        assert!(n_chosen(&["sorte"]).unwrap_err().to_string().contains("`sorte` is none of sort, dedup"));
    }

    #[test]
    fn a_run_that_fails_takes_too_much_or_leaves_spill_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let run = |script: &str| {
            let mut shell = command("sh", folder.path());
            measure(shell.args(["-c", script])).unwrap()
        };
        let wrong = |measured: &Measured| wrong_run(cell(), measured, folder.path());
        assert_eq!(wrong(&run("true")), None);
        assert!(wrong(&run("echo no room; exit 1")).unwrap().ends_with("no room"));
        let limit = 64_000_000 + BESIDE_BYTES;
        assert_eq!(wrong(&Measured { peak_rss_bytes: limit, ..run("true") }), None);
        let large = Measured { peak_rss_bytes: limit + 1, ..run("true") };
        assert!(wrong(&large).unwrap().starts_with("peak RSS"));
        assert_eq!(wrong(&run("mkdir -p spill/run-1")), None, "an empty folder is no spill");
        assert!(wrong(&run("echo rows > spill/run-1/0")).unwrap().contains("spill/run-1/0"));
    }

    #[test]
    fn failures_are_listed() {
        assert!(tell(&[]).is_ok());
        assert_eq!(tell(&["a: b".into()]).unwrap_err().to_string(), "1 cells failed:\n  a: b");
    }
}
