//! `unseen`: lets rows pass whose key no earlier run has committed, and each key once. Rows stay in order; the first to
//! arrive passes, or with `version` each that is greater than the greatest before.
//!
//! Memory: the step's share, from the first row to the last; keys that it does not hold go to disk. Where a run leaves
//! nothing behind, as a preview, keys are remembered for its time only.
//!
//! With `sightings: true` each row is also recorded as a sighting of its key: when it was seen first and last, how often and
//! from where, the row that passes among them. A row counts once it is committed. Keys and sightings are looked up and taken
//! in together, behind one lock, for one batch at a time, whichever of several inputs it comes from.

mod fingerprint;
mod sighted;
mod version;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aqueduct_commit::{KeyStats, KeyStore, Keyed, KeysIn, Remembering, Sightings};
use aqueduct_core::{
    Batch, BatchStream, ComponentInfo, Context, Durable, Error, ErrorKind, Factory, Fs, Inputs, Keeper,
    MemoryNeed, Planning, Positions, Problem, Result, Stage, StageConfig, find_column, only_input,
    retained_bytes, units,
};
use aqueduct_primitives::{ByteCount, Reservation, Tasks};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use async_stream::try_stream;
use async_trait::async_trait;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::fingerprint::Fingerprints;
use self::sighted::Sighted;
use self::version::Versions;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "unseen",
    summary: "Drops rows whose key was seen, in this run or in an earlier one that was committed",
    example: "unseen: { keys: [id], version: updated_at, forget_after: 30d }",
});

/// With less, keys would be written to disk every few batches.
const MIN_SHARE: ByteCount = ByteCount::mib(8);
/// With more, a hundred million keys are looked up no faster.
const WANTED_SHARE: ByteCount = ByteCount::mib(64);
/// This part of the share is for rows that weigh more than they came with.
const ROOM_FOR_ROWS: u64 = 8;
/// Where sightings are recorded, this part of the memory of keys is theirs: half of it for what is not written yet, half to
/// merge in.
const PART_OF_SIGHTINGS: u64 = 4;
/// The keys of so many rows are made at once.
const ROWS_AT_ONCE: usize = 8192;
const SECONDS_A_DAY: u64 = 86_400;

/// By what rows are known, and for how long.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Rows that are equal in all of these columns have one key; a null equals a null.
    keys: Vec<String>,
    /// A column of numbers or times: a row whose key was seen passes if it has a greater one than all before.
    version: Option<String>,
    /// Keys that were not seen for so long are forgotten, counted in days: `30d`. Without it none is.
    #[serde(default, deserialize_with = "units::optional_duration")]
    #[schemars(with = "Option<units::Period>")]
    forget_after: Option<Duration>,
    /// Whether to record of each key when it was seen first and last, how often, and from where. `aqueduct state FLOW export
    /// STEP` tells them.
    #[serde(default)]
    sightings: bool,
    /// The column that says where a row comes from. Default: `feed_url`, else `_file`, else none.
    sightings_from: Option<String>,
}

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.keys.is_empty() {
            problems.push(Problem::at("/keys", "no column says which rows are alike; expected at least one"));
        }
        if self.forget_after.is_some_and(|period| period.is_zero() || days(period).is_none()) {
            let message =
                "keys are remembered by the day; expected `1d` to `65535d`, or nothing to forget none";
            problems.push(Problem::at("/forget_after", message));
        }
        if self.sightings_from.is_some() && !self.sightings {
            let message = "nothing is recorded of where rows come from; expected `sightings: true` beside it";
            problems.push(Problem::at("/sightings_from", message));
        }
        problems
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::between(MIN_SHARE, WANTED_SHARE)
    }

    fn remembers(&self) -> bool {
        true
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let schema = only_input(inputs)?;
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        for (n, name) in self.keys.iter().enumerate() {
            match key_column(&schema, name, &format!("/keys/{n}")) {
                Ok(at) => keys.push(at),
                Err(problem) => problems.push(problem),
            }
        }
        let version = self.version.as_ref().map(|name| version_column(&schema, name)).transpose();
        let from = self.sightings_from.as_deref();
        let sighted = if self.sightings && problems.is_empty() {
            Sighted::bind(&schema, &keys, from).map_err(|problem| problems.push(problem)).ok()
        } else {
            None
        };
        match (version, problems.is_empty()) {
            (Ok(version), true) => {
                let kept =
                    Kept { keys: self.keys.clone(), version: version.as_ref().map(|one| one.1.clone()) };
                let version = version.map(|one| one.0);
                let forget_after_days = self.forget_after.and_then(days);
                Ok(Box::new(Unseen {
                    schema,
                    columns: Columns { keys, version },
                    sighted,
                    kept,
                    forget_after_days,
                }))
            }
            (version, _) => Err(problems.into_iter().chain(version.err()).collect()),
        }
    }
}

