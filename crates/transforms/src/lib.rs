//! Streaming stages: one file a stage.
