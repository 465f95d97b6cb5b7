//! `sse`: each row an event, for whoever listens at `/streams/NAME` of the run's server.
//!
//! Order: as the rows come, numbered on from run to run. Memory: the ring of past events, a few KiB and the kernel's buffer
//! for each client, the text of a few rows. Who reads too slowly is dealt with as `slow_client` says; the others do not
//! wait for it longer than `put_timeout`. Where no server runs, rows go nowhere.
//!
//! With `announce: committed`, rows wait on the disk for the commit that has them. After a crash nothing was seen that was not
//! committed, and what was committed last goes out again under the same numbers: who names the last event it had gets each
//! row once. Where nothing is ever committed, rows go out at once.

mod folder;
mod frames;
mod ids;
mod kept;
mod outbox;
mod served;

use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{
    Batch, ComponentInfo, Context, Durable, Factory, Guarantee, MemoryNeed, Origin, Output, Part, Planning,
    Problem, Reject, RejectedItem, Result, Serving, Sink, SinkConfig, units,
};
use aqueduct_formats::write::{TextCompression, WriteFormat};
use aqueduct_net::Secret;
use aqueduct_net::server::{Event, EventStream, EventStreamOptions, Mounts, Replay, SlowClient};
use aqueduct_primitives::ByteCount;
use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use self::folder::Folder;
use self::ids::{Ids, Start};
use self::outbox::{Outbox, Writing};
use self::served::{Left, Served};

/// Rows are turned into text until there is so much of it.
const TEXT_BYTES: usize = 64 << 10;
/// And no more rows than this at once.
const ROWS_AT_ONCE: usize = 512;

/// What events are called that no column names.
const ROW: &str = "row";

/// Of a row that is rejected, so much is kept.
const MAX_RAW_BYTES: usize = 4 << 10;

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "sse",
    summary: "Streams rows to who listens: server-sent events at /streams/NAME",
    example: "sse: { name: quakes }",
});

/// Options of `sse`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The stream is at `/streams/NAME`. Default: the step's name; in the short form, the flow's.
    name: Option<String>,
    /// Clients at once; one more is answered 503.
    max_clients: usize,
    /// Events that may wait for a client.
    queue: u64,
    /// Bytes that may wait for a client; a row whose event has more is rejected.
    #[serde(deserialize_with = "units::byte_count")]
    #[schemars(with = "units::Size")]
    queue_bytes: ByteCount,
    /// How long a client whose queue is full may take next to nothing before it is slow.
    #[serde(deserialize_with = "units::duration", serialize_with = "units::write_duration")]
    #[schemars(with = "units::Period")]
    put_timeout: Duration,
    /// What becomes of a slow client.
    slow_client: OnSlow,
    /// How long all wait for a client with `slow_client: wait`, before it is disconnected.
    #[serde(deserialize_with = "units::duration", serialize_with = "units::write_duration")]
    #[schemars(with = "units::Period")]
    wait_timeout: Duration,
    /// The part of a client's queue that, once filled, is logged and counted.
    #[schemars(range(min = 0.0, max = 1.0))]
    warn_at: f64,
    /// The part that is logged as critical.
    #[schemars(range(min = 0.0, max = 1.0))]
    critical_at: f64,
    /// How often a client without events gets a sign of life.
    #[serde(deserialize_with = "units::duration", serialize_with = "units::write_duration")]
    #[schemars(with = "units::Period")]
    heartbeat: Duration,
    /// What clients must send, as `Authorization: Bearer TOKEN`. Default: nothing.
    token: Option<Secret>,
    /// Sites whose pages may read the stream, such as `https://example.org`; `*` is any.
    cors: Vec<String>,
    /// The column that says what an event is called. Default: all are called `row`.
    event_column: Option<String>,
    /// What a new client gets first: `latest`, `none`, or so many of the latest events.
    replay: First,
    /// When a row goes out.
    announce: Announce,
}

