//! Turn after turn of a flow that has a schedule.

use std::time::Duration;

use aqueduct_core::Clock;
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::flow::Schedule;

/// The clock is looked at so often at least: it may be set while somebody waits.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// Calls `turn` whenever one is due, with how many were left out before it, until told to stop. What is due while a turn runs
/// is left out and counted.
pub(super) async fn each(
    schedule: &Schedule,
    clock: &dyn Clock,
    stop: &CancellationToken,
    mut turn: impl AsyncFnMut(u64),
) {
    let mut next = schedule.first(clock.now());
    while let Some(due) = next {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = until(due.due, clock) => {}
        }
        turn(due.n_skipped).await;
        if stop.is_cancelled() {
            return;
        }
        next = schedule.after(due.due, clock.now());
        if let Some(next) = next.filter(|next| next.n_skipped > 0) {
            tracing::warn!(skipped = next.n_skipped, next = %next.due, "it took longer than until its next turn, which is skipped");
        }
    }
    tracing::warn!("the schedule of the flow has no further turn");
}

async fn until(due: DateTime<Utc>, clock: &dyn Clock) {
    while let Ok(left) = (due - clock.now()).to_std()
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LOOK_EVERY)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    /// A clock that goes with the runtime's, which moves only when nothing else does.
    #[derive(Debug)]
    struct Moving {
        from: DateTime<Utc>,
        since: Instant,
    }

    impl Clock for Moving {
        fn now(&self) -> DateTime<Utc> {
            self.from + self.since.elapsed()
        }
    }

    fn clock() -> Moving {
        Moving { from: "2026-03-01T10:00:00Z".parse().unwrap(), since: Instant::now() }
    }

    fn schedule(line: &str) -> Schedule {
        let flow =
            format!("name: x\nsource: {{ files: {{ paths: [a] }} }}\nsink: {{ discard: {{}} }}\n{line}\n");
        crate::flow::fake::load_yaml(&flow).unwrap().remove(0).schedule.unwrap()
    }

    /// The turns of a flow that take so many seconds each, by when they began, and how many were left out before each.
    async fn turns(line: &str, seconds: &[u64]) -> Vec<(String, u64)> {
        let (clock, stop) = (clock(), CancellationToken::new());
        let mut seen = Vec::new();
        each(&schedule(line), &clock, &stop, async |n_skipped| {
            seen.push((clock.now().format("%H:%M:%S").to_string(), n_skipped));
            tokio::time::sleep(Duration::from_secs(seconds[seen.len() - 1])).await;
            if seen.len() == seconds.len() {
                stop.cancel();
            }
        })
        .await;
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn an_overrun_is_skipped_and_counted() {
        let seen = turns("every: 5m", &[10, 720, 10, 0]).await;
        let expected = [("10:00:00", 0), ("10:05:00", 0), ("10:20:00", 2), ("10:25:00", 0)];
        assert_eq!(seen, expected.map(|(at, n)| (at.to_owned(), n)));
    }

    #[tokio::test(start_paused = true)]
    async fn cron_waits_for_its_time() {
        let seen = turns("cron: '*/15 12 * * *'\ntimezone: Europe/Paris", &[0, 0, 0]).await;
        let expected = ["11:00:00", "11:15:00", "11:30:00"].map(|at| (at.to_owned(), 0));
        assert_eq!(seen, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops_between_two_turns() {
        let (clock, stop) = (clock(), CancellationToken::new());
        let mut n_turns = 0;
        let schedule = schedule("every: 1h");
        let work = each(&schedule, &clock, &stop, async |_| n_turns += 1);
        let ends = async {
            tokio::time::sleep(Duration::from_secs(90 * 60)).await;
            stop.cancel();
        };
        tokio::join!(work, ends);
        assert_eq!((n_turns, clock.now().to_rfc3339()), (2, "2026-03-01T11:30:00+00:00".to_owned()));
    }
}
