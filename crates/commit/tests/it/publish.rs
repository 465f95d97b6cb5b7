//! What is in sight, what is left behind, what is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_commit::{Manifest, Published, RunStamp, Staging};
use aqueduct_core::{Error, ErrorKind, Fs, Output, Part, Result, StdFs};
use aqueduct_testkit::faults::{FailingFs, Fault, SimFs};
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

fn stamp(run_id: &str) -> RunStamp {
    let written = "2026-01-01T00:00:00Z".parse().unwrap();
    RunStamp { flow: "test".into(), run_id: run_id.into(), mode: "replace", written, inputs: None }
}

fn text(path: &Path) -> String {
    String::from_utf8(StdFs.read(path, 1 << 20).unwrap()).unwrap()
}

/// Stages parts as a sink does, one row a line, and gives them.
fn stage(staging: &Staging, files: &[(&str, &str)]) -> Vec<Part> {
    let part = |(name, text): &(&str, &str)| {
        let staged = staging.stage_dir().join(name);
        fs::create_dir_all(staged.parent().unwrap()).unwrap();
        fs::write(&staged, text).unwrap();
        let rows = text.lines().count() as u64;
        Part {
            staged,
            name: (*name).into(),
            rows,
            n_bytes: text.len() as u64,
            blake3: format!("hash of {text}"),
        }
    };
    files.iter().map(part).collect()
}

/// One run from beginning to end, aborted when anything fails.
fn run(fs: &Arc<dyn Fs>, output: &Output, run_id: &str, files: &[(&str, &str)]) -> Result<Published> {
    let mut staging = Staging::prepare(fs, output, run_id)?;
    let parts = stage(&staging, files);
    let published = staging.seal(parts, &stamp(run_id)).and_then(|()| staging.publish());
    if published.is_err() {
        let _ = staging.abort();
    }
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
    let mut staging = Staging::prepare(&std_fs(), &one_file(&dir), "r1").unwrap();
    let parts = stage(&staging, &[("out.csv", "1\n"), ("2-out.csv", "2\n")]);
    let error = staging.seal(parts, &stamp("r1")).unwrap_err();
    assert_eq!((error.kind(), error.context("n_parts")), (ErrorKind::Config, Some("2")));
    assert!(error.message().contains("write to a folder"), "{error}");
    staging.abort().unwrap();
}

#[test]
fn one_file_has_its_manifest_beside_it() {
    let dir = TempDir::new().unwrap();
    let output = one_file(&dir);
    for (run_id, rows) in [("r1", "1\n"), ("r2", "22\n")] {
        run(&std_fs(), &output, run_id, &[("whatever", rows)]).unwrap();
        assert_eq!(text(&output.path), rows);
    }
    let left = everything(dir.path());
    let manifest = dir.path().join("lake/_aqueduct/out.csv.manifest.json");
    assert!(left.contains(&manifest), "{left:?}");
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn nothing_is_left_of_a_first_run_that_failed() {
    let dir = TempDir::new().unwrap();
    for output in [folder(&dir), one_file(&dir)] {
        let staging = Staging::prepare(&std_fs(), &output, "r1").unwrap();
        stage(&staging, OLD);
        staging.abort().unwrap();
        assert_eq!(everything(dir.path()), Vec::<PathBuf>::new());
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
    let mut staging = Staging::prepare(&std_fs(), &output, "r2").unwrap();
    staging.seal(stage(&staging, NEW), &stamp("r2")).unwrap();
    fs::write(output.path.join("late.txt"), "mine\n").unwrap();
    assert_eq!(staging.publish().unwrap_err().kind(), ErrorKind::Conflict);
    staging.abort().unwrap();
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
    let first = Staging::prepare(&std_fs(), &output, "r1").unwrap();
    let error = Staging::prepare(&std_fs(), &output, "r2").unwrap_err();
    assert!(error.to_string().contains("another run"), "{error}");
    drop(first);
    Staging::prepare(&std_fs(), &output, "r3").unwrap().abort().unwrap();
}

#[test]
fn a_killed_run_lets_go_of_its_output() {
    let output = Output { path: "/lake/out".into(), is_file: false, allow_empty: false, mode: None };
    let one = SimFs::new();
    let two: Arc<dyn Fs> = Arc::new(one.another_process());
    let staging = Staging::prepare(&(Arc::new(one.clone()) as Arc<dyn Fs>), &output, "r1").unwrap();
    assert_eq!(Staging::prepare(&two, &output, "r2").unwrap_err().kind(), ErrorKind::Conflict);

    let dying = one.clone().with_fault(one.n_operations(), Fault::KillBefore);
    assert!(dying.sync_dir(Path::new("/")).is_err());
    let taken_over = Staging::prepare(&two, &output, "r3").unwrap();
    drop(staging);
    assert_eq!(Staging::prepare(&two, &output, "r4").unwrap_err().kind(), ErrorKind::Conflict);
    taken_over.abort().unwrap();
    let left = one.folders_below("/");
    assert_eq!(left, BTreeSet::from(["lake".into()]), "{:#?}", one.names());
}

#[test]
fn parts_cannot_lead_out_of_the_output() {
    let dir = TempDir::new().unwrap();
    let output = folder(&dir);
    let mut staging = Staging::prepare(&std_fs(), &output, "r1").unwrap();
    let mut parts = stage(&staging, OLD);
    parts[0].name = "../../a.csv".into();
    assert_eq!(staging.seal(parts, &stamp("r1")).unwrap_err().kind(), ErrorKind::Bug);
}

#[test]
fn a_wall_in_the_path_is_named() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("wall"), "a file\n").unwrap();
    let output =
        Output { path: dir.path().join("wall/out.csv"), is_file: true, allow_empty: false, mode: None };
    let error = Staging::prepare(&std_fs(), &output, "r1").unwrap_err();
    assert!(error.chain().contains("wall"), "{}", error.chain());
    assert_eq!(everything(dir.path()).len(), 1);
}

