//! How a run begins: anew, or where an unfinished one stopped.

use std::collections::BTreeMap;

use aqueduct_commit::{FlowLog, Start, Unfinished};
use aqueduct_core::{Error, ErrorKind};
use chrono::DateTime;

use super::{Program, exit};
use crate::flow::{Flow, RunIdentity};
use crate::run::Opening;

/// What of a run is the same when it goes on later.
const RUN: &str = "run";
const STARTED: &str = "started";
const FULL_REFRESH: &str = "full_refresh";

/// Reads a flow file again, filled in for a run that began earlier.
pub(super) type Reload<'a> = dyn Fn(RunIdentity) -> Result<Vec<Flow>, u8> + Sync + 'a;

/// A flow as it was asked for.
pub(super) struct Asked<'a> {
    pub(super) flow: Flow,
    /// What its run would be called, before the number of its matrix entry.
    pub(super) run: RunIdentity,
    pub(super) start: Start,
    /// Reads the flow file again, filled in for a run that began earlier.
    pub(super) reload: &'a Reload<'a>,
}

impl Program {
    /// Opens the log of a flow whose lock is held. The flow is filled in as it was at the first start, if its run goes on.
    ///
    /// # Errors
    /// The exit code, when the log cannot be used; it is said why.
    pub(super) fn begin(&self, asked: Asked<'_>) -> Result<(Flow, Opening), u8> {
        let log = asked.flow.open_log().map_err(|error| self.refuse(&error))?;
        self.begin_on(log, asked)
    }

    /// [`Program::begin`] on a log that was read.
    ///
    /// # Errors
    /// As there.
    pub(super) fn begin_on(&self, log: FlowLog, asked: Asked<'_>) -> Result<(Flow, Opening), u8> {
        let Asked { flow, run, start, reload } = asked;
        let flow_dir = flow.flow_dir();
        let mut fixed = fixed_now(&run, start);
        let opening = |log, start, fixed| Opening { log, flow_dir: flow_dir.clone(), start, fixed };
        let Some(unfinished) = log.unfinished() else { return Ok((flow, opening(log, start, fixed))) };
        if start != Start::Resume {
            tracing::info!(
                run = unfinished.run_id,
                "the unfinished run is forgotten; what it committed stays"
            );
            return Ok((flow, opening(log, start, fixed)));
        }
        let again = as_it_was(&flow, unfinished, reload)?;
        let changed = changed_keys(again.as_ref(), unfinished);
        if let Some(again) = again.filter(|_| changed.is_empty()) {
            tracing::info!(run = unfinished.run_id, "going on with the unfinished run");
            fixed.clone_from(unfinished.fixed);
            let was_full = fixed.contains_key(FULL_REFRESH);
            let start = if was_full { Start::FullRefresh } else { Start::Resume };
            return Ok((again, opening(log, start, fixed)));
        }
        tracing::warn!(
            run = unfinished.run_id,
            changed = changed.join(", "),
            "the flow was changed: what the unfinished run committed stays, the rest begins anew"
        );
        Ok((flow, opening(log, Start::Fresh, fixed)))
    }

    /// Says why a log cannot be used; the exit code.
    pub(super) fn refuse(&self, error: &Error) -> u8 {
        self.say_error(&error.chain());
        if error.kind() == ErrorKind::Newer { exit::WRONG } else { exit::FAILED }
    }
}

pub(super) fn fixed_now(run: &RunIdentity, start: Start) -> BTreeMap<String, String> {
    let mut fixed =
        BTreeMap::from([(RUN.to_owned(), run.id.clone()), (STARTED.to_owned(), run.started.to_rfc3339())]);
    if start == Start::FullRefresh {
        fixed.insert(FULL_REFRESH.to_owned(), "true".to_owned());
    }
    fixed
}

/// The flow, filled in for the run that is not finished; nothing, if the file has no such flow then.
fn as_it_was(flow: &Flow, unfinished: Unfinished<'_>, reload: &Reload<'_>) -> Result<Option<Flow>, u8> {
    let started = unfinished.fixed.get(STARTED).and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let (Some(id), Some(started)) = (unfinished.fixed.get(RUN), started) else { return Ok(None) };
    let flows = reload(RunIdentity { id: id.clone(), started: started.to_utc() })?;
    let again = flows.into_iter().find(|again| again.lock_name() == flow.lock_name());
    Ok(again.map(|mut again| {
        unfinished.run_id.clone_into(&mut again.run.id);
        again
    }))
}

fn changed_keys(again: Option<&Flow>, unfinished: Unfinished<'_>) -> Vec<String> {
    let none = BTreeMap::new();
    let (before, now) = (unfinished.identity, again.map_or(&none, |again| &again.identity));
    let keys: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).collect();
    keys.into_iter().filter(|key| before.get(*key) != now.get(*key)).cloned().collect()
}
