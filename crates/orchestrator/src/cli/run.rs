//! `aqueduct run`.

use std::path::Path;

use aqueduct_commit::Start;
use aqueduct_core::{Fs, StdFs};
use aqueduct_net::server::Server;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::arguments::RunArguments;
use super::begin::Asked;
use super::execute::{Executed, Signals, execute};
use super::{Program, exit};
use crate::flow::RunIdentity;
use crate::report::Report;
use crate::run::RunOptions;

/// Runs a flow, once per matrix entry; the exit code.
pub(super) async fn run(program: &Program, arguments: RunArguments) -> u8 {
    let signals = Signals::listen();
    let run = RunIdentity::default();
    let flows = match program.load_for(&arguments.flow, run.clone()) {
        Ok(flows) => flows,
        Err(code) => return code,
    };
    let server = match program.listen(arguments.listen.clone(), &flows) {
        Ok(server) => server,
        Err(code) => return code,
    };
    let mounts = server.as_ref().map(Server::mounts);
    let start = match (arguments.full_refresh, arguments.fresh) {
        (true, _) => Start::FullRefresh,
        (false, true) => Start::Fresh,
        (false, false) => Start::Resume,
    };
    let reload = |run| program.load_for(&arguments.flow, run);
    let stop = CancellationToken::new();
    let signals = signals.stop(stop.clone(), program.console.clone());
    let work = async {
        let mut ended = Vec::new();
        for flow in flows {
            let options = RunOptions {
                limit_rows: arguments.limit,
                stop: stop.clone(),
                mounts: mounts.clone(),
                ..RunOptions::default()
            };
            let asked = Asked { flow, run: run.clone(), start, reload: &reload };
            ended.push(execute(program, asked, options, arguments.progress).await);
            if stop.is_cancelled() {
                break;
            }
        }
        if let Some(server) = server {
            server.close().await;
        }
        ended
    };
    let ended = tokio::select! {
        ended = work => ended,
        () = signals => return exit::INTERRUPTED,
    };
    let reports: Vec<&Report> = ended.iter().filter_map(|one| one.report.as_ref()).collect();
    if let Some(path) = &arguments.report
        && let Err(error) = write_report(path, &reports)
    {
        program.say_error(&format!("cannot write the report {}: {error}", path.display()));
        return exit::FAILED;
    }
    code(&ended, arguments.strict)
}

/// The worst code of all entries; a failed entry of several is 1.
fn code(ended: &[Executed], strict: bool) -> u8 {
    let codes = || ended.iter().map(|one| one.code);
    if codes().any(|code| code == exit::INTERRUPTED) {
        return exit::INTERRUPTED;
    }
    if let Some(bad) = codes().find(|code| *code != exit::DONE) {
        return if ended.len() > 1 { exit::FAILED } else { bad };
    }
    let is_clean = |report: &Report| {
        report.rows_rejected + report.files_rejected == 0
            && report.gaps.is_empty()
            && report.warnings.is_empty()
    };
    if strict && !ended.iter().filter_map(|one| one.report.as_ref()).all(is_clean) {
        return exit::NOT_CLEAN;
    }
    exit::DONE
}

/// Writes one report as it is, several as `{"entries": […]}`; whole or not at all.
fn write_report(path: &Path, reports: &[&Report]) -> std::io::Result<()> {
    let value: Value = match reports {
        [report] => serde_json::to_value(report)?,
        several => json!({ "entries": several }),
    };
    let staged = path.with_extension("part");
    let fs = StdFs;
    fs.remove_file(&staged)?;
    let mut file = fs.create_new(&staged)?;
    file.write_all(&serde_json::to_vec_pretty(&value)?)?;
    fs.rename(&staged, path)
}
