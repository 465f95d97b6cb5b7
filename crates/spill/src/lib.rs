//! Global operations that always finish: rows that memory does not hold go to disk, sorted, and come back merged.
//!
//! [`ExternalSort`] is what all of it stands on. It knows nothing of flows: who has batches of Arrow and a number of
//! bytes can sort with it.

mod beside;
mod disk;
#[cfg(feature = "engine")]
mod engine;
mod join;
mod plain;
mod sort;
mod stages;

pub use disk::SpillDir;
pub use sort::{
    ExternalSort, PendingRun, Run, SortKey, SortMemory, SortOrder, SortReport, SortSpec, Sorted,
    SpillCompression,
};
pub use stages::{ALL, merge_before};
