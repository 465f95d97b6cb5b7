//! A clock that stands still.

use aqueduct_core::Clock;
use chrono::{DateTime, Utc};

/// Tells the time that it was made with, whenever it is asked.
///
/// ```
/// use aqueduct_core::Clock;
/// use aqueduct_testkit::faults::FixedClock;
///
/// let clock = FixedClock::at(1_767_225_600);
/// assert_eq!(clock.now().to_rfc3339(), "2026-01-01T00:00:00+00:00");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FixedClock(DateTime<Utc>);

impl FixedClock {
    /// A clock at so many seconds after 1970-01-01T00:00:00Z; at 1970 itself if that is beyond all years.
    pub fn at(unix_seconds: i64) -> Self {
        Self(DateTime::from_timestamp(unix_seconds, 0).unwrap_or_default())
    }
}

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }
}
