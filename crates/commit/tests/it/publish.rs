//! What is in sight, what is left behind, what is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_commit::{End, Epoch, FlowLog, Manifest, Mode, NewRun, Published, Start, Target, Transaction};
use aqueduct_core::{Error, ErrorKind, Fs, Output, Part, Result, StdFs};
use aqueduct_testkit::faults::{FailingFs, Fault, SimFs};
use chrono::{DateTime, Utc};
use tempfile::TempDir;

type Files = BTreeMap<String, String>;

fn folder(dir: &TempDir) -> Output {
    Output { path: dir.path().join("lake/out"), is_file: false, allow_empty: false, mode: None }
}

fn one_file(dir: &TempDir) -> Output {
    Output { path: dir.path().join("lake/out.csv"), is_file: true, allow_empty: false, mode: None }
}

fn std_fs() -> Arc<dyn Fs> {
    Arc::new(StdFs)
}

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH
}

/// Begins a run of a flow of its own for each output.
fn begin(fs: &Arc<dyn Fs>, output: &Output, run_id: &str) -> Result<Transaction> {
    let parent = output.path.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let run = NewRun {
        flow: "test".into(),
        run_id: run_id.into(),
        now: now(),
        identity: BTreeMap::new(),
        fixed: BTreeMap::new(),
        targets: vec![Target { output: output.clone(), mode: Mode::Replace, is_filled_last: false }],
    };
    FlowLog::open(fs, &parent.join("state"))?.begin(run, Start::Resume)
}

fn finish(transaction: &mut Transaction, parts: Vec<Part>) -> Result<Published> {
    let epoch = Epoch { parts: vec![parts], ..Epoch::default() };
    let mut committed = transaction.commit(epoch, End::Finish, now())?;
    match committed.pending.take() {
        Some(error) => Err(error),
        None => Ok(committed.published.remove(0)),
    }
}

fn text(path: &Path) -> String {
    String::from_utf8(StdFs.read(path, 1 << 20).unwrap()).unwrap()
}

/// Stages parts as a sink does, one row a line, and gives them.
fn stage(staging: &Transaction, files: &[(&str, &str)]) -> Vec<Part> {
    let part = |(name, text): &(&str, &str)| {
        let staged = staging.stage_dir(0).unwrap().join(name);
        fs::create_dir_all(staged.parent().unwrap()).unwrap();
        fs::write(&staged, text).unwrap();
        let rows = text.lines().count() as u64;
        Part {
            staged,
            name: (*name).into(),
            rows,
            n_bytes: text.len() as u64,
            blake3: format!("hash of {text}"),
            extents: None,
        }
    };
    files.iter().map(part).collect()
}

/// One run from beginning to end.
fn run(fs: &Arc<dyn Fs>, output: &Output, run_id: &str, files: &[(&str, &str)]) -> Result<Published> {
    let mut transaction = begin(fs, output, run_id)?;
    let parts = stage(&transaction, files);
    let published = finish(&mut transaction, parts);
    let _ = transaction.close();
    published
}

/// What a reader of the output sees: its files, without what is hidden.
fn in_sight(output: &Output) -> Files {
    let mut files = Files::new();
    if output.path.is_file() {
        files.insert("file".into(), text(&output.path));
    } else if output.path.is_dir() {
        walk(&output.path, &output.path, &mut files);
    }
    files
}

fn walk(root: &Path, folder: &Path, files: &mut Files) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("_aqueduct") => {}
            true => walk(root, &path, files),
            false => {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, text(&path));
            }
        }
    }
}

fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything(&path));
        }
        found.push(path);
    }
    found
}

