//! Both sides in turn, so that what else the machine does hits all of them alike.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{megabytes, ratio};
use crate::measure::{Measured, measure, median};
use crate::text::{self, say};

/// Who takes part.
pub(super) struct Contestant<'a> {
    /// In the table.
    pub(super) name: &'static str,
    /// Clears what an earlier run left, and gives the command of the next.
    pub(super) prepare: Box<dyn Fn() -> Result<Command> + 'a>,
    /// Looks at what came out: its rows or files, or what is wrong with them.
    pub(super) outcome: Box<dyn Fn() -> Result<String> + 'a>,
}

/// The middle of a contestant's runs, each figure by itself.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// In the table.
    pub(super) name: &'static str,
    /// From start to end.
    pub(super) wall: Duration,
    /// Processor time.
    pub(super) cpu: Duration,
    /// The most memory that was resident.
    pub(super) peak_rss_bytes: u64,
    /// What came out of the last run, or of the first that failed.
    pub(super) outcome: String,
    /// Whether all runs came out right.
    pub(super) is_right: bool,
}

/// Runs them in turn and prints the table; the first is the one that the others are compared with.
///
/// # Errors
/// One cannot be started, or ours, the first, comes out wrong.
pub(super) fn compete(contestants: &[Contestant<'_>], n_runs: u32) -> Result<Vec<Figures>> {
    let mut runs: Vec<Vec<(Measured, Result<String>)>> = contestants.iter().map(|_| Vec::new()).collect();
    for n in 1..=n_runs {
        for (contestant, runs) in contestants.iter().zip(&mut runs) {
            let (measured, outcome) = run_one(contestant)?;
            let wall = measured.wall.as_secs_f64();
            say(format_args!("run {n} of {n_runs}: {} {wall:.2} s", contestant.name));
            runs.push((measured, outcome));
        }
    }
    let figures: Vec<_> = contestants.iter().zip(runs).filter_map(|(who, runs)| figures(who, runs)).collect();
    say(format_args!("\n{}\n", table(&figures)));
    let ours = figures.first().context("nobody takes part")?;
    ensure!(ours.is_right, "{}: {}", ours.name, ours.outcome);
    Ok(figures)
}

fn run_one(contestant: &Contestant<'_>) -> Result<(Measured, Result<String>)> {
    let mut command = (contestant.prepare)().with_context(|| contestant.name)?;
    let measured = measure(&mut command)?;
    let outcome = match measured.status.success() {
        true => (contestant.outcome)(),
        false => Err(anyhow::anyhow!("{}: {}", measured.status, measured.last_line())),
    };
    Ok((measured, outcome))
}

fn figures(contestant: &Contestant<'_>, runs: Vec<(Measured, Result<String>)>) -> Option<Figures> {
    let of = |pick: fn(&Measured) -> Duration| median(runs.iter().map(|(run, _)| pick(run)).collect());
    let wrong = runs.iter().find_map(|(_, outcome)| outcome.as_ref().err());
    let right = runs.iter().rev().find_map(|(_, outcome)| outcome.as_ref().ok());
    Some(Figures {
        name: contestant.name,
        wall: of(|run| run.wall)?,
        cpu: of(|run| run.cpu)?,
        peak_rss_bytes: median(runs.iter().map(|(run, _)| run.peak_rss_bytes).collect())?,
        is_right: wrong.is_none(),
        outcome: wrong.map(|error| format!("WRONG: {error:#}")).or(right.cloned())?,
    })
}

fn table(figures: &[Figures]) -> String {
    let head = ["", "wall s", "cpu s", "peak RSS MB", "ours/theirs", "outcome"].map(str::to_owned);
    let ours = figures.first().map_or(Duration::ZERO, |figures| figures.wall);
    let row = |it: &Figures| {
        let cells = [
            it.name.to_owned(),
            format!("{:.2}", it.wall.as_secs_f64()),
            format!("{:.2}", it.cpu.as_secs_f64()),
            megabytes(it.peak_rss_bytes),
            format!("{:.2}", times(ours, it.wall)),
            it.outcome.clone(),
        ];
        cells.to_vec()
    };
    let rows: Vec<_> = std::iter::once(head.to_vec()).chain(figures.iter().map(row)).collect();
    text::table(&rows)
}

/// How many times as long.
pub(super) fn times(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64().max(f64::EPSILON)
}

/// How many times as much memory.
pub(super) fn times_rss(a: &Figures, b: &Figures) -> f64 {
    ratio(a.peak_rss_bytes, b.peak_rss_bytes)
}

/// The figures under a name, if they came out right.
pub(super) fn named<'a>(figures: &'a [Figures], name: &str) -> Option<&'a Figures> {
    figures.iter().find(|it| it.name == name && it.is_right)
}

/// Removes what an earlier run left, file or folder.
///
/// # Errors
/// It is there and cannot be removed.
pub(crate) fn clear(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{}: cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::command;

    fn contestant(name: &'static str, script: &'static str, outcome: &'static str) -> Contestant<'static> {
        let prepare = move || {
            let mut shell = command("sh", Path::new("/"));
            shell.args(["-c", script]);
            Ok(shell)
        };
        let outcome = move || {
            ensure!(outcome != "short", "3 rows of 4");
            Ok(outcome.to_owned())
        };
        Contestant { name, prepare: Box::new(prepare), outcome: Box::new(outcome) }
    }

    #[test]
    fn peers_may_fail_and_are_then_not_compared_with() {
        let both = [contestant("ours", "true", "4 rows"), contestant("peer", "echo no room; exit 1", "")];
        let figures = compete(&both, 2).unwrap();
        assert!(figures[1].outcome.contains("no room"), "{}", figures[1].outcome);
        assert!(named(&figures, "ours").is_some() && named(&figures, "peer").is_none());
    }

    #[test]
    fn a_wrong_result_of_ours_is_an_error_however_quick() {
        let error = compete(&[contestant("ours", "true", "short")], 1).unwrap_err();
        assert_eq!(error.to_string(), "ours: WRONG: 3 rows of 4");
    }
}
