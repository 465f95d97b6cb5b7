//! `stdin`: rows from standard input, each passed on within a second.
//!
//! Order: as they come. Memory: the decoder's reserve. A read from standard input cannot be cancelled once the
//! system waits for it. So a blocking job asks first whether there is anything to read, for a short while at a
//! time, and ends when nobody wants more: ctrl-c never waits for the other end of the pipe.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{
    BatchStream, ByteStream, ComponentInfo, Context, Error, Factory, MemoryNeed, OtherFiles, Planning,
    Positions, Problem, Result, Source, SourceCaps, SourceConfig,
};
use aqueduct_formats::{
    Compression, CompressionOption, DecodeSpec, DecodedLimits, ReadOptions, declared_schema, decode, infer,
    memory_need, output_schema,
};
use aqueduct_net::HttpOptions;
use aqueduct_primitives::{ByteCount, Tasks};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use rustix::event::{PollFd, PollFlags, poll};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::file_set::memory::{Division, FileLane};
use crate::file_set::open::FLUSH_LIVE_AFTER;
use crate::file_set::oversize::sorted_out;
use crate::file_set::peek::Peek;
use crate::file_set::read::admit;
use crate::files::{self, again};

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "stdin",
    summary: "Rows from standard input, each passed on within a second",
    example: "stdin: { format: ndjson, schema: { id: int64, text: string } }",
});

/// How standard input is called in errors and positions.
const NAME: &str = "stdin";

/// At most so many bytes are read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks that wait to be decoded. With one, reader and decoder take turns.
const CHUNKS_AHEAD: usize = 2;

/// How long the reader waits for input before it looks whether the run is over.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// Without a schema, the columns are those of the rows that came so long after the first.
const INFER_FOR: Duration = Duration::from_millis(500);

/// Options of `stdin`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How the rows are written.
    #[serde(flatten)]
    pub read: ReadOptions,
}

#[async_trait]
impl SourceConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.read.validate();
        match self.read.format.named() {
            None => problems
                .push(Problem::at("/format", "standard input has no name to go by; expected a format")),
            Some(format) if format.needs_random_access() => {
                let message = format!("{} is read from its end; save it to a file first", format.name());
                problems.push(Problem::at("/format", message));
            }
            Some(_) => {}
        }
        if self.read.compression.named() == Some(Compression::Zip) {
            problems.push(Problem::at("/compression", "zip is read from its end; save it to a file first"));
        }
        problems
    }

    fn known_schema(&self, _planning: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        let declared = declared_schema(&self.read, self.read.format.named())
            .map_err(|error| vec![Problem::at("/schema", error.message())])?;
        Ok(declared.map(|read| output_schema(&read, &self.read, false)))
    }

    fn memory(&self, _planning: &Planning) -> MemoryNeed {
        let MemoryNeed { min, want, .. } = memory_need();
        MemoryNeed::between(min.saturating_mul(2), want.saturating_mul(2))
    }

    fn largest_record(&self) -> ByteCount {
        self.read.largest_record()
    }

    fn suffix_of_records(&self, file: &str) -> Option<&'static str> {
        again::suffix(&self.read, file)
    }

    /// What came over standard input is not there a second time: records only.
    fn over(&self, files: &OtherFiles) -> Option<Box<dyn SourceConfig>> {
        files.records.as_ref()?;
        Some(Box::new(files::Config {
            paths: Some(again::listed(files)),
            list: None,
            window: None,
            order: files::Order::Any,
            origin: false,
            allow_empty: false,
            incremental: None,
            on_change: files::OnChange::Fail,
            read: again::options(&self.read, files),
            http: HttpOptions::default(),
        }))
    }

    async fn open(self: Box<Self>, cx: &Context) -> Result<Box<dyn Source>> {
        let body = read_ahead(rustix::stdio::stdin(), cx.tasks());
        Ok(Box::new(Stdin::open(self.read, body, cx).await?))
    }
}

/// Standard input, ready to be read.
struct Stdin {
    options: Arc<ReadOptions>,
    body: ByteStream,
    /// The columns to read.
    read: SchemaRef,
}

