//! One output in an object store, and two machines on which the flow's state is in a folder of the same name.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use aqueduct_core::Fs;
use aqueduct_testkit::faults::{Fault, SimFs};

use crate::flow::{STATE, Work};
use crate::kills::{AGAIN, FIRST, FOLDER_REPLACED, LATER, Trial, has_ended, rows, seam};

/// What the other machine does, on which nothing is known of the first.
const OTHER: Work = Work { run_id: "o1", first: 400 };

fn goes_to_another_machine(disk: &SimFs) -> Vec<(String, Vec<u8>)> {
    let files = disk.files_below(STATE).into_iter();
    let kept = files.map(|(name, bytes)| (format!("{STATE}/{}", name.display()), bytes)).collect();
    disk.remove_dir_all(Path::new(STATE)).unwrap();
    kept
}

fn comes_back(disk: &SimFs, kept: &[(String, Vec<u8>)]) {
    disk.remove_dir_all(Path::new(STATE)).unwrap();
    for (path, bytes) in kept {
        let path = Path::new(path);
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = disk.create_new(path).unwrap();
        file.write_all(bytes).and_then(|()| file.sync()).unwrap();
    }
}

#[test]
fn what_one_machine_has_committed_another_does_not_drop() {
    let trial = Trial::of([FOLDER_REPLACED.in_store(), FOLDER_REPLACED.in_store()]);
    let start = trial.disk();
    let unharmed = start.reboot();
    trial.flow.run(&seam(&unharmed), FIRST).unwrap();
    for nth in 0..unharmed.n_operations() {
        trial.n_cases.fetch_add(1, Relaxed);
        let disk = start.reboot().with_fault(nth, Fault::KillAfter);
        let _ = trial.flow.run(&seam(&disk), FIRST);
        let disk = disk.reboot();
        let case = format!("killed at {nth}, then another machine");
        let (next, kept) =
            (if has_ended(&disk, FIRST) { LATER } else { AGAIN }, goes_to_another_machine(&disk));
        if let Err(error) = trial.flow.run(&seam(&disk), OTHER) {
            // Parts have appeared that no manifest lists yet: the other waits until they are listed.
            let told = error.chain();
            if !told.contains("making public right now") {
                trial.violated(&disk, &format!("{case}: the other failed: {told}"));
                continue;
            }
        }
        let others = goes_to_another_machine(&disk);
        comes_back(&disk, &kept);
        if let Err(error) = trial.flow.run(&seam(&disk), next) {
            trial.violated(&disk, &format!("{case}: {}", error.chain()));
            continue;
        }
        let there = rows(&disk, &trial.flow.path(0)).unwrap_or_default();
        if there.into_iter().collect::<BTreeSet<_>>() != next.rows() {
            trial.violated(&disk, &format!("{case}: what came last is not there"));
        }
        comes_back(&disk, &others);
        match trial.flow.run(&seam(&disk), Work { run_id: "o2", ..OTHER }) {
            Ok(()) => trial.judge_outputs(&disk, &[OTHER], &case),
            Err(error) => trial.violated(&disk, &format!("{case}: the other, again: {}", error.chain())),
        }
    }
    trial.end("two machines, one output in a store");
}
