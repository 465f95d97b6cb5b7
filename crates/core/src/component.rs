//! Components as the planner sees them: a name, options with a JSON Schema, and three phases.
//!
//! 1. *validate* ([`SourceConfig::validate`] and its twins): pure, all problems at once;
//! 2. *open*: async, may read enough to know its schema, starts no task;
//! 3. *run*: owns every task it starts.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Context, Merging, Result, Sink, Source, Stage, Stored, pointer_to};

/// One thing that is wrong with a component's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a JSON pointer within the component's options; empty for the component itself.
    pub pointer: String,
    /// What is wrong, what was expected, the nearest valid name.
    pub message: String,
}

impl Problem {
    /// A problem at a pointer, `/paths/0` say.
    pub fn at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }
}

/// The name nearest to a wrong one, if any is near.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().max(wrong.len()) / 4)
        .min()
        .map(|(_, name)| name)
}

/// What the planner must keep for a step beside the data in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryNeed {
    /// With less it cannot work.
    pub min: ByteCount,
    /// So much it gets, as far as there is, before others get more than their `min`: it decides what it can do, not how quick it is.
    pub first: ByteCount,
    /// With more it gets no better.
    pub want: ByteCount,
}

impl MemoryNeed {
    /// Between so much and so much.
    pub const fn between(min: ByteCount, want: ByteCount) -> Self {
        Self { min, first: min, want }
    }

    /// So much before others get more than they must have.
    #[must_use]
    pub const fn at_first(self, first: ByteCount) -> Self {
        Self { first, ..self }
    }
}

/// What a component may know before anything is opened.
#[derive(Clone, Debug)]
pub struct Planning {
    /// The folder that relative paths start from.
    pub base_dir: PathBuf,
    /// At most so many rows in a batch.
    pub batch_rows: usize,
    /// At most so many bytes in a batch.
    pub batch_bytes: ByteCount,
    /// Files, pages or requests at once.
    pub max_concurrency: usize,
}

impl Planning {
    /// A path of the flow file, made absolute or relative to the working directory.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        crate::resolve_path(&self.base_dir, path)
    }
}

/// Files that a source is to read in the place of its own.
#[derive(Clone, Debug)]
pub struct OtherFiles {
    /// A file that names them, one a line.
    pub list: PathBuf,
    /// If they hold single records of the source's files, one after the other: the columns, by name and type, for a source that
    /// declares none. If they are whole files, nothing.
    pub records: Option<Vec<(String, String)>>,
}

/// The validated options of a source.
#[async_trait]
pub trait SourceConfig: Send + Sync {
    /// All that is wrong with the options themselves. Pure.
    fn validate(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// The columns, as far as declared schemas and local files tell. Touches no network.
    ///
    /// # Errors
    /// What can be known does not fit together.
    fn known_schema(&self, planning: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>>;

    /// The memory to keep for its decoders and buffers.
    fn memory(&self, planning: &Planning) -> MemoryNeed;

    /// The most bytes that one record may have, if it may be larger than a batch. The planner makes room for
    /// one such record and its rows in the data in flight, as far as `memory` goes.
    fn largest_record(&self) -> ByteCount {
        ByteCount::ZERO
    }

    /// Whether it reads only what no earlier run of the flow has committed: outputs are then added to.
    fn is_incremental(&self) -> bool {
        false
    }

    /// Whether what it gave can be read again, which is then what [`SourceCaps::replayable`](crate::SourceCaps::replayable)
    /// says of the source: here it is told before anything is opened.
    fn is_replayable(&self) -> bool {
        false
    }

    /// Whether it never ends by itself, so that a run commits from time to time and adds to what is there; told before
    /// anything is opened, as [`SourceCaps::endless`](crate::SourceCaps::endless) tells it after.
    fn is_endless(&self) -> bool {
        false
    }

    /// The option, as a JSON pointer, that has the run take back what is not committed when something changes while it is
    /// read: the source then ends with an error that is caused by [`ReadAgain`](crate::ReadAgain). Nothing, where it never does.
    /// Every sink of the flow must be able to take rows back then, and every source to give them again.
    fn takes_back(&self) -> Option<&'static str> {
        None
    }

    /// How a file must be named that holds records of this source, so that [`SourceConfig::over`] reads them: a suffix,
    /// `ndjson` say. Nothing, where it has no records in a file of this name.
    fn suffix_of_records(&self, _file: &str) -> Option<&'static str> {
        None
    }

    /// The same source over other files. Nothing, where it reads no files.
    fn over(&self, _files: &OtherFiles) -> Option<Box<dyn SourceConfig>> {
        None
    }

    /// Reads as much as it takes to know the schema.
    ///
    /// # Errors
    /// Nothing is there, or it cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future closes what it had opened.
    async fn open(self: Box<Self>, cx: &Context) -> Result<Box<dyn Source>>;
}

