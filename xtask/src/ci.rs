//! `cargo xtask ci`: all that must pass, cheap checks first. The first step that fails ends it, because what
//! follows costs most of the time; `--keep-going` runs them all and tells the failures at the end.

mod clock;
mod deny;
mod steps;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::text::say;
use crate::workspace::Workspace;
use clock::{Limit, minutes};
use steps::{STEPS, Step};

/// What `ci` is asked to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The program of the black-box suite; without it that step is left out
    #[arg(long, value_name = "PATH")]
    accept: Option<PathBuf>,
    /// Only these steps, in the usual order
    #[arg(long, value_name = "NAME")]
    only_step: Vec<String>,
    /// Do not stop at the first step that fails
    #[arg(long)]
    keep_going: bool,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    LeftOut,
}

/// Runs the steps.
///
/// # Errors
/// A step failed, or all of them together took longer than the limit.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let limit = Limit::from_env()?;
    let steps = chosen(&args.only_step)?;
    let started = Instant::now();
    let mut outcomes = Vec::new();
    for step in steps {
        let outcome = run_step(workspace, args, step);
        outcomes.push((step.name, outcome));
        if outcome == Outcome::Failed && !args.keep_going {
            break;
        }
    }
    let took = started.elapsed();
    say(format_args!("\nci: {} in {}", closing_line(&outcomes), minutes(took)));
    ensure!(outcomes.iter().all(|(_, outcome)| *outcome != Outcome::Failed), "ci failed");
    limit.check(took)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Step>> {
    for name in names {
        if !STEPS.iter().any(|step| step.name == name) {
            let known: Vec<_> = STEPS.iter().map(|step| step.name).collect();
            bail!("`{name}` is no step; there are {}", known.join(", "));
        }
    }
    Ok(STEPS.iter().filter(|step| names.is_empty() || names.iter().any(|name| name == step.name)).collect())
}

fn run_step(workspace: &Workspace, args: &Args, step: &Step) -> Outcome {
    if step.needs_accept && args.accept.is_none() {
        say(format_args!("\n== {}: LEFT OUT, no --accept PATH given", step.name));
        return Outcome::LeftOut;
    }
    say(format_args!("\n== {}", step.name));
    let started = Instant::now();
    let result = (step.run)(workspace, args.accept.as_deref());
    let took = minutes(started.elapsed());
    match result {
        Ok(()) => {
            say(format_args!("== {}: passed in {took}", step.name));
            Outcome::Passed
        }
        Err(error) => {
            say(format_args!("== {}: FAILED in {took}: {error:#}", step.name));
            Outcome::Failed
        }
    }
}

/// Which steps passed, failed, were left out.
fn closing_line(outcomes: &[(&str, Outcome)]) -> String {
    let of = |wanted| {
        outcomes.iter().filter(|(_, outcome)| *outcome == wanted).map(|(name, _)| *name).collect::<Vec<_>>()
    };
    let group = |outcome, word: &str| match of(outcome).as_slice() {
        [] => None,
        names => Some(format!("{} {word} ({})", names.len(), names.join(", "))),
    };
    let groups = [
        group(Outcome::Passed, "passed"),
        group(Outcome::Failed, "FAILED"),
        group(Outcome::LeftOut, "left out"),
    ];
    groups.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_names_every_step() {
        let outcomes = [("fmt", Outcome::Passed), ("clippy", Outcome::Failed), ("accept", Outcome::LeftOut)];
        assert_eq!(closing_line(&outcomes), "1 passed (fmt), 1 FAILED (clippy), 1 left out (accept)");
    }

    #[test]
    fn a_step_that_is_not_there_is_named_with_those_that_are() {
        let error = chosen(&["clipy".into()]).unwrap_err().to_string();
        assert!(error.contains("`clipy` is no step; there are check-layers, fmt, clippy"), "{error}");
    }

    #[test]
    fn a_failing_step_fails_and_the_accept_step_needs_its_path() {
        let workspace = Workspace::find().unwrap();
        let args = Args { accept: None, only_step: Vec::new(), keep_going: false };
        let fails = Step { name: "fails", needs_accept: false, run: |_, _| bail!("on purpose") };
        assert_eq!(run_step(&workspace, &args, &fails), Outcome::Failed);
        let needs = Step { needs_accept: true, ..fails };
        assert_eq!(run_step(&workspace, &args, &needs), Outcome::LeftOut);
    }
}
