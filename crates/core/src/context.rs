//! What the runner hands down to every component: memory, tasks, counters, policy, disk, clock.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_primitives::{Budget, ByteCount, Reservation, Tasks};
use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};

use crate::{
    Batch, Clock, Durable, Error, ErrorKind, FailOnReject, Fs, Reject, RejectPolicy, RejectedItem, Result,
    StdFs, StepMetrics, Stored, SystemClock, retained_bytes,
};

/// The surroundings of one step of one run. Cheap to clone.
///
/// No component reaches for a global: clients, pools and servers are built by the runner, handed down here
/// ([`Context::service`]) and closed by it.
#[derive(Clone, Debug)]
pub struct Context {
    run: Arc<RunContext>,
    step: Arc<StepContext>,
}

/// What all steps of a run share.
#[derive(Debug)]
pub struct RunContext {
    /// The flow's name.
    pub flow_name: String,
    /// Names the run: letters and digits, later runs sort after earlier ones.
    pub run_id: String,
    /// What the names of numbered files have in common that this process writes, and no other: the run's name, and where it
    /// was gone on with, since when.
    pub part_run: String,
    /// Whether what is written of a file counts only when all of it is written: a run that goes on reads files that were
    /// not read to their end from their beginning.
    pub whole_files: bool,
    /// The folder that relative paths start from.
    pub base_dir: PathBuf,
    /// Durable writes.
    pub fs: Arc<dyn Fs>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Owns every task of the run.
    pub tasks: Tasks,
    /// Memory for the data in flight between steps.
    pub flow: Budget,
    /// At most so many rows in a batch.
    pub batch_rows: usize,
    /// At most so many bytes in a batch.
    pub batch_bytes: ByteCount,
    /// Decides about bad items.
    pub rejects: Arc<dyn RejectPolicy>,
    /// Warnings and gaps of the run.
    pub notices: Notices,
    /// Clients and pools, by type.
    pub services: Services,
    /// Where what memory does not hold goes.
    pub scratch: Scratch,
    /// What it takes for the largest records to fit.
    pub record_room: RecordRoom,
}

/// Where a run puts what memory does not hold and what nobody needs after it: spill, spooled files, rows that wait for
/// their partition. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// The folder; whoever writes there makes it.
    pub dir: PathBuf,
    /// All that is on the disk at once is taken from this, wherever it lies. For its errors, see [`Scratch::take`].
    pub disk: Budget,
}

impl Scratch {
    /// A folder, and at most so many bytes on the disk.
    pub fn new(dir: PathBuf, max_bytes: ByteCount) -> Self {
        Self { dir, disk: Budget::new("scratch on disk", max_bytes) }
    }

    /// Takes room on the disk for bytes that are about to be written. It does not wait: who holds the rest may wait
    /// for the caller.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`]: there is not so much left.
    pub fn take(&self, bytes: ByteCount) -> Result<Reservation> {
        self.disk.try_reserve(bytes).map_err(|error| {
            let message =
                "what memory does not hold takes more disk than it may; raise `execution.spill.max_bytes`";
            Error::new(ErrorKind::Limit, "save to disk", message)
                .with("limit", self.disk.total())
                .with_source(error)
        })
    }
}

/// What a component used alone may put on the disk; the runner looks at what is free.
const SCRATCH_ALONE: ByteCount = ByteCount::mib(1024);

impl Default for Scratch {
    /// For a component used alone: a bounded part of the system's folder for temporary files.
    fn default() -> Self {
        Self::new(std::env::temp_dir(), SCRATCH_ALONE)
    }
}

/// What it takes for a record of the largest size that the sources of a run allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordRoom {
    /// Its part of the data in flight.
    pub in_flight: ByteCount,
    /// The `memory` with which there is so much.
    pub memory: ByteCount,
    /// From this `memory` on, data in flight has its [part](IN_FLIGHT_PART) of it.
    pub parted_from: ByteCount,
}

