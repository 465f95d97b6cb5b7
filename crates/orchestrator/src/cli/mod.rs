//! The command line: what `aqueduct` understands, and who answers.

mod arguments;
mod attempts;
mod begin;
mod chaos;
mod clean;
mod demo;
mod execute;
mod folder_flows;
mod listen;
mod notify;
mod preview;
mod replay;
mod run;
mod runs;
mod serve;
mod settings;
mod state;
mod test_flow;
mod turns;
mod verify;

use std::ffi::OsString;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use aqueduct_core::Registry;
use aqueduct_core::worker::{self, Worker};
use aqueduct_primitives::panic_message;
use clap::{CommandFactory, Parser};
use futures::FutureExt;

use crate::describe;
use crate::flow::SecretMode;
use crate::logging::{self, Console, LogFormat};
use arguments::{Arguments, Command, ExplainArguments};

/// Exit codes of the contract.
pub(crate) mod exit {
    /// Done.
    pub(crate) const DONE: u8 = 0;
    /// The run failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line or the flow is wrong; nothing was touched.
    pub(crate) const WRONG: u8 = 2;
    /// Done and committed, but with `--strict` rows were rejected, or there were gaps or warnings.
    pub(crate) const NOT_CLEAN: u8 = 3;
    /// The same flow is running already.
    pub(crate) const RUNNING: u8 = 4;
    /// Interrupted.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// The command by which a run starts this program once more.
const WORKER_COMMAND: &str = "worker";

/// Worker threads at most: the work that matters runs on the blocking pool, in turn.
const MAX_WORKER_THREADS: usize = 4;
/// Threads that may wait for disks or compute at once.
const MAX_BLOCKING_THREADS: usize = 64;
/// Of each thread. Planning deep expressions needs more and takes it on a thread of its own.
const THREAD_STACK_BYTES: usize = 2 << 20;
/// How long threads that are stuck in a system call may hold up the end of the process.
const SHUTDOWN_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(500);

/// The whole program over a registry of components: reads the command line, runs the command, returns the
/// exit code. A binary with sources of its own is this and a longer registry:
///
/// ```ignore
/// fn main() -> std::process::ExitCode {
///     aqueduct::cli_main(aqueduct::registry().with_sources(&[&my_source::FACTORY]))
/// }
/// ```
pub fn cli_main(registry: Registry) -> ExitCode {
    cli_main_from(registry, std::env::args_os())
}

/// [`cli_main`] of other words than those that the process was started with. The first one is the program's name.
pub fn cli_main_from(registry: Registry, words: impl IntoIterator<Item: Into<OsString> + Clone>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to standard output, mistakes to standard error; a closed one changes nothing.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::WRONG } else { exit::DONE });
        }
    };
    if let Command::Worker { words } = &arguments.command {
        return worker::serve(registry.worker_tasks(), words);
    }
    let registry = registry.with_worker(Worker::this_program([WORKER_COMMAND]));
    let console = Console::default();
    logging::start(&console, arguments.log_format, arguments.verbosity());
    console.tell_panics();
    let code = answer(registry, arguments, &console);
    console.close();
    ExitCode::from(code)
}

/// Answers the command line; the exit code.
fn answer(registry: Registry, arguments: Arguments, console: &Console) -> u8 {
    if let Some(folder) = &arguments.directory
        && let Err(error) = std::env::set_current_dir(folder)
    {
        console.line(&format!("error: cannot change to {}: {error}", folder.display()));
        return exit::WRONG;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).min(MAX_WORKER_THREADS))
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_stack_size(THREAD_STACK_BYTES)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            console.line(&format!("error: cannot start threads: {error}"));
            return exit::FAILED;
        }
    };
    let program = Program { registry, console: console.clone(), log_format: arguments.log_format };
    let answered = runtime.block_on(async {
        execute::write_errors_instead_of_death();
        AssertUnwindSafe(program.answer(arguments.command)).catch_unwind().await
    });
    let code = answered.unwrap_or_else(|panic| {
        let message = panic_message(&*panic);
        program.say_error(&format!("a defect: it panicked: {message}; what was committed before stays"));
        exit::FAILED
    });
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    code
}

/// What every command needs.
pub(crate) struct Program {
    pub(crate) registry: Registry,
    pub(crate) console: Console,
    pub(crate) log_format: LogFormat,
}

impl Program {
    async fn answer(&self, command: Command) -> u8 {
        match command {
            Command::Run(options) => run::run(self, options).await,
            Command::Preview(options) => preview::preview(self, options).await,
            Command::Test(options) => test_flow::test(self, options).await,
            Command::Demo(options) => demo::demo(self, options).await,
            Command::Chaos { script } => chaos::chaos(self, script).await,
            Command::Serve(options) => serve::serve(self, options).await,
            Command::Verify { path } => verify::verify(self, path).await,
            Command::Runs(options) => runs::runs(self, &options),
            Command::State(options) => state::state(self, &options),
            Command::Clean(options) => clean::clean(self, options),
            Command::Replay(options) => replay::replay(self, options).await,
            Command::Check(options) => self.print(|out| {
                describe::check(&options.flow, &options.settings(SecretMode::Hidden)?, &self.registry, out)
            }),
            Command::Explain(ExplainArguments { flow, format }) => self.print(|out| {
                describe::explain(
                    &flow.flow,
                    &flow.settings(SecretMode::Hidden)?,
                    &self.registry,
                    format,
                    out,
                )
            }),
            Command::Components { name, format } => {
                self.print(|out| describe::components(&self.registry, name.as_deref(), format, out))
            }
            Command::Schema => self.print(|out| describe::schema(&self.registry, out)),
            Command::New { template, file } => self.tell(describe::new(template.as_deref(), file.as_deref())),
            // Answered before there are threads.
            Command::Worker { .. } => exit::WRONG,
            Command::Completions { shell } => self.print(|out| {
                clap_complete::generate(shell, &mut Arguments::command(), "aqueduct", out);
                Ok(exit::DONE)
            }),
        }
    }

    /// Answers with a line for people, which is no data: on standard error, as what is wrong.
    fn tell(&self, answer: Result<String, String>) -> u8 {
        let (line, code) = match answer {
            Ok(line) => (line, exit::DONE),
            Err(message) => (message, exit::WRONG),
        };
        self.console.line(&line);
        code
    }

    /// Answers with text on standard output, or with what is wrong on standard error.
    fn print(&self, answer: impl FnOnce(&mut dyn Write) -> Result<u8, String>) -> u8 {
        let mut text = Vec::new();
        let code = match answer(&mut text) {
            Ok(code) => code,
            Err(message) => {
                self.console.line(&message);
                exit::WRONG
            }
        };
        self.write_out(&text);
        code
    }

    /// Writes data to standard output. A reader that went away has all it wanted.
    pub(crate) fn write_out(&self, text: &[u8]) {
        let _ = std::io::stdout().lock().write_all(text);
    }

    /// Says why a command failed.
    pub(crate) fn say_error(&self, message: &str) {
        match self.log_format {
            LogFormat::Text => self.console.line(&format!("error: {message}")),
            LogFormat::Json => {
                self.console.line(&serde_json::json!({ "level": "ERROR", "message": message }).to_string())
            }
        }
    }
}
