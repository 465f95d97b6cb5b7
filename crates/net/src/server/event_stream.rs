//! A stream of events under a name: who comes in, what they get first, what becomes of those who are slow.
//!
//! Order: events as they are sent, with increasing numbers. Memory: the ring, and for each client [`CLIENT_BYTES`] and what
//! the kernel may hold for it, reserved when it comes in. Who comes when there is no more of it is answered 503.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::{
    Budget, ByteCount, Crossing, Cut, Events, Level, Reader, Ring, RingLimits, RingStats, SlowReader,
};
use http::HeaderName;
use tokio::sync::Semaphore;

use super::event::Event;
use super::guard;
use super::head::RequestHead;
use super::mounts::{Mounts, Streams};
use super::refusal::Refusal;
use super::subscriber::Subscriber;
use crate::Secret;

/// What a client takes beside the kernel's buffer: its task, its socket, its place in the ring.
pub const CLIENT_BYTES: ByteCount = ByteCount::kib(3);
/// The least that the kernel may hold for a client: with less, each event takes several system calls.
pub const MIN_SEND_BUFFER: ByteCount = ByteCount::kib(8);
/// And the most: more would only hide that a client is slow.
const MAX_SEND_BUFFER: ByteCount = ByteCount::kib(64);

/// Where memory is short, at least so much is kept: with less, a burst is more than what may wait for a client.
const LEAST_KEPT: ByteCount = ByteCount::mib(2);

/// Events are put together to pieces of this size at most, and of this part of what may wait for a client.
const MAX_PIECE_BYTES: ByteCount = ByteCount::kib(32);
const PIECES_OF_A_QUEUE: u64 = 16;

/// When a client that found no place should come again.
const RETRY_AFTER_SECONDS: u64 = 60;
/// When a client whose connection broke should come again.
const RETRY_MILLISECONDS: u64 = 1000;
/// The digits of the largest number of an event.
const MAX_ID_DIGITS: usize = 20;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How a stream deals with its clients.
#[derive(Clone, Debug)]
pub struct EventStreamOptions {
    /// Clients at once.
    pub max_clients: usize,
    /// Events that may wait for a client; fewer where memory is short.
    pub queue: u64,
    /// Bytes that may wait for a client; an event may have no more. Fewer where memory is short.
    pub queue_bytes: ByteCount,
    /// How long the stream waits for a client that takes too little, before it is slow.
    pub put_timeout: Duration,
    /// What becomes of a slow one.
    pub slow_client: SlowClient,
    /// How long the stream waits if it is to [wait](SlowClient::Wait).
    pub wait_timeout: Duration,
    /// The part of a client's queue that, once filled, is told.
    pub warn_at: f64,
    /// The part that is told as critical.
    pub critical_at: f64,
    /// How often a client without events gets a sign of life.
    pub heartbeat: Duration,
    /// Who may come in; without one, anybody.
    pub token: Option<Secret>,
    /// Sites whose pages may read the stream; `*` is any.
    pub cors: Vec<String>,
    /// What a client gets first that names no event.
    pub replay: Replay,
    /// Bytes of past events that are kept for those who come back, and for those who are behind.
    pub kept_bytes: ByteCount,
    /// The number of the first event.
    pub first_id: u64,
    /// So many numbers before it may have been of events that count no more: who names one is told `restart`.
    pub n_uncommitted: u64,
}

/// What becomes of a client that is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowClient {
    /// It is cut off.
    Disconnect,
    /// It loses the oldest of what waits for it.
    DropOldest,
    /// All wait for it, up to [`EventStreamOptions::wait_timeout`]; then it is cut off.
    Wait,
}

/// What a client gets first that names no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// So many of the latest events.
    Latest(u64),
    /// Only what comes from now on.
    None,
}

