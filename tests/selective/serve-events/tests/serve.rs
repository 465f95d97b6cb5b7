//! Clients of a server of their own.

use aqueduct_primitives::ByteCount;
use futures::{StreamExt, stream};
use serve_events::serve;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// A client that has had no event yet, and that the stream knows of.
async fn connect(address: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = "GET /streams/ticks HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 0\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    client
}

/// All that comes until the end.
async fn rest(mut client: TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

// S1.1, S6: one crate alone
#[tokio::test]
async fn every_client_gets_every_event_and_the_end() {
    let (opened, open) = oneshot::channel();
    let (came, come) = oneshot::channel::<()>();
    // The first event is there for those who come; the others wait until all have.
    let first = stream::iter(["0".to_owned()]);
    let others = stream::once(come).flat_map(|_| stream::iter((1..50).map(|n| n.to_string())));
    let is_open = |address: &str| opened.send(address.to_owned()).unwrap();
    let serving = serve(first.chain(others), "127.0.0.1:0", 10, ByteCount::mib(32), is_open);
    let listening = async {
        let address = open.await.unwrap();
        let (one, other) = futures::join!(connect(&address), connect(&address));
        came.send(()).unwrap();
        futures::join!(rest(one), rest(other))
    };
    let (sent, (one, other)) = futures::join!(serving, listening);
    assert_eq!(sent.unwrap(), 50);
    for text in [one, other] {
        let ids: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
        assert_eq!(ids, (1..=50).collect::<Vec<_>>(), "{text}");
        assert!(text.contains("event: end\n"), "{text}");
    }
}

#[test]
fn no_query_engine_comes_along() {
    let lock = include_str!("../Cargo.lock");
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = \""));
    let heavy: Vec<_> =
        names.filter(|name| name.starts_with("datafusion") || name.starts_with("parquet")).collect();
    assert!(heavy.is_empty(), "{heavy:?}");
}
