//! A flow that stands still half-way, until it is told to go on.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use aqueduct_testkit::http::{Answer, Gate, Server};
use tokio::sync::watch;

use crate::job::{Job, Running, ndjson, start};

/// Two files; the second one waits half-way from the second run on, until its gate is opened.
pub(crate) struct Stalled {
    pub(crate) job: Job,
    pub(crate) server: Server,
    pub(crate) stalls: Arc<AtomicBool>,
    pub(crate) gate: Gate,
    /// How often the second file was asked for.
    asked: watch::Sender<u64>,
}

impl Stalled {
    /// After a first run, which wrote 0 to 19.
    pub(crate) async fn after_a_run() -> Self {
        let (server, gate, stalls) =
            (Server::start().await, Gate::closed(), Arc::new(AtomicBool::new(false)));
        server.file("/0.ndjson", ndjson(0..10));
        let (is_stalled, waits, asked) = (Arc::clone(&stalls), gate.clone(), watch::Sender::new(0));
        let was_asked = asked.clone();
        server.route("/1.ndjson", move |_| {
            was_asked.send_modify(|n| *n += 1);
            let (first, second) = (ndjson(10..15), ndjson(15..20));
            let answer = Answer::new(200).header("Content-Length", first.len() + second.len()).send(first);
            if is_stalled.load(SeqCst) { answer.wait_for(&waits).send(second) } else { answer.send(second) }
        });
        let flow = r#"
name: stalled
source: { files: { paths: ["BASE/0.ndjson", "BASE/1.ndjson"], schema: { n: int64 }, window: 1 } }
sink: { ndjson: { path: out } }
"#;
        let job = Job::with_flow(&flow.replace("BASE", &server.url("")));
        job.run("run flow.yaml").exits(0);
        stalls.store(true, SeqCst);
        Self { job, server, stalls, gate, asked }
    }

    /// A run that has had all but the end of the second file: that one is asked for, and is the only one being sent.
    pub(crate) async fn start(&self, words: &str) -> Running {
        self.started(self.job.command(words)).await
    }

    /// The same of a program that runs the flow.
    pub(crate) async fn started(&self, command: Command) -> Running {
        let mut asked = self.asked.subscribe();
        let run = start(command);
        asked.changed().await.unwrap();
        self.server.until_bodies(1).await;
        run
    }

    /// The numbers in the output, whatever its parts are called.
    pub(crate) fn numbers(&self) -> Vec<i64> {
        let parts = self.job.files("out").into_iter().filter(|name| !name.contains("_aqueduct"));
        let mut numbers: Vec<_> =
            parts.flat_map(|part| self.job.numbers(&format!("out/{part}")).unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// From now on nothing waits.
    pub(crate) fn open(&self) {
        self.stalls.store(false, SeqCst);
    }
}
