//! The program knows its own source as well as those that it came with.

use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, words: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_own-source"));
    command.current_dir(folder).args(words.split(' ')).output().unwrap()
}

fn flow(source: &str) -> String {
    format!("name: own\nmemory: 64MB\nsource: {{ {source} }}\nsink: {{ ndjson: {{ path: out.ndjson }} }}\n")
}

#[test]
fn a_flow_over_the_new_source_runs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("flow.yaml"), flow("primes: { below: 100000 }")).unwrap();
    let done = run(folder.path(), "run flow.yaml");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let out = std::fs::read_to_string(folder.path().join("out.ndjson")).unwrap();
    let lines: Vec<_> = out.lines().collect();
    // There are 9592 primes below 100,000; the last one is 99,991.
    assert_eq!((lines.len(), lines[0], lines[9591]), (9592, "{\"prime\":2}", "{\"prime\":99991}"));
}

#[test]
fn its_options_are_checked_and_described_like_any_others() {
    let folder = tempfile::tempdir().unwrap();
    for (source, told) in [
        ("primes: { bellow: 5 }", "flow.yaml:3:21: source.primes.bellow"),
        ("primes: { below: 99999999 }", "expected at most 10000000"),
        ("prime: { below: 5 }", "did you mean `primes`"),
    ] {
        std::fs::write(folder.path().join("flow.yaml"), flow(source)).unwrap();
        let done = run(folder.path(), "check flow.yaml");
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.code() == Some(2) && stderr.contains(told), "`{told}` is missing in: {stderr}");
    }
    let listed = run(folder.path(), "components");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("primes") && listed.contains("files"), "{listed}");
}
