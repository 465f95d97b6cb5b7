//! Sightings remembered from run to run, against a map in memory; damaged files; kills.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_commit::{Sighting, Sightings, SightingsKept, SightingsReader};
use aqueduct_core::{ErrorKind, Fs, Result};
use aqueduct_primitives::ByteCount;
use aqueduct_testkit::faults::{Fault, SimFs};
use proptest::prelude::*;
use serde_json::{Value, json};

const FOLDER: &str = "/state/keys";
/// Room for a handful of keys.
const LITTLE: ByteCount = ByteCount::kib(2);
const DAY: i64 = 86_400_000_000;

fn open(disk: &SimFs, days: Option<u16>, kept: Option<&Value>) -> Result<Sightings> {
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    Sightings::open(&fs, FOLDER.into(), LITTLE, days, kept, None)
}

fn read(disk: &SimFs, kept: &Value) -> Result<Vec<(String, Sighting)>> {
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    SightingsReader::open(&fs, FOLDER.into(), kept)?.collect()
}

/// What was seen of each key, as plainly as it can be told.
#[derive(Clone, Debug, Default)]
struct Oracle(BTreeMap<String, Sighting>);

impl Oracle {
    fn add(&mut self, key: &str, at: i64, from: Option<&str>, days: Option<u16>) {
        let forgotten = |known: &&mut Sighting| {
            let gap = at.div_euclid(DAY) - known.last_seen.div_euclid(DAY);
            days.is_some_and(|days| gap > i64::from(days))
        };
        let from: BTreeSet<String> = from.map(str::to_owned).into_iter().collect();
        match self.0.get_mut(key).filter(|known| !forgotten(known)) {
            Some(known) => {
                known.last_seen = at;
                known.count += 1;
                known.from.extend(from);
            }
            None => {
                let new = Sighting { first_seen: at, last_seen: at, count: 1, from, more: false };
                self.0.insert(key.to_owned(), new);
            }
        }
    }

    /// Of the places the first 16 are told.
    fn told(&self) -> Vec<(String, Sighting)> {
        let told = |(key, one): (&String, &Sighting)| {
            let mut one = one.clone();
            one.more = one.from.len() > 16;
            one.from = one.from.into_iter().take(16).collect();
            (key.clone(), one)
        };
        self.0.iter().map(told).collect()
    }
}

#[derive(Clone, Debug)]
enum Action {
    /// Rows by key and place.
    See(Vec<(u8, Option<u8>)>),
    Commit,
    /// A commit that fails after all was kept, which ends the run.
    FailedCommit,
    Reopen,
    LaterBy(u8),
}

fn action() -> impl Strategy<Value = Action> {
    let row = (0_u8..60, prop::option::of(0_u8..40));
    prop_oneof![
        6 => prop::collection::vec(row, 0..60).prop_map(Action::See),
        3 => Just(Action::Commit),
        1 => Just(Action::FailedCommit),
        1 => Just(Action::Reopen),
        1 => (1_u8..4).prop_map(Action::LaterBy),
    ]
}

