//! What was shown, by build, shape of flow and way of killing: a table in the project.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::night::Shape;
use crate::process::{command, output};
use crate::text;
use crate::workspace::Workspace;

const HEADER: &str = "commit\tflow\tkilled\tkills\truns\tlooks\twrong";

/// What came of some nights. Whatever is wrong ends the soak with an error, so that there is no count of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Kills that hit a run.
    pub(super) kills: u64,
    /// Runs, killed or not.
    pub(super) runs: u64,
    /// How often a reader looked.
    pub(super) looks: u64,
}

impl Tally {
    pub(super) fn add(&mut self, more: Self) {
        self.kills += more.kills;
        self.runs += more.runs;
        self.looks += more.looks;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills, {} runs, {} looks: no row lost, none twice, none seen too early",
            self.kills, self.runs, self.looks
        )
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Results {
    path: PathBuf,
    commit: String,
    rows: BTreeMap<(String, String, String), Tally>,
}

impl Results {
    pub(super) fn read(path: &Path, workspace: &Workspace) -> Result<Self> {
        let commit = output(command("git", workspace.root()).args(["rev-parse", "--short", "HEAD"]))?;
        let text = if path.exists() { text::read(path)? } else { String::new() };
        let rows = text.lines().skip(1).map(row).collect::<Result<_>>()?;
        Ok(Self { path: path.to_owned(), commit: commit.trim().to_owned(), rows })
    }

    pub(super) fn has(&self, shape: Shape, killed: &str) -> bool {
        self.rows.contains_key(&self.key(shape, killed))
    }

    pub(super) fn n_kills(&self, shape: Shape, killed: &str) -> u64 {
        self.rows.get(&self.key(shape, killed)).map_or(0, |tally| tally.kills)
    }

    /// Adds what was shown, and keeps it.
    pub(super) fn add(&mut self, shape: Shape, killed: &str, tally: Tally) -> Result<()> {
        self.rows.entry(self.key(shape, killed)).or_default().add(tally);
        let mut text = format!("{HEADER}\n");
        for ((commit, flow, killed), Tally { kills, runs, looks }) in &self.rows {
            text.push_str(&format!("{commit}\t{flow}\t{killed}\t{kills}\t{runs}\t{looks}\t0\n"));
        }
        text::write(&self.path, &text)
    }

    pub(super) fn told(&self) -> Tally {
        let mut all = Tally::default();
        self.rows.values().for_each(|tally| all.add(*tally));
        all
    }

    fn key(&self, shape: Shape, killed: &str) -> (String, String, String) {
        (self.commit.clone(), shape.name().to_owned(), killed.to_owned())
    }
}

fn row(line: &str) -> Result<((String, String, String), Tally)> {
    let mut fields = line.split('\t');
    let mut field = || fields.next().context("a line of the table is cut off");
    let key = (field()?.to_owned(), field()?.to_owned(), field()?.to_owned());
    let mut count = || Ok::<u64, anyhow::Error>(field()?.parse()?);
    Ok((key, Tally { kills: count()?, runs: count()?, looks: count()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_is_taken_up_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kills.tsv");
        let workspace = Workspace::find().unwrap();
        let tally = Tally { kills: 3, runs: 8, looks: 200 };
        let mut results = Results::read(&path, &workspace).unwrap();
        assert!(!results.has(Shape::Append, "fsync"));
        results.add(Shape::Append, "fsync", tally).unwrap();
        results.add(Shape::Append, "fsync", tally).unwrap();
        let again = Results::read(&path, &workspace).unwrap();
        assert_eq!((again.n_kills(Shape::Append, "fsync"), again.told().looks), (6, 400));
        assert!(row("a\tb\tc\t1\t2").is_err());
    }
}