impl RecordRoom {
    /// The `memory` with which so much fits into the data in flight.
    pub fn memory_for(&self, in_flight: ByteCount) -> ByteCount {
        let enough = if in_flight <= self.in_flight {
            self.memory
        } else {
            in_flight.saturating_mul(IN_FLIGHT_PART).max(self.parted_from)
        };
        enough.round_up_to_mb()
    }
}

/// Of a run's memory, at least one part in so many is for data in flight, once every step has what it must.
pub const IN_FLIGHT_PART: u64 = 4;

/// What one step has to itself.
#[derive(Debug)]
pub struct StepContext {
    /// The step's name.
    pub name: String,
    /// Memory of its own, carved for it by the planner.
    pub share: Budget,
    /// Files, pages or requests at once.
    pub max_concurrency: usize,
    /// Where a sink stages the parts it writes.
    pub stage_dir: Option<PathBuf>,
    /// Its counters.
    pub metrics: Arc<StepMetrics>,
    /// What it keeps beyond the process; nothing where a run leaves nothing behind.
    pub durable: Option<Durable>,
    /// The output that it writes to, as earlier runs have left it.
    pub stored: Option<Arc<Stored>>,
}

impl Context {
    /// The surroundings of one step.
    pub fn new(run: Arc<RunContext>, step: Arc<StepContext>) -> Self {
        Self { run, step }
    }

    /// Surroundings for one component used alone: half of the budget for data in flight, half for the
    /// component; bad items are errors; relative paths start from the working directory.
    ///
    /// # Errors
    /// The budget is not free.
    pub fn standalone(budget: &Budget) -> Result<Self> {
        Self::standalone_with(budget, |_| {}, |_| {})
    }

    /// [`Context::standalone`], with changes to what it is made of.
    ///
    /// # Errors
    /// The budget is not free.
    pub fn standalone_with(
        budget: &Budget,
        change_run: impl FnOnce(&mut RunContext),
        change_step: impl FnOnce(&mut StepContext),
    ) -> Result<Self> {
        let half = ByteCount::new(budget.total().get() / 2);
        let clock = SystemClock;
        let run_id = run_id(clock.now());
        let mut run = RunContext {
            flow_name: "standalone".into(),
            part_run: run_id.clone(),
            run_id,
            whole_files: false,
            base_dir: PathBuf::new(),
            fs: Arc::new(StdFs),
            clock: Arc::new(clock),
            tasks: Tasks::default(),
            flow: budget.carve("flow", half)?,
            batch_rows: 8192,
            batch_bytes: ByteCount::mib(4).min(ByteCount::new(half.get() / 8)),
            rejects: Arc::new(FailOnReject),
            notices: Notices::default(),
            services: Services::default(),
            scratch: Scratch::default(),
            record_room: RecordRoom::default(),
        };
        change_run(&mut run);
        let mut step = StepContext {
            name: "standalone".into(),
            share: budget.carve("standalone", half)?,
            max_concurrency: 10,
            stage_dir: None,
            metrics: Arc::default(),
            durable: None,
            stored: None,
        };
        change_step(&mut step);
        Ok(Self::new(Arc::new(run), Arc::new(step)))
    }

    /// The step's name.
    pub fn step(&self) -> &str {
        &self.step.name
    }

    /// The flow's name.
    pub fn flow_name(&self) -> &str {
        &self.run.flow_name
    }

    /// Names the run.
    pub fn run_id(&self) -> &str {
        &self.run.run_id
    }

    /// What the names of numbered files begin with that this process writes, and no other.
    pub fn part_run(&self) -> &str {
        &self.run.part_run
    }

    /// Whether a file counts only when all of it is written.
    pub fn whole_files(&self) -> bool {
        self.run.whole_files
    }

    /// What the step keeps beyond the process; nothing where a run leaves nothing behind, as a preview.
    pub fn durable(&self) -> Option<&Durable> {
        self.step.durable.as_ref()
    }

    /// What is there of the output that the step writes to, or merges for; nothing where it does not, or where a run leaves
    /// nothing behind.
    pub fn stored(&self) -> Option<&Arc<Stored>> {
        self.step.stored.as_ref()
    }

