//! Where data goes: one file a sink.
