//! When a failed request is made again.

use std::time::Duration;

/// How long to wait before a request is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after the first failure; it doubles with each one. The wait itself is drawn from
    /// nothing to that (full jitter), so that many clients do not come back together.
    pub first: Duration,
    /// The longest wait there is.
    pub max: Duration,
    /// The longest wait that a server may ask for by `Retry-After`.
    pub max_retry_after: Duration,
}

impl Default for Backoff {
    /// A second at first, a minute at most; two minutes when the server asks for it.
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            max: Duration::from_secs(60),
            max_retry_after: Duration::from_secs(120),
        }
    }
}
