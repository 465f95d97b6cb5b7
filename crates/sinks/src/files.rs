//! `files`: each file of a binary source, written unchanged.
//!
//! Takes the columns `_file`, `_offset` and `bytes`: pieces of several files, in order within each, and each
//! file complete when the positions of a batch say so. A file that never was is left out, with a warning.
//! Bytes go from the batch to the disk without a copy; the BLAKE3 of a file is made on the way. Files are written side
//! by side, each in order. Memory: the pieces being written, as many as its share holds, and about 500 bytes for each
//! file of the run.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_core::{
    Batch, ComponentInfo, Context, Error, ErrorKind, Factory, Guarantee, MemoryNeed, Mode, Output, Part,
    Planning, Problem, Result, Sink, SinkConfig, retained_bytes,
};
use aqueduct_primitives::{ByteCount, Reservation, Task, TaskError};
use arrow::array::{Array, AsArray, BinaryArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::file_names::{encode, guarded, of_url, shorten};
use crate::ledger::Ledger;
use crate::staged_file::{StagedFile, StagedPart};
use crate::table::path_problems;

/// Files written at once. More than processors, for writes wait for the disk; fewer leave the network waiting.
const MAX_WRITING: usize = 8;
/// Files that become durable at once. More would keep the disk no busier, and each waits for its sync.
const MAX_FINISHING: usize = 8;
/// Files open at once. More than any window; fewer would refuse a large one.
const MAX_OPEN_FILES: usize = 1024;
/// What a finished file leaves in memory: its names, its hash, its place in the list of parts.
const BYTES_PER_FILE: u64 = 512;

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "files",
    summary: "Writes each file of a binary source unchanged",
    example: "files: { path: downloads, name: from_url }",
});

/// Options of `files`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder to write to.
    pub path: String,
    /// What files are called: `from_url` (the end of the URL or path), or a template with `{column}`.
    #[serde(default = "from_url")]
    pub name: String,
    /// Whether each file is made durable before it is published.
    #[serde(default = "yes")]
    pub sync: bool,
    /// Let a run without files replace an output that has some.
    #[serde(default)]
    pub allow_empty: bool,
    /// How its rows relate to those that earlier runs wrote there. Without it `replace`, or `append` behind a step that
    /// remembers what it has seen.
    #[serde(default)]
    pub mode: Option<Mode>,
}

fn from_url() -> String {
    "from_url".into()
}

fn yes() -> bool {
    true
}

#[async_trait]
impl SinkConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = path_problems(&self.path);
        if let Err(message) = Naming::parse(&self.name) {
            problems.push(Problem::at("/name", message));
        }
        problems
    }

    fn fit(&self, input: &SchemaRef) -> Vec<Problem> {
        let needed = [("_file", DataType::Utf8), ("_offset", DataType::UInt64), ("bytes", DataType::Binary)];
        let missing = needed.iter().filter(|(name, kind)| {
            input.field_with_name(name).is_err()
                || input.field_with_name(name).is_ok_and(|field| field.data_type() != kind)
        });
        let missing = missing.map(|(name, kind)| {
            Problem::at(
                "",
                format!("there is no column `{name}` of type {kind}; read the files with `format: binary`"),
            )
        });
        let unknown = |column: &&String| input.index_of(column).is_err();
        let columns = Naming::parse(&self.name).map(|naming| naming.columns()).unwrap_or_default();
        let unknown = columns
            .iter()
            .filter(unknown)
            .map(|column| Problem::at("/name", format!("there is no column `{column}`")));
        missing.chain(unknown).collect()
    }

    fn output(&self, planning: &Planning) -> Option<Output> {
        Some(Output {
            path: planning.resolve(&self.path),
            is_file: false,
            allow_empty: self.allow_empty,
            mode: self.mode,
        })
    }

    fn takes_whole_files(&self) -> bool {
        true
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::between(ByteCount::mib(1), ByteCount::mib(16))
    }

    async fn open(self: Box<Self>, input: SchemaRef, cx: &Context) -> Result<Box<dyn Sink>> {
        let config = |message| Error::new(ErrorKind::Config, "open sink", message);
        let naming = Naming::parse(&self.name).map_err(config)?;
        if let Some(problem) = self.fit(&input).into_iter().next() {
            return Err(config(problem.message));
        }
        Ok(Box::new(Files {
            stage_dir: cx.stage_dir()?.to_owned(),
            ledger: Ledger::new(cx.share()),
            cx: cx.clone(),
            naming,
            is_synced: self.sync,
            open: HashMap::new(),
            busy: VecDeque::new(),
            names: HashMap::new(),
            finishing: VecDeque::new(),
            done: Vec::new(),
            is_at_checkpoint: false,
        }))
    }
}

