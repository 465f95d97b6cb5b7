//! Starts the flows of a server that have a schedule, each when it is due.

use std::collections::BTreeMap;
use std::time::Duration;

use aqueduct_core::Clock;
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{Refused, Runs, StartRequest};
use crate::flow::{Schedule, Turn};

/// How often the flows are looked at: they are files that may be edited, and the clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Starts what is due until told to stop.
pub(crate) async fn keep_starting(runs: &Runs, clock: &dyn Clock, stop: &CancellationToken) {
    let mut scheduler = Scheduler::default();
    while !stop.is_cancelled() {
        let soonest = scheduler.look(runs, clock).await;
        let left = soonest.map(|due| (due - clock.now()).to_std().unwrap_or_default());
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(left.unwrap_or(LOOK_EVERY).min(LOOK_EVERY)) => {}
        }
    }
}

/// The next turn of each flow that has a schedule.
#[derive(Default)]
pub(super) struct Scheduler {
    known: BTreeMap<String, (Schedule, Option<Turn>)>,
}

impl Scheduler {
    /// Starts what is due by now; when the next turn is. One that is due while the one before still runs is left out and
    /// counted.
    pub(super) async fn look(&mut self, runs: &Runs, clock: &dyn Clock) -> Option<DateTime<Utc>> {
        let schedules: BTreeMap<_, _> = runs.schedules().await.into_iter().collect();
        self.known.retain(|flow, (schedule, _)| schedules.get(flow) == Some(schedule));
        for (flow, schedule) in schedules {
            let first = schedule.first(clock.now());
            self.known.entry(flow).or_insert((schedule, first));
        }
        for (flow, (schedule, next)) in &mut self.known {
            if let Some(turn) = next.filter(|turn| turn.due <= clock.now()) {
                start(runs, flow).await;
                *next = schedule.after(turn.due, clock.now());
                runs.skipped(flow, next.map_or(0, |next| next.n_skipped));
            }
        }
        self.known.values().filter_map(|(_, next)| *next).map(|turn| turn.due).min()
    }
}

async fn start(runs: &Runs, flow: &str) {
    match runs.start(StartRequest { flow: flow.to_owned(), ..StartRequest::default() }).await {
        Ok(job) => tracing::info!(flow, run = job.id, "started by its schedule"),
        Err(Refused::Busy { id }) => {
            runs.skipped(flow, 1);
            tracing::warn!(flow, run = id, "it still runs: its next turn is skipped");
        }
        Err(refused) => tracing::error!(flow, error = %refused, "its schedule could not start it"),
    }
}