impl Default for EventStreamOptions {
    fn default() -> Self {
        Self {
            max_clients: 1000,
            queue: 100,
            queue_bytes: ByteCount::mib(1),
            put_timeout: Duration::from_millis(100),
            slow_client: SlowClient::Disconnect,
            wait_timeout: Duration::from_secs(30),
            warn_at: 0.5,
            critical_at: 0.9,
            heartbeat: Duration::from_secs(15),
            token: None,
            cors: Vec::new(),
            replay: Replay::Latest(1),
            kept_bytes: ByteCount::mib(3),
            first_id: 1,
            n_uncommitted: 0,
        }
    }
}

impl EventStreamOptions {
    /// The least memory for these options.
    pub fn min_memory(&self) -> ByteCount {
        self.least_kept().saturating_add(self.of_clients(MIN_SEND_BUFFER))
    }

    /// The most memory that is of use.
    pub fn max_memory(&self) -> ByteCount {
        self.most_kept().saturating_add(self.of_clients(MAX_SEND_BUFFER))
    }

    fn of_clients(&self, send_buffer: ByteCount) -> ByteCount {
        CLIENT_BYTES.saturating_add(send_buffer).saturating_mul(self.max_clients as u64)
    }

    fn most_kept(&self) -> ByteCount {
        self.kept_bytes.max(self.kept_for_queues())
    }

    fn least_kept(&self) -> ByteCount {
        self.most_kept().min(LEAST_KEPT)
    }

    /// What must be kept so that nobody loses what may wait for it.
    fn kept_for_queues(&self) -> ByteCount {
        RingLimits::least_bytes(self.queue, self.queue_bytes, self.piece_bytes())
    }

    fn piece_bytes(&self) -> ByteCount {
        MAX_PIECE_BYTES.min(ByteCount::new(self.queue_bytes.get() / PIECES_OF_A_QUEUE))
    }

    /// These options as far as a budget allows: where it is small, less is kept, and less may wait for a client.
    fn within(mut self, budget: &Budget) -> Self {
        let room = budget.free().saturating_sub(self.of_clients(MIN_SEND_BUFFER));
        self.kept_bytes = self.most_kept().min(room).max(self.least_kept());
        if self.kept_for_queues() > self.kept_bytes {
            self.queue_bytes = self.queue_bytes.min(ByteCount::new(self.kept_bytes.get() / 5 * 2));
            let for_bytes = RingLimits::least_bytes(0, self.queue_bytes, self.piece_bytes());
            let for_events = self.kept_bytes.saturating_sub(for_bytes);
            self.queue = self.queue.min(for_events.get() / RingLimits::EVENT_OVERHEAD.get());
        }
        self
    }

    fn ring_limits(&self) -> RingLimits {
        let (slow, patience) = match self.slow_client {
            SlowClient::Disconnect => (SlowReader::Cut, self.put_timeout),
            SlowClient::DropOldest => (SlowReader::Skip, self.put_timeout),
            SlowClient::Wait => (SlowReader::Cut, self.wait_timeout),
        };
        RingLimits {
            bytes: self.kept_bytes,
            queue: self.queue.max(1),
            queue_bytes: self.queue_bytes,
            patience,
            slow,
            warn_at: self.warn_at,
            critical_at: self.critical_at,
        }
    }
}

