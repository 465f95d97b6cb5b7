//! Global stages: one file a stage.

#[cfg(feature = "engine")]
mod aggregate;
mod dedup;
mod join;
mod merge;
mod order_by;
mod sort;
mod sorted;
#[cfg(feature = "sql")]
mod sql;
mod tile;

use aqueduct_core::StageFactory;
use aqueduct_primitives::ByteCount;

use crate::beside::lease_of;

/// The least that a global stage works with: blocks of a few runs, and rows of some hundred kilobytes.
pub(crate) const MIN_LEASE: ByteCount = ByteCount::mib(8);
/// With more it only spills later: the planner decides.
pub(crate) const WANTED_LEASE: ByteCount = ByteCount::mib(1 << 20);

/// What a stage that sorts does within a share, for `explain`.
pub(crate) fn spill_note(share: ByteCount) -> String {
    let memory = sorted::memory_of(lease_of(share));
    let (run, fan_in) = (memory.run_bytes(), memory.fan_in());
    let one_pass = ByteCount::new(run.get().saturating_mul(fan_in));
    format!(
        "up to {} of rows in memory; more in runs of so much, {fan_in} merged at once: {} in one pass",
        run.human(),
        one_pass.human()
    )
}

pub use merge::merge_before;

/// Every stage of this crate, in the order in which help lists them.
pub const ALL: &[&dyn StageFactory] = &[
    &sort::FACTORY,
    &dedup::FACTORY,
    #[cfg(feature = "engine")]
    &aggregate::FACTORY,
    &join::FACTORY,
    #[cfg(feature = "sql")]
    &sql::FACTORY,
    &tile::FACTORY,
];