/// The validated options of a stage.
pub trait StageConfig: Send + Sync {
    /// All that is wrong with the options themselves. Pure.
    fn validate(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// The memory to keep for it beside its input: room for what its output weighs more than its input.
    fn memory(&self, planning: &Planning) -> MemoryNeed {
        MemoryNeed::between(ByteCount::kib(256), planning.batch_bytes)
    }

    /// Whether all rows pass as they are, and what it does shows elsewhere, in a file or a log: where a flow is to
    /// leave nothing behind, it is left out.
    fn only_watches(&self) -> bool {
        false
    }

    /// Whether what it lets pass depends on what earlier runs let pass: outputs behind it are then appended to, unless
    /// the flow says otherwise.
    fn remembers(&self) -> bool {
        false
    }

    /// Whether it writes what its share of memory does not hold to disk.
    fn spills(&self) -> bool {
        false
    }

    /// Whether it has taken in all rows before it gives the first: what comes two global stages after it can then have
    /// its memory.
    fn takes_all_first(&self) -> bool {
        self.spills()
    }

    /// Whether a run can commit in the middle of its rows and go on later: what it does with a row depends on no row
    /// before it, but for what it keeps by a [`Keeper`](crate::Keeper).
    fn is_resumable(&self) -> bool {
        !self.spills()
    }

    /// What it does within a share of so many bytes, for `explain`: when it spills, how much it merges at once.
    fn spill_note(&self, _share: ByteCount) -> String {
        "what its share does not hold goes to disk".into()
    }

    /// All that is wrong with files of this machine that the options name. Reads them at most; touches no network.
    fn check_files(&self, _planning: &Planning) -> Vec<Problem> {
        Vec::new()
    }

    /// The stage over inputs of these columns. Pure: `check` calls it and throws the stage away.
    ///
    /// # Errors
    /// The options do not fit the columns: all problems at once.
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>>;
}

/// The validated options of a sink.
#[async_trait]
pub trait SinkConfig: Send + Sync {
    /// All that is wrong with the options themselves. Pure.
    fn validate(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// All that does not fit the columns. Pure.
    fn fit(&self, _input: &SchemaRef) -> Vec<Problem> {
        Vec::new()
    }

    /// All that does not fit the rows that are there. Pure.
    fn fit_stored(&self, _input: &SchemaRef, _stored: &Stored) -> Vec<Problem> {
        Vec::new()
    }

    /// Where it writes, if its output is files. No two sinks may write to one place.
    fn output(&self, planning: &Planning) -> Option<Output>;

    /// What it promises about rows when a run dies and goes on.
    fn guarantee(&self) -> Guarantee;

    /// Whether it takes files whole: of one that is not read to its end, it publishes nothing.
    fn takes_whole_files(&self) -> bool {
        false
    }

    /// How it gives its rows to those who come for them, if it does: the run then listens.
    fn serving(&self) -> Option<Serving> {
        None
    }

    /// What it asks of a step that is put before it, if its output is merged.
    fn merging(&self) -> Option<Merging> {
        None
    }

    /// The memory to keep for its buffers.
    fn memory(&self, planning: &Planning) -> MemoryNeed;

    /// Gets ready to write rows of these columns.
    ///
    /// # Errors
    /// It cannot write where it should.
    async fn open(self: Box<Self>, input: SchemaRef, cx: &Context) -> Result<Box<dyn Sink>>;
}

/// How a sink gives its rows to those who come for them by HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Serving {
    /// What they must send to be let in; nothing, where anybody is. It is a secret: this is never shown.
    pub token: Option<String>,
}

/// Where a sink's files are to appear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The file or folder.
    pub path: PathBuf,
    /// Whether it is one file.
    pub is_file: bool,
    /// Whether a run without rows may replace an output that had some.
    pub allow_empty: bool,
    /// How its rows relate to those that are there; nothing, where the flow decides.
    pub mode: Option<Mode>,
}

/// How a run's rows relate to those that earlier runs wrote to the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They take their place, all at once, when the run is complete.
    Replace,
    /// They come beside them, a commit at a time; in one file, when the run is complete.
    Append,
    /// They take the place of those partitions that they are in, all at once, when the run is complete; other partitions
    /// stay as they are.
    ReplacePartitions,
    /// Each takes the place of the row with the same keys, all at once, when the run is complete; partitions without such
    /// a row stay as they are.
    Merge,
}

impl Mode {
    /// As it stands in flow files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Append => "append",
            Self::ReplacePartitions => "replace_partitions",
            Self::Merge => "merge",
        }
    }

    /// Whether most of what is there stays, and only a part of it is replaced.
    pub fn updates(self) -> bool {
        matches!(self, Self::ReplacePartitions | Self::Merge)
    }
}

