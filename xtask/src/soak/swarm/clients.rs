//! The clients, in two processes: one alone would be what is measured.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::process::{cargo, check};
use crate::workspace::{PROFILE, Workspace};

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clients {
    pub(super) n_healthy: u64,
    pub(super) n_stalled: u64,
    pub(super) n_restless: u64,
    pub(super) n_half_open: u64,
}

impl Clients {
    /// So many clients, a tenth of them stalled and a tenth restless; and so many connections beside them.
    pub(super) fn of(n_clients: u64, n_half_open: u64) -> Self {
        let tenth = n_clients / 10;
        Self { n_healthy: n_clients - 2 * tenth, n_stalled: tenth, n_restless: tenth, n_half_open }
    }

    /// Those that read.
    pub(super) fn n_reading(&self) -> u64 {
        self.n_healthy + self.n_restless
    }

    /// One for each process.
    pub(super) fn halves(&self) -> [Self; 2] {
        let each = |part: fn(u64) -> u64| Self {
            n_healthy: part(self.n_healthy),
            n_stalled: part(self.n_stalled),
            n_restless: part(self.n_restless),
            n_half_open: part(self.n_half_open),
        };
        [each(|n| n / 2), each(|n| n.div_ceil(2))]
    }
}

impl fmt::Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_healthy, n_stalled, n_restless, n_half_open } = self;
        write!(
            f,
            "{n_healthy} clients that read, {n_restless} that come again each second, {n_stalled} that never read, \
             {n_half_open} half-open connections"
        )
    }
}

/// Builds the program of the clients, and says where it lies.
///
/// # Errors
/// It does not compile.
pub(super) fn program(workspace: &Workspace) -> Result<PathBuf> {
    let what = ["build", "--profile", PROFILE, "--package", "aqueduct-testkit", "--example", "swarm"];
    check(cargo(workspace.root()).args(what))?;
    Ok(workspace.target().join(PROFILE).join("examples/swarm"))
}

/// What clients that read have seen.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Seen {
    /// Clients that had the last event.
    pub(super) n_complete: u64,
    pub(super) n_events: u64,
    pub(super) n_missed: u64,
    /// Connections refused or broken off.
    pub(super) n_errors: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
}

impl Seen {
    /// What another process has seen beside: of latencies, the worse.
    pub(super) fn add(&mut self, other: &Self) {
        self.n_complete += other.n_complete;
        self.n_events += other.n_events;
        self.n_missed += other.n_missed;
        self.n_errors += other.n_errors;
        self.p50_us = self.p50_us.max(other.p50_us);
        self.p99_us = self.p99_us.max(other.p99_us);
    }
}

/// A process of clients. Dropping it ends it.
pub(super) struct Flock {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Flock {
    /// Starts one; its clients go on for half a minute longer than rows come.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(
        program: &Path,
        address: &str,
        part: Clients,
        last_id: u64,
        seconds: u64,
    ) -> Result<Self> {
        let Clients { n_healthy, n_stalled, n_restless, n_half_open } = part;
        let numbers = [n_healthy, n_stalled, n_restless, n_half_open, last_id, seconds + CONNECTING + 30];
        let mut command = Command::new(program);
        command.args([address, "/streams/swarm"]).args(numbers.map(|number| number.to_string()));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let says = BufReader::new(child.stdout.take().context("the clients have no output")?);
        Ok(Self { child, says })
    }

    /// Waits until its clients are connected.
    ///
    /// # Errors
    /// One could not connect.
    pub(super) fn wait_until_ready(&mut self) -> Result<()> {
        let line = self.line()?;
        ensure!(line.trim() == "ready", "the clients could not all connect: {line}");
        Ok(())
    }

    /// What they have seen, once all have had the last event or gave up.
    ///
    /// # Errors
    /// The process failed.
    pub(super) fn seen(mut self) -> Result<Seen> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the clients said `{}`", line.trim()))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds that thousands of clients may take to connect.
const CONNECTING: u64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_have_all_clients() {
        let all = Clients::of(1001, 7);
        assert_eq!((all.n_healthy, all.n_stalled, all.n_restless, all.n_reading()), (801, 100, 100, 901));
        let [a, b] = all.halves();
        assert_eq!((a.n_healthy + b.n_healthy, a.n_half_open + b.n_half_open), (801, 7));
        assert_eq!((a.n_stalled + b.n_stalled, a.n_restless + b.n_restless), (100, 100));
    }
}
