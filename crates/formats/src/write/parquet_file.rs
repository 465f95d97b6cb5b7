//! Parquet files, columns encoded side by side, row groups cut by bytes, rows and memory.
//!
//! `ArrowWriter` encodes one column after the other; here each batch's columns are shared out between two
//! threads, which is what keeps up with a decoder on the other side.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::rows::row_bytes;
use aqueduct_core::{Error, ErrorKind, Result, retained_bytes};
use aqueduct_primitives::ByteCount;
use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, SchemaRef};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::geo::{self, GeoColumns};
use super::{Encoder, error, leaves_of, n_leaves, parallel};

/// Threads that encode columns at once. More would only take turns with those that decode.
const MAX_THREADS: usize = 2;
/// Fewer values than this are encoded sooner than a thread is started.
const MIN_VALUES_FOR_THREADS: usize = 16_384;
/// A page larger than 1 MiB compresses no better; smaller than 8 KiB, its header begins to weigh.
const PAGE_BYTES: (u64, u64) = (8 << 10, 1 << 20);
/// Beyond this a dictionary of distinct values costs more time than it saves space (measured: 64 to 128 KiB
/// gives the smallest files, 1 MiB takes a third longer).
const DICTIONARY_BYTES: (u64, u64) = (8 << 10, 128 << 10);
/// What the footer keeps in memory for each column of each row group, roughly.
const METADATA_BYTES: u64 = 1024;
/// A footer beyond this had better go on in another file.
const MAX_METADATA_BYTES: u64 = 8 << 20;
/// A row is large from this part of the encoder's memory on, and from a full page on: of such a row there is no room for
/// the copies that dictionaries, statistics and compression make.
const LARGE_ROW_PART: u64 = 4;
/// A row group of large rows ends when it holds as much as so many of the smallest of them: what comes between them is
/// written without copies, too, so it should not be much, and there must not be a row group for each.
const LARGE_ROWS_IN_GROUP: u64 = 2;
/// Row groups are numbered with 16 bits.
const MAX_ROW_GROUPS: usize = 32_767;

/// How a Parquet file is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParquetOptions {
    /// How its pages are compressed.
    pub compression: ParquetCompression,
    /// A row group ends when its encoded size reaches this.
    pub row_group_bytes: ByteCount,
    /// A row group ends when it has so many rows.
    pub row_group_rows: Option<usize>,
    /// Which columns are geometries: the file is then GeoParquet.
    pub geo: Option<GeoColumns>,
    /// What else its metadata tells: keys and values.
    pub metadata: Vec<(String, Arc<str>)>,
}

impl Default for ParquetOptions {
    fn default() -> Self {
        Self {
            compression: ParquetCompression::default(),
            row_group_bytes: ByteCount::mib(128),
            row_group_rows: None,
            geo: None,
            metadata: Vec::new(),
        }
    }
}

/// How the pages of a Parquet file are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParquetCompression {
    /// Not at all.
    None,
    /// Zstandard, level 1.
    #[default]
    Zstd,
    /// Snappy.
    Snappy,
    /// gzip.
    Gzip,
    /// LZ4 blocks (`LZ4_RAW`).
    Lz4,
}

impl ParquetCompression {
    fn codec(self) -> Result<Compression, ParquetError> {
        Ok(match self {
            Self::None => Compression::UNCOMPRESSED,
            Self::Zstd => Compression::ZSTD(ZstdLevel::try_new(1)?),
            Self::Snappy => Compression::SNAPPY,
            Self::Gzip => Compression::GZIP(GzipLevel::default()),
            Self::Lz4 => Compression::LZ4_RAW,
        })
    }
}

/// With less than the smallest page and dictionary for each column, row groups would be a few rows each.
pub(super) fn least_memory(n_leaves: usize) -> ByteCount {
    ByteCount::of(n_leaves).saturating_mul(4 * PAGE_BYTES.0).saturating_add(ByteCount::kib(64))
}

pub(super) struct ParquetEncoder<W: Write + Send> {
    file: SerializedFileWriter<Shared<W>>,
    out: Shared<W>,
    factory: ArrowRowGroupWriterFactory,
    /// For row groups that begin with a large row.
    factory_of_large: ArrowRowGroupWriterFactory,
    /// From how many bytes on a row is large.
    large_row: u64,
    schema: SchemaRef,
    options: ParquetOptions,
    geometries: Option<geo::Seen>,
    /// The row group under way; no columns between two.
    columns: Vec<Column>,
    n_rows: usize,
    is_of_large: bool,
}

/// One column of the row group under way, with a writer for each of its leaves.
struct Column {
    field: FieldRef,
    writers: Vec<ArrowColumnWriter>,
}

