//! One budget of bytes for everything in flight.
//!
//! [`Budget::reserve`] waits its turn for so many bytes and hands out a [`Reservation`]; dropping the
//! reservation gives them back. [`Charged`] ties a value to the bytes it takes. Invariants:
//!
//! - **MEM-1**: free bytes + the sum of all reservations = the budget, always. Requests are served in the
//!   order they came, weighed in bytes: small ones do not starve a large one. A request larger than the
//!   whole budget fails at once; it never waits for ever.
//! - **MEM-2**: waiting points downstream only. Who brings in *more* data calls [`Budget::reserve`] and may
//!   wait. Who holds data already calls [`Reservation::try_grow`], which never waits and does not queue:
//!   refused, it emits, flushes or spills what it has.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, Mutex, lock};
use crate::{ByteCount, Reservation};

#[cfg(all(test, loom))]
mod loom_model;
#[cfg(all(test, not(loom)))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;

/// A number of bytes that many tasks share. Cheap to clone; clones are the same budget.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use aqueduct_primitives::{Budget, ByteCount};
/// let budget = Budget::new("downloads", ByteCount::mb(64));
/// let reservation = budget.reserve(ByteCount::mb(16)).await?;
/// assert_eq!(budget.free(), ByteCount::mb(48));
/// drop(reservation);
/// assert_eq!(budget.free(), ByteCount::mb(64));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    total: u64,
    state: Mutex<State>,
    /// What this budget itself took from the one it was carved from.
    _carved: Option<Carved>,
}

struct State {
    /// As in [`Shared`], so that every change can check MEM-1.
    total: u64,
    free: u64,
    /// What budgets carved out of this one hold of it.
    carved: u64,
    peak: u64,
    paused: bool,
    next_ticket: u64,
    /// In the order of their tickets; at most as many as there are tasks that wait.
    queue: VecDeque<Waiting>,
}

struct Waiting {
    ticket: u64,
    bytes: u64,
    waker: Waker,
}

/// Why bytes were not reserved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// The request can never be served: it is larger than the whole budget.
    #[error("{wanted} asked of `{budget}`, which has {total} in all")]
    TooLarge {
        /// The budget's name.
        budget: String,
        /// What was asked for.
        wanted: ByteCount,
        /// All that the budget has.
        total: ByteCount,
    },
    /// The bytes are not free now. Only the `try_` methods say this; the others wait.
    #[error("{wanted} asked of `{budget}`, which has {free} free now")]
    NotNow {
        /// The budget's name.
        budget: String,
        /// What was asked for.
        wanted: ByteCount,
        /// What is free now.
        free: ByteCount,
    },
}

impl Budget {
    /// A budget of so many bytes. The name stands in errors and in the plan of a flow.
    pub fn new(name: impl Into<String>, total: ByteCount) -> Self {
        Self::with_carved(name.into(), total.get(), None)
    }

    fn with_carved(name: String, total: u64, carved: Option<Carved>) -> Self {
        let state = Mutex::new(State::new(total));
        Self { shared: Arc::new(Shared { name, total, state, _carved: carved }) }
    }

    /// Carves a named share out of this budget; its bytes come back when the share and all that was
    /// reserved of it are gone.
    ///
    /// # Errors
    /// The bytes are not free now, or never were.
    pub fn carve(&self, name: impl Into<String>, total: ByteCount) -> Result<Self, ReserveError> {
        let reservation = self.try_reserve(total)?;
        lock(&self.shared.state).carved += total.get();
        let carved = Carved { parent: self.clone(), bytes: total.get(), _reservation: reservation };
        Ok(Self::with_carved(name.into(), total.get(), Some(carved)))
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// All bytes, free or not.
    pub fn total(&self) -> ByteCount {
        ByteCount::new(self.shared.total)
    }

    /// The bytes that nobody holds now.
    pub fn free(&self) -> ByteCount {
        ByteCount::new(lock(&self.shared.state).free)
    }

    /// The most bytes that were held at one moment.
    pub fn peak(&self) -> ByteCount {
        ByteCount::new(lock(&self.shared.state).peak)
    }

    /// How many requests wait.
    pub fn n_waiting(&self) -> usize {
        lock(&self.shared.state).queue.len()
    }

    /// Waits in turn for so many bytes.
    ///
    /// # Errors
    /// [`ReserveError::TooLarge`] at once, when the whole budget has fewer.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the queue, and gives back bytes that had just been granted.
    pub fn reserve(&self, bytes: ByteCount) -> Reserve {
        Reserve { budget: self.clone(), bytes: bytes.get(), ticket: None }
    }

    /// Takes so many bytes if they are free and nobody waits for any.
    ///
    /// # Errors
    /// [`ReserveError::NotNow`] or [`ReserveError::TooLarge`].
    pub fn try_reserve(&self, bytes: ByteCount) -> Result<Reservation, ReserveError> {
        let wanted = bytes.get();
        self.check_size(wanted)?;
        let mut state = lock(&self.shared.state);
        if !state.take_if_next(wanted) {
            let free = state.free;
            drop(state);
            return Err(self.not_now(wanted, free));
        }
        drop(state);
        Ok(Reservation::taken(self.clone(), wanted))
    }

    /// While paused, nothing new is granted as long as anybody still holds bytes: the sources wait, what is
    /// in flight drains. When nobody does, one request at a time is served, so a pause can slow down but
    /// never stop. Budgets carved out of this one go on, and what they hold does not count here.
    pub fn set_paused(&self, paused: bool) {
        let woken = {
            let mut state = lock(&self.shared.state);
            state.paused = paused;
            state.grant()
        };
        wake(woken);
    }

    /// Whether both are clones of one budget.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    fn check_size(&self, bytes: u64) -> Result<(), ReserveError> {
        if bytes <= self.shared.total {
            return Ok(());
        }
        Err(ReserveError::TooLarge {
            budget: self.shared.name.clone(),
            wanted: ByteCount::new(bytes),
            total: self.total(),
        })
    }

