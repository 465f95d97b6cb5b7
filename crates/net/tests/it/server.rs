//! The server and its streams, with clients good and bad.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_net::Secret;
use aqueduct_net::server::{
    Event, EventStream, EventStreamOptions, Mounted, Pages, Refusal, Replay, RequestHead, Server,
    ServerLimits, ServerStats, SlowClient,
};
use aqueduct_primitives::{Budget, ByteCount, Tasks};
use aqueduct_testkit::swarm::{Swarm, now_us};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server with one stream, at `/streams/news`.
struct Live {
    server: Server,
    stream: EventStream,
    memory: Budget,
    _mounted: Mounted,
}

impl Live {
    fn new(options: EventStreamOptions) -> Self {
        Self::within(options, ServerLimits::default())
    }

    fn within(options: EventStreamOptions, limits: ServerLimits) -> Self {
        Self::with_memory(options, limits, ByteCount::mib(24))
    }

    fn with_memory(options: EventStreamOptions, limits: ServerLimits, own: ByteCount) -> Self {
        let memory = Budget::new("live", ByteCount::mib(64));
        let own = Budget::new("server", own);
        let server = Server::bind(&"127.0.0.1:0".parse().unwrap(), limits, own).unwrap();
        let stream = EventStream::new("news", options, memory.clone()).unwrap();
        let mounted = stream.mount(&server.mounts(), "/streams/news").unwrap();
        Self { server, stream, memory, _mounted: mounted }
    }

    fn address(&self) -> SocketAddr {
        self.server.address().parse().unwrap()
    }

    /// A connection that has asked for the stream, with these lines in its head.
    async fn ask(&self, head: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address()).await.unwrap();
        let request = format!("GET /streams/news HTTP/1.1\r\nHost: localhost\r\n{head}\r\n");
        // One that is refused before it has said all may find nobody there any more.
        let _ = client.write_all(request.as_bytes()).await;
        client
    }

    /// All that comes until the connection ends.
    async fn all(&self, head: &str) -> String {
        rest(self.ask(head).await).await
    }

    async fn send(&self, n: usize, size: usize) {
        let data = "x".repeat(size);
        for _ in 0..n {
            self.stream.send(Event { name: "row", data: data.as_bytes() }).await.unwrap();
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..3000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:?} {:?}", self.server.stats(), self.stream.stats());
    }
}

