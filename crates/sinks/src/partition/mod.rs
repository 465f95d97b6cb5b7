//! Rows into a folder for each value: `country=FR/part-….parquet`.
//!
//! The first values that appear, sixteen at most and fewer in a small memory, have a file open each and are
//! written as they come. Rows of all other values wait on disk, in sixteen buckets by the hash of the value,
//! and are written at the seal, bucket by bucket, value after value. A bucket that is too large for the
//! memory is split again. So each value gets one file (more only by `file_bytes`), however many values there
//! are and in whatever order they come; memory holds the open files and one bucket's worth of rows.

mod by;
mod folder;
mod overflow;

use std::collections::{HashMap, HashSet};

use aqueduct_core::{Error, ErrorKind, Part, Result};
use aqueduct_formats::write::n_leaves;
use aqueduct_primitives::ByteCount;
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;

pub(crate) use by::{By, ByOptions};
pub(crate) use folder::value_in;
use overflow::{Overflow, hash};

use crate::ledger::Ledger;
use crate::part::{OpenPart, PartMaker};
use crate::staged_file::Syncs;

/// Files open at once. More would each hold less before they must flush; fewer, more rows wait on disk.
const MAX_OPEN_WRITERS: u64 = 16;
/// What the set of values seen takes for each, with the hash table's slack.
const SEEN_BYTES: u64 = 24;

/// Rows by the value of some columns.
pub(crate) struct Partitioned {
    by: By,
    maker: PartMaker,
    limits: Limits,
    slots: Vec<Slot>,
    slot_of: HashMap<Box<[u8]>, usize>,
    seen: HashSet<u64>,
    overflow: Overflow,
    syncs: Syncs,
}

/// What the user allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_partitions: usize,
    pub(crate) file_bytes: Option<ByteCount>,
}

/// A value with a file of its own.
struct Slot {
    folder: String,
    part: Option<OpenPart>,
}

/// Where the rows of a batch go: row numbers by slot and by bucket.
struct Routes {
    slots: Vec<Vec<u32>>,
    buckets: Vec<Vec<u32>>,
}

impl Partitioned {
    pub(crate) fn new(by: By, maker: PartMaker, limits: Limits) -> Self {
        Self {
            by,
            maker,
            limits,
            slots: Vec::new(),
            slot_of: HashMap::new(),
            seen: HashSet::new(),
            overflow: Overflow::default(),
            syncs: Syncs::default(),
        }
    }

    /// Writes rows; `cut` asks for new files before them.
    pub(crate) fn write(&mut self, records: &RecordBatch, cut: bool, ledger: &mut Ledger) -> Result<()> {
        if cut {
            self.close_slots()?;
        }
        let routes = self.route(records, ledger)?;
        let data = self.by.data(records)?;
        for (slot, rows) in routes.slots.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            self.write_slot(slot, &take(&data, rows)?, ledger)?;
        }
        for (bucket, rows) in routes.buckets.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            self.overflow.write(&self.maker, bucket, &take(records, rows)?)?;
        }
        self.settle(ledger)
    }

    /// The parts since the last call, all rows in them.
    pub(crate) fn seal(&mut self, ledger: &mut Ledger) -> Result<Vec<Part>> {
        self.close_slots()?;
        self.slots.clear();
        self.slot_of.clear();
        self.settle(ledger)?;
        let overflow = std::mem::take(&mut self.overflow);
        overflow.drain(&self.by, &mut self.maker, self.limits.file_bytes, ledger, &mut self.syncs)?;
        self.syncs.finish()
    }

    fn route(&mut self, records: &RecordBatch, ledger: &Ledger) -> Result<Routes> {
        let columns = self.by.columns(records)?;
        let keys = self.by.keys(&columns)?;
        let mut routes = Routes { slots: Vec::new(), buckets: vec![Vec::new(); overflow::N_BUCKETS] };
        for (at, row) in (0..).zip(0..records.num_rows()) {
            let key = keys.row(row).data();
            let slot = match self.slot_of.get(key) {
                Some(slot) => Some(*slot),
                None => self.meet(key, &columns, row, ledger)?,
            };
            match slot {
                Some(slot) => {
                    routes.slots.resize_with(routes.slots.len().max(slot + 1), Vec::new);
                    routes.slots[slot].push(at);
                }
                None => routes.buckets[overflow::bucket_of(key, 0)].push(at),
            }
        }
        Ok(routes)
    }

    /// A value without a slot: gives it one if it is new and there are any.
    fn meet(
        &mut self,
        key: &[u8],
        columns: &[arrow::array::ArrayRef],
        row: usize,
        ledger: &Ledger,
    ) -> Result<Option<usize>> {
        if !self.seen.insert(hash(key, 0)) {
            return Ok(None);
        }
        if self.seen.len() > self.limits.max_partitions {
            let message =
                "more partitions than `max_partitions` allows; raise it, or partition by something coarser";
            return Err(Error::new(ErrorKind::Limit, "write", message)
                .with("partition", self.by.folder(columns, row)?)
                .with("max_partitions", self.limits.max_partitions));
        }
        if self.slots.len() >= self.max_open(ledger) {
            return Ok(None);
        }
        let slot = self.slots.len();
        self.slots.push(Slot { folder: self.by.folder(columns, row)?, part: None });
        self.slot_of.insert(key.into(), slot);
        Ok(Some(slot))
    }

    fn max_open(&self, ledger: &Ledger) -> usize {
        let each = self.maker.format().least_memory(n_leaves(self.maker.schema())).get().max(1);
        ByteCount::new((ledger.limit().get() / 2 / each).clamp(1, MAX_OPEN_WRITERS)).as_usize()
    }

    fn write_slot(&mut self, slot: usize, data: &RecordBatch, ledger: &Ledger) -> Result<()> {
        let memory = ByteCount::new(ledger.limit().get() / self.max_open(ledger) as u64);
        let Slot { folder, part } = &mut self.slots[slot];
        let mut open = match part.take() {
            Some(open) => open,
            None => self.maker.open(folder, memory)?,
        };
        open.write(data, ledger.limit())?;
        if self.limits.file_bytes.is_some_and(|most| open.n_bytes() >= most) || open.is_full() {
            self.syncs.push(open.complete()?)?;
        } else {
            *part = Some(open);
        }
        Ok(())
    }

    fn close_slots(&mut self) -> Result<()> {
        for slot in &mut self.slots {
            if let Some(part) = slot.part.take() {
                self.syncs.push(part.complete()?)?;
            }
        }
        Ok(())
    }

    /// Flushes the largest files until all fit, and says what they hold.
    fn settle(&mut self, ledger: &mut Ledger) -> Result<()> {
        let fixed = ByteCount::of(self.seen.len()).saturating_mul(SEEN_BYTES);
        let fixed = fixed.saturating_add(self.overflow.memory());
        let mut parts: Vec<&mut OpenPart> =
            self.slots.iter_mut().filter_map(|slot| slot.part.as_mut()).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.memory()));
        let held = |parts: &[&mut OpenPart]| parts.iter().map(|part| part.memory()).sum::<ByteCount>();
        for at in 0..parts.len() {
            if held(&parts).saturating_add(fixed) <= ledger.limit() {
                break;
            }
            parts[at].flush()?;
        }
        ledger.hold(held(&parts).saturating_add(fixed))
    }
}

fn take(records: &RecordBatch, rows: Vec<u32>) -> Result<RecordBatch> {
    if rows.len() == records.num_rows() {
        return Ok(records.clone()); // in order, so these are all
    }
    take_record_batch(records, &UInt32Array::from(rows)).map_err(by::failed)
}
