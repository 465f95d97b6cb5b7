//! How a sort divides its lease, and what fits into it.

use aqueduct_core::{Error, ErrorKind};
use aqueduct_primitives::ByteCount;

/// The most runs that are merged at once: each has a file open.
const MAX_FAN_IN: u64 = 256;

/// Of the lease, one part in so many is a block: a merge holds a block of each run.
const BLOCK_PART: u64 = 128;
/// Smaller blocks cost more than they save, larger ones gain nothing.
const BLOCK_BYTES: std::ops::RangeInclusive<u64> = (32 << 10)..=(1 << 20);
/// Of the lease, at least one part in so many is for outputs on their way.
const OUTPUTS_PART: u64 = 8;

/// How a sort divides its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortMemory {
    lease_bytes: u64,
    block_bytes: u64,
    run_makers: u64,
}

impl SortMemory {
    /// For a lease of so many bytes.
    pub fn of_lease(lease: ByteCount) -> Self {
        let block_bytes = (lease.get() / BLOCK_PART).clamp(*BLOCK_BYTES.start(), *BLOCK_BYTES.end());
        Self { lease_bytes: lease.get(), block_bytes, run_makers: 0 }
    }

    /// With so many runs being written while another is filled. Each takes as much as the one that is filled.
    #[must_use]
    pub fn with_run_makers(self, run_makers: u64) -> Self {
        Self { run_makers, ..self }
    }

    /// With blocks of another size.
    #[cfg(test)]
    pub(super) fn with_block_bytes(self, block_bytes: u64) -> Self {
        Self { block_bytes, ..self }
    }

    /// About how many bytes of rows make a run. As much, and what waits to be written, is held without a disk.
    pub fn run_bytes(&self) -> ByteCount {
        let beside = self.beside_fill(self.block_bytes);
        ByteCount::new(self.lease_bytes.saturating_sub(beside) / (1 + self.run_makers))
    }

    /// About how many runs are merged at once, where no row is wider than a block.
    pub fn fan_in(&self) -> u64 {
        let room = self.lease_bytes.saturating_sub(self.least_room(self.block_bytes) + 3 * self.block_bytes);
        (room / self.block_bytes).clamp(2, MAX_FAN_IN)
    }

    /// About how large blocks and outputs are.
    pub(crate) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// Whether so many bytes of rows and keys may wait, the widest row among them.
    pub(super) fn holds(&self, fill_bytes: u64, widest_row: u64) -> bool {
        self.held(fill_bytes, widest_row) <= self.lease_bytes
    }

    fn held(&self, fill_bytes: u64, widest_row: u64) -> u64 {
        fill_bytes * (1 + self.run_makers) + self.beside_fill(self.block_bytes.max(widest_row))
    }

    /// Beside rows that wait there is a block that is being written, twice, and one that comes in.
    fn beside_fill(&self, block: u64) -> u64 {
        (2 * self.run_makers.max(1) + 1) * block
    }

    /// What is left for outputs beside rows that wait and never touch the disk; none if it is too little. One output
    /// is being made.
    pub(super) fn outputs_beside(&self, fill_bytes: u64, widest_row: u64) -> Option<u64> {
        let output = self.block_bytes.max(widest_row);
        let left = self.lease_bytes.saturating_sub(fill_bytes + output);
        (left >= self.least_room(output)).then_some(left)
    }

    fn least_room(&self, output: u64) -> u64 {
        (self.lease_bytes / OUTPUTS_PART).max(2 * output)
    }

    /// What is left for outputs beside a merge.
    pub(super) fn beside_merge(&self, need: &MergeNeed) -> u64 {
        self.lease_bytes.saturating_sub(need.n_bytes(self.block_bytes))
    }

    /// Whether such a merge fits, with room for its outputs: on their way, or being written to a run.
    pub(super) fn merges(&self, need: &MergeNeed) -> bool {
        need.n_runs <= MAX_FAN_IN
            && self.beside_merge(need) >= self.least_room(self.block_bytes.max(need.largest_block))
    }

    /// A row does not fit into the lease, with its key.
    pub(super) fn too_wide(&self, row_bytes: u64, key_bytes: u64) -> Error {
        let needed = self.held(row_bytes + key_bytes, row_bytes);
        let error = self.refused("a row is too wide", needed);
        error.with("row_bytes", row_bytes).with("key_bytes", key_bytes)
    }

    /// Not even two runs fit.
    pub(super) fn too_wide_to_merge(&self, need: &MergeNeed) -> Error {
        let two = MergeNeed { n_runs: 2, blocks: 2 * need.largest_block, ..*need };
        let room = (2 * self.block_bytes.max(need.largest_block)).max(self.lease_bytes / OUTPUTS_PART);
        let needed = two.n_bytes(self.block_bytes) + room;
        self.refused("rows are too wide to be merged", needed).with("block_bytes", need.largest_block)
    }

    fn refused(&self, what: &str, needed_bytes: u64) -> Error {
        let message = format!("{what} for the memory of this step; raise `memory`");
        Error::new(ErrorKind::Limit, "sort", message)
            .with("needed_bytes", needed_bytes)
            .with("limit_bytes", self.lease_bytes)
    }
}

/// What a merge of some runs takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MergeNeed {
    n_runs: u64,
    blocks: u64,
    largest_block: u64,
    last_key: u64,
}

impl MergeNeed {
    /// With another run, whose largest block and widest key take so many bytes. Without a key where rows are not to be
    /// unique.
    pub(super) fn add(&mut self, largest_block: u64, widest_key: u64) {
        self.n_runs += 1;
        self.blocks += largest_block;
        self.largest_block = self.largest_block.max(largest_block);
        self.last_key = self.last_key.max(widest_key);
    }

    /// A block of each; those that were used up for one output; the output that is made; while there is none, the
    /// next block as it lies on disk; a copy of the last key.
    fn n_bytes(&self, output_bytes: u64) -> u64 {
        let used_up = output_bytes + self.largest_block;
        self.blocks + used_up + output_bytes.max(self.largest_block) + self.last_key
    }
}
