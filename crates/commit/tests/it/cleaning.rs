//! What a killed run leaves: all that nothing needs goes, all that the next run needs stays, whenever it was killed.

use std::path::Path;
use std::sync::Arc;

use aqueduct_commit::{Clean, Cleaned, KeptChange, KeyStore, Keyed, KeysIn, Remembering};
use aqueduct_core::{Fs, Result};
use aqueduct_primitives::ByteCount;
use aqueduct_testkit::faults::{Fault, SimFs};

use crate::flow::{Shape, now};
use crate::kills::{
    AGAIN, BEFORE, FILE_APPENDED, FILE_REPLACED, FIRST, FOLDER_APPENDED, FOLDER_REPLACED, LATER, Trial,
    has_ended, seam,
};

fn clean(trial: &Trial, disk: &SimFs, how: Clean) -> Result<Cleaned> {
    trial.flow.open(&seam(disk))?.clean(how)
}

fn names(cleaned: &Cleaned) -> Vec<String> {
    cleaned.leftovers.iter().map(|leftover| leftover.path.display().to_string()).collect()
}

fn write(disk: &SimFs, path: &str, text: &str) {
    let path = Path::new(path);
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    std::io::Write::write_all(&mut disk.create_new(path).unwrap(), text.as_bytes()).unwrap();
}

/// Killed at each operation, cleaned, and gone on with: as if nothing had been cleaned. What is told beforehand is what goes, and
/// afterwards there is nothing more to tell.
fn clean_after_each_kill(trial: &Arc<Trial>) {
    let start = trial.disk();
    let unharmed = start.reboot();
    trial.flow.run(&seam(&unharmed), FIRST).unwrap();
    assert!(names(&clean(trial, &unharmed, Clean::Remove).unwrap()).is_empty());
    for nth in 0..unharmed.n_operations() {
        let disk = start.reboot().with_fault(nth, Fault::KillAfter);
        let _ = trial.flow.run(&seam(&disk), FIRST);
        let disk = disk.reboot();
        let case = format!("killed at {nth}, then cleaned");
        let before = disk.files_below("/");
        let told = clean(trial, &disk, Clean::Tell).unwrap();
        assert!(
            disk.files_below("/") == before,
            "{case}: something was changed though it was only to be told"
        );
        let removed = clean(trial, &disk, Clean::Remove).unwrap();
        assert_eq!((names(&told), told.leftovers), (names(&removed), removed.leftovers), "{case}");
        assert!(names(&clean(trial, &disk, Clean::Tell).unwrap()).is_empty(), "{case}: twice");
        let next = if has_ended(&disk, FIRST) { LATER } else { AGAIN };
        trial.flow.run(&seam(&disk), next).unwrap_or_else(|error| panic!("{case}: {}", error.chain()));
        let works =
            if next.run_id == LATER.run_id { vec![BEFORE, FIRST, LATER] } else { vec![BEFORE, AGAIN] };
        trial.judge(&disk, &works, &case);
    }
}

#[test]
fn a_killed_run_that_was_cleaned_is_gone_on_with_as_if_it_was_not() {
    let pairs: [[Shape; 2]; 3] = [
        [FOLDER_REPLACED, FILE_APPENDED],
        [FOLDER_APPENDED, FILE_REPLACED],
        [FOLDER_APPENDED, FOLDER_APPENDED],
    ];
    for shapes in pairs {
        let trial = Trial::of(shapes);
        clean_after_each_kill(&trial);
        trial.end("cleaned after a kill");
    }
}

#[test]
fn a_kill_while_cleaning_changes_nothing_that_counts() {
    let trial = Trial::of([FOLDER_REPLACED, FILE_REPLACED]);
    let start = trial.disk();
    for nth in [20, 60, 100] {
        let killed = start.reboot().with_fault(nth, Fault::KillAfter);
        let _ = trial.flow.run(&seam(&killed), FIRST);
        let killed = killed.reboot();
        for second in 0.. {
            let disk = killed.reboot().with_fault(second, Fault::KillAfter);
            let _ = clean(&trial, &disk, Clean::Remove);
            let was_killed = disk.is_killed();
            let disk = disk.reboot();
            trial.flow.run(&seam(&disk), AGAIN).unwrap();
            trial.judge(&disk, &[BEFORE, AGAIN], &format!("killed at {nth}, then at {second} of a clean"));
            if !was_killed {
                break;
            }
        }
    }
    trial.end("killed while cleaning");
}

#[test]
fn folders_of_runs_that_have_ended_and_files_of_keys_that_no_value_names_go() {
    let trial = Trial::of([FOLDER_APPENDED, FOLDER_APPENDED]);
    let disk = trial.disk();
    let state = "/state/flows/test";
    let keys = Path::new("/state/flows/test/steps/once");
    let how = Remembering { versioned: false, forget_after_days: None, memory: ByteCount::mib(1) };
    let mut store = KeyStore::open(&seam(&disk), KeysIn::Folder(keys.to_owned()), how, None).unwrap();
    store.admit(&[Keyed { key: 7, version: 0 }], 20_000).unwrap();
    let kept = store.keep().unwrap();
    let change = |value| KeptChange {
        flow: "test".into(),
        name: "edit".into(),
        now: now(),
        kept: [("once".into(), value)].into(),
    };
    trial.flow.open(&seam(&disk)).unwrap().edit(change(Some(serde_json::json!({ "seen": kept })))).unwrap();
    let named = disk.files_below(keys);
    assert_eq!(named.len(), 1);
    for (path, text) in [
        ("runs/r0/source/inputs.ndjson", "12345"),
        ("runs/r9/join.input0/0.arrow", "1"),
        ("steps/once/seen-00000099.keys", "123"),
        ("steps/other/seen-00000001.keys", "1234"),
        ("steps/once/notes.txt", "mine"),
        ("log/draft-9-r9", "12"),
    ] {
        write(&disk, &format!("{state}/{path}"), text);
    }
    let cleaned = clean(&trial, &disk, Clean::Remove).unwrap();
    let told: Vec<_> =
        cleaned.leftovers.iter().map(|one| (one.path.to_str().unwrap(), one.n_bytes)).collect();
    assert_eq!(
        told,
        [
            ("/state/flows/test/log/draft-9-r9", 2),
            ("/state/flows/test/runs/r0", 5),
            ("/state/flows/test/runs/r9", 1),
            ("/state/flows/test/steps/once/seen-00000099.keys", 3),
            ("/state/flows/test/steps/other/seen-00000001.keys", 4),
        ]
    );
    let mut left = disk.files_below(keys);
    assert_eq!(left.remove(Path::new("notes.txt")), Some(b"mine".to_vec()));
    assert_eq!(left, named);
    trial.flow.open(&seam(&disk)).unwrap().edit(change(None)).unwrap();
    assert_eq!(names(&clean(&trial, &disk, Clean::Remove).unwrap()).len(), 1, "keys that were forgotten");
}
