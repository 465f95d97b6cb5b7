//! The report of a run, as `--report` writes it and the ledger keeps it.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All rows are committed.
    Done,
    /// It ended with an error; what is public of it all the same stands among the outputs.
    Failed,
    /// It was told to stop.
    Interrupted,
}

impl Status {
    /// The word in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What one run did. Times are RFC 3339 in UTC, sizes are bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Names the run; later runs sort after earlier ones.
    pub run_id: String,
    /// The flow's name.
    pub flow: String,
    /// The matrix entry, if the flow has a matrix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub entry: BTreeMap<String, String>,
    /// The program's version.
    pub aqueduct_version: String,
    /// How it ended.
    pub status: Status,
    /// Why it failed.
    pub error: Option<String>,
    /// When it began.
    pub started: String,
    /// When it ended.
    pub finished: String,
    /// The run that this one went on from.
    pub resumed_from: Option<String>,
    /// How outputs were changed: `replace`.
    pub mode: String,
    /// Rows read by the sources, bad ones among them.
    pub rows_in: u64,
    /// Rows written by the sinks.
    pub rows_out: u64,
    /// Rows dropped by a condition or a limit.
    pub rows_filtered: u64,
    /// Rows dropped as duplicates.
    pub rows_duplicate: u64,
    /// Bad rows that the policy took.
    pub rows_rejected: u64,
    /// Bad files that the policy took.
    pub files_rejected: u64,
    /// Files that earlier runs of the flow have committed: there, and not read again.
    #[serde(default)]
    pub files_known: u64,
    /// Bad rows and files by reason.
    pub rejected_by_reason: BTreeMap<String, u64>,
    /// What should have been there and was not; the first thousand.
    pub gaps: Vec<String>,
    /// What the user should know; the first thousand.
    pub warnings: Vec<String>,
    /// Bytes read from outside.
    pub bytes_in: u64,
    /// Bytes of the outputs.
    pub bytes_out: u64,
    /// The flow's `memory`.
    pub memory_limit_bytes: u64,
    /// The most bytes reserved at one moment.
    pub memory_peak_bytes: u64,
    /// The most bytes that the allocator had given out at one moment.
    pub allocated_peak_bytes: u64,
    /// The most bytes resident at one moment of the run: as the kernel counts, or, when the process had more in a run
    /// before, as was seen every 25 ms.
    pub rss_peak_bytes: u64,
    /// Bytes written to spill files.
    pub spilled_bytes: u64,
    /// Requests made again.
    pub retries: u64,
    /// How often a file changed while it was read, and what was not committed was dropped and read again.
    #[serde(default)]
    pub rereads: u64,
    /// Of a flow that runs again and again: how many turns were due since the one before, and left out.
    #[serde(default)]
    pub turns_skipped: u64,
    /// Step by step, sources first.
    pub steps: Vec<StepReport>,
    /// What is public now.
    pub outputs: Vec<OutputReport>,
}

/// What one step did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepReport {
    /// The step's name.
    pub name: String,
    /// The component, such as `files` or `filter`.
    pub kind: String,
    /// Rows that came in; of a source, rows read.
    pub rows_in: u64,
    /// Rows that went out; of a sink, rows written.
    pub rows_out: u64,
    /// Bad rows that the policy took.
    pub rows_rejected: u64,
    /// Bytes read from outside or written.
    pub bytes: u64,
    /// Time spent computing, over all its tasks.
    pub busy_ms: u64,
    /// The most bytes that it held of its own share of memory.
    pub memory_peak_bytes: u64,
    /// Bytes written to spill files.
    pub spilled_bytes: u64,
    /// What those were in memory.
    #[serde(default)]
    pub spilled_raw_bytes: u64,
    /// Times that spilled rows were merged and spilled again; the last merge, whose rows go on, is not counted.
    #[serde(default)]
    pub spill_merges: u64,
    /// What only steps of this kind count, by name: of `extract`, `questions`, `uploads` and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
}

/// One output of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OutputReport {
    /// The file or folder, as the flow names it.
    pub path: String,
    /// How many rows.
    pub rows: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// A time as reports write it: RFC 3339, UTC, microseconds.
pub fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
