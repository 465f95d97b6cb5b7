//! Attempts at one run. Where a file is to be read again because it changed while it was read, the attempt ends, the run falls
//! back to its last commit as after a crash, and another attempt goes on from there. The flow's lock is held all the while.

use std::collections::BTreeMap;
use std::ops::ControlFlow::{self, Break, Continue};

use aqueduct_commit::Start;
use aqueduct_core::ReadAgain;

use super::Program;
use super::begin::{Asked, Reload};
use super::execute::Attempt;
use crate::flow::{Flow, RunIdentity};
use crate::run::Ended;

/// A file may change in so many attempts before anything is committed. With more, a file that is written to all the time would
/// be fetched that much more often in vain; with fewer, one that was replaced at a bad moment would fail the run.
const MAX_ATTEMPTS: u32 = 3;

/// So many files may have changed before anything is committed. Files of which each changes are a place that is written to:
/// with more, it would be fetched for hours in vain.
const MAX_CHANGED_FILES: usize = 100;

/// What it takes to begin a run again.
pub(super) struct Attempts<'a> {
    run: RunIdentity,
    start: Start,
    reload: &'a Reload<'a>,
    lock_name: String,
    identity: BTreeMap<String, String>,
    /// How often each file has changed since the last commit.
    changed: BTreeMap<String, u32>,
    newest_commit: Option<u64>,
    /// How often the run was begun again.
    pub(super) n_rereads: u64,
}

impl<'a> Attempts<'a> {
    /// Of a flow as it was asked for.
    pub(super) fn of(asked: &Asked<'a>) -> Self {
        Self {
            run: asked.run.clone(),
            start: asked.start,
            reload: asked.reload,
            lock_name: asked.flow.lock_name(),
            identity: asked.flow.identity.clone(),
            changed: BTreeMap::new(),
            newest_commit: None,
            n_rereads: 0,
        }
    }

    /// What comes after an attempt: another one, or how the run has ended.
    pub(super) fn after(&mut self, program: &Program, ended: Ended) -> ControlFlow<Ended, Attempt> {
        let Some(again) = ended.read_again().cloned() else { return Break(ended) };
        let Some(attempt) = self.next(program, &ended.report.run_id) else { return Break(ended) };
        let n_changes = self.count(&again, attempt.opening.log.newest_commit());
        if n_changes >= MAX_ATTEMPTS || self.changed.len() > MAX_CHANGED_FILES {
            return Break(ended.with("changed", format!("{n_changes} times")));
        }
        self.n_rereads += 1;
        let ReadAgain { file, change } = again;
        tracing::warn!(
            file,
            was = change.was,
            is = change.is,
            "it changed while it was read: what is not committed is dropped, and the run goes on from its last commit"
        );
        Continue(attempt)
    }

    /// The run as another process would begin it, unless it cannot be begun, which is told, or the flow file was edited. Of a
    /// run that has committed nothing nothing is left to go on with, its list of inputs neither: it begins under another name.
    fn next(&self, program: &Program, last_run_id: &str) -> Option<Attempt> {
        let flows = (self.reload)(self.run.clone()).ok()?;
        let is_same = |flow: &Flow| flow.lock_name() == self.lock_name && flow.identity == self.identity;
        let Some(mut flow) = flows.into_iter().find(is_same) else {
            tracing::warn!("the flow file was edited meanwhile: the run is not begun again");
            return None;
        };
        flow.run.id = format!("{}r{:03}", flow.run.id, self.n_rereads + 1);
        let log = flow.open_log().map_err(|error| program.refuse(&error)).ok()?;
        let goes_on = log.unfinished().is_some_and(|run| run.run_id == last_run_id);
        let start = if goes_on { Start::Resume } else { self.start };
        let asked = Asked { flow, run: self.run.clone(), start, reload: self.reload };
        let (flow, opening) = program.begin_on(log, asked).ok()?;
        let plan = program.planned(&flow).ok()?;
        Some(Attempt { flow, plan, opening })
    }

    /// Counts a change; how often the file has changed since the last commit.
    fn count(&mut self, again: &ReadAgain, newest_commit: Option<u64>) -> u32 {
        if newest_commit != self.newest_commit {
            self.newest_commit = newest_commit;
            self.changed.clear();
        }
        let n_changes = self.changed.entry(again.file.clone()).or_default();
        *n_changes += 1;
        *n_changes
    }
}
