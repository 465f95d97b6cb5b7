//! What comes from outside a flow file: the command line and the environment.

use std::collections::HashMap;
use std::path::Path;

use aqueduct_core::run_id;
use aqueduct_primitives::ByteCount;
use chrono::{DateTime, Utc};

use crate::flow::read::{MAX_FILE_BYTES, bounded};

/// What the command line and the environment say about a flow.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `--set`, in order: of two with one key, the later counts.
    pub set: Vec<(String, String)>,
    /// `--only`: the matrix entries to run.
    pub only: Vec<(String, String)>,
    /// `--memory`, which goes before the file's.
    pub memory: Option<ByteCount>,
    /// The environment, and what `--env-file` adds to it.
    pub env: HashMap<String, String>,
    /// Whether secrets are read.
    pub secrets: SecretMode,
    /// What `${run.id}`, `${run.started}`, `${today}` and `${yesterday}` stand for.
    pub run: RunIdentity,
}

/// Whether the values of `secrets:` are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretMode {
    /// They are not: `***` stands in their place.
    #[default]
    Hidden,
    /// They are: somebody is about to use them.
    Read,
}

/// What a run is called, and the time that its flow file is filled in with.
#[derive(Clone, Debug)]
pub struct RunIdentity {
    /// Its name.
    pub id: String,
    /// The time that the variables tell: one for all entries of a matrix, so that they agree on the day.
    pub started: DateTime<Utc>,
}

impl Default for RunIdentity {
    /// A run that starts now.
    fn default() -> Self {
        let started = Utc::now();
        Self { id: run_id(started), started }
    }
}

impl RunIdentity {
    /// Of one entry of a matrix: each is a run with a report of its own, begun when its turn comes.
    #[must_use]
    pub fn of_entry(&self, n: usize) -> Self {
        Self { id: format!("{}e{n:03}", self.id), started: self.started }
    }
}

impl Settings {
    /// Nothing but the process's environment. Variables that are not Unicode are left out.
    pub fn from_env() -> Self {
        let env = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Self { env: env.collect(), ..Self::default() }
    }
}

/// `KEY=VALUE` apart.
///
/// # Errors
/// There is no `=`, or no key before it.
pub fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.into())),
        _ => Err(format!("`{text}` is no KEY=VALUE")),
    }
}

/// The variables of a file with one `KEY=VALUE` a line. Empty lines and those that begin with `#` do not
/// count; `export ` before a key and quotes around a value are taken off.
///
/// # Errors
/// The file cannot be read or is larger than 1 MiB, or a line is no assignment; names the line, never its
/// value.
pub fn read_env_file(path: &Path) -> Result<Vec<(String, String)>, String> {
    let named = |message: String| format!("{}: {message}", path.display());
    let bytes = bounded(path, MAX_FILE_BYTES).map_err(named)?;
    let text = String::from_utf8(bytes).map_err(|_| named("no UTF-8".into()))?;
    let mut variables = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Ok((key, value)) = assignment(line) else {
            return Err(format!("{}:{}: no KEY=VALUE", path.display(), n + 1));
        };
        variables.push((key, unquoted(value.trim()).into()));
    }
    Ok(variables)
}

fn unquoted(text: &str) -> &str {
    let between = |quote| text.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    between('"').or_else(|| between('\'')).unwrap_or(text)
}
