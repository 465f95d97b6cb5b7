//! Redirects, lengths, encodings.

use aqueduct_core::ErrorKind;
use aqueduct_net::{ContentEncoding, Trust};
use aqueduct_testkit::http::{Answer, Server};
use serde_json::json;

use crate::{client, location, plain_client, sample, says};

// S1.6, reliability 10
#[tokio::test]
async fn redirects_are_followed_and_the_place_is_told() {
    let server = Server::start().await;
    server.file("/end", "found");
    for (n, (status, target)) in
        [(301, "/hop1".to_owned()), (307, "hop2".into()), (302, server.url("/end"))].into_iter().enumerate()
    {
        server.route(&format!("/hop{n}"), move |_| Answer::new(status).header("Location", &target).body(""));
    }
    let client = plain_client();
    let fetched =
        client.fetcher.get(&location(&server.url("/hop0")), Trust::Flow, &client.metrics).await.unwrap();
    assert_eq!(fetched.meta.location, location(&server.url("/end")));
    assert_eq!(client.read(&server.url("/hop0")).await.unwrap(), b"found");
}

#[tokio::test]
async fn a_redirect_loop_ends_at_max_redirects() {
    let server = Server::start().await;
    let url = server.route("/loop", |_| Answer::new(302).header("Location", "/loop").body(""));
    let error = client(json!({"max_redirects": 7})).fails(&url).await;
    assert_eq!(error.kind(), ErrorKind::Limit);
    says(&error, &["/loop", "redirect", "max_redirects", "7"]);
    assert_eq!(server.asked("/loop").len(), 8);
}

#[tokio::test]
async fn redirects_out_of_http_and_into_nothing_are_errors() {
    let server = Server::start().await;
    let out = server.route("/out", |_| Answer::new(302).header("Location", "file:///etc/passwd").body(""));
    let none = server.route("/none", |_| Answer::new(302).body(""));
    says(&plain_client().fails(&out).await, &["/out", "scheme"]);
    says(&plain_client().fails(&none).await, &["/none", "leads nowhere"]);
}

// reliability 8
#[tokio::test]
async fn an_endless_body_stops_at_max_bytes() {
    let server = Server::start().await;
    let chunks: Vec<Vec<u8>> = vec![sample(10_000); 20];
    let endless = server.route("/endless", move |_| Answer::new(200).chunks(&chunks));
    let said = server.route("/said", |_| Answer::ok(sample(60_000)));
    let client = client(json!({"max_bytes": "50KB"}));
    for url in [endless, said] {
        let error = client.fails(&url).await;
        assert_eq!(error.kind(), ErrorKind::Limit);
        says(&error, &[&url, "max_bytes", "50KB"]);
    }
    assert_eq!(client.n_retries(), 0);
    let exact = server.route("/exact", |_| Answer::ok(sample(50_000)));
    assert_eq!(client.read(&exact).await.unwrap().len(), 50_000);
}

// T5: bytes stay encoded, so that the caller's limits on decoding apply
#[tokio::test]
async fn encodings_are_told_and_unknown_ones_refused() {
    let server = Server::start().await;
    let encoded =
        |coding: &'static str| move |_: &_| Answer::new(200).header("Content-Encoding", coding).body("xyz");
    let gzip = server.route("/gzip", encoded("gzip"));
    let odd = server.route("/odd", encoded("gzip, br"));
    let client = plain_client();
    let fetched = client.fetcher.get(&location(&gzip), Trust::Flow, &client.metrics).await.unwrap();
    assert_eq!(fetched.meta.content_encoding, Some(ContentEncoding::Gzip));
    assert_eq!(client.read(&gzip).await.unwrap(), b"xyz");
    says(&client.fails(&odd).await, &["/odd", "gzip, br"]);
    assert_eq!(server.asked("/gzip")[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn what_is_known_beforehand_comes_from_the_head() {
    let server = Server::start().await;
    let url = server.route("/a", |_| {
        Answer::new(200)
            .header("ETag", "\"v1\"")
            .header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            .header("Content-Type", "text/csv")
            .body("12345")
    });
    let no_head = server.route("/b", |request| match request.method.as_str() {
        "HEAD" => Answer::new(405).header("Content-Length", 0),
        _ => Answer::ok("123"),
    });
    let client = plain_client();
    let meta = client.fetcher.meta(&location(&url), Trust::Flow, &client.metrics).await.unwrap();
    assert_eq!(
        (meta.n_bytes, meta.etag.as_deref(), meta.content_type.as_deref()),
        (Some(5), Some("\"v1\""), Some("text/csv"))
    );
    assert_eq!(meta.modified.unwrap().timestamp(), 784_111_777);
    let meta = client.fetcher.meta(&location(&no_head), Trust::Flow, &client.metrics).await.unwrap();
    assert_eq!(meta.n_bytes, Some(3));
}
