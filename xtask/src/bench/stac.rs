//! Items of STAC from NDJSON to stac-geoparquet in one file, beside rustac and stac-geoparquet. Then the newest version of
//! each item, in order of time, by ours alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde::Deserialize;

use super::contest::{Contestant, Figures, clear, compete};
use super::memory_ladder::BESIDE_BYTES;
use super::stac_items::{Items, Sums};
use super::{Bench, Promise, megabytes, peers};
use crate::process::{command, output};

/// About 370 MB.
const N_ITEMS: u64 = 100_000;

/// What is given to ours, without and with stages that need all rows.
const MEMORY_MB: u64 = 128;
const NEWEST_MEMORY_MB: u64 = 256;

const MAX_WALL: Duration = Duration::from_secs(10);
const WANTED_WALL: Duration = Duration::from_secs(4);

const PEERS: &str = include_str!("stac_peers.py");
const CHECK: &str = include_str!("stac_check.py");

const NEWEST: &str = "stages: [{ dedup: { keys: [collection, id], keep: last, by: [updated] } }, { sort: { by: [datetime] } }]\n";

/// Runs it.
///
/// # Errors
/// A side cannot be started, or ours comes out wrong.
pub(super) fn run(bench: &Bench) -> Result<Vec<Promise>> {
    let race = Race {
        bench,
        items: Items::of_number(&bench.cache, N_ITEMS / bench.divisor)?,
        python: peers::stac_python(&bench.cache)?,
        target: bench.output("items.parquet"),
    };
    let figures = compete(
        &[
            race.ours("aqueduct at 128 MB", MEMORY_MB, "", race.all()),
            race.peer("rustac", "rustac"),
            race.peer("rustac, batches of 2000", "batches"),
            race.peer("stac-geoparquet", "stac-geoparquet"),
        ],
        bench.n_runs,
    )?;
    compete(&[race.ours("the newest at 256 MB", NEWEST_MEMORY_MB, NEWEST, race.newest())], bench.n_runs)?;
    Ok(figures.first().map(promises).unwrap_or_default())
}

fn promises(ours: &Figures) -> Vec<Promise> {
    let limit = MEMORY_MB * 1_000_000 + BESIDE_BYTES;
    let (peak, wall) = (ours.peak_rss_bytes, ours.wall);
    let within = |limit: Duration| format!("within {} s: {:.2}", limit.as_secs(), wall.as_secs_f64());
    vec![
        Promise::must(
            format!("peak RSS at most memory + 64 MiB: {} of {} MB", megabytes(peak), megabytes(limit)),
            peak <= limit,
        ),
        Promise::must(within(MAX_WALL), wall < MAX_WALL),
        Promise::goal(within(WANTED_WALL), wall < WANTED_WALL),
    ]
}

/// What is expected of a side.
#[derive(Clone, Copy)]
struct Expected {
    sums: Sums,
    in_order: bool,
}

/// What came out.
#[derive(Debug, Deserialize)]
struct Found {
    has_geo: bool,
    sums: Sums,
    n_early: u64,
}

/// What the sides need to know.
struct Race<'a> {
    bench: &'a Bench,
    items: Items,
    python: PathBuf,
    target: PathBuf,
}

impl Race<'_> {
    fn all(&self) -> Expected {
        Expected { sums: self.items.all, in_order: false }
    }

    fn newest(&self) -> Expected {
        Expected { sums: self.items.newest, in_order: true }
    }

    fn ours(&self, name: &'static str, memory_mb: u64, stages: &str, expected: Expected) -> Contestant<'_> {
        let flow = flow(memory_mb, &self.items.path, stages, &self.target);
        let prepare = move || {
            clear(&self.target)?;
            Ok(self.bench.flow("stac", &flow)?.0)
        };
        Contestant { name, prepare: Box::new(prepare), outcome: Box::new(move || self.outcome(expected)) }
    }

    fn peer(&self, name: &'static str, peer: &'static str) -> Contestant<'_> {
        let prepare = move || {
            clear(&self.target)?;
            let mut run = command(&self.python, self.bench.scratch.path());
            run.args(["-c", PEERS, peer]).args([&self.items.path, &self.target]);
            Ok(run)
        };
        Contestant { name, prepare: Box::new(prepare), outcome: Box::new(|| self.outcome(self.all())) }
    }

    fn outcome(&self, expected: Expected) -> Result<String> {
        let look =
            output(command(&self.python, self.bench.scratch.path()).args(["-c", CHECK]).arg(&self.target))?;
        let Ok(found) = serde_json::from_str(&look) else { bail!("{}", look.trim()) };
        right(expected, &found)?;
        let n_bytes = self.target.metadata()?.len();
        Ok(format!("{} rows, {} MB", found.sums.n_rows, megabytes(n_bytes)))
    }
}

fn right(expected: Expected, found: &Found) -> Result<()> {
    ensure!(found.has_geo, "the metadata has no key `geo`");
    ensure!(found.sums == expected.sums, "{:?} came out, not {:?}", found.sums, expected.sums);
    ensure!(!expected.in_order || found.n_early == 0, "{} rows come before their turn", found.n_early);
    Ok(())
}

/// The columns come out of as many items as are in a batch of rustac's.
fn flow(memory_mb: u64, source: &Path, stages: &str, target: &Path) -> String {
    format!(
        "name: bench-stac\nmemory: {memory_mb}MB\n\
         source: {{ files: {{ paths: [\"{}\"], format: stac, infer_rows: 2000 }} }}\n\
         {stages}sink: {{ stac_geoparquet: {{ path: \"{}\" }} }}\n",
        source.display(),
        target.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(seconds: u64, peak_rss_bytes: u64) -> Vec<bool> {
        let wall = Duration::from_secs(seconds);
        let ours =
            Figures { name: "", wall, cpu: wall, peak_rss_bytes, outcome: String::new(), is_right: true };
        promises(&ours).iter().map(|promise| promise.holds).collect()
    }

    #[test]
    fn each_promise_can_be_missed() {
        assert_eq!(holds(3, 190_000_000), [true, true, true]);
        assert_eq!(holds(4, 200_000_000), [false, true, false]);
        assert_eq!(holds(10, 190_000_000), [true, false, false]);
    }

    #[test]
    fn each_thing_that_differs_is_wrong() {
        let sums = Sums { n_rows: 10, cover: 45 };
        let found =
            |has_geo, n_rows, cover, n_early| Found { has_geo, sums: Sums { n_rows, cover }, n_early };
        let is_right = |in_order, found| right(Expected { sums, in_order }, &found).is_ok();
        assert!(is_right(true, found(true, 10, 45, 0)) && is_right(false, found(true, 10, 45, 1)));
        let wrong =
            [found(false, 10, 45, 0), found(true, 9, 45, 0), found(true, 10, 44, 0), found(true, 10, 45, 1)];
        assert!(wrong.into_iter().all(|found| !is_right(true, found)));
    }
}
