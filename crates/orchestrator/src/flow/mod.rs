//! Flow files: read, filled in, checked, and turned into configured steps.
//!
//! [`load`] takes a file from text to [`Flow`]s, one for each entry of its `matrix`. It opens no
//! connection, and reads secrets only when [`Settings::secrets`] says so. What is wrong is told all at
//! once, each mistake with its line and column.

mod check;
mod document;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod graph;
mod hosts;
mod identity;
mod load;
mod masks;
mod matrix;
mod merges;
mod modes;
mod node;
mod notify;
mod options;
mod outputs;
mod read;
mod rereads;
mod scalar;
mod schedule;
mod secrets;
mod settings;
mod steps;
mod substitute;
#[cfg(test)]
mod tests;
mod toml;
mod types;
mod values;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_commit::FlowLog;
use aqueduct_core::worker::Worker;
use aqueduct_core::{Fs, Planning, Problem, SinkConfig, SourceConfig, StageConfig};
use aqueduct_net::{HttpOptions, StorageOptions, StoreFs};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;

pub(crate) use check::expectation;
pub(crate) use document::read_document;
pub use error::{FlowError, FlowErrors};
pub(crate) use error::{did_you_mean, list as list_of};
pub use load::load;
pub(crate) use masks::HIDDEN;
pub use masks::Masks;
pub(crate) use node::Places;
pub use node::Span;
pub(crate) use notify::{Event, Notify};
pub(crate) use options::{BesideOptions, FlowOptions, closed};
pub use options::{Commit, Execution, Expected, FlowTest, MaxRejected, OnError, Spill};
pub(crate) use read::{Head, head_of};
pub(crate) use schedule::{Schedule, Turn};
pub use settings::{RunIdentity, SecretMode, Settings, assignment, read_env_file};
pub use types::merged;

/// Characters of a hash in the name of a folder.
const HASH_CHARS: usize = 16;

/// One flow, ready to be planned: a flow file filled in for one entry of its matrix.
pub struct Flow {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// The file, as it was named on the command line.
    pub file: String,
    /// What its run is called: `${run.id}`, the report and the names of parts agree on it.
    pub run: RunIdentity,
    /// The hosts that the file names.
    pub hosts: Vec<String>,
    /// The values of its matrix entry; empty without a matrix.
    pub entry: Vec<(String, String)>,
    /// The values from `--set`, the matrix and the environment that it uses, secrets masked. Together with
    /// the name they tell whose cursors and unfinished runs are whose.
    pub values: BTreeMap<String, String>,
    /// Those of them that what it reads, and what becomes of that, depends on; overridden keys of the file among them.
    pub inputs: BTreeMap<String, String>,
    /// What makes two runs of the flow the same: the hash of each key of its steps, by the key's path.
    pub identity: BTreeMap<String, String>,
    /// The folder of the file: relative paths start from here.
    pub base_dir: PathBuf,
    /// Where the ledger, locks, spill files and the resume data lie on this machine.
    pub state_dir: PathBuf,
    /// The object store that has the resume data, if one has.
    pub state_store: Option<PathBuf>,
    /// The one budget for everything in flight.
    pub memory: ByteCount,
    /// How rows are batched, how much happens at once, what happens to bad rows.
    pub execution: Execution,
    /// How often an endless run commits.
    pub commit: Commit,
    /// When it runs again, if it does.
    pub(crate) schedule: Option<Schedule>,
    /// Who is told how its runs end.
    pub(crate) notify: Option<Notify>,
    /// Defaults of every request.
    pub http: HttpOptions,
    /// Credentials and endpoints of object stores.
    pub storage: StorageOptions,
    /// How child processes are started, if the program said so.
    pub worker: Option<Worker>,
    /// Whether rows are added to the outputs, whatever their mode.
    pub(crate) adds_only: bool,
    /// The steps, each after its inputs.
    pub steps: Vec<Step>,
    /// The columns that each step gives (a sink: takes); `None` is unknown until run.
    pub schemas: Vec<Option<SchemaRef>>,
    /// The flow's own tests.
    pub tests: Vec<FlowTest>,
    /// Hides secret values wherever text goes out.
    pub masks: Masks,
    /// Where `memory` stands in the file, for errors about it.
    pub memory_at: Span,
}

/// One step of a flow.
pub struct Step {
    /// Its name, unique in the flow.
    pub name: String,
    /// Its configured component.
    pub kind: StepKind,
    /// The component's name.
    pub component: &'static str,
    /// The steps whose rows it takes, as places in [`Flow::steps`]. Several merge.
    pub inputs: Vec<usize>,
    /// Whether the last of them does not merge with the others: the right side of a join.
    pub has_side_input: bool,
    /// Its own policy for bad rows, if it has one.
    pub on_error: Option<OnError>,
    /// Its own folder for bad rows, if it has one.
    pub dead_letter: Option<PathBuf>,
    /// Files, pages or requests at once, if it has a number of its own.
    pub max_concurrency: Option<usize>,
    /// Where it stands in the file.
    pub at: StepPlace,
}

/// A configured component.
pub enum StepKind {
    /// Brings rows in.
    Source(Box<dyn SourceConfig>),
    /// Changes rows.
    Stage(Box<dyn StageConfig>),
    /// Takes rows out.
    Sink(Box<dyn SinkConfig>),
}

