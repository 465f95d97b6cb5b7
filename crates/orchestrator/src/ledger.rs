//! The ledger: one report a run, kept in the state folder.

use std::path::{Path, PathBuf};

use aqueduct_core::{Error, Fs, Result};

use crate::report::{Report, Status};

/// More runs than this are forgotten, the oldest first.
const MAX_KEPT_RUNS: usize = 1000;
/// A report larger than this is not one of ours.
const MAX_REPORT_BYTES: u64 = 4 << 20;

/// The runs of the flows of one state folder.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    fs: &'a dyn Fs,
    folder: PathBuf,
}

impl<'a> Ledger<'a> {
    /// The ledger in a state folder, which need not be there yet.
    pub(crate) fn new(fs: &'a dyn Fs, state_dir: &Path) -> Self {
        Self { fs, folder: state_dir.join("runs") }
    }

    /// Keeps a report: whole or not at all.
    pub(crate) fn keep(&self, report: &Report) -> Result<()> {
        let path = self.folder.join(format!("{}.json", report.run_id));
        let failed = |error| Error::io("keep report", path.display(), error);
        self.fs.create_dir_all(&self.folder).map_err(failed)?;
        let staged = path.with_extension("part");
        let text = serde_json::to_vec_pretty(report).map_err(|error| failed(error.into()))?;
        self.fs.create_new(&staged).and_then(|mut file| file.write_all(&text)).map_err(failed)?;
        self.fs.rename(&staged, &path).map_err(failed)?;
        self.forget_oldest()
    }

    /// The oldest reports, beyond the number that is kept.
    pub(crate) fn too_many(&self) -> Result<Vec<PathBuf>> {
        let mut kept = self.files()?;
        kept.truncate(kept.len().saturating_sub(MAX_KEPT_RUNS));
        Ok(kept)
    }

    fn forget_oldest(&self) -> Result<()> {
        for path in &self.too_many()? {
            self.fs.remove_file(path).map_err(|error| Error::io("forget run", path.display(), error))?;
        }
        Ok(())
    }

    /// Every run, the oldest first. What cannot be read is left out.
    pub(crate) fn runs(&self) -> Result<Vec<Report>> {
        Ok(self.files()?.iter().filter_map(|path| self.read(path)).collect())
    }

    /// How the flow, or this entry of its matrix, ended the last time that it ended by itself. Of a run that goes on, its
    /// end before counts.
    pub(crate) fn status_before(&self, report: &Report) -> Result<Option<Status>> {
        let is_its = |earlier: &Report| {
            earlier.flow == report.flow
                && earlier.entry == report.entry
                && earlier.status != Status::Interrupted
        };
        let files = self.files()?;
        let earlier = files.iter().rev().filter_map(|path| self.read(path)).find(is_its);
        Ok(earlier.map(|earlier| earlier.status))
    }

    /// The run whose name begins so, if exactly one does.
    pub(crate) fn run(&self, name: &str) -> Result<Option<Report>> {
        let matches =
            |path: &&PathBuf| path.file_stem().is_some_and(|stem| stem.to_string_lossy().starts_with(name));
        let files = self.files()?;
        let mut found = files.iter().filter(matches);
        Ok(match (found.next(), found.next()) {
            (Some(path), None) => self.read(path),
            _ => None,
        })
    }

    fn read(&self, path: &Path) -> Option<Report> {
        serde_json::from_slice(&self.fs.read(path, MAX_REPORT_BYTES).ok()?).ok()
    }

    /// The report files by name, which is by time.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let failed = |error| Error::io("read runs", self.folder.display(), error);
        if self.fs.stat(&self.folder).map_err(failed)?.is_none() {
            return Ok(Vec::new());
        }
        let entries = self.fs.list(&self.folder).map_err(failed)?;
        Ok(entries
            .into_iter()
            .map(|entry| entry.path)
            .filter(|path| path.extension().is_some_and(|x| x == "json"))
            .collect())
    }
}
