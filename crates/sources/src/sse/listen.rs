//! The events of a stream across its reconnects: each once, with the id behind which to go on.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{ByteStream, Context, Error, ErrorKind, Origin, Reject, RejectedItem, Result};
use aqueduct_formats::LargeRecords;
use aqueduct_net::Listener;
use aqueduct_primitives::{ByteCount, Reservation};
use async_stream::try_stream;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::Instant;

use super::given::Given;
use super::parse::{Event, Found, Parser};

/// A longer id does not go into a header that servers take.
const MAX_ID_BYTES: usize = 1 << 10;

/// A connection on which signs of life came for so long has brought something, though no event came.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// Of a text of the server, so much is shown.
const SHOWN_CHARS: usize = 200;

/// What came, and the id behind it: the source goes on there.
pub(super) struct Happening {
    pub(super) what: What,
    pub(super) id: Arc<str>,
}

/// Something that came.
pub(super) enum What {
    /// An event, and the memory that it takes beyond a block.
    Event(Event, Reservation),
    /// An event that is larger than it may be.
    Rejected(Reject),
    /// Nothing to give.
    Passed,
}

/// One who listens to a stream.
pub(super) struct Ear {
    pub(super) cx: Context,
    pub(super) listener: Listener,
    /// The URL without secrets.
    pub(super) name: Arc<str>,
    pub(super) parser: Parser,
    /// Room for the data of an event that is not larger than others.
    pub(super) block: usize,
    /// Where larger ones take their memory from.
    pub(super) lane: Arc<dyn LargeRecords>,
    /// Whether `end`, `restart` and `lagged` are what the server says about the stream.
    pub(super) has_control: bool,
    pub(super) last_id: Arc<str>,
}

/// What is known while the stream is read.
struct Listening {
    ear: Ear,
    given: Given,
    held: Reservation,
    /// Whether any event had come when nothing was known to go on from.
    has_unnamed: bool,
    is_over: bool,
    /// On this connection.
    n_new: u64,
    since: Instant,
    heard: Instant,
}

impl Ear {
    /// All that comes until the server ends the stream.
    pub(super) fn happenings(self) -> BoxStream<'static, Result<Happening>> {
        let now = Instant::now();
        let mut at = Listening {
            given: Given::behind(&self.last_id),
            ear: self,
            held: Reservation::empty(),
            has_unnamed: false,
            is_over: false,
            n_new: 0,
            since: now,
            heard: now,
        };
        Box::pin(try_stream! {
            let mut body = at.ear.listener.connect(&at.ear.last_id).await?;
            while let Some(mut bytes) = body.take() {
                at.begin();
                let broke = loop {
                    let chunk = match bytes.next().await {
                        Some(Ok(chunk)) => chunk,
                        Some(Err(error)) => break Some(error),
                        None => break None,
                    };
                    at.hear(chunk.len());
                    let mut rest = &chunk[..];
                    while !at.is_over && let Some(found) = at.ear.parser.feed(&mut rest) {
                        if let Some(what) = at.take(found).await? {
                            yield Happening { what, id: Arc::clone(&at.ear.last_id) };
                        }
                    }
                    if at.is_over {
                        break None;
                    }
                };
                drop(bytes);
                if !at.is_over {
                    body = at.connect_again(broke).await?;
                }
            }
        })
    }
}

impl Listening {
    fn begin(&mut self) {
        self.held = Reservation::empty();
        self.ear.parser.shrink(self.ear.block);
        self.ear.parser.begin(&self.ear.last_id);
        self.given.begin();
        self.n_new = 0;
        (self.since, self.heard) = (Instant::now(), Instant::now());
    }

    fn hear(&mut self, n_bytes: usize) {
        self.heard = Instant::now();
        self.ear.cx.metrics().bytes.add_len(n_bytes);
    }

    async fn connect_again(&mut self, broke: Option<Error>) -> Result<Option<ByteStream>> {
        let moved = self.n_new > 0 || self.heard.duration_since(self.since) >= STEADY_AFTER;
        if self.has_unnamed && self.ear.last_id.is_empty() {
            let name = &self.ear.name;
            self.ear.cx.gap(format!(
                "{name}: the stream broke off, and its events have no ids: what was sent until it was taken up again"
            ));
        }
        self.ear.listener.connect_again(&self.ear.last_id, broke, moved).await
    }

