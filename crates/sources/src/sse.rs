//! `sse`: events of a stream over HTTP (WHATWG HTML, "Server-sent events"), as another flow's `sse` sink sends them.
//!
//! A stream that breaks off is asked for again behind the last event that came (`Last-Event-ID`), after the wait that the
//! server asks for (`retry:`), else after waits that double. The id behind the last row is the source's position: a run
//! that goes on, and the next run of the flow, ask for what stands behind the last event that was committed. Events that a
//! server sends again are not given again.
//!
//! The stream ends with 204, or with the event `end` of our own server; then the run does. Order: as they come, each passed
//! on within a second. Memory: the events of one batch, one event of at most `max_record_bytes`, and the digests of 4096 ids.

mod gather;
mod give;
mod given;
mod listen;
mod parse;
mod place;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{
    Batch, BatchStream, ComponentInfo, Context, Factory, MemoryNeed, Planning, Positions, Problem, Result,
    Source, SourceCaps, SourceConfig, pointer_to, units,
};
use aqueduct_formats::{
    Compression, CompressionOption, DecodeSpec, DecodedLimits, Format, FormatOption, NewFields, ReadOptions,
    declared_schema, infer, memory_need, ordered_columns, output_schema,
};
use aqueduct_net::{Fetcher, HttpOptions, Location};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::file_set::frozen::{columns_in, keep_columns_in};
use crate::file_set::memory::{Division, FileLane};
use crate::file_set::ndjson::Disk;
use crate::file_set::open::FLUSH_LIVE_AFTER;
use gather::{Group, columns_of_text};
use give::Giving;
use given::GIVEN_BYTES;
use listen::{Ear, Happening, What};
use parse::Parser;
use place::{Place, SPLIT, place_of};

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "sse",
    summary: "Events of a stream over HTTP, taken up again where it breaks off",
    example: "sse: { url: \"http://127.0.0.1:8787/streams/feed\", schema: { id: int64, text: string } }",
});

/// Without a schema, the columns are those of the events that came so long after the first.
const INFER_FOR: Duration = Duration::from_millis(500);

/// So many at most.
const INFER_EVENTS: usize = 1000;

/// How often in a row a stream is asked for again that brings nothing new: about a quarter of an hour.
const DEFAULT_RECONNECTS: u32 = 20;

/// Options of `sse`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the stream is.
    pub url: String,
    /// What events carry. Default: `json` where there is a `schema`, else `text`.
    pub format: Option<DataFormat>,
    /// The columns and their types, in order. With `format: json` and without it they are inferred from the events of the
    /// first half second.
    #[serde(default, deserialize_with = "ordered_columns")]
    #[schemars(with = "std::collections::BTreeMap<String, String>", extend("default" = {}))]
    pub schema: Vec<(String, String)>,
    /// What to do with a member that is no column.
    #[serde(default)]
    pub new_fields: NewFields,
    /// Whether the events `end`, `restart` and `lagged` are what the server says about its stream, as `aqueduct`'s own does:
    /// its end, and that events are missing. Otherwise they are rows as others are.
    #[serde(default = "default_control")]
    pub control: bool,
    /// How often in a row the stream is asked for again without anything new. Half a minute of heartbeats is new. Default 20.
    pub reconnects: Option<u32>,
    /// An event whose data is larger is rejected.
    #[serde(default = "default_max_record_bytes", deserialize_with = "units::byte_count")]
    #[schemars(with = "units::Size", extend("default" = "16MiB"))]
    pub max_record_bytes: ByteCount,
    /// How the stream is asked for, on top of the flow's `http`. `read_timeout` is how long nothing at all may come,
    /// heartbeats counted, before the stream is asked for again.
    #[serde(flatten)]
    pub http: HttpOptions,
}

/// What the data of an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DataFormat {
    /// Text: the columns are `id`, `event`, `data` and `received_at`.
    Text,
    /// A JSON object: its members are the columns. Of blank data comes no row.
    Json,
}

fn default_control() -> bool {
    true
}

fn default_max_record_bytes() -> ByteCount {
    ReadOptions::default().max_record_bytes
}

impl Config {
    fn is_json(&self) -> bool {
        let default = if self.schema.is_empty() { DataFormat::Text } else { DataFormat::Json };
        self.format.unwrap_or(default) == DataFormat::Json
    }

    /// How the data of events is read that is JSON.
    fn read_options(&self) -> ReadOptions {
        ReadOptions {
            format: FormatOption::Is(Format::Ndjson),
            compression: CompressionOption::Is(Compression::None),
            schema: self.schema.clone(),
            new_fields: self.new_fields,
            max_record_bytes: self.max_record_bytes.saturating_add(ByteCount::kib(1)),
            ..ReadOptions::default()
        }
    }

