//! What a run of a flow is to its log and its outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use aqueduct_core::{Error, Mode, Output, Part, Positions, TableShape};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{Counters, Counts, Letter};

/// A run that is to begin.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// The flow's name.
    pub flow: String,
    /// The run's name, unless an unfinished one is gone on with.
    pub run_id: String,
    /// When.
    pub now: DateTime<Utc>,
    /// What makes two runs the same flow: a hash by the key's path.
    pub identity: BTreeMap<String, String>,
    /// What stays as it is now when the run is gone on with later: `today`, for one.
    pub fixed: BTreeMap<String, String>,
    /// Where it writes.
    pub targets: Vec<Target>,
}

/// One output of a run.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub output: Output,
    /// How it relates to what is there.
    pub mode: Mode,
    /// Whether it gets its rows when all have been read, because a stage before it gives none earlier: what steps keep of a run
    /// that never sees its end is forgotten then, for its rows are nowhere.
    pub is_filled_last: bool,
}

/// What becomes of a run that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is gone on with, if the flow is still the same.
    Resume,
    /// It is forgotten; what it committed stays.
    Fresh,
    /// As that, and what steps kept is forgotten, too: for good once the run is complete. All outputs are replaced.
    FullRefresh,
}

/// How a run stands at its beginning.
#[derive(Clone, Debug, PartialEq)]
pub enum Began {
    /// There was nothing to go on with.
    New,
    /// It goes on.
    Resumed(Resumed),
    /// An unfinished run could not be gone on with: these keys of the flow have changed since. None, when it was to be
    /// forgotten, or when what it had staged is gone.
    Dropped(Vec<String>),
}

/// Where a run goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumed {
    /// When it began.
    pub since: DateTime<Utc>,
    /// How far each source was read.
    pub positions: BTreeMap<String, Positions>,
    /// Its rows so far.
    pub counts: Counts,
    /// What it has counted so far.
    pub counters: Counters,
}

/// A run that has committed something, as the log tells it.
#[derive(Clone, Copy, Debug)]
pub struct LastRun<'a> {
    /// Its name.
    pub run_id: &'a str,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it committed last.
    pub committed: DateTime<Utc>,
    /// Whether more comes of it.
    pub stands: Stands,
    /// How far each source was read.
    pub positions: &'a BTreeMap<String, Positions>,
    /// Its rows.
    pub counts: Counts,
}

/// Whether more comes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// It is complete.
    Finished,
    /// The next run goes on with it.
    Unfinished,
    /// It is not complete and will not be; what it committed stays.
    Dropped,
}

/// A change of what steps keep that no run makes.
#[derive(Clone, Debug)]
pub struct KeptChange {
    /// The flow's name.
    pub flow: String,
    /// Names the change, as a run is named.
    pub name: String,
    /// When.
    pub now: DateTime<Utc>,
    /// By step the value from now on; nothing, where it is to forget. Steps that are not named keep what they keep.
    pub kept: BTreeMap<String, Option<Value>>,
}

/// What is to become durable at once.
#[derive(Clone, Debug, Default)]
pub struct Epoch {
    /// New parts, by target. Of one file, all of it in one part, with the end.
    pub parts: Vec<Vec<Part>>,
    /// Of a target that is [updated](Mode::updates), by its place: the folders within it of which nothing stays that
    /// earlier runs wrote, without a slash at the end; the output itself is the empty one.
    pub replaced: BTreeMap<usize, BTreeSet<String>>,
    /// What the rows of a target look like, by its place.
    pub tables: BTreeMap<usize, TableShape>,
    /// Splits whose position has changed, by source.
    pub positions: BTreeMap<String, Positions>,
    /// The run's rows so far, these among them.
    pub counts: Counts,
    /// What the run has counted so far, to go on counting from there.
    pub counters: Counters,
    /// What steps keep, by step, if they keep something new.
    pub kept: BTreeMap<String, Value>,
    /// Files of rejected items that are to be public with these rows.
    pub letters: Vec<Letter>,
    /// What the run read, for the manifests, if the flow wants it kept.
    pub inputs: Option<Value>,
}

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The run goes on.
    GoOn,
    /// The run is complete.
    Finish,
}

/// What is public of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The file or folder.
    pub path: PathBuf,
    /// Rows in all parts.
    pub rows: u64,
    /// Bytes in all parts.
    pub n_bytes: u64,
    /// How many parts.
    pub n_parts: usize,
}

/// A commit that is durable: whatever happens, its rows are there once.
#[derive(Debug)]
pub struct Committed {
    /// What is public of each target, as of now.
    pub published: Vec<Published>,
    /// Why not all of it is public yet. The next run of the flow completes it before anything else.
    pub pending: Option<Error>,
}
