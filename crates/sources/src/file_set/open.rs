//! Opens one file the way its format is read: from its start, by range, or from a copy on disk.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{ByteStream, Context, MemoryNeed, RandomAccess, Result, StepMetrics};
use aqueduct_formats::{
    Compression, CompressionOption, DecodeSpec, DecodedLimits, DecodedStream, InferRows, Inference,
    NeedsSpool, ReadOptions, decode, decode_file, look, look_at_file, needs_random_access,
};
use aqueduct_net::{ContentEncoding, Fetcher, Meta, Ranged, Validator, does_no_ranges};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::input::Input;
use super::memory::{Division, FileLane};
use super::on_change::OnChange;
use super::peek::Peek;
use super::spool::Spool;
use super::verify::verified;

/// Rows go on at the latest so long after they came, though a block is not full.
pub(crate) const FLUSH_AFTER: Duration = Duration::from_millis(500);
/// The same where rows are live. What comes quickly fills a block in less; of the rest, 30 blocks a second cost next to nothing.
pub(crate) const FLUSH_LIVE_AFTER: Duration = Duration::from_millis(30);

/// What is the same for all files of a step.
pub(crate) struct Opener {
    pub(crate) cx: Context,
    pub(crate) fetcher: Fetcher,
    pub(crate) options: Arc<ReadOptions>,
    pub(crate) origin: bool,
    pub(crate) division: Division,
    pub(crate) on_change: OnChange,
    pub(crate) rows_of: Option<Arc<dyn RowsOf>>,
    spool: Spool,
}

/// Makes rows of files that are no format that is decoded as it comes.
#[async_trait]
pub(crate) trait RowsOf: Send + Sync {
    /// The columns.
    fn schema(&self) -> SchemaRef;

    /// The reserve of one file.
    fn need_of_file(&self) -> MemoryNeed;

    /// The rows of a file after the first `skip`, within its reserve. `lane` is for those that are larger than
    /// [a batch](Division::batch). Every row, good or bad, is counted.
    async fn rows(
        &self,
        file: Arc<dyn RandomAccess>,
        name: Arc<str>,
        lane: FileLane,
        skip: u64,
    ) -> Result<DecodedStream>;
}

/// A file whose bytes are at hand.
pub(crate) struct Opened {
    /// Which version they are of.
    validator: Validator,
    bytes: FileBytes,
}

enum FileBytes {
    /// From its start.
    Stream(ByteStream, Arc<ReadOptions>),
    /// By range.
    Ranges(Arc<dyn RandomAccess>),
}

/// The rows of a file.
pub(crate) struct Rows {
    /// Which version they are of.
    pub(crate) validator: Validator,
    pub(crate) stream: DecodedStream,
}

impl Opener {
    /// An opener with the spool of the context.
    pub(crate) fn new(
        cx: &Context,
        fetcher: Fetcher,
        options: ReadOptions,
        origin: bool,
        division: Division,
        on_change: OnChange,
    ) -> Self {
        let options = Arc::new(options);
        let spool = Spool::of(cx);
        Self { cx: cx.clone(), fetcher, options, origin, division, on_change, rows_of: None, spool }
    }

    /// Rows are made by another, if there is one.
    pub(crate) fn with_rows_of(self, rows_of: Option<Arc<dyn RowsOf>>) -> Self {
        Self { rows_of, ..self }
    }

    /// The columns of a file, none if it has no rows to tell, and what they follow from; and the file itself, still open where
    /// possible.
    ///
    /// # Errors
    /// It cannot be opened or read.
    pub(crate) async fn infer(&self, input: &Input) -> Result<(SchemaRef, Inference, Option<Opened>)> {
        let (found, opened) = self.look(input, self.options.infer_rows).await?;
        Ok((found.schema()?, found, opened))
    }