/// What becomes of a slow client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OnSlow {
    /// It is disconnected, and may come again with the last event's number.
    #[default]
    Disconnect,
    /// It loses the oldest of what waits for it, and is told by an event `lagged`.
    DropOldest,
    /// All wait for it, for `wait_timeout`; then it is disconnected.
    Wait,
}

/// What a new client gets first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(untagged)]
enum First {
    /// In a word.
    Word(FirstWord),
    /// So many of the latest events.
    Events(u64),
}

/// What a new client gets first, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum FirstWord {
    /// The latest event.
    Latest,
    /// Nothing before what comes from now on.
    None,
}

/// When a row goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Announce {
    /// At once. After a crash, what was not committed goes out again.
    #[default]
    Now,
    /// When it is committed; until then it waits on the disk, and takes from `execution.spill.max_bytes`. After a crash
    /// what the last commit had goes out again under the same numbers.
    Committed,
}

impl Default for Config {
    fn default() -> Self {
        let usual = EventStreamOptions::default();
        Self {
            name: None,
            max_clients: usual.max_clients,
            queue: usual.queue,
            queue_bytes: usual.queue_bytes,
            put_timeout: usual.put_timeout,
            slow_client: OnSlow::default(),
            wait_timeout: usual.wait_timeout,
            warn_at: usual.warn_at,
            critical_at: usual.critical_at,
            heartbeat: usual.heartbeat,
            token: None,
            cors: Vec::new(),
            event_column: None,
            replay: First::Word(FirstWord::Latest),
            announce: Announce::Now,
        }
    }
}

impl Config {
    /// What events take that wait for their commit.
    fn outbox_memory(&self) -> ByteCount {
        match self.announce {
            Announce::Now => ByteCount::ZERO,
            Announce::Committed => Outbox::memory(self.queue_bytes),
        }
    }

    fn stream_options(&self, start: Start) -> EventStreamOptions {
        EventStreamOptions {
            max_clients: self.max_clients,
            queue: self.queue,
            queue_bytes: self.queue_bytes,
            put_timeout: self.put_timeout,
            slow_client: match self.slow_client {
                OnSlow::Disconnect => SlowClient::Disconnect,
                OnSlow::DropOldest => SlowClient::DropOldest,
                OnSlow::Wait => SlowClient::Wait,
            },
            wait_timeout: self.wait_timeout,
            warn_at: self.warn_at,
            critical_at: self.critical_at,
            heartbeat: self.heartbeat,
            token: self.token.clone(),
            cors: self.cors.clone(),
            replay: match self.replay {
                First::Word(FirstWord::Latest) => Replay::Latest(1),
                First::Word(FirstWord::None) => Replay::None,
                First::Events(n) => Replay::Latest(n),
            },
            first_id: start.first_id,
            n_uncommitted: start.n_uncommitted,
            ..EventStreamOptions::default()
        }
    }
}