/// Where a step stands in its file: turns a component's problems into errors with line and column.
#[derive(Clone, Debug, Default)]
pub struct StepPlace {
    file: String,
    places: Places,
    masks: Masks,
}

impl StepPlace {
    /// The errors that a component's problems are.
    pub fn errors(&self, problems: impl IntoIterator<Item = Problem>) -> FlowErrors {
        let located = |problem: Problem| {
            let (at, path) = self.places.find(&problem.pointer);
            error::Mistake::new(at, path, problem.message).in_file(&self.file, &self.masks)
        };
        FlowErrors(problems.into_iter().map(located).collect())
    }
}

impl Step {
    /// Whether it brings rows in.
    pub fn is_source(&self) -> bool {
        matches!(self.kind, StepKind::Source(_))
    }

    /// Whether it takes rows out.
    pub fn is_sink(&self) -> bool {
        matches!(self.kind, StepKind::Sink(_))
    }
}

impl Flow {
    /// What the component of a step may know before anything is opened.
    pub fn planning(&self, step: &Step) -> Planning {
        Planning {
            base_dir: self.base_dir.clone(),
            batch_rows: self.execution.batch_size,
            batch_bytes: self.execution.batch_bytes,
            max_concurrency: step.max_concurrency.unwrap_or(self.execution.max_concurrency),
        }
    }

    /// All of it but its steps.
    pub(crate) fn without_steps(&self) -> Self {
        Self {
            worker: self.worker.clone(),
            name: self.name.clone(),
            file: self.file.clone(),
            run: self.run.clone(),
            hosts: self.hosts.clone(),
            entry: self.entry.clone(),
            values: self.values.clone(),
            inputs: self.inputs.clone(),
            identity: self.identity.clone(),
            base_dir: self.base_dir.clone(),
            state_dir: self.state_dir.clone(),
            state_store: self.state_store.clone(),
            notify: self.notify.clone(),
            memory: self.memory,
            execution: self.execution.clone(),
            commit: self.commit.clone(),
            schedule: self.schedule.clone(),
            http: self.http.clone(),
            storage: self.storage.clone(),
            adds_only: self.adds_only,
            steps: Vec::new(),
            schemas: Vec::new(),
            tests: self.tests.clone(),
            masks: self.masks.clone(),
            memory_at: self.memory_at,
        }
    }

    /// Where what memory does not hold goes.
    pub fn spill_dir(&self) -> PathBuf {
        match &self.execution.spill.dir {
            Some(dir) => self.base_dir.join(dir),
            None => self.state_dir.join("spill"),
        }
    }

    /// The disk, and the object stores as the flow says they are reached.
    pub(crate) fn fs(&self) -> Arc<dyn Fs> {
        Arc::new(StoreFs::new(self.storage.clone(), self.http.clone()))
    }

    /// The folder, on this machine, of what this flow keeps from run to run; a copy, if an object store has it.
    pub(crate) fn flow_dir(&self) -> PathBuf {
        let folder = match &self.state_store {
            None => self.state_dir.join("flows"),
            Some(store) => {
                let hash = blake3::hash(store.as_os_str().as_encoded_bytes()).to_hex();
                self.state_dir.join("copies").join(&hash[..HASH_CHARS])
            }
        };
        let dir = folder.join(self.lock_name());
        // Staging folders name it: it must be found from wherever the next run is started.
        std::path::absolute(&dir).unwrap_or(dir)
    }

    /// Where the flow's log lies: in its folder, or in an object store.
    pub(crate) fn log_dir(&self) -> PathBuf {
        match &self.state_store {
            None => self.flow_dir(),
            Some(store) => store.join("flows").join(self.lock_name()),
        }
    }

    /// The flow's log, read.
    ///
    /// # Errors
    /// As [`FlowLog::open`].
    pub(crate) fn open_log(&self) -> aqueduct_core::Result<FlowLog> {
        Ok(FlowLog::open(&self.fs(), &self.log_dir())?.with_local_dir(&self.flow_dir()))
    }

    /// The place of a step in [`Flow::steps`].
    ///
    /// # Errors
    /// There is none of this name; says so, with the nearest.
    pub fn step_named(&self, name: &str) -> Result<usize, String> {
        let names = || self.steps.iter().map(|step| step.name.as_str());
        names().position(|one| one == name).ok_or_else(|| {
            format!(
                "no step `{name}`; expected one of {}{}",
                error::list(names()),
                error::did_you_mean(name, names())
            )
        })
    }

    /// Names the flow with the values from outside that it uses: what must not run twice at once.
    pub fn lock_name(&self) -> String {
        if self.values.is_empty() {
            return self.name.clone();
        }
        let values = serde_json::to_vec(&self.values).unwrap_or_default();
        format!("{}-{}", self.name, &blake3::hash(&values).to_hex()[..HASH_CHARS])
    }
}

/// A file as JSON, if it can be read.
#[cfg(test)]
pub(crate) fn json_in(path: &std::path::Path) -> Option<serde_json::Value> {
    read::read(path).ok().map(|root| root.to_json())
}

/// Whether a file has the shape of a flow, whatever its components are.
#[cfg(test)]
pub(crate) fn parses(path: &std::path::Path) -> bool {
    read::read(path).is_ok_and(|root| root.get("name").is_some())
}