fn files(list: &[(&str, &str)]) -> Files {
    list.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

const OLD: &[(&str, &str)] = &[("a.csv", "1\n"), ("x=1/b.csv", "2\n3\n")];
const NEW: &[(&str, &str)] = &[("x=2/c.csv", "4\n5\n6\n"), ("d.csv", "7\n")];

#[test]
fn a_run_replaces_what_the_one_before_wrote() {
    let dir = TempDir::new().unwrap();
    let output = folder(&dir);
    run(&std_fs(), &output, "r1", OLD).unwrap();
    assert_eq!(in_sight(&output), files(OLD));
    let published = run(&std_fs(), &output, "r2", NEW).unwrap();
    assert_eq!(published, Published { path: output.path.clone(), rows: 4, n_bytes: 8, n_parts: 2 });
    assert_eq!(in_sight(&output), files(NEW));

    let manifest = text(&output.path.join("_aqueduct/manifest.json"));
    let manifest = Manifest::parse(manifest.as_bytes()).unwrap();
    let parts: Vec<_> =
        manifest.parts.iter().map(|part| (part.name.as_str(), part.rows, part.bytes)).collect();
    assert_eq!(parts, [("d.csv", 1, 2), ("x=2/c.csv", 3, 6)]);
    assert_eq!((manifest.run_id.as_str(), manifest.rows), ("r2", 4));
    assert_eq!(fs::read_dir(dir.path().join("lake")).unwrap().count(), 1, "only the output is left");
}

#[test]
fn one_file_sealed_in_two_parts_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let mut run = begin(&std_fs(), &one_file(&dir), "r1").unwrap();
    let parts = stage(&run, &[("out.csv", "1\n"), ("2-out.csv", "2\n")]);
    let error = finish(&mut run, parts).unwrap_err();
    assert_eq!((error.kind(), error.context("n_parts")), (ErrorKind::Config, Some("2")));
    assert!(error.message().contains("write to a folder"), "{error}");
    run.close().unwrap();
}

#[test]
fn one_file_has_its_manifest_beside_it() {
    let dir = TempDir::new().unwrap();
    let output = one_file(&dir);
    for (run_id, rows) in [("r1", "1\n"), ("r2", "22\n")] {
        run(&std_fs(), &output, run_id, &[("out.csv", rows)]).unwrap();
        assert_eq!(text(&output.path), rows);
    }
    let left = everything(&dir.path().join("lake"));
    let manifest = dir.path().join("lake/_aqueduct/out.csv.manifest.json");
    assert!(left.contains(&manifest), "{left:?}");
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn nothing_is_left_of_a_first_run_that_failed() {
    let dir = TempDir::new().unwrap();
    for output in [folder(&dir), one_file(&dir)] {
        let run = begin(&std_fs(), &output, "r1").unwrap();
        stage(&run, OLD);
        run.close().unwrap();
        assert!(!dir.path().join("lake").exists());
    }
}

fn refused(output: &Output, says: &str) -> Error {
    let error = run(&std_fs(), output, "r9", NEW).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    error
}

#[test]
fn foreign_files_are_named_and_stay() {
    let dir = TempDir::new().unwrap();
    let lake = dir.path().join("lake");
    fs::create_dir_all(lake.join("out/x=1")).unwrap();
    fs::write(lake.join("out/x=1/mine.csv"), "precious\n").unwrap();
    refused(&folder(&dir), "x=1/mine.csv");
    fs::write(lake.join("out.csv"), "precious\n").unwrap();
    refused(&one_file(&dir), "out.csv");
    refused(&Output { is_file: false, ..one_file(&dir) }, "a file stands");
    refused(&Output { is_file: true, ..folder(&dir) }, "a folder stands");
    assert_eq!(text(&lake.join("out/x=1/mine.csv")), "precious\n");
    assert_eq!(everything(&lake).len(), 4, "nothing was added");
}

#[test]
fn a_file_added_to_or_changed_in_an_output_is_foreign() {
    let dir = TempDir::new().unwrap();
    let output = folder(&dir);
    run(&std_fs(), &output, "r1", OLD).unwrap();
    fs::write(output.path.join("a.csv"), "changed\n").unwrap();
    refused(&output, "changed after");
    fs::write(output.path.join("a.csv"), "1\n").unwrap();
    fs::write(output.path.join("notes.txt"), "mine\n").unwrap();
    refused(&output, "notes.txt");

    // It may also appear while the run is under way.
    fs::remove_file(output.path.join("notes.txt")).unwrap();
    let mut run = begin(&std_fs(), &output, "r2").unwrap();
    let parts = stage(&run, NEW);
    fs::write(output.path.join("late.txt"), "mine\n").unwrap();
    assert_eq!(finish(&mut run, parts).unwrap_err().kind(), ErrorKind::Conflict);
    run.close().unwrap();
    assert_eq!(text(&output.path.join("late.txt")), "mine\n");
}

#[test]
fn an_empty_folder_of_the_users_is_no_obstacle() {
    let dir = TempDir::new().unwrap();
    let output = folder(&dir);
    fs::create_dir_all(&output.path).unwrap();
    run(&std_fs(), &output, "r1", OLD).unwrap();
    assert_eq!(in_sight(&output), files(OLD));
}

#[test]
fn no_rows_replace_no_rows_only() {
    let dir = TempDir::new().unwrap();
    let output = folder(&dir);
    run(&std_fs(), &output, "r1", &[("a.csv", "")]).unwrap();
    run(&std_fs(), &output, "r2", &[("b.csv", "")]).unwrap();
    run(&std_fs(), &output, "r3", OLD).unwrap();
    let error = run(&std_fs(), &output, "r4", &[("c.csv", "")]).unwrap_err();
    assert!(error.to_string().contains("allow_empty"), "{error}");
    assert_eq!(in_sight(&output), files(OLD));
    let output = Output { allow_empty: true, ..output };
    run(&std_fs(), &output, "r5", &[("c.csv", "")]).unwrap();
    assert_eq!(in_sight(&output), files(&[("c.csv", "")]));
}

#[test]
fn an_output_has_one_writer() {
    let dir = TempDir::new().unwrap();
    let output = folder(&dir);
    let first = begin(&std_fs(), &output, "r1").unwrap();
    let error = begin(&std_fs(), &output, "r2").unwrap_err();
    assert!(error.to_string().contains("another run"), "{error}");
    drop(first);
    begin(&std_fs(), &output, "r3").unwrap().close().unwrap();
}

#[test]
fn a_killed_run_lets_go_of_its_output() {
    let output = Output { path: "/lake/out".into(), is_file: false, allow_empty: false, mode: None };
    let one = SimFs::new();
    let two: Arc<dyn Fs> = Arc::new(one.another_process());
    let first = begin(&(Arc::new(one.clone()) as Arc<dyn Fs>), &output, "r1").unwrap();
    assert_eq!(begin(&two, &output, "r2").unwrap_err().kind(), ErrorKind::Conflict);

    let dying = one.clone().with_fault(one.n_operations(), Fault::KillBefore);
    assert!(dying.sync_dir(Path::new("/")).is_err());
    let taken_over = begin(&two, &output, "r3").unwrap();
    drop(first);
    assert_eq!(begin(&two, &output, "r4").unwrap_err().kind(), ErrorKind::Conflict);
    taken_over.close().unwrap();
    let left = one.folders_below("/lake");
    assert_eq!(left, BTreeSet::new(), "{:#?}", one.names());
}

#[test]
fn parts_cannot_lead_out_of_the_output() {
    let dir = TempDir::new().unwrap();
    let output = folder(&dir);
    let mut run = begin(&std_fs(), &output, "r1").unwrap();
    let mut parts = stage(&run, OLD);
    parts[0].name = "../../a.csv".into();
    assert_eq!(finish(&mut run, parts).unwrap_err().kind(), ErrorKind::Bug);
}

#[test]
fn a_wall_in_the_path_is_named() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("wall"), "a file\n").unwrap();
    let output =
        Output { path: dir.path().join("wall/out.csv"), is_file: true, allow_empty: false, mode: None };
    let error = begin(&std_fs(), &output, "r1").unwrap_err();
    assert!(error.chain().contains("wall"), "{}", error.chain());
    assert_eq!(everything(dir.path()).len(), 1);
}