fn compare(days: Option<u16>, actions: Vec<Action>) -> Result<()> {
    let disk = SimFs::new();
    let (mut store, mut now, mut at) = (open(&disk, days, None)?, Oracle::default(), 20_000 * DAY);
    let mut committed: (Option<Value>, Oracle) = Default::default();
    for action in actions {
        match action {
            Action::See(rows) => {
                for (key, place) in rows {
                    let (key, place) = (format!("key-{key}"), place.map(|n| format!("feed-{n:02}")));
                    at += 1;
                    now.add(&key, at, place.as_deref(), days);
                    store.add(&key, at, place.as_deref())?;
                }
            }
            Action::LaterBy(n) => at += i64::from(n) * DAY,
            Action::Commit => committed = (Some(store.keep()?), now.clone()),
            Action::FailedCommit | Action::Reopen => {
                if matches!(action, Action::FailedCommit) {
                    store.keep()?;
                }
                drop(store);
                now = committed.1.clone();
                store = open(&disk, days, committed.0.as_ref())?;
            }
        }
        let told = committed.0.as_ref().map(|kept| read(&disk, kept)).transpose()?.unwrap_or_default();
        let expected = committed.1.told();
        match days {
            None => assert_eq!(told, expected),
            // What nobody asks for any more may be gone, or not yet.
            Some(days) => {
                let is_fresh = |(_, one): &&(String, Sighting)| {
                    at.div_euclid(DAY) - one.last_seen.div_euclid(DAY) <= i64::from(days)
                };
                let fresh =
                    |all: &[(String, Sighting)]| all.iter().filter(is_fresh).cloned().collect::<Vec<_>>();
                assert_eq!(fresh(&told), fresh(&expected));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // S2.12
    #[test]
    fn what_is_told_is_what_a_map_says(
        days in prop::option::of(0_u16..5),
        actions in prop::collection::vec(action(), 1..25),
    ) {
        compare(days, actions).map_err(|error| TestCaseError::fail(error.chain()))?;
    }
}

const N_EPOCHS: usize = 3;

/// The values of the commits that succeeded.
type Log = Vec<Value>;

/// What an epoch sees: each key twice, some keys also in the epoch before.
fn see(epoch: usize, mut take: impl FnMut(&str, i64, Option<&str>) -> Result<()>) -> Result<()> {
    for n in (epoch * 20..epoch * 20 + 30).chain(epoch * 20..epoch * 20 + 30) {
        take(&format!("key-{n:03}"), epoch as i64, Some(&format!("feed-{}", n % 3)))?;
    }
    Ok(())
}

fn seen_after(n_epochs: usize) -> Vec<(String, Sighting)> {
    let mut oracle = Oracle::default();
    for epoch in 0..n_epochs {
        let _ = see(epoch, |key, at, from| {
            oracle.add(key, at, from, None);
            Ok(())
        });
    }
    oracle.told()
}

/// The epochs that are not committed yet, each committed once all is kept, as long as nothing goes wrong.
fn go_on(disk: &SimFs, log: &mut Log) -> Result<()> {
    let mut store = open(disk, None, log.last())?;
    for epoch in log.len()..N_EPOCHS {
        see(epoch, |key, at, from| store.add(key, at, from))?;
        log.push(store.keep()?);
    }
    // What is named no more is removed by the next commit.
    log.push(store.keep()?);
    Ok(())
}

#[derive(Default)]
struct Trial {
    n_cases: usize,
    violations: Vec<String>,
}

impl Trial {
    /// On a disk as it was left, the sightings are those of the last commit, and the run can go on to its end.
    fn judge(&mut self, left: &SimFs, log: &Log, case: &str) {
        self.n_cases += 1;
        let look = left.reboot();
        let told = open(&look, None, log.last()).map(drop);
        let told = told.and_then(|()| log.last().map_or(Ok(Vec::new()), |kept| read(&look, kept)));
        match told {
            Ok(told) if told == seen_after(log.len().min(N_EPOCHS)) => {}
            other => self.violations.push(format!("{case}: {} commits, told is {other:?}", log.len())),
        }
        let (disk, mut log) = (left.reboot(), log.clone());
        if let Err(error) = go_on(&disk, &mut log) {
            self.violations.push(format!("{case}: going on: {}", error.chain()));
            return;
        }
        let there: BTreeSet<PathBuf> = disk.files_below(FOLDER).into_keys().collect();
        let named = SightingsKept::of(log.last().unwrap()).unwrap().unwrap().files;
        let named: BTreeSet<PathBuf> = named.into_iter().map(PathBuf::from).collect();
        let told = read(&disk, log.last().unwrap()).unwrap();
        if there != named || told != seen_after(N_EPOCHS) {
            self.violations
                .push(format!("{case}: at the end there are {there:?}, named {named:?}, told {told:?}"));
        }
    }

    fn fault(&mut self, nth: u64, fault: Fault) {
        let (disk, mut log) = (SimFs::new().with_fault(nth, fault), Log::new());
        if go_on(&disk, &mut log).is_ok() {
            self.violations.push(format!("{fault:?} at {nth} went by unseen"));
        }
        if fault == Fault::PowerLoss {
            for (lost, left) in disk.power_losses(nth, 12).enumerate() {
                self.judge(&left, &log, &format!("power lost at {nth}, disk {lost}"));
            }
        } else {
            self.judge(&disk, &log, &format!("{fault:?} at {nth}"));
        }
    }
}

/// S2.8: killed anywhere and gone on with, each row counts once.
#[test]
fn one_fault_at_each_operation_and_each_row_counts_once() {
    let (disk, mut log, mut trial) = (SimFs::new(), Log::new(), Trial::default());
    go_on(&disk, &mut log).unwrap();
    let n_created = disk.names().iter().filter(|name| name.contains("create_new")).count();
    assert!(n_created > 10, "runs are written and merged in each epoch: {n_created}");
    for nth in 0..disk.n_operations() {
        for fault in Fault::ALL {
            trial.fault(nth, fault);
        }
    }
    println!("sightings, one fault: {} cases, {} violations", trial.n_cases, trial.violations.len());
    assert!(trial.violations.is_empty(), "{}", trial.violations[..trial.violations.len().min(3)].join("\n"));
}

#[test]
fn one_read_that_fails_is_told() {
    let (disk, mut log, mut trial) = (SimFs::new(), Log::new(), Trial::default());
    go_on(&disk, &mut log).unwrap();
    for nth in 0..disk.n_reads() {
        let (disk, mut log) = (SimFs::new().with_read_error(nth), Log::new());
        assert!(go_on(&disk, &mut log).is_err(), "the read {nth} failed and nobody was told");
        trial.judge(&disk, &log, &format!("the read {nth} failed"));
    }
    assert!(trial.violations.is_empty(), "{:?}", trial.violations.first());
}

#[test]
fn what_is_damaged_or_newer_is_told_with_what_to_do() {
    let disk = SimFs::new();
    let mut log = Log::new();
    go_on(&disk, &mut log).unwrap();
    let kept = log.last().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let name = SightingsKept::of(kept).unwrap().unwrap().files.remove(0);
    let path = PathBuf::from(FOLDER).join(name);
    let bytes = fs.read(&path, 1 << 20).unwrap();
    for at in [0, 5, 12, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs.remove_file(&path).unwrap();
        fs.create_new(&path).unwrap().write_all(&changed).unwrap();
        let error = read(&disk, kept).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "byte {at}: {error}");
        assert!(error.chain().contains("--full-refresh"), "{}", error.chain());
    }
    fs.remove_file(&path).unwrap();
    assert_eq!(open(&disk, None, Some(kept)).unwrap_err().kind(), ErrorKind::Conflict);
    let newer = json!({"format": 2, "sightings": []});
    assert_eq!(SightingsKept::of(&newer).unwrap_err().kind(), ErrorKind::Newer);
}
