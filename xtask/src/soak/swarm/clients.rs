//! Who connects, and what they have seen.

use std::fmt;

use serde::Deserialize;

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Swarm {
    pub(super) n_healthy: u64,
    pub(super) n_stalled: u64,
    pub(super) n_restless: u64,
    pub(super) n_half_open: u64,
}

impl Swarm {
    /// So many clients, a tenth of them stalled and a tenth restless; and so many connections beside them.
    pub(super) fn of(n_clients: u64, n_half_open: u64) -> Self {
        let tenth = n_clients / 10;
        Self { n_healthy: n_clients - 2 * tenth, n_stalled: tenth, n_restless: tenth, n_half_open }
    }

    /// Those that read.
    pub(super) fn n_reading(&self) -> u64 {
        self.n_healthy + self.n_restless
    }

    /// What the program of the clients is told.
    pub(super) fn args(&self, address: &str, last_id: u64, seconds: u64) -> Vec<String> {
        let Self { n_healthy, n_stalled, n_restless, n_half_open } = self;
        let numbers = [*n_healthy, *n_stalled, *n_restless, *n_half_open, last_id, seconds];
        let words = [address.to_owned(), "/streams/swarm".to_owned()];
        words.into_iter().chain(numbers.map(|number| number.to_string())).collect()
    }

    /// One for each process.
    pub(super) fn halves(&self) -> [Self; 2] {
        let each = |part: fn(u64) -> u64| Self {
            n_healthy: part(self.n_healthy),
            n_stalled: part(self.n_stalled),
            n_restless: part(self.n_restless),
            n_half_open: part(self.n_half_open),
        };
        [each(|n| n / 2), each(|n| n.div_ceil(2))]
    }
}

impl fmt::Display for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_healthy, n_stalled, n_restless, n_half_open } = self;
        write!(
            f,
            "{n_healthy} clients that read, {n_restless} that come again each second, {n_stalled} that never read, \
             {n_half_open} half-open connections"
        )
    }
}

/// What clients that read have seen.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Seen {
    /// Swarm that had the last event.
    pub(super) n_complete: u64,
    pub(super) n_events: u64,
    pub(super) n_missed: u64,
    /// Connections refused or broken off.
    pub(super) n_errors: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
}

impl Seen {
    /// What another process has seen beside: of latencies, the worse.
    pub(super) fn add(&mut self, other: &Self) {
        self.n_complete += other.n_complete;
        self.n_events += other.n_events;
        self.n_missed += other.n_missed;
        self.n_errors += other.n_errors;
        self.p50_us = self.p50_us.max(other.p50_us);
        self.p99_us = self.p99_us.max(other.p99_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_have_all_clients() {
        let all = Swarm::of(1001, 7);
        assert_eq!((all.n_healthy, all.n_stalled, all.n_restless, all.n_reading()), (801, 100, 100, 901));
        let [a, b] = all.halves();
        assert_eq!((a.n_healthy + b.n_healthy, a.n_half_open + b.n_half_open), (801, 7));
        assert_eq!((a.n_stalled + b.n_stalled, a.n_restless + b.n_restless), (100, 100));
    }
}
