//! A ring of events for any number of readers: what is live is kept for a while, within so many bytes, and then dropped.
//!
//! One writer, increasing numbers, whole events in the order they were sent. A reader is a cursor: what waits for it lies in
//! the ring once for all, and nothing grows with it. Memory: [`RingLimits::bytes`], reserved at the start, and for a reader
//! that was moved on in the middle of an event the rest of that event, reserved when it happens.
//!
//! - **RING-1** What waits for a reader is never more than [`RingLimits::queue`] events and [`RingLimits::queue_bytes`]; past
//!   events that it came in for do not count, they are there whether it reads them or not.
//! - **RING-2** What the ring holds never weighs more than [`RingLimits::bytes`].
//! - **RING-3** A reader gets every event from where it came in, in order, once; or is told which it will not get, before
//!   the next one; or is cut off.
//! - **RING-4** The writer waits for a reader only while the reader may still be quick: no longer than
//!   [`RingLimits::patience`] after its peer stopped taking bytes. A reader that was not called meanwhile is not slow.

mod events;
mod reader;
mod slot;
mod state;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::events::Events;
pub use self::reader::{Next, Reader, Runs};
use self::state::{Shown, State};
use crate::sync::lock;
use crate::{Budget, ByteCount, Reservation, ReserveError};

/// Beyond its patience the writer waits so long for a reader that is not even called. Longer, and a program that is stuck
/// elsewhere would hold the flow up; shorter, and a busy machine would cut clients off that are well.
const MAX_UNCALLED: Duration = Duration::from_secs(10);

/// How much a ring holds, and how much may wait for a reader.
#[derive(Clone, Debug)]
pub struct RingLimits {
    /// Bytes of events held, with what it takes to hold them. With less than [`RingLimits::least_bytes`], readers lose events
    /// within their limits.
    pub bytes: ByteCount,
    /// Events that may wait for one reader.
    pub queue: u64,
    /// Bytes that may wait for one reader; no event may have more.
    pub queue_bytes: ByteCount,
    /// How long the writer waits for a reader whose peer takes less than a quarter of its queue.
    pub patience: Duration,
    /// What becomes of it then.
    pub slow: SlowReader,
    /// The part of a reader's queue from which on it is told as filling.
    pub warn_at: f64,
    /// And as nearly full.
    pub critical_at: f64,
}

impl RingLimits {
    /// What a ring must hold so that no reader loses an event within these limits, where no more than `at_once` and one event
    /// are sent at once: what waits for a reader, the part of its piece that it has read, and the piece that comes.
    pub fn least_bytes(queue: u64, queue_bytes: ByteCount, at_once: ByteCount) -> ByteCount {
        // No event has fewer bytes than its mark in a piece.
        let piece = at_once.saturating_mul(2).saturating_add(Self::EVENT_OVERHEAD);
        let waits = Self::EVENT_OVERHEAD.saturating_mul(queue).saturating_add(queue_bytes);
        waits.saturating_add(piece.saturating_mul(2)).saturating_add(queue_bytes)
    }

    /// What an event weighs in a ring beside its bytes, at most.
    pub const EVENT_OVERHEAD: ByteCount = ByteCount::new(Events::OVERHEAD as u64);
}

/// What becomes of a reader that is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowReader {
    /// It is cut off.
    Cut,
    /// It loses the oldest of what waits for it, and is told.
    Skip,
}

/// Why a reader was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cut {
    /// Its peer did not take what there was.
    Slow,
    /// It was moved on in the middle of an event, and there was no memory for the rest.
    NoMemory,
}

/// How full a reader's queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Less than [`RingLimits::warn_at`].
    #[default]
    Normal,
    /// Less than [`RingLimits::critical_at`].
    Warn,
    /// More.
    Critical,
}

/// A reader's queue has come to a level; it is told again only after the queue was all but empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The reader's [number](Reader::number).
    pub reader: usize,
    /// Which level.
    pub level: Level,
    /// Events that wait for it.
    pub lag: u64,
}

/// What can be seen of a ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Bytes held.
    pub held: ByteCount,
    /// The oldest event that is held.
    pub oldest_id: u64,
    /// The number of the next event.
    pub next_id: u64,
    /// Bytes of all events so far.
    pub n_bytes: u64,
    /// Readers now.
    pub n_readers: usize,
    /// The most events that wait for one of them.
    pub max_lag_events: u64,
    /// The most bytes that wait for one of them.
    pub max_lag_bytes: u64,
    /// Readers by how many events wait for them: none, 1, up to 10, 100, 1,000, and more.
    pub readers_by_lag: [usize; 6],
    /// Readers cut off because they were slow.
    pub n_cut: u64,
    /// Events that readers were moved past.
    pub n_skipped: u64,
    /// Crossings of [`RingLimits::warn_at`].
    pub n_warned: u64,
    /// Crossings of [`RingLimits::critical_at`].
    pub n_critical: u64,
}

/// The ring was closed: it takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring is closed")]
pub struct RingClosed;

/// Events for any number of readers. Cheap to clone; clones are the same ring.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// use aqueduct_primitives::{Budget, ByteCount, Events, Next, Ring, RingLimits, Runs};
///
/// let ring = Ring::new(&Budget::new("live", ByteCount::mib(8)), RingLimits::default(), 1)?;
/// let mut reader = ring.read_from(1);
/// let mut events = Events::new();
/// events.add(100, |bytes| bytes.extend(b"hello"));
/// ring.send(events).await?;
///
/// let mut runs = Runs::default();
/// assert_eq!(reader.next(1000, &mut runs), Next::Bytes);
/// assert_eq!(runs.pieces().collect::<Vec<_>>(), [b"hello"]);
/// reader.advance(5);
/// assert_eq!(reader.next(1000, &mut Runs::default()), Next::Nothing);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ring {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A reader that the writer waits for has moved.
    room: Notify,
    /// There is something for readers.
    news: Notify,
    /// How many wake readers in the place of the writer.
    n_waking: AtomicUsize,
    _memory: Reservation,
}

