//! Every operation of a run, killed before and after, failed, cut short, and the power lost at it; then the run is
//! made again, and all that it leaves is judged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use aqueduct_commit::{Manifest, Mode};
use aqueduct_core::collections::{self, FileOfItems};
use aqueduct_core::{Fs, is_in_store};
use aqueduct_testkit::faults::{Fault, SimFs};

use crate::flow::{Flow, IN_STORE, LAKE, LETTERS, N_SPLITS, STATE, STATE_IN_STORE, Shape, Work};

/// Disks tried after each loss of power. More find less: the first are those that differ by one change.
const MAX_DISKS: usize = 12;

pub(crate) const LOG: &str = "/state/flows/test/log";
/// Where the log is if it is in the object store.
const LOG_IN_STORE: &str = "s3://lake/state/flows/test/log";

pub(crate) const BEFORE: Work = Work { run_id: "r0", first: 100 };
pub(crate) const FIRST: Work = Work { run_id: "r1", first: 0 };
pub(crate) const AGAIN: Work = Work { run_id: "r2", first: 0 };
const OTHER: Work = Work { run_id: "o1", first: 400 };
pub(crate) const LATER: Work = Work { run_id: "r3", first: 200 };
pub(crate) const LAST: Work = Work { run_id: "r5", first: 300 };

pub(crate) const FOLDER_REPLACED: Shape = Shape { mode: Mode::Replace, is_file: false, is_in_store: false };
pub(crate) const FILE_REPLACED: Shape = Shape { mode: Mode::Replace, is_file: true, is_in_store: false };
pub(crate) const FOLDER_APPENDED: Shape = Shape { mode: Mode::Append, is_file: false, is_in_store: false };
const PARTITIONS_REPLACED: Shape =
    Shape { mode: Mode::ReplacePartitions, is_file: false, is_in_store: false };
const MERGED: Shape = Shape { mode: Mode::Merge, is_file: false, is_in_store: false };
pub(crate) const FILE_APPENDED: Shape = Shape { mode: Mode::Append, is_file: true, is_in_store: false };

/// The flow under test, and what anybody may see of it.
pub(crate) struct Trial {
    pub(crate) flow: Flow,
    pub(crate) n_cases: AtomicUsize,
    violations: Mutex<Vec<String>>,
    /// What a log says, by its bytes: most looks find it as it was.
    committed: Mutex<HashMap<u64, BTreeSet<u64>>>,
}

pub(crate) fn seam(disk: &SimFs) -> Arc<dyn Fs> {
    Arc::new(disk.clone())
}

/// The rows in the text files of an output, and what is wrong with them as files.
pub(crate) fn rows(disk: &SimFs, path: &Path) -> Result<Vec<u64>, String> {
    let mut rows = Vec::new();
    let files = match is_in_store(path) {
        true => listed(disk, path)?,
        false => disk.files_below(path),
    };
    for (name, bytes) in files {
        if name.starts_with("_aqueduct") {
            continue;
        }
        let text = String::from_utf8(bytes).map_err(|_| format!("{} is no text", name.display()))?;
        if !text.ends_with('\n') {
            return Err(format!("{} is cut off", name.display()));
        }
        for line in text.lines() {
            rows.push(line.parse().map_err(|_| format!("{} has the line `{line}`", name.display()))?);
        }
    }
    Ok(rows)
}

/// The parts of an output in an object store, where its manifest says which count; before the first one, none.
fn listed(disk: &SimFs, path: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let (folder, manifest) = places(path);
    let files = disk.files_below(&folder);
    let Some(text) = files.get(Path::new(&manifest)) else { return Ok(BTreeMap::new()) };
    let manifest = Manifest::parse(text).map_err(|error| error.chain())?;
    let part = |name: &String| {
        let name = PathBuf::from(name);
        let bytes =
            files.get(&name).cloned().ok_or_else(|| format!("{} is listed and not there", name.display()))?;
        Ok((name, bytes))
    };
    manifest.parts.iter().map(|listed| part(&listed.name)).collect()
}

