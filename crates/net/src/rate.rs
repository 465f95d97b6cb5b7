//! At most so many requests a second to one host.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Past so many hosts, those whose turn is over are forgotten.
const MAX_HOSTS: usize = 1024;

/// When the next request to each host is due.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    next: Mutex<HashMap<String, Instant>>,
}

impl Rates {
    /// Waits for the next turn at a host, turns being evenly spaced. Requests are served in the order they
    /// came.
    ///
    /// # Cancel safety
    /// A turn that was waited for and not taken is lost.
    pub(crate) async fn turn(&self, host: &str, per_second: f64) {
        let Ok(spacing) = Duration::try_from_secs_f64(1.0 / per_second) else { return };
        let due = self.reserve(host, spacing, Instant::now());
        tokio::time::sleep_until(due).await;
    }

    fn reserve(&self, host: &str, spacing: Duration, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.len() >= MAX_HOSTS {
            next.retain(|_, due| *due > now);
        }
        let due = next.get(host).copied().unwrap_or(now).max(now);
        // Spacings of centuries do not fit the clock; the next turn is then as far off as it can be.
        next.insert(host.to_owned(), due.checked_add(spacing).unwrap_or(due));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spaced_per_host() {
        let rates = Rates::default();
        let (now, spacing) = (Instant::now(), Duration::from_millis(100));
        let waits: Vec<u128> = (0..3).map(|_| (rates.reserve("a", spacing, now) - now).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200]);
        assert_eq!(rates.reserve("b", spacing, now), now);
        let later = now + Duration::from_secs(5);
        assert_eq!(rates.reserve("a", spacing, later), later);
    }
}