impl Default for RingLimits {
    /// 100 events and 1 MiB for a reader, which is cut off when it takes nothing for 100 ms; 4 MiB in all.
    fn default() -> Self {
        Self {
            bytes: ByteCount::mib(4),
            queue: 100,
            queue_bytes: ByteCount::mib(1),
            patience: Duration::from_millis(100),
            slow: SlowReader::Cut,
            warn_at: 0.5,
            critical_at: 0.9,
        }
    }
}

impl Ring {
    /// A ring whose first event has this number. It takes [`RingLimits::bytes`] of the budget at once.
    ///
    /// # Errors
    /// The budget has not so much free.
    pub fn new(budget: &Budget, limits: RingLimits, first_id: u64) -> Result<Self, ReserveError> {
        let memory = budget.try_reserve(limits.bytes)?;
        let state = Mutex::new(State::new(limits, budget.clone(), first_id));
        let shared = Shared {
            state,
            room: Notify::new(),
            news: Notify::new(),
            n_waking: AtomicUsize::new(0),
            _memory: memory,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The number that the next event gets.
    pub fn next_id(&self) -> u64 {
        lock(&self.shared.state).next.id
    }

    /// The oldest event that is held; the [next](Ring::next_id) one if there is none.
    pub fn oldest_id(&self) -> u64 {
        lock(&self.shared.state).oldest().id
    }

    /// The limits that it was made with.
    pub fn limits(&self) -> RingLimits {
        lock(&self.shared.state).limits.clone()
    }

    /// Sends events: returns when every reader sees them, and so no reader has more waiting for it than its limits. What
    /// came close to a limit by it is returned. There may be one call at a time; events of concurrent calls would mix.
    ///
    /// # Errors
    /// The ring was closed.
    ///
    /// # Cancel safety
    /// All events are in the ring from the first poll on; when dropped, readers see the rest with the next call.
    pub async fn send(&self, mut events: Events) -> Result<Vec<Crossing>, RingClosed> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        events.shrink();
        let mut crossings = Vec::new();
        {
            let mut state = lock(&self.shared.state);
            if state.is_closed {
                return Err(RingClosed);
            }
            state.push(events);
        }
        let mut uncalled = Instant::now() + self.limits().patience + MAX_UNCALLED;
        loop {
            let (shown, wakes, has_moved) = self.show(&mut crossings);
            self.wake(wakes);
            let Shown::Waits(until) = shown else { return Ok(crossings) };
            let now = Instant::now();
            if has_moved {
                uncalled = now + self.limits().patience + MAX_UNCALLED;
            } else if uncalled <= now {
                lock(&self.shared.state).give_up_waiting();
                continue;
            }
            let until = until.map_or(uncalled, |until| until.min(uncalled));
            // Over time or not: who is in the way is looked for anew.
            let _ = tokio::time::timeout_at(until, self.shared.room.notified()).await;
        }
    }

    /// Shows readers what they have room for: whether that is all, whether anybody is to be woken, and whether it was more
    /// than before.
    fn show(&self, crossings: &mut Vec<Crossing>) -> (Shown, bool, bool) {
        let mut state = lock(&self.shared.state);
        let before = state.head;
        let shown = state.show(Instant::now(), crossings);
        let has_moved = state.head != before;
        let has_asked = std::mem::take(&mut state.has_asked);
        (shown, has_moved || has_asked, has_moved)
    }

    fn wake(&self, is_news: bool) {
        if !is_news {
            return;
        }
        if self.shared.n_waking.load(SeqCst) > 0 {
            self.shared.news.notify_one();
        } else {
            self.wake_readers(&mut Vec::new());
        }
    }

    fn wake_readers(&self, wakers: &mut Vec<Waker>) {
        wakers.extend(lock(&self.shared.state).wakers());
        wakers.drain(..).for_each(Waker::wake);
    }

    /// Wakes readers until the ring is closed, in the place of the writer: one that runs where the readers do makes a call
    /// of the writer cost one wake-up between threads, however many readers there are.
    ///
    /// # Cancel safety
    /// When dropped, the writer wakes readers again.
    pub async fn wake_here(&self) {
        struct Waking<'r>(&'r AtomicUsize);
        impl Drop for Waking<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, SeqCst);
            }
        }
        self.shared.n_waking.fetch_add(1, SeqCst);
        let _waking = Waking(&self.shared.n_waking);
        let mut wakers = Vec::new();
        loop {
            self.wake_readers(&mut wakers);
            if self.is_closed() {
                return;
            }
            self.shared.news.notified().await;
        }
    }

    /// Takes these events and no more. They do not count for the limits of readers: they are to be few.
    pub fn close_with(&self, mut last: Events) {
        last.shrink();
        {
            let mut state = lock(&self.shared.state);
            if !state.is_closed && !last.is_empty() {
                state.push(last);
            }
        }
        self.close();
    }

    /// Takes no more events. Readers get what they have not had yet, and are then told the end.
    pub fn close(&self) {
        lock(&self.shared.state).close();
        self.wake(true);
        self.shared.room.notify_one();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        lock(&self.shared.state).is_closed
    }

    /// A reader that gets this event first, or the oldest that is held, or the next one.
    pub fn read_from(&self, id: u64) -> Reader {
        let (place, first_id) = lock(&self.shared.state).enter(id);
        Reader { shared: Arc::clone(&self.shared), place, first_id }
    }

    /// What can be seen of it now.
    pub fn stats(&self) -> RingStats {
        lock(&self.shared.state).stats()
    }
}
