//! The flow's policy for bad rows and files: fail, count, or keep aside.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_core::{Error, ErrorKind, Fs, FsFile, Reject, RejectPolicy, RejectedItem, Result, StepMetrics};
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
    run_id: String,
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
    sealed: Vec<Place>,
}

/// What is kept aside in one folder, being written.
struct Letters {
    place: Place,
    file: std::io::BufWriter<Box<dyn FsFile>>,
}

/// Where what is kept aside lies before the run commits, and after it.
struct Place {
    staged: PathBuf,
    public: PathBuf,
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
            state.keep(step, &reject, &policy.folder, &*self.fs, &self.run_id)?;
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
        run_id: &str,
    ) -> Self {
        Self { default, by_step, max, fs, run_id: run_id.to_owned(), state: Mutex::default() }
    }

    /// Rejected items by reason.
    pub(crate) fn by_reason(&self) -> BTreeMap<String, u64> {
        self.lock().by_reason.clone()
    }

    /// Judges a step when all is read: all of its rows rejected fails the run, a share beyond the limit too.
    pub(crate) fn judge(&self, step: &str, is_source: bool, metrics: &StepMetrics) -> Result<()> {
        let (rows_rejected, files_rejected) = (metrics.rows_rejected.get(), metrics.files_rejected.get());
        let rows_in = if is_source { metrics.rows_out.get() + rows_rejected } else { metrics.rows_in.get() };
        let files_in = metrics.files_done.get() + files_rejected;
        // A file of which every row is bad has been read to its end, and gave nothing all the same.
        let no_file = files_rejected > 0 && metrics.files_done.get() == 0;
        if rows_rejected >= rows_in && (rows_rejected > 0 || no_file) {
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

    /// Makes what was kept aside durable, all of it even if some fails. To be called before any output becomes
    /// public: rows must not be in neither. Blocks.
    pub(crate) fn seal(&self) -> Result<()> {
        let mut state = self.lock();
        let letters: Vec<_> = state.letters.drain().map(|(_, letters)| letters).collect();
        let mut result = Ok(());
        for mut one in letters {
            let sealed = one.file.flush().and_then(|()| one.file.get_mut().sync());
            let sealed = sealed.and_then(|()| self.sync_parent(&one.place.staged));
            result = result.and(sealed.map_err(|error| failed(&one.place.staged, error)));
            state.sealed.push(one.place);
        }
        result
    }

    /// Makes what was sealed public, all of it even if some fails. Blocks.
    pub(crate) fn publish(&self) -> Result<()> {
        let places = std::mem::take(&mut self.lock().sealed);
        places.iter().map(|place| self.publish_one(place)).fold(Ok(()), Result::and)
    }

    fn publish_one(&self, place: &Place) -> Result<()> {
        let moved = self.fs.rename_no_replace(&place.staged, &place.public);
        let moved = moved.and_then(|()| self.sync_parent(&place.public));
        moved.map_err(|error| failed(&place.public, error).with("staged", place.staged.display()))
    }

    /// After a failed run: says where what was sealed is left.
    pub(crate) fn leave(&self) {
        for place in std::mem::take(&mut self.lock().sealed) {
            tracing::info!(path = %place.staged.display(), "rejected items of the failed run are kept");
        }
    }

    fn sync_parent(&self, path: &Path) -> std::io::Result<()> {
        path.parent().map_or(Ok(()), |folder| self.fs.sync_dir(folder))
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

    fn keep(&mut self, step: &str, reject: &Reject, folder: &Path, fs: &dyn Fs, run_id: &str) -> Result<()> {
        if !self.letters.contains_key(folder) {
            self.letters.insert(folder.to_owned(), Letters::create(folder, fs, run_id)?);
        }
        let Some(letters) = self.letters.get_mut(folder) else { return Ok(()) };
        let line = json!({
            "reason": reject.reason,
            "message": reject.message,
            "origin": reject.origin,
            "step": step,
            "raw": String::from_utf8_lossy(&reject.raw),
        });
        writeln!(letters.file, "{line}").map_err(|error| failed(&letters.place.staged, error))
    }
}

impl Letters {
    fn create(folder: &Path, fs: &dyn Fs, run_id: &str) -> Result<Self> {
        let own = folder.join("_aqueduct");
        let name = format!("rejected-{run_id}.ndjson");
        let staged = own.join(&name);
        let file = fs.create_dir_all(&own).and_then(|()| fs.create_new(&staged));
        let file = file.map_err(|error| failed(&staged, error))?;
        let place = Place { staged, public: folder.join(name) };
        Ok(Self { place, file: std::io::BufWriter::new(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_core::{Origin, StdFs};

    #[test]
    fn a_folder_that_fails_does_not_keep_the_others_from_the_public() {
        let dir = tempfile::tempdir().unwrap();
        let to = |name: &str| Policy { on_error: OnError::DeadLetter, folder: dir.path().join(name) };
        let steps = ["a", "b", "c"].map(|step| (step.to_owned(), to(step)));
        let none = MaxRejected::Count(u64::MAX);
        let rejects = Rejects::new(to("other"), steps.into(), none, Arc::new(StdFs), "run");
        for step in ["a", "b", "c"] {
            let item = RejectedItem::Row;
            let (message, origin, raw) = (String::new(), Origin::default(), Vec::new());
            rejects.reject(step, Reject { item, reason: "json", message, origin, raw }).unwrap();
        }
        rejects.seal().unwrap();
        std::fs::write(dir.path().join("b/rejected-run.ndjson"), "somebody else's").unwrap();
        let told = rejects.publish().unwrap_err().chain();
        assert!(told.contains("b/rejected-run.ndjson") && told.contains("b/_aqueduct/rejected"), "{told}");
        for step in ["a", "c"] {
            assert!(dir.path().join(step).join("rejected-run.ndjson").exists(), "{step}");
        }
    }
}