/// What can be seen of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Clients now.
    pub n_clients: usize,
    /// Clients in all.
    pub n_clients_in_all: u64,
    /// Events in all.
    pub n_events: u64,
    /// Bytes written to clients.
    pub bytes_sent: u64,
    /// Clients sent away at once, by reason: `full`, `token`, `site`, `bad_request`.
    pub refused: [(&'static str, u64); 4],
    /// Clients cut off, by reason: `slow`, `stalled`, `memory`, `age`.
    pub evicted: [(&'static str, u64); 4],
    /// What waits for them, and the crossings of levels.
    pub ring: RingStats,
}

/// A stream of events. Cheap to clone; clones are the same stream.
#[derive(Clone, Debug)]
pub struct EventStream {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    name: String,
    options: EventStreamOptions,
    first_id: u64,
    pub(super) ring: Ring,
    budget: Budget,
    send_buffer: ByteCount,
    /// One sends at a time.
    turn: Semaphore,
    is_woken: AtomicBool,
    n_clients: AtomicUsize,
    n_clients_in_all: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    refused: [AtomicU64; 4],
    evicted: [AtomicU64; 4],
}

#[derive(Clone, Copy, Debug)]
enum Refused {
    Full,
    Token,
    Site,
    BadRequest,
}

const REFUSED: [&str; 4] = ["full", "token", "site", "bad_request"];

/// Why a client was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evicted {
    Slow,
    Stalled,
    Memory,
    Age,
}

const EVICTED: [&str; 4] = ["slow", "stalled", "memory", "age"];

impl From<Cut> for Evicted {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::NoMemory => Self::Memory,
            _ => Self::Slow,
        }
    }
}

impl EventStream {
    /// A stream within a budget: the ring's part is taken at once, that of a client when it comes.
    ///
    /// # Errors
    /// The budget is too small for what is kept.
    pub fn new(name: impl Into<String>, options: EventStreamOptions, budget: Budget) -> Result<Self> {
        let options = options.within(&budget);
        let ring = Ring::new(&budget, options.ring_limits(), options.first_id).map_err(Error::from)?;
        let each = budget.free().get() / (options.max_clients as u64).max(1);
        let send_buffer =
            ByteCount::new(each).saturating_sub(CLIENT_BYTES).max(MIN_SEND_BUFFER).min(MAX_SEND_BUFFER);
        let shared = Shared {
            name: name.into(),
            first_id: options.first_id,
            options,
            ring,
            budget,
            send_buffer,
            turn: Semaphore::new(1),
            is_woken: AtomicBool::new(false),
            n_clients: AtomicUsize::new(0),
            n_clients_in_all: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            refused: Default::default(),
            evicted: Default::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.shared.name()
    }

    /// The number that the next event gets.
    pub fn next_id(&self) -> u64 {
        self.shared.ring.next_id()
    }

    /// Serves it at a path, and tells of it in [`Mounts::stream_stats`].
    ///
    /// # Errors
    /// Something is there already.
    pub fn mount(&self, mounts: &Mounts, path: &str) -> Result<super::Mounted> {
        Ok(mounts.streams(path, Arc::new(self.clone()))?.metering(&self.shared))
    }

    /// Sends one event; its number. Returns when every client sees it that is not slow.
    ///
    /// # Errors
    /// It is larger than a client's queue, or the stream has ended.
    ///
    /// # Cancel safety
    /// The event may have been sent.
    pub async fn send(&self, event: Event<'_>) -> Result<u64> {
        let mut last = None;
        let mut too_large = None;
        self.send_all(std::iter::once(event), |at| too_large = Some(at), |id| last = Some(id)).await?;
        last.ok_or_else(|| self.too_large())
    }

    /// Sends events in order; `rejected` is told the places of those that are larger than a client's queue, `sent` the number
    /// of each other.
    ///
    /// # Errors
    /// The stream has ended.
    ///
    /// # Cancel safety
    /// Events before some place may have been sent.
    pub async fn send_all(
        &self,
        events: impl Iterator<Item = Event<'_>> + Send,
        mut rejected: impl FnMut(usize) + Send,
        mut sent: impl FnMut(u64) + Send,
    ) -> Result<()> {
        let _turn = self.shared.turn.acquire().await.map_err(|_| ended())?;
        let piece_bytes = self.shared.options.piece_bytes().as_usize();
        let mut piece = Events::new();
        let mut id = self.shared.ring.next_id();
        for (at, event) in events.enumerate() {
            match piece.add(self.max_event_bytes(), |into| event.encode(Some(id), into)) {
                Some(_) => {
                    sent(id);
                    id += 1;
                }
                None => rejected(at),
            }
            if piece.n_bytes() >= piece_bytes {
                self.put(std::mem::take(&mut piece)).await?;
            }
        }
        self.put(piece).await
    }

    async fn put(&self, piece: Events) -> Result<()> {
        let crossings = self.shared.ring.send(piece).await.map_err(|_| ended())?;
        crossings.iter().for_each(|crossing| self.tell(crossing));
        Ok(())
    }

    fn tell(&self, crossing: &Crossing) {
        let Crossing { reader, level, lag } = crossing;
        let (stream, queue) = (self.name(), self.shared.options.queue);
        match level {
            Level::Critical => {
                tracing::warn!(stream, client = reader, "critical: client queue nearly full: {lag}/{queue}");
            }
            _ => tracing::warn!(stream, client = reader, "client queue size: {lag}/{queue}"),
        }
    }

    /// The most bytes of one event, as it is sent.
    pub fn max_event_bytes(&self) -> usize {
        self.shared.options.queue_bytes.as_usize()
    }

    fn too_large(&self) -> Error {
        let message = "the event is larger than what may wait for a client; raise `queue_bytes`";
        Error::new(ErrorKind::Limit, "send event", message)
            .with("stream", self.name())
            .with("limit", self.shared.options.queue_bytes)
    }

    /// Tells clients the end, after all events; whoever comes later gets what is kept and the end. It has no number: that
    /// is the first event's of the stream that goes on.
    pub fn end(&self) {
        let mut last = Events::new();
        last.add(usize::MAX, |into| Event { name: "end", data: b"{}" }.encode(None, into));
        self.shared.ring.close_with(last);
    }

    /// Hangs up on clients when they have all events, without a word.
    pub fn break_off(&self) {
        self.shared.ring.close();
    }

    /// What can be seen of it now.
    pub fn stats(&self) -> StreamStats {
        self.shared.stats()
    }
}

fn ended() -> Error {
    Error::bug("send event", "the stream has ended")
}

impl Shared {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn stats(&self) -> StreamStats {
        let of = |names: [&'static str; 4], counts: &[AtomicU64; 4]| {
            std::array::from_fn(|at| (names[at], counts[at].load(Relaxed)))
        };
        StreamStats {
            n_clients: self.n_clients.load(Relaxed),
            n_clients_in_all: self.n_clients_in_all.load(Relaxed),
            n_events: self.ring.next_id() - self.first_id,
            bytes_sent: self.bytes_sent.load(Relaxed),
            refused: of(REFUSED, &self.refused),
            evicted: of(EVICTED, &self.evicted),
            ring: self.ring.stats(),
        }
    }

