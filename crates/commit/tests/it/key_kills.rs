//! Every operation of three commits of keys, killed before and after, failed, cut short, and the power lost at it; then the
//! keys are opened as of the last commit, and must be just those.

use std::collections::BTreeSet;

use aqueduct_core::Result;
use aqueduct_testkit::faults::{Fault, SimFs};
use serde_json::Value;

use aqueduct_commit::{KeyStore, Keyed};

use crate::keys::{FOLDER, LITTLE, key, open};

const N_EPOCHS: usize = 3;
/// Keys of an epoch; some of them come in the next one, too.
const IN_EPOCH: u64 = 70;
const NEW_IN_EPOCH: u64 = 60;
/// Disks tried after each loss of power.
const MAX_DISKS: usize = 12;

/// Some keys, by their numbers.
type Numbers = BTreeSet<u64>;

#[derive(Default)]
struct Trial {
    n_cases: usize,
    violations: Vec<String>,
}

/// The values of the commits that succeeded.
#[derive(Clone, Default)]
struct Log(Vec<Value>);

impl Log {
    fn last(&self) -> Option<&Value> {
        self.0.last()
    }
}

fn keys_of(epoch: usize) -> std::ops::Range<u64> {
    let first = epoch as u64 * NEW_IN_EPOCH;
    first..first + IN_EPOCH
}

fn seen_after(n_epochs: usize) -> Numbers {
    (0..n_epochs).flat_map(keys_of).collect()
}

/// Which of some keys pass.
fn passing(store: &mut KeyStore, numbers: impl Iterator<Item = u64>) -> Result<Numbers> {
    let numbers: Vec<_> = numbers.collect();
    let rows: Vec<_> = numbers.iter().map(|n| Keyed { key: key(*n), version: 0 }).collect();
    let passes = store.admit(&rows, 0)?;
    Ok(numbers.into_iter().zip(passes).filter_map(|(n, passes)| passes.then_some(n)).collect())
}

/// The epochs that are not committed yet, each committed once its keys are kept, as long as nothing goes wrong.
fn go_on(disk: &SimFs, log: &mut Log) -> Result<(), String> {
    let told = |error: aqueduct_core::Error| error.chain();
    let mut store = open(disk, LITTLE, log.last()).map_err(told)?;
    for epoch in log.0.len()..N_EPOCHS {
        let expected: Numbers = keys_of(epoch).filter(|n| !seen_after(epoch).contains(n)).collect();
        let passed = passing(&mut store, keys_of(epoch)).map_err(told)?;
        if passed != expected {
            return Err(format!("WRONG: in epoch {epoch} {passed:?} passed, not {expected:?}"));
        }
        log.0.push(store.keep().map_err(told)?);
    }
    // What is named no more is removed by the next commit.
    log.0.push(store.keep().map_err(told)?);
    Ok(())
}

impl Trial {
    fn violated(&mut self, disk: &SimFs, what: &str) {
        let log = disk.names();
        let tail: Vec<_> = log.iter().skip(log.len().saturating_sub(40)).cloned().collect();
        self.violations.push(format!("{what}\n  {}", tail.join("\n  ")));
    }

    /// On a disk as it was left, the keys are those of the last commit, and the run can go on to its end.
    fn judge(&mut self, left: &SimFs, log: &Log, case: &str) {
        self.n_cases += 1;
        let look = left.reboot();
        let universe = 0..N_EPOCHS as u64 * NEW_IN_EPOCH + 100;
        let known = open(&look, LITTLE, log.last())
            .and_then(|mut store| passing(&mut store, universe.clone()))
            .map(|passing| universe.filter(|n| !passing.contains(n)).collect::<Numbers>());
        match known {
            Ok(known) if known == seen_after(log.0.len().min(N_EPOCHS)) => {}
            Ok(known) => {
                self.violated(&look, &format!("{case}: {} commits, known are {known:?}", log.0.len()))
            }
            Err(error) => self.violated(&look, &format!("{case}: {}", error.chain())),
        }
        let (disk, mut log) = (left.reboot(), log.clone());
        match go_on(&disk, &mut log) {
            Ok(()) => self.judge_files(&disk, &log, case),
            Err(error) => self.violated(&disk, &format!("{case}: going on: {error}")),
        }
    }

    /// At the end there are the files that the last commit names, and no others.
    fn judge_files(&mut self, disk: &SimFs, log: &Log, case: &str) {
        let there: BTreeSet<String> =
            disk.files_below(FOLDER).keys().map(|name| name.display().to_string()).collect();
        let named = log.last().and_then(|value| value["runs"].as_array()).into_iter().flatten();
        let named: BTreeSet<String> =
            named.filter_map(|run| run["name"].as_str()).map(str::to_owned).collect();
        if there != named {
            self.violated(disk, &format!("{case}: there are {there:?}, and named are {named:?}"));
        }
    }

