//! Where data comes from: one file a source.
//!
//! Every source is a [`Factory`](aqueduct_core::Factory) in [`ALL`]. Bytes come through `aqueduct-net`, rows
//! through `aqueduct-formats`; this crate decides what is read, how much at once, and what is complete.
//!
//! The context of a source that reads files has a [`Fetcher`](aqueduct_net::Fetcher) in its services. Files that
//! cannot be read as they come are saved in its [`Scratch`](aqueduct_core::Scratch).

use aqueduct_core::SourceFactory;
use aqueduct_core::worker::WorkerTask;

pub mod documents;
pub mod feeds;
mod file_set;
pub mod files;
pub mod gdelt;
pub mod generate;
mod paged;
mod source_fn;
pub mod sse;
pub mod stac_api;
pub mod stac_catalog;
pub mod stdin;
mod when;

pub use source_fn::source_fn;

// What a source is read with, for those who use this crate alone.
pub use aqueduct_core as core;
pub use aqueduct_net as net;
pub use aqueduct_primitives as primitives;

/// All sources, in the order in which help lists them.
pub const ALL: &[&dyn SourceFactory] = &[
    &documents::FACTORY, //
    &feeds::FACTORY,
    &files::FACTORY,
    &gdelt::FACTORY,
    &generate::FACTORY,
    &sse::FACTORY,
    &stac_api::FACTORY,
    &stac_catalog::FACTORY,
    &stdin::FACTORY,
];

/// What child processes do for these sources.
pub const WORKER_TASKS: &[WorkerTask] = &[documents::WORKER_TASK];