impl<W: Write + Send> ParquetEncoder<W> {
    pub(super) fn new(
        out: W,
        schema: SchemaRef,
        options: &ParquetOptions,
        memory: ByteCount,
    ) -> Result<Self> {
        let unfit = |cause| failed("a parquet file cannot have these columns", cause);
        let schema = match &options.geo {
            Some(geo) => geo.optional(&schema),
            None => schema,
        };
        let parquet_schema = ArrowSchemaConverter::new().convert(&schema).map_err(unfit)?;
        let mut properties = properties(options, memory, n_leaves(&schema)).map_err(unfit)?;
        let root = parquet_schema.root_schema_ptr();
        let of_large = Arc::new(without_copies(&properties));
        // A factory is had of a file only; of this one nothing is written.
        let no_file = SerializedFileWriter::new(io::sink(), Arc::clone(&root), of_large).map_err(unfit)?;
        // Readers of Arrow that find a schema of its own look there for what a GeoParquet file tells of itself, and it is told
        // at the end only. The types of the layout are those of Parquet.
        if options.geo.is_none() {
            add_encoded_arrow_schema_to_metadata(&schema, &mut properties);
        }
        let out = Shared(Arc::new(Mutex::new(out)));
        let file = SerializedFileWriter::new(out.clone(), root, Arc::new(properties)).map_err(unfit)?;
        Ok(Self {
            factory: ArrowRowGroupWriterFactory::new(&file, Arc::clone(&schema)),
            factory_of_large: ArrowRowGroupWriterFactory::new(&no_file, Arc::clone(&schema)),
            large_row: (memory.get() / LARGE_ROW_PART).max(PAGE_BYTES.1),
            geometries: options.geo.as_ref().map(|geo| geo::Seen::new(geo, &schema)).transpose()?,
            file,
            out,
            schema,
            options: options.clone(),
            columns: Vec::new(),
            n_rows: 0,
            is_of_large: false,
        })
    }

    fn begin_row_group(&mut self) -> Result<()> {
        let n_before = self.file.flushed_row_groups().len();
        if n_before >= MAX_ROW_GROUPS {
            let message = "a parquet file cannot have more row groups; write to a folder, or raise `memory`";
            return Err(Error::new(ErrorKind::Limit, "write", message).with("limit", MAX_ROW_GROUPS));
        }
        let factory = if self.is_of_large { &self.factory_of_large } else { &self.factory };
        let writers = factory.create_column_writers(n_before);
        let mut writers = writers.map_err(|cause| failed("no row group", cause))?.into_iter();
        let column = |field: &FieldRef| Column {
            field: Arc::clone(field),
            writers: writers.by_ref().take(leaves_of(field.data_type())).collect(),
        };
        self.columns = self.schema.fields().iter().map(column).collect();
        Ok(())
    }

    fn write_in_group(&mut self, records: &RecordBatch) -> Result<()> {
        if self.columns.is_empty() {
            self.begin_row_group()?;
        }
        let n_values = records.num_rows().saturating_mul(n_leaves(&self.schema));
        let n_threads = if n_values < MIN_VALUES_FOR_THREADS { 1 } else { MAX_THREADS };
        let work: Vec<_> = self.columns.iter_mut().zip(records.columns()).collect();
        parallel::map(work, n_threads, |(column, values)| column.write(values))?;
        self.n_rows += records.num_rows();
        Ok(())
    }

    /// The places of the large rows, in order.
    fn large_rows(&self, records: &RecordBatch) -> Vec<usize> {
        // No row weighs more than all that is kept alive.
        if retained_bytes(records).get() < self.large_row {
            return Vec::new();
        }
        let is_large = |(_, bytes): &(usize, u64)| *bytes >= self.large_row;
        row_bytes(records).into_iter().enumerate().filter(is_large).map(|(row, _)| row).collect()
    }