    /// A path of the flow file, made absolute or relative to the working directory.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        crate::resolve_path(&self.run.base_dir, path)
    }

    /// The folder that relative paths start from.
    pub fn base_dir(&self) -> &Path {
        &self.run.base_dir
    }

    /// Durable writes.
    pub fn fs(&self) -> &Arc<dyn Fs> {
        &self.run.fs
    }

    /// The time.
    pub fn clock(&self) -> &dyn Clock {
        &*self.run.clock
    }

    /// Starts tasks and compute jobs that the run owns.
    pub fn tasks(&self) -> &Tasks {
        &self.run.tasks
    }

    /// Memory for the data in flight between steps. Only who brings in more data may wait for it.
    pub fn flow(&self) -> &Budget {
        &self.run.flow
    }

    /// The `memory` that a run needs for so much data in flight: what to say when there is less.
    pub fn memory_for(&self, in_flight: ByteCount) -> ByteCount {
        self.run.record_room.memory_for(in_flight)
    }

    /// Where what memory does not hold goes.
    pub fn scratch(&self) -> &Scratch {
        &self.run.scratch
    }

    /// Memory that only this step takes from.
    pub fn share(&self) -> &Budget {
        &self.step.share
    }

    /// At most so many rows in a batch.
    pub fn batch_rows(&self) -> usize {
        self.run.batch_rows
    }

    /// At most so many bytes in a batch.
    pub fn batch_bytes(&self) -> ByteCount {
        self.run.batch_bytes
    }

    /// Files, pages or requests at once.
    pub fn max_concurrency(&self) -> usize {
        self.step.max_concurrency
    }

    /// Where a sink stages its parts.
    ///
    /// # Errors
    /// This step was given no such folder.
    pub fn stage_dir(&self) -> Result<&Path> {
        self.step
            .stage_dir
            .as_deref()
            .ok_or_else(|| Error::bug("open sink", "no folder to stage parts in").with("step", self.step()))
    }

    /// The step's counters.
    pub fn metrics(&self) -> &Arc<StepMetrics> {
        &self.step.metrics
    }

    /// A client or pool that the runner built, by its type.
    ///
    /// # Errors
    /// There is none: outside the runner, whoever makes the context must put one in.
    pub fn service<T: Any + Send + Sync>(&self) -> Result<Arc<T>> {
        self.run.services.get().ok_or_else(|| {
            let name = std::any::type_name::<T>();
            Error::bug("find service", format!("the context has no `{name}`; put one into its services"))
                .with("step", self.step())
        })
    }

    /// A client or pool that the runner built, by its type; nothing, where there is none.
    pub(crate) fn find_service<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.run.services.get()
    }

    /// What all steps of the run share, by its type: the first to ask makes it. `make` must not ask for another.
    pub fn shared<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        self.run.services.get_or_insert_with(make)
    }

    /// Hands a bad item to the policy, counted.
    ///
    /// # Errors
    /// The policy says that the run fails; pass it on.
    pub fn reject(&self, reject: Reject) -> Result<()> {
        let item = reject.item;
        self.run.rejects.reject(self.step(), reject)?;
        match item {
            RejectedItem::Row => self.metrics().rows_rejected.add(1),
            RejectedItem::File => self.metrics().files_rejected.add(1),
        }
        Ok(())
    }

    /// Warnings and gaps of the run so far.
    pub fn notices(&self) -> &Notices {
        &self.run.notices
    }

    /// Says something that the user should know although the run goes on.
    pub fn warn(&self, message: impl Into<String>) {
        let message = message.into();
        tracing::warn!(step = self.step(), "{message}");
        self.run.notices.warnings.push(message);
    }

    /// Says that something that should be there is missing, although the run goes on.
    pub fn gap(&self, message: impl Into<String>) {
        let message = message.into();
        tracing::warn!(step = self.step(), "missing: {message}");
        self.run.notices.gaps.push(message);
    }

    /// A new batch of rows that come from outside: waits for the memory that they take.
    ///
    /// Sources call this, and nobody else: it is where backpressure is felt (MEM-2).
    ///
    /// # Errors
    /// The rows alone need more than the flow has.
    ///
    /// # Cancel safety
    /// Dropping the future drops the rows.
    pub async fn admit(&self, records: RecordBatch) -> Result<Batch> {
        let weight = retained_bytes(&records);
        let reservation = self.flow().reserve(weight).await.map_err(|error| {
            let enough = self.memory_for(weight);
            let message =
                format!("the rows take more than there is for data in flight; set `memory` to {enough}");
            Error::new(ErrorKind::Limit, "take in rows", message).with("step", self.step()).with_source(error)
        })?;
        Ok(Batch::new(records, reservation))
    }

    /// Other rows in the place of a batch's, under its reservation, grown or shrunk to what they weigh.
    ///
    /// Growth is taken from the flow if it is free, else from the step's own share, for which it waits: only
    /// this step's earlier output holds any of it, and that drains downstream (MEM-2).
    ///
    /// # Errors
    /// The growth alone is more than the step's share.
    pub async fn recharge(&self, batch: Batch, records: RecordBatch) -> Result<Batch> {
        let weight = retained_bytes(&records);
        let growth = weight.saturating_sub(batch.reserved());
        if growth == ByteCount::ZERO {
            return Ok(batch.with_records(records));
        }
        let (_, mut reservation, positions, cut) = batch.into_parts();
        if reservation.try_grow(growth).is_err() {
            let more = self.share().reserve(growth).await.map_err(|error| self.too_large(error))?;
            reservation.merge(more);
        }
        Ok(Batch::new(records, reservation).with_positions(positions).with_cut(cut))
    }

    fn too_large(&self, error: aqueduct_primitives::ReserveError) -> Error {
        Error::from(error).with("step", self.step())
    }
}

