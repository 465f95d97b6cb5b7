//! How the bytes of a page become rows.

use std::sync::Arc;

use aqueduct_core::Context;
use aqueduct_formats::{DecodeSpec, DecodedLimits, ReadOptions};
use arrow::datatypes::SchemaRef;

use crate::file_set::memory::{Division, FileLane};
use crate::file_set::open::FLUSH_AFTER;

/// The memory that pages are decoded in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoding {
    pub(crate) division: Division,
}

impl Decoding {
    /// How a page at a URL is read into columns, after so many rows.
    pub(crate) fn spec(
        self,
        cx: &Context,
        url: &str,
        options: Arc<ReadOptions>,
        schema: SchemaRef,
        skip: u64,
    ) -> DecodeSpec {
        let batch_bytes = cx.batch_bytes().min(self.division.batch());
        let largest = options.largest_record();
        DecodeSpec {
            name: url.into(),
            options,
            schema,
            origin: false,
            batch_rows: cx.batch_rows(),
            batch_bytes,
            memory: self.division.decoder(),
            large_records: Arc::new(FileLane::open(cx, largest, batch_bytes)),
            limits: DecodedLimits::default(),
            flush_after: FLUSH_AFTER,
            after: None,
            skip,
        }
    }
}
