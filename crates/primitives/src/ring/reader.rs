//! Those who take events out of a ring, each at its own pace.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::events::Events;
use super::{Cut, Shared};
use crate::sync::lock;

/// At most so many pieces are handed out at once: more would save no more system calls, and take more of the stack.
const MAX_RUNS: usize = 32;

/// What is there for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Bytes of events: write them, and [`Reader::advance`] by as many as were taken.
    Bytes,
    /// It will not get these events. Told once.
    Lagged {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Nothing now.
    Nothing,
    /// Nothing any more: it has all, and the ring is closed.
    End,
    /// It gets no more, though there is more.
    Cut(Cut),
}

/// Bytes of events, in order. Nothing is copied; drop it before the next wait, for it keeps alive what the ring may let go.
#[derive(Debug, Default)]
pub struct Runs {
    runs: [Option<(Arc<Events>, Range<usize>)>; MAX_RUNS],
    n: usize,
}

impl Runs {
    pub(super) fn add(&mut self, events: &Arc<Events>, range: Range<usize>) -> bool {
        let Some(free) = self.runs.get_mut(self.n) else { return false };
        *free = Some((Arc::clone(events), range));
        self.n += 1;
        true
    }

    /// The pieces of it.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.runs.iter().flatten().map(|(events, range)| events.bytes(range.clone()))
    }

    /// Hands all pieces to a call that takes several at once.
    pub fn with_slices<T>(&self, call: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut slices = [IoSlice::new(&[]); MAX_RUNS];
        for (slice, piece) in slices.iter_mut().zip(self.pieces()) {
            *slice = IoSlice::new(piece);
        }
        call(&slices[..self.n])
    }
}

/// A place in a ring. Dropping it leaves.
#[derive(Debug)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
    pub(super) place: usize,
    pub(super) first_id: u64,
}

impl Reader {
    /// Its number among those who read now.
    pub fn number(&self) -> usize {
        self.place
    }

    /// The event with which it came in. What it loses from there on it is [told](Next::Lagged).
    pub fn first_id(&self) -> u64 {
        self.first_id
    }

    /// The event that it takes next.
    pub fn next_id(&self) -> u64 {
        lock(&self.shared.state).readers[self.place].as_ref().map_or(0, |slot| slot.at.id)
    }

    /// What is there, at most so many bytes of it.
    pub fn next(&mut self, max_bytes: usize, runs: &mut Runs) -> Next {
        let mut state = lock(&self.shared.state);
        let (head, is_closed) = (state.head, state.is_closed && state.head == state.next);
        let Some(slot) = state.readers[self.place].as_mut() else { return Next::End };
        if let Some(cut) = slot.cut {
            return Next::Cut(cut);
        }
        if let Some(rest) = &slot.rest {
            runs.add(&rest.event, rest.sent..rest.event.n_bytes().min(rest.sent.saturating_add(max_bytes)));
            return Next::Bytes;
        }
        if let Some((from, to)) = slot.lost.take() {
            return Next::Lagged { from, to };
        }
        if slot.at == head {
            return if is_closed { Next::End } else { Next::Nothing };
        }
        if let Some(slot) = state.readers[self.place].as_ref() {
            state.runs(slot, max_bytes, runs);
        }
        Next::Bytes
    }

    /// So many of the bytes that [`Reader::next`] gave were taken.
    pub fn advance(&mut self, n_bytes: usize) {
        let mut state = lock(&self.shared.state);
        let Some(slot) = state.readers[self.place].as_mut() else { return };
        if let Some(rest) = &mut slot.rest {
            rest.sent += n_bytes;
            if rest.sent >= rest.event.n_bytes() {
                slot.rest = None;
            }
            return;
        }
        state.advance(self.place, n_bytes as u64);
        let is_last = state.no_longer_awaited(self.place);
        drop(state);
        if is_last {
            self.shared.room.notify_one();
        }
    }

    /// The bytes cannot be taken now: who reads at the other end does not.
    pub fn blocked(&mut self) {
        let mut state = lock(&self.shared.state);
        let limits = state.limits.clone();
        let Some(slot) = state.readers[self.place].as_mut() else { return };
        slot.is_blocked(Instant::now(), &limits);
        // The first refusal tells the writer how long it has to wait, one after its time is over that it is slow.
        let is_news = slot.is_awaited;
        drop(state);
        if is_news {
            self.shared.room.notify_one();
        }
    }

    /// Whether it was cut off: what waits for its peer is then for nobody.
    pub fn cut(&self) -> Option<Cut> {
        lock(&self.shared.state).readers[self.place].as_ref().and_then(|slot| slot.cut)
    }

    /// Whether it must try at once whether bytes are taken: its time is over, and if not it is slow.
    pub fn is_asked(&self) -> bool {
        lock(&self.shared.state).readers[self.place].as_ref().is_some_and(|slot| slot.is_asked)
    }

    /// Whether there is something to do; if not, the task is woken when there is. For one that waits for its peer, that is
    /// to be asked or to be cut off, and not that there is still more.
    pub fn poll_news(&mut self, cx: &mut Context<'_>, is_blocked: bool) -> Poll<()> {
        let mut state = lock(&self.shared.state);
        let (head, is_closed) = (state.head, state.is_closed);
        let Some(slot) = state.readers[self.place].as_mut() else { return Poll::Ready(()) };
        let is_ready = match is_blocked {
            true => slot.is_urged(),
            false => slot.has_news(head) || is_closed,
        };
        if is_ready {
            return Poll::Ready(());
        }
        slot.waits_for_peer = is_blocked;
        let stale = match &mut slot.waker {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            waker => waker.replace(cx.waker().clone()),
        };
        drop(state);
        drop(stale);
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (was_last, slot) = lock(&self.shared.state).leave(self.place);
        drop(slot);
        if was_last {
            self.shared.room.notify_one();
        }
    }
}
