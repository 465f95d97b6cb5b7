//! Encoded events in one piece of memory.

use std::ops::Range;

/// What an empty piece weighs: its pointers, its counts, its place in the ring.
const PIECE_BYTES: usize = 160;

/// Encoded events, one after the other: what is sent at once, and kept in one piece.
#[derive(Debug, Default)]
pub struct Events {
    data: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Events {
    /// What an event that is sent by itself weighs beside its bytes.
    pub(super) const OVERHEAD: usize = PIECE_BYTES + size_of::<u32>();

    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, written to the end of the buffer by `encode`; how many bytes it has. One that has more than `max_bytes`,
    /// or does not fit this piece any more, is not added: nothing is returned.
    pub fn add(&mut self, max_bytes: usize, encode: impl FnOnce(&mut Vec<u8>)) -> Option<usize> {
        let start = self.data.len();
        encode(&mut self.data);
        let n_bytes = self.data.len() - start;
        match u32::try_from(self.data.len()) {
            Ok(end) if n_bytes <= max_bytes => {
                self.ends.push(end);
                Some(n_bytes)
            }
            _ => {
                self.data.truncate(start);
                None
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of all of them.
    pub fn n_bytes(&self) -> usize {
        self.data.len()
    }

    /// One event.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.to_vec(), ends: vec![u32::try_from(bytes.len()).unwrap_or(u32::MAX)] }
    }

    /// Gives memory back that holds nothing.
    pub(super) fn shrink(&mut self) {
        self.data.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// What the piece takes.
    pub(super) fn weight(&self) -> usize {
        PIECE_BYTES + self.data.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.data[range]
    }

    /// Where the first `n` end.
    pub(super) fn end_of(&self, n: usize) -> usize {
        n.checked_sub(1).map_or(0, |last| self.ends[last] as usize)
    }

    /// How many end at or before this byte.
    pub(super) fn n_ended_by(&self, byte: usize) -> usize {
        self.ends.partition_point(|end| *end as usize <= byte)
    }
}
