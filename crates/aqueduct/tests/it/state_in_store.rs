//! The state of a flow in an object store: machines that know nothing of each other run it, one after the other and at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aqueduct_testkit::s3::{S3Server, Wrong};
use rustix::process::Signal;
use serde_json::Value;

use crate::job::{Job, ndjson, values};

/// A test that waits longer hangs.
const AT_MOST: Duration = Duration::from_secs(60);

/// Where the state lies.
const STATE: &str = "state/flows/roaming/";

/// What all machines can reach: a server, and a folder of inputs.
pub(crate) struct World {
    server: S3Server,
    inputs: Job,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { server: S3Server::start().unwrap(), inputs: Job::new() }
    }

    /// A machine with the flow, which has never run it. Rows come slowly, so that there are commits before the end.
    pub(crate) fn machine(&self) -> Job {
        Job::with_flow(&format!(
            "name: roaming\nmemory: 64MB\nstate: s3://lake/state\nstorage: {}\nhttp: {{ retries: 1 }}\ncommit: {{ bytes: 300B }}\n\
             source: {{ files: {{ paths: [\"{}\"], schema: {{ n: int64 }}, window: 1, incremental: {{ by: name }} }} }}\n\
             stages: [{{ throttle: {{ rows: 20, per: 20ms }} }}, {{ unseen: {{ keys: [n] }} }}]\nsink: {{ ndjson: {{ path: s3://lake/out, file_bytes: 200B }} }}\n",
            self.server.storage(),
            self.inputs.path("in").display(),
        ))
    }

    /// New files of 20 rows from this number on; the first ten rows of each were in the file before.
    pub(crate) fn night(&self, first: i64, n_files: i64) {
        for file in 0..n_files {
            let start = first + file * 10;
            self.inputs.write(&format!("in/{start:05}.ndjson"), ndjson(start..start + 20));
        }
    }

    /// The rows that the manifest lists, sorted.
    pub(crate) fn rows(&self) -> Vec<i64> {
        let objects = self.server.objects("out/");
        let Some((_, text)) = objects.iter().find(|(key, _)| key == "out/_aqueduct/manifest.json") else {
            return Vec::new();
        };
        let manifest: Value = serde_json::from_slice(text).unwrap();
        let parts = manifest["parts"].as_array().unwrap().iter();
        let mut rows = Vec::new();
        for name in parts.map(|part| format!("out/{}", part["name"].as_str().unwrap())) {
            let (_, bytes) = objects.iter().find(|(key, _)| *key == name).unwrap();
            rows.extend(
                values(std::str::from_utf8(bytes).unwrap()).iter().map(|row| row["n"].as_i64().unwrap()),
            );
        }
        rows.sort_unstable();
        rows
    }

    /// Nothing is staged, and of the state only what the newest record names is there.
    pub(crate) fn is_tidy(&self) {
        let staged = self.server.objects("_aqueduct/");
        assert!(staged.is_empty(), "{:?}", staged.iter().map(|(key, _)| key).collect::<Vec<_>>());
        let named = self.named();
        let there = self.server.objects(&format!("{STATE}files/")).into_iter();
        let there: BTreeSet<_> = there.map(|(key, _)| key.rsplit('/').next().unwrap().to_owned()).collect();
        assert_eq!(there, named);
    }

    /// The objects that the records name, taken together.
    fn named(&self) -> BTreeSet<String> {
        let (mut files, mut run) = (BTreeMap::new(), Value::Null);
        for (_, bytes) in self.server.objects(&format!("{STATE}log/0")) {
            let record: Value =
                serde_json::from_slice(bytes.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
            if record["event"]["begin"].is_object() && record["run_id"] != run {
                run = record["run_id"].clone();
                files.retain(|name: &String, _| name.starts_with("steps/"));
            }
            for kind in ["epoch", "finish"] {
                let change = &record["event"][kind]["files"];
                for gone in change["gone"].as_array().into_iter().flatten() {
                    files.remove(gone.as_str().unwrap());
                }
                for (name, pieces) in change["put"].as_object().into_iter().flatten() {
                    files.insert(name.clone(), pieces.clone());
                }
            }
        }
        let pieces = files.values().flat_map(|pieces| pieces.as_array().unwrap());
        pieces.map(|piece| piece["object"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn each_night_another_machine_goes_on_from_what_the_others_have_committed() {
    let world = World::new();
    let machines = [world.machine(), world.machine()];
    for night in 0..4 {
        world.night(night * 50, 5);
        let machine = &machines[usize::try_from(night).unwrap() % 2];
        machine.run("run flow.yaml --report report.json").exits(0);
        assert_eq!(world.rows(), (0..(night + 1) * 50 + 10).collect::<Vec<_>>(), "night {night}");
        assert_eq!(machine.report()["rows_in"], 100, "only what is new is read");
        world.is_tidy();
    }
    let shown = machines.each_ref().map(|machine| machine.run("state flow.yaml").exits(0).stdout);
    assert_eq!(shown[0], shown[1]);
    assert!(shown[0].contains("s3://lake/state/flows/roaming"), "{}", shown[0]);
    // A machine that has all of it fetches none of it.
    let n_before = world.server.seen().len();
    machines[1].run("run flow.yaml").exits(0).says(&["nothing new"]);
    let fetched = world.server.seen().split_off(n_before);
    let fetched: Vec<_> =
        fetched.iter().filter(|seen| seen.starts_with("GET") && seen.contains("/files/")).collect();
    assert!(fetched.is_empty(), "{fetched:?}");
}

/// What a run asks for that has to do with the state: method, a part of the URL, and how many such requests come before.
const REQUESTS: [(&str, &str, usize); 8] = [
    ("PUT", "/state/flows/roaming/log/", 0),
    ("PUT", "/state/flows/roaming/log/", 1),
    ("PUT", "/state/flows/roaming/files/", 0),
    ("PUT", "/state/flows/roaming/files/", 1),
    ("POST", "?delete", 0),
    ("PUT", "/out/_aqueduct/manifest.json", 0),
    ("POST", "/out/part-", 0),
    ("POST", "/out/part-", 1),
];

#[test]
fn what_one_machine_was_killed_over_another_goes_on_with() {
    for (method, part, nth) in REQUESTS {
        for wrong in [Wrong::HeldBefore, Wrong::HeldAfter] {
            for is_elsewhere in [true, false] {
                let case = format!("killed at {method} {part} {nth}, {wrong:?}, elsewhere: {is_elsewhere}");
                let (world, next) = (World::new(), World::machine);
                let first = next(&world);
                world.night(0, 2);
                first.run("run flow.yaml").exits(0);
                world.night(100, 6);
                world.server.plan_nth(method, part, nth, wrong);
                let run = first.start("run flow.yaml");
                assert!(world.server.holds_within(AT_MOST), "{case}: {:?}", world.server.seen());
                run.signal(Signal::KILL);
                run.wait();
                world.server.forget_plans();
                let second = if is_elsewhere { next(&world) } else { first };
                second.run("run flow.yaml").exits(0);
                let night: Vec<_> = (0..30).chain(100..170).collect();
                assert_eq!(world.rows(), night, "{case}");
                world.night(200, 1);
                second.run("run flow.yaml").exits(0);
                assert_eq!(world.rows(), [night, (200..220).collect()].concat(), "{case}, and a night more");
                world.is_tidy();
            }
        }
    }
}

#[test]
fn of_two_machines_at_once_the_one_that_came_first_stops_and_its_rows_are_not_lost() {
    let world = World::new();
    let (slow, quick) = (world.machine(), world.machine());
    world.night(0, 6);
    world.server.plan_nth("PUT", "/state/flows/roaming/log/", 1, Wrong::HeldBefore);
    let run = slow.start("run flow.yaml");
    assert!(world.server.holds_within(AT_MOST), "{:?}", world.server.seen());
    quick.run("run flow.yaml").exits(0);
    assert_eq!(world.rows(), (0..70).collect::<Vec<_>>());
    world.server.release();
    run.wait().exits(1).says(&["another process has taken over this flow"]);
    assert_eq!(world.rows(), (0..70).collect::<Vec<_>>());
    // It goes on from what the other has committed.
    world.night(100, 1);
    slow.run("run flow.yaml").exits(0);
    assert_eq!(world.rows(), (0..70).chain(100..120).collect::<Vec<_>>());
    world.is_tidy();
}

#[test]
fn state_that_was_damaged_in_the_store_is_named() {
    let world = World::new();
    world.night(0, 2);
    world.machine().run("run flow.yaml").exits(0);
    for (key, bytes) in world.server.objects(&format!("{STATE}files/")) {
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        for wrong in [flipped, bytes[..bytes.len() - 1].to_vec()] {
            world.server.put(&key, &wrong);
            let told = world.machine().run("run flow.yaml").exits(1);
            told.says(&[key.as_str(), "gone or damaged", "--full-refresh"]);
            world.server.put(&key, &bytes);
        }
    }
    world.machine().run("run flow.yaml").exits(0).says(&["nothing new"]);
    assert_eq!(world.rows(), (0..30).collect::<Vec<_>>());
    let (key, bytes) = world.server.objects(&format!("{STATE}files/")).remove(0);
    world.server.put(&key, &bytes[1..]);
    world.machine().run("run flow.yaml --full-refresh").exits(0).says(&["is forgotten"]);
    assert_eq!(world.rows(), (0..30).collect::<Vec<_>>());
    world.night(100, 1);
    world.machine().run("run flow.yaml").exits(0);
    assert_eq!(world.rows(), (0..30).chain(100..120).collect::<Vec<_>>());
    world.is_tidy();
}

#[test]
fn who_may_not_delete_runs_the_flow_all_the_same() {
    let world = World::new();
    world.server.plan("POST", "?delete", usize::MAX, Wrong::Refused(403));
    world.server.plan("DELETE", "", usize::MAX, Wrong::Refused(403));
    for night in 0..4 {
        world.night(night * 50, 5);
        world.machine().run("run flow.yaml");
    }
    world.server.forget_plans();
    world.machine().run("run flow.yaml").exits(0);
    assert_eq!(world.rows(), (0..210).collect::<Vec<_>>());
    world.is_tidy();
}

#[test]
fn letters_are_replayed_again_and_again() {
    let world = World::new();
    let machine = world.machine();
    let flow = machine
        .read("flow.yaml")
        .replace("name: roaming", "name: roaming\nexecution: { on_error: dead_letter }");
    machine.write("flow.yaml", flow);
    for night in 0..5 {
        world.inputs.write(
            &format!("in/{night}.ndjson"),
            format!("{}{{\"n\": \"bad-{night}\"}}\n", ndjson(night..night + 1)),
        );
        machine.run("run flow.yaml").exits(0);
        for letter in machine.files("rejected").into_iter().filter(|name| name.ends_with(".ndjson")) {
            let name = format!("rejected/{letter}");
            let mended =
                machine.read(&name).replace(&format!("\\\"bad-{night}\\\""), &format!("{}", 900 + night));
            machine.write(&name, mended);
        }
        machine.run("replay rejected flow.yaml").exits(0);
        assert_eq!(world.rows(), (0..=night).chain(900..=900 + night).collect::<Vec<_>>(), "night {night}");
        world.is_tidy();
    }
}

#[test]
fn what_steps_keep_is_reset_and_cleaned_from_any_machine() {
    let world = World::new();
    let (first, second) = (world.machine(), world.machine());
    world.night(0, 1);
    first.run("run flow.yaml").exits(0);
    second.run("state flow.yaml reset unseen").exits(0);
    second.run("clean flow.yaml").exits(0);
    world.night(10, 1);
    first.run("run flow.yaml").exits(0);
    let twice = [(0..10).collect(), (10..20).flat_map(|n| [n, n]).collect(), (20..30).collect::<Vec<_>>()];
    assert_eq!(world.rows(), twice.concat(), "rows that were seen pass again");
}

#[test]
fn where_no_state_can_be_is_said_at_once() {
    for state in ["http://host/state", "memory://x", "ftp://x"] {
        let job = Job::with_flow(&format!(
            "name: x\nstate: {state}\nsource: {{ generate: {{ rows: 1, columns: {{ n: sequence }} }} }}\nsink: {{ discard: {{}} }}\n"
        ));
        job.run("check flow.yaml").exits(2).says(&["flow.yaml:2:", state, "s3://"]);
    }
}