    /// What so many rows of a file look like; and the file itself, still open where possible.
    ///
    /// # Errors
    /// It cannot be opened or read.
    pub(crate) async fn look(
        &self,
        input: &Input,
        infer_rows: InferRows,
    ) -> Result<(Inference, Option<Opened>)> {
        let Opened { validator, bytes } = self.open(input).await?;
        let (body, options) = match bytes {
            FileBytes::Ranges(file) => {
                return self.look_by_range(input, infer_rows, Ranged { validator, file }).await;
            }
            FileBytes::Stream(body, options) => (body, options),
        };
        let peek = Peek::new(body, self.division.decoder().get());
        let limits = DecodedLimits::default();
        let looking = ReadOptions { infer_rows, ..ReadOptions::clone(&options) };
        match look(peek.look(), &input.name, &looking, limits, self.cx.tasks()).await {
            Ok(found) => {
                let bytes = peek.again().map(|body| FileBytes::Stream(body, options));
                Ok((found, bytes.map(|bytes| Opened { validator, bytes })))
            }
            Err(error) if NeedsSpool::of(&error).is_some() => {
                drop(peek);
                let file = self.open_ranges(input).await?;
                self.look_by_range(input, infer_rows, file).await
            }
            Err(error) => Err(error),
        }
    }

    async fn look_by_range(
        &self,
        input: &Input,
        infer_rows: InferRows,
        Ranged { validator, file }: Ranged,
    ) -> Result<(Inference, Option<Opened>)> {
        let limits = DecodedLimits::default();
        let looking = ReadOptions { infer_rows, ..ReadOptions::clone(&self.options) };
        let found = look_at_file(Arc::clone(&file), &input.name, &looking, limits, self.cx.tasks()).await?;
        Ok((found, Some(Opened { validator, bytes: FileBytes::Ranges(file) })))
    }

    /// The rows of a file after the first `skip`. `is_read` is set once the consumer reads them.
    ///
    /// # Errors
    /// It cannot be opened. What else is wrong comes in the stream.
    pub(crate) async fn rows(
        &self,
        input: &Input,
        opened: Option<Opened>,
        schema: &SchemaRef,
        is_read: &CancellationToken,
        skip: u64,
    ) -> Result<Rows> {
        if let Some(rows_of) = &self.rows_of {
            let Ranged { validator, file } = self.open_on_disk(input).await?;
            let lane = self.lane(is_read);
            let stream = rows_of.rows(file, Arc::clone(&input.name), lane, skip).await?;
            return Ok(Rows { validator, stream });
        }
        let Opened { validator, bytes } = match opened {
            Some(opened) => opened,
            None => self.open(input).await?,
        };
        let mut spec = self.spec(input, schema, is_read, skip);
        let stream = match bytes {
            FileBytes::Ranges(file) => decode_file(file, spec, self.cx.tasks()),
            FileBytes::Stream(body, options) => {
                spec.options = options;
                decode(body, spec, self.cx.tasks())
            }
        };
        Ok(Rows { validator, stream })
    }

    /// The rows that are left of a file that could not be read as it came.
    ///
    /// # Errors
    /// As [`Opener::rows`].
    pub(crate) async fn rows_after(
        &self,
        input: &Input,
        schema: &SchemaRef,
        is_read: &CancellationToken,
        skip: u64,
        after: NeedsSpool,
    ) -> Result<Rows> {
        let Ranged { validator, file } = self.open_ranges(input).await?;
        let spec = DecodeSpec { after: Some(after), ..self.spec(input, schema, is_read, skip) };
        Ok(Rows { validator, stream: decode_file(file, spec, self.cx.tasks()) })
    }

    async fn open(&self, input: &Input) -> Result<Opened> {
        if needs_random_access(&input.name, &self.options) {
            let Ranged { validator, file } = self.open_ranges(input).await?;
            return Ok(Opened { validator, bytes: FileBytes::Ranges(file) });
        }
        let (body, meta) = self.open_body(input).await?;
        let (validator, encoding) = (meta.validator(), meta.content_encoding);
        let options = match encoding {
            None => Arc::clone(&self.options),
            Some(encoding) => decoding(&self.options, encoding),
        };
        Ok(Opened { validator, bytes: FileBytes::Stream(body, options) })
    }

