//! Where the sinks of a file write: no two of them to one place, none inside of another's, and nothing that a run
//! keeps beside its outputs inside of one.

use std::path::{Component, Path, PathBuf};

use aqueduct_core::is_in_store;

use crate::flow::error::Mistake;
use crate::flow::matrix::shown;
use crate::flow::{Flow, OnError, Step, StepKind};

/// An output and whose it is.
struct Claimed {
    path: PathBuf,
    who: String,
}

/// Sinks whose outputs are in each other's way, of one entry of the matrix or of two.
pub(crate) fn in_the_way(flows: &[Flow]) -> Vec<Mistake> {
    let mut claimed: Vec<Claimed> = Vec::new();
    let mut mistakes = Vec::new();
    for flow in flows {
        let beside = beside(flow);
        for step in &flow.steps {
            let Some(one) = claim(flow, step) else { continue };
            let in_the_way = claimed.iter().find_map(|other| conflict(&one, other));
            if let Some(message) = in_the_way.or_else(|| holds(&one, &beside)) {
                let (at, key) = step.at.places.find("/path");
                mistakes.push(Mistake::new(at, key, flow.masks.mask(&message)));
            }
            claimed.push(one);
        }
    }
    mistakes
}

fn claim(flow: &Flow, step: &Step) -> Option<Claimed> {
    let StepKind::Sink(sink) = &step.kind else { return None };
    let output = sink.output(&flow.planning(step))?;
    let who = if flow.entry.is_empty() {
        step.name.clone()
    } else {
        format!("{} of entry {}", step.name, shown(&flow.entry))
    };
    Some(Claimed { path: resolved(&output.path), who })
}

/// The folders that a run keeps beside its outputs.
fn beside(flow: &Flow) -> Vec<Claimed> {
    let letters = flow.steps.iter().filter_map(|step| letters_of(flow, step));
    let letters = letters.map(|folder| (flow.base_dir.join(folder), "dead_letter"));
    let own = [
        (flow.state_dir.clone(), "state"),
        (flow.log_dir(), "state"),
        (flow.spill_dir(), "execution.spill.dir"),
    ];
    letters.chain(own).map(|(path, key)| Claimed { path: resolved(&path), who: key.to_owned() }).collect()
}

/// Where bad rows of a step are kept aside, if they are.
fn letters_of<'f>(flow: &'f Flow, step: &'f Step) -> Option<&'f PathBuf> {
    let on_error = step.on_error.unwrap_or(flow.execution.on_error);
    let default = (on_error == OnError::DeadLetter).then_some(&flow.execution.dead_letter);
    step.dead_letter.as_ref().or(default)
}

fn holds(output: &Claimed, beside: &[Claimed]) -> Option<String> {
    let inside = beside.iter().find(|folder| folder.path.starts_with(&output.path))?;
    Some(format!(
        "the folder of `{}`, {}, is inside of what `{}` writes, {}, which a run replaces as a whole; expected paths \
         beside each other",
        inside.who,
        inside.path.display(),
        output.who,
        output.path.display()
    ))
}

fn conflict(one: &Claimed, other: &Claimed) -> Option<String> {
    let (Claimed { path, who }, Claimed { path: taken, who: by }) = (one, other);
    if path == taken {
        return Some(format!(
            "`{who}` and `{by}` write to one path, {}; expected a path for each",
            path.display()
        ));
    }
    let (inner, outer, whole) = if path.starts_with(taken) {
        (who, by, taken)
    } else if taken.starts_with(path) {
        (by, who, path)
    } else {
        return None;
    };
    Some(format!(
        "`{inner}` would write inside of what `{outer}` writes, {}, which a run replaces as a whole; expected paths \
         beside each other",
        whole.display()
    ))
}

/// The path as the system would take it, or the URL of a store: absolute, symbolic links followed as far as there are any, so that what
/// is one place has one name. What is not there yet stays as it is written.
fn resolved(path: &Path) -> PathBuf {
    if is_in_store(path) {
        return path.to_owned();
    }
    // Without a working directory, the path is as good a name as any.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut resolved = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                resolved.pop();
            }
            other => {
                resolved.push(other);
                if let Ok(real) = resolved.canonicalize() {
                    resolved = real;
                }
            }
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::fake::{registry, settings};
    use crate::flow::load;

    fn told(folder: &Path, first: &str, second: &str) -> Option<String> {
        told_with(folder, first, second, "")
    }

    fn told_with(folder: &Path, first: &str, second: &str, more: &str) -> Option<String> {
        let text = format!(
            "name: x\nsources: {{ a: {{ files: {{ paths: [n] }} }} }}\nsinks:\n  one: {{ input: a, parquet: {{ path: '{first}' }} }}\n  \
             two: {{ input: a, parquet: {{ path: '{second}' }} }}\n{more}\n"
        );
        let file = folder.join("flow.yaml");
        std::fs::write(&file, text).unwrap();
        load(&file, &settings(&[], &[]), &registry()).err().map(|errors| errors.to_string())
    }

    #[test]
    fn one_output_inside_another_is_refused_with_both_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        for (first, second) in [
            ("out", "out/x.parquet"),
            ("out/deep/er", "out"),
            ("out", "b/../out/y"),
            ("real", "link/new"),
            ("link/new/x", "real/../link/new"),
        ] {
            let told = told(folder.path(), first, second).unwrap();
            assert!(told.contains(":5:"), "{first} {second}: {told}");
            assert!(told.contains("`one`") && told.contains("`two`") && told.contains("inside of"), "{told}");
        }
        for (first, second) in [("out", "./out"), ("out/a/..", "out"), ("real/x", "link/x")] {
            let told = told(folder.path(), first, second).unwrap();
            assert!(told.contains("`two` and `one` write to one path"), "{first} {second}: {told}");
        }
        for (first, second) in [("out", "out2"), ("out.parquet", "out"), ("real/a", "link/b")] {
            assert_eq!(told(folder.path(), first, second), None, "{first} {second}");
        }
    }

    #[test]
    fn a_folder_that_a_run_keeps_inside_of_an_output_is_refused_with_both_names() {
        let folder = tempfile::tempdir().unwrap();
        for (more, key) in [
            ("execution: { on_error: dead_letter, dead_letter: out/bad }", "dead_letter"),
            ("state: out/state", "state"),
            ("execution: { spill: { dir: ./out } }", "execution.spill.dir"),
        ] {
            let told = told_with(folder.path(), "out", "other", more).unwrap();
            assert!(told.contains(&format!("folder of `{key}`")) && told.contains("`one` writes"), "{told}");
            assert_eq!(told_with(folder.path(), "out", "other", &more.replace("out", "aside")), None);
        }
        assert_eq!(told_with(folder.path(), "rejected", "other", ""), None);
        assert!(
            told_with(folder.path(), "rejected", "other", "execution: { on_error: dead_letter }").is_some()
        );
    }
}