/// So long in days, rounded up; none, if it is more than are counted.
fn days(period: Duration) -> Option<u16> {
    let part = u64::from(period.subsec_nanos() > 0);
    u16::try_from(period.as_secs().saturating_add(part).div_ceil(SECONDS_A_DAY)).ok()
}

fn key_column(schema: &Schema, name: &str, pointer: &str) -> Result<usize, Problem> {
    let at = find_column(schema, name, pointer)?;
    let data_type = schema.field(at).data_type();
    if Fingerprints::can_be_key(data_type) {
        return Ok(at);
    }
    let message = format!(
        "`{name}` is {data_type}, by which rows are not told apart; name its parts, or cast it to string before"
    );
    Err(Problem::at(pointer, message))
}

fn version_column(schema: &Schema, name: &str) -> Result<(usize, VersionColumn), Problem> {
    let at = find_column(schema, name, "/version")?;
    let data_type = schema.field(at).data_type();
    match Versions::kind(data_type) {
        Some(kind) => Ok((at, VersionColumn { column: name.to_owned(), kind })),
        None => {
            let message = format!(
                "`{name}` is {data_type}, and versions are compared as numbers or times; cast it before, \
                 `cast: {{ {name}: timestamp }}` say"
            );
            Err(Problem::at("/version", message))
        }
    }
}

struct Unseen {
    schema: SchemaRef,
    columns: Columns,
    /// What is recorded of each row, if anything is.
    sighted: Option<Sighted>,
    kept: Kept,
    forget_after_days: Option<u16>,
}

/// Where the columns stand.
#[derive(Clone)]
struct Columns {
    keys: Vec<usize>,
    version: Option<usize>,
}

/// What keys and versions are, which must be the same in all runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    keys: Vec<String>,
    version: Option<VersionColumn>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct VersionColumn {
    column: String,
    /// Versions of one kind can be compared.
    kind: String,
}

/// The value that a commit keeps.
#[derive(Serialize, Deserialize)]
struct KeptValue {
    #[serde(flatten)]
    kept: Kept,
    seen: Value,
    /// Those of earlier runs stay, though this one records none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sightings: Option<Value>,
}

impl Stage for Unseen {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        Box::pin(try_stream! {
            let seen = self.open(&cx).await?;
            let mut input = futures::stream::iter(inputs).flatten();
            while let Some(batch) = input.next().await {
                let batch = batch?;
                let passes = seen.admit(&cx, batch.records()).await?;
                let whole = (batch, passes); // `?` is not seen inside `vec![]` here
                let mut pieces = vec![whole];
                while let Some((batch, passes)) = pieces.pop() {
                    match chosen(batch, passes, &cx).await? {
                        Chosen::Whole(batch) => yield batch,
                        Chosen::TooLarge(halves) => pieces.extend(halves.into_iter().rev()),
                    }
                }
            }
        })
    }
}

impl Unseen {
    /// The keys that were seen as of the last commit.
    async fn open(&self, cx: &Context) -> Result<Seen> {
        let total = cx.share().total();
        let memory = total.saturating_sub(ByteCount::new(total.get() / ROOM_FOR_ROWS));
        let reservation = cx.share().reserve(memory).await?;
        let before = cx.durable().map(|durable| self.kept_before(durable)).transpose()?.flatten();
        let sighted = self.sighted.clone().filter(|_| cx.durable().is_some());
        let opening = Opening {
            fs: Arc::clone(cx.fs()),
            place: match cx.durable() {
                Some(durable) => KeysIn::Folder(durable.dir().clone()),
                None => KeysIn::Scratch(cx.scratch().clone()),
            },
            how: Remembering {
                versioned: self.columns.version.is_some(),
                forget_after_days: self.forget_after_days,
                memory,
            },
            records: sighted.is_some(),
            beside: cx.durable().and_then(Durable::fallback).cloned(),
        };
        let not_recorded = before.as_ref().and_then(|before| before.sightings.clone());
        let (store, sightings) = cx.tasks().block(move || opening.open(before.as_ref())).await??;
        let store = Arc::new(Mutex::new(Remembered { store, sightings, _memory: reservation }));
        if let Some(durable) = cx.durable() {
            let (kept, tasks) = (self.kept.clone(), cx.tasks().clone());
            durable.register(Arc::new(SeenKeeper { store: Arc::clone(&store), kept, not_recorded, tasks }));
        }
        Ok(Seen { store, columns: self.columns.clone(), sighted })
    }

