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

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::ByteCount;
use crate::sync::{Arc, Mutex, lock};

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
    _carved: Option<Reservation>,
}

#[derive(Default)]
struct State {
    free: u64,
    peak: u64,
    paused: bool,
    next_ticket: u64,
    /// In the order of their tickets.
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
        Self::with_carved(name.into(), total, None)
    }

    fn with_carved(name: String, total: ByteCount, carved: Option<Reservation>) -> Self {
        let state = State { free: total.get(), ..State::default() };
        Self {
            shared: Arc::new(Shared { name, total: total.get(), state: Mutex::new(state), _carved: carved }),
        }
    }

    /// Carves a named share out of this budget; its bytes come back when the share and all that was
    /// reserved of it are gone.
    ///
    /// # Errors
    /// The bytes are not free now, or never were.
    pub fn carve(&self, name: impl Into<String>, total: ByteCount) -> Result<Self, ReserveError> {
        let carved = self.try_reserve(total)?;
        Ok(Self::with_carved(name.into(), total, Some(carved)))
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
        Reserve { budget: self.clone(), bytes: bytes.get(), stage: Stage::New }
    }

    /// Takes so many bytes if they are free and nobody waits for any.
    ///
    /// # Errors
    /// [`ReserveError::NotNow`] or [`ReserveError::TooLarge`].
    pub fn try_reserve(&self, bytes: ByteCount) -> Result<Reservation, ReserveError> {
        let wanted = bytes.get();
        self.check_size(wanted)?;
        let mut state = lock(&self.shared.state);
        if !(state.queue.is_empty() && state.may_grant(wanted, self.shared.total)) {
            let free = state.free;
            drop(state);
            return Err(self.not_now(wanted, free));
        }
        state.take(wanted, self.shared.total);
        drop(state);
        Ok(self.reservation(wanted))
    }

    /// While paused, nothing new is granted to [`Budget::reserve`] as long as anybody still holds bytes:
    /// the sources wait, what is in flight drains.
    pub fn set_paused(&self, paused: bool) {
        let woken = {
            let mut state = lock(&self.shared.state);
            state.paused = paused;
            state.grant(self.shared.total)
        };
        wake(woken);
    }

    fn reservation(&self, bytes: u64) -> Reservation {
        let parts = if bytes == 0 { Vec::new() } else { vec![Part { budget: self.clone(), bytes }] };
        Reservation { parts, holds: Vec::new() }
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

    /// Takes bytes for somebody who holds data already; does not queue.
    fn grow(&self, bytes: u64) -> Result<(), ReserveError> {
        let mut state = lock(&self.shared.state);
        if state.free < bytes {
            let free = state.free;
            drop(state);
            return Err(self.not_now(bytes, free));
        }
        state.take(bytes, self.shared.total);
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        let woken = {
            let mut state = lock(&self.shared.state);
            state.free += bytes;
            debug_assert!(state.free <= self.shared.total, "MEM-1: more given back than taken");
            state.grant(self.shared.total)
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
    /// A pause never blocks the only one there is: with everything free, waiting would be for ever.
    fn may_grant(&self, bytes: u64, total: u64) -> bool {
        bytes <= self.free && (!self.paused || self.free == total)
    }

    fn take(&mut self, bytes: u64, total: u64) {
        self.free -= bytes;
        self.peak = self.peak.max(total - self.free);
    }

    /// Serves the head of the queue as long as it fits; returns whom to wake once the lock is open.
    fn grant(&mut self, total: u64) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some(head) = self.queue.front() {
            let bytes = head.bytes;
            if !self.may_grant(bytes, total) {
                break;
            }
            self.take(bytes, total);
            woken.extend(self.queue.pop_front().map(|head| head.waker));
        }
        woken
    }

    fn position(&self, ticket: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()
    }
}

fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// The future of [`Budget::reserve`].
#[must_use = "nothing is reserved until it is awaited"]
pub struct Reserve {
    budget: Budget,
    bytes: u64,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    New,
    Queued(u64),
    Done,
}

impl Future for Reserve {
    type Output = Result<Reservation, ReserveError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Err(error) = this.budget.check_size(this.bytes) {
            this.stage = Stage::Done;
            return Poll::Ready(Err(error));
        }
        let total = this.budget.shared.total;
        let mut state = lock(&this.budget.shared.state);
        match this.stage {
            Stage::New if state.queue.is_empty() && state.may_grant(this.bytes, total) => {
                state.take(this.bytes, total)
            }
            Stage::New => {
                let ticket = state.next_ticket;
                state.next_ticket += 1;
                state.queue.push_back(Waiting { ticket, bytes: this.bytes, waker: cx.waker().clone() });
                this.stage = Stage::Queued(ticket);
                return Poll::Pending;
            }
            Stage::Queued(ticket) => {
                if let Some(at) = state.position(ticket) {
                    state.queue[at].waker.clone_from(cx.waker());
                    return Poll::Pending;
                }
                // Gone from the queue: whoever gave the bytes back took them for us.
            }
            Stage::Done => debug_assert!(false, "polled after completion"),
        }
        drop(state);
        this.stage = Stage::Done;
        Poll::Ready(Ok(this.budget.reservation(this.bytes)))
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let Stage::Queued(ticket) = self.stage else { return };
        let woken = {
            let mut state = lock(&self.budget.shared.state);
            match state.position(ticket) {
                Some(at) => drop(state.queue.remove(at)),
                None => state.free += self.bytes, // granted, and nobody came for it
            }
            state.grant(self.budget.shared.total)
        };
        wake(woken);
    }
}

