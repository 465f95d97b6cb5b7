//! Two sorted sides, read side by side.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::Result;

use super::columns::SideEncoder;
use super::pairs::{Pairs, WeighedRows};
use super::{How, JoinSpec, SMALL_PART};
use crate::beside::{Desk, Done};
use crate::sort::{Keys, Spool, SpoolWriter};
use crate::{Sorted, SpillDir};

/// Joins sides that are sorted by their keys, none of which is null.
pub(super) fn merge(desk: &Desk, spec: &Arc<JoinSpec>, left: Sorted, right: Sorted) -> Result<Done> {
    let encoder = spec.columns.encoder()?;
    let mut groups = Groups {
        right,
        encoder: &encoder,
        spec,
        dir: &desk.dir,
        most_bytes: desk.lease.get() / SMALL_PART / 2,
        block: None,
        row: 0,
        group: Group::default(),
    };
    let mut out = Pairs::new(spec, &desk.out, desk.max_rows)?;
    for records in left {
        let records = records?;
        let keys = encoder.left(&records)?;
        let block = WeighedRows::new(records);
        for rows in runs_of_keys(&keys) {
            groups.go_to(keys.key(rows.start))?;
            groups.group.join(spec.how, &block, rows, &mut out)?;
            desk.pace.tick();
        }
    }
    out.flush()?;
    Ok(Done::default())
}

/// Neighbours of one key.
fn runs_of_keys(keys: &Keys) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let first = from;
        (first < keys.len()).then(|| {
            from = end_of_key(keys, first);
            first..from
        })
    })
}

/// Where the rows of the key that begins here end.
fn end_of_key(keys: &Keys, from: usize) -> usize {
    let key = keys.key(from);
    (from + 1..keys.len()).find(|row| keys.key(*row) != key).unwrap_or(keys.len())
}

/// The right side, one key after another.
struct Groups<'a> {
    right: Sorted,
    encoder: &'a SideEncoder,
    spec: &'a Arc<JoinSpec>,
    dir: &'a SpillDir,
    /// A group may hold so many bytes in memory.
    most_bytes: u64,
    /// Where it stands.
    block: Option<(Arc<WeighedRows>, Keys)>,
    row: usize,
    group: Group,
}

/// The right rows of one key.
#[derive(Default)]
struct Group {
    key: Option<Vec<u8>>,
    /// In memory: rows of blocks.
    parts: Vec<(Arc<WeighedRows>, Range<usize>)>,
    /// Or on disk, all of them.
    spool: Option<Spool>,
    has_rows: bool,
}

impl Groups<'_> {
    /// Makes the rows of this key the group. Keys are asked for in their order.
    fn go_to(&mut self, key: &[u8]) -> Result<()> {
        if self.group.key.as_deref() == Some(key) {
            return Ok(());
        }
        self.group = Group { key: Some(key.to_vec()), ..Group::default() };
        loop {
            self.read()?;
            let Some((_, keys)) = &self.block else { return Ok(()) };
            match keys.key(self.row).cmp(key) {
                Ordering::Less => self.row = end_of_key(keys, self.row),
                Ordering::Equal => return self.take_group(key),
                Ordering::Greater => return Ok(()),
            }
        }
    }

    /// Reads the next block if this one is used up. At the end there is none.
    fn read(&mut self) -> Result<()> {
        while self.block.as_ref().is_none_or(|(block, _)| self.row >= block.records.num_rows()) {
            self.block = None;
            self.row = 0;
            let Some(records) = self.right.next().transpose()? else { return Ok(()) };
            let keys = self.encoder.right(&records)?;
            self.block = Some((WeighedRows::new(records), keys));
        }
        Ok(())
    }

    fn take_group(&mut self, key: &[u8]) -> Result<()> {
        let (how, one) = (self.spec.how, self.spec.one_match);
        let mut held = 0;
        let mut writer: Option<SpoolWriter> = None;
        loop {
            self.read()?;
            let Some((block, keys)) = self.block.as_ref().filter(|(_, keys)| keys.key(self.row) == key)
            else {
                break;
            };
            let (from, to) = (self.row, end_of_key(keys, self.row));
            let is_needed = how.gives_right() && !(one && self.group.has_rows);
            if is_needed {
                held += block.n_bytes;
                self.group.parts.push((Arc::clone(block), from..if one { from + 1 } else { to }));
            }
            self.row = to;
            self.group.has_rows = true;
            if held > self.most_bytes || writer.is_some() {
                held = 0;
                self.spill(&mut writer)?;
            }
        }
        if let Some(writer) = writer {
            self.group.spool = Some(writer.finish());
        }
        Ok(())
    }

    fn spill(&mut self, writer: &mut Option<SpoolWriter>) -> Result<()> {
        let writer = match writer {
            Some(writer) => writer,
            None => writer.insert(SpoolWriter::create(self.dir, &self.spec.columns.right)?),
        };
        for (block, rows) in self.group.parts.drain(..) {
            writer.write(block.records.slice(rows.start, rows.len()))?;
        }
        Ok(())
    }
}

impl Group {
    /// Gives what comes of left rows of the group's key.
    fn join(&self, how: How, left: &Arc<WeighedRows>, rows: Range<usize>, out: &mut Pairs<'_>) -> Result<()> {
        match (how, self.has_rows) {
            (How::Semi, true) | (How::Left | How::Anti, false) => {
                rows.into_iter().try_for_each(|row| out.push_alone(left, row))
            }
            (How::Inner | How::Left, true) => self.join_all(left, rows, out),
            (How::Anti, true) | (How::Inner | How::Semi, false) => Ok(()),
        }
    }

    fn join_all(&self, left: &Arc<WeighedRows>, rows: Range<usize>, out: &mut Pairs<'_>) -> Result<()> {
        let Some(spool) = &self.spool else {
            for row in rows {
                for (block, matching) in &self.parts {
                    matching.clone().try_for_each(|other| out.push((left, row), (block, other)))?;
                }
            }
            return Ok(());
        };
        // All left rows with one block after another, so that the file is read once for them.
        for records in spool.read()? {
            let block = WeighedRows::new(records?);
            for row in rows.clone() {
                (0..block.records.num_rows()).try_for_each(|other| out.push((left, row), (&block, other)))?;
            }
        }
        Ok(())
    }
}
