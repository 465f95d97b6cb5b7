//! A flow as small as one can be: three splits, two outputs, sinks that write numbers as lines of text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_commit::{Began, Counts, End, Epoch, FlowLog, Letter, Mode, NewRun, Start, Target, Transaction};
use aqueduct_core::collections::{Extent, Extents};
use aqueduct_core::{Error, Fs, Output, Part, Positions, Result, is_in_store};
use chrono::{DateTime, Utc};

use crate::notes::Notes;

pub(crate) const N_SPLITS: u64 = 3;
/// Where outputs are.
pub(crate) const LAKE: &str = "/lake";
pub(crate) const IN_STORE: &str = "s3://lake/data";
/// Where logs are.
pub(crate) const STATE: &str = "/state/flows";
pub(crate) const STATE_IN_STORE: &str = "s3://lake/state/flows";
/// Where rejected rows are.
pub(crate) const LETTERS: &str = "/lake/rejected";
/// Rows in a split, for each of its two parts.
const ROWS_IN_PART: u64 = 2;

/// Where the rows of a flow go, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) mode: Mode,
    pub(crate) is_file: bool,
    pub(crate) is_in_store: bool,
}

impl Shape {
    /// The same in an object store.
    pub(crate) const fn in_store(self) -> Self {
        Self { is_in_store: true, ..self }
    }
}

/// A flow over two outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) name: &'static str,
    /// Where its log is.
    pub(crate) state: &'static str,
    /// Whether each of its runs is on a machine that knows nothing of the others.
    pub(crate) is_elsewhere: bool,
    /// How many records lie between two checkpoints.
    pub(crate) checkpoint_every: u64,
    pub(crate) outputs: [Shape; 2],
}

/// One run's worth of rows: those of `first`, `first + 1` and so on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) run_id: &'static str,
    pub(crate) first: u64,
}

impl Work {
    /// All rows of the run.
    pub(crate) fn rows(self) -> BTreeSet<u64> {
        (0..N_SPLITS).flat_map(|split| self.of_split(split)).collect()
    }

    pub(crate) fn of_split(self, split: u64) -> std::ops::Range<u64> {
        let n_rows = 2 * ROWS_IN_PART;
        self.first + split * n_rows..self.first + (split + 1) * n_rows
    }

    /// In an output that is updated, the folder of one half of each split.
    pub(crate) fn folder(self, half: usize) -> String {
        let folders = match self.first {
            0 => [0, 2],
            100 => [0, 1],
            200 => [1, 2],
            300 => [0, 3],
            _ => [3, 3],
        };
        format!("k={}", folders[half])
    }

    /// The folders of which nothing stays that was there before; a merge may leave one without rows.
    pub(crate) fn replaced(self, mode: Mode) -> BTreeSet<String> {
        let emptied = (mode == Mode::Merge && self.first == 0).then(|| "k=1".to_owned());
        [self.folder(0), self.folder(1)].into_iter().chain(emptied).collect()
    }

    /// The rows of one half of each split.
    pub(crate) fn of_half(self, half: usize) -> impl Iterator<Item = u64> {
        let of =
            move |split| self.of_split(split).zip(0..).filter(move |(_, n)| n / ROWS_IN_PART == half as u64);
        (0..N_SPLITS).flat_map(of).map(|(row, _)| row)
    }

    /// The split that a row is of, if it is of this run.
    pub(crate) fn split_of(self, row: u64) -> Option<u64> {
        (0..N_SPLITS).find(|split| self.of_split(*split).contains(&row))
    }
}

pub(crate) fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

impl Flow {
    /// Where an output is.
    pub(crate) fn path(&self, target: usize) -> PathBuf {
        let suffix = if self.outputs[target].is_file { ".txt" } else { "" };
        let lake = if self.outputs[target].is_in_store { IN_STORE } else { LAKE };
        PathBuf::from(format!("{lake}/out-{target}{suffix}"))
    }

    /// The folder of its state.
    pub(crate) fn dir(&self) -> PathBuf {
        Path::new(self.state).join(self.name)
    }