    fn end(self, name: &str) {
        println!("{name}: {} cases, {} violations", self.n_cases, self.violations.len());
        let first: Vec<_> = self.violations.into_iter().take(3).collect();
        assert!(first.is_empty(), "{}", first.join("\n"));
    }

    /// After a fault at an operation; what was not committed may be lost with the power.
    fn fault(&mut self, start: &SimFs, nth: u64, fault: Fault) {
        let (disk, mut log) = (start.reboot().with_fault(nth, fault), Log::default());
        let outcome = go_on(&disk, &mut log);
        if outcome.as_ref().is_err_and(|error| error.starts_with("WRONG")) {
            self.violated(&disk, &format!("{fault:?} at {nth}: {outcome:?}"));
        }
        if outcome.is_ok() {
            self.violated(&disk, &format!("{fault:?} at {nth} went by unseen"));
        }
        match fault {
            Fault::PowerLoss => {
                for (lost, left) in disk.power_losses(nth, MAX_DISKS).enumerate() {
                    self.judge(&left, &log, &format!("power lost at {nth}, disk {lost}"));
                }
            }
            _ => self.judge(&disk, &log, &format!("{fault:?} at {nth}")),
        }
    }
}

fn unharmed(start: &SimFs) -> (SimFs, Log) {
    let (disk, mut log) = (start.reboot(), Log::default());
    go_on(&disk, &mut log).unwrap();
    (disk, log)
}

#[test]
fn one_fault_at_each_operation() {
    let (start, mut trial) = (SimFs::new(), Trial::default());
    let (disk, log) = unharmed(&start);
    trial.judge_files(&disk, &log, "unharmed");
    let names = disk.names();
    let n_created = names.iter().filter(|name| name.contains("create_new")).count();
    assert!(n_created > 15, "runs are written and merged in each epoch: {names:#?}");
    for nth in 0..disk.n_operations() {
        for fault in Fault::ALL {
            trial.fault(&start, nth, fault);
        }
    }
    trial.end("keys, one fault");
}

#[test]
fn one_read_that_fails() {
    let (start, mut trial) = (SimFs::new(), Trial::default());
    let (disk, _) = unharmed(&start);
    for nth in 0..disk.n_reads() {
        let (disk, mut log) = (start.reboot().with_read_error(nth), Log::default());
        let outcome = go_on(&disk, &mut log);
        if outcome.is_ok() {
            trial.violated(&disk, &format!("the read {nth} failed and nobody was told"));
        }
        trial.judge(&disk, &log, &format!("the read {nth} failed"));
    }
    trial.end("keys, one failed read");
}

/// Keys are kept, and the process ends before it is known whether they were committed: they are, or they are not.
#[test]
fn an_end_between_keeping_and_committing() {
    let mut trial = Trial::default();
    for n_epochs in 1..=N_EPOCHS {
        let (disk, mut log) = (SimFs::new(), Log::default());
        let mut store = open(&disk, LITTLE, None).unwrap();
        for epoch in 0..n_epochs {
            passing(&mut store, keys_of(epoch)).unwrap();
            log.0.push(store.keep().unwrap());
        }
        drop(store);
        for (lost, left) in disk.power_losses(7, 50).enumerate() {
            trial.judge(&left, &log, &format!("{n_epochs} committed, disk {lost}"));
            let before = Log(log.0[..n_epochs - 1].to_vec());
            trial.judge(&left, &before, &format!("the last of {n_epochs} not committed, disk {lost}"));
        }
    }
    trial.end("keys, an end before the commit");
}

#[test]
fn a_kill_within_each_recovery() {
    let (start, mut trial) = (SimFs::new(), Trial::default());
    let (disk, _) = unharmed(&start);
    for nth in (0..disk.n_operations()).step_by(5) {
        let (disk, mut log) = (start.reboot().with_fault(nth, Fault::KillAfter), Log::default());
        let _ = go_on(&disk, &mut log);
        let left = disk.reboot();
        for second in 0.. {
            let (again, mut log) = (left.reboot().with_fault(second, Fault::PowerLoss), log.clone());
            let _ = go_on(&again, &mut log);
            if !again.is_killed() {
                break;
            }
            for (lost, left) in again.power_losses(second, 4).enumerate() {
                let case = format!("killed at {nth}, then the power lost at {second}, disk {lost}");
                trial.judge(&left, &log, &case);
            }
        }
    }
    trial.end("keys, two faults");
}
