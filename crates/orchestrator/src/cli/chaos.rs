//! `aqueduct chaos`: a faulty server, until somebody ends it.

use std::path::PathBuf;

use aqueduct_primitives::Tasks;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Program, exit};
use crate::chaos::Chaos;

/// Serves what a script says; the exit code.
pub(super) async fn chaos(program: &Program, script: PathBuf) -> u8 {
    // From before the address is told: who reads it may end the server at once.
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let [Ok(interrupt), Ok(terminate)] = signals else {
        program.say_error("cannot listen for signals");
        return exit::FAILED;
    };
    let chaos = match Tasks::default().block(move || Chaos::read(&script)).await {
        Ok(Ok(chaos)) => chaos,
        Ok(Err(errors)) => {
            program.console.line(&errors.to_string());
            return exit::WRONG;
        }
        Err(error) => {
            program.say_error(&error.to_string());
            return exit::FAILED;
        }
    };
    let console = program.console.clone();
    let server = match chaos.serve(move |line| console.line(line)).await {
        Ok(server) => server,
        Err(message) => {
            program.say_error(&message);
            return exit::FAILED;
        }
    };
    program.write_out(format!("{}\n", server.url("")).as_bytes());
    first(interrupt, terminate).await;
    exit::DONE
}

async fn first(mut one: Signal, mut other: Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