impl Stdin {
    async fn open(mut options: ReadOptions, body: ByteStream, cx: &Context) -> Result<Self> {
        if options.compression.named().is_none() {
            // Finding it out would wait for more bytes than a first row may have.
            options.compression = CompressionOption::Is(Compression::None);
        }
        let (read, body) = match declared_schema(&options, options.format.named())? {
            Some(read) => (read, body),
            None => infer_from(body, &options, cx).await?,
        };
        Ok(Self { options: Arc::new(options), body, read })
    }
}

/// The columns of what comes within [`INFER_FOR`] of the first bytes, and the body from its start.
async fn infer_from(
    body: ByteStream,
    options: &ReadOptions,
    cx: &Context,
) -> Result<(SchemaRef, ByteStream)> {
    let kept = Division::of(cx.share().total(), 1).decoder();
    let mut body = body;
    let first = body.next().await;
    let peek = Peek::new(Box::pin(futures::stream::iter(first).chain(body)), kept.get());
    let until = tokio::time::sleep(INFER_FOR).map(|()| ());
    let look = Box::pin(peek.look().take_until(until));
    let schema = infer(look, NAME, options, DecodedLimits::default(), cx.tasks()).await?;
    let again = peek.again().ok_or_else(|| {
        Error::new(
            aqueduct_core::ErrorKind::Limit,
            "infer columns",
            "too much came before the columns were known; declare them with `schema`",
        )
        .with("limit_bytes", kept)
    })?;
    Ok((schema, again))
}

impl Source for Stdin {
    fn schema(&self) -> SchemaRef {
        output_schema(&self.read, &self.options, false)
    }

    fn capabilities(&self) -> SourceCaps {
        SourceCaps { replayable: false, ordered: true, endless: false, remote: false, summed_up_in: None }
    }

    fn run(self: Box<Self>, cx: Context, _from: Positions) -> BatchStream {
        let Self { options, body, read } = *self;
        let output = output_schema(&read, &options, false);
        let division = Division::of(cx.share().total(), 1);
        let batch_bytes = cx.batch_bytes().min(division.batch());
        let largest = options.largest_record();
        let spec = DecodeSpec {
            name: NAME.into(),
            options,
            schema: read,
            origin: false,
            batch_rows: cx.batch_rows(),
            batch_bytes,
            memory: division.decoder(),
            large_records: Arc::new(FileLane::open(&cx, largest, batch_bytes)),
            limits: DecodedLimits::default(),
            flush_after: FLUSH_LIVE_AFTER,
            after: None,
            skip: 0,
        };
        Box::pin(try_stream! {
            let _reserve = cx.share().reserve(division.per_file.min(cx.share().total())).await?;
            let body = counted(body, &cx);
            let mut rows = decode(body, spec, cx.tasks());
            let mut n_rows = 0;
            while let Some(decoded) = rows.next().await {
                let mut rows = sorted_out(&cx, NAME.into(), decoded?, &mut n_rows).await?;
                while let Some(part) = rows.next(&cx).await? {
                    let batch = match part.rows {
                        Some(rows) => Some(admit(&cx, rows).await?),
                        None => None,
                    };
                    part.rejects.into_iter().try_for_each(|reject| cx.reject(reject))?;
                    if let Some(batch) = batch {
                        yield batch;
                    }
                }
            }
            yield aqueduct_core::Batch::only_positions(output, Positions::done(NAME));
        })
    }
}

fn counted(body: ByteStream, cx: &Context) -> ByteStream {
    let metrics = Arc::clone(cx.metrics());
    Box::pin(body.inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            metrics.bytes.add_len(chunk.len());
        }
    }))
}

/// The bytes of a descriptor, read by a blocking job that ends soon after the stream is dropped. Nothing is
/// read before the stream is first polled.
fn read_ahead(from: impl AsFd + Send + 'static, tasks: &Tasks) -> ByteStream {
    let tasks = tasks.clone();
    Box::pin(try_stream! {
        let (sender, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
        let family = tasks.clone();
        let reader = tasks.spawn(async move { family.block(move || read_to(&from, &sender)).await });
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk?;
            yield chunk;
        }
        reader.await??;
    })
}

