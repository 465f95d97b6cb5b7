//! What the ladder showed: a table that is committed, one row a cell, in the order of the ladder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Cell;
use super::data::KINDS;
use super::stage::STAGES;
use crate::text;

const HEAD: &str =
    "stage\tdata\tmemory\tinput_mb\toutcome\tseconds\tpeak_rss_mb\tspilled_mb\trows_out\tversion\tcommit";

/// What a cell that passed says; anything else is what was wrong.
const RIGHT: &str = "right";

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// What was wrong.
    pub(super) wrong: Option<String>,
    /// Seconds, one digit.
    pub(super) seconds: String,
    /// The most memory that was resident, in MB, one digit.
    pub(super) peak_rss_mb: String,
    /// What was written to spill files, in MB, one digit.
    pub(super) spilled_mb: String,
    /// Rows that came out.
    pub(super) rows_out: u64,
    /// Of the binary, and of the checkout that it was run from.
    pub(super) build: Build,
}

/// Which program was run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Build {
    /// As the binary says it.
    pub(super) version: String,
    /// Of the checkout.
    pub(super) commit: String,
}

/// All that was shown, and the file that keeps it.
#[derive(Debug)]
pub(super) struct Results {
    path: PathBuf,
    shown: BTreeMap<Cell, Shown>,
}

impl Results {
    /// Reads what was shown so far.
    ///
    /// # Errors
    /// The file is there and is no such table.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut shown = BTreeMap::new();
        if path.exists() {
            let text = text::read(path)?;
            let mut lines = text.lines();
            ensure!(lines.next() == Some(HEAD), "{}: its head is not `{HEAD}`", path.display());
            for line in lines {
                let (cell, result) =
                    parse(line).with_context(|| format!("{}: `{line}` is no result", path.display()))?;
                shown.insert(cell, result);
            }
        }
        Ok(Self { path: path.to_owned(), shown })
    }

    /// Whether a cell is to be run: it never was, it failed, or it is asked again and was of another build.
    pub(super) fn is_due(&self, cell: &Cell, again: Option<&Build>) -> bool {
        self.shown
            .get(cell)
            .is_none_or(|shown| shown.wrong.is_some() || again.is_some_and(|build| shown.build != *build))
    }

    /// Adds a cell, and writes the table: beside it first, then in its place.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn add(&mut self, cell: Cell, shown: Shown) -> Result<()> {
        self.shown.insert(cell, shown);
        let rows: Vec<String> = self.shown.iter().map(|(cell, shown)| line(cell, shown)).collect();
        let unfinished = self.path.with_extension("part");
        text::write(&unfinished, &format!("{HEAD}\n{}\n", rows.join("\n")))?;
        Ok(std::fs::rename(unfinished, &self.path)?)
    }

    /// The cells among these that failed, and with what.
    pub(super) fn failed(&self, cells: &[Cell]) -> Vec<String> {
        let wrong = |cell: &Cell| Some(format!("{cell}: {}", self.shown.get(cell)?.wrong.as_ref()?));
        cells.iter().filter_map(wrong).collect()
    }

    /// How many of these passed.
    pub(super) fn n_right(&self, cells: &[Cell]) -> usize {
        cells.iter().filter(|cell| self.shown.get(cell).is_some_and(|shown| shown.wrong.is_none())).count()
    }
}

fn line(cell: &Cell, shown: &Shown) -> String {
    let outcome = shown.wrong.as_deref().unwrap_or(RIGHT).replace(['\t', '\n'], " ");
    [
        cell.stage.name(),
        cell.kind.name(),
        cell.memory(),
        &(cell.n_bytes / 1_000_000).to_string(),
        &outcome,
        &shown.seconds,
        &shown.peak_rss_mb,
        &shown.spilled_mb,
        &shown.rows_out.to_string(),
        &shown.build.version,
        &shown.build.commit,
    ]
    .join("\t")
}

fn parse(line: &str) -> Option<(Cell, Shown)> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [stage, kind, memory, input_mb, outcome, seconds, peak, spilled, rows_out, version, commit] =
        fields[..]
    else {
        return None;
    };
    let cell = Cell {
        stage: *STAGES.iter().find(|it| it.name() == stage)?,
        kind: *KINDS.iter().find(|it| it.name() == kind)?,
        memory_mb: super::MEMORIES.iter().find(|it| super::memory_name(**it) == memory).copied()?,
        n_bytes: input_mb.parse::<u64>().ok()?.checked_mul(1_000_000)?,
    };
    let shown = Shown {
        wrong: (outcome != RIGHT).then(|| outcome.to_owned()),
        seconds: seconds.to_owned(),
        peak_rss_mb: peak.to_owned(),
        spilled_mb: spilled.to_owned(),
        rows_out: rows_out.parse().ok()?,
        build: Build { version: version.to_owned(), commit: commit.to_owned() },
    };
    Some((cell, shown))
}

#[cfg(test)]
mod tests {
    use super::super::data::Kind;
    use super::super::stage::Stage;
    use super::*;

    fn build(commit: &str) -> Build {
        Build { version: "aqueduct 0.1.0".into(), commit: commit.into() }
    }

    fn shown(wrong: Option<&str>) -> Shown {
        let [seconds, peak_rss_mb, spilled_mb] = ["1.5", "90.1", "0.0"].map(str::to_owned);
        let wrong = wrong.map(str::to_owned);
        Shown { wrong, seconds, peak_rss_mb, spilled_mb, rows_out: 7, build: build("abc") }
    }

    #[test]
    fn results_are_taken_up_again_and_only_what_is_due_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proofs/ladder.tsv");
        let cell = |kind| Cell { stage: Stage::Tile, kind, memory_mb: 1000, n_bytes: 100_000_000 };
        let [right, wrong, new] = [Kind::Narrow, Kind::Spread, Kind::Few].map(cell);
        let mut results = Results::read(&path).unwrap();
        results.add(wrong, shown(Some("peak\tRSS"))).unwrap();
        results.add(right, shown(None)).unwrap();
        let again = Results::read(&path).unwrap();
        assert_eq!(again.shown.get(&right), Some(&shown(None)));
        assert_eq!(again.failed(&[right, wrong, new]), ["tile spread 1GB of 100 MB: peak RSS"]);
        assert_eq!(again.n_right(&[right, wrong, new]), 1);
        assert_eq!([right, wrong, new].map(|cell| again.is_due(&cell, None)), [false, true, true]);
        assert!(!again.is_due(&right, Some(&build("abc"))) && again.is_due(&right, Some(&build("def"))));
    }

    #[test]
    fn a_table_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ladder.tsv");
        text::write(&path, "stage\n").unwrap();
        assert!(Results::read(&path).unwrap_err().to_string().contains("its head is not"));
        text::write(&path, &format!("{HEAD}\nsort\tnarrow\n")).unwrap();
        assert!(Results::read(&path).unwrap_err().to_string().contains("is no result"));
    }
}
