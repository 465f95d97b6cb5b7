//! The step before a sink that merges: rows that come and rows that are there become one row of each key. The rows come out
//! in the order of their keys, and only those of folders that change.
//!
//! The rows that come are sorted by their keys as they arrive. Where a key may lie in any folder, the keys of what is there
//! are then looked through for those that came, to know the folders that change: one more sort, of keys alone. The rows
//! of these folders are read and put to the others, and of each key the newest is given.
//!
//! Memory: the step's share, from the first row to the last. What it does not hold goes to disk, sorted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aqueduct_core::{
    Context, Error, Folders, Inputs, MemoryNeed, Merging, Planning, Problem, RecordStream, Result, Stage,
    StageConfig, Stored, StoredPart, StoredRead, StoredRows, find_column, only_input,
};
use aqueduct_primitives::ByteCount;
use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt8Array, UInt32Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type, UInt32Type};
use futures::StreamExt;
use futures::executor::block_on;

use super::order_by::check_order;
use super::sorted::{fill, memory_of};
use super::{MIN_LEASE, WANTED_LEASE, spill_note};
use crate::beside::{Desk, Done, beside, lease_of};
use crate::plain::{bind_plain, plain_rows};
use crate::sort::KeyEncoder;
use crate::{ExternalSort, SortKey, SortMemory, SortOrder, SortSpec};

/// The step that a sink which merges asks for.
pub fn merge_before(merging: Merging) -> Box<dyn StageConfig> {
    Box::new(Config(merging))
}

struct Config(Merging);

/// Of the lease, what sorts the rows, what sorts keys, and what reads.
struct Division {
    rows: SortMemory,
    keys: SortMemory,
    reading: ByteCount,
}

impl Division {
    fn of(lease: ByteCount) -> Self {
        let quarter = ByteCount::new(lease.get() / 4);
        let half = lease.saturating_sub(quarter).saturating_sub(quarter);
        Self { rows: memory_of(half), keys: SortMemory::of_lease(quarter), reading: quarter }
    }
}

impl StageConfig for Config {
    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::between(MIN_LEASE.saturating_mul(2), WANTED_LEASE)
    }

    fn spills(&self) -> bool {
        true
    }

    fn spill_note(&self, share: ByteCount) -> String {
        // Half of the lease sorts the rows.
        spill_note(ByteCount::new(lease_of(share).get() / 2))
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let given = only_input(inputs)?;
        let schema = bind_plain(&given)?;
        let folders = self.0.rows.folders(&schema)?;
        let (keys, by) = (places(&self.0.keys, &schema, "/keys"), places(&self.0.by, &schema, "/by"));
        match (keys, by) {
            (Ok(keys), Ok(by)) => {
                let looks_through = !self.0.rows.are_together(&self.0.keys);
                let rows = Arc::clone(&self.0.rows);
                Ok(Box::new(Merge { schema, keys, by, looks_through, folders, rows }))
            }
            (keys, by) => Err([keys.err(), by.err()].into_iter().flatten().flatten().collect()),
        }
    }
}