    /// Writes rows, and ends row groups where they are full.
    fn write_in_groups(&mut self, records: &RecordBatch) -> Result<()> {
        let mut first = 0;
        while first < records.num_rows() {
            let n_rows = self.room(records.num_rows() - first);
            self.write_in_group(&records.slice(first, n_rows))?;
            first += n_rows;
            if self.is_group_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Writes a large row, in a row group of large rows.
    fn write_large(&mut self, row: &RecordBatch) -> Result<()> {
        if !self.is_of_large {
            self.flush()?;
            self.is_of_large = true;
        }
        self.write_in_groups(row)
    }

    fn encoded_bytes(&self) -> ByteCount {
        self.sum(ArrowColumnWriter::get_estimated_total_bytes)
    }

    fn sum(&self, bytes: impl Fn(&ArrowColumnWriter) -> usize) -> ByteCount {
        let writers = self.columns.iter().flat_map(|column| &column.writers);
        writers.map(|writer| ByteCount::of(bytes(writer))).sum()
    }

    fn metadata_bytes(&self) -> u64 {
        self.file.flushed_row_groups().len() as u64 * n_leaves(&self.schema) as u64 * METADATA_BYTES
    }

    /// How many of the next rows still go into this row group.
    fn room(&self, n_rows: usize) -> usize {
        self.options.row_group_rows.map_or(n_rows, |most| most.saturating_sub(self.n_rows).min(n_rows))
    }

    /// So many bytes, and the row group is full.
    fn most_encoded_bytes(&self) -> ByteCount {
        let of_large = ByteCount::new(LARGE_ROWS_IN_GROUP * self.large_row);
        let most = self.options.row_group_bytes;
        if self.is_of_large { most.min(of_large) } else { most }
    }

    fn is_group_full(&self) -> bool {
        self.options.row_group_rows.is_some_and(|most| self.n_rows >= most)
            || self.encoded_bytes() >= self.most_encoded_bytes()
    }
}

impl Column {
    fn write(&mut self, values: &ArrayRef) -> Result<()> {
        let mut write = || {
            let leaves = compute_leaves(&self.field, values)?;
            self.writers.iter_mut().zip(&leaves).try_for_each(|(writer, leaf)| writer.write(leaf))
        };
        let result: Result<(), ParquetError> = write();
        result.map_err(|cause| {
            failed("the values of a column cannot be encoded", cause).with("column", self.field.name())
        })
    }
}

fn close(writer: ArrowColumnWriter) -> Result<ArrowColumnChunk> {
    writer.close().map_err(|cause| failed("a column cannot be completed", cause))
}

fn failed(message: &str, cause: ParquetError) -> aqueduct_core::Error {
    error::encode("parquet", message, cause)
}

impl<W: Write + Send> Encoder<W> for ParquetEncoder<W> {
    fn write(&mut self, records: &RecordBatch) -> Result<()> {
        self.geometries.as_mut().map_or(Ok(()), |geometries| geometries.see(records))?;
        let mut first = 0;
        for row in self.large_rows(records) {
            self.write_in_groups(&records.slice(first, row - first))?;
            self.write_large(&records.slice(row, 1))?;
            first = row + 1;
        }
        self.write_in_groups(&records.slice(first, records.num_rows() - first))
    }

    fn memory(&self) -> ByteCount {
        self.sum(ArrowColumnWriter::memory_size).saturating_add(ByteCount::new(self.metadata_bytes()))
    }

    fn flush(&mut self) -> Result<()> {
        if self.n_rows == 0 {
            return Ok(());
        }
        let writers: Vec<_> =
            std::mem::take(&mut self.columns).into_iter().flat_map(|column| column.writers).collect();
        self.n_rows = 0;
        self.is_of_large = false;
        let chunks = parallel::map(writers, MAX_THREADS, close)?;
        let append = || {
            let mut row_group = self.file.next_row_group()?;
            for chunk in chunks {
                chunk.append_to_row_group(&mut row_group)?;
            }
            row_group.close().map(drop)
        };
        append().map_err(|cause| failed("a row group cannot be written", cause))
    }

    fn is_full(&self) -> bool {
        self.metadata_bytes() >= MAX_METADATA_BYTES
            || self.file.flushed_row_groups().len() + 1 >= MAX_ROW_GROUPS
    }

    fn finish(mut self: Box<Self>) -> Result<W> {
        self.flush()?;
        let Self { mut file, out, options, geometries, .. } = *self;
        let geo = geometries.map(|geometries| (geo::KEY.to_owned(), geometries.metadata()));
        let more = options.metadata.into_iter().map(|(key, value)| (key, String::from(&*value)));
        for (key, value) in geo.into_iter().chain(more) {
            file.append_key_value_metadata(KeyValue::new(key, value));
        }
        file.finish().map_err(|cause| failed("the file could not be completed", cause))?;
        drop(file);
        out.into_inner()
    }
}

/// What the file is written to, reached from two sides: the library gives it back only through a call that
/// forgets why the last bytes could not be written.
struct Shared<W>(Arc<Mutex<W>>);

impl<W> Clone for Shared<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> Shared<W> {
    fn into_inner(self) -> Result<W> {
        let Some(out) = Arc::into_inner(self.0) else {
            return Err(Error::bug("write", "the parquet file is still open"));
        };
        Ok(out.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<W: Write> Write for Shared<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// The same, but no value is kept for a dictionary, nor as the smallest or the largest, nor compressed, for which the
/// library takes three times the page.
fn without_copies(properties: &WriterProperties) -> WriterProperties {
    let builder = properties.clone().into_builder();
    let builder = builder.set_dictionary_enabled(false).set_statistics_enabled(EnabledStatistics::None);
    builder.set_compression(Compression::UNCOMPRESSED).build()
}

fn properties(
    options: &ParquetOptions,
    memory: ByteCount,
    n_leaves: usize,
) -> Result<WriterProperties, ParquetError> {
    let page_bytes = (memory.get() / (4 * n_leaves.max(1) as u64)).clamp(PAGE_BYTES.0, PAGE_BYTES.1);
    let dictionary_bytes = (page_bytes / 4).clamp(DICTIONARY_BYTES.0, DICTIONARY_BYTES.1);
    Ok(WriterProperties::builder()
        .set_compression(options.compression.codec()?)
        .set_max_row_group_row_count(None)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_data_page_size_limit(ByteCount::new(page_bytes).as_usize())
        .set_dictionary_page_size_limit(ByteCount::new(dictionary_bytes).as_usize())
        .set_created_by(concat!("aqueduct version ", env!("CARGO_PKG_VERSION")).to_owned())
        .build())
}
