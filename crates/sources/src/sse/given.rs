//! Which events were given lately, so that those that a server sends again after a reconnect are not given twice.
//!
//! An id is the server's own word for an event, and its order is not known: of the last [`REMEMBERED`] that were given, the
//! digests are kept. Only what comes first on a new connection is compared with them, up to the first event that is new:
//! what a server repeats stands there, and an id that comes twice on one connection is two events.

use std::collections::{HashMap, VecDeque};

use aqueduct_primitives::ByteCount;

use super::parse::Event;

/// So many ids are remembered. A server that goes on at `Last-Event-ID` repeats none, or the one.
const REMEMBERED: usize = 4096;

/// What they take.
pub(super) const GIVEN_BYTES: ByteCount = ByteCount::kib(512);

/// Events that were given.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The digest of the event by that of its id; none for one of an earlier process.
    by_id: HashMap<u128, Option<u128>>,
    order: VecDeque<u128>,
    /// Whether events that were given may come now.
    repeats: bool,
    /// Whether the server has begun its ids anew, so that one says nothing without what it stands for.
    was_restarted: bool,
}

impl Given {
    /// With the id behind which an earlier process stopped.
    pub(super) fn behind(id: &str) -> Self {
        let mut given = Self::default();
        if !id.is_empty() {
            given.insert(digest(&[id.as_bytes()]), None);
        }
        given
    }

    /// A new connection begins.
    pub(super) fn begin(&mut self) {
        self.repeats = true;
    }

    /// The server has lost its place: it gives ids anew that it gave for other events.
    pub(super) fn restart(&mut self) {
        self.repeats = true;
        self.was_restarted = true;
    }

    /// Whether an id is one that comes again.
    pub(super) fn repeats(&self, id: &str) -> bool {
        self.repeats && self.by_id.contains_key(&digest(&[id.as_bytes()]))
    }

    /// Whether an event is new; if it is, it is given from now on.
    pub(super) fn take(&mut self, event: &Event) -> bool {
        let Event { id, has_own_id, name, data } = event;
        !has_own_id || self.take_parts(id, &[name.as_bytes(), data.as_bytes()])
    }

    /// The same of an event with an id of its own that is larger than it may be: how large, and how its data starts.
    pub(super) fn take_large(&mut self, id: &str, n_bytes: u64, start: &[u8]) -> bool {
        self.take_parts(id, &[&n_bytes.to_le_bytes(), start])
    }

    fn take_parts(&mut self, id: &str, parts: &[&[u8]]) -> bool {
        if id.is_empty() {
            return true;
        }
        let (id, whole) = (digest(&[id.as_bytes()]), digest(&[&[id.as_bytes()][..], parts].concat()));
        let is_known = match self.by_id.get(&id) {
            // A server that was started again gives its ids anew, and may not say so.
            Some(Some(given)) => *given == whole,
            Some(None) => !self.was_restarted,
            None => false,
        };
        if self.repeats && is_known {
            return false;
        }
        self.repeats &= self.was_restarted;
        self.insert(id, Some(whole));
        true
    }

    fn insert(&mut self, id: u128, whole: Option<u128>) {
        if self.by_id.insert(id, whole).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > REMEMBERED {
            self.order.pop_front().map(|oldest| self.by_id.remove(&oldest));
        }
    }
}

fn digest(parts: &[&[u8]]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut first = [0; 16];
    hasher.finalize_xof().fill(&mut first);
    u128::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, data: &str) -> Event {
        Event { id: id.into(), has_own_id: true, name: "row".into(), data: data.into() }
    }

    #[test]
    fn what_comes_again_after_a_reconnect_is_not_new_until_something_is() {
        let mut given = Given::behind("4");
        given.begin();
        let ids = |given: &mut Given, ids: &[&str]| -> Vec<bool> {
            ids.iter().map(|id| given.take(&event(id, "x"))).collect()
        };
        assert_eq!(ids(&mut given, &["4", "5", "6", "6"]), [false, true, true, true]);
        given.begin();
        assert_eq!(ids(&mut given, &["5", "6", "7", "5"]), [false, false, true, true]);
        let without = Event { has_own_id: false, ..event("7", "x") };
        given.begin();
        assert!(given.take(&without), "an event without an id of its own cannot be known again");
    }

    #[test]
    fn an_id_that_comes_again_with_another_event_is_new() {
        let mut given = Given::behind("9");
        given.begin();
        assert!(given.take(&event("1", "a")) && given.take(&event("2", "b")));
        assert!(given.take_large("3", 100, b"c"));
        given.begin();
        assert!(!given.take(&event("1", "a")) && !given.take_large("3", 100, b"c"), "sent again");
        assert!(given.take(&event("2", "other")), "by a server that was started again");
        given.begin();
        assert!(given.take_large("3", 100, b"d") && given.take_large("1", 1, b"a"));
    }

    #[test]
    fn after_a_restart_an_id_alone_says_nothing() {
        let mut given = Given::default();
        given.begin();
        assert!(given.take(&event("1", "a")) && given.take(&event("2", "b")));
        given.begin();
        given.restart();
        assert!(
            !given.take(&event("1", "a")) && given.take(&event("2", "c")) && given.take(&event("3", "d"))
        );
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut given = Given::default();
        given.begin();
        assert!((0..3 * REMEMBERED).all(|n| given.take(&event(&n.to_string(), ""))));
        assert_eq!((given.by_id.len(), given.order.len()), (REMEMBERED, REMEMBERED));
    }
}