    async fn take(&mut self, found: Found) -> Result<Option<What>> {
        Ok(match found {
            Found::Full => {
                self.make_room().await?;
                None
            }
            Found::Retry(ms) => {
                self.ear.listener.wait_as_asked(Duration::from_millis(ms));
                None
            }
            Found::Id(id) => {
                if !self.given.repeats(&id) {
                    self.go_on_behind(id);
                }
                Some(What::Passed)
            }
            Found::TooLarge { id, has_own_id, n_bytes, start } => {
                drop(self.release());
                Some(self.large_event(id, has_own_id, n_bytes, start))
            }
            Found::Event(event) => self.event(event),
        })
    }

    fn event(&mut self, event: Event) -> Option<What> {
        let held = self.release();
        if self.ear.has_control && self.is_control(&event) {
            if event.has_own_id && !event.id.is_empty() {
                self.go_on_behind(Arc::clone(&event.id));
            }
            return Some(What::Passed);
        }
        // What comes again does not move the place back.
        if !self.given.take(&event) {
            self.ear.cx.metrics().rows_duplicate.add(1);
            return Some(What::Passed);
        }
        if event.has_own_id {
            self.go_on_behind(Arc::clone(&event.id));
        }
        self.n_new += 1;
        if self.ear.last_id.is_empty() && !std::mem::replace(&mut self.has_unnamed, true) {
            let name = &self.ear.name;
            self.ear.cx.warn(format!(
                "{name}: its events have no ids that can be asked for; what is sent while nobody listens is lost"
            ));
        }
        Some(What::Event(event, held))
    }

    /// An event that is larger than it may be is rejected once, and does not move the place back when it comes again.
    fn large_event(&mut self, id: Arc<str>, has_own_id: bool, n_bytes: u64, start: Vec<u8>) -> What {
        if has_own_id && !self.given.take_large(&id, n_bytes, &start) {
            self.ear.cx.metrics().rows_duplicate.add(1);
            return What::Passed;
        }
        let reject = self.too_large(&id, n_bytes, start);
        if has_own_id {
            self.go_on_behind(id);
        }
        self.n_new += 1;
        What::Rejected(reject)
    }

    /// What our own server says about a stream: its end, that it has begun anew, that events are no longer there.
    fn is_control(&mut self, event: &Event) -> bool {
        let (name, last, said) = (&self.ear.name, shown(&self.ear.last_id), shown(&event.data));
        match event.name.as_str() {
            "end" => self.is_over = true,
            "lagged" => {
                self.ear.cx.gap(format!(
                    "{name}: events behind `{last}` are no longer there; the server says {said}"
                ));
            }
            "restart" => {
                self.given.restart();
                self.ear.cx.gap(format!(
                    "{name}: the server has begun anew; what it had sent by `{last}` and not committed comes again, or is missing; \
                     it says {said}"
                ));
            }
            _ => return false,
        }
        true
    }

    /// An id that cannot be sent is none: nothing can be asked for behind it.
    fn go_on_behind(&mut self, id: Arc<str>) {
        let may_be_sent = id.len() <= MAX_ID_BYTES && !id.chars().any(|c| c.is_ascii_control());
        self.ear.last_id = if may_be_sent { id } else { Arc::default() };
    }

    /// An event that is larger than others waits for memory, as any large record does.
    async fn make_room(&mut self) -> Result<()> {
        let parser = &mut self.ear.parser;
        let room = parser.room().saturating_mul(2).min(parser.max_bytes());
        let held = self.held.size();
        let more = ByteCount::of(room).saturating_sub(held);
        match self.ear.lane.reserve(held, more).await {
            Ok(reserved) => {
                self.held.merge(reserved);
                parser.grow(room);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Limit => {
                self.held = Reservation::empty();
                parser.give_up();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The memory of the event that is behind.
    fn release(&mut self) -> Reservation {
        self.ear.parser.shrink(self.ear.block);
        std::mem::take(&mut self.held)
    }

    fn too_large(&self, id: &str, n_bytes: u64, start: Vec<u8>) -> Reject {
        let (most, id) = (self.ear.parser.max_bytes(), shown(id));
        let message = format!(
            "the event behind id `{id}` has {n_bytes} bytes of data; expected at most {most} (`max_record_bytes`), no more than \
             data in flight has room for, and an id and a type of a few KiB"
        );
        let origin = Origin { file: self.ear.name.to_string(), ..Origin::default() };
        Reject { item: RejectedItem::Row, reason: "too large", message, origin, raw: start }
    }
}

/// A text of the server as messages show it: short, and without what a terminal would take for a command.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).fold(String::new(), |mut shown, character| {
        match character {
            '"' | '\'' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
        shown
    })
}