/// Fails every change in turn, and all after it, on a disk that cannot exchange two folders: with it, `kills` tries the
/// same. A reader sees the old or the new output, whole, or for a moment nothing; and the next run works.
#[test]
fn folders_are_whole_without_an_exchange_too() {
    for n_good in 0.. {
        let dir = TempDir::new().unwrap();
        let output = folder(&dir);
        run(&std_fs(), &output, "r1", OLD).unwrap();
        let failing: Arc<dyn Fs> = Arc::new(FailingFs::dead_after(n_good).without_exchange());
        let result = run(&failing, &output, "r2", NEW);
        let seen = in_sight(&output);
        assert!(
            seen.is_empty() || seen == files(OLD) || seen == files(NEW),
            "after {n_good} changes: {seen:?}"
        );

        // Who comes next finds a whole output, whichever, and can replace it.
        begin(&std_fs(), &output, "r3").unwrap().close().unwrap();
        let seen = in_sight(&output);
        assert!(seen == files(OLD) || seen == files(NEW), "recovered after {n_good} changes: {seen:?}");
        run(&std_fs(), &output, "r4", OLD).unwrap();
        assert_eq!(in_sight(&output), files(OLD));
        if result.is_ok() {
            assert!(n_good > 5, "the failing disk failed");
            return;
        }
    }
}