    /// The columns, if they are known before anything came.
    fn declared(&self) -> Result<Option<SchemaRef>> {
        match self.is_json() {
            true => declared_schema(&self.read_options(), Some(Format::Ndjson)),
            false => Ok(Some(columns_of_text())),
        }
    }
}

#[async_trait]
impl SourceConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.http.validate();
        let mut wrong = |pointer: &str, message: &str| problems.push(Problem::at(pointer, message));
        match Location::parse(&self.url, Path::new("")) {
            Ok(Location::Http(_)) => {}
            _ => wrong("/url", "expected the http(s) URL of a stream of events"),
        }
        if self.format == Some(DataFormat::Text) && !self.schema.is_empty() {
            wrong(
                "/schema",
                "text has the columns `id`, `event`, `data` and `received_at`; expected `format: json`",
            );
        }
        if self.http.max_bytes.is_some() {
            wrong("/max_bytes", "a stream has no end; expected `max_record_bytes`, or a `limit` behind it");
        }
        if self.http.min_rate.is_some() {
            wrong("/min_rate", "a stream may be quiet; expected `read_timeout`, how long nothing may come");
        }
        if self.max_record_bytes == ByteCount::ZERO {
            wrong("/max_record_bytes", "no event is so small");
        }
        problems.extend(self.read_options().validate());
        problems
    }

    fn known_schema(&self, _planning: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        let declared =
            self.declared().map_err(|error| vec![Problem::at(pointer_to("schema"), error.message())])?;
        Ok(declared.map(|read| output_schema(&read, &self.read_options(), false)))
    }

    fn memory(&self, _planning: &Planning) -> MemoryNeed {
        let MemoryNeed { min, want, .. } = memory_need();
        let of = |bytes: ByteCount| bytes.saturating_mul(2).saturating_add(GIVEN_BYTES);
        MemoryNeed::between(of(min), of(want))
    }

    fn largest_record(&self) -> ByteCount {
        self.max_record_bytes
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn is_endless(&self) -> bool {
        true
    }

    async fn open(self: Box<Self>, cx: &Context) -> Result<Box<dyn Source>> {
        let fetcher = cx.service::<Fetcher>()?.with(&self.http)?;
        let at = Location::parse(&self.url, Path::new(""))?;
        let name: Arc<str> = at.to_string().into();
        let place = Arc::new(Place::of(cx, &name)?);
        let mut stream = Stream {
            is_json: self.is_json(),
            options: Arc::new(self.read_options()),
            read: Arc::new(arrow::datatypes::Schema::empty()),
            fetcher,
            at,
            name,
            place: Arc::clone(&place),
            reconnects: self.reconnects.unwrap_or(DEFAULT_RECONNECTS),
            control: self.control,
            peeked: None,
        };
        stream.read = match self.declared()? {
            Some(read) => read,
            None => Box::pin(stream.columns(cx)).await?,
        };
        if let Some(durable) = cx.durable() {
            durable.register(place);
        }
        Ok(Box::new(stream))
    }
}

/// A stream, ready to be listened to.
struct Stream {
    is_json: bool,
    options: Arc<ReadOptions>,
    /// The columns to read.
    read: SchemaRef,
    fetcher: Fetcher,
    at: Location,
    name: Arc<str>,
    place: Arc<Place>,
    reconnects: u32,
    control: bool,
    /// What came while the columns were looked for, and what comes after.
    peeked: Option<Peeked>,
}

struct Peeked {
    behind: Arc<str>,
    first: Vec<Happening>,
    rest: BoxStream<'static, Result<Happening>>,
}

impl Stream {
    fn ear(&self, cx: &Context, last_id: Arc<str>) -> Result<Ear> {
        let (division, largest) = (division(cx), self.options.max_record_bytes);
        let block = division.batch().as_usize();
        let max_bytes = largest.saturating_sub(ByteCount::kib(1)).as_usize();
        Ok(Ear {
            cx: cx.clone(),
            listener: self.fetcher.listener(&self.at, self.reconnects, cx.metrics())?,
            name: Arc::clone(&self.name),
            parser: Parser::new(block, max_bytes),
            block,
            lane: Arc::new(FileLane::open(cx, largest, cx.batch_bytes().min(division.batch()))),
            has_control: self.control,
            last_id,
        })
    }

