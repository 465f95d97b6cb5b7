//! The join of two inputs of any size: a small right side is looked up, else both are sorted and merged.
//!
//! Which of the two it is shows when the right side ends, or becomes too large. Until then left rows are kept
//! as they come: to be looked up they need no sort, and they keep their order.
//!
//! DataFusion's joins are not used. Its hash join cannot spill. Its sort-merge join keeps the keys of all right rows of
//! one key in memory even after it spilled the rows, and reads the rows back all at once: one hot key on both sides, and
//! it takes more than any lease. Here the right rows of a key that do not fit go to a file, which is read again for each
//! block of left rows.

mod columns;
mod kept;
mod lookup;
mod merge;
mod pairs;

use std::sync::Arc;

use aqueduct_core::rows::copied;
use aqueduct_core::{Error, Result, retained_bytes};
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::{and, filter_record_batch, is_not_null, not};
use arrow::datatypes::SchemaRef;

pub(crate) use self::columns::{JoinColumns, KeyPair, common_type};
use self::kept::Kept;
use self::lookup::Table;
use self::pairs::{Pairs, WeighedRows};
use crate::beside::{Desk, Done};
use crate::{ExternalSort, SortKey, SortMemory, SortOrder, SortSpec};

/// Which rows come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Each left row with each right row of its key.
    Inner,
    /// And left rows without one, alone.
    Left,
    /// Left rows that have a right row.
    Semi,
    /// Left rows that have none.
    Anti,
}

impl How {
    /// Whether columns of the right side come out.
    pub(crate) fn gives_right(self) -> bool {
        matches!(self, Self::Inner | Self::Left)
    }

    /// Whether a left row without a right one comes out.
    fn gives_unmatched(self) -> bool {
        matches!(self, Self::Left | Self::Anti)
    }
}

/// What is joined, and how.
#[derive(Clone, Debug)]
pub(crate) struct JoinSpec {
    pub(crate) how: How,
    /// Only the first right row of each key counts.
    pub(crate) one_match: bool,
    pub(crate) columns: JoinColumns,
}

/// Of the lease: a right side up to this part is looked up. So much is for the right rows of one key, else.
const SMALL_PART: u64 = 4;
/// What each side's sort has of the lease; the rest is for rows on their way out.
const PERCENT_FOR_SORT: u64 = 34;
/// Indexes of rows have 32 bits, offsets of text as well.
const MAX_SMALL_BYTES: u64 = 1 << 30;
/// What a row takes in a table beside its columns and its key.
const BYTES_BESIDE_ROW: u64 = 32;

const LEFT: usize = 0;

/// Joins the first two inputs. Null keys never match.
pub(crate) fn join(mut desk: Desk, spec: JoinSpec) -> Result<Done> {
    let spec = Arc::new(spec);
    let mut sides = Sides::new(&desk, &spec)?;
    let (mut left_is_over, mut right_is_over) = (false, false);
    while !(right_is_over && (left_is_over || sides.undecided.is_some())) {
        let fed = desk.feed.next_blocking()?;
        match (fed.input, fed.rows) {
            (LEFT, Some((records, _held))) => sides.push_left(&records, &desk)?,
            (LEFT, None) => left_is_over = true,
            (_, Some((records, _held))) => sides.push_right(&records, &desk)?,
            (_, None) => right_is_over = true,
        }
    }
    let Sides { left, right, undecided, .. } = sides;
    match undecided {
        Some(sides) => look_up(desk, &spec, sides, left_is_over),
        None => merge::merge(&desk, &spec, left.finish()?, right.finish()?),
    }
}

/// The two sides while they are read. Both at once: they may come of one source, which waits until both take its rows.
struct Sides {
    spec: Arc<JoinSpec>,
    left: ExternalSort,
    right: ExternalSort,
    /// As long as the right side is small; the sorts are empty then.
    undecided: Option<Undecided>,
    most_small_bytes: u64,
}

/// What came as long as the right side is small.
struct Undecided {
    left: Kept,
    right: Vec<RecordBatch>,
    right_bytes: u64,
}

impl Sides {
    fn new(desk: &Desk, spec: &Arc<JoinSpec>) -> Result<Self> {
        let columns = &spec.columns;
        let lease = desk.lease.percent(PERCENT_FOR_SORT);
        let sort = |schema: &SchemaRef, keys: Vec<usize>| {
            let key = |column| SortKey { column, options: Default::default() };
            let spec = SortSpec {
                schema: Arc::clone(schema),
                order: SortOrder { keys: keys.into_iter().map(key).collect(), ..SortOrder::default() },
                memory: SortMemory::of_lease(lease),
                compression: None,
                max_rows: desk.max_rows,
            };
            Ok::<_, Error>(ExternalSort::new(spec, desk.dir.clone())?.stopped_by(desk.stop()))
        };
        let left = sort(&columns.left, columns.keys.iter().map(|pair| pair.left).collect())?;
        let right = sort(&columns.right, columns.keys.iter().map(|pair| pair.right).collect())?;
        let most_small_bytes = (desk.lease.get() / SMALL_PART).min(MAX_SMALL_BYTES);
        let kept = Kept::new(desk, &columns.left);
        Ok(Self {
            spec: Arc::clone(spec),
            left,
            right,
            undecided: Some(Undecided { left: kept, right: Vec::new(), right_bytes: 0 }),
            most_small_bytes,
        })
    }

