//! The arguments of each command.

use std::ffi::OsString;
use std::path::PathBuf;

use aqueduct_net::server::Listen;
use aqueduct_primitives::ByteCount;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::describe::{ExplainFormat, ListFormat};
use crate::logging::{LogFormat, Verbosity};
use crate::progress::ProgressKind;

/// Any amount of data through a fixed amount of memory.
#[derive(Debug, Parser)]
#[command(name = "aqueduct", version, disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// Change to this folder first.
    #[arg(short = 'C', value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,
    /// Say also how things are done.
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Say errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) log_format: LogFormat,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Arguments {
    pub(super) fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a flow to its end.
    Run(RunArguments),
    /// Parse, resolve and type every step; touch nothing.
    Check(FlowArguments),
    /// Tell what a run would do: steps, schemas, memory, guarantees.
    Explain(ExplainArguments),
    /// Show the first rows after a step; write nothing.
    Preview(PreviewArguments),
    /// List every source, stage and sink, or describe one.
    Components {
        /// One component.
        name: Option<String>,
        /// How the list looks.
        #[arg(long, value_enum, default_value_t)]
        format: ListFormat,
    },
    /// Print the JSON Schema of flow files; editors complete from it.
    Schema,
    /// Write a commented flow to start from; never over another file.
    New {
        /// Which one; without it, the simplest.
        template: Option<String>,
        /// Where to.
        file: Option<PathBuf>,
    },
    /// List the runs of the flows here, or tell one in detail.
    Runs(RunsArguments),
    /// Show what a flow keeps from run to run, or change it.
    ///
    /// Of each entry of the matrix: the last run that committed something, how far its sources were read, what its steps keep.
    /// `set` and `reset` are one record in the flow's log: done as a whole or not at all, and seen by the next run. They are
    /// refused while a run is not finished, but for `reset` without a step, which drops that run, too.
    State(StateArguments),
    /// Remove what killed and forgotten runs left behind.
    ///
    /// Staged files that no commit speaks of, folders of runs that have ended, spilled rows that nobody holds, files of seen
    /// keys that were replaced. Never an output, the log, or what an unfinished run goes on with. Flows that are running are left
    /// as they are, and named.
    Clean(CleanArguments),
    /// Run rejected items through a flow once more.
    ///
    /// Each is read as its source would read it, in the place of all that the sources have, and its rows are added to the
    /// outputs. What was replayed is committed with those rows: doing it again does nothing twice. What is rejected once more
    /// is kept aside once more.
    Replay(ReplayArguments),
    /// Run the flow's own tests.
    Test(FlowArguments),
    /// Read a committed output again and prove its rows and checksums.
    ///
    /// Every part that the manifest lists must be there with its size, its BLAKE3 and its rows, nothing else may stand there,
    /// and the totals must agree. Ends with 0 when all is right, with 1 when something is wrong, with 2 when there is no
    /// manifest, or a newer aqueduct wrote it. Rows are counted in the files of the sinks `parquet`, `arrow`, `csv`, `json`
    /// and `ndjson`; the copies that `files` makes have none.
    Verify {
        /// The output: a folder, or one file.
        path: PathBuf,
    },
    /// Show it all without a network: a local server, a flow over its files, the report.
    Demo(DemoArguments),
    /// Serve files over HTTP with scripted faults, to try flows against.
    #[command(long_about = crate::chaos::HELP)]
    Chaos {
        /// The script: YAML, JSON or TOML.
        script: PathBuf,
    },
    /// Serve the flows of a folder: start them over HTTP and watch them live.
    ///
    /// `POST /runs {"flow": NAME, "set": {VARIABLE: VALUE}}` starts one, `GET /runs` and `/runs/ID` tell of them,
    /// `/runs/ID/events` is a stream of events, `DELETE /runs/ID` cancels, `GET /flows` lists the flows. `/` is a page,
    /// `/metrics` is for Prometheus. All runs share one memory; one that does not fit waits its turn. Runs that had not ended
    /// go on when the server is started again. ctrl-c has them commit what is complete.
    Serve(ServeArguments),
    /// Be a child process of a run.
    #[command(hide = true)]
    Worker {
        /// Its task and its limits.
        words: Vec<OsString>,
    },
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// A flow and the values given for it.
#[derive(Args, Clone, Debug)]
pub(super) struct FlowArguments {
    /// The flow file: YAML, JSON or TOML.
    pub(super) flow: PathBuf,
    #[command(flatten)]
    pub(super) values: ValueArguments,
}

/// The values given for a flow.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ValueArguments {
    /// Give a variable its value, or override the key of the file that the dots lead to.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) set: Vec<(String, String)>,
    /// Run only the matrix entries with this value.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) only: Vec<(String, String)>,
    /// The memory for everything in flight, in the place of the file's.
    #[arg(long, value_name = "SIZE")]
    pub(super) memory: Option<ByteCount>,
    /// Read variables from this file, one KEY=VALUE a line; those of the environment win.
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub(super) flow: FlowArguments,
    /// Forget an unfinished run; what it committed stays.
    #[arg(long)]
    pub(super) fresh: bool,
    /// Forget also cursors and keys seen, and replace the output, in one act at the end.
    #[arg(long)]
    pub(super) full_refresh: bool,
    /// Run once, though the flow says `every` or `cron`.
    #[arg(long)]
    pub(super) once: bool,
    /// Each source gives at most so many rows.
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// End with 3 when rows were rejected, or there were gaps or warnings.
    #[arg(long)]
    pub(super) strict: bool,
    /// Write the report here, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub(super) progress: ProgressKind,
    /// Show the run at this address, HOST:PORT or unix:PATH: a page, /metrics, /healthz, event streams. Flows with such a
    /// stream listen at 127.0.0.1:8787 unless told otherwise.
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Option<Listen>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ServeArguments {
    /// The folder of the flows.
    pub(super) folder: PathBuf,
    /// Where to listen: HOST:PORT or unix:PATH.
    #[arg(long, value_name = "ADDR", default_value = Listen::DEFAULT)]
    pub(super) listen: Listen,
    /// The memory that all runs share. Default 512MB, or 60 % of a smaller cgroup limit.
    #[arg(long, value_name = "SIZE")]
    pub(super) memory: Option<ByteCount>,
    /// Runs at once; more wait.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) max_runs: u16,
    /// Whoever starts or cancels a run must send what stands in this file; at an address that others can reach, whoever asks
    /// anything.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Another name by which this server is called, behind a proxy say. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub(super) host: Vec<String>,
    /// Also run flows that start programs.
    #[arg(long)]
    pub(super) allow_exec: bool,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ExplainArguments {
    #[command(flatten)]
    pub(super) flow: FlowArguments,
    /// How the plan looks.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: ExplainFormat,
}

#[derive(Args, Clone, Debug)]
pub(super) struct PreviewArguments {
    #[command(flatten)]
    pub(super) flow: FlowArguments,
    /// How many rows.
    #[arg(short, default_value_t = 10, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) n: u64,
    /// After which step; without it, what the first sink would get.
    #[arg(long, value_name = "STEP")]
    pub(super) at: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct RunsArguments {
    /// One run, or the beginning of its name.
    pub(super) run: Option<String>,
    /// The state folder.
    #[arg(long, default_value = ".aqueduct", value_name = "DIR")]
    pub(super) state: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(super) struct StateArguments {
    #[command(flatten)]
    pub(super) flow: FlowArguments,
    /// What to do.
    #[arg(value_enum, default_value_t)]
    pub(super) action: StateAction,
    /// For `set`, STEP.FIELD=VALUE; for `reset`, a step; for `export`, a step that records sightings.
    #[arg(value_name = "K=V|STEP")]
    pub(super) what: Option<String>,
}

/// What to do with a flow's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum StateAction {
    /// Tell it.
    #[default]
    Show,
    /// Give a value that a step keeps another one: `set SOURCE.since=2026-01-31`.
    Set,
    /// Forget what a step keeps; without a step, what all of them keep, and an unfinished run.
    Reset,
    /// Tell all of it, as JSON; of a step that records sightings, a line of JSON for each key.
    Export,
}

#[derive(Args, Clone, Debug)]
pub(super) struct CleanArguments {
    /// The flow file; without it, all flows whose state is in `.aqueduct`.
    pub(super) flow: Option<PathBuf>,
    #[command(flatten)]
    pub(super) values: ValueArguments,
    /// Only tell what would be removed.
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ReplayArguments {
    /// What was rejected: a file, or a folder of them.
    pub(super) rejected: PathBuf,
    #[command(flatten)]
    pub(super) flow: FlowArguments,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub(super) progress: ProgressKind,
}

#[derive(Args, Clone, Debug)]
pub(super) struct DemoArguments {
    /// How many files the local server has.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) files: u32,
    /// The memory for everything in flight.
    #[arg(long, default_value = "64MB", value_name = "SIZE")]
    pub(super) memory: ByteCount,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t, value_name = "KIND")]
    pub(super) progress: ProgressKind,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