    fn not_now(&self, bytes: u64, free: u64) -> ReserveError {
        ReserveError::NotNow {
            budget: self.shared.name.clone(),
            wanted: ByteCount::new(bytes),
            free: ByteCount::new(free),
        }
    }

    /// Takes bytes for somebody who holds data already; does not queue. Those who do queue are not starved by
    /// it: while they wait no new data comes in, so what is there to grow only gets less.
    pub(crate) fn grow(&self, bytes: u64) -> Result<(), ReserveError> {
        let mut state = lock(&self.shared.state);
        if state.free < bytes {
            let free = state.free;
            drop(state);
            return Err(self.not_now(bytes, free));
        }
        state.take(bytes);
        Ok(())
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        let woken = {
            let mut state = lock(&self.shared.state);
            state.put_back(bytes);
            state.grant()
        };
        wake(woken);
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("name", &self.name())
            .field("total", &self.total())
            .field("free", &self.free())
            .finish()
    }
}

impl State {
    fn new(total: u64) -> Self {
        let queue = VecDeque::new();
        Self { total, free: total, carved: 0, peak: 0, paused: false, next_ticket: 0, queue }
    }

    fn may_grant(&self, bytes: u64) -> bool {
        let nobody_holds_any = self.free + self.carved == self.total;
        bytes <= self.free && (!self.paused || nobody_holds_any)
    }

    fn take(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.free, "MEM-1: more taken than free");
        self.free -= bytes;
        self.peak = self.peak.max(self.total - self.free);
    }

    /// Takes the bytes if they may be granted and nobody was there before.
    fn take_if_next(&mut self, bytes: u64) -> bool {
        let is_next = self.queue.is_empty() && self.may_grant(bytes);
        if is_next {
            self.take(bytes);
        }
        is_next
    }

    fn put_back(&mut self, bytes: u64) {
        self.free += bytes;
        debug_assert!(self.free <= self.total, "MEM-1: more given back than taken");
    }

    /// Serves the head of the queue as long as it fits; returns whom to wake once the lock is open.
    fn grant(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some(bytes) = self.queue.front().map(|head| head.bytes)
            && self.may_grant(bytes)
        {
            self.take(bytes);
            woken.extend(self.queue.pop_front().map(|head| head.waker));
        }
        woken
    }

    fn enqueue(&mut self, bytes: u64, waker: Waker) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.push_back(Waiting { ticket, bytes, waker });
        ticket
    }

    /// Where a request waits; nowhere once it has been granted.
    fn position(&self, ticket: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()
    }
}

fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// What a carved budget holds of its parent.
struct Carved {
    parent: Budget,
    bytes: u64,
    _reservation: Reservation,
}

impl Drop for Carved {
    fn drop(&mut self) {
        lock(&self.parent.shared.state).carved -= self.bytes;
    }
}

/// The future of [`Budget::reserve`]. Polled again after it is done, it asks anew.
#[must_use = "nothing is reserved until it is awaited"]
pub struct Reserve {
    budget: Budget,
    bytes: u64,
    /// The place in the queue, from when it has one until it is done.
    ticket: Option<u64>,
}

impl Reserve {
    fn poll_new(&mut self, waker: &Waker) -> Poll<Result<(), ReserveError>> {
        self.budget.check_size(self.bytes)?;
        let mut state = lock(&self.budget.shared.state);
        if state.take_if_next(self.bytes) {
            return Poll::Ready(Ok(()));
        }
        self.ticket = Some(state.enqueue(self.bytes, waker.clone()));
        Poll::Pending
    }

    fn poll_queued(&mut self, ticket: u64, waker: &Waker) -> Poll<Result<(), ReserveError>> {
        let mut state = lock(&self.budget.shared.state);
        let Some(at) = state.position(ticket) else {
            // Gone from the queue: whoever gave bytes back took them for us.
            self.ticket = None;
            return Poll::Ready(Ok(()));
        };
        let stale = std::mem::replace(&mut state.queue[at].waker, waker.clone());
        drop(state);
        // Dropping a waker may drop a whole task, and with it reservations: never under the lock.
        drop(stale);
        Poll::Pending
    }
}

impl Future for Reserve {
    type Output = Result<Reservation, ReserveError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let granted = match self.ticket {
            None => self.poll_new(cx.waker()),
            Some(ticket) => self.poll_queued(ticket, cx.waker()),
        };
        granted.map_ok(|()| Reservation::taken(self.budget.clone(), self.bytes))
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let (stale, woken) = {
            let mut state = lock(&self.budget.shared.state);
            let stale = state.position(ticket).and_then(|at| state.queue.remove(at));
            if stale.is_none() {
                state.put_back(self.bytes); // granted, and nobody came for it
            }
            (stale, state.grant())
        };
        wake(woken);
        drop(stale);
    }
}
