//! How fast a body comes while somebody waits for it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use aqueduct_primitives::ByteCount;
use tokio::time::Instant;

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

/// What comes of some work, and how long it was waited for: each time from where nothing was there to the moment that
/// something was. How long it took whoever asked to come back for it does not count.
pub(crate) async fn waited_for<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let mut work = pin!(work);
    let (call, mut waits_since, mut waited) = (Arc::<Call>::default(), None, Duration::ZERO);
    let done = poll_fn(|cx| {
        let called = call.pass_on_to(cx.waker());
        if let Some(since) = waits_since.take() {
            waited += called.unwrap_or_else(Instant::now).saturating_duration_since(since);
        }
        let done = work.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&call))));
        waits_since = done.is_pending().then(Instant::now);
        done
    });
    (done.await, waited)
}

/// Passes a waker's call on, and keeps when it came.
#[derive(Default)]
struct Call(Mutex<(Option<Waker>, Option<Instant>)>);

impl Call {
    /// From now on to this one; when the last call came, if one did.
    fn pass_on_to(&self, waker: &Waker) -> Option<Instant> {
        let mut call = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *call, (Some(waker.clone()), None)).1
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waker = {
            let mut call = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            call.1.get_or_insert_with(Instant::now);
            call.0.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is ready after so many seconds, asked for when this is made and again so many seconds later; how long it was
    /// waited for.
    async fn waited(ready_after: u64, asked_again_after: u64) -> u64 {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let seconds = |n| tokio::time::sleep(Duration::from_secs(n));
        let mut waiting = pin!(waited_for(receiver));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        let sends = async {
            seconds(ready_after).await;
            sender.send(()).unwrap();
        };
        futures::join!(sends, seconds(asked_again_after));
        waiting.await.1.as_secs()
    }

    // reliability 44: who comes back late has waited only until something was there
    #[tokio::test(start_paused = true)]
    async fn what_waits_for_its_reader_is_not_waited_for() {
        assert_eq!(waited(0, 600).await, 0);
        assert_eq!(waited(3, 600).await, 3);
        assert_eq!(waited(600, 3).await, 600);
    }

    // reliability 44: asked in vain before
    #[tokio::test(start_paused = true)]
    async fn polls_that_nobody_called_for_count_as_waiting() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut waiting = pin!(waited_for(receiver));
        for _ in 0..5 {
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        sender.send(()).unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(waiting.await.1.as_secs(), 5);
    }

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
