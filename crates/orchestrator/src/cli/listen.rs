//! The server beside a run: where it listens, and who may come.

use aqueduct_net::Secret;
use aqueduct_net::server::{Listen, Server, ServerLimits};
use aqueduct_primitives::{Budget, ByteCount};

use super::{Program, exit};
use crate::flow::{Flow, StepKind};

/// For connections whose request is not answered yet: 6,000 of them. What streams take is their steps' own.
const SERVER_MEMORY: ByteCount = ByteCount::mib(24);

impl Program {
    /// The server of a run: where it was asked for, or has something to serve.
    ///
    /// # Errors
    /// The exit code, when it cannot be; it is said why.
    pub(super) fn listen(&self, asked: Option<Listen>, flows: &[Flow]) -> Result<Option<Server>, u8> {
        let tokens = tokens(flows);
        if asked.is_none() && tokens.is_empty() {
            return Ok(None);
        }
        let listen = asked.unwrap_or_default();
        let token = tokens.iter().flatten().next();
        if !listen.is_loopback() && (token.is_none() || tokens.contains(&None)) {
            self.say_error(&format!(
                "{listen} can be reached from other machines; give every `sse` a `token`, or listen at 127.0.0.1"
            ));
            return Err(exit::WRONG);
        }
        let memory = Budget::new("server", SERVER_MEMORY);
        let server = Server::bind(&listen, ServerLimits::default(), memory).map_err(|error| {
            self.say_error(&error.chain());
            exit::WRONG
        })?;
        server.mounts().set_starting(true);
        if let Some(token) = token.filter(|_| !listen.is_loopback()) {
            server.mounts().require_token(Secret::new(token.clone()));
        }
        tracing::info!(address = server.address(), "listening");
        Ok(Some(server))
    }
}

/// What each sink that serves asks of who comes.
fn tokens(flows: &[Flow]) -> Vec<Option<String>> {
    let steps = flows.iter().flat_map(|flow| &flow.steps);
    let serving = steps.filter_map(|step| match &step.kind {
        StepKind::Sink(sink) => sink.serving(),
        _ => None,
    });
    serving.map(|serving| serving.token).collect()
}
