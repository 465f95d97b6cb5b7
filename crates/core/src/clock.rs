//! The seam to time: what a run believes about now comes from here, so that tests can move it.

use std::fmt;

use chrono::{DateTime, Utc};

/// Tells the time. Correctness never depends on it: it dates reports and fills in `today`.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time now, in UTC.
    fn now(&self) -> DateTime<Utc>;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}
