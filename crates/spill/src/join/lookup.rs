//! A right side that fits into memory: left rows look theirs up, in the order in which they come.

use std::hash::BuildHasher;
use std::sync::Arc;

use aqueduct_core::{Error, Result};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::columns::SideEncoder;
use super::pairs::{Pairs, WeighedRows};
use super::{How, JoinSpec};
use crate::sort::Keys;

/// The right rows by their keys.
pub(super) struct Table {
    how: How,
    encoder: SideEncoder,
    rows: Arc<WeighedRows>,
    keys: Keys,
    hasher: DefaultHashBuilder,
    /// The first row of each key.
    first: HashTable<u32>,
    /// For each row the next one of its key; [`LAST`] if there is none.
    next: Vec<u32>,
}

const LAST: u32 = u32::MAX;

impl Table {
    pub(super) fn new(batches: Vec<RecordBatch>, spec: &Arc<JoinSpec>) -> Result<Self> {
        let records = concat_batches(&spec.columns.right, &batches)
            .map_err(|error| Error::bug("join", "rows cannot be put together").with_source(error))?;
        drop(batches);
        let encoder = spec.columns.encoder()?;
        let keys = encoder.right(&records)?;
        let n_rows = records.num_rows();
        let mut table = Self {
            how: spec.how,
            encoder,
            keys,
            hasher: DefaultHashBuilder::default(),
            first: HashTable::with_capacity(n_rows),
            next: vec![LAST; n_rows],
            rows: WeighedRows::new(records),
        };
        let keeps_all = !spec.one_match && spec.how.gives_right();
        // From the last to the first, so that the first of a key comes first.
        (0..u32::try_from(n_rows).unwrap_or(LAST)).rev().for_each(|row| table.insert(row, keeps_all));
        Ok(table)
    }

    fn insert(&mut self, row: u32, keeps_all: bool) {
        let Self { keys, hasher, first, next, .. } = self;
        let hash_of = |row: &u32| hasher.hash_one(keys.key(*row as usize));
        let key = keys.key(row as usize);
        match first.find_mut(hasher.hash_one(key), |other| keys.key(*other as usize) == key) {
            Some(known) => {
                if keeps_all {
                    next[row as usize] = *known;
                }
                *known = row;
            }
            None => {
                first.insert_unique(hasher.hash_one(key), row, hash_of);
            }
        }
    }

    /// Gives what comes of left rows. A null equals no key here: right rows have none.
    pub(super) fn join(&self, records: RecordBatch, out: &mut Pairs<'_>) -> Result<()> {
        let keys = self.encoder.left(&records)?;
        let left = WeighedRows::new(records);
        for row in 0..left.records.num_rows() {
            let key = keys.key(row);
            let found =
                self.first.find(self.hasher.hash_one(key), |other| self.keys.key(*other as usize) == key);
            match (found, self.how) {
                (Some(first), How::Inner | How::Left) => self.push_all((&left, row), *first, out)?,
                (Some(_), How::Semi) | (None, How::Left | How::Anti) => out.push_alone(&left, row)?,
                (Some(_), How::Anti) | (None, How::Inner | How::Semi) => {}
            }
        }
        Ok(())
    }

    fn push_all(&self, left: (&Arc<WeighedRows>, usize), first: u32, out: &mut Pairs<'_>) -> Result<()> {
        let mut right = first;
        while right != LAST {
            out.push(left, (&self.rows, right as usize))?;
            right = self.next.get(right as usize).copied().unwrap_or(LAST);
        }
        Ok(())
    }
}
