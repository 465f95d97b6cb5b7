//! What a ring holds, and where its readers are.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use tokio::time::Instant;

use super::events::Events;
use super::reader::Runs;
use super::slot::{Mark, Slot};
use super::{Crossing, Cut, Level, RingLimits, RingStats, SlowReader};
use crate::{Budget, ByteCount};

/// A piece of events and where it stands among all.
#[derive(Debug)]
struct Piece {
    first: Mark,
    events: Arc<Events>,
}

impl Piece {
    /// Where its `n`th event begins.
    fn mark(&self, n: usize) -> Mark {
        Mark { id: self.first.id + n as u64, byte: self.first.byte + self.events.end_of(n) as u64 }
    }

    fn end(&self) -> Mark {
        self.mark(self.events.len())
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) limits: RingLimits,
    budget: Budget,
    pieces: VecDeque<Piece>,
    held: usize,
    /// Readers see what comes before.
    pub(super) head: Mark,
    /// Behind all that is held.
    pub(super) next: Mark,
    pub(super) is_closed: bool,
    /// By their number, with free places between.
    pub(super) readers: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// How many readers the writer waits for.
    pub(super) n_awaited: usize,
    /// Some of them are to try once more.
    pub(super) has_asked: bool,
    pub(super) n_cut: u64,
    pub(super) n_skipped: u64,
    pub(super) n_warned: u64,
    pub(super) n_critical: u64,
}

/// What came of trying to show readers all that is held.
pub(super) enum Shown {
    All,
    /// Some readers have no room; look again when they have moved, or at this time.
    Waits(Option<Instant>),
}

impl State {
    pub(super) fn new(limits: RingLimits, budget: Budget, first_id: u64) -> Self {
        let start = Mark { id: first_id, byte: 0 };
        Self {
            limits,
            budget,
            pieces: VecDeque::new(),
            held: 0,
            head: start,
            next: start,
            is_closed: false,
            readers: Vec::new(),
            free: Vec::new(),
            n_awaited: 0,
            has_asked: false,
            n_cut: 0,
            n_skipped: 0,
            n_warned: 0,
            n_critical: 0,
        }
    }

    /// The oldest event held, or the next one.
    pub(super) fn oldest(&self) -> Mark {
        self.pieces.front().map_or(self.next, |piece| piece.first)
    }

    pub(super) fn held(&self) -> ByteCount {
        ByteCount::new(self.held as u64)
    }

    /// Takes in a piece, and lets go of the oldest until it fits. Nobody sees it yet.
    pub(super) fn push(&mut self, events: Events) {
        let weight = events.weight();
        let most = usize::try_from(self.limits.bytes.get()).unwrap_or(usize::MAX);
        while self.held + weight > most {
            let Some(oldest) = self.pieces.pop_front() else { break };
            let after = oldest.end();
            self.skip_all_to(&oldest, after);
            self.held -= oldest.events.weight();
            // What nobody saw yet is there only where a call of the writer was given up.
            self.head = self.head.max(after);
        }
        let piece = Piece { first: self.next, events: Arc::new(events) };
        self.next = piece.end();
        self.held += weight;
        self.pieces.push_back(piece);
    }

