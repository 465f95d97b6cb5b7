//! Starts the flows of a server that have a schedule, each when it is due.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use aqueduct_core::Clock;
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{Refused, Runs, Schedules, StartRequest};
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
    /// By file.
    known: BTreeMap<PathBuf, Known>,
    /// What is wrong, as it was told, by file; of the folder itself without a name.
    told: BTreeMap<PathBuf, String>,
}

struct Known {
    flow: String,
    schedule: Schedule,
    next: Option<Turn>,
}

impl Scheduler {
    /// Starts what is due by now; when the next turn is. One that is due while the one before still runs is left out and
    /// counted.
    pub(super) async fn look(&mut self, runs: &Runs, clock: &dyn Clock) -> Option<DateTime<Utc>> {
        match runs.schedules().await {
            Ok(schedules) => self.take(schedules, clock.now()),
            Err(refused) => self.tell([(PathBuf::new(), refused.to_string())].into()),
        }
        for Known { flow, schedule, next } in self.known.values_mut() {
            if let Some(turn) = next.filter(|turn| turn.due <= clock.now()) {
                start(runs, flow).await;
                *next = schedule.after(turn.due, clock.now());
                runs.skipped(flow, next.map_or(0, |next| next.n_skipped));
            }
        }
        self.known.values().filter_map(|known| known.next).map(|turn| turn.due).min()
    }

    /// Goes by these from now on. A file that is being edited, say, keeps the turns that it had: begun anew it would be due at
    /// once.
    fn take(&mut self, schedules: Schedules, now: DateTime<Utc>) {
        self.known.retain(|file, _| schedules.contains_key(file));
        let mut wrong = BTreeMap::new();
        for (file, read) in schedules {
            match read {
                Ok((flow, schedule)) => {
                    let is_known = |known: &Known| known.flow == flow && known.schedule == schedule;
                    if !self.known.get(&file).is_some_and(is_known) {
                        let next = schedule.first(now);
                        self.known.insert(file, Known { flow, schedule, next });
                    }
                }
                Err(error) => drop(wrong.insert(file, error)),
            }
        }
        self.tell(wrong);
    }

    /// Tells what is wrong, each once as long as it stays so.
    fn tell(&mut self, wrong: BTreeMap<PathBuf, String>) {
        for (file, error) in wrong.iter().filter(|(file, error)| self.told.get(*file) != Some(error)) {
            match self.known.get(file) {
                Some(known) => {
                    tracing::error!(flow = known.flow, "it keeps the schedule that it had: {error}")
                }
                None => tracing::error!("if it has a schedule, it is not started by it: {error}"),
            }
        }
        self.told = wrong;
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