/// Names a run after the time of its start, so that names sort by time.
pub fn run_id(now: DateTime<Utc>) -> String {
    let salt = now.timestamp_subsec_nanos() ^ (std::process::id() << 12);
    format!("{}{:06x}", now.format("%Y%m%dT%H%M%S"), salt & 0x00ff_ffff)
}

/// Clients and pools, one of each type.
#[derive(Debug, Default)]
pub struct Services {
    by_type: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl Services {
    /// Puts one in, in the place of any other of its type.
    pub fn insert<T: Any + Send + Sync>(&mut self, service: Arc<T>) {
        self.lock().insert(TypeId::of::<T>(), service);
    }

    /// The one of this type.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::clone(self.lock().get(&TypeId::of::<T>())?).downcast().ok()
    }

    /// The one of this type; if there is none, what `make` makes, once and from now on for everybody. `make` must
    /// not ask for another.
    pub fn get_or_insert_with<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut by_type = self.lock();
        let there = by_type.get(&TypeId::of::<T>()).and_then(|there| Arc::clone(there).downcast().ok());
        there.unwrap_or_else(|| {
            let made = Arc::new(make());
            by_type.insert(TypeId::of::<T>(), Arc::clone(&made) as _);
            made
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TypeId, Arc<dyn Any + Send + Sync>>> {
        self.by_type.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a run has to say beside its rows.
#[derive(Debug, Default)]
pub struct Notices {
    /// What the user should know.
    pub warnings: NoticeList,
    /// What should have been there and was not.
    pub gaps: NoticeList,
}

/// Messages, the first 1000 kept and all counted.
#[derive(Debug, Default)]
pub struct NoticeList {
    state: Mutex<(Vec<String>, u64)>,
}

/// More messages than this are counted only: a run over a year of missing files must not hold them all.
const MAX_NOTICES: usize = 1000;

impl NoticeList {
    /// Adds a message.
    pub fn push(&self, message: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        if state.0.len() < MAX_NOTICES {
            state.0.push(message);
        }
    }

    /// The first messages.
    pub fn first(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl ErrorKind {
    /// Whether the policy for bad items may take an error of this kind: what is wrong with one file, not
    /// with the run.
    pub fn is_about_one_item(self) -> bool {
        matches!(self, Self::Data | Self::NotFound | Self::Denied | Self::Limit | Self::Io)
    }
}
