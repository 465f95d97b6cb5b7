//! Keys remembered from run to run, against a map in memory; damaged files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_commit::{KeyStore, Keyed, KeysIn, Remembering};
use aqueduct_core::{ErrorKind, Fs, Result, Scratch, StdFs};
use aqueduct_primitives::ByteCount;
use aqueduct_testkit::faults::SimFs;
use proptest::prelude::*;
use serde_json::Value;

pub(crate) const FOLDER: &str = "/state/keys";

/// Room for 16 keys that are not written yet.
pub(crate) const LITTLE: Remembering =
    Remembering { versioned: false, forget_after_days: None, memory: ByteCount::kib(1) };

pub(crate) fn open(disk: &SimFs, how: Remembering, kept: Option<&Value>) -> Result<KeyStore> {
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    KeyStore::open(&fs, KeysIn::Folder(FOLDER.into()), how, kept)
}

/// A key as a hash gives it; of some numbers one as no hash would.
pub(crate) fn key(n: u64) -> u128 {
    if n % 7 == 3 {
        return u128::from(n) << 64 | u128::from(n % 2);
    }
    let hash = blake3::hash(&n.to_be_bytes());
    u128::from_be_bytes(*hash.as_bytes().first_chunk().expect("16 bytes"))
}

/// What is known of keys: the greatest version, and the day it was seen last.
#[derive(Clone, Debug, Default)]
struct Oracle(HashMap<u128, (u128, u16)>);

impl Oracle {
    fn admit(&mut self, how: Remembering, row: Keyed, today: u16) -> bool {
        let forgotten = |day: u16| how.forget_after_days.is_some_and(|days| today - day > days);
        let known = self.0.get(&row.key).copied().filter(|(_, day)| !forgotten(*day));
        let passes = known.is_none_or(|(version, _)| how.versioned && row.version > version);
        let version = if passes { row.version } else { known.unwrap().0 };
        self.0.insert(row.key, (version, today));
        passes
    }
}

#[derive(Clone, Debug)]
enum Action {
    /// Rows by key and version.
    Admit(Vec<(u64, u128)>),
    /// What is known of keys.
    Ask(Vec<u64>),
    /// A commit that succeeds.
    Commit,
    /// A commit that fails after the keys were kept, which ends the run.
    FailedCommit,
    /// The run ends, and what was not committed is gone.
    Reopen,
    LaterBy(u16),
}

fn action() -> impl Strategy<Value = Action> {
    let row = (0_u64..120, 0_u128..4);
    prop_oneof![
        6 => prop::collection::vec(row, 0..40).prop_map(Action::Admit),
        3 => prop::collection::vec(0_u64..150, 0..40).prop_map(Action::Ask),
        3 => Just(Action::Commit),
        1 => Just(Action::FailedCommit),
        1 => Just(Action::Reopen),
        1 => (1_u16..4).prop_map(Action::LaterBy),
    ]
}

fn how() -> impl Strategy<Value = Remembering> {
    let memory = prop_oneof![Just(ByteCount::kib(1)), Just(ByteCount::kib(8)), Just(ByteCount::mib(1))];
    (any::<bool>(), prop::option::of(0_u16..5), memory).prop_map(|(versioned, forget_after_days, memory)| {
        Remembering { versioned, forget_after_days, memory }
    })
}