    /// Shows all that is held, and takes no more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.head = self.next;
    }

    /// Moves readers out of a piece that is no longer held.
    fn skip_all_to(&mut self, piece: &Piece, to: Mark) {
        let budget = self.budget.clone();
        for slot in self.readers.iter_mut().flatten().filter(|slot| slot.at.id < to.id) {
            let n = usize::try_from(slot.at.id.saturating_sub(piece.first.id)).unwrap_or(usize::MAX);
            let half = half_sent(slot, piece, n);
            self.n_skipped += slot.skip(to, half, &budget);
        }
    }

    /// Shows readers as much of what is held as all of them have room for; those that are slow get what the policy says.
    pub(super) fn show(&mut self, now: Instant, crossings: &mut Vec<Crossing>) -> Shown {
        let room = self.room();
        let before = self.head;
        while let Some(piece) = self.piece_at(self.head) {
            let by_byte = usize::try_from(room.byte.saturating_sub(piece.first.byte)).unwrap_or(usize::MAX);
            let by_id = usize::try_from(room.id.saturating_sub(piece.first.id)).unwrap_or(usize::MAX);
            let n = by_id.min(piece.events.n_ended_by(by_byte)).min(piece.events.len());
            let shown = self.head.max(piece.mark(n));
            if shown == std::mem::replace(&mut self.head, shown) {
                break;
            }
        }
        if self.head != before {
            self.deal_with_slow();
            self.watch_levels(crossings);
        }
        if self.head == self.next { Shown::All } else { self.await_blockers(now) }
    }

    /// How far readers that are not slow have room.
    fn room(&self) -> Mark {
        let limits = &self.limits;
        let mut room = Mark { id: u64::MAX, byte: u64::MAX };
        for slot in self.readers.iter().flatten().filter(|slot| !slot.is_slow && slot.cut.is_none()) {
            let own = slot.room(limits);
            room = Mark { id: room.id.min(own.id), byte: room.byte.min(own.byte) };
        }
        room
    }

    /// Cuts slow readers off that have no room for what is shown, or moves them on.
    fn deal_with_slow(&mut self) {
        let (head, limits) = (self.head, self.limits.clone());
        for place in 0..self.readers.len() {
            let Some(slot) = self.readers[place].as_mut() else { continue };
            if !slot.is_slow || slot.cut.is_some() || !slot.is_over(head, &limits) {
                continue;
            }
            match limits.slow {
                SlowReader::Cut => {
                    slot.cut = Some(Cut::Slow);
                    self.n_cut += 1;
                }
                SlowReader::Skip => self.skip_to_room(place),
            }
        }
    }

    fn skip_to_room(&mut self, place: usize) {
        let Some(slot) = self.readers[place].as_ref() else { return };
        let least = Mark {
            id: self.head.id.saturating_sub(self.limits.queue),
            byte: self.head.byte.saturating_sub(self.limits.queue_bytes.get()),
        };
        let to = self.first_mark_from(least).max(slot.at);
        let half = self.piece_at(slot.at).and_then(|piece| {
            let n = usize::try_from(slot.at.id - piece.first.id).ok()?;
            half_sent(slot, piece, n)
        });
        let budget = self.budget.clone();
        if let Some(slot) = self.readers[place].as_mut() {
            self.n_skipped += slot.skip(to, half, &budget);
        }
    }

    /// The first event that is neither before this number nor begins before this byte.
    fn first_mark_from(&self, least: Mark) -> Mark {
        let is_before = |piece: &Piece| piece.end().id <= least.id || piece.end().byte <= least.byte;
        let at = self.pieces.partition_point(is_before);
        let Some(piece) = self.pieces.get(at) else { return self.head };
        let by_id = usize::try_from(least.id.saturating_sub(piece.first.id)).unwrap_or(usize::MAX);
        let into = usize::try_from(least.byte.saturating_sub(piece.first.byte)).unwrap_or(usize::MAX);
        let mut n = by_id.max(piece.events.n_ended_by(into)).min(piece.events.len());
        if piece.mark(n).byte < least.byte {
            n += 1;
        }
        piece.mark(n.min(piece.events.len()))
    }

    /// Readers that have no room for the next event: those that take nothing are asked to try once more when their time is
    /// over.
    fn await_blockers(&mut self, now: Instant) -> Shown {
        let wanted = self.after(self.head);
        let (limits, mut look_again) = (self.limits.clone(), None::<Instant>);
        self.n_awaited = 0;
        for slot in self.readers.iter_mut().flatten() {
            slot.is_awaited = !slot.is_slow && slot.cut.is_none() && slot.is_over(wanted, &limits);
            if !slot.is_awaited {
                continue;
            }
            self.n_awaited += 1;
            let Some(due) = slot.blocked_since().map(|since| since + limits.patience) else { continue };
            if due > now {
                look_again = Some(look_again.map_or(due, |earlier| earlier.min(due)));
            } else if !slot.is_asked {
                slot.is_asked = true;
                self.has_asked = true;
            }
        }
        Shown::Waits(look_again)
    }

    /// Nobody waits for these readers any longer, whatever keeps them from trying.
    pub(super) fn give_up_waiting(&mut self) {
        for slot in self.readers.iter_mut().flatten().filter(|slot| slot.is_awaited) {
            slot.is_slow = true;
        }
    }

    /// Behind the event that begins here.
    fn after(&self, mark: Mark) -> Mark {
        match self.piece_at(mark) {
            Some(piece) => piece.mark(usize::try_from(mark.id - piece.first.id).unwrap_or(usize::MAX) + 1),
            None => mark,
        }
    }

    /// Counts who has come close to a limit, once until it has caught up.
    fn watch_levels(&mut self, crossings: &mut Vec<Crossing>) {
        let (head, limits) = (self.head, &self.limits);
        for (reader, slot) in self.readers.iter_mut().enumerate() {
            let Some(slot) = slot.as_mut().filter(|slot| slot.cut.is_none()) else { continue };
            let level = slot.level_at(head, limits);
            if level > slot.level {
                if slot.level < Level::Warn {
                    self.n_warned += 1;
                    crossings.push(Crossing {
                        reader,
                        level: Level::Warn,
                        lag: head.id - slot.waiting_from().id,
                    });
                }
                if level == Level::Critical {
                    self.n_critical += 1;
                    crossings.push(Crossing { reader, level, lag: head.id - slot.waiting_from().id });
                }
                slot.level = level;
            }
        }
    }

    fn piece_at(&self, mark: Mark) -> Option<&Piece> {
        let after = self.pieces.partition_point(|piece| piece.first.id <= mark.id);
        self.pieces.get(after.checked_sub(1)?).filter(|piece| mark.id < piece.end().id)
    }

    /// A reader that has all events before `from`, or as many as are held; its place, and the event that it takes first.
    pub(super) fn enter(&mut self, from: u64) -> (usize, u64) {
        let id = from.clamp(self.oldest().id, self.head.id);
        let at = match self.piece_at(Mark { id, byte: 0 }) {
            Some(piece) => piece.mark(usize::try_from(id - piece.first.id).unwrap_or(0)),
            None => self.head,
        };
        let slot = Slot::new(at, self.head);
        let place = self.free.pop().unwrap_or_else(|| {
            self.readers.push(None);
            self.readers.len() - 1
        });
        self.readers[place] = Some(slot);
        (place, at.id)
    }

    /// Lets a reader go; whether the writer waits for nobody any more.
    pub(super) fn leave(&mut self, place: usize) -> (bool, Option<Slot>) {
        let was_awaited = self.no_longer_awaited(place);
        let slot = self.readers[place].take();
        self.free.push(place);
        (was_awaited, slot)
    }

    /// Whether this reader was the last one that the writer waited for.
    pub(super) fn no_longer_awaited(&mut self, place: usize) -> bool {
        let Some(slot) = self.readers[place].as_mut() else { return false };
        if !std::mem::take(&mut slot.is_awaited) {
            return false;
        }
        self.n_awaited = self.n_awaited.saturating_sub(1);
        self.n_awaited == 0
    }

    /// What a reader may take next, at most so many bytes of it.
    pub(super) fn runs(&self, slot: &Slot, max_bytes: usize, runs: &mut Runs) {
        let mut from = slot.at.byte + slot.offset;
        let first = self.pieces.partition_point(|piece| piece.end().byte <= from);
        let mut left = max_bytes;
        for piece in self.pieces.iter().skip(first) {
            let end = piece.end().byte.min(self.head.byte);
            if from >= end || left == 0 {
                break;
            }
            let start = usize::try_from(from - piece.first.byte).unwrap_or(usize::MAX);
            let n = usize::try_from(end - from).unwrap_or(usize::MAX).min(left);
            if !runs.add(&piece.events, start..start + n) {
                break;
            }
            left -= n;
            from += n as u64;
        }
    }

    /// Moves a reader on by so many bytes.
    pub(super) fn advance(&mut self, place: usize, n_bytes: u64) {
        let Some(slot) = self.readers[place].as_ref() else { return };
        let to = slot.at.byte + slot.offset + n_bytes;
        let at = self.pieces.partition_point(|piece| piece.end().byte <= to);
        let mark = match self.pieces.get(at) {
            Some(piece) => {
                let into = usize::try_from(to.saturating_sub(piece.first.byte)).unwrap_or(usize::MAX);
                piece.mark(piece.events.n_ended_by(into))
            }
            None => self.next,
        };
        let (head, limits) = (self.head, self.limits.clone());
        if let Some(slot) = self.readers[place].as_mut() {
            slot.at = mark;
            slot.offset = to - mark.byte;
            slot.has_taken(head, &limits);
        }
    }

    /// The wakers of all readers that have something to do.
    pub(super) fn wakers(&mut self) -> impl Iterator<Item = Waker> + '_ {
        let head = self.head;
        let is_closed = self.is_closed;
        self.readers
            .iter_mut()
            .flatten()
            .filter(move |slot| slot.is_to_wake(head, is_closed))
            .filter_map(|slot| slot.waker.take())
    }
}