/// Reads until the end, an error, or nobody listens.
fn read_to(from: &impl AsFd, to: &mpsc::Sender<Result<Bytes>>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while !to.is_closed() {
        let read = match read_some(from, &mut buffer) {
            Ok(None) => continue,
            Ok(Some(0)) => return,
            Ok(Some(n_bytes)) => Ok(Bytes::copy_from_slice(&buffer[..n_bytes])),
            Err(error) => Err(Error::io("read", NAME, error.into())),
        };
        let is_last = read.is_err();
        if to.blocking_send(read).is_err() || is_last {
            return;
        }
    }
}

/// Reads what there is; `None` when nothing came within [`LOOK_AROUND`].
fn read_some(from: &impl AsFd, buffer: &mut [u8]) -> rustix::io::Result<Option<usize>> {
    use rustix::io::Errno;
    let wait = LOOK_AROUND.try_into().map_err(|_| Errno::INVAL)?;
    let ready = poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&wait));
    let read = match ready {
        Ok(0) => return Ok(None),
        Ok(_) => rustix::io::read(from, buffer),
        Err(error) => Err(error),
    };
    match read {
        Err(Errno::INTR | Errno::AGAIN) => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use std::io::Write;

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_come_while_the_other_end_is_still_open() {
        let tasks = Tasks::default();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut bytes = read_ahead(reader, &tasks);
        writer.write_all(b"one").unwrap();
        assert_eq!(bytes.try_next().await.unwrap().unwrap(), "one");
        writer.write_all(b"two").unwrap();
        drop(writer);
        assert_eq!(bytes.try_collect::<Vec<_>>().await.unwrap().concat(), b"two");
        tasks.join().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn dropping_it_ends_the_reader_although_nothing_comes() {
        let tasks = Tasks::default();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut bytes = read_ahead(reader, &tasks);
        writer.write_all(b"one").unwrap();
        bytes.try_next().await.unwrap();
        drop(bytes);
        tasks.join().await; // the writer is open: without looking around this would never end
        drop(writer);
    }

    fn options(more: serde_json::Value) -> ReadOptions {
        serde_json::from_value(more).unwrap()
    }

    async fn rows_while_open(options: ReadOptions) -> usize {
        let budget = aqueduct_primitives::Budget::new("test", ByteCount::mb(32));
        let cx = Context::standalone(&budget).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"{\"n\":1}\n{\"n\":2}\n").unwrap();
        let source = Stdin::open(options, read_ahead(reader, cx.tasks()), &cx).await.unwrap();
        let mut batches = Box::new(source).run(cx.clone(), Positions::default());
        let first = batches.try_next().await.unwrap().unwrap().num_rows();
        drop(writer); // open until now: the rows did not wait for the end
        let rest: Vec<_> = batches.try_collect().await.unwrap();
        assert!(rest.iter().all(|batch| batch.num_rows() == 0));
        drop(rest);
        cx.tasks().join().await;
        assert_eq!((cx.flow().free(), cx.share().free()), (cx.flow().total(), cx.share().total()));
        first
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_go_on_while_the_other_end_is_still_open() {
        let declared = serde_json::json!({"format": "ndjson", "schema": {"n": "int64"}});
        assert_eq!(rows_while_open(options(declared)).await, 2);
        assert_eq!(rows_while_open(options(serde_json::json!({"format": "ndjson"}))).await, 2);
    }

    #[test]
    fn formats_that_are_read_from_their_end_are_refused() {
        let pointers = |options: serde_json::Value| -> Vec<String> {
            let config: Config = serde_json::from_value(options).unwrap();
            config.validate().into_iter().map(|problem| problem.pointer).collect()
        };
        assert_eq!(pointers(serde_json::json!({})), ["/format"]);
        assert_eq!(pointers(serde_json::json!({"format": "parquet"})), ["/format"]);
        let zip = serde_json::json!({"format": "ndjson", "compression": "zip"});
        assert_eq!(pointers(zip), ["/compression"]);
        assert!(pointers(serde_json::json!({"format": "csv"})).is_empty());
    }

    #[test]
    fn a_reserve_is_never_more_than_the_share() {
        let MemoryNeed { min, .. } = memory_need();
        let division = Division::of(min.saturating_mul(2), 1);
        assert!(division.per_file <= min.saturating_mul(2) && division.batch() > ByteCount::ZERO);
    }
}