    fn new_run(&self, work: Work) -> NewRun {
        let target = |at: usize| Target {
            output: Output {
                path: self.path(at),
                is_file: self.outputs[at].is_file,
                allow_empty: false,
                mode: None,
            },
            mode: self.outputs[at].mode,
            is_filled_last: false,
        };
        NewRun {
            flow: self.name.into(),
            run_id: work.run_id.into(),
            now: now(),
            identity: BTreeMap::from([("first".into(), work.first.to_string())]),
            fixed: BTreeMap::new(),
            targets: vec![target(0), target(1)],
        }
    }

    pub(crate) fn open(&self, fs: &Arc<dyn Fs>) -> Result<FlowLog> {
        let log = FlowLog::open(fs, &self.dir())?;
        Ok(log.with_local_dir(&self.local_dir()).with_checkpoint_every(self.checkpoint_every))
    }

    /// Where a machine keeps what it has of the state.
    pub(crate) fn local_dir(&self) -> PathBuf {
        Path::new(STATE).join(self.name)
    }

    /// One run, as a process does it: from where an earlier one stopped, and cleaned up when something fails.
    pub(crate) fn run(&self, fs: &Arc<dyn Fs>, work: Work) -> Result<()> {
        if self.is_elsewhere {
            let local = self.local_dir();
            fs.remove_dir_all(&local).map_err(|error| Error::io("move", local.display(), error))?;
        }
        let mut transaction = self.open(fs)?.begin(self.new_run(work), Start::Resume)?;
        let worked = self.work(fs, &mut transaction, work);
        let closed = transaction.close();
        worked.and(closed)
    }

    fn work(&self, fs: &Arc<dyn Fs>, transaction: &mut Transaction, work: Work) -> Result<()> {
        let done = match transaction.began() {
            Began::Resumed(resumed) => resumed.positions.get("source").cloned().unwrap_or_default(),
            _ => Positions::default(),
        };
        let is_done: Vec<_> = (0..N_SPLITS).filter(|split| done.is_done(&split.to_string())).collect();
        let open = || Notes::open(fs, &self.local_dir(), transaction, &is_done);
        let mut notes = is_in_store(Path::new(self.state)).then(open).transpose()?;
        for split in (0..N_SPLITS).filter(|split| !done.is_done(&split.to_string())) {
            let end = if split + 1 == N_SPLITS { End::Finish } else { End::GoOn };
            let mut parts = Vec::new();
            for target in 0..self.outputs.len() {
                parts.push(self.write(fs, transaction, target, work, split)?);
            }
            let positions = BTreeMap::from([("source".into(), Positions::done(split.to_string()))]);
            let rows = (split + 1) * 2 * ROWS_IN_PART;
            let counts = Counts { rows_in: rows, rows_out: rows, ..Counts::default() };
            let letters = vec![self.letter(fs, transaction, work, split)?];
            let mut kept = BTreeMap::from([("step".into(), work.first.into())]);
            if let Some(notes) = &mut notes {
                let text = format!("{}-{split}", transaction.run_id());
                kept.insert("notes".into(), notes.note(split, &text)?);
            }
            let updated = self.outputs.iter().enumerate().filter(|(_, shape)| shape.mode.updates());
            let replaced = updated.map(|(at, shape)| (at, work.replaced(shape.mode))).collect();
            let epoch = Epoch { parts, positions, counts, kept, letters, replaced, ..Epoch::default() };
            let committed = transaction.commit(epoch, end, now())?;
            if let Some(error) = committed.pending {
                return Err(error);
            }
        }
        Ok(())
    }

    /// One row of each split is bad.
    fn letter(&self, fs: &Arc<dyn Fs>, transaction: &Transaction, work: Work, split: u64) -> Result<Letter> {
        let name = format!("{}-{}-{split}", transaction.run_id(), transaction.opening());
        let staged = PathBuf::from("/lake/rejected/_aqueduct").join(&name);
        let write = || {
            fs.create_dir_all(Path::new("/lake/rejected/_aqueduct"))?;
            let mut file = fs.create_new(&staged)?;
            writeln!(file, "{}", work.of_split(split).start)?;
            file.sync()?;
            fs.sync_dir(Path::new("/lake/rejected/_aqueduct"))?;
            fs.sync_dir(Path::new("/lake/rejected"))?;
            fs.sync_dir(Path::new("/lake"))
        };
        write().map_err(|error| Error::io("reject", staged.display(), error))?;
        Ok(Letter { staged, public: Path::new(LETTERS).join(name) })
    }

