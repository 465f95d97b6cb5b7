//! One night: new input, a run that is killed, made again, and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use super::results::Tally;
use crate::bench::Bench;
use crate::bench::file_server::FileServer;
use crate::measure::measure_for;
use crate::text;

const FILES: u64 = 6;
const ROWS_IN_FILE: u64 = 4000;
const ROWS_IN_NIGHT: u64 = FILES * ROWS_IN_FILE;
/// Every so many rows, one is no JSON.
const ROWS_PER_BAD: u64 = 1000;
/// Every so many rows, one of the night before comes once more, where steps know what they have seen.
const ROWS_PER_SEEN: u64 = 10;
/// So slowly do rows pass where commits before the end are wanted: there are some, however fast the machine is.
const SLOWLY: &str = "throttle: { rows: 4000, per: 20ms }";
/// How long the reader waits between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
/// No part of an output is larger.
const MAX_PART_BYTES: u64 = 64 << 20;
/// A folder is not replaced more often than this while it is read.
const MAX_READS: usize = 100;
/// No run takes longer.
const MAX_PER_RUN: Duration = Duration::from_secs(60);

/// What a flow does with the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// They replace those of the night before.
    Replace,
    /// They are added to those of the nights before.
    Append,
    /// Fetched over HTTP and sorted, they replace those of the night before.
    Sorted,
    /// They are one file, which replaces that of the night before.
    OneFile,
    /// They are a partition, which is new or replaces that of the night before; the others stay.
    Updated,
    /// Those that no night had are added.
    Unseen,
}

/// Those that are killed at random and at system calls.
pub(super) const SHAPES: [Shape; 3] = [Shape::Replace, Shape::Append, Shape::Sorted];

/// Those that pass every named point between them.
pub(super) const ALL_SHAPES: [Shape; 6] =
    [Shape::Replace, Shape::Append, Shape::Sorted, Shape::OneFile, Shape::Updated, Shape::Unseen];

impl Shape {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Append => "append",
            Self::Sorted => "sorted",
            Self::OneFile => "one file",
            Self::Updated => "updated",
            Self::Unseen => "unseen",
        }
    }

    fn flow(self, input: &str) -> String {
        let paths: Vec<_> = (0..FILES).map(|file| format!("\"{input}-{file}.ndjson\"")).collect();
        let stages = match self {
            Self::Replace | Self::Append | Self::OneFile => String::new(),
            Self::Sorted => "{ sort: { by: [\"id desc\"] } }".to_owned(),
            Self::Updated => format!("{{ {SLOWLY} }}"),
            Self::Unseen => format!("{{ {SLOWLY} }}, {{ unseen: {{ keys: [id] }} }}"),
        };
        let sink = match self {
            Self::Replace | Self::Sorted => "path: out, mode: replace",
            Self::Append | Self::Unseen => "path: out, mode: append",
            Self::OneFile => "path: out/rows.ndjson, mode: replace",
            Self::Updated => "path: out, mode: replace_partitions, partition_by: [night]",
        };
        let columns = if self == Self::Updated { "id: int64, night: int64" } else { "id: int64" };
        format!(
            "name: kills\nmemory: 64MB\ncommit: {{ every: 20ms }}\n\
             execution: {{ on_error: dead_letter }}\n\
             source: {{ files: {{ paths: [{}], schema: {{ {columns} }}, window: 2 }} }}\n\
             stages: [{stages}]\nsink: {{ ndjson: {{ {sink} }} }}\n",
            paths.join(", ")
        )
    }

    /// A good row, as the input has it.
    fn line(self, id: u64) -> String {
        match self {
            Self::Updated => format!("{{\"id\":{id},\"night\":{}}}\n", partition(id)),
            _ => format!("{{\"id\":{id}}}\n"),
        }
    }

    /// Whether rows appear as they are committed, not all at once.
    fn adds(self) -> bool {
        matches!(self, Self::Append | Self::Unseen)
    }

    /// Where a run stages, below the flow's folder.
    fn staged(self) -> &'static str {
        if self == Self::OneFile { "out/_aqueduct/rows.ndjson" } else { "_aqueduct/out" }
    }
}

/// The partition of a row. Every second night replaces that of the night before, and always one stays.
fn partition(id: u64) -> u64 {
    (id / ROWS_IN_NIGHT).div_ceil(2)
}

/// When a run is killed.
pub(super) enum Kill {
    /// After so long.
    After(Duration),
    /// At the nth of these system calls of one of its threads.
    At { call: String, ordinal: u64 },
    /// The nth time that it passes the kill point of this name.
    Point { name: String, nth: u64 },
}

