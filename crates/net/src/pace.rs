//! How fast a body comes while somebody waits for it.

use std::time::Duration;

use aqueduct_primitives::ByteCount;

/// Bytes are counted over so long, or over `read_timeout` if that is longer: within it a server may pause, and a slow line
/// may stall and recover. Much longer, and a server that sends a byte now and then would hold up a run for as long.
const WINDOW: Duration = Duration::from_secs(60);

/// What came of one answer lately. Only time spent waiting for it counts: a reader that is busy elsewhere does not make a
/// server slow.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    n_bytes: u64,
    waited: Duration,
}

/// So few bytes came in so long a wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooSlow {
    pub(crate) n_bytes: u64,
    pub(crate) waited: Duration,
}

impl Pace {
    /// Counts bytes, and how long they were waited for.
    pub(crate) fn add(&mut self, n_bytes: usize, waited: Duration) {
        self.n_bytes += n_bytes as u64;
        self.waited += waited;
    }

    /// Judges a window that is over, and begins the next one.
    ///
    /// # Errors
    /// Less came a second than `min_rate`.
    pub(crate) fn check(&mut self, min_rate: ByteCount, read_timeout: Duration) -> Result<(), TooSlow> {
        if self.waited < WINDOW.max(read_timeout) {
            return Ok(());
        }
        let Self { n_bytes, waited } = std::mem::take(self);
        let n_expected = min_rate.get().saturating_mul(waited.as_secs());
        if n_bytes < n_expected { Err(TooSlow { n_bytes, waited }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: ByteCount = ByteCount::new(16);
    const TIMEOUT: Duration = Duration::from_secs(30);

    /// Adds the bytes of each second; at which second that is too slow.
    fn slow_at(per_second: impl IntoIterator<Item = usize>, read_timeout: Duration) -> Option<usize> {
        let mut pace = Pace::default();
        per_second.into_iter().position(|n_bytes| {
            pace.add(n_bytes, Duration::from_secs(1));
            pace.check(RATE, read_timeout).is_err()
        })
    }

    #[test]
    fn a_window_with_too_few_bytes_is_too_slow_and_no_moment_is() {
        assert_eq!(slow_at([1; 100], TIMEOUT), Some(59));
        assert_eq!(slow_at([15; 100], TIMEOUT), Some(59));
        assert_eq!(slow_at([16; 1000], TIMEOUT), None);
        // Nothing for most of the window, and then enough: a server may pause.
        let pauses = (0..1000).map(|second| if second % 60 == 59 { 960 } else { 0 });
        assert_eq!(slow_at(pauses, TIMEOUT), None);
        // What came before a window does not excuse it.
        assert_eq!(slow_at([1_000_000; 60].into_iter().chain([1; 100]), TIMEOUT), Some(119));
    }

    #[test]
    fn who_allows_longer_pauses_has_a_longer_window() {
        assert_eq!(slow_at([1; 1000], Duration::from_secs(600)), Some(599));
    }

    #[test]
    fn nothing_is_too_slow_for_a_rate_of_zero() {
        let mut pace = Pace::default();
        pace.add(0, Duration::from_secs(1_000_000));
        assert_eq!(pace.check(ByteCount::ZERO, TIMEOUT), Ok(()));
    }

    #[test]
    fn bytes_that_nobody_waited_for_are_in_time() {
        let mut pace = Pace::default();
        for _ in 0..1000 {
            pace.add(1, Duration::ZERO);
        }
        assert_eq!(pace.check(RATE, TIMEOUT), Ok(()));
    }
}