/// How files are named.
enum Naming {
    FromUrl,
    Template(Vec<Piece>),
}

enum Piece {
    Text(String),
    Column(String),
}

impl Naming {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "from_url" {
            return Ok(Self::FromUrl);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((column, after)) = after.split_once('}') else {
                return Err(format!("`{text}` has a `{{` without a `}}`"));
            };
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Column(column.to_owned()));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        if pieces.len() == 1 {
            return Err(format!(
                "`{text}` would name all files alike; expected `from_url` or a `{{column}}`"
            ));
        }
        Ok(Self::Template(pieces))
    }

    fn columns(&self) -> Vec<String> {
        let Self::Template(pieces) = self else { return Vec::new() };
        let column = |piece: &Piece| match piece {
            Piece::Column(column) => Some(column.clone()),
            Piece::Text(_) => None,
        };
        pieces.iter().filter_map(column).collect()
    }

    /// The name of the file that begins in this row. A template's own text may have folders in it, its values
    /// may not.
    fn name(&self, file: &str, records: &RecordBatch, row: usize) -> Result<String> {
        let Self::Template(pieces) = self else { return Ok(of_url(file)) };
        let mut name = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Column(column) => name.push_str(&encode(&value(records, column, row)?)),
            }
        }
        let steps = name.split('/').filter(|step| !step.is_empty());
        Ok(steps.map(|step| shorten(guarded(step.to_owned()))).collect::<Vec<_>>().join("/"))
    }
}

fn value(records: &RecordBatch, column: &str, row: usize) -> Result<String> {
    let failed = |error| Error::new(ErrorKind::Data, "name file", "the value has no text").with_source(error);
    let missing = || Error::bug("name file", "a column of the template is gone").with("column", column);
    let values = records.column_by_name(column).ok_or_else(missing)?;
    let options = FormatOptions::default();
    let texts = ArrayFormatter::try_new(values.as_ref(), &options).map_err(failed)?;
    texts.value(row).try_to_string().map_err(failed)
}

/// The sink.
struct Files {
    cx: Context,
    stage_dir: PathBuf,
    naming: Naming,
    is_synced: bool,
    ledger: Ledger,
    open: HashMap<Arc<str>, OpenFile>,
    /// Files being written, the one that began first in front; some may be done.
    busy: VecDeque<Arc<str>>,
    /// Who has which name.
    names: HashMap<String, Arc<str>>,
    finishing: VecDeque<Task<Result<StagedPart>>>,
    done: Vec<StagedPart>,
    /// Whether more is to come of files that are under way.
    is_at_checkpoint: bool,
}

/// A file of which some pieces have come.
struct OpenFile {
    name: String,
    next_offset: u64,
    n_rows: u64,
    writing: Writing,
}

/// A file and what is done with it: one write at a time, so that its pieces stay in order.
enum Writing {
    Idle(StagedFile),
    Busy(Write),
}

type Write = Task<Result<Result<StagedFile>, TaskError>>;

impl Writing {
    /// The file, once it is written.
    async fn done(self) -> Result<StagedFile> {
        match self {
            Self::Idle(file) => Ok(file),
            Self::Busy(write) => write.await??,
        }
    }
}

/// Rows of one file, one after the other in a batch.
struct Run {
    file: Arc<str>,
    first: usize,
    n_rows: usize,
}