    /// The columns that an earlier process of the run found, or those of what comes first.
    async fn columns(&mut self, cx: &Context) -> Result<SchemaRef> {
        if let Some(durable) = cx.durable()
            && let Some(columns) = columns_in(&Disk::of(cx), durable.run_dir()).await?
        {
            return Ok(columns);
        }
        let behind = self.place.id();
        let mut rest = self.ear(cx, Arc::clone(&behind))?.happenings();
        let (mut first, mut group) = (Vec::new(), Group::new(true));
        let mut until: Option<Instant> = None;
        while first.len() < INFER_EVENTS && !group.is_full(INFER_EVENTS, division(cx).batch()) {
            let Some(happening) = next_until(&mut rest, until).await? else { break };
            // Of several that only say where to go on, the last says it.
            let is_passed = |happening: &Happening| matches!(happening.what, What::Passed);
            match first.last_mut() {
                Some(last) if is_passed(last) && is_passed(&happening) => *last = happening,
                _ => {
                    group.look_at(&happening);
                    first.push(happening);
                }
            }
            until = until.or(group.has_rows().then(|| Instant::now() + INFER_FOR));
        }
        let body = Box::pin(stream::once({
            let lines = group.into_lines();
            async { Ok(lines) }
        }));
        let columns = infer(body, &self.name, &self.options, DecodedLimits::default(), cx.tasks()).await?;
        if let Some(durable) = cx.durable() {
            keep_columns_in(&Disk::of(cx), durable.run_dir(), &columns).await?;
        }
        self.peeked = Some(Peeked { behind, first, rest });
        Ok(columns)
    }

    /// What comes behind this event.
    fn happenings(&mut self, cx: &Context, id: Arc<str>) -> Result<BoxStream<'static, Result<Happening>>> {
        match self.peeked.take().filter(|peeked| peeked.behind == id) {
            Some(Peeked { first, rest, .. }) => Ok(Box::pin(stream::iter(first).map(Ok).chain(rest))),
            None => Ok(self.ear(cx, id)?.happenings()),
        }
    }

    fn spec(&self, cx: &Context, division: Division) -> DecodeSpec {
        let batch_bytes = cx.batch_bytes().min(division.batch());
        DecodeSpec {
            name: Arc::clone(&self.name),
            options: Arc::clone(&self.options),
            schema: SchemaRef::clone(&self.read),
            origin: false,
            batch_rows: cx.batch_rows(),
            batch_bytes,
            memory: division.decoder(),
            large_records: Arc::new(FileLane::open(cx, self.options.max_record_bytes, batch_bytes)),
            limits: DecodedLimits::default(),
            flush_after: FLUSH_LIVE_AFTER,
            after: None,
            skip: 0,
        }
    }
}

/// The memory that events are gathered and decoded in.
fn division(cx: &Context) -> Division {
    Division::of(cx.share().total().saturating_sub(GIVEN_BYTES), 1)
}

/// The next that comes, if it comes in time. What does not comes the next time.
async fn next_until(
    happenings: &mut BoxStream<'static, Result<Happening>>,
    until: Option<Instant>,
) -> Result<Option<Happening>> {
    match until {
        None => happenings.try_next().await,
        Some(until) => timeout_at(until, happenings.try_next()).await.unwrap_or(Ok(None)),
    }
}

impl Source for Stream {
    fn schema(&self) -> SchemaRef {
        output_schema(&self.read, &self.options, false)
    }

    fn capabilities(&self) -> SourceCaps {
        SourceCaps { replayable: true, ordered: true, endless: true, remote: true, summed_up_in: Some(SPLIT) }
    }

    fn run(mut self: Box<Self>, cx: Context, from: Positions) -> BatchStream {
        let output = self.schema();
        let division = division(&cx);
        Box::pin(try_stream! {
            if !from.is_done(SPLIT) {
                let bytes = division.per_file.saturating_add(GIVEN_BYTES).min(cx.share().total());
                let _reserve = cx.share().reserve(bytes).await?;
                let behind = place_of(&from)?.unwrap_or_else(|| self.place.id());
                let happenings = self.happenings(&cx, behind)?;
                let mut giving = Giving { stream: self, cx, output: SchemaRef::clone(&output), division, happenings, is_over: false };
                while let Some(mut group) = giving.group().await? {
                    let mut parts = giving.parts(&mut group);
                    while let Some(part) = parts.next().await {
                        yield giving.give(&group, part?).await?;
                    }
                    drop(parts);
                    if let Some(batch) = giving.end(group)? {
                        yield batch;
                    }
                }
                yield Batch::only_positions(output, Positions::done(SPLIT));
            }
        })
    }
}