/// So many bytes of a budget, held until this is dropped.
///
/// A reservation may be pieced together of several budgets ([`Reservation::merge`]), and may keep other
/// things alive as long as itself ([`Reservation::attach`]): the slot of a window, say, which is free again
/// only when the data that came through it is.
#[must_use = "dropping it gives the bytes back"]
#[derive(Default)]
pub struct Reservation {
    parts: Vec<Part>,
    holds: Vec<Box<dyn Any + Send + Sync>>,
}

struct Part {
    budget: Budget,
    bytes: u64,
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

impl Reservation {
    /// No bytes of no budget.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The bytes held.
    pub fn size(&self) -> ByteCount {
        self.parts.iter().map(|part| ByteCount::new(part.bytes)).sum()
    }

    /// Takes so many more bytes of the budget that this reservation came from, if they are free. Never waits.
    ///
    /// # Errors
    /// [`ReserveError::NotNow`]; the reservation is as it was. An [`empty`](Self::empty) one belongs to no
    /// budget and cannot grow.
    pub fn try_grow(&mut self, bytes: ByteCount) -> Result<(), ReserveError> {
        if bytes == ByteCount::ZERO {
            return Ok(());
        }
        let Some(part) = self.parts.first_mut() else {
            return Err(ReserveError::NotNow { budget: "none".into(), wanted: bytes, free: ByteCount::ZERO });
        };
        part.budget.grow(bytes.get())?;
        part.bytes += bytes.get();
        Ok(())
    }

    /// Gives back all but so many bytes; does nothing when it holds fewer.
    pub fn shrink_to(&mut self, bytes: ByteCount) {
        let mut excess = self.size().saturating_sub(bytes).get();
        while excess > 0 {
            let Some(part) = self.parts.last_mut() else { return };
            let back = part.bytes.min(excess);
            part.bytes -= back;
            excess -= back;
            part.budget.give_back(back);
            if part.bytes == 0 && self.parts.len() > 1 {
                self.parts.pop();
            }
        }
    }

    /// Splits off so many bytes, or all there are. What is attached stays with `self`.
    pub fn split(&mut self, bytes: ByteCount) -> Self {
        let mut wanted = bytes.get();
        let mut split = Self::empty();
        for part in self.parts.iter_mut().rev() {
            let moved = part.bytes.min(wanted);
            if moved > 0 {
                part.bytes -= moved;
                wanted -= moved;
                split.parts.push(Part { budget: part.budget.clone(), bytes: moved });
            }
        }
        split
    }

    /// Takes over all that the other holds, of whatever budget, and what is attached to it.
    pub fn merge(&mut self, mut other: Self) {
        for mut part in std::mem::take(&mut other.parts) {
            match self.parts.iter_mut().find(|mine| Arc::ptr_eq(&mine.budget.shared, &part.budget.shared)) {
                Some(mine) => mine.bytes += std::mem::take(&mut part.bytes),
                None => self.parts.push(part),
            }
        }
        self.holds.append(&mut other.holds);
    }

    /// Keeps `guard` alive until this reservation, or what it is merged into, is dropped.
    pub fn attach(&mut self, guard: impl Any + Send + Sync) {
        self.holds.push(Box::new(guard));
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("size", &self.size())
            .field("n_attached", &self.holds.len())
            .finish()
    }
}

/// A value and the bytes reserved for it. The bytes go back when the value is dropped.
#[derive(Debug)]
pub struct Charged<T> {
    value: T,
    reservation: Reservation,
}

impl<T> Charged<T> {
    /// Ties the value to its reservation.
    pub fn new(value: T, reservation: Reservation) -> Self {
        Self { value, reservation }
    }

    /// The bytes reserved.
    pub fn size(&self) -> ByteCount {
        self.reservation.size()
    }

    /// Another value under the same reservation.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Charged<U> {
        Charged { value: f(self.value), reservation: self.reservation }
    }

    /// The value alone: the bytes go back now, and so does whatever is attached to them.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The reservation, to shrink it or to attach to it.
    pub fn reservation_mut(&mut self) -> &mut Reservation {
        &mut self.reservation
    }

    /// The two apart. The bytes are held as long as the reservation lives, not the value.
    pub fn into_parts(self) -> (T, Reservation) {
        (self.value, self.reservation)
    }
}

impl<T> Deref for Charged<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Charged<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
