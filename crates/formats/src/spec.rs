//! What the reader of one file is told, and what it gives.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{Error, ErrorKind, Origin, Reject, RejectedItem, Result};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::Stream;

use crate::{Format, NewFields, ReadOptions, without_hints};

/// Rows and rejects of one file, in order. The first error is the last item; dropping the stream stops the
/// tasks behind it.
pub type DecodedStream = Pin<Box<dyn Stream<Item = Result<Decoded>> + Send>>;

/// The column that keeps fields that are no column, as JSON.
pub const EXTRA: &str = "_extra";
/// The column that names a row's file.
pub const FILE: &str = "_file";
/// The column that counts a file's rows from 1.
pub const ROW: &str = "_row";

/// How to read one file.
#[derive(Clone)]
pub struct DecodeSpec {
    /// The file's path, or its URL without secrets: for errors, for `_file`, and for `auto`.
    pub name: Arc<str>,
    /// The user's options.
    pub options: Arc<ReadOptions>,
    /// The columns to read: the result of [`infer`](crate::infer), or [`declared_schema`].
    pub schema: SchemaRef,
    /// Whether to add `_file` and `_row`.
    pub origin: bool,
    /// At most so many rows in a batch.
    pub batch_rows: usize,
    /// At most so many bytes in a batch, one row of any size excepted.
    pub batch_bytes: ByteCount,
    /// What blocks of text and the batches made of them may take together, reserved by the caller before it
    /// opens the file. See [`memory_need`].
    pub memory: ByteCount,
    /// Where records larger than a block take their memory from.
    pub large_records: Arc<dyn LargeRecords>,
    /// Limits of what a file may unpack to.
    pub limits: DecodedLimits,
    /// Rows go on at the latest so long after they came, though a block is not full.
    pub flush_after: Duration,
    /// Where to go on after [`NeedsSpool`].
    pub after: Option<NeedsSpool>,
    /// What of the file is not wanted again, as [`Decoded::rows_read`] counts it: so much is read and not given, what is
    /// wrong with it neither.
    pub skip: u64,
}

/// Limits of what a file may unpack to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedLimits {
    /// Unpacked bytes per packed byte at most, judged from [`DecodedLimits::RATIO_FROM`] on.
    pub max_ratio: u64,
    /// Unpacked bytes in all at most.
    pub max_bytes: ByteCount,
}

impl DecodedLimits {
    /// Smaller outputs may have any ratio.
    pub const RATIO_FROM: ByteCount = ByteCount::mib(64);
}

impl Default for DecodedLimits {
    fn default() -> Self {
        Self { max_ratio: 1000, max_bytes: ByteCount::new(u64::MAX) }
    }
}

/// Gives memory for records that are larger than a block. There should be one lane for all files of a
/// source, so that two of them cannot wait for each other.
#[async_trait]
pub trait LargeRecords: Send + Sync {
    /// Waits for so many more bytes for a record that has `held` already; nothing, when it is a new one. They
    /// are given back when the record has been decoded and its rows have been taken.
    ///
    /// # Errors
    /// There are not so many in all.
    async fn reserve(&self, held: ByteCount, more: ByteCount) -> Result<Reservation>;
}

/// A part of a file's rows, with what was wrong between them.
#[derive(Debug)]
pub struct Decoded {
    /// The good rows, with the columns of [`output_schema`].
    pub records: RecordBatch,
    /// How far these go: rows, good and bad. Pieces of a [binary](Format::Binary) file, which each reading may cut in
    /// another way, go as far as their bytes, the one piece of an empty file as far as 1.
    pub rows_read: u64,
    /// The bad ones, in order.
    pub rejects: Vec<RowReject>,
    /// Covers rows that are larger than a block; usually empty. To be kept until the rows are admitted.
    pub reservation: Reservation,
}

impl Decoded {
    /// Without the rows up to `skip`, good and bad, where `n_before` stand before these; nothing if none is left.
    pub(crate) fn after(mut self, skip: u64, n_before: u64) -> Option<Self> {
        let n_skipped = skip.saturating_sub(n_before);
        if n_skipped == 0 {
            return Some(self);
        }
        if n_skipped >= self.rows_read {
            return None;
        }
        let n_bad = self.rejects.iter().take_while(|reject| reject.row <= skip).count();
        self.rejects.drain(..n_bad);
        self.rows_read -= n_skipped;
        let n_good = usize::try_from(n_skipped).unwrap_or(usize::MAX).saturating_sub(n_bad);
        let n_good = n_good.min(self.records.num_rows());
        self.records = self.records.slice(n_good, self.records.num_rows() - n_good);
        Some(self)
    }
}

