//! How many sections are asked about at once, and when nothing is asked at all.
//!
//! An adaptive pace begins with one, grows by one with each answer until the service first says that there are too many, or
//! does not answer in time; then it is halved, and grows by one with each round of answers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Within so long, several that were told the same are told it once.
const ONE_PRESSURE: Duration = Duration::from_secs(1);

pub(super) struct Pace {
    state: Mutex<State>,
    max: f64,
    is_adaptive: bool,
}

struct State {
    limit: f64,
    /// Nothing was too much yet.
    is_probing: bool,
    pressed_at: Option<Instant>,
    cool_at: Option<Instant>,
}

impl Pace {
    /// Always so many.
    pub(super) fn fixed(n_at_once: usize) -> Self {
        Self::new(n_at_once, false)
    }

    /// As many as go well, and no more than this.
    pub(super) fn adaptive(max: usize) -> Self {
        Self::new(max, true)
    }

    fn new(max: usize, is_adaptive: bool) -> Self {
        let max = f64::from(u32::try_from(max.max(1)).unwrap_or(u32::MAX));
        let limit = if is_adaptive { 1.0 } else { max };
        let state = State { limit, is_probing: true, pressed_at: None, cool_at: None };
        Self { state: Mutex::new(state), max, is_adaptive }
    }

    /// How many may be asked about now.
    pub(super) fn limit(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and a whole number"
        )]
        let limit = self.lock().limit as usize;
        limit.max(1)
    }

    /// The service has answered.
    pub(super) fn went_well(&self) {
        if self.is_adaptive {
            let mut state = self.lock();
            let more = if state.is_probing { 1.0 } else { 1.0 / state.limit };
            state.limit = (state.limit + more).min(self.max);
        }
    }

    /// The service cannot keep up.
    pub(super) fn pressed(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let is_known = state.pressed_at.is_some_and(|at| now.saturating_duration_since(at) < ONE_PRESSURE);
        if self.is_adaptive && !is_known {
            state.limit = (state.limit / 2.0).max(1.0);
            state.is_probing = false;
            state.pressed_at = Some(now);
        }
    }

    /// Nothing is to be asked for so long.
    pub(super) fn cool_down(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        state.cool_at = Some(state.cool_at.map_or(until, |at| at.max(until)));
    }

    /// Waits until something may be asked.
    pub(super) async fn until_cool(&self) {
        loop {
            let cool_at = self.lock().cool_at;
            match cool_at {
                Some(at) if at > Instant::now() => tokio::time::sleep_until(at).await,
                _ => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // S4.13
    #[tokio::test(start_paused = true)]
    async fn an_adaptive_pace_grows_until_it_is_too_much_and_then_slowly() {
        let pace = Pace::adaptive(10);
        assert_eq!(pace.limit(), 1);
        (0..20).for_each(|_| pace.went_well());
        assert_eq!(pace.limit(), 10);
        // Ten that are told at once are told it once.
        (0..10).for_each(|_| pace.pressed());
        assert_eq!(pace.limit(), 5);
        (0..5).for_each(|_| pace.went_well());
        assert_eq!(pace.limit(), 5);
        (0..2).for_each(|_| pace.went_well());
        assert_eq!(pace.limit(), 6);
        for _ in 0..10 {
            tokio::time::advance(ONE_PRESSURE).await;
            pace.pressed();
        }
        assert_eq!(pace.limit(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_pace_stays_and_cools_down_all_the_same() {
        let pace = Pace::fixed(3);
        pace.pressed();
        pace.went_well();
        assert_eq!(pace.limit(), 3);
        let begun = Instant::now();
        pace.cool_down(Duration::from_secs(9));
        pace.cool_down(Duration::from_secs(5));
        pace.until_cool().await;
        assert_eq!(begun.elapsed().as_secs(), 9);
    }
}
