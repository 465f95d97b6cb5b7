//! Who opens a log begins at its newest checkpoint, and without one at its beginning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aqueduct_core::{ErrorKind, Fs};
use aqueduct_testkit::faults::SimFs;

use crate::kills::{BEFORE, FIRST, FOLDER_APPENDED, FOLDER_REPLACED, LATER, LOG, Trial, seam};

/// Two runs, whose eight records leave two checkpoints.
fn two_runs() -> (std::sync::Arc<Trial>, SimFs) {
    let trial = Trial::with_checkpoints([FOLDER_REPLACED, FOLDER_APPENDED]);
    let disk = trial.disk();
    trial.flow.run(&seam(&disk), FIRST).unwrap();
    (trial, disk)
}

fn checkpoints(disk: &SimFs) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = disk.files_below(LOG);
    files.retain(|name, _| name.to_string_lossy().starts_with("checkpoint-"));
    files
}

fn write(disk: &SimFs, name: &Path, bytes: &[u8]) {
    let path = Path::new(LOG).join(name);
    disk.remove_file(&path).unwrap();
    let mut file = disk.create_new(&path).unwrap();
    file.write_all(bytes).and_then(|()| file.sync()).unwrap();
}

/// A record that nobody has to read any more is cut off: who reads it all the same says so.
fn cut_first_record(disk: &SimFs) {
    write(disk, Path::new("00000000000000000001.json"), b"{}");
}

#[test]
fn the_newest_two_stay_and_records_before_are_not_read() {
    let (trial, disk) = two_runs();
    let names: Vec<_> = checkpoints(&disk).into_keys().collect();
    assert_eq!(names, [6, 8].map(|n| PathBuf::from(format!("checkpoint-{n:020}"))));
    let before = trial.flow.open(&seam(&disk)).unwrap();
    let (run, kept) = (before.last_run().unwrap().run_id.to_owned(), before.kept().clone());
    cut_first_record(&disk);
    let after = trial.flow.open(&seam(&disk)).unwrap();
    assert_eq!((after.last_run().unwrap().run_id, after.kept()), (run.as_str(), &kept));
    trial.flow.run(&seam(&disk), LATER).unwrap();
    trial.judge(&disk, &[BEFORE, FIRST, LATER], "behind a checkpoint");
    trial.end("behind a checkpoint");
}

#[test]
fn one_that_is_damaged_or_of_another_log_is_passed_over() {
    let (trial, disk) = two_runs();
    let newest = checkpoints(&disk).into_keys().next_back().unwrap();
    let all = checkpoints(&disk);
    for at in [0, 10, all[&newest].len() - 2] {
        let mut flipped = all[&newest].clone();
        flipped[at] ^= 1;
        write(&disk, &newest, &flipped);
        assert_eq!(trial.flow.open(&seam(&disk)).unwrap().last_run().unwrap().run_id, FIRST.run_id);
    }
    // Of another log, whose records have other hashes.
    let other = Trial::with_checkpoints([FOLDER_APPENDED, FOLDER_REPLACED]);
    let elsewhere = other.disk();
    other.flow.run(&seam(&elsewhere), FIRST).unwrap();
    for (name, bytes) in checkpoints(&elsewhere) {
        write(&disk, &name, &bytes);
    }
    assert_eq!(trial.flow.open(&seam(&disk)).unwrap().last_run().unwrap().run_id, FIRST.run_id);
    cut_first_record(&disk);
    assert_eq!(trial.flow.open(&seam(&disk)).unwrap_err().kind(), ErrorKind::Conflict, "all of it is read");
}

#[test]
fn a_record_that_is_missing_behind_it_is_named() {
    let (trial, disk) = two_runs();
    let newest = checkpoints(&disk).into_keys().next_back().unwrap();
    disk.remove_file(&Path::new(LOG).join(newest)).unwrap();
    disk.remove_file(&Path::new(LOG).join("00000000000000000007.json")).unwrap();
    let error = trial.flow.open(&seam(&disk)).unwrap_err();
    assert!(error.chain().contains("missing") && error.kind() == ErrorKind::Conflict, "{}", error.chain());
}