async fn rest(mut client: TcpStream) -> String {
    let mut text = Vec::new();
    // A connection that was reset says what it said before.
    let _ = client.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

fn options() -> EventStreamOptions {
    EventStreamOptions { queue: 1000, put_timeout: Duration::from_secs(5), ..EventStreamOptions::default() }
}

/// Thirty of them are more than the kernel holds for a client that does not read, and its queue.
const EVENT_BYTES: usize = 8 << 10;

// reliability.md 59
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_500_clients_those_that_read_miss_nothing_though_others_stall_and_come_and_go() {
    let put_timeout = Duration::from_secs(2);
    let live = Live::new(EventStreamOptions { replay: Replay::None, queue: 10, put_timeout, ..options() });
    let swarm = Swarm {
        address: live.address(),
        path: "/streams/news".into(),
        n_healthy: 400,
        n_stalled: 50,
        n_restless: 50,
        after: Some(0),
        n_half_open: 0,
        give_up_after: Duration::from_secs(60),
    };
    let n_events = 30;
    let tasks = Tasks::default();
    let flying = swarm.start(n_events, &tasks).await.unwrap();
    live.until("all are there", |live| live.stream.stats().n_clients == 500).await;
    for _ in 0..n_events {
        let data = format!(r#"{{"at_us":{},"text":"{}"}}"#, now_us(), "x".repeat(EVENT_BYTES));
        live.stream.send(Event { name: "row", data: data.as_bytes() }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    live.until("who stalls is gone", |live| live.stream.stats().evicted[0] == ("slow", 50)).await;
    let tally = flying.tally().await;
    assert_eq!((tally.n_complete, tally.n_missed, tally.n_errors), (450, 0, 0), "{:?}", live.stream.stats());
    live.stream.end();
    live.server.close().await;
}

// reliability.md 60, T9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_requests_are_closed_in_time_and_others_notice_nothing() {
    let limits = ServerLimits { head_timeout: Duration::from_millis(500), ..ServerLimits::default() };
    let live = Live::within(EventStreamOptions { replay: Replay::None, ..options() }, limits);
    let mut well = live.ask("").await;
    live.until("one is there", |live| live.stream.stats().n_clients == 1).await;
    let mut half_open = Vec::new();
    for n in 0..300 {
        let mut client = TcpStream::connect(live.address()).await.unwrap();
        let said: &[u8] =
            [&b"GET /streams/news HTTP/1.1\r\nHost: loc"[..], b"", b"\x16\x03\x01 junk\r\n\r\n"][n % 3];
        client.write_all(said).await.unwrap();
        half_open.push(client);
    }
    live.send(5, 100).await;
    live.until("they are gone", |live| live.server.stats().n_connections == 1).await;
    assert_eq!(live.server.stats().n_timed_out, 200);
    for client in half_open {
        let said = rest(client).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 40"), "{said}");
    }
    live.stream.end();
    let mut text = String::new();
    well.read_to_string(&mut text).await.unwrap();
    assert_eq!(text.matches("event: row").count(), 5, "{text}");
}

// reliability.md 61, T14
#[tokio::test]
async fn the_number_of_the_last_event_may_be_anything() {
    let kept_bytes = ByteCount::mib(2);
    let live = Live::new(EventStreamOptions { kept_bytes, ..options() });
    live.send(100, 100_000).await;
    let oldest = live.stream.stats().ring.oldest_id;
    assert!(oldest > 1);
    live.stream.end();
    let ancient = live.all("Last-Event-ID: 0\r\n").await;
    assert!(
        ancient.contains(&format!("event: lagged\ndata: {{\"from\":1,\"to\":{}}}", oldest - 1)),
        "{}",
        &ancient[..500]
    );
    assert!(ancient.contains(&format!("id: {oldest}\n")) && ancient.contains("event: end"));
    let recent = live.all("Last-Event-ID: 98\r\n").await;
    assert_eq!((recent.matches("event: row").count(), recent.contains("lagged")), (2, false));
    let future = live.all("Last-Event-ID: 9223372036854775808\r\n").await;
    assert!(future.contains("event: restart"), "{}", &future[..500]);
    for wrong in ["-1", "1x", "99999999999999999999", "0x1", "1 2"] {
        let said = live.all(&format!("Last-Event-ID: {wrong}\r\n")).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "{wrong}: {said}");
    }
    let long = live.all(&format!("Last-Event-ID: {}\r\n", "1".repeat(1 << 20))).await;
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431 "), "{long}");
}

// reliability.md 62, S1.8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_2000_connections_that_come_and_go_all_is_as_before() {
    let live = Live::new(options());
    let free = live.memory.free();
    for n in 0..2000 {
        let client = live.ask(if n % 2 == 0 { "" } else { "Last-Event-ID: junk\r\n" }).await;
        drop(client);
    }
    let all_are_gone = |stats: ServerStats| stats.n_accepted == 2000 && stats.n_connections == 0;
    live.until("all came and are gone", |live| all_are_gone(live.server.stats())).await;
    let stats = live.stream.stats();
    assert_eq!((stats.n_clients, stats.ring.n_readers, live.server.stats().n_unread), (0, 0, 0));
    assert_eq!(live.memory.free(), free);
}

// reliability.md 63, T11, T12
#[tokio::test]
async fn names_sites_and_tokens_are_checked() {
    let cors = vec!["https://good.example".to_owned()];
    let live = Live::new(EventStreamOptions { token: Some(Secret::from("tok")), cors, ..options() });
    live.stream.end();
    let status = async |head: &str| live.all(head).await.chars().skip(9).take(3).collect::<String>();
    let token = "Authorization: Bearer tok\r\n";
    assert_eq!(status(token).await, "200");
    assert_eq!(status("").await, "401");
    assert_eq!(status("Authorization: Bearer no\r\n").await, "401");
    assert_eq!(status(&format!("Authorization: Bearer {}\r\n", "t".repeat(8000))).await, "401");
    assert_eq!(status(&format!("{token}Origin: https://evil.example\r\n")).await, "403");
    let good = live.all(&format!("{token}Origin: https://good.example\r\n")).await;
    assert!(good.contains("Access-Control-Allow-Origin: https://good.example\r\n"), "{good}");
    let raw = async |text: &str| {
        let mut client = TcpStream::connect(live.address()).await.unwrap();
        client.write_all(text.as_bytes()).await.unwrap();
        rest(client).await
    };
    let foreign = raw("GET /streams/news HTTP/1.1\r\nHost: attacker.example\r\n\r\n").await;
    assert!(foreign.starts_with("HTTP/1.1 403 "), "{foreign}");
    let preflight =
        raw("OPTIONS /streams/news HTTP/1.1\r\nHost: localhost\r\nOrigin: https://good.example\r\n\r\n")
            .await;
    assert!(preflight.starts_with("HTTP/1.1 204 ") && preflight.contains("authorization"), "{preflight}");
    let post = raw("POST /streams/news HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    assert!(raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.ends_with("\r\n\r\nok\n"));
}

// S1.9
#[tokio::test]
async fn one_client_too_many_is_told_when_to_come_again() {
    let live = Live::new(EventStreamOptions { max_clients: 2, ..options() });
    let held = [live.ask("").await, live.ask("").await];
    live.until("two are there", |live| live.stream.stats().n_clients == 2).await;
    let said = live.all("").await;
    assert!(said.starts_with("HTTP/1.1 503 ") && said.ends_with("Too many connections\n"), "{said}");
    assert!(said.to_lowercase().contains("retry-after: 60\r\n"), "{said}");
    drop(held);
    live.until("they are gone", |live| live.stream.stats().n_clients == 0).await;
}

// S1.12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_10000_events_is_removed() {
    let put_timeout = Duration::from_millis(100);
    let live = Live::new(EventStreamOptions { put_timeout, ..EventStreamOptions::default() });
    let stuck = live.ask("").await;
    live.until("it is there", |live| live.stream.stats().n_clients == 1).await;
    live.send(10_000, 1000).await;
    live.until("it is gone", |live| live.stream.stats().n_clients == 0).await;
    assert_eq!(live.stream.stats().evicted[0], ("slow", 1));
    drop(stuck);
}

// S1.11
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_1_kb_a_second_is_removed_and_others_are_not_held_up() {
    let put_timeout = Duration::from_millis(100);
    let live =
        Live::new(EventStreamOptions { put_timeout, replay: Replay::None, ..EventStreamOptions::default() });
    let mut slow = live.ask("").await;
    let mut well = live.ask("").await;
    live.until("both are there", |live| live.stream.stats().n_clients == 2).await;
    let tasks = Tasks::default();
    let reads = tasks.spawn(async move {
        let mut kb = [0; 1024];
        while slow.read(&mut kb).await.is_ok_and(|n| n > 0) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let all = tasks.spawn(async move {
        let mut text = Vec::new();
        well.read_to_end(&mut text)
            .await
            .map(|_| String::from_utf8_lossy(&text).matches("event: row").count())
    });
    live.send(10_000, 1000).await;
    live.until("it is gone", |live| live.stream.stats().n_clients == 1).await;
    live.stream.end();
    assert_eq!(all.await.unwrap().unwrap(), 10_000);
    drop(reads);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_to_wait_loses_nothing_for_a_slow_reader() -> io::Result<()> {
    let options =
        EventStreamOptions { slow_client: SlowClient::Wait, queue: 10, replay: Replay::None, ..options() };
    let live = Arc::new(Live::new(options));
    let mut slow = live.ask("").await;
    live.until("it is there", |live| live.stream.stats().n_clients == 1).await;
    let tasks = Tasks::default();
    let there = Arc::clone(&live);
    let sends = tasks.spawn(async move {
        there.send(300, 10_000).await;
        there.stream.end();
    });
    let (mut text, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let n = slow.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..n]);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sends.await.unwrap();
    assert_eq!(String::from_utf8_lossy(&text).matches("event: row").count(), 300);
    Ok(())
}

// reliability.md 60
#[tokio::test]
async fn places_for_asking_whether_it_is_well_are_counted_by_themselves() {
    let limits = ServerLimits { max_connections: 2, reserved_for_health: 3, ..ServerLimits::default() };
    let live = Live::with_memory(options(), limits, ByteCount::mib(8));
    let streams = [live.ask("").await, live.ask("").await];
    live.until("both are there", |live| live.stream.stats().n_clients == 2).await;
    let mut others = Vec::new();
    for _ in 0..10 {
        others.push(TcpStream::connect(live.address()).await.unwrap());
    }
    live.until("all came", |live| live.server.stats().n_accepted == 2 + 10).await;
    let stats = live.server.stats();
    assert_eq!((stats.n_connections, stats.n_full), (2 + 3, 7));
    drop((streams, others));
    live.until("all are gone", |live| live.server.stats().n_connections == 0).await;
}

// T10: where there are no more places, or no memory for one.
#[tokio::test]
async fn who_never_asks_keeps_nobody_out() {
    let few = ServerLimits { max_unread: 2, ..ServerLimits::default() };
    for (limits, memory) in [(few, ByteCount::mib(8)), (ServerLimits::default(), ByteCount::kib(8))] {
        let live = Live::with_memory(options(), limits, memory);
        let mut silent = Vec::new();
        for _ in 0..10 {
            let mut client = TcpStream::connect(live.address()).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
            silent.push(client);
        }
        live.until("the first ones are gone", |live| live.server.stats().n_timed_out == 8).await;
        let _client = live.ask("").await;
        live.until("it is there", |live| live.stream.stats().n_clients == 1).await;
        let stats = live.server.stats();
        assert_eq!((stats.n_full, stats.n_timed_out, stats.n_unread), (0, 9, 1));
    }
}

/// Says how many bytes came, to who is not called `stranger`.
struct Counting;

#[async_trait::async_trait]
impl Pages for Counting {
    fn admit(&self, head: &RequestHead) -> Result<(), Refusal> {
        if head.headers.contains_key("stranger") { Err(Refusal::unauthorized()) } else { Ok(()) }
    }

    async fn answer(&self, request: http::Request<bytes::Bytes>) -> http::Response<bytes::Bytes> {
        http::Response::new(request.body().len().to_string().into())
    }
}

// reliability.md 60, T12
#[tokio::test]
async fn of_a_body_nothing_is_read_before_it_may_come_and_has_its_memory() {
    let live = Live::with_memory(options(), ServerLimits::default(), ByteCount::kib(512));
    let _counting = live.server.mounts().pages("/count", Arc::new(Counting)).unwrap();
    let ask = async |method: &str, headers: &str, body: &str| {
        let mut client = TcpStream::connect(live.address()).await.unwrap();
        let text = format!("{method} /count HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}");
        client.write_all(text.as_bytes()).await.unwrap();
        rest(client).await.chars().skip(9).collect::<String>()
    };
    let said = ask("POST", "Content-Length: 5\r\n", "12345").await;
    assert!(said.starts_with("200 ") && said.ends_with("\r\n\r\n5"), "{said}");
    // None of these bodies ever comes.
    for (method, headers, expected) in [
        ("POST", "Stranger: yes\r\nContent-Length: 5\r\n", "401 "),
        ("GET", "Content-Length: 5\r\n", "400 "),
        ("DELETE", "Transfer-Encoding: chunked\r\n", "400 "),
        ("POST", "Content-Length: 1048577\r\n", "413 "),
        ("POST", "Content-Length: 5x\r\n", "400 "),
        ("POST", "Content-Length: 1000000\r\n", "503 "),
        ("GET", "Content-Length: 0\r\n", "200 "),
    ] {
        let said = ask(method, headers, "").await;
        assert!(said.starts_with(expected), "{method} {headers}: {said}");
    }
}
