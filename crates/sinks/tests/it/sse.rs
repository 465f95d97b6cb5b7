//! A stream over its commits, as its clients see it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use aqueduct_core::{Durable, ErrorKind, RunContext, Scratch, Sink};
use aqueduct_net::server::{Mounts, Server, ServerLimits};
use aqueduct_primitives::{Budget, ByteCount};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Place, rows};

/// A run with a stream, over what an earlier one kept.
struct Run {
    server: Server,
    place: Place,
    options: Value,
}

impl Run {
    /// One that goes out at once.
    fn new(state: &Path, kept: Option<Value>) -> Self {
        Self::with(json!({ "name": "live" }), durable(state, kept), |_| {})
    }

    /// One whose rows wait for their commit.
    fn committed_only(state: &Path, kept: Option<Value>) -> Self {
        let opening = if kept.is_some() { "r1.2" } else { "r1" };
        Self::with(committed(), durable(state, kept), |run| run.part_run = opening.into())
    }

    fn with(options: Value, durable: Durable, change: impl FnOnce(&mut RunContext)) -> Self {
        let own = Budget::new("server", ByteCount::mib(24));
        let server = Server::bind(&"127.0.0.1:0".parse().unwrap(), ServerLimits::default(), own).unwrap();
        let mounts = Arc::new(server.mounts());
        let change_all = |run: &mut RunContext| {
            run.services.insert(mounts);
            change(run);
        };
        let place = Place::with_kept(ByteCount::mib(128), change_all, Some(durable));
        Self { server, place, options }
    }

    async fn client(&self, last: u64) -> TcpStream {
        let address: SocketAddr = self.server.address().parse().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET /streams/live HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {last}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        // The head is there: it is a client now.
        let mut byte = [0];
        client.read_exact(&mut byte).await.unwrap();
        client
    }

    async fn open(&self) -> Box<dyn Sink> {
        self.place.open("sse", self.options.clone(), &rows(0, 3, 3)).await.unwrap()
    }

    /// Three rows, sealed.
    async fn write_to(&self, sink: &mut dyn Sink) {
        sink.write(self.place.cx.admit(rows(0, 3, 3)).await.unwrap()).await.unwrap();
        assert!(sink.seal().await.unwrap().is_empty());
    }

    /// A sink that has written three rows, and gone.
    async fn write(&self) {
        let mut sink = self.open().await;
        self.write_to(&mut *sink).await;
    }

    async fn keep(&self) -> Value {
        self.place.cx.durable().unwrap().keeper().unwrap().keep().await.unwrap().unwrap()
    }

    async fn committed(&self, is_last: bool) {
        self.place.cx.durable().unwrap().keeper().unwrap().committed(is_last).await.unwrap();
    }

    /// Keeps, as a commit does, and is told that it stands; what was kept.
    async fn commit(&self, is_last: bool) -> Value {
        let kept = self.keep().await;
        self.committed(is_last).await;
        kept
    }

    /// How many events went out.
    fn n_sent(&self) -> u64 {
        let mounts = self.place.cx.shared(Mounts::default);
        mounts.stream_stats().iter().map(|(_, stats)| stats.n_events).sum()
    }
}

fn committed() -> Value {
    json!({ "name": "live", "announce": "committed" })
}

fn durable(state: &Path, kept: Option<Value>) -> Durable {
    Durable::new(kept, state.join("step"), state.join("run"))
}

/// All that comes until the server hangs up.
async fn rest(mut client: TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

/// The numbers of all events that come until the server hangs up.
async fn ids(client: TcpStream) -> Vec<u64> {
    let text = rest(client).await;
    text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
}

/// The files of waiting events.
fn files(state: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(state.join("step")) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".events")).collect()
}

// S1.1, I10
#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_behind_the_last_commit() {
    let state = TempDir::new().unwrap();
    let run = Run::new(state.path(), None);
    run.write().await;
    assert_eq!(run.keep().await, json!({ "next_id": 4 }));
    run.committed(false).await;
    let client = run.client(0).await;
    run.committed(true).await;
    let text = rest(client).await;
    let end = text.find("event: end\n").expect(&text);
    assert!(text.find("id: 3\n").unwrap() < end && !text[end..].contains("id: "), "{text}");
    assert!(!text.contains("id: 4\n"), "the end has the number of the next run's first event: {text}");
}

