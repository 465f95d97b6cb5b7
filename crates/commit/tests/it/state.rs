//! A flow's state that is deleted, cut, or changed by a bit: what can be made anew is, the rest is refused by name.

use std::io::Write;
use std::path::Path;

use aqueduct_core::{ErrorKind, Fs};
use aqueduct_testkit::faults::{Fault, SimFs};

use crate::kills::{
    AGAIN, BEFORE, FILE_APPENDED, FILE_REPLACED, FIRST, FOLDER_APPENDED, FOLDER_REPLACED, LATER, LOG, Trial,
    rows, seam,
};

/// The log's files after a run that committed three times.
fn log_of(disk: &SimFs) -> Vec<(String, Vec<u8>)> {
    let files = disk.files_below(LOG).into_iter();
    files.map(|(name, bytes)| (format!("{LOG}/{}", name.display()), bytes)).collect()
}

fn write(disk: &SimFs, path: &str, bytes: &[u8]) {
    disk.remove_file(Path::new(path)).unwrap();
    disk.create_new(Path::new(path)).unwrap().write_all(bytes).unwrap();
}

/// The next run is refused, tells the record by its name, and changes nothing.
fn is_refused(trial: &Trial, disk: &SimFs, record: &str) {
    let before = disk.files_below("/");
    let error = trial.flow.run(&seam(disk), LATER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.chain().contains(record), "{}, not {record}", error.chain());
    assert!(disk.files_below("/") == before, "{record}: something was changed");
}

#[test]
fn a_changed_a_cut_and_a_missing_record_are_refused_by_name() {
    let trial = Trial::of([FOLDER_REPLACED, FILE_APPENDED]);
    let disk = trial.disk();
    let log = log_of(&disk);
    assert_eq!(log.len(), 4, "a begin, two epochs and a finish");
    for (at, (path, bytes)) in log.iter().enumerate() {
        for byte in (0..bytes.len() - 1).step_by(7) {
            let mut changed = bytes.clone();
            changed[byte] ^= 4;
            let disk = disk.reboot();
            write(&disk, path, &changed);
            is_refused(&trial, &disk, path);
            write(&disk, path, &bytes[..byte]);
            is_refused(&trial, &disk, path);
        }
        // Without its newest records a log is a shorter log: the outputs tell.
        let last = at + 1 == log.len();
        let disk = disk.reboot();
        disk.remove_file(Path::new(path)).unwrap();
        let error = trial.flow.run(&seam(&disk), LATER).unwrap_err();
        let told = if last { "--full-refresh" } else { "is missing" };
        assert!(error.chain().contains(told), "{}", error.chain());
    }
}

#[test]
fn records_in_each_others_place_are_refused() {
    let trial = Trial::of([FOLDER_REPLACED, FOLDER_REPLACED]);
    let disk = trial.disk();
    let log = log_of(&disk);
    write(&disk, &log[1].0, &log[2].1);
    write(&disk, &log[2].0, &log[1].1);
    is_refused(&trial, &disk, &log[1].0);
}

#[test]
fn what_is_replaced_needs_no_state() {
    let trial = Trial::of([FOLDER_REPLACED, FILE_REPLACED]);
    each_kill_then_no_state(&trial, |disk, case| match trial.flow.run(&seam(disk), AGAIN) {
        Ok(()) => trial.judge_outputs(disk, &[BEFORE, AGAIN], case),
        Err(error) => trial.violated(disk, &format!("{case}: {}", error.chain())),
    });
    trial.end("outputs replaced, no state");
}

#[test]
fn what_is_appended_to_is_refused_without_the_state_that_knows_it() {
    let trial = Trial::of([FOLDER_APPENDED, FOLDER_APPENDED]);
    each_kill_then_no_state(&trial, |disk, case| {
        let seen = rows(disk, &trial.flow.path(0)).unwrap();
        let error = trial.flow.run(&seam(disk), AGAIN).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{case}: {}", error.chain());
        assert_eq!(rows(disk, &trial.flow.path(0)).unwrap(), seen, "{case}");
    });
    trial.end("outputs appended to, no state");
}

fn each_kill_then_no_state(trial: &Trial, judge: impl Fn(&SimFs, &str)) {
    let start = trial.disk();
    let unharmed = start.reboot();
    trial.flow.run(&seam(&unharmed), FIRST).unwrap();
    for nth in 0..unharmed.n_operations() {
        trial.n_cases.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let disk = start.reboot().with_fault(nth, Fault::KillAfter);
        let _ = trial.flow.run(&seam(&disk), FIRST);
        let disk = disk.reboot();
        disk.remove_dir_all(Path::new("/state")).unwrap();
        judge(&disk, &format!("killed at {nth}, then without state"));
    }
}
