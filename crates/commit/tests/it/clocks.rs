//! Clocks that go backwards, or years ahead, between runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use aqueduct_commit::{Began, End, Epoch, FlowLog, Mode, NewRun, Start, Target};
use aqueduct_core::{Output, Part, Positions};
use aqueduct_testkit::faults::{Fault, SimFs};
use chrono::DateTime;

use crate::flow::Work;
use crate::kills::{FILE_APPENDED, FILE_REPLACED, FOLDER_APPENDED, FOLDER_REPLACED, Trial, has_ended, seam};
use crate::reads::done_by;

/// As the runs of `kills`, by a clock that goes back an hour before each: names of runs begin with their time.
const LATE: Work = Work { run_id: "r9", first: 100 };
const EARLIER: Work = Work { run_id: "r7", first: 0 };
const EARLIER_STILL: Work = Work { run_id: "r5", first: 0 };
const EARLIEST: Work = Work { run_id: "r3", first: 200 };

// reliability 57: nothing depends on which name of a run is the larger
#[test]
fn a_clock_that_goes_backwards_changes_nothing() {
    for outputs in [
        [FOLDER_REPLACED, FOLDER_REPLACED],
        [FOLDER_APPENDED, FILE_APPENDED],
        [FILE_REPLACED, FOLDER_APPENDED],
    ] {
        let trial = Trial::of(outputs);
        let start = SimFs::new();
        trial.flow.run(&seam(&start), LATE).expect("nothing goes wrong");
        start.sync();
        let unharmed = start.reboot();
        trial.flow.run(&seam(&unharmed), EARLIER).expect("nothing goes wrong");
        trial.judge(&unharmed, &[LATE, EARLIER], "unharmed");
        for nth in 0..unharmed.n_operations() {
            trial.n_cases.fetch_add(1, Relaxed);
            let case = format!("killed at {nth}, the clock goes backwards");
            let disk = start.reboot().with_fault(nth, Fault::KillAfter);
            let _ = trial.flow.run(&seam(&disk), EARLIER);
            let disk = disk.reboot();
            let mut works = vec![LATE, EARLIER];
            if !has_ended(&disk, EARLIER) {
                works[1] = EARLIER_STILL;
                if !done_by(&trial, &disk, EARLIER_STILL, &case) {
                    continue;
                }
                trial.judge(&disk, &works, &case);
            }
            works.push(EARLIEST);
            let disk = disk.reboot();
            if done_by(&trial, &disk, EARLIEST, &case) {
                trial.judge(&disk, &works, &case);
            }
        }
        trial.end("a clock that goes backwards");
    }
}

/// What runs of a flow that adds to a folder, at these moments, find of the runs before, and what a reader finds of all.
/// Every other run is stopped half-way, and the next one goes on with it.
fn outcome_of_runs_at(seconds: &[i64]) -> Vec<String> {
    let disk = SimFs::new();
    let mut told = Vec::new();
    for (nth, second) in (0_u32..).zip(seconds) {
        // Two moments are never the same to the nanosecond.
        let at = DateTime::from_timestamp(*second, nth).unwrap();
        let new = NewRun {
            flow: "clock".into(),
            run_id: aqueduct_core::run_id(at),
            now: at,
            identity: BTreeMap::new(),
            fixed: BTreeMap::from([("today".to_owned(), "a day".to_owned())]),
            targets: vec![Target {
                output: Output { path: "/lake/out".into(), is_file: false, allow_empty: false, mode: None },
                mode: Mode::Append,
                is_filled_last: false,
            }],
        };
        let fs = seam(&disk);
        let mut run =
            FlowLog::open(&fs, Path::new("/state/flows/clock")).unwrap().begin(new, Start::Resume).unwrap();
        told.push(format!("{}, kept {:?}", matches!(run.began(), Began::Resumed(_)), run.kept()));
        let name = format!("{nth}.txt");
        let staged = run.stage_dir(0).unwrap().join(&name);
        fs.create_dir_all(staged.parent().unwrap()).unwrap();
        let mut file = fs.create_new(&staged).unwrap();
        file.write_all(format!("{nth}\n").as_bytes()).unwrap();
        file.sync().unwrap();
        drop(file);
        let part = Part { staged, name, rows: 1, n_bytes: 2, blake3: String::new(), extents: None };
        let positions = BTreeMap::from([("source".to_owned(), Positions::done(nth.to_string()))]);
        let kept = BTreeMap::from([("step".to_owned(), nth.into())]);
        let epoch = Epoch { parts: vec![vec![part]], positions, kept, ..Epoch::default() };
        let end = if nth % 2 == 0 { End::GoOn } else { End::Finish };
        let committed = run.commit(epoch, end, at).unwrap();
        assert!(committed.pending.is_none());
        run.close().unwrap();
    }
    let files = disk.files_below("/lake/out").into_iter();
    let parts = files.filter(|(path, _)| path.extension().is_some_and(|suffix| suffix == "txt"));
    told.extend(parts.map(|(path, text)| format!("{}: {text:?}", path.display())));
    told
}

// reliability 57: an hour back, ten years on, back again, and runs that are gone on with meanwhile
#[test]
fn clocks_that_leap_change_nothing() {
    const YEARS: i64 = 10 * 365 * 86400;
    let now = 1_800_000_000;
    let steady = outcome_of_runs_at(&[now, now + 60, now + 120, now + 180, now + 240, now + 300]);
    assert_eq!(steady.iter().filter(|line| line.contains(".txt: ")).count(), 6, "{steady:#?}");
    assert_eq!(steady.iter().filter(|line| line.starts_with("true")).count(), 3, "{steady:#?}");
    for leaps in [
        [now, now - 3600, now - 3540, now - 7200, now - 7000, now - 9999],
        [now, now + YEARS, now + YEARS, now, now - YEARS, now],
    ] {
        assert_eq!(outcome_of_runs_at(&leaps), steady, "{leaps:?}");
    }
}