    /// Whether nobody has asked this before.
    pub(super) fn is_first_client(&self) -> bool {
        !self.is_woken.swap(true, Relaxed)
    }

    pub(super) fn has_left(&self) {
        self.n_clients.fetch_sub(1, Relaxed);
    }

    pub(super) fn evicted(&self, why: Evicted) {
        self.evicted[why as usize].fetch_add(1, Relaxed);
        tracing::info!(stream = self.name, reason = EVICTED[why as usize], "removed a client");
    }

    fn refuse(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }

    /// Takes a place; given back by [`Shared::has_left`].
    fn take_place(&self) -> Result<(), Refusal> {
        let max = self.options.max_clients;
        let taken = self.n_clients.fetch_update(Relaxed, Relaxed, |n| (n < max).then_some(n + 1));
        taken.map(|_| ()).map_err(|_| Refusal::busy("Too many connections", RETRY_AFTER_SECONDS))
    }

    /// What a client asks to begin with that names this event.
    pub(super) fn start(&self, last: Option<&str>) -> Result<Start, Refusal> {
        let next = self.ring.next_id();
        Ok(match last.map(event_id).transpose()? {
            None => match self.options.replay {
                Replay::Latest(n) => Start::At(next.saturating_sub(n)),
                Replay::None => Start::At(next),
            },
            Some(last) if last >= next || self.uncommitted().contains(&last) => Start::Anew { last },
            Some(last) => Start::After { last },
        })
    }