/// What all nights share.
#[derive(Clone, Copy)]
pub(super) struct Field<'b> {
    pub(super) bench: &'b Bench,
    /// Serves what lies in the scratch folder.
    pub(super) server: &'b FileServer,
}

/// A flow and its nights.
pub(super) struct Folder<'b> {
    bench: &'b Bench,
    shape: Shape,
    dir: TempDir,
    /// What is there from the nights before.
    before: BTreeSet<u64>,
    /// What may be there instead: the last run was killed when it was complete, and perhaps not public.
    older: Option<BTreeSet<u64>>,
    /// Rejected in all nights.
    rejected: BTreeSet<u64>,
    n_nights: u64,
    /// The kill points at which runs died.
    died_at: BTreeSet<String>,
}

impl<'b> Folder<'b> {
    pub(super) fn new(field: Field<'b>, shape: Shape) -> Result<Self> {
        let Field { bench, server } = field;
        let dir = TempDir::new_in(bench.scratch.path())?;
        let name = dir.path().file_name().unwrap_or_default().to_string_lossy();
        let input = match shape {
            Shape::Sorted => server.url(&name),
            _ => format!("../{name}"),
        };
        text::write(&dir.path().join("flow.yaml"), &shape.flow(&input))?;
        Ok(Self {
            bench,
            shape,
            dir,
            before: BTreeSet::new(),
            older: None,
            rejected: BTreeSet::new(),
            n_nights: 0,
            died_at: BTreeSet::new(),
        })
    }

    /// The kill points at which runs died, in any night.
    pub(super) fn died_at(&self) -> &BTreeSet<String> {
        &self.died_at
    }

    /// New input, runs that are killed as `kill` says, and one that is not, unless one has ended before; how long the last
    /// one took.
    pub(super) fn night(
        &mut self,
        tally: &mut Tally,
        mut kill: impl FnMut(u64) -> Option<Kill>,
    ) -> Result<Duration> {
        let (night, n_complete) = (self.input()?, self.n_complete()?);
        let mut took = None;
        for nth in 0.. {
            let started = Instant::now();
            let Some(kill) = kill(nth) else { break };
            if !self.killed(&kill, &night, tally)? {
                took = Some(started.elapsed());
                break;
            }
            tally.kills += 1;
            if self.n_complete()? > n_complete {
                // To run again would be another run: the next night's completes what is left of this one.
                let now = self.expected(&night);
                self.older = Some(std::mem::replace(&mut self.before, now));
                return Ok(started.elapsed());
            }
        }
        let took = match took {
            Some(took) => took,
            None => self.run_to_its_end(&night, tally)?,
        };
        self.end(&night)?;
        Ok(took)
    }

    /// Judges what is there after a run that ended by itself.
    fn end(&mut self, night: &BTreeSet<u64>) -> Result<()> {
        self.judge(night)?;
        self.before = self.expected(night);
        self.older = None;
        Ok(())
    }

    /// How often that thread of a run makes a system call which makes it most often: the tracer counts for each by itself.
    pub(super) fn count(&mut self, call: &str) -> Result<u64> {
        let night = self.input()?;
        let trace = self.dir.path().join("trace");
        let mut command = self.command("strace");
        command.args(["-f", "-qq", "-o"]).arg(&trace).args(["-e", &format!("trace={call}")]);
        let measured = measure_for(command.arg(&self.bench.binary).args(["run", "flow.yaml"]), MAX_PER_RUN)?;
        ensure!(measured.status.success(), "a run under strace failed: {}", measured.status);
        self.end(&night)?;
        let mut by_thread: BTreeMap<String, u64> = BTreeMap::new();
        for line in text::read(&trace)?.lines().filter(|line| line.contains('(')) {
            let thread = line.split_whitespace().next().unwrap_or_default();
            *by_thread.entry(thread.to_owned()).or_default() += 1;
        }
        let n_calls = by_thread.into_values().max().unwrap_or_default();
        std::fs::remove_file(trace)?;
        Ok(n_calls)
    }