    /// What earlier runs have committed, if keys were then what they are now.
    fn kept_before(&self, durable: &Durable) -> Result<Option<KeptValue>> {
        let Some(value) = durable.kept() else { return Ok(None) };
        let conflict = |message| Error::new(ErrorKind::Conflict, "read seen keys", message);
        let before = KeptValue::deserialize(value).map_err(|error| {
            let message = "what was kept names no seen keys; forget them with `aqueduct run --full-refresh`";
            conflict(message).with_source(error)
        })?;
        if before.kept == self.kept {
            return Ok(Some(before));
        }
        let message = "earlier runs knew rows by other columns, or compared versions of another kind, and what they have seen \
                       does not tell what is new; leave them as they were, or forget all keys with `aqueduct run --full-refresh`";
        Err(conflict(message).with("before", before.kept.told()).with("now", self.kept.told()))
    }
}

impl Kept {
    fn told(&self) -> String {
        let version = self.version.as_ref().map(|one| format!(", version {} ({})", one.column, one.kind));
        format!("keys [{}]{}", self.keys.join(", "), version.unwrap_or_default())
    }
}

/// What it takes to open the keys, and the sightings where those are recorded.
struct Opening {
    fs: Arc<dyn Fs>,
    place: KeysIn,
    how: Remembering,
    records: bool,
    beside: Option<Value>,
}

impl Opening {
    /// As of what was kept.
    fn open(self, before: Option<&KeptValue>) -> Result<(KeyStore, Option<Sightings>)> {
        let Self { fs, place, mut how, records, beside } = self;
        let (memory, days) = (ByteCount::new(how.memory.get() / PART_OF_SIGHTINGS), how.forget_after_days);
        let sightings = match &place {
            KeysIn::Folder(folder) if records => {
                how.memory = how.memory.saturating_sub(memory);
                let kept = before.and_then(|before| before.sightings.as_ref());
                let memory = ByteCount::new(memory.get() / 2);
                Some(Sightings::open(&fs, folder.clone(), memory, days, kept, beside.as_ref())?)
            }
            _ => None,
        };
        let store =
            KeyStore::open_beside(&fs, place, how, before.map(|before| &before.seen), beside.as_ref())?;
        Ok((store, sightings))
    }
}

/// The keys and the sightings, and the memory that they are in.
struct Remembered {
    store: KeyStore,
    sightings: Option<Sightings>,
    _memory: Reservation,
}

type Shared = Arc<Mutex<Remembered>>;

/// Does something with the keys, on a thread that may block.
async fn with_keys<T: Send + 'static>(
    tasks: &Tasks,
    store: &Shared,
    work: impl FnOnce(&mut Remembered) -> Result<T> + Send + 'static,
) -> Result<T> {
    let store = Arc::clone(store);
    let done = tasks.block(move || {
        // After a panic the store says that it has failed.
        let mut remembered = store.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work(&mut remembered);
        drop(remembered);
        done
    });
    done.await?
}

struct Seen {
    store: Shared,
    columns: Columns,
    sighted: Option<Sighted>,
}

