//! The flow's policy for bad rows and files: fail, count, or keep aside.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_commit::{End, Letter};
use aqueduct_core::{
    Error, ErrorKind, Fs, FsFile, Reject, RejectPolicy, RejectedItem, Result, StepMetrics, kill_point,
};
use serde_json::json;

use crate::flow::{MaxRejected, OnError};

/// A share of rejected rows is judged from so many rows on.
const JUDGED_FROM_ROWS: u64 = 1000;
/// A share of rejected files is judged from so many files on.
const JUDGED_FROM_FILES: u64 = 10;
/// Every so many rejected items, a line says so; the first few are said one by one.
const SAID_ONE_BY_ONE: u64 = 20;

/// What to do with the bad items of each step.
pub(crate) struct Rejects {
    default: Policy,
    by_step: HashMap<String, Policy>,
    max: MaxRejected,
    fs: Arc<dyn Fs>,
    /// Begins the names of files; no other process has it.
    part_run: String,
    state: Mutex<State>,
}

/// What to do with the bad items of one step.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) on_error: OnError,
    /// The folder for what is kept aside.
    pub(crate) folder: PathBuf,
}

#[derive(Default)]
struct State {
    n_rows: u64,
    n_files: u64,
    by_reason: BTreeMap<String, u64>,
    /// One file a folder, under `_aqueduct/` until the run commits.
    letters: HashMap<PathBuf, Letters>,
    /// Durable, and not known to be public.
    sealed: Vec<Letter>,
    /// How often files were sealed.
    n_seals: u64,
}

/// What is kept aside in one folder, being written.
struct Letters {
    place: Letter,
    /// Folders in which something was made for it.
    changed: Vec<PathBuf>,
    file: std::io::BufWriter<Box<dyn FsFile>>,
}

impl std::fmt::Debug for Rejects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rejects")
            .field("default", &self.default)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl RejectPolicy for Rejects {
    /// Writes a line of a few KiB, buffered, where it is called; only [`Rejects::seal`] waits until it is durable.
    fn reject(&self, step: &str, reject: Reject) -> Result<()> {
        let policy = self.by_step.get(step).unwrap_or(&self.default);
        if policy.on_error == OnError::Fail {
            return Err(reject.into_error().with("step", step));
        }
        let mut state = self.lock();
        let n = state.count(&reject);
        if n <= SAID_ONE_BY_ONE || reject.item == RejectedItem::File {
            tracing::warn!(step, at = %reject.origin, reason = reject.reason, "rejected: {}", reject.message);
        }
        if policy.on_error == OnError::DeadLetter {
            state.keep(step, &reject, &policy.folder, &*self.fs, &self.part_run)?;
        }
        let total = state.n_rows + state.n_files;
        match self.max {
            MaxRejected::Count(max) if total > max => {
                Err(self.too_many(format!("{total} items, the last: {}: {}", reject.origin, reject.message)))
            }
            _ => Ok(()),
        }
    }
}

impl Rejects {
    /// The flow's policy, and those of steps that have their own.
    pub(crate) fn new(
        default: Policy,
        by_step: HashMap<String, Policy>,
        max: MaxRejected,
        fs: Arc<dyn Fs>,
        part_run: String,
    ) -> Self {
        Self { default, by_step, max, fs, part_run, state: Mutex::default() }
    }

    /// Goes on from what was rejected before.
    pub(crate) fn add_all(&self, by_reason: &BTreeMap<String, u64>, n_rows: u64, n_files: u64) {
        let mut state = self.lock();
        (state.n_rows, state.n_files) = (n_rows, n_files);
        state.by_reason.clone_from(by_reason);
    }

    /// Rejected items by reason.
    pub(crate) fn by_reason(&self) -> BTreeMap<String, u64> {
        self.lock().by_reason.clone()
    }

    /// Judges a step before a commit: a share beyond the limit fails the run; at its end, so do rows of which all were
    /// rejected.
    pub(crate) fn judge(&self, step: &str, is_source: bool, metrics: &StepMetrics, end: End) -> Result<()> {
        let (rows_rejected, files_rejected) = (metrics.rows_rejected.get(), metrics.files_rejected.get());
        let rows_in = if is_source { metrics.rows_read() } else { metrics.rows_in.get() };
        let files_in = metrics.files_done.get() + files_rejected;
        // A file of which every row is bad has been read to its end, and gave nothing all the same.
        let no_file = files_rejected > 0 && metrics.files_done.get() == 0;
        if end == End::Finish && rows_rejected >= rows_in && (rows_rejected > 0 || no_file) {
            return Err(self.too_many(format!("all that step `{step}` read")));
        }
        let MaxRejected::Percent(percent) = self.max else { return Ok(()) };
        #[expect(clippy::cast_precision_loss, reason = "a share of counts needs no more digits")]
        let beyond =
            |part: u64, whole: u64, from: u64| whole >= from && part as f64 > whole as f64 * percent / 100.0;
        if beyond(rows_rejected, rows_in, JUDGED_FROM_ROWS) {
            return Err(self.too_many(format!("{rows_rejected} of {rows_in} rows of step `{step}`")));
        }
        if beyond(files_rejected, files_in, JUDGED_FROM_FILES) {
            return Err(self.too_many(format!("{files_rejected} of {files_in} files of step `{step}`")));
        }
        Ok(())
    }

