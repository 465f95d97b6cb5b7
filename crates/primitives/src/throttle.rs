//! At most so many items in a time, without stopping the clock between them.

use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::time::{Instant, sleep_until};

/// Lets at most `n_items` (at least one) pass at once, and from then on one every `per / n_items`. What was
/// not used in the past `per` may come at once again; nothing older is saved up.
///
/// Items keep their order, and each is pulled only once it may pass.
pub fn throttle<S>(stream: S, n_items: u32, per: Duration) -> impl Stream<Item = S::Item> + Send
where
    S: Stream<Item: Send> + Send,
{
    let start = (Box::pin(stream), Throttle::new(n_items, per));
    futures::stream::unfold(start, |(mut stream, mut throttle)| async move {
        throttle.ready().await;
        let item = stream.next().await?;
        throttle.spend(1);
        Some((item, (stream, throttle)))
    })
}

/// A meter for whatever passes in units: requests, rows, events. [`throttle`] is a stream over it.
///
/// It keeps one point in time: when all that has passed is paid for at the steady rate. Something may pass
/// while that point is less than `per` ahead.
#[derive(Clone, Debug)]
pub struct Throttle {
    per: Duration,
    interval: Duration,
    paid_at: Instant,
}

impl Throttle {
    /// So many units (at least one) in so much time, and as many at once.
    pub fn new(n_units: u32, per: Duration) -> Self {
        Self { per, interval: per / n_units.max(1), paid_at: Instant::now() }
    }

    /// Waits until one unit may pass.
    ///
    /// # Cancel safety
    /// Nothing is spent by waiting.
    pub async fn ready(&self) {
        let credit = self.per.saturating_sub(self.interval);
        if let Some(at) = self.paid_at.checked_sub(credit).filter(|at| *at > Instant::now()) {
            sleep_until(at).await;
        }
    }

    /// Notes that so many units pass now. More than may pass at once only make the next wait longer.
    pub fn spend(&mut self, n_units: u32) {
        let from = self.paid_at.max(Instant::now());
        self.paid_at = from.checked_add(self.interval.saturating_mul(n_units)).unwrap_or(from);
    }
}
