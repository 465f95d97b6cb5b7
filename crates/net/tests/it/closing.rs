//! The end of a client, and bodies that nobody reads to the end.

use aqueduct_core::ErrorKind;
use aqueduct_net::Trust;
use aqueduct_testkit::http::{Answer, Gate, Server};
use futures::StreamExt;

use crate::{location, plain_client, sample, says};

// S1.7
#[tokio::test]
async fn after_the_end_every_call_is_an_error() {
    let server = Server::start().await;
    let url = server.file("/a", "data");
    let client = plain_client();
    let clone = client.fetcher.with(&crate::options(serde_json::json!({"retries": 1}))).unwrap();
    client.read(&url).await.unwrap();
    client.fetcher.close().await;
    for fetcher in [&client.fetcher, &clone] {
        let at = location(&url);
        let errors = [
            fetcher.get(&at, Trust::Flow, &client.metrics).await.err(),
            fetcher.meta(&at, Trust::Flow, &client.metrics).await.err(),
            fetcher.random_access(&at, Trust::Flow, &client.metrics).await.err(),
            fetcher.list("*", ".".as_ref()).next().await.and_then(Result::err),
            fetcher.get(&location("s3://lake/a"), Trust::Flow, &client.metrics).await.err(),
        ];
        for error in errors {
            let error = error.unwrap();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
            says(&error, &["client has been shut down"]);
        }
    }
    assert_eq!(server.asked("/a").len(), 1);
}

// S1.8
#[tokio::test]
async fn no_connection_is_left_after_the_end() {
    let server = Server::start().await;
    let url = server.file("/a", sample(100_000));
    let gate = Gate::closed();
    let waiting = gate.clone();
    let stalled = server.route("/stalled", move |_| {
        Answer::new(200).header("Content-Length", 10).send("abc").wait_for(&waiting).send("defghij")
    });
    let client = plain_client();
    for _ in 0..5 {
        client.read(&url).await.unwrap();
    }
    let fetched = client.fetcher.get(&location(&stalled), Trust::Flow, &client.metrics).await.unwrap();
    let mut body = fetched.body;
    assert_eq!(body.next().await.unwrap().unwrap(), "abc");
    assert_eq!((server.n_connections(), server.n_accepted()), (1, 1), "connections are used again");

    client.fetcher.close().await;
    says(&body.next().await.unwrap().unwrap_err(), &["client has been shut down"]);
    assert!(body.next().await.is_none());
    drop(body);
    server.until_connections(0).await;
}

// S0.6: early drop
#[tokio::test]
async fn a_dropped_body_closes_its_connection() {
    let server = Server::start().await;
    let url = server.file("/a", sample(50_000_000));
    let client = plain_client();
    let fetched = client.fetcher.get(&location(&url), Trust::Flow, &client.metrics).await.unwrap();
    let mut body = fetched.body;
    assert!(body.next().await.unwrap().is_ok());
    drop(body);
    server.until_connections(0).await;
    server.until_bodies(0).await;
}

#[tokio::test]
async fn idle_connections_to_a_host_are_few() {
    let (server, gate) = (Server::start().await, Gate::closed());
    let waits = gate.clone();
    let url = server
        .route("/a", move |_| Answer::new(200).header("Content-Length", 4).wait_for(&waits).send("data"));
    let client = plain_client();
    let reads = futures::future::join_all((0..20).map(|_| client.read(&url)));
    // All at once, or one connection would do for several.
    let all_asked = async {
        server.until_bodies(20).await;
        gate.open();
    };
    for done in futures::join!(reads, all_asked).0 {
        assert_eq!(done.unwrap(), b"data");
    }
    server.until_bodies(0).await;
    // More than four were open; those beyond four close.
    while server.n_connections() > 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.n_accepted(), 20);
}