#[async_trait]
impl SinkConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |is_wrong: bool, pointer: &str, message: &str| {
            if is_wrong {
                problems.push(Problem::at(pointer, message));
            }
        };
        let is_name = |name: &String| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        wrong(!self.name.as_ref().is_none_or(is_name), "/name", "expected letters, digits, `-`, `_` and `.`");
        wrong(self.max_clients == 0, "/max_clients", "expected one at least");
        wrong(self.queue == 0, "/queue", "expected one event at least");
        wrong(self.queue_bytes < ByteCount::kib(4), "/queue_bytes", "expected 4KiB at least");
        wrong(self.heartbeat < Duration::from_millis(10), "/heartbeat", "expected 10ms at least");
        let is_part = |part: f64| part > 0.0 && part <= 1.0;
        wrong(!is_part(self.warn_at), "/warn_at", "expected more than 0 and at most 1");
        wrong(
            !is_part(self.critical_at) || self.critical_at < self.warn_at,
            "/critical_at",
            "expected `warn_at` or more, and at most 1",
        );
        wrong(self.token.as_ref().is_some_and(|token| token.expose().is_empty()), "/token", "it is empty");
        let is_site =
            |site: &String| site == "*" || site.starts_with("http://") || site.starts_with("https://");
        wrong(!self.cors.iter().all(is_site), "/cors", "expected sites such as https://example.org, or *");
        problems
    }

    fn fit(&self, input: &SchemaRef) -> Vec<Problem> {
        let missing = self.event_column.as_ref().filter(|column| input.index_of(column).is_err());
        let problem = |column: &String| {
            let message = format!("there is no column `{column}`");
            Problem::at("/event_column", message)
        };
        missing.map(problem).into_iter().collect()
    }

    fn output(&self, _: &Planning) -> Option<Output> {
        None
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::Live
    }

    fn serving(&self) -> Option<Serving> {
        Some(Serving { token: self.token.as_ref().map(|token| token.expose().to_owned()) })
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        let options = self.stream_options(Start::default());
        let text = ByteCount::kib(256);
        let waiting = self.outbox_memory();
        MemoryNeed::between(
            options.min_memory().saturating_add(text).saturating_add(waiting),
            options.max_memory().saturating_add(text.max(planning.batch_bytes)).saturating_add(waiting),
        )
    }

    async fn open(self: Box<Self>, _: SchemaRef, cx: &Context) -> Result<Box<dyn Sink>> {
        let (ids, start) = Ids::open(cx).await?;
        let waits = self.announce == Announce::Committed;
        let outbox = match Folder::of(cx) {
            Some(folder) => {
                let memory = cx.share().try_reserve(self.outbox_memory())?;
                Some(Outbox::open(cx, folder, memory).await?)
            }
            None => None,
        };
        let (left, start) = Left::find(cx, outbox.as_ref(), start, waits).await?;
        // The step of a flow in the short form has no name of its own.
        let own_name = if cx.step() == "sink" { cx.flow_name() } else { cx.step() };
        let name = self.name.as_deref().unwrap_or(own_name);
        let stream = EventStream::new(name, self.stream_options(start), cx.share().clone())?;
        let mounted = stream.mount(&cx.shared(Mounts::default), &format!("/streams/{name}"))?;
        let counts_at_end = cx.durable().is_some_and(Durable::counts_at_end);
        let served = Arc::new(Served { stream, ids, outbox, waits, counts_at_end, _mounted: mounted });
        served.begin(left).await?;
        if let Some(durable) = cx.durable() {
            durable.register(Arc::clone(&served) as _);
        }
        let (cx, event_column) = (cx.clone(), self.event_column);
        Ok(Box::new(Sse { cx, served, event_column, writing: None, has_all: false }))
    }
}

struct Sse {
    cx: Context,
    /// Where a run commits, its commits have it too.
    served: Arc<Served>,
    event_column: Option<String>,
    /// What waits for a seal.
    writing: Option<Writing>,
    /// All rows so far are sealed: dropped now, it has seen the end.
    has_all: bool,
}

#[async_trait]
impl Sink for Sse {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.has_all = false;
        let records = batch.records();
        let mut first = 0;
        while first < records.num_rows() {
            let n_rows = rows_at_once(records).min(records.num_rows() - first);
            self.send(&records.slice(first, n_rows)).await?;
            first += n_rows;
        }
        Ok(())
    }

    async fn seal(&mut self) -> Result<Vec<Part>> {
        if let (Some(outbox), Some(writing)) = (&self.served.outbox, self.writing.take()) {
            outbox.seal(writing).await?;
        }
        self.has_all = true;
        Ok(Vec::new())
    }

    async fn abort(mut self: Box<Self>) {
        self.has_all = false;
        if let (Some(outbox), Some(writing)) = (&self.served.outbox, self.writing.take()) {
            // The next opening removes it otherwise.
            let _ = outbox.discard(writing).await;
        }
    }
}

