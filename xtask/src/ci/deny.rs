//! Which crates, licences and sources may be in the tree: deny.toml, checked by cargo-deny. Advisories change
//! without a change of ours and are no gate.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::process::{answers, cargo, check};

/// The policy, from the root of the project.
const POLICY: &str = "deny.toml";

/// Checks the tree of the project.
///
/// # Errors
/// cargo-deny is missing, or finds something.
pub(super) fn run(root: &Path) -> Result<()> {
    ensure!(
        is_there(root),
        "cargo-deny is missing; `cargo install cargo-deny --locked` brings it, and .ci/run does so by itself"
    );
    check(&mut deny(root, root))
}

fn is_there(folder: &Path) -> bool {
    answers(cargo(folder).args(["deny", "--version"]))
}

/// The check of the workspace in a folder, by the policy of the project.
fn deny(folder: &Path, root: &Path) -> Command {
    let mut command = cargo(folder);
    command.args(["deny", "--log-level", "error", "--workspace", "--config"]).arg(root.join(POLICY));
    command.args(["check", "bans", "licenses", "sources"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::command;
    use crate::text;
    use crate::workspace::Workspace;

    /// A crate with one dependency, in a folder below it.
    fn project(folder: &Path, dependency: &str, license: &str, source: &str) {
        let private = "version = \"0.1.0\"\nedition = \"2024\"\npublish = false\n";
        let top = format!(
            "[package]\nname = \"top\"\nlicense = \"MIT\"\n{private}[dependencies]\n{dependency} = {source}\n[workspace]\n"
        );
        let below = format!("[package]\nname = \"{dependency}\"\nlicense = \"{license}\"\n{private}");
        for (at, manifest) in [(folder.to_path_buf(), top), (folder.join("below"), below)] {
            text::write(&at.join("Cargo.toml"), &manifest).unwrap();
            text::write(&at.join("src/lib.rs"), "").unwrap();
        }
    }

    /// Which of the three checks refuse a project; none where cargo-deny is missing.
    fn refused(folder: &Path) -> Option<Vec<&'static str>> {
        let root = Workspace::find().unwrap().root().to_path_buf();
        if !is_there(&root) {
            eprintln!("SKIPPED: cargo-deny is missing; the policy itself is still looked at");
            return None;
        }
        let output = deny(folder, &root).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
        let refused = ["bans FAILED", "licenses FAILED", "sources FAILED"];
        let refused: Vec<_> = refused.into_iter().filter(|line| told.contains(line)).collect();
        assert_eq!(output.status.success(), refused.is_empty(), "{told}");
        Some(refused)
    }

    fn refuses(dependency: &str, license: &str, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        project(folder.path(), dependency, license, "{ path = \"below\" }");
        assert_eq!(refused(folder.path()).unwrap_or(expected.to_vec()), expected);
    }

    #[test]
    fn a_harmless_crate_is_let_in() {
        refuses("harmless", "MIT", &[]);
    }

    #[test]
    fn a_second_tls_stack_is_refused() {
        refuses("openssl-sys", "MIT", &["bans FAILED"]);
    }

    #[test]
    fn all_of_datafusion_is_refused() {
        refuses("datafusion", "Apache-2.0", &["bans FAILED"]);
    }

    #[test]
    fn a_licence_that_binds_users_is_refused() {
        refuses("harmless", "AGPL-3.0-only", &["licenses FAILED"]);
    }

    #[test]
    fn a_source_other_than_the_registry_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("below");
        project(
            folder.path(),
            "harmless",
            "MIT",
            &format!("{{ git = \"file://{}\" }}", repository.display()),
        );
        for arguments in [
            &["init", "--quiet"][..],
            &["add", "."],
            &["-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "--message", "x"],
        ] {
            check(command("git", &repository).args(arguments)).unwrap();
        }
        let expected = vec!["sources FAILED"];
        assert_eq!(refused(folder.path()).unwrap_or(expected.clone()), expected);
    }

    /// What holds where cargo-deny is missing: the policy names what it must.
    #[test]
    fn the_policy_names_what_it_must() {
        let root = Workspace::find().unwrap().root().to_path_buf();
        let policy: toml::Table = text::read(&root.join(POLICY)).unwrap().parse().unwrap();
        let banned = policy["bans"]["deny"].as_array().unwrap();
        for name in ["openssl-sys", "native-tls", "aws-lc-sys", "datafusion"] {
            assert!(banned.iter().any(|entry| entry["crate"].as_str() == Some(name)), "{name}");
        }
        assert_eq!(policy["sources"]["unknown-git"].as_str(), Some("deny"));
        assert_eq!(policy["sources"]["unknown-registry"].as_str(), Some("deny"));
        let licences = policy["licenses"]["allow"].as_array().unwrap();
        assert!(licences.iter().all(|name| !name.as_str().unwrap().contains("GPL")));
    }
}
