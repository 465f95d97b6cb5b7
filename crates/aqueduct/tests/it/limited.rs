//! Limits that the system sets: the size of a file, how many are open, a disk that can only be read, a folder that goes.

use std::process::Command;

use crate::job::{Job, finish, ndjson};
use crate::stalled::Stalled;

/// 10 rows in `small.yaml`, 20,000 in `large.yaml`, into one file.
fn small_and_large() -> Job {
    let job = Job::new();
    let flow = "
name: room
source: { generate: { rows: N, columns: { n: sequence, text: { len: 30 } } } }
sink: { ndjson: { path: out.ndjson } }
";
    job.write("small.yaml", flow.replace('N', "10"));
    job.write("large.yaml", flow.replace('N', "20000"));
    job.run("run small.yaml").exits(0);
    job
}

// reliability 50: more room step by step, until there is enough
#[test]
fn with_every_little_more_room_the_old_output_stays_until_there_is_enough() {
    let job = small_and_large();
    // With no room at all there is none for what is told either.
    for step in 1.. {
        assert!(step < 100, "there never is enough");
        // Blocks of 512 bytes, or of 1024 in some shells.
        let before = format!("trap '' XFSZ; ulimit -f {}", step * 128);
        let done = finish(job.command_after(&before, "run large.yaml"));
        match job.numbers("out.ndjson").map(|rows| rows.len()) {
            Some(20_000) => {
                done.exits(0);
                break;
            }
            found => {
                assert_eq!(found, Some(10), "with {step} steps of room");
                done.exits(1).says(&["error: ", "File too large"]);
            }
        }
    }
    job.run("verify out.ndjson").exits(0);
    assert!(job.files(".").iter().all(|name| !name.contains("stage-")), "{:?}", job.files("."));
}

// reliability 52: the signal that a file is too large is an error like any other
#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_death() {
    let job = small_and_large();
    let done = finish(job.command_after("ulimit -f 128", "run large.yaml"));
    assert_eq!(job.numbers("out.ndjson").map(|rows| rows.len()), Some(10));
    done.exits(1).says(&["error: ", "out.ndjson", "ulimit -f", "File too large"]);
    job.run("run large.yaml").exits(0);
    assert_eq!(job.numbers("out.ndjson").map(|rows| rows.len()), Some(20_000));
}

// reliability 52: 64 open files at most
#[test]
fn with_few_open_files_all_rows_come_or_the_limit_is_named() {
    let job = Job::with_flow(
        r#"
name: few
source: { files: { paths: ["in/*.ndjson"], schema: { n: int64 }, window: 200 } }
sink: { ndjson: { path: out.ndjson } }
"#,
    );
    for file in 0..400 {
        job.write(&format!("in/{file:03}.ndjson"), ndjson(file * 100..file * 100 + 100));
    }
    let done = finish(job.command_after("ulimit -n 64", "run flow.yaml"));
    if job.path("out.ndjson").exists() {
        done.exits(0);
    } else {
        done.exits(1).says(&["error: ", "in/", "ulimit -n", "window", "Too many open files"]);
        job.run("run flow.yaml").exits(0);
    }
    assert!(job.numbers("out.ndjson") == Some((0..40_000).collect()));
}

/// The disk is there to be read only from the second run on.
const ON_A_DISK_THAT_IS_LOCKED: &str = "
    set -e
    mount -t tmpfs -o size=8m tmpfs disk
    \"$0\" run small.yaml
    mount -o remount,ro disk
    set +e
    \"$0\" run large.yaml
    code=$?
    cp -R disk after
    mount -o remount,rw disk
    \"$0\" run large.yaml || exit 99
    cp -R disk later
    exit $code";

// reliability 52: a disk that can only be read, and then written again. Tried where this user may mount one.
#[test]
fn a_disk_that_is_read_only_is_named_and_when_it_is_not_the_flow_runs() {
    let job = Job::new();
    let flow = "
name: locked
state: disk/state
source: { generate: { rows: N, columns: { n: sequence } } }
sink: { ndjson: { path: disk/out.ndjson } }
";
    job.write("small.yaml", flow.replace('N', "10"));
    job.write("large.yaml", flow.replace('N', "1000"));
    std::fs::create_dir(job.path("disk")).unwrap();
    let in_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        command.current_dir(job.path(".")).arg(env!("CARGO_BIN_EXE_aqueduct"));
        command
    };
    if !in_namespace("mount -t tmpfs tmpfs /tmp").output().is_ok_and(|done| done.status.success()) {
        return;
    }
    finish(in_namespace(ON_A_DISK_THAT_IS_LOCKED)).exits(1).says(&[
        "error: ",
        "disk/",
        "Read-only file system",
    ]);
    assert_eq!(job.numbers("after/out.ndjson"), Some((0..10).collect()));
    assert_eq!(job.numbers("later/out.ndjson"), Some((0..1000).collect()));
}

// reliability 52: the state folder goes while the run is under way
#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_is_removed_under_a_run_costs_no_row() {
    let stalled = Stalled::after_a_run().await;
    let run = stalled.start("run flow.yaml").await;
    std::fs::remove_dir_all(stalled.job.path(".aqueduct")).unwrap();
    stalled.gate.open();
    // It may notice or not.
    let _ = run.wait();
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
    stalled.open();
    stalled.job.run("run flow.yaml").exits(0);
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
    stalled.job.run("verify out").exits(0);
}

// reliability 54: a lock that names a process which lives, but is another
#[test]
fn a_number_in_a_lock_that_now_is_another_process_holds_nobody_up() {
    let job = small_and_large();
    job.write(".aqueduct/locks/room.lock", std::process::id().to_string());
    job.run("run large.yaml").exits(0);
    assert_eq!(job.numbers("out.ndjson").map(|rows| rows.len()), Some(20_000));
}
