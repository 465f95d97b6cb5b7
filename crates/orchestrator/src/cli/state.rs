//! `aqueduct state`: what a flow keeps from run to run, told and changed.
//!
//! It is told from the log alone, which is read and not locked. Changes take the flow's lock, and are one record of the log.

mod fields;
mod sighted;
mod told;

use std::collections::BTreeMap;

use aqueduct_commit::{FlowLog, KeptChange};
use aqueduct_core::{Clock, SystemClock, run_id};
use serde_json::Value;

pub(super) use self::told::REPLAYED;

use self::fields::{assign, check_step, of_step};
use super::arguments::{StateAction, StateArguments};
use super::{Program, exit};
use crate::flow::{Flow, assignment};
use crate::lock::FlowLock;

/// What a command changes in what steps keep: nothing, where a step is to forget.
type Changes = BTreeMap<String, Option<Value>>;

/// Tells or changes the state of a flow, of each entry of its matrix; the exit code.
pub(super) fn state(program: &Program, arguments: &StateArguments) -> u8 {
    let action = match Action::of(arguments) {
        Ok(action) => action,
        Err(message) => {
            program.say_error(&message);
            return exit::WRONG;
        }
    };
    let done = program.load(&arguments.flow).and_then(|flows| match action {
        Action::Show => program.show(&flows),
        Action::Export => program.export(&flows),
        Action::Sightings(step) => program.sightings(&flows, step),
        Action::Change(change) => program.change(&flows, &change),
    });
    done.err().unwrap_or(exit::DONE)
}