    /// How many runs of the flow are complete, as its log says.
    fn n_complete(&self) -> Result<usize> {
        let log = self.dir.path().join(".aqueduct/flows/kills/log");
        let Ok(entries) = std::fs::read_dir(log) else { return Ok(0) };
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        let records = paths.iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "json"));
        let texts = records.map(|path| text::read(path)).collect::<Result<Vec<_>>>()?;
        Ok(texts.iter().filter(|text| text.contains("\"finish\"")).count())
    }

    /// Writes what is to be read tonight; the good rows.
    fn input(&mut self) -> Result<BTreeSet<u64>> {
        let mut good = BTreeSet::new();
        for file in 0..FILES {
            let mut lines = String::new();
            for row in 0..ROWS_IN_FILE {
                let id = self.n_nights * ROWS_IN_NIGHT + file * ROWS_IN_FILE + row;
                if id % ROWS_PER_BAD == 7 {
                    lines.push_str(&format!("bad {id}\n"));
                    self.rejected.insert(id);
                } else {
                    lines.push_str(&self.shape.line(id));
                    good.insert(id);
                    let is_seen = self.shape == Shape::Unseen && row % ROWS_PER_SEEN == 0;
                    if let Some(seen) = id.checked_sub(ROWS_IN_NIGHT).filter(|_| is_seen) {
                        lines.push_str(&self.shape.line(seen));
                    }
                }
            }
            // Beside the folder: the server knows no folders.
            let name = format!("{}-{file}.ndjson", self.dir.path().display());
            text::write(Path::new(&name), &lines)?;
        }
        self.n_nights += 1;
        Ok(good)
    }

    fn expected(&self, night: &BTreeSet<u64>) -> BTreeSet<u64> {
        match self.shape {
            Shape::Append | Shape::Unseen => self.before.union(night).copied().collect(),
            Shape::Replace | Shape::Sorted | Shape::OneFile => night.clone(),
            Shape::Updated => {
                let replaced = night.first().map(|id| partition(*id));
                let stay = self.before.iter().filter(|id| Some(partition(**id)) != replaced);
                stay.chain(night).copied().collect()
            }
        }
    }

    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn start(&self, kill: Option<&Kill>) -> Result<Child> {
        let mut command = match kill {
            Some(Kill::At { call, ordinal }) => {
                let mut strace = self.command("strace");
                strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"]);
                strace.arg(format!("inject={call}:signal=KILL:when={ordinal}")).arg(&self.bench.binary);
                strace
            }
            Some(Kill::Point { name, nth }) => {
                let mut command = self.command(&self.bench.binary);
                command.env("AQUEDUCT_KILL_AT", format!("{name}:{nth}"));
                command
            }
            Some(Kill::After(_)) | None => self.command(&self.bench.binary),
        };
        let log = File::create(self.dir.path().join("log"))?;
        command.args(["run", "flow.yaml"]).stderr(log).spawn().context("the binary cannot be started")
    }

    /// Whether the run was killed before it ended.
    fn killed(&mut self, kill: &Kill, night: &BTreeSet<u64>, tally: &mut Tally) -> Result<bool> {
        let mut child = self.start(Some(kill))?;
        tally.runs += 1;
        let started = Instant::now();
        let status = loop {
            self.look(night, tally)?;
            match (child.try_wait()?, kill) {
                (Some(status), _) => break status,
                (None, Kill::After(after)) if started.elapsed() >= *after => {
                    child.kill()?;
                    break child.wait()?;
                }
                (None, _) => ensure!(started.elapsed() < MAX_PER_RUN, "a run hangs"),
            }
            thread::sleep(BETWEEN_LOOKS);
        };
        self.look(night, tally)?;
        ensure!(status.success() || was_killed(status), "a run failed: {status}\n{}", self.log());
        if let (Kill::Point { name, .. }, true) = (kill, was_killed(status)) {
            self.died_at.insert(name.clone());
        }
        Ok(!status.success())
    }

    /// How long it took.
    fn run_to_its_end(&self, night: &BTreeSet<u64>, tally: &mut Tally) -> Result<Duration> {
        let mut child = self.start(None)?;
        tally.runs += 1;
        let started = Instant::now();
        let status = loop {
            self.look(night, tally)?;
            if let Some(status) = child.try_wait()? {
                break status;
            }
            ensure!(started.elapsed() < MAX_PER_RUN, "a run hangs");
            thread::sleep(BETWEEN_LOOKS);
        };
        ensure!(status.success(), "a run that was not killed failed: {status}\n{}", self.log());
        Ok(started.elapsed())
    }

    fn log(&self) -> String {
        text::read(&self.dir.path().join("log")).unwrap_or_default()
    }

    /// What a reader sees at this moment: rows of the nights before; of tonight's all or none, or, where they are added,
    /// any, each once.
    fn look(&self, night: &BTreeSet<u64>, tally: &mut Tally) -> Result<()> {
        let Some(seen) = ids_of(&self.dir.path().join("out"), ".ndjson", "\"id\":")? else { return Ok(()) };
        tally.looks += 1;
        let set: BTreeSet<u64> = seen.iter().copied().collect();
        ensure!(set.len() == seen.len(), "a reader sees rows twice\n{}", self.log());
        let (before, then) = (self.older.as_ref().unwrap_or(&self.before), self.expected(night));
        let is_right = match self.shape.adds() {
            true => set.is_superset(before) && set.is_subset(&then),
            false => set == *before || set == self.before || set == then,
        };
        ensure!(is_right, "a reader sees {} rows of no committed state\n{}", set.len(), self.log());
        Ok(())
    }

    /// All is there, once, and nothing is left behind.
    fn judge(&self, night: &BTreeSet<u64>) -> Result<()> {
        let rows =
            ids_of(&self.dir.path().join("out"), ".ndjson", "\"id\":")?.context("there is no output")?;
        self.compare("rows", rows, &self.expected(night))?;
        let rejected = ids_of(&self.dir.path().join("rejected"), ".ndjson", "\"raw\":\"bad ")?;
        self.compare("rejected rows", rejected.unwrap_or_default(), &self.rejected)?;
        let staged = self.dir.path().join(self.shape.staged());
        ensure!(!staged.exists(), "something staged is left behind in {}", staged.display());
        let runs = self.dir.path().join(".aqueduct/flows/kills/runs");
        let left = std::fs::read_dir(&runs).map_or(0, Iterator::count);
        ensure!(left == 0, "what a run kept is left behind in {}", runs.display());
        Ok(())
    }

    fn compare(&self, what: &str, found: Vec<u64>, expected: &BTreeSet<u64>) -> Result<()> {
        let set: BTreeSet<u64> = found.iter().copied().collect();
        let (lost, strange) = (expected.difference(&set).count(), set.difference(expected).count());
        let twice = found.len() - set.len();
        if (lost, twice, strange) == (0, 0, 0) {
            return Ok(());
        }
        bail!("{what}: {lost} lost, {twice} twice, {strange} strange of {}\n{}", expected.len(), self.log())
    }
}

fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

/// The numbers behind a word, one a line, of the files of a folder; nothing, if there is no such folder. A file that is
/// gone before it is read belonged to a state that was replaced: then all is read again.
fn ids_of(folder: &Path, suffix: &str, word: &str) -> Result<Option<Vec<u64>>> {
    for _ in 0..MAX_READS {
        match read_ids(folder, suffix, word) {
            Err(error) if error.kind() == ErrorKind::NotFound && folder.exists() => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            ids => return ids.map(Some).with_context(|| folder.display().to_string()),
        }
    }
    bail!("{}: its files are gone whenever they are read, {MAX_READS} times", folder.display())
}

fn read_ids(folder: &Path, suffix: &str, word: &str) -> std::io::Result<Vec<u64>> {
    let entry = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.path(), entry.file_type()?.is_dir()))
    };
    let entries = std::fs::read_dir(folder)?.map(entry).collect::<std::io::Result<Vec<(PathBuf, bool)>>>()?;
    let mut ids = Vec::new();
    // Folders are partitions, but for that of what is no data.
    for (path, _) in entries.iter().filter(|(path, is_dir)| *is_dir && !path.ends_with("_aqueduct")) {
        ids.extend(read_ids(path, suffix, word)?);
    }
    for (path, _) in entries.iter().filter(|(path, _)| path.to_string_lossy().ends_with(suffix)) {
        let mut text = String::new();
        File::open(path)?.take(MAX_PART_BYTES).read_to_string(&mut text)?;
        for line in text.lines() {
            let number =
                line.split_once(word).map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
            let number = number.flatten().and_then(|digits| digits.parse().ok());
            ids.push(number.ok_or_else(|| std::io::Error::other(format!("no number in `{line}`")))?);
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_whole_and_a_line_without_a_number_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ids_of(&folder.path().join("gone"), ".ndjson", "\"id\":").unwrap(), None);
        text::write(&folder.path().join("a.ndjson"), "{\"id\":3}\n{\"id\":4}\n").unwrap();
        text::write(&folder.path().join("b.txt"), "no part\n").unwrap();
        text::write(&folder.path().join("_aqueduct/b.ndjson"), "{\"id\":9}\n").unwrap();
        assert_eq!(ids_of(folder.path(), ".ndjson", "\"id\":").unwrap(), Some(vec![3, 4]));
        text::write(&folder.path().join("night=1/b.ndjson"), "{\"id\":5}\n").unwrap();
        assert_eq!(ids_of(folder.path(), ".ndjson", "\"id\":").unwrap(), Some(vec![5, 3, 4]));
        text::write(&folder.path().join("a.ndjson"), "cut off").unwrap();
        assert!(ids_of(folder.path(), ".ndjson", "\"id\":").is_err());
    }
}
