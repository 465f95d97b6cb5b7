//! Runs that are started, shown and cancelled over HTTP, under one budget.
//!
//! [`Runs`] owns them: each waits until it is [admitted](admission), in the order they came, goes on when nobody watches, and is
//! [kept on disk](records) from the moment it is asked for, so that a server that is started again goes on with those that had
//! not ended and still tells of those that had. Memory: every run has its `memory` of the server's budget while it runs; of one
//! that has ended a few numbers are held, its report is on disk, of at most [`MAX_KEPT_RUNS`] runs.

mod admission;
mod api;
mod events;
mod files;
mod folder;
#[cfg(test)]
mod http_tests;
mod job;
mod metrics;
mod records;
mod request;
mod runs;
mod scheduler;
mod site;
#[cfg(test)]
mod tests;

pub(crate) use events::EVENTS_BYTES;
pub(crate) use folder::{FlowFile, Folder, NotFound};
pub(crate) use job::{Counts, Job, JobStatus};
pub(crate) use records::{Records, RunRecord};
pub(crate) use request::StartRequest;
pub(crate) use runs::{Flows, Limits, Outcome, Query, Refused, Runs, Schedules, Wanted};
pub(crate) use scheduler::keep_starting;
pub(crate) use site::{Access, Site};

/// Of more runs than this the oldest that have ended are forgotten.
pub(crate) const MAX_KEPT_RUNS: usize = 1000;