/// The places of columns that have an order.
fn places(names: &[String], schema: &Schema, option: &str) -> Result<Vec<usize>, Vec<Problem>> {
    let (mut places, mut problems) = (Vec::new(), Vec::new());
    for (n, name) in names.iter().enumerate() {
        let pointer = format!("{option}/{n}");
        let found = find_column(schema, name, &pointer).and_then(|column| {
            check_order(schema.field(column).data_type(), name, &pointer)?;
            Ok(column)
        });
        match found {
            Ok(place) => places.push(place),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(places) } else { Err(problems) }
}

/// Where rows are from, as the column behind all others says it.
const STORED: u8 = 0;
const NEW: u8 = 1;

/// A [`Config`] that is bound.
struct Merge {
    schema: SchemaRef,
    keys: Vec<usize>,
    by: Vec<usize>,
    /// Rows with a key that came may lie in any folder.
    looks_through: bool,
    folders: Folders,
    rows: Arc<dyn StoredRows>,
}

impl Stage for Merge {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> aqueduct_core::BatchStream {
        let n_inputs = inputs.len();
        let of_step = cx.clone();
        beside(inputs, self.schema(), cx, move |desk| self.work(desk, n_inputs, &of_step))
    }
}

impl Merge {
    fn work(self: Box<Self>, mut desk: Desk, n_inputs: usize, cx: &Context) -> Result<Done> {
        let nothing = Arc::default();
        let stored = cx.stored().unwrap_or(&nothing);
        let division = Division::of(desk.lease);
        let reader =
            Reader { rows: Arc::clone(&self.rows), stored: Arc::clone(stored), memory: division.reading, cx };
        let mut wanted = Wanted::new(&self, stored, &desk, division.keys)?;
        let mut n_new: u64 = 0;
        let spec = self.spec(division.rows, &desk);
        let ranked = SchemaRef::clone(&spec.schema);
        let mut folders = self.folders;
        let mut sort = fill(&mut desk, n_inputs, &self.schema, spec, |records| {
            n_new += records.num_rows() as u64;
            wanted.see(&records, &mut folders)?;
            with_rank(&records, &ranked, NEW)
        })?;
        let changing = wanted.folders(&reader, &desk)?;
        for part in stored.parts().iter().filter(|part| changing.contains(part.folder())) {
            reader.each(part, &self.schema, false, &desk, |records| {
                sort.push(&with_rank(&records, &ranked, STORED)?)
            })?;
        }
        changing.into_iter().for_each(|folder| stored.replace(folder));
        let n_given = give(sort, desk)?;
        Ok(Done { n_duplicates: n_new - n_given })
    }

    /// By the keys, of each the newest first.
    fn spec(&self, memory: SortMemory, desk: &Desk) -> SortSpec {
        let rank = Field::new("", DataType::UInt8, false);
        let fields = self.schema.fields().iter().cloned().chain([Arc::new(rank)]);
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let newest = SortOptions { descending: true, nulls_first: false };
        let keys =
            self.keys.iter().map(|column| SortKey { column: *column, options: SortOptions::default() });
        let by = self.by.iter().copied().chain([self.schema.fields().len()]);
        let by = by.map(|column| SortKey { column, options: newest });
        let order = SortOrder {
            keys: keys.chain(by).collect(),
            latest_first: true,
            unique: Some(self.keys.len()),
            ..SortOrder::default()
        };
        SortSpec { schema, order, memory, compression: None, max_rows: desk.max_rows }
    }
}

/// Rows with a column behind the others that says where they are from.
fn with_rank(records: &RecordBatch, ranked: &SchemaRef, rank: u8) -> Result<RecordBatch> {
    let ranks: ArrayRef = Arc::new(UInt8Array::from_value(rank, records.num_rows()));
    let columns = records.columns().iter().cloned().chain([ranks]).collect();
    plain_rows(columns, records.num_rows(), ranked)
}

/// Gives the rows; how many of them came with this run.
fn give(sort: ExternalSort, mut desk: Desk) -> Result<u64> {
    let sorted = sort.finish()?;
    desk.widen_output(ByteCount::new(sorted.room_bytes()))?;
    let mut n_given = 0;
    for records in sorted {
        let mut records = records?;
        let ranks = records.remove_column(records.num_columns() - 1);
        let ranks = ranks.as_primitive::<UInt8Type>();
        n_given += ranks.values().iter().filter(|rank| **rank == NEW).count() as u64;
        desk.out.send_blocking(records, false)?;
    }
    Ok(n_given)
}

/// Reads what is there.
struct Reader<'c> {
    rows: Arc<dyn StoredRows>,
    stored: Arc<Stored>,
    memory: ByteCount,
    cx: &'c Context,
}

impl Reader<'_> {
    /// The rows of a part, made plain.
    fn each(
        &self,
        part: &StoredPart,
        columns: &SchemaRef,
        is_partial: bool,
        desk: &Desk,
        mut take: impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let asked = StoredRead {
            columns: SchemaRef::clone(columns),
            is_partial,
            memory: self.memory,
            cx: self.cx.clone(),
        };
        let mut rows: RecordStream = self.rows.read(&self.stored, part, asked);
        while let Some(records) = block_on(rows.next()) {
            if desk.stop().is_cancelled() {
                return Err(Error::cancelled("read rows"));
            }
            desk.pace.tick();
            let records = records?;
            take(plain_rows(records.columns().to_vec(), records.num_rows(), columns)?)?;
        }
        Ok(())
    }
}

/// Finds the folders that change.
enum Wanted {
    /// Nothing is there.
    None,
    /// Those that the rows lie in, where a key has its folder.
    Of(BTreeSet<String>),
    /// These, and those with a key among them.
    Anywhere { of: BTreeSet<String>, keys: Box<Keys> },
}

/// The keys that came, and those that are there with the place of their folder.
struct Keys {
    columns: Vec<usize>,
    /// The key columns alone.
    schema: SchemaRef,
    sort: ExternalSort,
    encoder: KeyEncoder,
    sorted: SchemaRef,
}