    /// Numbers that events of earlier runs may have had, and that count no more.
    fn uncommitted(&self) -> Range<u64> {
        self.first_id.saturating_sub(self.options.n_uncommitted)..self.first_id
    }

    /// A client's place, and what it is told before it gets events.
    pub(super) fn enter(&self, start: Start) -> (Reader, Vec<u8>) {
        let reader = self.ring.read_from(start.from());
        let mut first = format!("retry: {RETRY_MILLISECONDS}\n").into_bytes();
        match start {
            Start::At(_) => {}
            Start::After { last } => {
                // What was dropped since it asked is lost to it, too. What was never committed is not.
                let is_first = reader.first_id() <= self.first_id;
                let next = if is_first { self.uncommitted().start } else { reader.first_id() };
                if last + 1 < next {
                    lagged(last + 1, next - 1, &mut first);
                }
            }
            Start::Anew { last } => {
                let next = self.ring.next_id();
                Event { name: "restart", data: format!(r#"{{"last":{last},"next":{next}}}"#).as_bytes() }
                    .encode(None, &mut first);
            }
        }
        (reader, first)
    }
}

/// What a client begins with, as far as it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    /// This event: it has none yet.
    At(u64),
    /// The one after its last.
    After { last: u64 },
    /// All: it names an event that there is not.
    Anew { last: u64 },
}

impl Start {
    fn from(self) -> u64 {
        match self {
            Self::At(id) => id,
            Self::After { last } => last + 1,
            Self::Anew { .. } => 0,
        }
    }
}

/// Tells a client which events it will not get.
pub(super) fn lagged(from: u64, to: u64, into: &mut Vec<u8>) {
    Event { name: "lagged", data: format!(r#"{{"from":{from},"to":{to}}}"#).as_bytes() }.encode(None, into);
}

/// The number of an event that a client names.
fn event_id(text: &str) -> Result<u64, Refusal> {
    let is_number =
        !text.is_empty() && text.len() <= MAX_ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_number { text.parse().ok() } else { None };
    number.ok_or_else(|| Refusal::bad_request("Last-Event-ID must be the number of an event"))
}

impl Streams for EventStream {
    fn subscribe(&self, head: &RequestHead) -> Result<Subscriber, Refusal> {
        let shared = &self.shared;
        let count = |why: Refused| {
            move |refusal| {
                shared.refuse(why);
                refusal
            }
        };
        let allowed_origin = guard::check_site(head, &shared.options.cors).map_err(count(Refused::Site))?;
        guard::check_get(head, allowed_origin.as_deref()).map_err(count(Refused::BadRequest))?;
        guard::check_token(head, shared.options.token.as_ref()).map_err(count(Refused::Token))?;
        let last = head.text(&LAST_EVENT_ID).map_err(count(Refused::BadRequest))?;
        let start = shared.start(last).map_err(count(Refused::BadRequest))?;
        let memory = shared
            .budget
            .try_reserve(CLIENT_BYTES.saturating_add(shared.send_buffer))
            .map_err(|_| Refusal::busy("no memory for one client more", RETRY_AFTER_SECONDS))
            .map_err(count(Refused::Full))?;
        shared.take_place().map_err(count(Refused::Full))?;
        shared.n_clients_in_all.fetch_add(1, Relaxed);
        let write_stall = match shared.options.slow_client {
            SlowClient::Wait => shared.options.wait_timeout,
            _ => Duration::ZERO,
        };
        let (reader, first) = shared.enter(start);
        Ok(Subscriber {
            stream: Arc::clone(shared),
            reader,
            first,
            allowed_origin,
            heartbeat: shared.options.heartbeat,
            send_buffer_bytes: shared.send_buffer.as_usize() / 2,
            write_stall,
            _memory: memory,
        })
    }
}
