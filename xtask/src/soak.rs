//! `cargo xtask soak [WHAT] --minutes N`: long proofs. What was shown is kept in a file after each round, so that
//! a soak goes on where the last one stopped.

pub(crate) mod kills;
pub(crate) mod ladder;
mod swarm;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Report, judge, memory_ladder};
use crate::measure::{Measured, measure_for};
use crate::text::{self, say};
use crate::workspace::{PROFILE, Workspace};

/// What `soak` is asked to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to prove; without it, `memory` and `flows` in turn
    #[arg(value_enum)]
    what: Option<What>,
    /// After so many minutes no further round begins
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// A binary that is built already; without it one is built
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// What was shown so far; without it a file in the cache folder, of the ladder and of kills one in `docs/proofs`
    #[arg(long, value_name = "PATH")]
    state: Option<PathBuf>,
    #[command(flatten)]
    ladder: ladder::Options,
    #[command(flatten)]
    swarm: swarm::Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Peak memory over 1, 10 and 100 times the input
    Memory,
    /// Made-up flows: all rows come out, within the memory
    Flows,
    /// Every global stage over every kind of data at every memory
    Ladder,
    /// The binary killed, at random and at each system call that changes the disk
    Kills,
    /// Thousands of clients of a stream, slow, restless and broken ones among them; once
    Swarm,
}

/// What was shown so far.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Shown {
    /// Ladders climbed.
    ladders: u64,
    /// The largest peak of them.
    worst_ladder_peak_rss_bytes: u64,
    /// Made-up flows that came out right; the next one has this seed and those of the failed ones added.
    flows: u64,
    /// The seeds of those that did not.
    failed_seeds: Vec<u64>,
}

/// How many failures are kept; more tell nothing new.
const MAX_FAILURES: usize = 100;

/// How long a made-up flow may take.
const MAX_PER_FLOW: Duration = Duration::from_secs(600);

/// Goes on from what was shown so far.
///
/// # Errors
/// A ladder breaks a promise, or a flow or a cell fails or ever failed.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let binary = match &args.binary {
        Some(path) => path.canonicalize()?,
        None => workspace.binary(PROFILE)?,
    };
    let bench = Bench::with(workspace, binary, 1, 1)?;
    if args.what == Some(What::Ladder) {
        return ladder::run(workspace, &bench, args.state.as_deref(), args.minutes, &args.ladder);
    }
    if args.what == Some(What::Kills) {
        return kills::run(workspace, &bench, args.state.as_deref(), args.minutes);
    }
    if args.what == Some(What::Swarm) {
        return swarm::run(workspace, &bench, &args.swarm);
    }
    let path = args.state.clone().unwrap_or_else(|| workspace.cache().join("soak.json"));
    let mut shown = Shown::read(&path)?;
    let (started, at_most) = (Instant::now(), Duration::from_secs(args.minutes * 60));
    while started.elapsed() < at_most {
        if args.what != Some(What::Flows) {
            climb(&bench, &mut shown)?;
            shown.write(&path)?;
        }
        if args.what != Some(What::Memory) {
            try_flow(&bench, &mut shown)?;
            shown.write(&path)?;
        }
    }
    say(format_args!("{}: {}", path.display(), shown.told()));
    ensure!(shown.failed_seeds.is_empty(), "flows with these seeds failed: {:?}", shown.failed_seeds);
    Ok(())
}

impl Shown {
    fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        Ok(serde_json::from_str(&text::read(path)?)?)
    }

    /// Beside it first, then in its place: a soak that is killed loses one round at most.
    fn write(&self, path: &Path) -> Result<()> {
        let unfinished = path.with_extension("part");
        text::write(&unfinished, &(serde_json::to_string_pretty(self)? + "\n"))?;
        Ok(std::fs::rename(unfinished, path)?)
    }

    fn next_seed(&self) -> u64 {
        self.flows + self.failed_seeds.len() as u64
    }

    fn told(&self) -> String {
        format!(
            "{} ladders, worst peak {} bytes; {} flows right, {} wrong",
            self.ladders,
            self.worst_ladder_peak_rss_bytes,
            self.flows,
            self.failed_seeds.len()
        )
    }
}

