//! What a step keeps in files, as far as the tests have steps: a file of the run that grows with each split, and one beyond the
//! run that is written anew.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_commit::Transaction;
use aqueduct_core::{Error, ErrorKind, Fs, FsFile, Result};
use serde_json::{Value, json};

/// More than any file of a test has.
const MAX_BYTES: u64 = 1 << 20;

/// The files of a run that has begun.
pub(crate) struct Notes {
    fs: Arc<dyn Fs>,
    folder: PathBuf,
    journal: Box<dyn FsFile>,
    /// Files that some value names.
    named: Vec<String>,
    kept: Value,
}

impl Notes {
    /// Looks whether all is there that commits of the run named, and goes on from it.
    pub(crate) fn open(fs: &Arc<dyn Fs>, local: &Path, run: &Transaction, done: &[u64]) -> Result<Self> {
        let kept = run.kept().get("notes").cloned().unwrap_or_default();
        let without = run.kept_without().get("notes").cloned().unwrap_or_default();
        let folder = local.join("steps/notes");
        let mut named = Vec::new();
        for value in [&kept, &without].into_iter().filter(|value| !value.is_null()) {
            let name = value["file"].as_str().expect("a name").to_owned();
            if read(&**fs, &folder.join(&name))? != value["text"].as_str().expect("a text") {
                return Err(lost(&folder.join(&name)));
            }
            named.push(name);
        }
        let made = fs.create_dir_all(&folder).and_then(|()| fs.list(&folder));
        for entry in made.map_err(|error| Error::io("open notes", folder.display(), error))? {
            if !named.iter().any(|name| entry.path.ends_with(name)) {
                fs.remove_file(&entry.path)
                    .map_err(|error| Error::io("sweep", entry.path.display(), error))?;
            }
        }
        let journal = journal(fs, &local.join("runs").join(run.run_id()).join("notes"), done)?;
        Ok(Self { fs: Arc::clone(fs), folder, journal, named, kept })
    }

    /// Notes that a split is done; the value to commit.
    pub(crate) fn note(&mut self, split: u64, text: &str) -> Result<Value> {
        let number = |name: &String| name.strip_prefix("seen-").and_then(|n| n.parse::<u64>().ok());
        let next = self.named.iter().filter_map(number).max().map_or(0, |newest| newest + 1);
        let name = format!("seen-{next}");
        let path = self.folder.join(&name);
        let mut write = || {
            writeln!(self.journal, "{split}")?;
            self.journal.sync()?;
            let mut file = self.fs.create_new(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync()?;
            self.fs.sync_dir(&self.folder)
        };
        write().map_err(|error| Error::io("note", path.display(), error))?;
        self.named.push(name.clone());
        self.kept = json!({ "file": name, "text": text });
        Ok(self.kept.clone())
    }
}

/// The lines of splits that are done, and a file to add to.
fn journal(fs: &Arc<dyn Fs>, folder: &Path, done: &[u64]) -> Result<Box<dyn FsFile>> {
    let path = folder.join("read");
    if !done.is_empty() {
        let text = read(&**fs, &path)?;
        if done.iter().any(|split| !text.lines().any(|line| line == split.to_string())) {
            return Err(lost(&path));
        }
    }
    let begin = || {
        fs.create_dir_all(folder)?;
        fs.remove_file(&path)?;
        let mut file = fs.create_new(&path)?;
        for split in done {
            writeln!(file, "{split}")?;
        }
        file.sync()?;
        fs.sync_dir(folder)?;
        Ok(file)
    };
    begin().map_err(|error: std::io::Error| Error::io("open notes", path.display(), error))
}

fn read(fs: &dyn Fs, path: &Path) -> Result<String> {
    let bytes = fs.read(path, MAX_BYTES).map_err(|error| Error::io("read notes", path.display(), error))?;
    String::from_utf8(bytes).map_err(|_| lost(path))
}

fn lost(path: &Path) -> Error {
    Error::new(ErrorKind::Conflict, "open notes", "what was kept is not there").with("path", path.display())
}
