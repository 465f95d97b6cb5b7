//! The flows of `examples/` are right as they stand, and their table names them all.

use std::path::{Path, PathBuf};

use crate::job::{Job, read};

fn folder() -> PathBuf {
    // Read when it runs: one build folder may serve several clones.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| ".".into());
    Path::new(&here).join("../../examples")
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut names: Vec<_> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn flows() -> Vec<String> {
    files(&folder()).into_iter().filter(|name| name.ends_with(".yaml")).collect()
}

/// A copy: commands may leave something beside a flow.
fn copied() -> Job {
    let job = Job::new();
    for below in [".", "tests"] {
        for name in files(&folder().join(below)) {
            job.write(&format!("{below}/{name}"), read(&folder().join(below).join(name)));
        }
    }
    job
}

/// The words after `aqueduct run` in the comment that begins a flow.
fn told_command(flow: &str) -> String {
    let told = flow.lines().take_while(|line| line.starts_with('#'));
    let command = told.filter_map(|line| line.split_once("aqueduct run ")).next();
    command.unwrap().1.replace('\'', "")
}

#[test]
fn every_example_is_right_with_the_variables_of_its_comment() {
    let job = copied();
    for name in flows() {
        let words = told_command(&job.read(&name));
        assert!(words.starts_with(&name), "{name} says how to run {words}");
        job.run(&format!("check {words}")).exits(0);
    }
}

#[test]
fn every_example_with_tests_passes_them() {
    let job = copied();
    let with_tests: Vec<_> = flows().into_iter().filter(|name| job.read(name).contains("\ntests:")).collect();
    assert!(!with_tests.is_empty());
    for name in with_tests {
        job.run(&format!("test {name}")).exits(0);
    }
}

#[test]
fn the_table_of_examples_is_what_is_there() {
    let page = read(&folder().join("README.md"));
    let mut told: Vec<&str> =
        page.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0)).collect();
    told.sort_unstable();
    assert_eq!(told, flows());
}
