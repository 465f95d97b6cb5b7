//! Bytes to batches and back: NDJSON, JSON, CSV, Parquet, Arrow IPC, text, binary, and their compressions.