impl Wanted {
    fn new(merge: &Merge, stored: &Stored, desk: &Desk, memory: SortMemory) -> Result<Self> {
        match (stored.parts().is_empty(), merge.looks_through) {
            (true, _) => Ok(Self::None),
            (false, false) => Ok(Self::Of(BTreeSet::new())),
            (false, true) => {
                let keys = Box::new(Keys::new(merge, desk, memory)?);
                Ok(Self::Anywhere { of: BTreeSet::new(), keys })
            }
        }
    }

    /// Takes in rows that came.
    fn see(&mut self, records: &RecordBatch, folders: &mut Folders) -> Result<()> {
        match self {
            Self::None => {}
            Self::Of(of) => of.append(&mut folders(records)?),
            Self::Anywhere { of, keys } => {
                of.append(&mut folders(records)?);
                let columns = keys.columns.iter().map(|column| Arc::clone(records.column(*column)));
                keys.push(columns.collect(), records.num_rows(), None)?;
            }
        }
        Ok(())
    }

    /// All folders that change.
    fn folders(self, reader: &Reader<'_>, desk: &Desk) -> Result<BTreeSet<String>> {
        let (mut of, mut keys) = match self {
            Self::None => return Ok(BTreeSet::new()),
            Self::Of(of) => return Ok(of),
            Self::Anywhere { of, keys } => (of, keys),
        };
        let parts = reader.stored.parts();
        let others: BTreeSet<&str> =
            parts.iter().map(StoredPart::folder).filter(|folder| !of.contains(*folder)).collect();
        let others: BTreeMap<&str, u32> = others.into_iter().zip(0..).collect();
        let columns = SchemaRef::clone(&keys.schema);
        for part in parts {
            let Some(folder) = others.get(part.folder()) else { continue };
            reader.each(part, &columns, true, desk, |records| {
                keys.push(records.columns().to_vec(), records.num_rows(), Some(*folder))
            })?;
        }
        let found = keys.in_common(desk)?;
        of.extend(others.into_iter().filter(|(_, n)| found.contains(n)).map(|(name, _)| name.to_owned()));
        Ok(of)
    }
}

impl Keys {
    fn new(merge: &Merge, desk: &Desk, memory: SortMemory) -> Result<Self> {
        let columns = merge.keys.clone();
        let fields: Vec<_> =
            columns.iter().map(|column| Arc::clone(&merge.schema.fields()[*column])).collect();
        let folder = Arc::new(Field::new("", DataType::UInt32, true));
        let schema: SchemaRef = Arc::new(Schema::new(fields.clone()));
        let sorted: SchemaRef = Arc::new(Schema::new([fields, vec![folder]].concat()));
        let key = |column| SortKey { column, options: SortOptions::default() };
        let keys: Vec<_> = (0..columns.len()).map(key).collect();
        // Of one key, that which came stands first; each folder once.
        let first = SortOptions { descending: false, nulls_first: true };
        let of_folder = SortKey { column: columns.len(), options: first };
        let unique = Some(columns.len() + 1);
        let all = keys.iter().copied().chain([of_folder]).collect();
        let spec = SortSpec {
            schema: SchemaRef::clone(&sorted),
            order: SortOrder { keys: all, unique, ..SortOrder::default() },
            memory,
            compression: None,
            max_rows: desk.max_rows,
        };
        let encoder = KeyEncoder::new(&sorted, &SortOrder { keys, ..SortOrder::default() })?;
        let sort = ExternalSort::new(spec, desk.dir.clone())?.stopped_by(desk.stop());
        Ok(Self { columns, schema, sort, encoder, sorted })
    }

    fn push(&mut self, mut columns: Vec<ArrayRef>, n_rows: usize, folder: Option<u32>) -> Result<()> {
        columns.push(Arc::new(UInt32Array::from(vec![folder; n_rows])));
        self.sort.push(&plain_rows(columns, n_rows, &self.sorted)?)
    }

    /// The folders with a key that came.
    fn in_common(self, desk: &Desk) -> Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        let mut came: Vec<u8> = Vec::new();
        let mut has_come = false;
        for records in self.sort.finish()? {
            desk.pace.tick();
            let records = records?;
            let keys = self.encoder.encode(&records)?;
            let folders = records.column(self.columns.len()).as_primitive::<UInt32Type>();
            for (row, folder) in folders.iter().enumerate() {
                match folder {
                    None => {
                        came.clear();
                        came.extend_from_slice(keys.key(row));
                        has_come = true;
                    }
                    Some(folder) if has_come && keys.key(row) == came => {
                        found.insert(folder);
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(found)
    }
}