/// The folder that names of parts start from, and the manifest's place there.
fn places(path: &Path) -> (PathBuf, String) {
    match path.extension() {
        Some(_) => {
            let name = path.file_name().expect("a name").to_string_lossy();
            (path.parent().expect("a folder").to_owned(), format!("_aqueduct/{name}.manifest.json"))
        }
        None => (path.to_owned(), "_aqueduct/manifest.json".to_owned()),
    }
}

/// Where the document of its collection is, there.
fn document_of(path: &Path) -> PathBuf {
    PathBuf::from(places(path).1.replace("manifest.json", "collection.json"))
}

fn log_files(disk: &SimFs) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = disk.files_below(LOG);
    files.extend(disk.files_below(LOG_IN_STORE));
    files
}

impl Trial {
    pub(crate) fn of(outputs: [Shape; 2]) -> Arc<Self> {
        Arc::new(Self {
            flow: Flow { name: "test", state: STATE, is_elsewhere: false, checkpoint_every: 100, outputs },
            n_cases: AtomicUsize::new(0),
            violations: Mutex::default(),
            committed: Mutex::default(),
        })
    }

    /// The same with the log in an object store.
    pub(crate) fn with_log_in_store(outputs: [Shape; 2]) -> Arc<Self> {
        let mut trial = Self::of(outputs);
        let flow = Flow { state: STATE_IN_STORE, ..trial.flow };
        Arc::get_mut(&mut trial).expect("nobody else has it").flow = flow;
        trial
    }

    /// The same where each run is on a machine of its own.
    fn with_log_in_store_and_runs_elsewhere(outputs: [Shape; 2]) -> Arc<Self> {
        let mut trial = Self::with_log_in_store(outputs);
        let flow = &mut Arc::get_mut(&mut trial).expect("nobody else has it").flow;
        (flow.is_elsewhere, flow.checkpoint_every) = (true, 2);
        trial
    }

    /// The same with a checkpoint behind every other record.
    pub(crate) fn with_checkpoints(outputs: [Shape; 2]) -> Arc<Self> {
        let mut trial = Self::of(outputs);
        Arc::get_mut(&mut trial).expect("nobody else has it").flow.checkpoint_every = 2;
        trial
    }

    pub(crate) fn violated(&self, disk: &SimFs, what: &str) {
        let mut violations = self.violations.lock().unwrap();
        if violations.len() < 3 {
            let log = disk.names();
            let tail =
                log.iter().skip(log.len().saturating_sub(60)).cloned().collect::<Vec<_>>().join("\n  ");
            violations.push(format!("{what}\n  {tail}"));
        } else if violations.len() == 3 {
            violations.push("and more".into());
        }
    }

    /// A disk on which an earlier run has ended.
    pub(crate) fn disk(&self) -> SimFs {
        let disk = SimFs::new();
        self.flow.run(&seam(&disk), BEFORE).expect("nothing goes wrong");
        disk.sync();
        disk.reboot()
    }

    /// What a reader may see at any moment: committed rows only, each once; of what is replaced, all the old or all
    /// the new ones.
    fn look(&self, disk: &SimFs) {
        let committed = self.committed(disk);
        for (at, shape) in self.flow.outputs.iter().enumerate() {
            let path = self.flow.path(at);
            let seen = match rows(disk, &path) {
                Ok(seen) => seen,
                Err(what) => return self.violated(disk, &format!("{}: {what}", path.display())),
            };
            let set: BTreeSet<u64> = seen.iter().copied().collect();
            let wrong = if set.len() < seen.len() {
                Some("rows twice")
            } else if !set.is_subset(&committed) {
                Some("rows that are not committed")
            } else if !is_whole(*shape, &set) {
                Some("some rows of a run without the others")
            } else {
                None
            };
            if let Some(wrong) = wrong {
                self.violated(disk, &format!("a reader of {} sees {wrong}: {seen:?}", path.display()));
            }
        }
    }

    fn committed(&self, disk: &SimFs) -> BTreeSet<u64> {
        let mut hasher = DefaultHasher::new();
        log_files(disk).hash(&mut hasher);
        let mut known = self.committed.lock().unwrap();
        known.entry(hasher.finish()).or_insert_with(|| committed_rows(disk)).clone()
    }

    /// What must be there when all is done.
    pub(crate) fn judge(&self, disk: &SimFs, works: &[Work], case: &str) {
        self.judge_outputs(disk, works, case);
        self.judge_letters(disk, works, case);
    }

