//! Where data goes: one file a sink.

use aqueduct_core::SinkFactory;

/// All sinks, in the order they are listed to users.
pub const ALL: &[&dyn SinkFactory] = &[];
