//! The kill points that have a name, as the sources call them: one that is forgotten here cannot be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::text;

/// How a point is called.
const CALL: &str = "kill_point(";

/// Points of this kind are passed in object stores alone: `store_points.rs` of the binary's tests has runs die there.
const IN_STORES: &str = "store.";

/// The names of the points that are passed on disks, in order.
///
/// # Errors
/// Two points have one name, a name is not written out where the point is, or a source cannot be read.
pub(super) fn on_disks(root: &Path) -> Result<Vec<String>> {
    let names = all(root)?.into_keys().filter(|name| !name.starts_with(IN_STORES));
    Ok(names.collect())
}

/// All names, and the file that each is in.
fn all(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in sources(&root.join("crates"))? {
        for name in names_in(&text::read(&path)?).with_context(|| path.display().to_string())? {
            if let Some(first) = found.insert(name.clone(), path.clone()) {
                bail!("two kill points are called `{name}`: in {} and {}", first.display(), path.display());
            }
        }
    }
    ensure!(!found.is_empty(), "{}: no kill point in any source", root.display());
    Ok(found)
}

/// The Rust files of each crate's `src`.
fn sources(crates: &Path) -> Result<Vec<PathBuf>> {
    let mut folders: Vec<_> = entries(crates)?.into_iter().map(|entry| entry.join("src")).collect();
    folders.retain(|folder| folder.is_dir());
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder)? {
            match entry.is_dir() {
                true => folders.push(entry),
                false if entry.extension().is_some_and(|suffix| suffix == "rs") => files.push(entry),
                false => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).with_context(|| format!("{}: cannot be listed", folder.display()))?;
    Ok(listed.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
}

/// The names in a source, but for those in comments.
fn names_in(source: &str) -> Result<Vec<String>> {
    let code: Vec<_> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut names = Vec::new();
    for (at, _) in code.match_indices(CALL) {
        let (before, behind) = (&code[..at], code[at + CALL.len()..].trim_start());
        if before.ends_with("fn ") {
            continue;
        }
        let name = behind.strip_prefix('"').and_then(|name| Some(name.split_once('"')?.0));
        let name = name.context("a kill point without a name in its call; write it out there")?;
        let is_plain = name.contains('.') && name.chars().all(|c| c.is_ascii_lowercase() || c == '.');
        ensure!(is_plain, "`{name}` is no name of a kill point; expected words like `commit.record.linked`");
        names.push(name.to_owned());
    }
    Ok(names)
}

/// Whether a run has died at each of these points.
///
/// # Errors
/// At some none has: by their names.
pub(super) fn check_all_hit(names: &[String], is_hit: impl Fn(&str) -> bool) -> Result<()> {
    let missed: Vec<_> = names.iter().map(String::as_str).filter(|name| !is_hit(name)).collect();
    ensure!(
        missed.is_empty(),
        "{} of {} kill points were never hit: {}; no flow of this step passes them, or the binary is a build without \
         debug assertions",
        missed.len(),
        names.len(),
        missed.join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn names_are_found_in_code_and_not_in_comments() {
        let source = "/// kill_point(\"a.comment\")\npub fn kill_point(name: &str) {}\n\
                      fn f() {\n    kill_point(\"a.b\");\n    aqueduct_core::kill_point(\n        \"a.c\",\n    );\n}\n";
        assert_eq!(names_in(source).unwrap(), ["a.b", "a.c"]);
    }

    #[test]
    fn a_name_that_is_not_written_out_or_no_name_is_refused() {
        assert!(names_in("kill_point(name);").unwrap_err().to_string().contains("write it out"));
        for name in ["", "word", "Two.Words", "a.b:2", "a b.c"] {
            let error = names_in(&format!("kill_point(\"{name}\");")).unwrap_err();
            assert!(error.to_string().contains("no name of a kill point"), "{name}: {error}");
        }
    }

    #[test]
    fn two_points_of_one_name_are_an_error_that_says_where() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| text::write(&root.path().join(path), text).unwrap();
        assert!(all(root.path()).is_err(), "there is no source");
        write("crates/a/src/lib.rs", "kill_point(\"a.one\");\nkill_point(\"store.one\");\n");
        write("crates/b/src/deep/down.rs", "kill_point(\"a.two\");\n");
        write("crates/b/tests/it/main.rs", "kill_point(\"a.one\");\n");
        assert_eq!(on_disks(root.path()).unwrap(), ["a.one", "a.two"]);
        write("crates/b/src/lib.rs", "kill_point(\"a.one\");\n");
        let error = on_disks(root.path()).unwrap_err().to_string();
        assert!(error.contains("`a.one`") && error.contains("a/src") && error.contains("b/src"), "{error}");
    }

    #[test]
    fn a_point_that_no_run_dies_at_is_told_by_name() {
        let mut names = on_disks(Workspace::find().unwrap().root()).unwrap();
        assert!(names.iter().any(|name| name == "commit.record.linked"), "{names:?}");
        let hit = names.clone();
        let is_hit = |name: &str| hit.iter().any(|one| one == name);
        check_all_hit(&names, is_hit).unwrap();
        names.push("invented.for.this".into());
        let error = check_all_hit(&names, is_hit).unwrap_err().to_string();
        assert!(error.contains("never hit: invented.for.this;"), "{error}");
    }
}