    /// All but what was rejected: that comes once more when a run is begun anew.
    pub(crate) fn judge_outputs(&self, disk: &SimFs, works: &[Work], case: &str) {
        for (at, shape) in self.flow.outputs.iter().enumerate() {
            let path = self.flow.path(at);
            let expected: Vec<u64> = match shape.mode {
                Mode::Replace => works.last().expect("a run").rows().into_iter().collect(),
                Mode::Append => {
                    works.iter().flat_map(|work| work.rows()).collect::<BTreeSet<_>>().into_iter().collect()
                }
                Mode::ReplacePartitions | Mode::Merge => updated(shape.mode, works).into_iter().collect(),
            };
            let mut seen = rows(disk, &path).unwrap_or_default();
            seen.sort_unstable();
            if seen != expected {
                self.violated(disk, &format!("{case}: {} has {seen:?}, not {expected:?}", path.display()));
            }
            if let Err(what) = check_manifest(disk, &path) {
                self.violated(disk, &format!("{case}: {}: {what}", path.display()));
            }
        }
        let hidden =
            [format!("{LAKE}/_aqueduct"), format!("{IN_STORE}/_aqueduct")].map(|at| disk.files_below(at));
        let outgoing = disk.files_below(format!("{STATE}/test/outgoing"));
        let hidden = hidden.iter().flat_map(|files| files.keys()).chain(outgoing.keys());
        let stays = |name: &str| name.ends_with(".manifest.json") || name.ends_with(".collection.json");
        let left: Vec<_> = hidden.filter(|name| !stays(&name.to_string_lossy())).collect();
        if !left.is_empty() {
            self.violated(disk, &format!("{case}: left behind: {left:?}"));
        }
    }

    /// Of each run all that was rejected, once.
    fn judge_letters(&self, disk: &SimFs, works: &[Work], case: &str) {
        let mut letters: Vec<u64> = Vec::new();
        for (name, bytes) in disk.files_below(LETTERS) {
            let text = String::from_utf8(bytes).unwrap_or_default();
            if !name.starts_with("_aqueduct") {
                letters.extend(text.trim().parse::<u64>());
            }
        }
        letters.sort_unstable();
        let of = |work: &Work| (0..N_SPLITS).map(|split| work.of_split(split).start).collect::<Vec<_>>();
        let mut expected: Vec<_> = works.iter().flat_map(of).collect();
        expected.sort_unstable();
        if letters != expected {
            self.violated(disk, &format!("{case}: rejected are {letters:?}, not {expected:?}"));
        }
    }

    /// The run is made again by another process, until nothing goes wrong; and one more after that.
    fn recover(&self, disk: &SimFs, case: &str) {
        self.n_cases.fetch_add(1, Relaxed);
        let mut works = vec![BEFORE];
        if !has_ended(disk, FIRST) {
            works.push(AGAIN);
            if let Err(error) = self.flow.run(&seam(disk), AGAIN) {
                return self.violated(disk, &format!("{case}: the next run failed: {}", error.chain()));
            }
        } else {
            works.push(FIRST);
        }
        if works.last().is_some_and(|work| work.run_id == "r2") {
            self.judge(disk, &works, case);
        }
        works.push(LATER);
        let disk = &disk.reboot();
        match self.flow.run(&seam(disk), LATER) {
            Ok(()) => self.judge(disk, &works, case),
            Err(error) => self.violated(disk, &format!("{case}: a later run failed: {}", error.chain())),
        }
    }

    fn watched(self: &Arc<Self>, disk: SimFs) -> SimFs {
        let trial = Arc::clone(self);
        disk.watch(move |disk| trial.look(disk));
        disk
    }

