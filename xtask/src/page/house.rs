//! A folder of flows, with as many runs behind it as a server keeps, and the server over it.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::http;
use super::program::{LOOK_EVERY, Program};
use crate::process::command;
use crate::text;

/// As many ended runs as a server keeps.
pub(super) const N_RUNS: usize = 1000;

/// The flow of one of them.
pub(super) const NEEDLE: &str = "needle";

/// A file whose name would be a script, were it taken for HTML.
pub(super) const HOSTILE: &str = "<img src=x onerror=window.hostile=1>";

pub(super) const N_SHORT_ROWS: u64 = 20_000;
pub(super) const N_BAD_ROWS: usize = 7;

/// How long the first run may take.
const MAX_RUN: Duration = Duration::from_secs(30);

/// The flows, by the names of their files.
const FLOWS: [(&str, &str); 6] = [
    (
        "short",
        "name: short\nsource: { generate: { rows: 20000, columns: { id: sequence, text: { len: 20 } } } }\n\
         sink: { ndjson: { path: short.ndjson } }\n",
    ),
    (
        "endless",
        "name: endless\nmemory: 32MB\nsource: { generate: { rows: 1000000000, columns: { id: sequence, x: float } } }\n\
         stages:\n  - throttle: { rows: 5000, per: 100ms }\n  - rename: { x: y }\n\
         sink: { discard: {} }\n",
    ),
    (
        "live",
        "name: live\nsource: { generate: { rows: 1000000000, columns: { id: sequence } } }\n\
         stages:\n  - throttle: { rows: 100, per: 100ms }\nsink: { sse: { name: live } }\n",
    ),
    (
        "bad",
        "name: bad\nexecution: { on_error: skip, max_rejected: 100% }\n\
         source: { files: { paths: [bad.ndjson], schema: { n: int64 } } }\nsink: { ndjson: { path: bad-out.ndjson } }\n",
    ),
    (
        "nightly",
        "name: nightly\ncron: '15 6 1 1 *'\nsource: { generate: { rows: 1 } }\nsink: { discard: {} }\n",
    ),
    ("broken", "name: broken\nsource: {\n"),
];

/// Flows enough for the page to offer a search among them.
const N_MORE_FLOWS: usize = 4;

/// The server, over a folder of its own.
#[derive(Debug)]
pub(super) struct House {
    pub(super) port: u16,
    _server: Program,
    _folder: tempfile::TempDir,
}

impl House {
    /// Serves the folder. One run is made; the others are copies of its record, of other days and by other names.
    ///
    /// # Errors
    /// The server does not start, or the run does not end well.
    pub(super) fn open(binary: &Path, logs: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("no folder for the flows")?;
        write_flows(folder.path())?;
        let (first, port) = serve(binary, folder.path(), &logs.join("first-server.log"))?;
        let record = run_once(port, folder.path())?;
        drop(first);
        multiply(&record)?;
        let (server, port) = serve(binary, folder.path(), &logs.join("server.log"))?;
        Ok(Self { port, _server: server, _folder: folder })
    }

    /// Where browsers find it.
    pub(super) fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn write_flows(folder: &Path) -> Result<()> {
    for (name, flow) in FLOWS {
        text::write(&folder.join(name).with_extension("yaml"), flow)?;
    }
    for n in 0..N_MORE_FLOWS {
        let flow =
            format!("name: more-{n}\nsource: {{ generate: {{ rows: 1 }} }}\nsink: {{ discard: {{}} }}\n");
        text::write(&folder.join(format!("more-{n}.yaml")), &flow)?;
    }
    text::write(&folder.join(format!("{HOSTILE}.yaml")), &format!("name: '{HOSTILE}'\n"))?;
    let rows = (0..100).map(|n| format!("{{\"n\":{n}}}\n"));
    let bad = (0..N_BAD_ROWS).map(|n| format!("{{\"n\":\"{HOSTILE}{n}\"}}\n"));
    text::write(&folder.join("bad.ndjson"), &rows.chain(bad).collect::<String>())
}

fn serve(binary: &Path, folder: &Path, log: &Path) -> Result<(Program, u16)> {
    let mut command = command(binary, folder);
    command.args(["serve", ".", "--listen", "127.0.0.1:0", "--memory", "400MB"]);
    let mut server = Program::start(&command, log)?;
    let port = server.port_after("serving at http://127.0.0.1:")?;
    Ok((server, port))
}

/// Runs the short flow to its end; where the server keeps that run.
fn run_once(port: u16, folder: &Path) -> Result<PathBuf> {
    let run = http::ask(port, "POST", "/runs", Some(&json!({ "flow": "short" })))?;
    let id = run["id"].as_str().context("a run without an id")?;
    let started = Instant::now();
    loop {
        let run = http::ask(port, "GET", &format!("/runs/{id}"), None)?;
        match run["status"].as_str() {
            Some("done") => return Ok(folder.join(".aqueduct/serve").join(format!("{id}.json"))),
            Some("waiting" | "running") => {}
            _ => ensure!(false, "the first run did not end well: {run}"),
        }
        ensure!(started.elapsed() < MAX_RUN, "the first run did not end within {MAX_RUN:?}: {run}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Makes many runs of one, a minute apart, long ago; one of them is of the flow [`NEEDLE`].
fn multiply(record: &Path) -> Result<()> {
    let mut run: Value = serde_json::from_str(&text::read(record)?)?;
    for n in 0..N_RUNS - 1 {
        let (hour, minute) = (n / 60, n % 60);
        let id = format!("20260102T{hour:02}{minute:02}00{n:06x}");
        let at = format!("2026-01-02T{hour:02}:{minute:02}:00Z");
        run["id"] = json!(id);
        for moment in ["asked", "started", "finished"] {
            run[moment] = json!(at);
        }
        run["request"]["flow"] = json!(if n == N_RUNS / 2 { NEEDLE } else { "short" });
        text::write(&record.with_file_name(format!("{id}.json")), &run.to_string())?;
    }
    Ok(())
}