impl Files {
    async fn write_run(&mut self, records: &RecordBatch, run: Run) -> Result<()> {
        let at = self.open.get(&run.file).map_or(0, |open| open.next_offset);
        let next_offset = offset_after(records, &run, at)?;
        let pieces = pieces(records, &run)?;
        let room = self.room(retained_bytes(records)).await?;
        let OpenFile { name, n_rows, writing, .. } = match self.open.remove(&run.file) {
            Some(open) => open,
            None => self.begin(&run, records).await?,
        };
        let n_rows = n_rows + run.n_rows as u64;
        let is_counted = room.is_some();
        let file = writing.done().await?;
        let write = self.start(file, pieces, room);
        let writing = if is_counted { Writing::Busy(write) } else { Writing::Idle(write.await???) };
        if is_counted {
            self.busy.push_back(Arc::clone(&run.file));
        }
        self.open.insert(run.file, OpenFile { name, next_offset, n_rows, writing });
        Ok(())
    }

    /// Room in the share for a batch that is written while others come. With none, the caller waits for its write.
    async fn room(&mut self, bytes: ByteCount) -> Result<Option<Reservation>> {
        loop {
            if self.busy.len() < MAX_WRITING
                && let Ok(room) = self.cx.share().try_reserve(bytes)
            {
                return Ok(Some(room));
            }
            let Some(file) = self.busy.pop_front() else { return Ok(None) };
            if let Some(open) = self.open.remove(&file) {
                let writing = Writing::Idle(open.writing.done().await?);
                self.open.insert(file, OpenFile { writing, ..open });
            }
        }
    }

    fn start(&mut self, mut file: StagedFile, pieces: BinaryArray, room: Option<Reservation>) -> Write {
        let write = move || {
            for piece in pieces.iter().flatten() {
                let written = file.write_all(piece);
                written.map_err(|error| Error::io("write", file.path().display(), error))?;
            }
            drop((pieces, room));
            Ok(file)
        };
        let tasks = self.cx.tasks().clone();
        self.cx.tasks().spawn(async move { tasks.block(write).await })
    }

    async fn begin(&mut self, run: &Run, records: &RecordBatch) -> Result<OpenFile> {
        if self.open.len() >= MAX_OPEN_FILES {
            return Err(Error::new(ErrorKind::Limit, "write", "too many files under way at once")
                .with("file", &run.file)
                .with("limit_files", MAX_OPEN_FILES));
        }
        let name = self.naming.name(&run.file, records, run.first)?;
        self.claim(&name, &run.file)?;
        let (fs, metrics) = (Arc::clone(self.cx.fs()), Arc::clone(self.cx.metrics()));
        let path = self.stage_dir.join(&name);
        let file = self.cx.tasks().block(move || StagedFile::create(&fs, path, metrics)).await??;
        Ok(OpenFile { name, next_offset: 0, n_rows: 0, writing: Writing::Idle(file) })
    }

    /// Two files may not have one name: which of them is meant would be left to chance.
    fn claim(&mut self, name: &str, file: &Arc<str>) -> Result<()> {
        match self.names.entry(name.to_owned()) {
            Entry::Vacant(free) => free.insert(Arc::clone(file)),
            Entry::Occupied(taken) => {
                let message = "two files would have one name; set `name` to a template that tells them apart";
                return Err(Error::new(ErrorKind::Conflict, "name file", message)
                    .with("name", name)
                    .with("first", taken.get())
                    .with("second", file));
            }
        };
        self.ledger.hold(ByteCount::of(self.names.len()).saturating_mul(BYTES_PER_FILE))
    }

    /// The file has all its pieces: it becomes durable beside the others.
    async fn finish(&mut self, file: &str) -> Result<()> {
        let Some(OpenFile { name, n_rows, writing, .. }) = self.open.remove(file) else { return Ok(()) };
        let (tasks, is_synced) = (self.cx.tasks().clone(), self.is_synced);
        let finishing = self.cx.tasks().spawn(async move {
            let file = writing.done().await?;
            let finish = move || match file.complete(name, n_rows) {
                file if is_synced => file.sync(),
                file => Ok(file.unsynced()),
            };
            tasks.block(finish).await?
        });
        self.finishing.push_back(finishing);
        self.settle(MAX_FINISHING).await
    }

