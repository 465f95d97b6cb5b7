//! What is tried again, how often, and what is said when that does not help.

use std::time::{Duration, Instant};

use aqueduct_core::ErrorKind;
use aqueduct_testkit::http::{Answer, Server};
use serde_json::json;

use crate::{SHORT, client, plain_client, says};

// reliability 17
#[tokio::test]
async fn passing_errors_are_tried_again_and_counted() {
    let server = Server::start().await;
    let statuses = [500, 502, 503, 504, 429];
    let url = server.route("/a", move |request| match statuses.get(request.nth - 1) {
        Some(status) => Answer::new(*status).body("later"),
        None => Answer::ok("done"),
    });
    let client = plain_client();
    assert_eq!(client.read(&url).await.unwrap(), b"done");
    assert_eq!(client.n_retries(), 5);
    assert_eq!(server.n_accepted(), 1, "small error bodies leave the connection usable");
}

#[tokio::test]
async fn lasting_errors_end_after_n_plus_one_tries_with_url_and_status() {
    let server = Server::start().await;
    let url = server.route("/a", |_| Answer::new(500).body("no"));
    let error = client(json!({"retries": 2})).fails(&url).await;
    says(&error, &["/a", "500", "tries: 3", "retries: 2"]);
    assert_eq!(server.asked("/a").len(), 3);
}

#[tokio::test]
async fn what_is_not_there_is_asked_for_once() {
    let server = Server::start().await;
    for (status, kind) in [
        (404, ErrorKind::NotFound),
        (410, ErrorKind::NotFound),
        (403, ErrorKind::Denied),
        (400, ErrorKind::Io),
    ] {
        let path = format!("/{status}");
        let url = server.route(&path, move |_| Answer::new(status).body("no"));
        let error = plain_client().fails(&url).await;
        assert_eq!(error.kind(), kind, "{error}");
        says(&error, &[&path, &format!("status: {status}")]);
        assert_eq!(server.asked(&path).len(), 1, "{status}");
    }
}

// reliability 9: the least wait is the server's, the most is ours
#[tokio::test]
async fn retry_after_is_waited_for_up_to_a_limit() {
    let server = Server::start().await;
    let url = server.route("/a", |request| match request.nth {
        1 => Answer::new(503).header("Retry-After", "315360000").body(""),
        _ => Answer::ok("done"),
    });
    let started = Instant::now();
    assert_eq!(plain_client().read(&url).await.unwrap(), b"done");
    assert!(started.elapsed() >= SHORT);
}

// reliability 1
#[tokio::test]
async fn a_refused_connection_is_tried_again_and_named() {
    let server = Server::start().await;
    let url = server.url("/a");
    drop(server);
    tokio::task::yield_now().await;
    let client = client(json!({"retries": 2}));
    says(&client.fails(&url).await, &["/a", "could not connect", "tries: 3"]);
    assert_eq!(client.n_retries(), 2);
}

#[tokio::test]
async fn a_silent_server_times_out_and_says_so() {
    let server = Server::start().await;
    let head = server.route("/head", |_| Answer::new(200).wait(Duration::from_secs(60)));
    let body = server.route("/body", |_| {
        Answer::new(200).header("Content-Length", 9).send("abc").wait(Duration::from_secs(60))
    });
    for url in [head, body] {
        let client = client(json!({"retries": 1, "read_timeout": "50ms", "connect_timeout": "50ms"}));
        says(&client.fails(&url).await, &[&url, "timed out", "read_timeout", "50ms", "tries: 2"]);
    }
}

// reliability 12
#[tokio::test]
async fn what_is_no_http_is_an_error() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/a", listener.local_addr().unwrap());
    let serve = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/9.9 what\r\n\r\n").await;
        }
    };
    let client = client(json!({"retries": 1}));
    tokio::select! {
        () = serve => unreachable!(),
        error = client.fails(&url) => says(&error, &["/a", "tries: 2"]),
    }
}

#[tokio::test]
async fn requests_to_one_host_keep_their_rate() {
    let server = Server::start().await;
    let url = server.file("/a", "x");
    let client = client(json!({"rate_limit": 50.0}));
    let started = Instant::now();
    for _ in 0..4 {
        client.read(&url).await.unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(60));
}
