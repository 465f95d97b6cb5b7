//! Bad answers and bad networks, each by its number among the inputs that a run must stand.

use std::sync::{Arc, Mutex};

use aqueduct_core::{Changed, ErrorKind};
use aqueduct_testkit::http::{Answer, Server};
use bytes::Bytes;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::{SHORT, client, from_data, plain_client, sample, says};

// reliability 1: a black hole: nothing answers the first packet
#[tokio::test]
async fn an_address_that_never_answers_times_out_while_connecting_and_names_the_limit() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Room for one connection that nobody takes: the system drops what comes after it.
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let _fills_it = tokio::net::TcpStream::connect(address).await.unwrap();
    let client = client(json!({"retries": 1, "connect_timeout": "50ms"}));
    let error = client.fails(&format!("http://{address}/a")).await;
    says(&error, &["/a", "timed out while connecting", "connect_timeout", "50ms", "tries: 2", "retries: 1"]);
    assert_eq!((error.kind(), client.n_retries()), (ErrorKind::Io, 1));
}

// reliability 4: the bytes are more than the part that was named
#[tokio::test]
async fn a_part_with_more_bytes_than_it_names_is_never_given() {
    let (server, body) = (Server::start().await, Bytes::from(sample(5000)));
    let served = body.clone();
    let url = server.route("/a", move |request| match request.nth {
        1 => Answer::file(request, &served, "\"v1\"").cut_after(3000),
        2 => Answer::new(206)
            .header("ETag", "\"v1\"")
            .header("Content-Range", "bytes 3000-4999/5000")
            .body(sample(2500)),
        _ => Answer::file(request, &served, "\"v1\""),
    });
    match plain_client().read(&url).await {
        Ok(bytes) => assert_eq!(bytes, body),
        Err(error) => says(&error, &["/a", "5000"]),
    }
}

// reliability 5: both tags are named
#[tokio::test]
async fn another_version_is_told_with_both_tags() {
    let server = Server::start().await;
    let (old, new) = (Bytes::from(sample(5000)), Bytes::from(vec![7; 5000]));
    let url = server.route("/a", move |request| match request.nth {
        1 => Answer::file(request, &old, "\"tag-before\"").cut_after(3000),
        _ => Answer::file(request, &new, "\"tag-after\""),
    });
    let error = plain_client().fails(&url).await;
    says(&error, &["/a", "changed while it was read", "tag-before", "tag-after"]);
    let change = Changed { was: "\"tag-before\"".into(), is: "\"tag-after\"".into() };
    assert_eq!(error.cause::<Changed>(), Some(&change));
}