/// What a sink promises about rows when a run dies and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Each row once, whatever happens.
    ExactlyOnce,
    /// Each row, some of them twice after a crash.
    AtLeastOnce,
    /// To whoever listens at that moment.
    Live,
}

/// What a component is called and how it is used.
#[derive(Clone, Copy, Debug)]
pub struct ComponentInfo {
    /// Its name in flow files: lower case, underscores.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// How it stands in a flow file: YAML of `name: options`.
    pub example: &'static str,
}

/// Makes sources of one kind.
pub trait SourceFactory: Send + Sync {
    /// Its name, summary and example.
    fn info(&self) -> &ComponentInfo;
    /// The JSON Schema of its options.
    fn options(&self) -> Schema;
    /// Reads and validates options.
    ///
    /// # Errors
    /// All problems at once.
    fn configure(&self, options: Value) -> Result<Box<dyn SourceConfig>, Vec<Problem>>;
}

/// Makes stages of one kind.
pub trait StageFactory: Send + Sync {
    /// Its name, summary and example.
    fn info(&self) -> &ComponentInfo;
    /// The JSON Schema of its options.
    fn options(&self) -> Schema;
    /// Reads and validates options.
    ///
    /// # Errors
    /// All problems at once.
    fn configure(&self, options: Value) -> Result<Box<dyn StageConfig>, Vec<Problem>>;
    /// The option that names the step whose rows it takes beside its input; nothing, when it takes none.
    fn side_input(&self) -> Option<&'static str> {
        None
    }
}

/// Makes sinks of one kind.
pub trait SinkFactory: Send + Sync {
    /// Its name, summary and example.
    fn info(&self) -> &ComponentInfo;
    /// The JSON Schema of its options.
    fn options(&self) -> Schema;
    /// Reads and validates options.
    ///
    /// # Errors
    /// All problems at once.
    fn configure(&self, options: Value) -> Result<Box<dyn SinkConfig>, Vec<Problem>>;
}

/// The factory of a component whose options are the type `C`. One `static FACTORY` a component:
///
/// ```ignore
/// pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
///     name: "drop",
///     summary: "Removes columns",
///     example: "drop: [internal_id]",
/// });
/// ```
#[derive(Debug)]
pub struct Factory<C> {
    info: ComponentInfo,
    side_input: Option<&'static str>,
    config: PhantomData<fn() -> C>,
}

impl<C> Factory<C> {
    /// A factory under this name.
    pub const fn new(info: ComponentInfo) -> Self {
        Self { info, side_input: None, config: PhantomData }
    }

    /// For a stage: it takes the rows of another step beside its input, and this option says of which, or holds a
    /// source. They are the last input that it is bound to and run with.
    #[must_use]
    pub const fn with_side_input(mut self, option: &'static str) -> Self {
        self.side_input = Some(option);
        self
    }
}

fn read<C: DeserializeOwned>(
    options: Value,
    validate: impl FnOnce(&C) -> Vec<Problem>,
) -> Result<C, Vec<Problem>> {
    let config: C = serde_path_to_error::deserialize(options)
        .map_err(|error| vec![Problem::at(pointer(error.path()), error.inner().to_string())])?;
    let problems = validate(&config);
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// The path of an option as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&pointer_to(key)),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

impl<C: SourceConfig + DeserializeOwned + JsonSchema + 'static> SourceFactory for Factory<C> {
    fn info(&self) -> &ComponentInfo {
        &self.info
    }

    fn options(&self) -> Schema {
        schemars::schema_for!(C)
    }

    fn configure(&self, options: Value) -> Result<Box<dyn SourceConfig>, Vec<Problem>> {
        Ok(Box::new(read(options, C::validate)?))
    }
}

impl<C: StageConfig + DeserializeOwned + JsonSchema + 'static> StageFactory for Factory<C> {
    fn info(&self) -> &ComponentInfo {
        &self.info
    }

    fn options(&self) -> Schema {
        schemars::schema_for!(C)
    }

    fn configure(&self, options: Value) -> Result<Box<dyn StageConfig>, Vec<Problem>> {
        Ok(Box::new(read(options, C::validate)?))
    }

    fn side_input(&self) -> Option<&'static str> {
        self.side_input
    }
}

impl<C: SinkConfig + DeserializeOwned + JsonSchema + 'static> SinkFactory for Factory<C> {
    fn info(&self) -> &ComponentInfo {
        &self.info
    }

    fn options(&self) -> Schema {
        schemars::schema_for!(C)
    }

    fn configure(&self, options: Value) -> Result<Box<dyn SinkConfig>, Vec<Problem>> {
        Ok(Box::new(read(options, C::validate)?))
    }
}