    /// Every operation with every fault, one at a time.
    fn one_fault_at_each_operation(self: &Arc<Self>) {
        let start = self.disk();
        let unharmed = self.watched(start.reboot());
        self.flow.run(&seam(&unharmed), FIRST).expect("nothing goes wrong");
        self.judge(&unharmed, &[BEFORE, FIRST], "unharmed");
        for nth in 0..unharmed.n_operations() {
            // What is to be seen before a kill was seen already.
            for fault in [Fault::KillBefore, Fault::KillAfter, Fault::ShortWrite] {
                let disk = start.reboot().with_fault(nth, fault);
                // Dead before its end, or when all was done but for a file that nobody needs.
                let _ = self.flow.run(&seam(&disk), FIRST);
                assert!(disk.is_killed(), "{fault:?} at {nth} struck nothing");
                self.recover(&self.watched(disk.reboot()), &format!("{fault:?} at {nth}"));
            }
            for fault in [Fault::EIO, Fault::Full] {
                let disk = self.watched(start.reboot().with_fault(nth, fault));
                // It fails, or what went wrong was of no account.
                let _ = self.flow.run(&seam(&disk), FIRST);
                self.recover(&self.watched(disk.reboot()), &format!("{fault:?} at {nth}"));
            }
            if unharmed
                .names()
                .iter()
                .any(|name| name.starts_with(&format!("{nth} ")) && name.contains("s3://"))
            {
                let disk = self.watched(start.reboot().with_fault(nth, Fault::ReplyLost));
                // It finds out what became of it, or leaves that to the next run.
                let _ = self.flow.run(&seam(&disk), FIRST);
                self.recover(&self.watched(disk.reboot()), &format!("reply lost at {nth}"));
            }
            let disk = start.reboot().with_fault(nth, Fault::PowerLoss);
            let _ = self.flow.run(&seam(&disk), FIRST);
            for (lost, disk) in disk.power_losses(nth, MAX_DISKS).enumerate() {
                self.look(&disk);
                self.recover(&disk, &format!("power lost at {nth}, disk {lost}"));
            }
        }
    }

    /// A kill at every operation, and another at every operation of the run that follows.
    fn a_kill_within_each_recovery(self: &Arc<Self>, apart: usize) {
        let start = self.disk();
        let unharmed = start.reboot();
        self.flow.run(&seam(&unharmed), FIRST).expect("nothing goes wrong");
        for nth in (0..unharmed.n_operations()).step_by(apart) {
            let disk = start.reboot().with_fault(nth, Fault::KillAfter);
            let _ = self.flow.run(&seam(&disk), FIRST);
            if has_ended(&disk, FIRST) && !is_pending(&disk) {
                continue;
            }
            let work = if has_ended(&disk, FIRST) { LATER } else { AGAIN };
            for second in 0.. {
                let again = disk.reboot().with_fault(second, Fault::KillAfter);
                let _ = self.flow.run(&seam(&again), work);
                if !again.is_killed() {
                    break;
                }
                self.n_cases.fetch_add(1, Relaxed);
                let last = again.reboot();
                let case = format!("killed at {nth}, then at {second}");
                self.finish(&last, work, &case);
            }
        }
    }

    /// Whatever two kills have left: one run more of whatever is not complete, and all is there.
    fn finish(&self, disk: &SimFs, work: Work, case: &str) {
        let (works, next): (&[Work], Work) = match work.run_id {
            "r3" if has_ended(disk, LATER) => (&[BEFORE, FIRST, LATER, LAST], LAST),
            "r3" => (&[BEFORE, FIRST, LATER], LATER),
            _ if ended_by_either(disk) => (&[BEFORE, AGAIN, LATER], LATER),
            _ => (&[BEFORE, AGAIN], Work { run_id: "r4", ..AGAIN }),
        };
        match self.flow.run(&seam(disk), next) {
            Ok(()) => self.judge(disk, works, case),
            Err(error) => self.violated(disk, &format!("{case}: the third run failed: {}", error.chain())),
        }
    }

    pub(crate) fn end(&self, name: &str) {
        let violations = self.violations.lock().unwrap();
        println!("{name}: {} cases, {} violations", self.n_cases.load(Relaxed), violations.len());
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    }
}

/// With two kills, the first is at every operation of this many: all of them take ten minutes, and are asked for by
/// `AQUEDUCT_FIRST_KILLS_APART=1`.
fn first_kills_apart() -> usize {
    std::env::var("AQUEDUCT_FIRST_KILLS_APART").map_or(11, |apart| apart.parse().expect("a number"))
}