// S1.1, I10
#[tokio::test(flavor = "multi_thread")]
async fn a_last_commit_that_fails_is_no_end() {
    let state = TempDir::new().unwrap();
    let run = Run::new(state.path(), None);
    run.write().await;
    run.keep().await;
    let client = run.client(0).await;
    drop(run.place); // and with it all that would tell the end
    let text = rest(client).await;
    assert!(text.contains("id: 3\n") && !text.contains("event: end"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_go_on_from_what_was_kept() {
    let state = TempDir::new().unwrap();
    let run = Run::new(state.path(), Some(json!({ "next_id": 4 })));
    run.write().await;
    let client = run.client(3).await;
    run.committed(true).await;
    assert_eq!(ids(client).await, [4, 5, 6]);
}

// S1.1, decision 18
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_go_out_with_their_commit() {
    let state = TempDir::new().unwrap();
    let run = Run::committed_only(state.path(), None);
    let mut sink = run.open().await;
    run.write_to(&mut *sink).await;
    let client = run.client(0).await;
    let kept = run.keep().await;
    assert_eq!((kept["next_id"].as_u64(), run.n_sent()), (Some(4), 0), "sent before the commit stands");
    run.committed(false).await;
    assert_eq!(run.n_sent(), 3);
    run.write_to(&mut *sink).await;
    drop(sink);
    run.commit(true).await;
    let text = rest(client).await;
    assert!(text.find("id: 6\n").unwrap() < text.find("event: end\n").expect(&text), "{text}");
    assert_eq!(files(state.path()).len(), 1, "what the last commit announced, and no more, stays");
}

// decision 18, reliability.md 27: killed between what is kept and the record
#[tokio::test(flavor = "multi_thread")]
async fn of_a_commit_that_never_was_nothing_is_seen() {
    let state = TempDir::new().unwrap();
    let run = Run::committed_only(state.path(), None);
    run.write().await;
    run.keep().await;
    drop(run);
    assert_eq!(files(state.path()).len(), 1);

    let run = Run::committed_only(state.path(), None);
    let mut sink = run.open().await;
    let left = files(state.path());
    assert!(run.n_sent() == 0 && left.is_empty(), "{left:?}");
    run.write_to(&mut *sink).await;
    drop(sink);
    let client = run.client(0).await;
    run.commit(true).await;
    assert_eq!(ids(client).await, [1, 2, 3], "nobody had these numbers");
}

// decision 18, reliability.md 27: killed between the record and the sending, or in it
#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_goes_out_after_a_crash_under_its_numbers() {
    for announced in [false, true] {
        let state = TempDir::new().unwrap();
        let run = Run::committed_only(state.path(), None);
        run.write().await;
        let kept = run.keep().await;
        if announced {
            run.committed(false).await;
        }
        drop(run);

        let run = Run::committed_only(state.path(), Some(kept));
        let mut sink = run.open().await;
        let (none, two) = (run.client(0).await, run.client(2).await);
        run.write_to(&mut *sink).await;
        drop(sink);
        run.commit(true).await;
        assert_eq!(ids(none).await, [1, 2, 3, 4, 5, 6]);
        let text = rest(two).await;
        assert!(!text.contains("restart") && !text.contains("lagged") && !text.contains("id: 2\n"), "{text}");
        assert!(text.contains("id: 3\n") && text.contains("id: 6\n"), "{text}");
    }
}

// decision 18: rows of a run that replaces its output count with its end alone
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_run_that_counts_at_its_end_wait_for_it() {
    let state = TempDir::new().unwrap();
    let at_end = |kept| durable(state.path(), kept).counting_at_end(true);
    let run = Run::with(committed(), at_end(None), |_| {});
    run.write().await;
    let kept = run.commit(false).await;
    assert_eq!(run.n_sent(), 0);
    drop(run);

    let run = Run::with(committed(), at_end(Some(kept)), |run| run.part_run = "r1.2".into());
    run.write().await;
    assert_eq!(run.n_sent(), 0, "the run goes on, and is not at its end");
    let client = run.client(0).await;
    let kept = run.commit(true).await;
    assert_eq!(ids(client).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(kept["next_id"], 7);

    // Another run: what is kept is public.
    let run = Run::with(committed(), at_end(Some(kept)), |run| run.run_id = "r2".into());
    let _sink = run.open().await;
    assert_eq!(run.n_sent(), 6);
}

// decision 18: a run that gave numbers at once in between has sent them
#[tokio::test(flavor = "multi_thread")]
async fn numbers_after_those_of_a_commit_say_that_it_was_announced() {
    let state = TempDir::new().unwrap();
    let run = Run::committed_only(state.path(), None);
    run.write().await;
    let kept = run.commit(true).await;
    drop(run);
    let run = Run::new(state.path(), Some(kept.clone()));
    run.write().await;
    assert_eq!(run.n_sent(), 6, "the committed ones, and its own");
    drop(run);

    let run = Run::committed_only(state.path(), Some(kept));
    let sink = run.open().await;
    assert_eq!(run.n_sent(), 0);
    let client = run.client(5).await;
    drop(sink);
    let text = rest(client).await;
    assert!(text.contains("event: restart\n"), "{text}");
}

// reliability.md 7, MEM: what waits is bounded
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_take_no_more_than_the_run_may_put_on_the_disk() {
    let state = TempDir::new().unwrap();
    let spill = Scratch::new(state.path().join("spill"), ByteCount::mib(1));
    let disk = spill.disk.clone();
    let run = Run::with(committed(), durable(state.path(), None), |run| run.scratch = spill);
    let mut sink = run.open().await;
    let failed = loop {
        let batch = run.place.cx.admit(rows(0, 1000, 100)).await.unwrap();
        if let Err(error) = sink.write(batch).await {
            break error;
        }
    };
    assert_eq!(failed.kind(), ErrorKind::Limit);
    assert!(failed.chain().contains("execution.spill.max_bytes"), "{}", failed.chain());
    sink.abort().await;
    assert!(files(state.path()).is_empty() && disk.free() == disk.total());
}

// what is missing is told
#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_commit_that_are_gone_are_a_gap() {
    let state = TempDir::new().unwrap();
    let run = Run::committed_only(state.path(), None);
    run.write().await;
    let kept = run.commit(true).await;
    drop(run);
    std::fs::remove_file(state.path().join("step").join(&files(state.path())[0])).unwrap();
    let run = Run::committed_only(state.path(), Some(kept));
    run.write().await;
    assert_eq!(run.place.cx.notices().gaps.count(), 1);
    let client = run.client(3).await;
    run.commit(true).await;
    assert_eq!(ids(client).await, [4, 5, 6]);
}
