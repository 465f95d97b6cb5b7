//! The steps of `ci`, cheap ones first.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::deny;
use crate::process::{cargo, check, command};
use crate::workspace::{PROFILE, Workspace};
use crate::{docs, layers, page, text};

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    /// What it is called on the command line.
    pub(super) name: &'static str,
    /// Whether it runs the black-box suite, whose path must then be given.
    pub(super) needs_accept: bool,
    /// What it does; the second argument is the path of the black-box suite.
    pub(super) run: fn(&Workspace, Option<&Path>) -> Result<()>,
}

/// All steps, in the order in which they run. They are `--locked`: what is tested is what `Cargo.lock` says.
pub(super) const STEPS: &[Step] = &[
    step("check-layers", |workspace, _| layers::run(workspace)),
    step("fmt", |workspace, _| check(cargo(workspace.root()).args(["fmt", "--all", "--check"]))),
    step("clippy", |workspace, _| clippy(workspace)),
    step("deny", |workspace, _| deny::run(workspace.root())),
    step("test", |workspace, _| check(&mut nextest(workspace.root()))),
    step("doc-test", |workspace, _| doc_test(workspace)),
    step("loom", |workspace, _| loom(workspace)),
    step("selective", |workspace, _| selective(workspace)),
    step("docs", |workspace, _| docs::check(workspace, &built(workspace)?)),
    step("ladder", |workspace, _| crate::soak::ladder::ci(workspace, &built(workspace)?)),
    step("kills", |workspace, _| crate::soak::kills::ci(workspace, &built(workspace)?)),
    step("page", |workspace, _| page::check(workspace, &built(workspace)?)),
    Step { name: "accept", needs_accept: true, run: accept },
];

const fn step(name: &'static str, run: fn(&Workspace, Option<&Path>) -> Result<()>) -> Step {
    Step { name, needs_accept: false, run }
}

/// The groups of the black-box suite that must pass; they grow step by step.
const ACCEPT_GROUPS: &str = ".ci/accept-groups.txt";

/// With the profile of the tests, so that build scripts and macros are compiled once.
fn clippy(workspace: &Workspace) -> Result<()> {
    let arguments = ["clippy", "--locked", "--profile", PROFILE, "--workspace", "--all-targets"];
    check(cargo(workspace.root()).args(arguments).args(["--", "-D", "warnings"]))
}

/// A run that finds no test has proved nothing, and fails.
fn nextest(folder: &Path) -> Command {
    let mut command = cargo(folder);
    command.args(["nextest", "run", "--locked", "--cargo-profile", PROFILE, "--workspace"]);
    command.args(["--no-tests", "fail", "--no-fail-fast"]);
    command
}

fn doc_test(workspace: &Workspace) -> Result<()> {
    check(cargo(workspace.root()).args(["test", "--locked", "--profile", PROFILE, "--doc", "--workspace"]))
}

/// The budget's core over every interleaving. In a target folder of its own: the flag would have
/// everything else compiled again.
fn loom(workspace: &Workspace) -> Result<()> {
    let mut command = cargo(workspace.root());
    command.args(["test", "--locked", "--package", "aqueduct-primitives", "--lib", "--release"]);
    check(command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", workspace.target().join("loom")))
}

/// Small crates outside the workspace that use one crate each, as a stranger would.
fn selective(workspace: &Workspace) -> Result<()> {
    let folder = workspace.root().join("tests/selective");
    let entries = fs::read_dir(&folder).with_context(|| format!("{}: cannot be listed", folder.display()))?;
    let mut crates = entries
        .map(|entry| Ok(entry?.path()))
        .filter(|path: &Result<_>| path.as_ref().map_or(true, |path| path.join("Cargo.toml").exists()))
        .collect::<Result<Vec<_>>>()?;
    crates.sort();
    ensure!(!crates.is_empty(), "{}: no crate there", folder.display());
    for path in crates {
        let target = workspace.target().join("selective");
        check(cargo(&path).args(["test", "--locked", "--quiet"]).env("CARGO_TARGET_DIR", &target))?;
        if path.join("src/main.rs").exists() {
            check(cargo(&path).args(["run", "--locked", "--quiet"]).env("CARGO_TARGET_DIR", &target))?;
        }
    }
    Ok(())
}

/// The binary as the tests have it: building it alone would choose other features of shared crates and
/// compile most of them again.
fn built(workspace: &Workspace) -> Result<std::path::PathBuf> {
    let arguments = ["build", "--locked", "--profile", PROFILE, "--workspace", "--bins", "--tests"];
    check(cargo(workspace.root()).args(arguments))?;
    Ok(workspace.binary_path(PROFILE))
}

fn accept(workspace: &Workspace, suite: Option<&Path>) -> Result<()> {
    let suite = suite.context("the path of the black-box suite is missing: --accept PATH")?;
    let suite = suite.canonicalize().with_context(|| format!("{}: no such program", suite.display()))?;
    let groups = groups(&text::read(&workspace.root().join(ACCEPT_GROUPS))?)?;
    let mut command = command(suite, workspace.root());
    check(command.arg("--binary").arg(built(workspace)?).arg("--only").args(groups))
}

/// The groups that a text names, one or more a line; `#` begins a comment.
fn groups(text: &str) -> Result<Vec<String>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let groups: Vec<String> = lines.flat_map(str::split_whitespace).map(str::to_owned).collect();
    ensure!(!groups.is_empty(), "{ACCEPT_GROUPS}: no group there; without one the suite would run them all");
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_words_and_comments_are_not() {
        assert_eq!(groups("# step 1\nA G # job, faults\n").unwrap(), ["A", "G"]);
        assert!(groups("# none yet\n").is_err());
    }

    #[test]
    fn the_groups_of_this_project_are_named() {
        let root = Workspace::find().unwrap().root().to_path_buf();
        assert!(groups(&text::read(&root.join(ACCEPT_GROUPS)).unwrap()).is_ok());
    }

    /// A workspace whose only crate has no test.
    #[test]
    fn a_run_without_tests_fails() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = "[package]\nname = \"empty\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
                        [workspace]\n[profile.ci]\ninherits = \"dev\"\n";
        text::write(&folder.path().join("Cargo.toml"), manifest).unwrap();
        text::write(&folder.path().join("src/lib.rs"), "").unwrap();
        check(cargo(folder.path()).args(["generate-lockfile", "--offline"])).unwrap();
        let mut command = nextest(folder.path());
        let output = command.env("CARGO_TARGET_DIR", folder.path().join("target")).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains("no tests to run"), "{told}");
    }
}