/// What is asked for.
enum Action<'a> {
    Show,
    Export,
    /// What a step has recorded of the keys it has seen.
    Sightings(&'a str),
    Change(Change<'a>),
}

/// How what steps keep is to change.
enum Change<'a> {
    /// A field of what a step keeps gets another value.
    Set { field: String, value: String },
    /// A step, or each, forgets.
    Reset(Option<&'a str>),
}

impl<'a> Action<'a> {
    fn of(arguments: &'a StateArguments) -> Result<Self, String> {
        match (arguments.action, arguments.what.as_deref()) {
            (StateAction::Show, None) => Ok(Self::Show),
            (StateAction::Export, None) => Ok(Self::Export),
            (StateAction::Export, Some(step)) => Ok(Self::Sightings(step)),
            (StateAction::Reset, step) => Ok(Self::Change(Change::Reset(step))),
            (StateAction::Set, Some(text)) => {
                let (field, value) =
                    assignment(text).map_err(|error| format!("{error}; expected STEP.FIELD=VALUE"))?;
                Ok(Self::Change(Change::Set { field, value }))
            }
            (StateAction::Set, None) => Err("`set` needs STEP.FIELD=VALUE".to_owned()),
            (StateAction::Show, Some(more)) => {
                Err(format!("`{more}` is too much; `show` takes nothing more"))
            }
        }
    }
}

impl Program {
    fn show(&self, flows: &[Flow]) -> Result<(), u8> {
        let told = flows.iter().map(|flow| {
            let log = self.log_of(flow)?;
            told::shown(flow, &log).map_err(|error| self.refuse(&error))
        });
        let told = told.collect::<Result<Vec<_>, _>>()?.join("\n");
        self.write_out(self.console.masked(&told).as_bytes());
        Ok(())
    }

    fn export(&self, flows: &[Flow]) -> Result<(), u8> {
        let told = flows.iter().map(|flow| Ok(told::exported(flow, &self.log_of(flow)?)));
        let mut told = serde_json::json!({ "flows": told.collect::<Result<Vec<_>, u8>>()? });
        told::mask(&mut told, &|text| self.console.masked(text));
        self.write_out(format!("{told:#}\n").as_bytes());
        Ok(())
    }

    /// A line of JSON for each key that a step has seen, by key: as many as there are, one in memory at a time.
    fn sightings(&self, flows: &[Flow], step: &str) -> Result<(), u8> {
        for flow in flows {
            let log = self.log_of(flow)?;
            let wrong = |message: String| {
                self.say_error(&message);
                exit::WRONG
            };
            check_step(flow, log.kept(), step).map_err(wrong)?;
            let lines = sighted::lines(flow, &log, step).map_err(|error| self.refuse(&error))?;
            for line in lines.ok_or_else(|| wrong(sighted::none(flow, step)))? {
                let mut line = line.map_err(|error| self.refuse(&error))?;
                told::mask(&mut line, &|text| self.console.masked(text));
                self.write_out(format!("{line}\n").as_bytes());
            }
        }
        Ok(())
    }

    /// Changes what the steps of all flows keep; none of them, if one cannot be.
    fn change(&self, flows: &[Flow], change: &Change<'_>) -> Result<(), u8> {
        let mut ready = Vec::new();
        for flow in flows {
            let lock = self.lock_if_any(flow)?;
            let log = self.log_of(flow)?;
            let changes = changes(flow, &log, change).map_err(|message| {
                self.say_error(&message);
                exit::WRONG
            })?;
            ready.push((flow, log, changes, lock));
        }
        for (flow, mut log, kept, _lock) in ready {
            let said = said(&log, change, &kept);
            if !kept.is_empty() || log.unfinished().is_some() {
                let now = SystemClock.now();
                let change = KeptChange { flow: flow.name.clone(), name: run_id(now), now, kept };
                log.edit(change).map_err(|error| self.refuse(&error))?;
            }
            self.console.line(&format!("{}: {said}", told::title(flow)));
        }
        Ok(())
    }

    fn log_of(&self, flow: &Flow) -> Result<FlowLog, u8> {
        flow.open_log().map_err(|error| self.refuse(&error))
    }

    /// The flow's lock; none of a flow that has no state, which is left without.
    fn lock_if_any(&self, flow: &Flow) -> Result<Option<FlowLock>, u8> {
        if flow.state_store.is_some() || flow.flow_dir().is_dir() {
            self.lock(&flow.state_dir, &flow.lock_name()).map(Some)
        } else {
            Ok(None)
        }
    }
}

/// By step what it is to keep.
fn changes(flow: &Flow, log: &FlowLog, change: &Change<'_>) -> Result<Changes, String> {
    let kept = log.kept();
    let forgotten = |steps: Vec<&String>| steps.into_iter().map(|step| (step.clone(), None)).collect();
    match change {
        Change::Reset(None) => Ok(forgotten(kept.keys().filter(|step| *step != told::REPLAYED).collect())),
        Change::Reset(Some(step)) => {
            check_step(flow, kept, step)?;
            check_no_unfinished(flow, log)?;
            Ok(forgotten(of_step(kept, step).collect()))
        }
        Change::Set { field, value } => {
            let changed = assign(kept, field, value, &flow.file)?;
            check_no_unfinished(flow, log)?;
            Ok(changed)
        }
    }
}

/// An unfinished run goes on from what its steps kept: rows would come twice, or be missing.
fn check_no_unfinished(flow: &Flow, log: &FlowLog) -> Result<(), String> {
    let Some(unfinished) = log.unfinished() else { return Ok(()) };
    let (run, file) = (unfinished.run_id, &flow.file);
    Err(format!(
        "run {run} is not finished and goes on with what its steps keep; finish it with `aqueduct run {file}`, drop it with \
         `aqueduct run {file} --fresh`, or forget it and all that steps keep with `aqueduct state {file} reset`"
    ))
}

/// What is done, for people.
fn said(log: &FlowLog, change: &Change<'_>, kept: &Changes) -> String {
    let steps = kept.keys().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", ");
    let dropped = log.unfinished().map(|run| format!("run {} will not be gone on with", run.run_id));
    match (change, steps.is_empty(), dropped) {
        (Change::Set { field, value }, ..) => format!("{field} is {value}"),
        (Change::Reset(_), true, None) => "nothing is kept, so nothing is forgotten".to_owned(),
        (Change::Reset(_), true, Some(dropped)) => dropped,
        (Change::Reset(_), false, None) => format!("forgotten what is kept by {steps}"),
        (Change::Reset(_), false, Some(dropped)) => format!("forgotten what is kept by {steps}; {dropped}"),
    }
}
