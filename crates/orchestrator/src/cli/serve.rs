//! `aqueduct serve`.

use std::path::Path;
use std::sync::Arc;

use aqueduct_core::{Error, Fs, Result, StdFs, SystemClock};
use aqueduct_net::Secret;
use aqueduct_net::server::{Server, ServerLimits};
use aqueduct_primitives::{Budget, ByteCount};
use tokio_util::sync::CancellationToken;

use super::arguments::ServeArguments;
use super::execute::Signals;
use super::folder_flows::FolderFlows;
use super::{Program, exit};
use crate::plan::default_memory;
use crate::serve::{Access, EVENTS_BYTES, Folder, Limits, Records, Runs, Site, keep_starting};

/// The lock that keeps two servers off one folder: no flow has such a name.
const LOCK: &str = "_serve";

/// For connections whose request is not answered yet.
pub(super) const CONNECTIONS_BYTES: ByteCount = ByteCount::mib(4);

/// Of the memory, for the server itself at most.
const MAX_PERCENT_OF_SERVER: u64 = 10;

/// A longer token is none.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Serves a folder until told to stop; the exit code.
pub(super) async fn serve(program: &Program, arguments: ServeArguments) -> u8 {
    let signals = Signals::listen();
    let access = match access(&arguments) {
        Ok(access) => access,
        Err(message) => return wrong(program, &message),
    };
    if !arguments.folder.is_dir() {
        return wrong(program, &format!("{}: no such folder", arguments.folder.display()));
    }
    let state_dir = arguments.folder.join(".aqueduct");
    let lock = match program.lock(&state_dir, LOCK) {
        Ok(lock) => lock,
        Err(code) => return code,
    };
    let stop = CancellationToken::new();
    let code = tokio::select! {
        code = serve_until(program, &arguments, access, &state_dir, &stop) => code.unwrap_or_else(|error| {
            program.say_error(&error.chain());
            if error.kind() == aqueduct_core::ErrorKind::Config { exit::WRONG } else { exit::FAILED }
        }),
        () = signals.stop(stop.clone(), program.console.clone()) => exit::INTERRUPTED,
    };
    drop(lock);
    code
}

fn wrong(program: &Program, message: &str) -> u8 {
    program.say_error(message);
    exit::WRONG
}

async fn serve_until(
    program: &Program,
    arguments: &ServeArguments,
    access: Access,
    state_dir: &Path,
    stop: &CancellationToken,
) -> Result<u8> {
    let Shares { connections, events, runs: memory } =
        Shares::of(arguments.memory.unwrap_or_else(default_memory))?;
    let limits = ServerLimits { hosts: arguments.host.clone(), ..ServerLimits::default() };
    let server = Server::bind_starting(&arguments.listen, limits, connections)?;
    let mounts = server.mounts();
    let flows = FolderFlows {
        program: Program {
            registry: program.registry.clone(),
            console: program.console.clone(),
            log_format: program.log_format,
        },
        folder: Folder { dir: arguments.folder.clone() },
        memory: memory.total(),
        allows_exec: arguments.allow_exec,
        is_public: access.is_public,
        mounts: mounts.clone(),
    };
    let records = Records::new(Arc::new(StdFs), state_dir.join("serve"));
    let limits = Limits { max_runs: arguments.max_runs.into(), ..Limits::default() };
    let runs = Runs::open(Arc::new(flows), Some(records), memory, limits, Arc::new(SystemClock)).await?;
    let site = Site::mount(&server, runs.clone(), program.console.clone(), access, events)?;
    server.mounts().set_starting(false);
    tracing::info!(folder = %arguments.folder.display(), "serving at {}", url(server.address()));

    keep_starting(&runs, &SystemClock, stop).await;
    let has_unfinished = !runs.active().is_empty();
    runs.close().await;
    site.close().await;
    server.close().await;
    // What had not ended goes on with the next server.
    Ok(if has_unfinished { exit::INTERRUPTED } else { exit::DONE })
}

/// The memory of a server: a little for itself, the rest for runs.
struct Shares {
    connections: Budget,
    events: Budget,
    runs: Budget,
}

impl Shares {
    fn of(memory: ByteCount) -> Result<Self> {
        let all = Budget::new("memory", memory);
        let own = |wanted: ByteCount| wanted.min(memory.percent(MAX_PERCENT_OF_SERVER));
        let carve = |name: &str, bytes| all.carve(name, bytes).map_err(Error::from);
        let connections = carve("connections", own(CONNECTIONS_BYTES))?;
        let events = carve("watchers", own(EVENTS_BYTES))?;
        Ok(Self { connections, events, runs: carve("runs", all.free())? })
    }
}

fn access(arguments: &ServeArguments) -> std::result::Result<Access, String> {
    let token = arguments.token_file.as_deref().map(read_token).transpose()?;
    let is_public = !arguments.listen.is_loopback();
    if is_public && token.is_none() {
        return Err(format!(
            "others than this machine can reach {}: whoever can may start flows; give a token with --token-file, or listen at \
             127.0.0.1",
            arguments.listen
        ));
    }
    Ok(Access { token, is_public })
}

/// The token in a file, without the blanks around it.
fn read_token(path: &Path) -> std::result::Result<Secret, String> {
    let named = |message: String| format!("--token-file {}: {message}", path.display());
    let bytes = StdFs.read(path, MAX_TOKEN_BYTES).map_err(|error| named(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| named("no UTF-8".to_owned()))?;
    match text.trim() {
        "" => Err(named("empty; expected a token".to_owned())),
        token => Ok(Secret::new(token)),
    }
}

/// How a browser is told to go there.
pub(super) fn url(address: &str) -> String {
    if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::{Arguments, Command};
    use clap::Parser;

    fn arguments(words: &str) -> ServeArguments {
        let all = format!("aqueduct serve flows {words}");
        match Arguments::try_parse_from(all.split_whitespace()).unwrap().command {
            Command::Serve(arguments) => arguments,
            _ => panic!("not serve"),
        }
    }

    // T12: nobody listens to the world by mistake
    #[test]
    fn an_address_that_others_can_reach_needs_a_token() {
        let told = access(&arguments("--listen 0.0.0.0:0")).unwrap_err();
        assert!(told.contains("0.0.0.0:0") && told.contains("--token-file"), "{told}");
        let local = access(&arguments("")).unwrap();
        assert!(!local.is_public && local.token.is_none());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let with_token =
            || access(&arguments(&format!("--listen 0.0.0.0:0 --token-file {}", file.display())));
        assert!(with_token().unwrap_err().contains("token"));
        std::fs::write(&file, " \n").unwrap();
        assert!(with_token().unwrap_err().contains("empty"));
        std::fs::write(&file, "tok-1\n").unwrap();
        assert_eq!(with_token().unwrap().token.unwrap().expose(), "tok-1");
    }

    #[test]
    fn the_server_leaves_nearly_all_memory_to_runs() {
        let shares = Shares::of(ByteCount::mb(512)).unwrap();
        assert!(shares.runs.total() > ByteCount::mb(500), "{}", shares.runs.total());
        assert!(Shares::of(ByteCount::mb(10)).unwrap().runs.total() >= ByteCount::mb(8));
    }
}
