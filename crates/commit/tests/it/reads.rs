//! What the enumerations of `kills` leave out: reads that fail.

use std::sync::atomic::Ordering::Relaxed;

use aqueduct_testkit::faults::SimFs;

use crate::flow::Work;
use crate::kills::{
    AGAIN, BEFORE, FILE_APPENDED, FILE_REPLACED, FIRST, FOLDER_APPENDED, FOLDER_REPLACED, LATER, Trial,
    has_ended, seam,
};

/// Makes a run on which nothing goes wrong; whether it succeeded.
pub(crate) fn done_by(trial: &Trial, disk: &SimFs, work: Work, case: &str) -> bool {
    if let Err(error) = trial.flow.run(&seam(disk), work) {
        trial.violated(disk, &format!("{case}: {} failed: {}", work.run_id, error.chain()));
        return false;
    }
    true
}

// reliability 51: each look at the disk that fails: nothing is lost, nothing twice, and the next run does it
#[test]
fn one_read_that_fails_is_an_error_or_of_no_account() {
    for outputs in [[FOLDER_REPLACED, FILE_APPENDED], [FOLDER_APPENDED, FILE_REPLACED]] {
        let trial = Trial::of(outputs);
        let start = trial.disk();
        let unharmed = start.reboot();
        trial.flow.run(&seam(&unharmed), FIRST).expect("nothing goes wrong");
        assert!(unharmed.n_reads() > 0);
        for nth in 0..unharmed.n_reads() {
            trial.n_cases.fetch_add(1, Relaxed);
            let case = format!("read {nth} fails");
            let disk = start.reboot().with_read_error(nth);
            let _ = trial.flow.run(&seam(&disk), FIRST);
            let disk = disk.reboot();
            let (next, works): (Work, &[Work]) = match has_ended(&disk, FIRST) {
                true => (LATER, &[BEFORE, FIRST, LATER]),
                false => (AGAIN, &[BEFORE, AGAIN]),
            };
            if done_by(&trial, &disk, next, &case) {
                trial.judge_outputs(&disk, works, &case);
            }
        }
        trial.end("one read that fails");
    }
}