/// Fails every change in turn, and all after it, as a crash does. A reader sees the old or the new output,
/// whole; and the next run works.
fn every_crash(output_of: fn(&TempDir) -> Output, has_old: bool, can_exchange: bool) {
    for n_good in 0.. {
        let dir = TempDir::new().unwrap();
        let output = output_of(&dir);
        let (old, new) = match output.is_file {
            true => (&[("file", "1\n")][..], &[("file", "2\n3\n")][..]),
            false => (OLD, NEW),
        };
        if has_old {
            run(&std_fs(), &output, "r1", old).unwrap();
        }
        let failing = match can_exchange {
            true => FailingFs::dead_after(n_good),
            false => FailingFs::dead_after(n_good).without_exchange(),
        };
        let result = run(&(Arc::new(failing) as Arc<dyn Fs>), &output, "r2", new);
        let before = if has_old { files(old) } else { Files::new() };
        let seen = in_sight(&output);
        // Between the two renames that replace an exchange nothing is in sight; the next run repairs that.
        let is_between = !can_exchange && seen.is_empty();
        assert!(seen == before || seen == files(new) || is_between, "after {n_good} changes: {seen:?}");
        if result.is_ok() {
            assert_eq!(seen, files(new));
        }

        // Who comes next finds a whole output, whichever, and can replace it.
        Staging::prepare(&std_fs(), &output, "r3").unwrap().abort().unwrap();
        let seen = in_sight(&output);
        assert!(seen == before || seen == files(new), "recovered after {n_good} changes: {seen:?}");
        run(&std_fs(), &output, "r4", old).unwrap();
        assert_eq!(in_sight(&output), files(old));
        if result.is_ok() {
            assert!(n_good > 5, "the failing disk failed");
            return;
        }
    }
}

// K1–K12, S0.4: whoever looks sees committed states only
#[test]
fn folders_are_whole_after_a_crash_at_any_moment() {
    every_crash(folder, true, true);
}

#[test]
fn first_folders_are_whole_after_a_crash_at_any_moment() {
    every_crash(folder, false, true);
}

#[test]
fn folders_are_whole_without_an_exchange_too() {
    every_crash(folder, true, false);
}

#[test]
fn files_are_whole_after_a_crash_at_any_moment() {
    every_crash(one_file, true, true);
    every_crash(one_file, false, true);
}