    /// What a sink seals: two parts in a folder; of one file all that there is, at the end.
    fn write(
        &self,
        fs: &Arc<dyn Fs>,
        transaction: &Transaction,
        target: usize,
        work: Work,
        split: u64,
    ) -> Result<Vec<Part>> {
        let dir = transaction.stage_dir(target).expect("a target").to_owned();
        let rows: Vec<_> = work.of_split(split).collect();
        if !self.outputs[target].is_file {
            let folder = |at: usize| match self.outputs[target].mode.updates() {
                true => work.folder(at),
                false => format!("k={}", at % 2),
            };
            let named = |at: usize| format!("{}/part-{}-{split}-{at}.txt", folder(at), transaction.run_id());
            let halves = rows.chunks(rows.len() / 2).enumerate();
            return halves.map(|(at, rows)| write_part(&**fs, &dir, &named(at), &lines(rows))).collect();
        }
        let name = self.path(target).file_name().expect("a name").to_string_lossy().into_owned();
        if self.outputs[target].is_in_store {
            return self.write_to_store(fs, transaction, target, (work, split));
        }
        if split + 1 < N_SPLITS {
            return Ok(vec![write_part(&**fs, &dir, &format!("{split}-{name}"), &lines(&rows))?]);
        }
        let mut text = String::new();
        if self.outputs[target].mode == Mode::Append && transaction.previous(target).is_some() {
            text.push_str(&read(&**fs, &self.path(target))?);
        }
        for staged in transaction.staged(target)? {
            text.push_str(&read(&**fs, &staged)?);
        }
        text.push_str(&lines(&rows));
        Ok(vec![write_part(&**fs, &dir, &name, &text)?])
    }

    /// What was sent cannot be read before it appears: one file is written whole, at the end.
    fn write_to_store(
        &self,
        fs: &Arc<dyn Fs>,
        transaction: &Transaction,
        target: usize,
        (work, split): (Work, u64),
    ) -> Result<Vec<Part>> {
        if split + 1 < N_SPLITS {
            return Ok(Vec::new());
        }
        let name = self.path(target).file_name().expect("a name").to_string_lossy().into_owned();
        let mut text = String::new();
        if self.outputs[target].mode == Mode::Append && transaction.previous(target).is_some() {
            text.push_str(&read(&**fs, &self.path(target))?);
        }
        text.push_str(&lines(&work.rows().into_iter().collect::<Vec<_>>()));
        Ok(vec![write_part(&**fs, transaction.stage_dir(target).expect("a target"), &name, &text)?])
    }
}

fn lines(rows: &[u64]) -> String {
    rows.iter().fold(String::new(), |mut text, row| {
        writeln!(text, "{row}").expect("a string takes everything");
        text
    })
}

fn read(fs: &dyn Fs, path: &Path) -> Result<String> {
    let bytes = fs.read(path, 1 << 20).map_err(|error| Error::io("read", path.display(), error))?;
    Ok(String::from_utf8(bytes).expect("lines of text"))
}

/// Of a collection that has all rows, at the instants that they are.
fn extents(text: &str) -> Extents {
    let mut extents = Extents::default();
    for row in text.lines() {
        let at = row.parse().ok().and_then(|at| DateTime::from_timestamp(at, 0));
        extents.add("rows", &Extent { items: 1, bbox: None, from: at, to: at });
    }
    extents
}

fn write_part(fs: &dyn Fs, dir: &Path, name: &str, text: &str) -> Result<Part> {
    let staged = dir.join(name);
    let write = || {
        fs.create_dir_all(staged.parent().expect("a folder"))?;
        let mut file = fs.create_new(&staged)?;
        file.write_all(text.as_bytes())?;
        file.sync()
    };
    write().map_err(|error| Error::io("write", staged.display(), error))?;
    Ok(Part {
        name: name.to_owned(),
        rows: text.lines().count() as u64,
        n_bytes: text.len() as u64,
        blake3: blake3::hash(text.as_bytes()).to_hex().to_string(),
        extents: Some(extents(text)),
        staged,
    })
}