// reliability 7: a length that is too short: what is left over is no part of another answer
#[tokio::test]
async fn what_follows_a_body_is_not_taken_for_the_next_answer() {
    let server = Server::start().await;
    let short = server.route("/short", |_| {
        Answer::new(200)
            .header("Content-Length", 3)
            .send("abcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    });
    let good = server.file("/good", "good");
    let client = plain_client();
    for _ in 0..20 {
        // What was promised came: that there was more cannot be told from the bytes alone.
        if let Ok(bytes) = client.read(&short).await {
            assert_eq!(bytes, b"abc");
        }
        assert_eq!(client.read(&good).await.unwrap(), b"good");
    }
}

/// Keeps what is logged: the level, and the fields as text.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<(Level, String)>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Logged {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push((*event.metadata().level(), fields.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

// reliability 9: waits are capped, and shown
#[tokio::test]
async fn a_wait_that_a_server_asks_for_is_told_as_long_as_it_is() {
    let server = Server::start().await;
    let asked_for = ["315360000", "Fri, 01 Jan 2100 00:00:00 GMT", "soon", "0"];
    let url = server.route("/a", move |request| match asked_for.get(request.nth - 1) {
        Some(wait) => Answer::new(429).header("Retry-After", wait).body(""),
        None => Answer::ok("done"),
    });
    let logged = Logged::default();
    let _listening = tracing::subscriber::set_default(logged.clone());
    assert_eq!(plain_client().read(&url).await.unwrap(), b"done");
    let short = format!("wait_ms={} ", SHORT.as_millis());
    let waits: Vec<(Level, String)> =
        logged.0.lock().unwrap().iter().filter(|(_, text)| text.contains("wait_ms=")).cloned().collect();
    assert_eq!(waits.len(), 4, "{waits:?}");
    // Ten years and a date in another century: as long as a server may ask for. Junk: as if nothing was asked for.
    for (n, wait) in [short.as_str(), short.as_str(), "wait_ms=0 ", "wait_ms=0 "].into_iter().enumerate() {
        assert!(waits[n].1.contains(wait) && waits[n].1.contains("429"), "{n}: {waits:?}");
    }
    assert!(waits[1..].iter().all(|(level, _)| *level == Level::WARN), "{waits:?}");
}

// reliability 10: 50 hops, with what is allowed by default and with more
#[tokio::test]
async fn fifty_hops_are_too_many_unless_they_are_allowed() {
    let server = Server::start().await;
    for hop in 0..50 {
        server.route(&format!("/{hop}"), move |_| {
            Answer::new(302).header("Location", format!("/{}", hop + 1)).body("")
        });
    }
    server.file("/50", "found");
    let error = plain_client().fails(&server.url("/0")).await;
    assert_eq!(error.kind(), ErrorKind::Limit);
    says(&error, &["/0", "max_redirects", "10"]);
    assert_eq!((server.n_requests(), server.asked("/50").len()), (11, 0));
    let patient = client(json!({"max_redirects": 50}));
    assert_eq!(patient.read(&server.url("/0")).await.unwrap(), b"found");
}

// reliability 12: a head that is too large, one of too many lines, and what is no head; each is named by its URL, and ends
#[tokio::test]
async fn heads_that_are_none_are_errors_that_name_the_url() {
    let server = Server::start().await;
    server.route("/long", |_| Answer::ok("abc").header("X-Long", "x".repeat(1 << 20)));
    server.route("/many", |_| {
        (0..10_000).fold(Answer::ok("abc"), |answer, n| answer.header(&format!("X-{n}"), n))
    });
    server.route("/status", |_| Answer::raw("HTTP/1.1 what\r\nContent-Length: 3\r\n\r\nabc"));
    server.route("/0.9", |_| Answer::raw("abc, as HTTP/0.9 would send it"));
    server.route("/nothing", |_| Answer::raw(""));
    for path in ["/long", "/many", "/status", "/0.9", "/nothing"] {
        let client = client(json!({"retries": 1}));
        says(&client.fails(&server.url(path)).await, &[path, "tries: 2"]);
        assert_eq!(server.asked(path).len(), 2, "{path}");
    }
}

// reliability 13: who asks for https gets nothing from a server that speaks none
#[tokio::test]
async fn a_server_without_tls_is_not_asked_in_plain_words() {
    let server = Server::start().await;
    server.file("/a", "plain");
    let client = client(json!({"retries": 0, "connect_timeout": "200ms"}));
    let error = client.fails(&format!("https://127.0.0.1:{}/a", server.port())).await;
    says(&error, &["https://127.0.0.1", "/a"]);
    assert_eq!(server.n_requests(), 0);
}

// reliability 16: a name that does not exist (RFC 6761), named by the flow and by data
#[tokio::test]
async fn a_name_that_is_not_there_is_an_error_that_names_it() {
    let client = client(json!({"retries": 1}));
    for from in [aqueduct_net::Trust::Flow, from_data()] {
        let error = client.read_from("http://nowhere.invalid/a", from).await.unwrap_err();
        says(&error, &["nowhere.invalid/a", "tries: 2"]);
    }
    let far = crate::client(json!({"retries": 0, "proxy": "http://127.0.0.1:9"}));
    // Behind a proxy nobody here looks the name up, so it is refused before the proxy is asked.
    let error = far.read_from("http://nowhere.invalid/a", from_data()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    says(&error, &["nowhere.invalid/a", "allow_hosts"]);
}

// reliability 17: far more failures than one, before the answer and in its middle
#[tokio::test]
async fn a_server_that_is_down_for_long_is_waited_for_as_often_as_allowed() {
    let (server, body) = (Server::start().await, Bytes::from(sample(100_000)));
    let served = body.clone();
    let url = server.route("/a", move |request| match request.nth {
        41 => Answer::file(request, &served, "\"v1\"").cut_after(60_000),
        1..=80 => Answer::new(503).body("down"),
        _ => Answer::file(request, &served, "\"v1\""),
    });
    let client = client(json!({"retries": 40}));
    assert_eq!(client.read(&url).await.unwrap(), body);
    assert_eq!(client.n_retries(), 80);
    assert_eq!(server.asked("/a").last().unwrap().header("range"), Some("bytes=60000-"));
}
