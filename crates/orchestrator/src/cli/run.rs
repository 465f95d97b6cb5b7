//! `aqueduct run`.

use std::path::Path;

use aqueduct_commit::Start;
use aqueduct_core::{Clock, Fs, StdFs, SystemClock};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::arguments::RunArguments;
use super::begin::Asked;
use super::execute::{Executed, Signals, execute};
use super::listen::Listening;
use super::{Program, exit, turns};
use crate::flow::{Flow, RunIdentity, Schedule};
use crate::report::Report;
use crate::run::RunOptions;

/// Runs a flow, once per matrix entry, or turn after turn; the exit code.
pub(super) async fn run(program: &Program, arguments: RunArguments) -> u8 {
    let signals = Signals::listen();
    let run = RunIdentity::default();
    let flows = match program.load_for(&arguments.flow, run.clone()) {
        Ok(flows) => flows,
        Err(code) => return code,
    };
    let stop = CancellationToken::new();
    let signals = signals.stop(stop.clone(), program.console.clone());
    let listening = match Listening::of(program, &flows, arguments.listen.as_ref()) {
        Ok(listening) => listening,
        Err(error) => {
            program.say_error(&error.chain());
            return exit::WRONG;
        }
    };
    let runner = Runner { program, arguments: &arguments, stop, listening };
    let schedule = flows.first().and_then(|flow| flow.schedule.clone()).filter(|_| !arguments.once);
    let work = async {
        let code = match schedule {
            Some(schedule) => runner.turns(&schedule).await,
            None => runner.turn(run, flows, runner.start(), 0).await,
        };
        if let Some(listening) = runner.listening {
            listening.close().await;
        }
        code
    };
    tokio::select! {
        code = work => code,
        () = signals => exit::INTERRUPTED,
    }
}

/// What it takes to run a flow, once or again.
struct Runner<'a> {
    program: &'a Program,
    arguments: &'a RunArguments,
    stop: CancellationToken,
    listening: Option<Listening>,
}

impl Runner<'_> {
    fn start(&self) -> Start {
        match (self.arguments.full_refresh, self.arguments.fresh) {
            (true, _) => Start::FullRefresh,
            (false, true) => Start::Fresh,
            (false, false) => Start::Resume,
        }
    }

    /// The flows as the file has them now, which may have been edited since it was listened for them.
    fn load(&self, run: RunIdentity) -> Result<Vec<Flow>, u8> {
        let flows = self.program.load_for(&self.arguments.flow, run)?;
        match self.listening.as_ref().map_or(Ok(()), |listening| listening.check(&flows)) {
            Ok(()) => Ok(flows),
            Err(error) => {
                self.program.say_error(&error.chain());
                Err(exit::WRONG)
            }
        }
    }

    fn has_started(&self) {
        self.listening.iter().for_each(Listening::has_started);
    }

    /// Turn after turn until told to stop; the code of the last one. A turn that fails is told, and the next comes all the same.
    async fn turns(&self, schedule: &Schedule) -> u8 {
        let mut code = exit::DONE;
        let mut start = self.start();
        tracing::info!("runs {}; ctrl-c ends it", schedule.text());
        let now = SystemClock.now();
        if schedule.first(now).is_none_or(|turn| turn.due > now) {
            self.has_started();
        }
        turns::each(schedule, &SystemClock, &self.stop, async |n_skipped| {
            let run = RunIdentity::default();
            code = match self.load(run.clone()) {
                Ok(flows) => self.turn(run, flows, start, n_skipped).await,
                Err(code) => code,
            };
            // A turn that did not begin has opened nothing.
            self.has_started();
            // What was asked for the start is asked for once.
            start = Start::Resume;
        })
        .await;
        code
    }

    /// All entries of the matrix, one after the other; the exit code.
    async fn turn(&self, run: RunIdentity, flows: Vec<Flow>, start: Start, turns_skipped: u64) -> u8 {
        let reload = |run| self.load(run);
        let mut ended = Vec::new();
        for flow in flows {
            let options = RunOptions {
                limit_rows: self.arguments.limit,
                stop: self.stop.clone(),
                turns_skipped,
                ..RunOptions::default()
            };
            let shown =
                self.listening.as_ref().map(|listening| (listening, listening.show(&flow, options.clone())));
            let options = shown.as_ref().map_or(options, |(_, (_, options))| options.clone());
            let asked = Asked { flow, run: run.clone(), start, reload: &reload };
            let one = execute(self.program, asked, options, self.arguments.progress).await;
            if let Some((listening, (job, _))) = &shown {
                listening.has_ended(job, &one).await;
            }
            ended.push(one);
            if self.stop.is_cancelled() {
                break;
            }
        }
        let reports: Vec<&Report> = ended.iter().filter_map(|one| one.report.as_ref()).collect();
        if let Some(path) = &self.arguments.report
            && let Err(error) = write_report(path, &reports)
        {
            self.program.say_error(&format!("cannot write the report {}: {error}", path.display()));
            return exit::FAILED;
        }
        code(&ended, self.arguments.strict)
    }
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

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::cli::arguments::{Arguments, Command};
    use crate::logging::{Console, LogFormat};

    async fn is_healthy(address: &str) -> bool {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let text = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        socket.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer.starts_with("HTTP/1.1 200 ")
    }

    /// Returns when a flow with this schedule, whose file is then gone, is healthy between its turns.
    async fn is_healthy_between_turns(schedule: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("flow.yaml");
        let text = "name: one\nsource: { files: { paths: [a] } }\nsink: { discard: {} }\n";
        std::fs::write(&file, format!("{text}{schedule}\n")).unwrap();
        let words = ["aqueduct", "run", file.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let Command::Run(arguments) = Arguments::try_parse_from(words).unwrap().command else {
            panic!("not run")
        };
        let program = Program {
            registry: crate::flow::fake::registry(),
            console: Console::default(),
            log_format: LogFormat::default(),
        };
        let Ok(flows) = program.load_for(&arguments.flow, RunIdentity::default()) else {
            panic!("not loaded")
        };
        let listening = Listening::of(&program, &flows, arguments.listen.as_ref()).unwrap();
        let address = listening.as_ref().unwrap().address().to_owned();
        assert!(!is_healthy(&address).await);
        std::fs::remove_file(&file).unwrap();
        let schedule = flows[0].schedule.clone().unwrap();
        let runner =
            Runner { program: &program, arguments: &arguments, stop: CancellationToken::new(), listening };
        let asking = async { while !is_healthy(&address).await {} };
        tokio::select! {
            _ = runner.turns(&schedule) => panic!("it ended"),
            () = asking => {}
        }
        runner.listening.unwrap().close().await;
    }

    #[tokio::test]
    async fn a_flow_that_waits_for_its_turn_is_healthy() {
        is_healthy_between_turns("cron: '0 0 1 1 *'").await;
    }

    #[tokio::test]
    async fn a_flow_whose_turn_did_not_begin_is_healthy() {
        is_healthy_between_turns("every: 5m").await;
    }
}
