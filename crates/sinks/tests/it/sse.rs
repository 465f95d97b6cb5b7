//! The end of a stream, as its clients see it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_core::Durable;
use aqueduct_net::server::{Server, ServerLimits};
use aqueduct_primitives::{Budget, ByteCount};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Place, rows};

/// A run with a stream, over what an earlier one kept.
struct Run {
    server: Server,
    place: Place,
}

impl Run {
    fn new(kept: Option<Value>) -> Self {
        let own = Budget::new("server", ByteCount::mib(24));
        let server = Server::bind(&"127.0.0.1:0".parse().unwrap(), ServerLimits::default(), own).unwrap();
        let mounts = Arc::new(server.mounts());
        let durable = Durable::new(kept, PathBuf::from("steps"), PathBuf::from("runs"));
        let memory = ByteCount::mib(128);
        let place = Place::with_kept(memory, |run| run.services.insert(mounts), Some(durable));
        Self { server, place }
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

    /// A sink that has written three rows, and gone.
    async fn write(&self) {
        let batch = rows(0, 3, 3);
        let mut sink = self.place.open("sse", json!({ "name": "live" }), &batch).await.unwrap();
        sink.write(self.place.cx.admit(batch).await.unwrap()).await.unwrap();
        assert!(sink.seal().await.unwrap().is_empty());
    }

    async fn keep(&self) -> Value {
        self.place.cx.durable().unwrap().keeper().unwrap().keep().await.unwrap().unwrap()
    }

    fn committed(&self, is_last: bool) {
        self.place.cx.durable().unwrap().keeper().unwrap().committed(is_last);
    }
}

/// All that comes until the server hangs up.
async fn rest(mut client: TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

// S1.1, I10
#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_behind_the_last_commit() {
    let run = Run::new(None);
    run.write().await;
    assert_eq!(run.keep().await, json!({ "next_id": 4 }));
    run.committed(false);
    let client = run.client(0).await;
    run.committed(true);
    let text = rest(client).await;
    let end = text.find("event: end\n").expect(&text);
    assert!(text.find("id: 3\n").unwrap() < end && !text[end..].contains("id: "), "{text}");
    assert!(!text.contains("id: 4\n"), "the end has the number of the next run's first event: {text}");
}

// S1.1, I10
#[tokio::test(flavor = "multi_thread")]
async fn a_last_commit_that_fails_is_no_end() {
    let run = Run::new(None);
    run.write().await;
    run.keep().await;
    let client = run.client(0).await;
    drop(run.place); // and with it all that would tell the end
    let text = rest(client).await;
    assert!(text.contains("id: 3\n") && !text.contains("event: end"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_go_on_from_what_was_kept() {
    let run = Run::new(Some(json!({ "next_id": 4 })));
    run.write().await;
    let client = run.client(3).await;
    run.committed(true);
    let text = rest(client).await;
    let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["4", "5", "6"], "{text}");
}
