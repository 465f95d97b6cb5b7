//! When a failed request is made again.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{Result, StepMetrics};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, may_pass, shut_down};

/// A body is taken up again at most so often, even if each try brings a few bytes: a server that breaks off
/// after every byte must not keep a run busy for ever.
const MAX_RESUMES: u32 = 1000;

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

impl Backoff {
    /// The longest wait after so many failures in a row.
    fn ceiling(&self, n_failed: u32) -> Duration {
        self.first.saturating_mul(2u32.saturating_pow(n_failed.saturating_sub(1))).min(self.max)
    }

    /// How long to wait after so many failures in a row, the first being 1: as long as the server asks for, or a time drawn
    /// from nothing to the longest.
    pub fn wait(&self, n_failed: u32, retry_after: Option<Duration>) -> Duration {
        match retry_after {
            Some(asked) => asked.min(self.max_retry_after),
            None => rand::random_range(Duration::ZERO..=self.ceiling(n_failed)),
        }
    }
}

/// The tries of one request.
pub(crate) struct Tries {
    pub(crate) retries: u32,
    pub(crate) backoff: Backoff,
    pub(crate) metrics: Arc<StepMetrics>,
    pub(crate) closed: CancellationToken,
    n_failed: u32,
    n_made: u32,
}

impl Tries {
    pub(crate) fn new(
        retries: u32,
        backoff: Backoff,
        metrics: Arc<StepMetrics>,
        closed: CancellationToken,
    ) -> Self {
        Self { retries, backoff, metrics, closed, n_failed: 0, n_made: 0 }
    }

    /// Waits until the next try is due. A try that `moved` on, that is, brought bytes before it failed,
    /// begins the count anew, unless it brought them too slowly.
    ///
    /// # Errors
    /// The failure itself, when no other try can help or none is left; the fetcher was closed.
    pub(crate) async fn after(&mut self, failure: Failure, moved: bool) -> Result<()> {
        self.n_made += 1;
        let Failure { error, retry_after, is_slow } = failure;
        self.n_failed = if moved && !is_slow { 1 } else { self.n_failed + 1 };
        if !may_pass(&error) {
            return Err(error);
        }
        if self.n_failed > self.retries || self.n_made > MAX_RESUMES.max(self.retries) {
            return Err(error.with("tries", self.n_made).with("retries", self.retries));
        }
        let wait = self.backoff.wait(self.n_failed, retry_after);
        self.metrics.retries.add(1);
        tell(self.n_made, wait, &error.chain());
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(shut_down()),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }
}

/// A first failure is everyday on the web, and counted in the report; one that comes again is worth a line.
pub(crate) fn tell(tries: u32, wait: Duration, error: &str) {
    let wait_ms = wait.as_millis();
    match tries {
        1 => tracing::debug!(tries, wait_ms, error, "request is made again"),
        _ => tracing::warn!(tries, wait_ms, error, "request is made again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_core::{Error, ErrorKind};

    fn tries(retries: u32) -> Tries {
        let backoff = Backoff { first: Duration::ZERO, ..Backoff::default() };
        Tries::new(retries, backoff, Arc::default(), CancellationToken::new())
    }

    fn failure() -> Failure {
        Error::new(ErrorKind::Io, "fetch", "broke").retry_later().into()
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff::default();
        assert_eq!([1, 2, 3, 7, 99].map(|n| backoff.ceiling(n).as_secs()), [1, 2, 4, 60, 60]);
    }

    // reliability 1: full jitter, within the cap
    #[test]
    fn waits_differ_and_none_is_longer_than_the_longest() {
        let backoff = Backoff::default();
        for n_failed in [1, 3, 7, 99, u32::MAX] {
            let waits: Vec<_> = (0..200).map(|_| backoff.wait(n_failed, None)).collect();
            assert!(
                waits.iter().all(|wait| *wait <= backoff.ceiling(n_failed) && *wait <= backoff.max),
                "{n_failed}"
            );
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{n_failed}: all waits are {:?}", waits[0]);
        }
    }

    #[test]
    fn a_server_may_not_ask_for_years() {
        let wait = Backoff::default().wait(1, Some(Duration::from_secs(10 * 365 * 86400)));
        assert_eq!(wait, Duration::from_secs(120));
    }

    #[tokio::test]
    async fn n_retries_are_n_plus_one_tries() {
        let mut tries = tries(2);
        assert!(tries.after(failure(), false).await.is_ok());
        assert!(tries.after(failure(), false).await.is_ok());
        let error = tries.after(failure(), false).await.unwrap_err();
        assert_eq!(error.context("tries"), Some("3"));
        assert_eq!(tries.metrics.retries.get(), 2);
    }

    #[tokio::test]
    async fn moving_on_begins_the_count_anew_but_not_for_ever() {
        let mut tries = tries(1);
        for _ in 0..MAX_RESUMES {
            tries.after(failure(), true).await.unwrap();
        }
        assert!(tries.after(failure(), true).await.is_err());
    }
}
