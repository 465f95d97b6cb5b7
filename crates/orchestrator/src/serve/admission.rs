//! Who may run: as many runs at once as are allowed, and as fit the memory that all of them share.
//!
//! Strictly in the order they came: a large run that waits for memory is not passed by small ones, which would starve it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_primitives::{Budget, ByteCount, Reservation};
use tokio::sync::oneshot;

/// Lets runs in, one after the other. Cheap to clone; clones are the same queue.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    memory: Budget,
    max_runs: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    n_running: usize,
    next_ticket: u64,
    /// In the order of their tickets.
    queue: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    bytes: ByteCount,
    admitted: oneshot::Sender<Admitted>,
}

impl Admission {
    /// At most so many runs at once, whose memory comes from this budget.
    pub(crate) fn new(memory: Budget, max_runs: usize) -> Self {
        Self { shared: Arc::new(Shared { memory, max_runs, state: Mutex::default() }) }
    }

    /// What all runs share.
    pub(crate) fn memory(&self) -> &Budget {
        &self.shared.memory
    }

    /// A place in the queue, taken now.
    pub(crate) fn queue(&self, bytes: ByteCount) -> Ticket {
        let (sender, receiver) = oneshot::channel();
        let number = {
            let mut state = self.shared.lock();
            let number = state.next_ticket;
            state.next_ticket += 1;
            state.queue.push_back(Waiting { ticket: number, bytes, admitted: sender });
            number
        };
        Shared::let_in(&self.shared);
        Ticket { shared: Arc::clone(&self.shared), number, receiver }
    }

    /// How many runs wait before the one with this ticket.
    pub(crate) fn n_before(&self, ticket: u64) -> usize {
        self.shared.lock().queue.iter().filter(|one| one.ticket < ticket).count()
    }

    /// How many run and how many wait.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.n_running, state.queue.len())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets in those at the head of the queue, as long as the next one fits.
    fn let_in(shared: &Arc<Self>) {
        let mut left = Vec::new();
        {
            let mut state = shared.lock();
            while let Some(next) = state.queue.front()
                && state.n_running < shared.max_runs
                && let Ok(memory) = shared.memory.try_reserve(next.bytes)
            {
                state.n_running += 1;
                let admitted = Admitted { shared: Arc::clone(shared), memory: Some(memory) };
                let waiting = state.queue.pop_front();
                left.extend(waiting.and_then(|waiting| waiting.admitted.send(admitted).err()));
            }
        }
        // Who did not wait any more gives its place back, which takes the lock.
        drop(left);
    }
}

/// A place in the queue. Dropping it leaves the queue.
#[must_use = "dropping it leaves the queue"]
#[derive(Debug)]
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    /// Smaller than those of all who came later.
    pub(crate) number: u64,
    receiver: oneshot::Receiver<Admitted>,
}

impl Ticket {
    /// Waits for its turn.
    ///
    /// # Cancel safety
    /// Nothing is lost: it keeps its place.
    pub(crate) async fn turn(&mut self) -> Admitted {
        match (&mut self.receiver).await {
            Ok(admitted) => admitted,
            // The queue is gone only with the server: nobody is let in any more.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.lock().queue.retain(|one| one.ticket != self.number);
        // It may have been the one that all others waited for.
        Shared::let_in(&self.shared);
    }
}

/// The right to run, given back when dropped.
#[must_use = "dropping it lets the next one in"]
#[derive(Debug)]
pub(crate) struct Admitted {
    shared: Arc<Shared>,
    memory: Option<Reservation>,
}

impl Admitted {
    /// The memory that it came with.
    pub(crate) fn bytes(&self) -> ByteCount {
        self.memory.as_ref().map_or(ByteCount::ZERO, Reservation::size)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        drop(self.memory.take());
        self.shared.lock().n_running -= 1;
        Shared::let_in(&self.shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn admission(memory_mb: u64, max_runs: usize) -> Admission {
        Admission::new(Budget::new("server", ByteCount::mb(memory_mb)), max_runs)
    }

    fn has_turn(ticket: &mut Ticket) -> Option<Admitted> {
        ticket.turn().now_or_never()
    }

    // MEM-1, contract "serve": a run that cannot be admitted waits
    #[test]
    fn a_large_run_at_the_head_is_not_passed_by_small_ones() {
        let admission = admission(100, 8);
        let mut first = admission.queue(ByteCount::mb(60));
        let (mut large, mut small) = (admission.queue(ByteCount::mb(80)), admission.queue(ByteCount::mb(10)));
        let running = has_turn(&mut first).unwrap();
        assert!(has_turn(&mut large).is_none() && has_turn(&mut small).is_none());
        assert_eq!((admission.n_before(large.number), admission.n_before(small.number)), (0, 1));
        drop(running);
        let large = has_turn(&mut large).unwrap();
        assert!(has_turn(&mut small).is_some());
        drop(large);
        assert_eq!((admission.counts(), admission.memory().free()), ((0, 0), ByteCount::mb(100)));
    }

    #[test]
    fn who_leaves_the_queue_holds_nobody_up() {
        let admission = admission(100, 8);
        let mut first = admission.queue(ByteCount::mb(60));
        let running = has_turn(&mut first);
        let large = admission.queue(ByteCount::mb(80));
        let mut small = admission.queue(ByteCount::mb(10));
        drop(large);
        let small = has_turn(&mut small);
        assert!(small.is_some());
        drop((running, small));
        assert_eq!((admission.counts(), admission.memory().free()), ((0, 0), ByteCount::mb(100)));
    }

    #[test]
    fn a_turn_that_nobody_takes_is_given_to_the_next() {
        let admission = admission(100, 1);
        let mut tickets: Vec<_> = (0..3).map(|_| admission.queue(ByteCount::mb(1))).collect();
        let last = has_turn(tickets.last_mut().unwrap());
        assert!(last.is_none());
        tickets.drain(..2);
        assert!(has_turn(&mut tickets[0]).is_some());
    }
}
