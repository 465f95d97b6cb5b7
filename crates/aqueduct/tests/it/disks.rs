//! Disks that are full, and places that cannot be written.

use std::process::Command;

use crate::job::{Done, Job, finish, ndjson};

/// Two megabytes are enough for the first run, and not for the second. What is on the disk at the end is copied
/// to `after`, because the disk goes with the process that mounted it.
const ON_A_SMALL_DISK: &str = "
    set -e
    mount -t tmpfs -o size=2m tmpfs disk
    \"$0\" run small.yaml
    set +e
    \"$0\" run large.yaml
    code=$?
    cp -R disk after
    exit $code";

/// Where nothing may be mounted: files that may not grow beyond two megabytes (in blocks of 512 bytes, and of
/// 1024 in some shells). The signal that says so is ignored, and the write fails instead.
const WITH_SMALL_FILES: &str = "
    trap '' XFSZ
    ulimit -f 2048
    \"$0\" run small.yaml || exit 99
    \"$0\" run large.yaml
    code=$?
    cp -R disk after
    exit $code";

/// Runs `small.yaml` and then `large.yaml`, whose output does not fit.
fn run_on_a_small_disk(job: &Job) -> Done {
    let in_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
        command
    };
    let can_mount =
        in_namespace("mount -t tmpfs tmpfs /tmp").output().is_ok_and(|done| done.status.success());
    let mut command = if can_mount {
        in_namespace(ON_A_SMALL_DISK)
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", WITH_SMALL_FILES]);
        command
    };
    command.current_dir(job.path(".")).arg(env!("CARGO_BIN_EXE_aqueduct"));
    finish(command)
}

#[test]
fn a_full_disk_leaves_the_old_output_whole() {
    let job = Job::new();
    let flow = "
name: full
source: { generate: { rows: N, columns: { n: sequence, text: { len: 100 } } } }
sink: { ndjson: { path: disk/out } }
";
    job.write("small.yaml", flow.replace('N', "10"));
    job.write("large.yaml", flow.replace('N', "100000"));
    std::fs::create_dir(job.path("disk")).unwrap();
    let done = run_on_a_small_disk(&job).exits(1);
    let is_told = ["No space left", "File too large"].iter().any(|words| done.stderr.contains(words));
    assert!(is_told, "{}", done.stderr);
    done.says(&["error: ", "disk/"]);
    let parts: Vec<_> =
        job.files("after/out").into_iter().filter(|name| !name.contains("_aqueduct")).collect();
    assert_eq!(parts.len(), 1, "{parts:?}");
    assert_eq!(job.numbers(&format!("after/out/{}", parts[0])), Some((0..10).collect()));
    let staged: Vec<_> = job.files("after").into_iter().filter(|name| name.contains(".ndjson")).collect();
    assert_eq!(staged.len(), 1, "{staged:?}");
}

#[test]
fn a_full_disk_for_spilled_rows_leaves_the_old_output_whole() {
    let job = Job::new();
    let flow = "
name: full
memory: 32MB
execution: { spill: { dir: disk/spill, max_bytes: 1GB } }
source: { generate: { rows: N, columns: { n: sequence, text: { len: 100 } } } }
stages: [{ sort: { by: [n desc] } }]
sink: { ndjson: { path: out.ndjson } }
";
    job.write("small.yaml", flow.replace('N', "10"));
    job.write("large.yaml", flow.replace('N', "400000"));
    std::fs::create_dir(job.path("disk")).unwrap();
    let done = run_on_a_small_disk(&job).exits(1);
    let is_told = ["No space left", "File too large"].iter().any(|words| done.stderr.contains(words));
    assert!(is_told, "{}", done.stderr);
    done.says(&["error: ", "step: sort", "disk/spill"]);
    assert_eq!(job.numbers("out.ndjson"), Some((0..10).collect()));
    assert_eq!(job.files("after"), Vec::<String>::new());
}

/// Files may not grow beyond two kilobytes (four in some shells).
const WITH_TINY_FILES: &str = "trap '' XFSZ; ulimit -f 4; exec \"$0\" run flow.yaml";

#[test]
fn rejected_rows_that_cannot_be_kept_leave_the_output_as_it_was() {
    let job = Job::with_flow(
        r#"
name: letters
execution: { on_error: dead_letter }
source: { files: { paths: ["in.ndjson"], schema: { n: int64 } } }
sink: { ndjson: { path: out.ndjson } }
"#,
    );
    // So few that they reach the disk only at the end.
    let bad = format!("{{\"n\": \"{}\"}}\n", "x".repeat(2500));
    job.write("in.ndjson", format!("{}{bad}{bad}", ndjson(0..3)));
    let mut command = Command::new("sh");
    command.args(["-c", WITH_TINY_FILES]).current_dir(job.path(".")).arg(env!("CARGO_BIN_EXE_aqueduct"));
    finish(command).exits(1).says(&["error: keep rejected", "rejected/_aqueduct/", "File too large"]);
    assert_eq!(job.numbers("out.ndjson"), None);
}

#[test]
fn a_place_that_cannot_be_written_is_named_and_nothing_is_left() {
    let flow = r#"
name: wall
state: STATE
source: { files: { paths: ["in.ndjson"] } }
sink: { ndjson: { path: PATH } }
"#;
    let job = Job::new();
    job.write("in.ndjson", ndjson(0..3));
    job.write("wall", "a file, not a folder\n");
    for (path, state) in [("wall/out.ndjson", "st"), ("wall/out", "st"), ("out.ndjson", "wall/state")] {
        job.write("flow.yaml", flow.replace("PATH", path).replace("STATE", state));
        job.run("run flow.yaml").exits(1).says(&["error: ", "wall/"]);
        assert_eq!(job.read("wall"), "a file, not a folder\n");
        let left = job.files(".").into_iter().filter(|name| !name.starts_with("st/")).collect::<Vec<_>>();
        assert_eq!(left, ["flow.yaml", "in.ndjson", "wall"]);
    }
}

#[test]
fn what_aqueduct_did_not_write_is_never_overwritten() {
    let job = Job::with_flow(
        r#"
name: foreign
source: { generate: { rows: 3 } }
sink: { ndjson: { path: out.ndjson } }
"#,
    );
    job.write("out.ndjson", "mine\n");
    job.run("run flow.yaml").exits(1).says(&["error: ", "out.ndjson"]);
    assert_eq!((job.read("out.ndjson").as_str(), job.files(".").len()), ("mine\n", 2));
}