    fn too_many(&self, what: String) -> Error {
        Error::new(
            ErrorKind::Limit,
            "run",
            format!("too many rejected: {what}; mend the input or raise `max_rejected`"),
        )
        .with("max_rejected", shown(self.max))
    }

    /// Makes what was kept aside since the last call durable, all of it even if some fails; with what was sealed before
    /// and is not public yet. To be called before a commit: rows must not be in neither. Blocks.
    pub(crate) fn seal(&self) -> Result<Vec<Letter>> {
        let mut state = self.lock();
        let letters: Vec<_> = state.letters.drain().map(|(_, letters)| letters).collect();
        let mut result = Ok(());
        for mut one in letters {
            let sealed = one.file.flush().and_then(|()| one.file.get_mut().sync());
            kill_point("letters.file.synced");
            let folders = || one.changed.iter().try_for_each(|folder| self.fs.sync_dir(folder));
            let sealed = sealed.and_then(|()| folders());
            kill_point("letters.folders.synced");
            result = result.and(sealed.map_err(|error| failed(&one.place.staged, error)));
            state.sealed.push(one.place);
        }
        state.n_seals += 1;
        result.map(|()| state.sealed.clone())
    }

    /// A commit has made public what was sealed.
    pub(crate) fn are_public(&self) {
        self.lock().sealed.clear();
    }

    /// After a failed run: says where what was sealed is left.
    pub(crate) fn leave(&self) {
        for place in std::mem::take(&mut self.lock().sealed) {
            tracing::info!(path = %place.staged.display(), "rejected items of the failed run are kept");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::io("keep rejected", path.display(), error)
}

fn shown(max: MaxRejected) -> String {
    match max {
        MaxRejected::Count(count) => count.to_string(),
        MaxRejected::Percent(percent) => format!("{percent}%"),
    }
}

impl State {
    fn count(&mut self, reject: &Reject) -> u64 {
        *self.by_reason.entry(reject.reason.to_owned()).or_default() += 1;
        let n = match reject.item {
            RejectedItem::Row => &mut self.n_rows,
            _ => &mut self.n_files,
        };
        *n += 1;
        *n
    }

    fn keep(
        &mut self,
        step: &str,
        reject: &Reject,
        folder: &Path,
        fs: &dyn Fs,
        part_run: &str,
    ) -> Result<()> {
        if !self.letters.contains_key(folder) {
            let name = match self.n_seals {
                0 => format!("rejected-{part_run}.ndjson"),
                n => format!("rejected-{part_run}-{n:05}.ndjson"),
            };
            self.letters.insert(folder.to_owned(), Letters::create(folder, fs, name)?);
        }
        let Some(letters) = self.letters.get_mut(folder) else { return Ok(()) };
        let line = json!({
            "reason": reject.reason,
            "message": reject.message,
            "origin": reject.origin,
            "step": step,
            "run": part_run,
            "raw": String::from_utf8_lossy(&reject.raw),
        });
        writeln!(letters.file, "{line}").map_err(|error| failed(&letters.place.staged, error))
    }
}

impl Letters {
    fn create(folder: &Path, fs: &dyn Fs, name: String) -> Result<Self> {
        let own = folder.join("_aqueduct");
        let staged = own.join(&name);
        let made = own.ancestors().take_while(|folder| !matches!(fs.stat(folder), Ok(Some(_))));
        let above = made.filter_map(Path::parent).map(|above| match above.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => above.to_owned(),
        });
        let changed = std::iter::once(own.clone()).chain(above).collect();
        let file = fs.create_dir_all(&own).and_then(|()| fs.create_new(&staged));
        let file = file.map_err(|error| failed(&staged, error))?;
        kill_point("letters.file.created");
        let place = Letter { staged, public: folder.join(name) };
        Ok(Self { place, changed, file: std::io::BufWriter::new(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_core::{Origin, StdFs};

    fn reject(rejects: &Rejects, step: &str) {
        let item = RejectedItem::Row;
        let (message, origin, raw) = (String::new(), Origin::default(), Vec::new());
        rejects.reject(step, Reject { item, reason: "json", message, origin, raw }).unwrap();
    }

    #[test]
    fn what_was_kept_aside_goes_with_the_next_commit_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let to = |name: &str| Policy { on_error: OnError::DeadLetter, folder: dir.path().join(name) };
        let steps = ["a", "b"].map(|step| (step.to_owned(), to(step)));
        let none = MaxRejected::Count(u64::MAX);
        let rejects = Rejects::new(to("other"), steps.into(), none, Arc::new(StdFs), "run".into());
        let names = |letters: Vec<Letter>| {
            let name =
                |letter: &Letter| letter.public.strip_prefix(dir.path()).unwrap().display().to_string();
            let mut names: Vec<_> = letters.iter().map(name).collect();
            names.sort();
            names
        };
        assert!(rejects.seal().unwrap().is_empty());
        reject(&rejects, "a");
        reject(&rejects, "b");
        let sealed = rejects.seal().unwrap();
        for letter in &sealed {
            let text = StdFs.read(&letter.staged, 1 << 20).unwrap();
            assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 1);
        }
        assert_eq!(names(sealed), ["a/rejected-run-00001.ndjson", "b/rejected-run-00001.ndjson"]);
        reject(&rejects, "a");
        assert_eq!(names(rejects.seal().unwrap()).len(), 3, "the first two are not known to be public");
        rejects.are_public();
        reject(&rejects, "a");
        assert_eq!(names(rejects.seal().unwrap()), ["a/rejected-run-00003.ndjson"]);
    }
}