/// A row that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowReject {
    /// The row within the file, from 1.
    pub row: u64,
    /// The byte at which it begins, from 0, in the unpacked file or member of an archive.
    pub byte: Option<u64>,
    /// The column, if one is to blame.
    pub column: Option<String>,
    /// One of few words: `json`, `csv`, `type`, `utf8`, `new field`, `depth`.
    pub reason: &'static str,
    /// What was found and what was expected.
    pub message: String,
    /// The row as it was, or its first 64 KiB.
    pub raw: Vec<u8>,
    /// The record that names its fields, if there is one.
    pub header: Option<Arc<str>>,
}

impl RowReject {
    /// As the policy for bad items wants it.
    pub fn into_reject(self, file: &str) -> Reject {
        Reject {
            item: RejectedItem::Row,
            reason: self.reason,
            message: self.message,
            origin: Origin {
                file: file.to_owned(),
                row: Some(self.row),
                byte: self.byte,
                column: self.column,
                header: self.header,
            },
            raw: self.raw,
        }
    }
}

/// The file cannot be read as it comes: it must be on a disk, and be read by
/// [`decode_file`](crate::decode_file) with [`DecodeSpec::after`] set to this. Of the rows that came before
/// it none comes again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NeedsSpool {
    /// Where in the packed file to go on.
    pub offset: u64,
    /// Rows read, good and bad.
    pub n_rows: u64,
    why: &'static str,
}

impl NeedsSpool {
    pub(crate) fn error(offset: u64, why: &'static str) -> Error {
        Self { offset, n_rows: 0, why }.into_error()
    }

    /// The same, once so many rows have been given.
    pub(crate) fn after_rows(&self, n_rows: u64) -> Error {
        Self { n_rows, ..self.clone() }.into_error()
    }

    fn into_error(self) -> Error {
        let needs = self;
        Error::new(ErrorKind::Data, "read", "it cannot be read as it comes; save it to a disk first")
            .with_source(needs)
    }

    /// What the error asks for, if it is this one.
    pub fn of(error: &Error) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }
}

impl std::fmt::Display for NeedsSpool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.why)
    }
}

impl std::error::Error for NeedsSpool {}

/// The schema that the options declare, or that the format has by itself; none if it is to be inferred.
///
/// # Errors
/// A declared type cannot be read.
pub fn declared_schema(options: &ReadOptions, format: Option<Format>) -> Result<Option<SchemaRef>> {
    let fixed = match format {
        Some(Format::Text) => vec![Field::new("line", DataType::Utf8, false)],
        Some(Format::Binary) => vec![
            Field::new(FILE, DataType::Utf8, false),
            Field::new("_offset", DataType::UInt64, false),
            Field::new("bytes", DataType::Binary, false),
        ],
        _ if options.schema.is_empty() => return Ok(None),
        _ => {
            let declared = options.declared().map_err(|problem| {
                Error::new(ErrorKind::Config, "read schema", problem.message).with("at", problem.pointer)
            })?;
            declared.iter().map(|(name, column)| column.field(name)).collect()
        }
    };
    Ok(Some(Arc::new(Schema::new(fixed))))
}

/// The columns that come out: those that are read, then `_extra` with `new_fields: extra`, then `_file` and
/// `_row` with `origin`.
pub fn output_schema(read: &Schema, options: &ReadOptions, origin: bool) -> SchemaRef {
    let is_binary = read.fields().iter().any(|field| field.name() == FILE);
    let mut fields = without_hints(read).fields().to_vec();
    if options.new_fields == NewFields::Extra && !is_binary {
        fields.push(Arc::new(Field::new(EXTRA, DataType::Utf8, true)));
    }
    if origin && !is_binary {
        fields.push(Arc::new(Field::new(FILE, DataType::Utf8, false)));
        fields.push(Arc::new(Field::new(ROW, DataType::UInt64, false)));
    }
    Arc::new(Schema::new(fields))
}

/// How much memory the reader of one file needs, and with how much it is at its best:
/// for [`DecodeSpec::memory`]. Decompression takes its own beside it: a few MiB, with xz and zstd as much as
/// the file was packed with, up to 72 and 32 MiB.
pub fn memory_need() -> aqueduct_core::MemoryNeed {
    crate::text::memory_need()
}
