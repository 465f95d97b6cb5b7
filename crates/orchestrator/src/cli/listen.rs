//! `run --listen`: a run that can be watched.

use std::fmt::Display;
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Result, Serving};
use aqueduct_net::Secret;
use aqueduct_net::server::{Listen, Server, ServerLimits};
use aqueduct_primitives::{Budget, ByteCount};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::Program;
use super::execute::Executed;
use super::serve::{CONNECTIONS_BYTES, url};
use crate::flow::{Flow, RunIdentity, Step, StepKind};
use crate::run::RunOptions;
use crate::serve::{
    Access, EVENTS_BYTES, Flows, Job, JobStatus, Outcome, Refused, Runs, Site, StartRequest, Wanted,
};

/// Shows the runs of one flow, beside the flow's own streams. Its own memory stands beside `memory`, with what libraries take.
pub(super) struct Listening {
    /// Whether others than this machine's own processes can ask.
    is_public: bool,
    server: Server,
    site: Site,
    runs: Runs,
}

impl Listening {
    /// Listens where asked, or where a flow has something to serve; nothing otherwise.
    ///
    /// # Errors
    /// The address cannot be had, or others could reach it without a token.
    pub(super) fn of(program: &Program, flows: &[Flow], asked: Option<&Listen>) -> Result<Option<Self>> {
        let Some(first) = flows.first() else { return Ok(None) };
        if asked.is_none() && serving(flows).next().is_none() {
            return Ok(None);
        }
        let listen = asked.cloned().unwrap_or_default();
        let access = access(&listen, flows)?;
        // Its streams are there when the flow's steps are open.
        let budget = Budget::new("connections", CONNECTIONS_BYTES);
        let server = Server::bind_starting(&listen, ServerLimits::default(), budget)?;
        let memory = flows.iter().map(|flow| flow.memory).max().unwrap_or_default();
        let one = OneFlow {
            name: first.name.clone(),
            file: first.file.clone(),
            schedule: first.schedule.as_ref().map(|schedule| schedule.text()),
        };
        let runs = Runs::shown_only(Arc::new(one), Budget::new("memory", memory));
        let is_public = access.is_public;
        let events = Budget::new("watchers", EVENTS_BYTES);
        let site = Site::mount(&server, runs.clone(), program.console.clone(), access, events)?;
        tracing::info!("showing the run at {}", url(server.address()));
        Ok(Some(Self { is_public, server, site, runs }))
    }

    /// Whether these flows, read again for another turn, may be served here too.
    ///
    /// # Errors
    /// Others than this machine could read their rows without a token.
    pub(super) fn check(&self, flows: &[Flow]) -> Result<()> {
        if self.is_public { need_tokens(flows, self.server.address()) } else { Ok(()) }
    }

    /// What is there now is all there is until the next turn: nobody is to wait for more.
    pub(super) fn has_started(&self) {
        self.server.mounts().set_starting(false);
    }

    /// Shows a run from now on; with the options that it needs for that.
    pub(super) fn show(&self, flow: &Flow, options: RunOptions) -> (Arc<Job>, RunOptions) {
        let job = self.runs.show(flow.run.id.clone(), &flow.name, flow.memory);
        let options = RunOptions {
            seen_by: Some(Arc::clone(&job) as _),
            mounts: Some(self.server.mounts()),
            ..options
        };
        (job, options)
    }

    /// The run has ended.
    pub(super) async fn has_ended(&self, job: &Arc<Job>, ended: &Executed) {
        let outcome = match &ended.report {
            Some(report) => Outcome {
                status: report.status.into(),
                error: report.error.clone(),
                reports: vec![report.clone()],
            },
            None => Outcome::failed("it did not begin".to_owned()),
        };
        self.runs.has_ended(job, outcome).await;
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> &str {
        self.server.address()
    }

    /// Tells all who watch the end.
    pub(super) async fn close(self) {
        self.runs.close().await;
        self.site.close().await;
        self.server.close().await;
    }
}

/// Who may look: those who may read the first of the streams, where others than this machine can come.
fn access(listen: &Listen, flows: &[Flow]) -> Result<Access> {
    if listen.is_loopback() {
        return Ok(Access::default());
    }
    let token = serving(flows).find_map(|(_, serving)| serving.token);
    if token.is_none() {
        return Err(can_be_reached(listen));
    }
    need_tokens(flows, listen)?;
    Ok(Access { token: token.map(Secret::new), is_public: true })
}

/// That no sink gives its rows to whoever comes.
fn need_tokens(flows: &[Flow], address: impl Display) -> Result<()> {
    match flows.iter().flat_map(open_sinks).next() {
        None => Ok(()),
        Some(step) => Err(can_be_reached(address).with("step", &step.name)),
    }
}

fn can_be_reached(address: impl Display) -> Error {
    let message = "it can be reached from other machines; give every `sse` of the flow a `token`, or listen at 127.0.0.1";
    Error::new(ErrorKind::Config, "listen", message).with("address", address)
}

/// The sinks that give their rows to whoever comes.
pub(super) fn open_sinks(flow: &Flow) -> impl Iterator<Item = &Step> {
    serving(std::slice::from_ref(flow)).filter(|(_, serving)| serving.token.is_none()).map(|(step, _)| step)
}

/// The sinks that serve, and what each of them asks of who comes.
fn serving(flows: &[Flow]) -> impl Iterator<Item = (&Step, Serving)> {
    let steps = flows.iter().flat_map(|flow| &flow.steps);
    steps.filter_map(|step| match &step.kind {
        StepKind::Sink(sink) => Some((step, sink.serving()?)),
        _ => None,
    })
}

/// The flow that runs, as it is listed.
struct OneFlow {
    name: String,
    file: String,
    schedule: Option<String>,
}

#[async_trait]
impl Flows for OneFlow {
    fn list(&self) -> std::result::Result<Vec<Value>, Refused> {
        Ok(vec![json!({ "name": self.name, "file": self.file, "schedule": self.schedule })])
    }

    fn check(&self, _: &StartRequest) -> std::result::Result<Wanted, Refused> {
        Err(Refused::NotHere)
    }

    async fn run(&self, _: RunIdentity, _: &StartRequest, _: (ByteCount, bool), _: RunOptions) -> Outcome {
        Outcome { status: JobStatus::Failed, error: Some(Refused::NotHere.to_string()), reports: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::fake::serving_registry;
    use crate::flow::{Settings, load};

    fn flows(sink: &str) -> Vec<Flow> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("flow.yaml");
        std::fs::write(&file, format!("name: one\nsource: {{ files: {{ paths: [a] }} }}\nsink: {sink}\n"))
            .unwrap();
        load(&file, &Settings::default(), &serving_registry()).unwrap()
    }

    // T12; contract "sse"
    #[test]
    fn where_others_can_come_each_stream_has_a_token() {
        let public = "0.0.0.0:8787".parse().unwrap();
        for sink in ["{ live: {} }", "{ discard: {} }"] {
            let told = access(&public, &flows(sink)).unwrap_err().to_string();
            assert!(told.contains("give every `sse` of the flow a `token`"), "{told}");
        }
        assert!(access(&public, &flows("{ live: { token: tok-4711 } }")).unwrap().is_public);
        let local = access(&"127.0.0.1:8787".parse().unwrap(), &flows("{ live: {} }")).unwrap();
        assert!(!local.is_public && local.token.is_none());
        // A file that was edited before its next turn.
        assert!(need_tokens(&flows("{ live: {} }"), "0.0.0.0:8787").is_err());
        assert!(need_tokens(&flows("{ discard: {} }"), "0.0.0.0:8787").is_ok());
    }
}