impl Drop for Sse {
    fn drop(&mut self) {
        match (self.has_all, self.cx.durable()) {
            (true, Some(_)) => {} // the last commit tells the end
            (true, None) => self.served.stream.end(),
            (false, _) => self.served.stream.break_off(),
        }
    }
}

/// As many rows as make a piece of text, by what the rows of the batch weigh.
fn rows_at_once(records: &RecordBatch) -> usize {
    let weight = aqueduct_core::retained_bytes(records).as_usize() / records.num_rows().max(1);
    (TEXT_BYTES / weight.max(1)).clamp(1, ROWS_AT_ONCE)
}

impl Sse {
    async fn send(&mut self, rows: &RecordBatch) -> Result<()> {
        let format = WriteFormat::Ndjson(TextCompression::None);
        let mut encoder = format.encoder(rows.schema(), Vec::new(), ByteCount::ZERO)?;
        encoder.write(rows)?;
        let text = encoder.finish()?;
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').take(rows.num_rows()).collect();
        let names = self.names(rows)?;
        let name = |at: usize| names.as_ref().map_or(ROW, |names| names[at].as_str());
        let events = lines.iter().enumerate().map(|(at, data)| Event { name: name(at), data });
        let mut rejected = Vec::new();
        let served = &self.served;
        match served.outbox.as_ref().filter(|_| served.waits) {
            Some(outbox) => {
                let (frames, n_events) = framed(events, served.stream.max_event_bytes(), &mut rejected);
                self.writing = Some(outbox.write(self.writing.take(), frames, n_events).await?);
            }
            None => {
                served.ids.reach(served.stream.next_id() + lines.len() as u64).await?;
                served.stream.send_all(events, |at| rejected.push(at), |_| {}).await?;
            }
        }
        self.cx.metrics().bytes.add_len(text.len());
        rejected.into_iter().try_for_each(|at| self.reject(lines[at]))
    }

    /// What each row's event is called.
    fn names(&self, rows: &RecordBatch) -> Result<Option<Vec<String>>> {
        let Some(column) = self.event_column.as_ref().and_then(|column| rows.column_by_name(column)) else {
            return Ok(None);
        };
        let options = FormatOptions::default();
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options)
            .map_err(|error| aqueduct_core::Error::bug("name events", error.to_string()))?;
        let name = |at: usize| match column.is_null(at) {
            true => ROW.to_owned(),
            false => formatter.value(at).to_string(),
        };
        Ok(Some((0..rows.num_rows()).map(name).collect()))
    }

    fn reject(&self, data: &[u8]) -> Result<()> {
        let limit = ByteCount::of(self.served.stream.max_event_bytes());
        let message = format!(
            "the event has {} bytes, and no more than {limit} may wait for a client; raise `queue_bytes`, or `memory`",
            data.len()
        );
        self.cx.reject(Reject {
            item: RejectedItem::Row,
            reason: "too long",
            message,
            origin: Origin { file: format!("/streams/{}", self.served.stream.name()), ..Origin::default() },
            raw: data[..data.len().min(MAX_RAW_BYTES)].to_vec(),
        })
    }
}

/// Events that are to wait, and how many; the places of those that no client could be sent, whatever their number.
fn framed<'e>(
    events: impl Iterator<Item = Event<'e>>,
    max_event_bytes: usize,
    rejected: &mut Vec<usize>,
) -> (Vec<u8>, u64) {
    let (mut frames, mut n_events, mut sent) = (Vec::new(), 0, Vec::new());
    for (at, event) in events.enumerate() {
        sent.clear();
        event.encode(Some(u64::MAX), &mut sent);
        if sent.len() <= max_event_bytes && frames::add(&event, &mut frames) {
            n_events += 1;
        } else {
            rejected.push(at);
        }
    }
    (frames, n_events)
}
