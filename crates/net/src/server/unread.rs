//! Connections whose request has not come yet, in the order in which they came. Where there is no place for another, the one that
//! has waited longest gives up its own: many that send nothing keep nobody out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aqueduct_primitives::Reservation;
use tokio_util::sync::CancellationToken;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Unread(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    n_came: u64,
    places: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    memory: Reservation,
    given_up: CancellationToken,
}

/// One of them, by when it came.
#[derive(Debug)]
pub(super) struct Ticket {
    nth: u64,
    /// When this is cancelled, its place is another's.
    pub(super) given_up: CancellationToken,
}

impl Unread {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.waiting().places.len()
    }

    /// One more, after all others.
    pub(super) fn enter(&self, memory: Reservation) -> Ticket {
        let mut waiting = self.waiting();
        let given_up = CancellationToken::new();
        let nth = waiting.n_came;
        waiting.n_came += 1;
        waiting.places.insert(nth, Place { memory, given_up: given_up.clone() });
        Ticket { nth, given_up }
    }

    /// Its request has come, or it is gone: its memory, unless its place is another's.
    pub(super) fn leave(&self, ticket: &Ticket) -> Option<Reservation> {
        self.waiting().places.remove(&ticket.nth).map(|place| place.memory)
    }

    /// The memory of the one that has waited longest, which is told to go.
    pub(super) fn push_out_oldest(&self) -> Option<Reservation> {
        let (_, oldest) = self.waiting().places.pop_first()?;
        oldest.given_up.cancel();
        Some(oldest.memory)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use aqueduct_primitives::{Budget, ByteCount};

    use super::*;

    #[test]
    fn the_one_that_came_first_gives_up_its_place_and_its_memory() {
        let budget = Budget::new("server", ByteCount::of(30));
        let memory = |n| budget.try_reserve(ByteCount::of(n)).unwrap();
        let unread = Unread::default();
        assert!(unread.push_out_oldest().is_none());
        let [first, second, third] = [1, 2, 3].map(|n| unread.enter(memory(n)));
        assert_eq!(unread.leave(&first).map(|memory| memory.size()), Some(ByteCount::of(1)));
        assert_eq!(unread.push_out_oldest().map(|memory| memory.size()), Some(ByteCount::of(2)));
        assert!(!first.given_up.is_cancelled() && second.given_up.is_cancelled());
        assert!(unread.leave(&second).is_none() && unread.len() == 1);
        assert!(!third.given_up.is_cancelled());
    }
}