    async fn open_body(&self, input: &Input) -> Result<(ByteStream, Meta)> {
        let metrics = self.cx.metrics();
        let fetched = self.fetcher.get(&input.location, input.trust.clone(), metrics).await?;
        input.expected.check_length(fetched.meta.n_bytes)?;
        let body = verified(fetched.body, input.expected.clone(), Arc::clone(metrics));
        Ok((body, fetched.meta))
    }

    /// By range where the place allows; a digest is of the whole file, so that asks for a copy.
    async fn open_ranges(&self, input: &Input) -> Result<Ranged> {
        if input.expected.md5.is_none() {
            let metrics = self.cx.metrics();
            match self.fetcher.random_access(&input.location, input.trust.clone(), metrics).await {
                Ok(Ranged { validator, file }) => {
                    input.expected.check_length(Some(file.len()))?;
                    let file = Arc::new(Counted { file, metrics: Arc::clone(metrics) });
                    return Ok(Ranged { validator, file });
                }
                Err(error) if does_no_ranges(&error) => {}
                Err(error) => return Err(error),
            }
        }
        tracing::debug!(file = &*input.name, "saved to disk, for it cannot be read by range where it is");
        self.save(input).await
    }

    /// A local file as it is; of another, a copy that is fetched once.
    async fn open_on_disk(&self, input: &Input) -> Result<Ranged> {
        if input.location.is_remote() { self.save(input).await } else { self.open_ranges(input).await }
    }

    async fn save(&self, input: &Input) -> Result<Ranged> {
        let (body, meta) = self.open_body(input).await?;
        let file = self.spool.save(body, self.cx.tasks()).await?;
        Ok(Ranged { validator: meta.validator(), file })
    }

    fn spec(&self, input: &Input, schema: &SchemaRef, is_read: &CancellationToken, skip: u64) -> DecodeSpec {
        let lane = self.lane(is_read);
        DecodeSpec {
            name: Arc::clone(&input.name),
            options: Arc::clone(&self.options),
            schema: Arc::clone(schema),
            origin: self.origin,
            batch_rows: self.cx.batch_rows(),
            batch_bytes: self.batch_bytes(),
            memory: self.division.decoder(),
            large_records: Arc::new(lane),
            limits: DecodedLimits::default(),
            flush_after: FLUSH_AFTER,
            after: None,
            skip,
        }
    }

    fn lane(&self, is_read: &CancellationToken) -> FileLane {
        FileLane::new(&self.cx, self.options.largest_record(), self.batch_bytes(), is_read.clone())
    }

    fn batch_bytes(&self) -> aqueduct_primitives::ByteCount {
        self.cx.batch_bytes().min(self.division.batch())
    }
}

/// The options for a file that the server encoded on top of what it is.
fn decoding(options: &Arc<ReadOptions>, encoding: ContentEncoding) -> Arc<ReadOptions> {
    let compression = match encoding {
        ContentEncoding::Gzip => Compression::Gzip,
        ContentEncoding::Zstd => Compression::Zstd,
    };
    if options.compression.named().is_some_and(|named| named != Compression::None) {
        return Arc::clone(options);
    }
    let compression = CompressionOption::Is(compression);
    Arc::new(ReadOptions { compression, ..ReadOptions::clone(options) })
}

/// Counts what is read by range.
struct Counted {
    file: Arc<dyn RandomAccess>,
    metrics: Arc<StepMetrics>,
}

#[async_trait]
impl RandomAccess for Counted {
    fn len(&self) -> u64 {
        self.file.len()
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let bytes = self.file.read(range).await?;
        self.metrics.bytes.add_len(bytes.len());
        Ok(bytes)
    }
}
