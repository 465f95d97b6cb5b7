//! Calls: made once, whatever comes of them, within a time and a size.

use std::time::Duration;

use aqueduct_core::{ErrorKind, Retry};
use aqueduct_net::{Call, TimedOut, Trust};
use aqueduct_primitives::ByteCount;
use aqueduct_testkit::http::{Answer, Server};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::json;
use url::Url;

use crate::{client, location, plain_client, says};

fn call(method: Method, url: &str) -> Call {
    Call {
        method,
        at: location(url),
        from: Trust::Flow,
        headers: HeaderMap::new(),
        body: Vec::new(),
        timeout: Duration::from_secs(20),
        max_answer_bytes: ByteCount::new(100),
    }
}

#[tokio::test]
async fn it_sends_method_headers_and_pieces_and_gives_any_answer() {
    let server = Server::start().await;
    let url = server.route("/a", |_| Answer::new(503).header("Retry-After", 7).body("later"));
    let pieces = ["one ", "two ", "three"].map(Bytes::from).to_vec();
    let headers =
        HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
    let client = plain_client();
    let reply =
        client.fetcher.call(&Call { body: pieces, headers, ..call(Method::PUT, &url) }).await.unwrap();
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (503, &b"later"[..]));
    assert_eq!(reply.retry_after(), Some(Duration::from_secs(7)));
    let asked = server.asked("/a");
    assert_eq!(
        (asked.len(), asked[0].method.as_str(), &asked[0].body[..]),
        (1, "PUT", &b"one two three"[..])
    );
    assert_eq!(
        (asked[0].header("content-length"), asked[0].header("content-type")),
        (Some("13"), Some("text/plain"))
    );
}

// It may have been done: whether it is done again is the caller's affair.
#[tokio::test]
async fn it_is_made_once_and_follows_no_redirect() {
    let server = Server::start().await;
    let broken = server.route("/broken", |_| Answer::raw(""));
    let error = plain_client().fetcher.call(&call(Method::POST, &broken)).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Io, Retry::Later));
    assert_eq!(server.asked("/broken").len(), 1);
    let moved = server.route("/moved", |_| Answer::new(307).header("Location", "/there").body(""));
    let reply = plain_client().fetcher.call(&call(Method::DELETE, &moved)).await.unwrap();
    assert_eq!((reply.status.as_u16(), server.asked("/there").len()), (307, 0));
}

#[tokio::test]
async fn an_answer_has_a_time_and_a_size() {
    let server = Server::start().await;
    let slow = server.route("/slow", |_| Answer::ok("0123456789").stall_after(5));
    let short = Call { timeout: Duration::from_millis(50), ..call(Method::POST, &slow) };
    let error = plain_client().fetcher.call(&short).await.unwrap_err();
    assert_eq!(error.cause(), Some(&TimedOut { limit: short.timeout }));
    assert_eq!(error.retry(), Retry::Later);
    let long = server.route("/long", |_| Answer::ok("x".repeat(101)));
    let error = plain_client().fetcher.call(&call(Method::GET, &long)).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Limit, Retry::Never));
    says(&error, &["longer than it may be", "limit_bytes: 100", "/long"]);
}

// T2
#[tokio::test]
async fn a_url_out_of_an_answer_gets_credentials_only_at_its_origin() {
    let (home, abroad) = (Server::start().await, Server::start().await);
    let client = client(json!({"auth": {"bearer": "canary"}}));
    let origin = Some(Url::parse(&home.url("/")).unwrap());
    for (server, is_home) in [(&home, true), (&abroad, false)] {
        let url = server.route("/upload", |_| Answer::ok("{}"));
        let from = Trust::Data { origin: origin.clone() };
        let called = client.fetcher.call(&Call { from, ..call(Method::POST, &url) }).await;
        let asked = server.asked("/upload");
        // Nor does it lead to a private address that the flow does not name.
        assert_eq!((called.is_ok(), asked.len()), (is_home, usize::from(is_home)));
        assert!(asked.iter().all(|request| request.header("authorization") == Some("Bearer canary")));
    }
}
