//! One reader, as the ring knows it: a cursor and a few marks, whatever it is sent.

use std::sync::Arc;
use std::task::Waker;

use tokio::time::Instant;

use super::events::Events;
use super::{Cut, Level, RingLimits};
use crate::{Budget, ByteCount, Reservation};

/// Who is waited for must take this part of a limit before that counts as progress: otherwise one that takes a byte now
/// and then would hold up all others for ever.
const PART_TO_TAKE: u64 = 4;

/// A level that was crossed is crossed again only when less than this part of the lower one is waiting.
const PART_TO_REARM: f64 = 0.5;

/// Where an event begins, among all there ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) id: u64,
    pub(super) byte: u64,
}

/// What is left to send of an event that the ring does not hold any more.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) event: Arc<Events>,
    pub(super) sent: usize,
    _memory: Reservation,
}

#[derive(Debug)]
pub(super) struct Slot {
    /// The event to take next.
    pub(super) at: Mark,
    /// Where the ring was when it came in: past events that it takes before do not count for its limits.
    entered: Mark,
    /// How many bytes of it were taken.
    pub(super) offset: u64,
    pub(super) rest: Option<Rest>,
    /// The first and the last event that it will never get.
    pub(super) lost: Option<(u64, u64)>,
    /// Since when, and from which event on, its peer has taken too little.
    blocked: Option<(Instant, Mark)>,
    pub(super) is_slow: bool,
    /// Its time is over: if its peer takes nothing now, it is slow.
    pub(super) is_asked: bool,
    pub(super) is_awaited: bool,
    pub(super) level: Level,
    pub(super) cut: Option<Cut>,
    /// It has enough to do when its peer takes more, and is not to be woken for news.
    pub(super) waits_for_peer: bool,
    pub(super) waker: Option<Waker>,
}

impl Slot {
    pub(super) fn new(at: Mark, entered: Mark) -> Self {
        Self {
            at,
            entered,
            offset: 0,
            rest: None,
            lost: None,
            blocked: None,
            is_slow: false,
            is_asked: false,
            is_awaited: false,
            level: Level::Normal,
            cut: None,
            waits_for_peer: false,
            waker: None,
        }
    }

    /// Whether more than its limits would wait for it if the ring went on to `head`.
    pub(super) fn is_over(&self, head: Mark, limits: &RingLimits) -> bool {
        let room = self.room(limits);
        head.id > room.id || head.byte > room.byte
    }

    /// From where on events wait for it.
    pub(super) fn waiting_from(&self) -> Mark {
        self.at.max(self.entered)
    }

    /// How far the ring may go on.
    pub(super) fn room(&self, limits: &RingLimits) -> Mark {
        let from = self.waiting_from();
        Mark {
            id: from.id.saturating_add(limits.queue),
            byte: from.byte.saturating_add(limits.queue_bytes.get()),
        }
    }

    /// Whether it would find something to do.
    pub(super) fn has_news(&self, head: Mark) -> bool {
        self.at != head || self.rest.is_some() || self.lost.is_some() || self.is_urged()
    }

    /// Whether there is something to do even if its peer takes nothing.
    pub(super) fn is_urged(&self) -> bool {
        self.cut.is_some() || self.is_asked
    }

    /// Whether its task is to be woken.
    pub(super) fn is_to_wake(&self, head: Mark, is_closed: bool) -> bool {
        self.is_urged() || (!self.waits_for_peer && (is_closed || self.has_news(head)))
    }

    pub(super) fn blocked_since(&self) -> Option<Instant> {
        self.blocked.map(|(since, _)| since)
    }

    /// Its peer takes nothing now.
    pub(super) fn is_blocked(&mut self, now: Instant, limits: &RingLimits) {
        let (since, _) = *self.blocked.get_or_insert((now, self.at));
        if std::mem::take(&mut self.is_asked) && since + limits.patience <= now {
            self.is_slow = true;
        }
    }

    /// Its peer has taken something: enough of it, and it is waited for again.
    pub(super) fn has_taken(&mut self, head: Mark, limits: &RingLimits) {
        let is_up_to_date = self.at == head;
        let is_enough = self.blocked.is_some_and(|(_, from)| {
            (self.at.id - from.id).saturating_mul(PART_TO_TAKE) >= limits.queue
                || (self.at.byte - from.byte).saturating_mul(PART_TO_TAKE) >= limits.queue_bytes.get()
        });
        if is_up_to_date || is_enough {
            (self.blocked, self.is_slow, self.is_asked) = (None, false, false);
        }
        if self.fill(head, limits) < limits.warn_at * PART_TO_REARM {
            self.level = Level::Normal;
        }
    }

    /// How full its queue is, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a part of a limit, to a few digits")]
    fn fill(&self, head: Mark, limits: &RingLimits) -> f64 {
        let from = self.waiting_from();
        let events = (head.id - from.id) as f64 / limits.queue as f64;
        let bytes = (head.byte - from.byte) as f64 / limits.queue_bytes.get() as f64;
        events.max(bytes)
    }

    pub(super) fn level_at(&self, head: Mark, limits: &RingLimits) -> Level {
        let fill = self.fill(head, limits);
        match () {
            () if fill >= limits.critical_at => Level::Critical,
            () if fill >= limits.warn_at => Level::Warn,
            () => Level::Normal,
        }
    }

    /// Moves it on to an event, without those before; how many it loses. What is left of the one that it is in the middle
    /// of is kept, if there is memory for it: a stream cannot stop within an event.
    pub(super) fn skip(&mut self, to: Mark, half: Option<Events>, budget: &Budget) -> u64 {
        if to.id <= self.at.id {
            return 0;
        }
        let mut first = self.at.id;
        if let Some(half) = half {
            match budget.try_reserve(ByteCount::new(half.weight() as u64)) {
                Ok(memory) => self.rest = Some(Rest { event: Arc::new(half), sent: 0, _memory: memory }),
                Err(_) => self.cut = Some(Cut::NoMemory),
            }
            first += 1;
        }
        (self.at, self.offset) = (to, 0);
        if first < to.id {
            let (from, _) = *self.lost.get_or_insert((first, first));
            self.lost = Some((from, to.id - 1));
        }
        if let Some((since, _)) = self.blocked {
            self.blocked = Some((since, to));
        }
        to.id - first
    }
}
