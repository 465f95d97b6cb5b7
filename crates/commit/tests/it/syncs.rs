//! What a sync that failed has left behind is not believed, though the next sync succeeds.

use std::sync::atomic::Ordering::Relaxed;

use aqueduct_testkit::faults::Fault;

use crate::flow::Work;
use crate::kills::{
    AGAIN, BEFORE, FILE_APPENDED, FILE_REPLACED, FIRST, FOLDER_APPENDED, FOLDER_REPLACED, LAST, LATER, Trial,
    has_ended, seam,
};
use crate::reads::done_by;

/// Disks tried after the loss of power.
const MAX_DISKS: usize = 12;

/// One operation fails with `EIO`, the next run succeeds, and then the power goes: what a failed sync has left must not have
/// been believed.
fn an_error_then_a_run_then_no_power(trial: &Trial) {
    let start = trial.disk();
    let unharmed = start.reboot();
    trial.flow.run(&seam(&unharmed), FIRST).expect("nothing goes wrong");
    for nth in 0..unharmed.n_operations() {
        trial.n_cases.fetch_add(1, Relaxed);
        let disk = start.reboot().with_fault(nth, Fault::EIO);
        let _ = trial.flow.run(&seam(&disk), FIRST);
        let disk = disk.reboot();
        // What has ended is completed by a later run, what has not by the same one.
        let (next, works): (Work, &[Work]) = match has_ended(&disk, FIRST) {
            true => (LATER, &[BEFORE, FIRST, LATER]),
            false => (AGAIN, &[BEFORE, AGAIN]),
        };
        let what = disk
            .names()
            .into_iter()
            .find(|name| name.starts_with(&format!("{nth} ")) && name.contains("Error"));
        let case = format!("EIO at {}, {}", what.unwrap_or_default(), next.run_id);
        let tried = disk.reboot();
        if !done_by(trial, &tried, next, &case) {
            continue;
        }
        trial.judge(&tried, works, &case);
        let last = tried.n_operations() - 1;
        let dark = disk.reboot().with_fault(last, Fault::PowerLoss);
        let _ = trial.flow.run(&seam(&dark), next);
        for (lost, disk) in dark.power_losses(nth, MAX_DISKS).enumerate() {
            let case = format!("{case}, then no power, disk {lost}");
            // A run that was gone on with ends under its own name.
            if !has_ended(&disk, next) && !has_ended(&disk, FIRST) {
                trial.violated(&disk, &format!("{case}: a run that had ended is not known any more"));
                continue;
            }
            // Of what was removed last some may be back: that is cleared up by one run more.
            let one_more = if next.run_id == LATER.run_id { LAST } else { LATER };
            if done_by(trial, &disk, one_more, &case) {
                trial.judge_outputs(&disk, &[works, &[one_more]].concat(), &case);
            }
        }
    }
}

#[test]
fn what_a_failed_sync_left_is_not_believed_in_folders() {
    let trial = Trial::of([FOLDER_REPLACED, FOLDER_APPENDED]);
    an_error_then_a_run_then_no_power(&trial);
    trial.end("folders, an error, a run and no power");
}

#[test]
fn what_a_failed_sync_left_is_not_believed_in_files() {
    let trial = Trial::of([FILE_REPLACED, FILE_APPENDED]);
    an_error_then_a_run_then_no_power(&trial);
    trial.end("files, an error, a run and no power");
}