/// Of a run whose rows come all at once, all or none.
fn is_whole(shape: Shape, seen: &BTreeSet<u64>) -> bool {
    let runs = [BEFORE, FIRST, LATER].map(Work::rows);
    let whole = |run: &BTreeSet<u64>| run.is_subset(seen) || run.is_disjoint(seen);
    match (shape.mode, shape.is_file) {
        (Mode::Append, false) => runs[0].is_subset(seen),
        (Mode::Append, true) => runs.iter().all(whole) && runs[0].is_subset(seen),
        (Mode::Replace, _) => runs.iter().any(|run| run == seen),
        (mode @ (Mode::ReplacePartitions | Mode::Merge), _) => {
            let works = [BEFORE, FIRST, LATER];
            (1..=works.len()).any(|n_runs| updated(mode, &works[..n_runs]) == *seen)
        }
    }
}

/// What an output has that was updated by one run after the other.
fn updated(mode: Mode, works: &[Work]) -> BTreeSet<u64> {
    let mut by_folder: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for work in works {
        by_folder.retain(|folder, _| !work.replaced(mode).contains(folder));
        for half in 0..2 {
            by_folder.entry(work.folder(half)).or_default().extend(work.of_half(half));
        }
    }
    by_folder.into_values().flatten().collect()
}

/// Rows of which the log says that they are committed.
fn committed_rows(disk: &SimFs) -> BTreeSet<u64> {
    let mut rows = BTreeSet::new();
    let mut first = BTreeMap::new();
    for record in records(disk) {
        let run = record["run_id"].as_str().unwrap_or_default().to_owned();
        if let Some(identity) = record["event"]["begin"]["identity"]["first"].as_str() {
            first.insert(run.clone(), identity.parse::<u64>().expect("a number"));
        }
        for kind in ["epoch", "finish"] {
            let splits = record["event"][kind]["positions"]["source"].as_object();
            for split in splits.into_iter().flat_map(|splits| splits.keys()) {
                let work = Work { run_id: "", first: first[&run] };
                rows.extend(
                    work.rows()
                        .into_iter()
                        .filter(|row| work.split_of(*row).map(|at| at.to_string()).as_ref() == Some(split)),
                );
            }
        }
    }
    rows
}

fn records(disk: &SimFs) -> Vec<serde_json::Value> {
    let files = log_files(disk);
    let records = files.iter().filter(|(name, _)| name.extension().is_some_and(|suffix| suffix == "json"));
    records
        .filter_map(|(_, bytes)| serde_json::from_slice(bytes.split(|byte| *byte == b'\n').next()?).ok())
        .collect()
}

pub(crate) fn has_ended(disk: &SimFs, work: Work) -> bool {
    records(disk).iter().any(|record| record["run_id"] == work.run_id && !record["event"]["finish"].is_null())
}

fn ended_by_either(disk: &SimFs) -> bool {
    has_ended(disk, FIRST) || has_ended(disk, AGAIN)
}

/// Whether something committed waits to be public.
fn is_pending(disk: &SimFs) -> bool {
    let waits =
        |at: String| disk.files_below(at).keys().any(|name| name.to_string_lossy().contains("manifest-"));
    waits(format!("{LAKE}/_aqueduct")) || waits(format!("{IN_STORE}/_aqueduct"))
}

fn check_manifest(disk: &SimFs, path: &Path) -> Result<(), String> {
    let (folder, manifest) = places(path);
    let files = disk.files_below(&folder);
    let text = files.get(Path::new(&manifest)).ok_or("there is no manifest")?;
    let manifest = Manifest::parse(text).map_err(|error| error.chain())?;
    for part in &manifest.parts {
        match files.get(Path::new(&part.name)) {
            Some(bytes) if bytes.len() as u64 == part.bytes => {}
            _ => return Err(format!("the manifest lists `{}`, which is not there", part.name)),
        }
    }
    let files_of_items = manifest.parts.iter().map(|part| FileOfItems {
        name: &part.name,
        rows: part.rows,
        extents: part.extents.as_ref(),
    });
    let document = collections::documents(&files_of_items.collect::<Vec<_>>()).map(|(_, text)| text);
    let there = files.get(&document_of(path));
    if there != document.as_ref() {
        return Err("the document of the collection is not that of the parts".to_owned());
    }
    let data = disk.files_below(path).into_keys().filter(|name| !name.starts_with("_aqueduct")).count();
    if data != manifest.parts.len() {
        return Err(format!("{data} files are there, the manifest lists {}", manifest.parts.len()));
    }
    let n_seen = rows(disk, path)?.len() as u64;
    if n_seen == manifest.rows { Ok(()) } else { Err(format!("{n_seen} rows, not {}", manifest.rows)) }
}