impl Seen {
    /// Which rows pass.
    async fn admit(&self, cx: &Context, records: &RecordBatch) -> Result<BooleanArray> {
        if records.num_rows() == 0 {
            return Ok(BooleanArray::from(Vec::<bool>::new()));
        }
        let (columns, records, metrics) = (self.columns.clone(), records.clone(), Arc::clone(cx.metrics()));
        let (now, sighted) = (cx.clock().now(), self.sighted.clone());
        let today = u16::try_from(now.timestamp().max(0).unsigned_abs() / SECONDS_A_DAY).unwrap_or(u16::MAX);
        let is_spill = cx.durable().is_none();
        with_keys(cx.tasks(), &self.store, move |Remembered { store, sightings, .. }| {
            let (started, before) = (Instant::now(), store.stats());
            let passes = columns.admit(store, &records, today)?;
            if let (Some(sighted), Some(sightings)) = (sighted, sightings) {
                sighted.add(&records, now.timestamp_micros(), sightings)?;
            }
            metrics.rows_duplicate.add_len(passes.false_count());
            metrics.add_busy(started.elapsed());
            let KeyStats { written_bytes, n_merges } = store.stats();
            if is_spill {
                metrics.spilled_bytes.add(written_bytes - before.written_bytes);
                metrics.spill_merges.add(n_merges - before.n_merges);
            }
            Ok(passes)
        })
        .await
    }
}

impl Columns {
    fn admit(&self, store: &mut KeyStore, records: &RecordBatch, today: u16) -> Result<BooleanArray> {
        let keys = self.keys.iter().map(|at| records.column(*at));
        let mut fingerprints = Fingerprints::new(keys)?;
        let versions = self.version.map(|at| Versions::new(records.column(at))).transpose()?;
        let n_rows = records.num_rows();
        let mut passes = Vec::with_capacity(n_rows);
        for first in (0..n_rows).step_by(ROWS_AT_ONCE) {
            let rows = first..n_rows.min(first + ROWS_AT_ONCE);
            let keyed = rows.map(|row| Keyed {
                key: fingerprints.of(row),
                version: versions.as_ref().map_or(0, |versions| versions.of(row)),
            });
            passes.extend(store.admit(&keyed.collect::<Vec<_>>(), today)?);
        }
        Ok(passes.into())
    }
}

enum Chosen {
    Whole(Batch),
    TooLarge(Box<[(Batch, BooleanArray); 2]>),
}

/// The rows that pass, or two halves where there is no room for a copy of them. One row needs no copy.
async fn chosen(batch: Batch, passes: BooleanArray, cx: &Context) -> Result<Chosen> {
    let n_passing = passes.true_count();
    if n_passing == batch.num_rows() {
        return Ok(Chosen::Whole(batch));
    }
    if n_passing == 0 {
        let none = RecordBatch::new_empty(batch.schema());
        return Ok(Chosen::Whole(batch.with_records(none)));
    }
    let records = filter_record_batch(batch.records(), &passes)
        .map_err(|error| Error::bug("drop seen rows", error.to_string()))?;
    let growth = retained_bytes(&records).saturating_sub(batch.reserved());
    if growth.get() <= cx.share().total().get() / ROOM_FOR_ROWS {
        return Ok(Chosen::Whole(cx.recharge(batch, records).await?));
    }
    drop(records);
    let middle = batch.num_rows() / 2;
    let (first, second) = (passes.slice(0, middle), passes.slice(middle, passes.len() - middle));
    let (records, reservation, positions, cut) = batch.into_parts();
    let rest = records.slice(middle, records.num_rows() - middle);
    let records = records.slice(0, middle);
    let batch = Batch::new(records, Reservation::empty()).with_positions(Positions::default()).with_cut(cut);
    let rest = Batch::new(rest, reservation).with_positions(positions);
    Ok(Chosen::TooLarge(Box::new([(batch, first), (rest, second)])))
}

/// Makes the keys of a commit durable.
struct SeenKeeper {
    store: Shared,
    kept: Kept,
    /// Sightings of earlier runs, where this one records none.
    not_recorded: Option<Value>,
    tasks: Tasks,
}

#[async_trait]
impl Keeper for SeenKeeper {
    async fn keep(&self) -> Result<Option<Value>> {
        let keep = |Remembered { store, sightings, .. }: &mut Remembered| {
            Ok((store.keep()?, sightings.as_mut().map(Sightings::keep).transpose()?))
        };
        let (seen, sightings) = with_keys(&self.tasks, &self.store, keep).await?;
        let sightings = sightings.or_else(|| self.not_recorded.clone());
        let value = serde_json::to_value(KeptValue { kept: self.kept.clone(), seen, sightings })
            .map_err(|error| Error::bug("keep seen keys", "they have no JSON").with_source(error))?;
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests;
