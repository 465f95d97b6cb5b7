//! Bytes to batches and back: NDJSON, JSON, CSV, Parquet, Arrow IPC, items of STAC, text, binary, and their compressions.
//!
//! Reading: [`infer`] finds the columns, [`look`] what they follow from, over many files, [`decode`] turns a stream of bytes into rows and rejects,
//! [`decode_file`] does the same for what is read by range; [`count_rows`] only counts. No I/O of its own: bytes come as
//! [`ByteStream`](aqueduct_core::ByteStream) or [`RandomAccess`](aqueduct_core::RandomAccess).

mod binary;
mod columnar;
mod count;
pub mod feed;
mod format;
pub mod geo;
mod options;
mod origin;
mod read;
mod spec;
pub mod stac;
pub mod stac_item;
mod text;
mod types;
mod unpack;
pub mod write;

pub use count::count_rows;
pub use format::{Compression, Format};
pub use options::{
    CompressionOption, CsvOptions, FormatOption, InferRows, NewFields, ReadOptions, ordered_columns,
};
pub use read::{decode, decode_file, infer, infer_file, look, look_at_file, needs_random_access};
pub use spec::{
    DecodeSpec, Decoded, DecodedLimits, DecodedStream, EXTRA, FILE, LargeRecords, NeedsSpool, ROW, RowReject,
    declared_schema, memory_need, output_schema,
};
pub use text::Inference;
pub use types::{ColumnType, TimeFormat, parse_type, timestamp, type_text, without_hints};
