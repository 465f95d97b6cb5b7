//! Every kill point that is passed in object stores: a run dies there, is made again, and loses nothing. `cargo xtask ci`
//! does the same at all others.

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;

use aqueduct::core::{Fs, StdFs};
use aqueduct_testkit::s3::S3Server;

use crate::job::{self, Job};
use crate::object_stores::{flow, is_tidy, night, rows, sink};
use crate::state_in_store::World;

/// How a point is called, and what those in stores are called.
const CALL: &str = "kill_point(\"store.";

/// Says at which point a process ends.
const KILL_AT: &str = "AQUEDUCT_KILL_AT";

/// Where a run is killed before, if at all, so that the next has something to recover.
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

/// Points that are passed only where the state is in a store, too.
const OF_STATE: [&str; 2] = ["store.state.", "store.record."];

fn is_of_state(point: &str) -> bool {
    OF_STATE.iter().any(|prefix| point.starts_with(prefix))
}

#[test]
fn a_run_that_is_killed_at_any_point_in_a_store_goes_on_and_loses_nothing() {
    let points = points();
    assert!(points.contains("store.list.put"), "{points:?}");
    let dies = |point: &String| {
        let behind = |mode: &str| BEFORE.into_iter().any(|before| flow_dies(mode, before, point));
        // Both of them: what comes of it is another thing in each.
        ["replace", "append"].map(behind).contains(&true)
    };
    let missed: Vec<_> = points.iter().filter(|point| !is_of_state(point) && !dies(point)).collect();
    assert!(missed.is_empty(), "no run dies at {missed:?}");
    assert!(!flow_dies("append", None, "store.invented.here"), "nothing dies where no point is");
}

#[test]
fn a_run_whose_state_is_in_a_store_is_killed_at_any_point_and_gone_on_with_elsewhere() {
    let points = points();
    assert!(points.contains("store.record.put") && points.contains("store.state.fetched"), "{points:?}");
    let dies = |point: &String| BEFORE.into_iter().any(|before| roaming_dies(before, point));
    let missed: Vec<_> = points.iter().filter(|point| is_of_state(point) && !dies(point)).collect();
    assert!(missed.is_empty(), "no run dies at {missed:?}");
}

/// A run whose outputs and whose state are in a store, gone on with on another machine.
fn roaming_dies(before: Option<&str>, point: &str) -> bool {
    let case = format!("state in a store, killed at {before:?}, then at {point}");
    let world = World::new();
    let (first, second) = (world.machine(), world.machine());
    world.night(0, 2);
    first.run("run flow.yaml").exits(0);
    world.night(100, 4);
    let dies_at = |machine: &Job, point: &str| {
        let mut command = machine.command("run flow.yaml");
        command.env(KILL_AT, point);
        job::finish(command).was_killed()
    };
    if before.is_some_and(|before| !dies_at(&first, before)) {
        return false;
    }
    let has_died = [dies_at(&first, point), dies_at(&second, point)].contains(&true);
    second.run("run flow.yaml").exits(0);
    assert_eq!(world.rows(), (0..30).chain(100..150).collect::<Vec<_>>(), "{case}");
    world.night(200, 1);
    first.run("run flow.yaml").exits(0);
    assert_eq!(world.rows(), (0..30).chain(100..150).chain(200..220).collect::<Vec<_>>(), "{case}");
    world.is_tidy();
    has_died
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