fn climb(bench: &Bench, shown: &mut Shown) -> Result<()> {
    let steps = memory_ladder::climb(bench)?;
    judge(&memory_ladder::promises(&steps))?;
    shown.ladders += 1;
    let worst = steps.iter().map(|step| step.peak_rss_bytes).max().unwrap_or(0);
    shown.worst_ladder_peak_rss_bytes = shown.worst_ladder_peak_rss_bytes.max(worst);
    Ok(())
}

fn try_flow(bench: &Bench, shown: &mut Shown) -> Result<()> {
    let seed = shown.next_seed();
    let made = MadeUp::of(seed);
    let (mut command, report) = bench.flow("soak", &made.text)?;
    let measured = measure_for(&mut command, MAX_PER_FLOW)?;
    match made.wrong(&measured, &Report::read(&report).unwrap_or_default()) {
        None => shown.flows += 1,
        Some(wrong) => {
            say(format_args!("seed {seed}: {wrong}\n{}", made.text));
            shown.failed_seeds.push(seed);
            ensure!(shown.failed_seeds.len() < MAX_FAILURES, "{MAX_FAILURES} flows failed");
        }
    }
    Ok(())
}

/// A flow out of a seed, and what must come of it.
#[derive(Debug)]
struct MadeUp {
    text: String,
    n_rows: u64,
    memory_bytes: u64,
}

impl MadeUp {
    fn of(seed: u64) -> Self {
        let mut random = crate::bench::random(seed);
        let mut below = |bound: u64| random.next() % bound;
        let memory_mb = [64, 96, 128, 256][usize::try_from(below(4)).unwrap_or(0)];
        let n_made = below(2_000_000);
        let text_len = 1 + below(400);
        let limit = if below(2) == 0 { below(1_000_000) } else { u64::MAX };
        let sink = ["ndjson", "csv", "json", "arrow", "parquet"][usize::try_from(below(5)).unwrap_or(0)];
        let stages = if limit == u64::MAX { String::new() } else { format!("  - limit: {limit}\n") };
        let text = format!(
            "name: soak-{seed}\nmemory: {memory_mb}MB\n\
             source: {{ generate: {{ rows: {n_made}, seed: {seed}, columns: {{ id: sequence, text: {{ len: {text_len} }}, x: float }} }} }}\n\
             stages:\n  - rename: {{ x: y }}\n{stages}\
             sink: {{ {sink}: {{ path: out, allow_empty: true }} }}\n"
        );
        Self { text, n_rows: n_made.min(limit), memory_bytes: memory_mb * 1_000_000 }
    }

    /// What is wrong with a run of it.
    fn wrong(&self, measured: &Measured, report: &Report) -> Option<String> {
        if !measured.status.success() {
            return Some(format!("{}: {}", measured.status, measured.last_line()));
        }
        if report.rows_out != self.n_rows {
            return Some(format!("{} rows came out of {}", report.rows_out, self.n_rows));
        }
        let limit = self.memory_bytes + memory_ladder::BESIDE_BYTES;
        (measured.peak_rss_bytes > limit)
            .then(|| format!("peak RSS {} bytes, more than {limit}", measured.peak_rss_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::measure;
    use crate::process::command;

    #[test]
    fn what_was_shown_is_taken_up_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("soak.json");
        let shown = Shown { flows: 7, failed_seeds: vec![3], ..Shown::read(&path).unwrap() };
        shown.write(&path).unwrap();
        let again = Shown::read(&path).unwrap();
        assert_eq!((again.next_seed(), again), (8, shown));
    }

    #[test]
    fn a_seed_is_always_the_same_flow_and_its_faults_are_seen() {
        let made = MadeUp::of(5);
        assert_eq!(made.text, MadeUp::of(5).text);
        let run = |script: &str| measure(command("sh", Path::new("/")).args(["-c", script])).unwrap();
        let right = Report { rows_out: made.n_rows, ..Report::default() };
        assert_eq!(made.wrong(&run("true"), &right), None);
        assert!(made.wrong(&run("echo no; exit 1"), &right).unwrap().ends_with("no"));
        let short = Report { rows_out: made.n_rows + 1, ..Report::default() };
        assert!(made.wrong(&run("true"), &short).unwrap().contains("rows came out of"));
        let small = MadeUp { memory_bytes: 0, ..made };
        let large = Measured { peak_rss_bytes: memory_ladder::BESIDE_BYTES + 1, ..run("true") };
        assert!(small.wrong(&large, &right).unwrap().starts_with("peak RSS"));
    }
}
