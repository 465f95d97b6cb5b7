//! A process of clients of a stream: a program of the crate `testkit` that says `ready` when all are connected, and later, in one line
//! of JSON, what they have seen.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

use crate::process::{cargo, check, command};
use crate::workspace::Workspace;

/// Builds such a program, and says where it lies.
///
/// # Errors
/// It does not compile.
pub(crate) fn program(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let what = ["build", "--release", "--package", "aqueduct-testkit", "--example", name];
    check(cargo(workspace.root()).args(what))?;
    Ok(workspace.target().join("release/examples").join(name))
}

/// Clients in a process. Dropping it ends them.
pub(crate) struct Clients {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Clients {
    /// Starts them.
    ///
    /// # Errors
    /// They cannot be started.
    pub(crate) fn start(program: &Path, args: &[String]) -> Result<Self> {
        let mut child = command(program, Path::new("/")).args(args).stdout(Stdio::piped()).spawn()?;
        let says = BufReader::new(child.stdout.take().context("the clients have no output")?);
        Ok(Self { child, says })
    }

    /// Waits until all are connected.
    ///
    /// # Errors
    /// One could not connect.
    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        let line = self.line()?;
        ensure!(line.trim() == "ready", "the clients could not all connect: {line}");
        Ok(())
    }

    /// What they have seen, once all have had their last event or gave up.
    ///
    /// # Errors
    /// The process failed.
    pub(crate) fn seen<T: DeserializeOwned>(mut self) -> Result<T> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the clients said `{}`", line.trim()))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
