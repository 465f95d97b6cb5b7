//! What steps keep, changed by hand: whatever happens to the disk meanwhile, it is so or it is not, and the runs that follow go
//! on from there.

use std::collections::BTreeMap;
use std::sync::Arc;

use aqueduct_commit::{FlowLog, KeptChange, KeysKept, Stands};
use aqueduct_core::{ErrorKind, Result};
use aqueduct_testkit::faults::{Fault, SimFs};
use serde_json::{Value, json};

use crate::flow::now;
use crate::kills::{AGAIN, BEFORE, FIRST, FOLDER_APPENDED, FOLDER_REPLACED, LATER, Trial, seam};

/// Disks tried after each loss of power.
const MAX_DISKS: usize = 12;

fn log(trial: &Trial, disk: &SimFs) -> FlowLog {
    trial.flow.open(&seam(disk)).unwrap()
}

fn change(value: Option<Value>) -> KeptChange {
    let kept = BTreeMap::from([("step".to_owned(), value), ("other".to_owned(), None)]);
    KeptChange { flow: "test".into(), name: "edit".into(), now: now(), kept }
}

fn edit(trial: &Trial, disk: &SimFs, value: Option<Value>) -> Result<()> {
    trial.flow.open(&seam(disk))?.edit(change(value))
}

/// A disk on which a run has committed something, and was killed.
fn unfinished(trial: &Trial) -> SimFs {
    let start = trial.disk();
    let killed = (0..).map(|nth| {
        let disk = start.reboot().with_fault(nth, Fault::KillAfter);
        let _ = trial.flow.run(&seam(&disk), FIRST);
        disk.reboot()
    });
    killed.into_iter().find(|disk| log(trial, disk).unfinished().is_some()).unwrap()
}

#[test]
fn the_log_tells_the_last_run_and_what_steps_keep() {
    let trial = Trial::of([FOLDER_REPLACED, FOLDER_REPLACED]);
    let empty = log(&trial, &SimFs::new());
    assert!(empty.last_run().is_none() && empty.kept().is_empty());
    let log = log(&trial, &trial.disk());
    let last = log.last_run().unwrap();
    assert_eq!((last.run_id, last.stands, last.counts.rows_out), (BEFORE.run_id, Stands::Finished, 12));
    assert!(last.positions["source"].is_done("2"));
    assert_eq!(log.kept()["step"], 100);
}

#[test]
fn a_reset_drops_an_unfinished_run_and_with_it_what_was_kept_for_rows_that_nobody_will_see() {
    for (shape, kept) in [(FOLDER_REPLACED, 100), (FOLDER_APPENDED, 0)] {
        let trial = Trial::of([shape, shape]);
        let disk = unfinished(&trial);
        assert_eq!(log(&trial, &disk).last_run().unwrap().stands, Stands::Unfinished);
        assert_eq!(log(&trial, &disk).kept()["step"], FIRST.first, "as the run that goes on will find it");
        let other = KeptChange { kept: BTreeMap::new(), ..change(None) };
        log(&trial, &disk).edit(other).unwrap();
        let after = log(&trial, &disk);
        assert_eq!((after.last_run().unwrap().stands, after.unfinished().is_none()), (Stands::Dropped, true));
        assert_eq!(after.kept()["step"], kept, "as a run that begins anew will find it");
    }
}

/// One fault at each operation of an edit; then a run.
fn one_fault_at_each_operation(trial: &Arc<Trial>, start: &SimFs) {
    let value = || Some(json!({ "since": 7 }));
    let before = log(trial, start).kept().clone();
    let unharmed = start.reboot();
    edit(trial, &unharmed, value()).unwrap();
    let was_unfinished = log(trial, start).unfinished().is_some();
    let judge = |disk: &SimFs, must_be: bool, case: &str| {
        let log = log(trial, disk);
        let is_done = log.kept()["step"] == json!({ "since": 7 });
        assert!(is_done || !must_be, "{case}: an edit that was told to be done is lost");
        if !is_done {
            assert_eq!(
                (log.kept(), log.unfinished().is_some()),
                (&before, was_unfinished),
                "{case}: half of it is done"
            );
        } else {
            assert!(log.unfinished().is_none(), "{case}");
        }
        let next = if was_unfinished { AGAIN } else { LATER };
        trial.flow.run(&seam(disk), next).unwrap_or_else(|error| panic!("{case}: {}", error.chain()));
        trial.judge_outputs(disk, &[BEFORE, next], case);
    };
    for disk in unharmed.power_losses(1, MAX_DISKS) {
        judge(&disk, true, "the power lost after it");
    }
    for nth in 0..unharmed.n_operations() {
        for fault in [Fault::KillBefore, Fault::KillAfter, Fault::ShortWrite, Fault::EIO, Fault::Full] {
            let disk = start.reboot().with_fault(nth, fault);
            let done = edit(trial, &disk, value()).is_ok();
            judge(&disk.reboot(), done, &format!("{fault:?} at {nth}"));
        }
        let disk = start.reboot().with_fault(nth, Fault::PowerLoss);
        let done = edit(trial, &disk, value()).is_ok();
        for lost in disk.power_losses(nth, MAX_DISKS) {
            judge(&lost, done, &format!("power lost at {nth}"));
        }
    }
}

#[test]
fn whatever_happens_an_edit_is_done_or_is_not() {
    let trial = Trial::of([FOLDER_REPLACED, FOLDER_REPLACED]);
    one_fault_at_each_operation(&trial, &trial.disk());
    one_fault_at_each_operation(&trial, &unfinished(&trial));
    trial.end("edits, one fault");
}

#[test]
fn a_writer_that_was_thought_dead_writes_nothing_after_an_edit() {
    let trial = Trial::of([FOLDER_APPENDED, FOLDER_APPENDED]);
    let disk = trial.disk();
    let mut slow = log(&trial, &disk);
    edit(&trial, &disk.another_process(), None).unwrap();
    let error = slow.edit(change(Some(1.into()))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(!log(&trial, &disk).kept().contains_key("step"));
}

#[test]
fn keys_are_told_from_other_values_and_those_of_a_newer_version_are_refused() {
    let run = json!({ "name": "seen-00000001.keys", "keys": 5, "bytes": 90, "blake3": "" });
    let of = |format: u64| json!({ "kept": [], "seen": { "format": format, "versioned": false, "runs": [run, run] } });
    let kept = KeysKept::of(&of(1)).unwrap().unwrap();
    assert_eq!((kept.n_keys, kept.n_bytes, kept.files.len()), (10, 180, 2));
    assert_eq!(KeysKept::of(&json!({ "since": 7 })).unwrap(), None);
    assert_eq!(KeysKept::of(&of(99)).unwrap_err().kind(), ErrorKind::Newer);
}
