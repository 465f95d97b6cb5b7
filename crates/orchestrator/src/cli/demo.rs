//! `aqueduct demo`: what a newcomer runs first, offline.

use std::time::{Duration, Instant};

use aqueduct_commit::Start;
use aqueduct_primitives::{ByteCount, Tasks};
use comfy_table::{Table, presets};
use tokio_util::sync::CancellationToken;

use super::arguments::{DemoArguments, FlowArguments, ValueArguments};
use super::begin::Asked;
use super::execute::{Signals, execute};
use super::{Program, exit};
use crate::demo::{DemoServer, ROWS_PER_FILE, interval};
use crate::flow::RunIdentity;
use crate::progress::grouped;
use crate::report::Report;
use crate::run::RunOptions;

/// The flow of the demonstration; `{…}` are filled in.
const FLOW: &str = include_str!("../demo/flow.yaml");

/// Starts a server, runs a flow over its files, prints what it took; the exit code.
pub(super) async fn demo(program: &Program, arguments: DemoArguments) -> u8 {
    let tasks = Tasks::default();
    let stop = CancellationToken::new();
    let code = tokio::select! {
        result = run_demo(program, &arguments, &tasks, stop.clone()) => result.unwrap_or_else(|message| {
            program.say_error(&message);
            exit::FAILED
        }),
        () = Signals::listen().stop(stop.clone(), program.console.clone()) => exit::INTERRUPTED,
    };
    tasks.join().await;
    code
}

async fn run_demo(
    program: &Program,
    arguments: &DemoArguments,
    tasks: &Tasks,
    stop: CancellationToken,
) -> Result<u8, String> {
    let folder = tempfile::Builder::new()
        .prefix("aqueduct-demo-")
        .tempdir()
        .map_err(|error| format!("cannot make a folder: {error}"))?;
    let server = DemoServer::start(arguments.files, tasks).await.map_err(|error| error.chain())?;
    let text = FLOW
        .replace("{memory}", &arguments.memory.to_string())
        .replace("{base_url}", &server.base_url())
        .replace("{to}", &interval(arguments.files).format("%Y-%m-%dT%H:%M:%SZ").to_string());
    let file = folder.path().join("demo.yaml");
    std::fs::write(&file, &text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    let named = FlowArguments { flow: file, values: ValueArguments::default() };
    let run = RunIdentity::default();
    let flow = match program.load_for(&named, run.clone()) {
        Ok(flows) => flows.into_iter().next().ok_or("the demo's flow is empty")?,
        Err(code) => return Ok(code),
    };
    program.write_out(
        format!("{} files on {}; the flow:\n\n{text}\n", arguments.files, server.base_url()).as_bytes(),
    );
    let started = Instant::now();
    let reload = |run| program.load_for(&named, run);
    let asked = Asked { flow, run, start: Start::Fresh, reload: &reload };
    let ended =
        execute(program, asked, RunOptions { stop, ..RunOptions::default() }, arguments.progress).await;
    let elapsed = started.elapsed();
    if let Some(report) = &ended.report {
        program.write_out(table(report, arguments.files, elapsed).as_bytes());
        let expected = u64::from(arguments.files) * ROWS_PER_FILE;
        if ended.code == exit::DONE && report.rows_in != expected {
            return Err(format!("expected {expected} rows, read {}", report.rows_in));
        }
    }
    Ok(ended.code)
}

fn table(report: &Report, n_files: u32, elapsed: Duration) -> String {
    let size = |bytes| ByteCount::new(bytes).human();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let rows = [
        ("files", grouped(u64::from(n_files))),
        ("bytes downloaded", size(report.bytes_in)),
        ("rows read", grouped(report.rows_in)),
        ("rows written", grouped(report.rows_out)),
        ("requests made again", grouped(report.retries)),
        ("wall time", format!("{:.2} s", elapsed.as_secs_f64())),
        ("memory limit", size(report.memory_limit_bytes)),
        ("memory reserved at most", size(report.memory_peak_bytes)),
        ("allocated at most", size(report.allocated_peak_bytes)),
        ("resident at most (the server's part too)", size(report.rss_peak_bytes)),
    ];
    for (what, figure) in rows {
        table.add_row([what.to_owned(), figure]);
    }
    format!("{table}\n")
}
