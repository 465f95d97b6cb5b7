//! A clock that stands still until it is moved.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aqueduct_core::Clock;
use chrono::{DateTime, Utc};

/// Tells the time that it was set to.
///
/// ```
/// use std::time::Duration;
/// use aqueduct_core::Clock;
/// use aqueduct_testkit::faults::ManualClock;
///
/// let clock = ManualClock::at(1_767_225_600);
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().to_rfc3339(), "2026-01-01T00:01:00+00:00");
/// ```
#[derive(Debug)]
pub struct ManualClock(Mutex<DateTime<Utc>>);

impl ManualClock {
    /// A clock at so many seconds after 1970-01-01T00:00:00Z; at 1970 itself if that is beyond all years.
    pub fn at(unix_seconds: i64) -> Self {
        Self(Mutex::new(DateTime::from_timestamp(unix_seconds, 0).unwrap_or_default()))
    }

    /// Moves it forward.
    pub fn advance(&self, time: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now += time;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