/// After a kill, another flow writes to the same places, and then the killed one goes on.
fn another_flow_between(trial: &Trial) {
    let start = trial.disk();
    let other = Flow { name: "other", ..trial.flow };
    let unharmed = start.reboot();
    trial.flow.run(&seam(&unharmed), FIRST).expect("nothing goes wrong");
    for nth in 0..unharmed.n_operations() {
        trial.n_cases.fetch_add(1, Relaxed);
        let disk = start.reboot().with_fault(nth, Fault::KillAfter);
        let _ = trial.flow.run(&seam(&disk), FIRST);
        let disk = disk.reboot();
        let case = format!("killed at {nth}, then another flow");
        let next = if has_ended(&disk, FIRST) { LATER } else { AGAIN };
        let runs = other.run(&seam(&disk), OTHER).and_then(|()| trial.flow.run(&seam(&disk), next));
        let works: &[Work] = match next.run_id == LATER.run_id {
            true => &[BEFORE, FIRST, OTHER, LATER],
            false => &[BEFORE, OTHER, AGAIN],
        };
        match runs {
            Ok(()) => trial.judge(&disk, works, &case),
            Err(error) => trial.violated(&disk, &format!("{case}: a run failed: {}", error.chain())),
        }
    }
}

macro_rules! trials {
    ($($of:ident, $name:ident: $first:expr, $second:expr;)*) => { $(
        mod $name {
            use super::*;

            #[test]
            fn one_fault_at_each_operation() {
                let trial = Trial::$of([$first, $second]);
                trial.one_fault_at_each_operation();
                trial.end(concat!(stringify!($name), ", one fault"));
            }

            #[test]
            fn another_flow_between() {
                let trial = Trial::$of([$first, $second]);
                super::another_flow_between(&trial);
                trial.end(concat!(stringify!($name), ", another flow between"));
            }

            #[test]
            fn a_kill_within_each_recovery() {
                let trial = Trial::$of([$first, $second]);
                trial.a_kill_within_each_recovery(first_kills_apart());
                trial.end(concat!(stringify!($name), ", two kills"));
            }
        }
    )* };
}

trials! {
    of, two_folders_replaced: FOLDER_REPLACED, FOLDER_REPLACED;
    of, two_files_replaced: FILE_REPLACED, FILE_REPLACED;
    of, two_folders_appended_to: FOLDER_APPENDED, FOLDER_APPENDED;
    of, two_files_appended_to: FILE_APPENDED, FILE_APPENDED;
    of, a_folder_replaced_and_a_file_appended_to: FOLDER_REPLACED, FILE_APPENDED;
    of, a_folder_appended_to_and_a_file_replaced: FOLDER_APPENDED, FILE_REPLACED;
    of, two_folders_whose_partitions_are_replaced: PARTITIONS_REPLACED, PARTITIONS_REPLACED;
    of, a_folder_merged_and_one_appended_to: MERGED, FOLDER_APPENDED;
    of, two_folders_replaced_in_a_store: FOLDER_REPLACED.in_store(), FOLDER_REPLACED.in_store();
    of, two_folders_appended_to_in_a_store: FOLDER_APPENDED.in_store(), FOLDER_APPENDED.in_store();
    of, two_files_in_a_store: FILE_REPLACED.in_store(), FILE_APPENDED.in_store();
    of, partitions_replaced_and_merged_in_a_store: PARTITIONS_REPLACED.in_store(), MERGED.in_store();
    of, a_folder_in_a_store_and_one_on_the_disk: FOLDER_REPLACED.in_store(), FOLDER_APPENDED;
    with_checkpoints, a_log_with_checkpoints: FOLDER_REPLACED, FOLDER_APPENDED;
    with_log_in_store, all_in_a_store: FOLDER_REPLACED.in_store(), FOLDER_APPENDED.in_store();
    with_log_in_store_and_runs_elsewhere, each_run_elsewhere: FOLDER_REPLACED.in_store(), FOLDER_APPENDED.in_store();
}
