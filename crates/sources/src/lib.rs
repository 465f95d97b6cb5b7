//! Where data comes from: one file a source.
//!
//! Every source is a [`Factory`](aqueduct_core::Factory) in [`ALL`]. Bytes come through `aqueduct-net`, rows
//! through `aqueduct-formats`; this crate decides what is read, how much at once, and what is complete.

use aqueduct_core::SourceFactory;

pub mod generate;

/// All sources, in the order in which help lists them.
pub const ALL: &[&dyn SourceFactory] = &[
    &generate::FACTORY, //
];