    fn push_left(&mut self, records: &RecordBatch, desk: &Desk) -> Result<()> {
        match &mut self.undecided {
            Some(sides) => sides.left.push(&wanted_left(records, &self.spec)?),
            None => self.left.push(&keyed_left(records, &self.spec, desk)?),
        }
    }

    fn push_right(&mut self, records: &RecordBatch, desk: &Desk) -> Result<()> {
        let columns = &self.spec.columns;
        let (records, _) =
            by_null(&columns.plain_right(records)?, columns.keys.iter().map(|pair| pair.right))?;
        let Some(sides) = &mut self.undecided else { return self.right.push(&records) };
        let own = copied(&records, 0..records.num_rows())?;
        sides.right_bytes += retained_bytes(&own).get() + BYTES_BESIDE_ROW * own.num_rows() as u64;
        sides.right.push(own);
        if sides.right_bytes > self.most_small_bytes { self.decide(desk) } else { Ok(()) }
    }

    /// The right side is large: what was kept goes into the sorts. Right rows first: they take more memory.
    fn decide(&mut self, desk: &Desk) -> Result<()> {
        let Some(Undecided { left, right, .. }) = self.undecided.take() else { return Ok(()) };
        right.into_iter().try_for_each(|records| self.right.push(&records))?;
        for records in left.into_rows()? {
            self.left.push(&keyed_left(&records?, &self.spec, desk)?)?;
            desk.pace.tick();
        }
        Ok(())
    }
}

/// Left rows of which something may come.
fn wanted_left(records: &RecordBatch, spec: &JoinSpec) -> Result<RecordBatch> {
    let columns = &spec.columns;
    let records = columns.plain_left(records)?;
    match spec.how.gives_unmatched() {
        true => Ok(records),
        false => Ok(by_null(&records, columns.keys.iter().map(|pair| pair.left))?.0),
    }
}

/// Left rows whose keys may match; the others go out at once, or nowhere.
fn keyed_left(records: &RecordBatch, spec: &Arc<JoinSpec>, desk: &Desk) -> Result<RecordBatch> {
    let columns = &spec.columns;
    let (keyed, others) = by_null(&columns.plain_left(records)?, columns.keys.iter().map(|pair| pair.left))?;
    if let Some(others) = others.filter(|_| spec.how.gives_unmatched()) {
        let mut out = Pairs::new(spec, &desk.out, desk.max_rows)?;
        out.push_all_alone(&WeighedRows::new(others))?;
        out.flush()?;
    }
    Ok(keyed)
}

/// Rows of which no key is null, and the others if there are any.
fn by_null(
    records: &RecordBatch,
    keys: impl Iterator<Item = usize>,
) -> Result<(RecordBatch, Option<RecordBatch>)> {
    let failed = |error| Error::bug("join", "rows cannot be told by their keys").with_source(error);
    let mut mask: Option<BooleanArray> = None;
    for key in keys.filter(|key| records.column(*key).logical_null_count() > 0) {
        let is_there = is_not_null(records.column(key)).map_err(failed)?;
        mask = Some(match mask {
            Some(mask) => and(&mask, &is_there).map_err(failed)?,
            None => is_there,
        });
    }
    let Some(mask) = mask else { return Ok((records.clone(), None)) };
    let keyed = filter_record_batch(records, &mask).map_err(failed)?;
    let others = not(&mask).and_then(|mask| filter_record_batch(records, &mask)).map_err(failed)?;
    Ok((keyed, Some(others)))
}

/// Left rows come out in the order in which they came.
fn look_up(mut desk: Desk, spec: &Arc<JoinSpec>, sides: Undecided, mut left_is_over: bool) -> Result<Done> {
    let table = Table::new(sides.right, spec)?;
    let mut out = Pairs::new(spec, &desk.out, desk.max_rows)?;
    for records in sides.left.into_rows()? {
        table.join(records?, &mut out)?;
        desk.pace.tick();
    }
    out.flush()?;
    while !left_is_over {
        match desk.feed.next_blocking()?.rows {
            Some((records, _held)) => {
                table.join(wanted_left(&records, spec)?, &mut out)?;
                // What waits to go out must not outlive the memory that is held for it.
                out.flush()?;
            }
            None => left_is_over = true,
        }
    }
    Ok(Done::default())
}