    /// Waits until at most so many files are becoming durable.
    async fn settle(&mut self, most: usize) -> Result<()> {
        while self.finishing.len() > most {
            if let Some(oldest) = self.finishing.pop_front() {
                self.done.push(oldest.await??);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for Files {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        for run in runs(batch.records()) {
            self.write_run(batch.records(), run).await?;
        }
        let done: Vec<String> = batch
            .positions()
            .iter()
            .filter(|(file, _)| batch.positions().is_done(file))
            .map(|(file, _)| file.to_owned())
            .collect();
        self.is_at_checkpoint = batch.positions().checkpoint().is_some();
        drop(batch);
        for file in done {
            self.finish(&file).await?;
        }
        Ok(())
    }

    async fn seal(&mut self) -> Result<Vec<Part>> {
        self.settle(0).await?;
        let mut left_out = Vec::new();
        let not_complete =
            if self.is_at_checkpoint { HashMap::new() } else { std::mem::take(&mut self.open) };
        for (file, open) in not_complete {
            self.cx.warn(format!("{file} did not come to its end and was left out as {}", open.name));
            left_out.push(open.writing.done().await);
        }
        // Off the async threads, for that removes files, those too that stand behind an error.
        let remove = move || left_out.into_iter().map(|file| file.map(drop)).reduce(Result::and);
        self.cx.tasks().block(remove).await?.transpose()?;
        Ok(StagedPart::seal(std::mem::take(&mut self.done)))
    }

    async fn abort(self: Box<Self>) {
        let Self { cx, open, finishing, mut done, .. } = *self;
        for file in finishing {
            done.extend(file.await.ok().and_then(Result::ok));
        }
        let mut files = Vec::new();
        for open in open.into_values() {
            files.extend(open.writing.done().await.ok());
        }
        // Dropped off the async threads, for that removes files. A panic there leaves them to the folder's owner.
        let _ = cx.tasks().block(move || drop((files, done))).await;
    }
}

fn runs(records: &RecordBatch) -> Vec<Run> {
    let Some(files) = records.column_by_name("_file") else { return Vec::new() };
    let files = files.as_string::<i32>();
    let mut runs: Vec<Run> = Vec::new();
    for row in 0..files.len() {
        match runs.last_mut() {
            Some(run) if *run.file == *files.value(row) => run.n_rows += 1,
            _ => runs.push(Run { file: files.value(row).into(), first: row, n_rows: 1 }),
        }
    }
    runs
}

/// The bytes of a run: a view, not a copy.
fn pieces(records: &RecordBatch, run: &Run) -> Result<BinaryArray> {
    let gone = || Error::bug("write", "the column `bytes` is gone");
    let bytes = records.column_by_name("bytes").ok_or_else(gone)?;
    Ok(bytes.slice(run.first, run.n_rows).as_binary::<i32>().clone())
}

/// Where the piece after these begins. Every piece must begin where the one before ended: a file with a hole
/// is worse than none.
fn offset_after(records: &RecordBatch, run: &Run, mut next_offset: u64) -> Result<u64> {
    let gone = || Error::bug("write", "the column `_offset` is gone");
    let offsets = records.column_by_name("_offset").ok_or_else(gone)?;
    let offsets = offsets.as_primitive::<UInt64Type>();
    let pieces = pieces(records, run)?;
    for (at, row) in (run.first..run.first + run.n_rows).enumerate() {
        if offsets.value(row) != next_offset {
            let message = "a piece of the file is missing; were rows filtered out or put in another order?";
            return Err(Error::new(ErrorKind::Data, "write", message)
                .with("file", &run.file)
                .with("expected_offset", next_offset)
                .with("found_offset", offsets.value(row)));
        }
        next_offset += pieces.value(at).len() as u64;
    }
    Ok(next_offset)
}
