//! The keys that were seen since the last run was written.

use super::layout::{Entry, Layout};

/// A hash table of so many entries at most, in the order in which they came.
///
/// Its memory is there from the beginning, and is touched only as far as it is used.
#[derive(Debug)]
pub(super) struct Memtable {
    keys: Vec<u128>,
    days: Vec<u16>,
    /// Empty where keys have none.
    versions: Vec<u128>,
    /// Twice as many as entries, so that a key is found near its place: which entry lies here, counted from 1.
    slots: Vec<u32>,
    layout: Layout,
    capacity: usize,
}

impl Memtable {
    /// What one entry takes.
    pub(super) const fn bytes_an_entry(layout: Layout) -> usize {
        layout.entry_bytes() + 2 * size_of::<u32>()
    }

    pub(super) fn new(layout: Layout, capacity: usize) -> Self {
        let capacity = capacity.min(u32::MAX as usize / 4);
        Self {
            keys: Vec::with_capacity(capacity),
            days: Vec::with_capacity(capacity),
            versions: Vec::with_capacity(if layout.versioned { capacity } else { 0 }),
            slots: vec![0; 2 * capacity],
            layout,
            capacity,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn get(&self, key: u128) -> Option<Entry> {
        self.entry(self.find(key).ok()?)
    }

    /// Puts an entry in the place of that of its key, or beside the others; there must be room.
    pub(super) fn put(&mut self, entry: Entry) {
        match self.find(entry.key) {
            Ok(at) => {
                self.days[at] = entry.day;
                if self.layout.versioned {
                    self.versions[at] = entry.version;
                }
            }
            Err(slot) => {
                debug_assert!(self.len() < self.capacity, "the memtable has no room");
                self.keys.push(entry.key);
                self.days.push(entry.day);
                if self.layout.versioned {
                    self.versions.push(entry.version);
                }
                self.slots[slot] = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
            }
        }
    }

    /// All entries by key; then it is empty.
    ///
    /// # Errors
    /// That of whoever takes them. It is as good as empty then, too.
    pub(super) fn drain<E>(&mut self, mut take: impl FnMut(Entry) -> Result<(), E>) -> Result<(), E> {
        // The slots are done with: the first of them become the order.
        let mut order = std::mem::take(&mut self.slots);
        let n_keys = self.keys.len().min(order.len());
        let (used, _) = order.split_at_mut(n_keys);
        (0..).zip(&mut *used).for_each(|(at, place)| *place = at);
        used.sort_unstable_by_key(|at| self.keys.get(*at as usize));
        let taken = used.iter().filter_map(|at| self.entry(*at as usize)).try_for_each(&mut take);
        order.fill(0);
        self.slots = order;
        self.keys.clear();
        self.days.clear();
        self.versions.clear();
        taken
    }

    /// Where the entry of a key is; else the slot for it.
    fn find(&self, key: u128) -> Result<usize, usize> {
        let n_slots = self.slots.len();
        let lower = key & u128::from(u64::MAX);
        let mut slot = usize::try_from((lower * n_slots as u128) >> 64).unwrap_or_default();
        loop {
            match self.slots[slot] as usize {
                0 => return Err(slot),
                at if self.keys[at - 1] == key => return Ok(at - 1),
                _ => slot = if slot + 1 == n_slots { 0 } else { slot + 1 },
            }
        }
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let version = self.versions.get(at).copied().unwrap_or_default();
        Some(Entry { key: *self.keys.get(at)?, day: *self.days.get(at)?, version })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn it_gives_what_was_put_last_and_all_of_it_by_key() {
        let mut table = Memtable::new(Layout { versioned: true }, 100);
        let mut expected = BTreeMap::new();
        for round in 0..2_u16 {
            for n in 0..200_u64 {
                // All begin at one slot.
                let key = u128::from(n % 100) << 64;
                let entry = Entry { key, version: u128::from(n), day: round };
                table.put(entry);
                expected.insert(key, entry);
            }
            assert_eq!(table.len(), 100);
            assert!(expected.iter().all(|(key, entry)| table.get(*key) == Some(*entry)));
            assert_eq!(table.get(7), None);
            let mut drained = Vec::new();
            let done: Result<(), Infallible> = table.drain(|entry| {
                drained.push(entry);
                Ok(())
            });
            done.unwrap();
            assert!(drained.iter().eq(expected.values()));
            assert_eq!((table.len(), table.get(0)), (0, None));
        }
    }
}
