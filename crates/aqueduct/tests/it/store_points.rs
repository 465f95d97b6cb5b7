//! Every kill point that is passed in object stores: a run dies there, is made again, and loses nothing. `cargo xtask ci`
//! does the same at all others.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use aqueduct::commit::End;
use aqueduct::core::{Fs, StdFs};
use aqueduct_testkit::s3::S3Server;

use crate::job::{self, Job};
use crate::object_stores::{flow, is_tidy, night, rows, sink};
use crate::records_in_store::{begin, commit, fs_of, names};

/// How a point is called, and what those in stores are called.
const CALL: &str = "kill_point(\"store.";

/// Points that are passed where the log itself is in a store, which no flow file can say.
const OF_RECORDS: &str = "store.record.";

/// Says at which point a process ends.
const KILL_AT: &str = "AQUEDUCT_KILL_AT";

/// How a process of its own reaches the server, and where it stages.
const STORAGE: &str = "AQUEDUCT_TEST_STORAGE";
const LOCAL: &str = "AQUEDUCT_TEST_LOCAL";

/// Where a run is killed before, if at all: that the next has something to recover.
const BEFORE: [Option<&str>; 3] = [None, Some("store.list.put"), Some("commit.finish.recorded")];

/// The names of all points in object stores, as the sources have them.
fn points() -> BTreeSet<String> {
    let own = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let mut folders: Vec<_> = StdFs.list(own.parent().unwrap()).unwrap();
    folders.iter_mut().for_each(|entry| entry.path.push("src"));
    folders.retain(|entry| entry.path.is_dir());
    let mut points = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in StdFs.list(&folder.path).unwrap() {
            match entry.is_dir {
                true => folders.push(entry),
                false if entry.path.extension().is_some_and(|suffix| suffix == "rs") => {
                    let text = job::read(&entry.path);
                    let rest = text.split(CALL).skip(1).map(|rest| rest.split_once('"').unwrap().0);
                    points.extend(rest.map(|rest| format!("store.{rest}")));
                }
                false => {}
            }
        }
    }
    points
}

#[test]
fn a_run_that_is_killed_at_any_point_in_a_store_goes_on_and_loses_nothing() {
    let points = points();
    assert!(points.contains("store.list.put"), "{points:?}");
    let missed: Vec<_> = points.iter().filter(|point| !dies(point)).collect();
    assert!(missed.is_empty(), "no run dies at {missed:?}");
    assert!(!flow_dies("append", None, "store.invented.here"), "nothing dies where no point is");
}

/// Whether a run dies at a point, of any that are tried.
fn dies(point: &str) -> bool {
    let behind = |mode: &str| BEFORE.into_iter().any(|before| flow_dies(mode, before, point));
    // Both of them: what comes of it is another thing in each.
    let is_hit = ["replace", "append"].map(behind).contains(&true);
    is_hit || point.starts_with(OF_RECORDS) && writer_dies(point)
}

/// A run whose outputs are in a store, and whose log is not.
fn flow_dies(mode: &str, before: Option<&str>, point: &str) -> bool {
    let case = format!("{mode}, killed at {before:?}, then at {point}");
    let server = S3Server::start().unwrap();
    let job = Job::with_flow(&flow(&server, &sink(mode)));
    night(&job, 0, 3);
    job.run("run flow.yaml").exits(0);
    night(&job, 100, 6);
    let dies_at = |point: &str| {
        let mut command = job.command("run flow.yaml");
        command.env(KILL_AT, point);
        job::finish(command).was_killed()
    };
    if !before.is_none_or(dies_at) {
        return false;
    }
    let has_died = dies_at(point);
    job.run("run flow.yaml").exits(0);
    // A run that was complete is followed by another, which reads the input once more.
    let n_times = n_complete(&job) - 1;
    let new = (100..220).flat_map(|n| vec![n; n_times]);
    let expected: Vec<_> = match mode {
        "replace" => (100..220).collect(),
        _ => (0..60).chain(new).collect(),
    };
    assert_eq!(rows(&server, "out"), expected, "{case}");
    is_tidy(&server, &job);
    has_died
}

/// How many runs of the flow were complete.
fn n_complete(job: &Job) -> usize {
    let log = ".aqueduct/flows/shipped/log";
    let records = job.files(log).into_iter().filter(|name| name.ends_with(".json"));
    records.filter(|record| job.read(&format!("{log}/{record}")).contains("\"finish\"")).count()
}

/// A writer whose log is in a store, too, in a process of its own.
fn writer_dies(point: &str) -> bool {
    // First at its beginning, then at what it commits.
    let hits = [(1, vec!["out/b"]), (2, vec!["out/a", "out/b"])].map(|(nth, then)| {
        let (server, local) = (S3Server::start().unwrap(), tempfile::tempdir().unwrap());
        let mut writer = Command::new(env::current_exe().unwrap());
        writer.args(["--exact", "store_points::writes_in_a_process_of_its_own", "--ignored"]);
        writer.env(STORAGE, server.storage().to_string()).env(LOCAL, local.path());
        writer.env(KILL_AT, format!("{point}:{nth}"));
        if !job::finish(writer).was_killed() {
            return false;
        }
        let fs = fs_of(server.storage());
        let mut next = begin(&fs, local.path(), "r2").unwrap();
        commit(&fs, &mut next, "b", End::Finish).unwrap();
        next.close().unwrap();
        assert_eq!(names(&server, "out/"), then, "killed at {point}, time {nth}");
        true
    });
    hits.contains(&true)
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn writes_in_a_process_of_its_own() {
    let (Ok(storage), Some(local)) = (env::var(STORAGE), env::var_os(LOCAL)) else { return };
    let fs = fs_of(serde_json::from_str(&storage).unwrap());
    let mut run = begin(&fs, Path::new(&local), "r1").unwrap();
    commit(&fs, &mut run, "a", End::Finish).unwrap();
    run.close().unwrap();
}