fn compare(how: Remembering, actions: Vec<Action>) -> Result<()> {
    let disk = SimFs::new();
    let (mut store, mut now, mut today) = (open(&disk, how, None)?, Oracle::default(), 20_000);
    let mut committed: (Option<Value>, Oracle) = Default::default();
    for action in actions {
        match action {
            Action::Admit(rows) => {
                let rows: Vec<_> =
                    rows.iter().map(|(n, version)| Keyed { key: key(*n), version: *version }).collect();
                let expected: Vec<_> = rows.iter().map(|row| now.admit(how, *row, today)).collect();
                assert_eq!(store.admit(&rows, today)?, expected);
            }
            // When a key is forgotten is said where keys are let in.
            Action::Ask(_) if how.forget_after_days.is_some() => {}
            Action::Ask(numbers) => {
                let keys: Vec<_> = numbers.iter().map(|n| key(*n)).collect();
                let known = |key: &u128| now.0.get(key).map(|known| if how.versioned { known.0 } else { 0 });
                assert_eq!(store.known(&keys)?, keys.iter().map(known).collect::<Vec<_>>());
            }
            Action::Commit => committed = (Some(store.keep()?), now.clone()),
            Action::LaterBy(days) => today += days,
            Action::FailedCommit | Action::Reopen => {
                if matches!(action, Action::FailedCommit) {
                    store.keep()?;
                }
                drop(store);
                now = committed.1.clone();
                store = open(&disk, how, committed.0.as_ref())?;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn it_says_what_a_map_in_memory_says(how in how(), actions in prop::collection::vec(action(), 1..60)) {
        compare(how, actions).unwrap();
    }
}

fn rows(numbers: impl IntoIterator<Item = u64>) -> Vec<Keyed> {
    numbers.into_iter().map(|n| Keyed { key: key(n), version: 0 }).collect()
}

fn n_passing(store: &mut KeyStore, numbers: impl IntoIterator<Item = u64>, today: u16) -> usize {
    store.admit(&rows(numbers), today).unwrap().into_iter().filter(|passes| *passes).count()
}

#[test]
fn what_may_count_again_stays_however_often_others_are_kept() {
    let disk = SimFs::new();
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let mut store = open(&disk, LITTLE, None).unwrap();
    n_passing(&mut store, 0..100, 0);
    let before = store.keep().unwrap();
    drop(store);
    for begins_with in [None, Some(&before)] {
        let folder = KeysIn::Folder(FOLDER.into());
        let mut store = KeyStore::open_beside(&fs, folder, LITTLE, begins_with, Some(&before)).unwrap();
        for n in 0..10 {
            n_passing(&mut store, 1000 * n..1000 * n + 100, 0);
            store.keep().unwrap();
        }
        drop(store);
        let mut store = open(&disk, LITTLE, Some(&before)).unwrap();
        assert_eq!(n_passing(&mut store, 0..110, 0), 10);
    }
}

/// Numbers whose keys have one upper half: no page ends where its fence could tell them apart.
#[test]
fn keys_that_are_nearly_the_same_are_told_apart() {
    let disk = SimFs::new();
    let how = Remembering { memory: ByteCount::kib(256), ..LITTLE };
    let mut store = open(&disk, how, None).unwrap();
    let rows: Vec<_> = (0..20_000).map(|n| Keyed { key: (5 << 64) | (2 * n), version: 0 }).collect();
    assert!(store.admit(&rows, 0).unwrap().into_iter().all(|passes| passes));
    assert!(!store.admit(&rows, 0).unwrap().into_iter().any(|passes| passes));
    let others: Vec<_> = rows.iter().map(|row| Keyed { key: row.key + 1, version: 0 }).collect();
    assert!(store.admit(&others, 0).unwrap().into_iter().all(|passes| passes));
    assert!(store.stats().n_merges > 0);
}

#[test]
fn forgotten_keys_leave_the_disk_when_runs_are_merged() {
    let disk = SimFs::new();
    let how = Remembering { forget_after_days: Some(30), ..LITTLE };
    let mut store = open(&disk, how, None).unwrap();
    assert_eq!(n_passing(&mut store, 0..100, 1000), 100);
    assert_eq!(n_passing(&mut store, 50..100, 1030), 0, "still known after 30 days, and seen again");
    assert_eq!(n_passing(&mut store, 0..100, 1031), 50, "those that were not are forgotten");
    assert_eq!(n_passing(&mut store, 1000..1400, 1100), 400);
    let kept = store.keep().unwrap();
    let n_kept: u64 = kept["runs"].as_array().unwrap().iter().map(|run| run["keys"].as_u64().unwrap()).sum();
    assert!((400..420).contains(&n_kept), "{kept}");
    // A clock that goes back forgets nothing, and brings nothing back.
    assert_eq!(n_passing(&mut store, 1000..1400, 900), 0);
    assert_eq!(n_passing(&mut store, 0..10, 900), 10);
}

#[test]
fn in_scratch_nothing_is_left_and_what_is_on_the_disk_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let fs: Arc<dyn Fs> = Arc::new(StdFs);
    let scratch = Scratch::new(folder.path().join("deep"), ByteCount::kib(256));
    let mut store = KeyStore::open(&fs, KeysIn::Scratch(scratch.clone()), LITTLE, None).unwrap();
    assert_eq!(n_passing(&mut store, 0..500, 0), 500);
    assert_eq!(n_passing(&mut store, 0..500, 0), 0);
    assert_eq!(std::fs::read_dir(&scratch.dir).unwrap().count(), 0);
    assert!(scratch.disk.free() < scratch.disk.total());
    let error = store.admit(&rows(1000..100_000), 0).unwrap_err();
    assert!(error.chain().contains("execution.spill.max_bytes"), "{}", error.chain());
    assert!(store.admit(&rows(0..1), 0).is_err(), "after an error it says nothing more");
    drop(store);
    assert_eq!(scratch.disk.free(), scratch.disk.total());
}

#[test]
fn keys_with_and_without_versions_and_those_of_a_newer_version_are_not_mixed_up() {
    let disk = SimFs::new();
    let mut store = open(&disk, LITTLE, None).unwrap();
    n_passing(&mut store, 0..10, 0);
    let kept = store.keep().unwrap();
    let told = |how, kept: &Value| open(&disk, how, Some(kept)).unwrap_err().chain();
    assert!(told(Remembering { versioned: true, ..LITTLE }, &kept).contains("--full-refresh"));
    let mut newer = kept.clone();
    newer["format"] = 2.into();
    assert!(told(LITTLE, &newer).contains("newer"));
    assert!(told(LITTLE, &"what".into()).contains("--full-refresh"));
}

/// A store of some groups of pages, on a real disk, in one run.
fn stored(folder: &Path) -> (Remembering, Value, PathBuf) {
    let how = Remembering { versioned: true, forget_after_days: None, memory: ByteCount::mib(8) };
    let mut store = reopened(folder, how, None).unwrap();
    assert_eq!(n_passing(&mut store, 0..N_STORED, 0) as u64, N_STORED);
    let kept = store.keep().unwrap();
    assert_eq!(kept["runs"].as_array().unwrap().len(), 1);
    let path = folder.join(kept["runs"][0]["name"].as_str().unwrap());
    (how, kept, path)
}

const N_STORED: u64 = 21_000;

fn reopened(folder: &Path, how: Remembering, kept: Option<&Value>) -> Result<KeyStore> {
    let fs: Arc<dyn Fs> = Arc::new(StdFs);
    KeyStore::open(&fs, KeysIn::Folder(folder.to_owned()), how, kept)
}

#[test]
fn a_changed_byte_anywhere_is_told_with_the_file_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (how, kept, path) = stored(folder.path());
    let whole = StdFs.read(&path, 1 << 30).unwrap();
    let all = rows(0..N_STORED);
    let read = || reopened(folder.path(), how, Some(&kept)).and_then(|mut store| store.admit(&all, 0));
    assert!(!read().unwrap().into_iter().any(|passes| passes));
    // In each page one byte, another each time; each of the last, where there is something else every few bytes.
    let tail = whole.len() - 200..whole.len();
    for at in (0..whole.len()).step_by(4096 - 37).chain(tail) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        let error = read().expect_err(&format!("byte {at} of {} was changed", whole.len()));
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.chain().contains(path.to_str().unwrap()), "{}", error.chain());
    }
    for n_left in [0, 5, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..n_left]).unwrap();
        let told = read().unwrap_err().chain();
        assert!(told.contains("--full-refresh") && told.contains(path.to_str().unwrap()), "{told}");
    }
    std::fs::remove_file(&path).unwrap();
    let told = read().unwrap_err().chain();
    assert!(told.contains("--full-refresh") && told.contains(path.to_str().unwrap()), "{told}");
}

#[test]
fn files_of_others_are_left_alone_and_leftovers_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (how, kept, path) = stored(folder.path());
    let (leftover, other) = (folder.path().join("seen-00000099.keys"), folder.path().join("notes.txt"));
    std::fs::write(&leftover, "x").unwrap();
    std::fs::write(&other, "x").unwrap();
    let mut store = reopened(folder.path(), how, Some(&kept)).unwrap();
    assert!(!leftover.exists() && other.exists() && path.exists());
    assert_eq!(n_passing(&mut store, 0..N_STORED + 1, 0), 1);
    store.keep().unwrap();
    drop(store);
    // Nothing was committed: all keys are forgotten.
    let mut store = reopened(folder.path(), how, None).unwrap();
    assert!(!path.exists());
    assert_eq!(n_passing(&mut store, 0..10, 0), 10);
}
