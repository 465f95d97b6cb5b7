//! Where data goes: one file a sink.
//!
//! Sinks that write files stage them below [`Context::stage_dir`](aqueduct_core::Context::stage_dir), hashed
//! and durable; making them public is somebody else's part. A new sink is one file, two lines here, its
//! `mod` and its factory in [`ALL`], and a row in the table of the conformance suite.

pub mod arrow;
pub mod csv;
pub mod discard;
mod extents;
mod file_names;
pub mod files;
pub mod json;
mod ledger;
pub mod ndjson;
mod options;
pub mod parquet;
mod part;
mod partition;
mod scratch_file;
mod single;
mod sound_items;
pub mod sse;
pub mod stac_geoparquet;
mod staged_file;
pub mod stdout;
mod stored;
mod table;

use aqueduct_core::SinkFactory;

pub use options::{Evolve, TextOptions};

// What a sink is written with, for those who use this crate alone.
pub use aqueduct_core as core;
pub use aqueduct_primitives as primitives;

/// All sinks, in the order they are listed to users.
pub const ALL: &[&dyn SinkFactory] = &[
    &parquet::FACTORY,
    &stac_geoparquet::FACTORY,
    &ndjson::FACTORY,
    &csv::FACTORY,
    &json::FACTORY,
    &arrow::FACTORY,
    &files::FACTORY,
    &sse::FACTORY,
    &stdout::FACTORY,
    &discard::FACTORY,
];