/// The rest of the event that a reader is in the middle of.
fn half_sent(slot: &Slot, piece: &Piece, n: usize) -> Option<Events> {
    if slot.offset == 0 || n >= piece.events.len() {
        return None;
    }
    let start = piece.events.end_of(n) + usize::try_from(slot.offset).ok()?;
    Some(Events::of(piece.events.bytes(start..piece.events.end_of(n + 1))))
}

/// Up to so many events: the classes of [`RingStats::readers_by_lag`].
const LAGS: [u64; 5] = [0, 1, 10, 100, 1000];

impl State {
    pub(super) fn stats(&self) -> RingStats {
        let mut stats = RingStats {
            held: self.held(),
            oldest_id: self.oldest().id,
            next_id: self.next.id,
            n_bytes: self.next.byte,
            n_cut: self.n_cut,
            n_skipped: self.n_skipped,
            n_warned: self.n_warned,
            n_critical: self.n_critical,
            ..RingStats::default()
        };
        for slot in self.readers.iter().flatten() {
            let from = slot.waiting_from();
            let lag = self.head.id - from.id;
            stats.n_readers += 1;
            stats.max_lag_events = stats.max_lag_events.max(lag);
            stats.max_lag_bytes = stats.max_lag_bytes.max(self.head.byte - from.byte);
            stats.readers_by_lag[LAGS.partition_point(|most| *most < lag)] += 1;
        }
        stats
    }
}
