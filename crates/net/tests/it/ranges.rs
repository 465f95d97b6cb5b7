//! HTTP files read by range.

use aqueduct_core::{Changed, RandomAccess};
use aqueduct_net::{Trust, does_no_ranges};
use aqueduct_testkit::http::{Answer, Server};
use bytes::Bytes;
use std::sync::Arc;

use crate::{Client, location, plain_client, sample, says};

async fn open(client: &Client, url: &str) -> aqueduct_core::Result<Arc<dyn RandomAccess>> {
    let ranged = client.fetcher.random_access(&location(url), Trust::Flow, &client.metrics).await?;
    Ok(ranged.file)
}

#[tokio::test]
async fn exactly_the_bytes_asked_for_come() {
    let (server, body) = (Server::start().await, Bytes::from(sample(1_000_000)));
    let url = server.file("/a", body.clone());
    let client = plain_client();
    let file = open(&client, &url).await.unwrap();
    assert_eq!(file.len(), 1_000_000);
    for range in [0..1, 999_992..1_000_000, 5..5, 100..700_000] {
        let place = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        assert_eq!(file.read(range).await.unwrap(), body[place]);
    }
    assert!(file.read(999_999..1_000_001).await.is_err());
    assert!(server.asked("/a")[1..].iter().all(|request| request.header("if-range") == Some("\"v1\"")));
    assert_eq!(server.n_accepted(), 1);
}

#[tokio::test]
async fn a_broken_range_is_read_again() {
    let (server, body) = (Server::start().await, Bytes::from(sample(100_000)));
    let served = body.clone();
    let url = server.route("/a", move |request| {
        let part = Answer::file(request, &served, "\"v1\"");
        if request.nth == 2 { part.reset_after(20_000) } else { part }
    });
    let client = plain_client();
    assert_eq!(open(&client, &url).await.unwrap().read(0..50_000).await.unwrap(), body[..50_000]);
    assert_eq!(client.n_retries(), 1);
}

#[tokio::test]
async fn a_server_without_ranges_is_told_apart() {
    let server = Server::start().await;
    let url = server.route("/a", |_| Answer::ok(sample(100)));
    let error = open(&plain_client(), &url).await.err().unwrap();
    assert!(does_no_ranges(&error), "{error:?}");
    says(&error, &["/a", "does not do ranges"]);
    let gone = open(&plain_client(), &server.url("/gone")).await.err().unwrap();
    assert!(!does_no_ranges(&gone));
}

#[tokio::test]
async fn an_empty_file_has_no_bytes() {
    let server = Server::start().await;
    let (strict, lenient) = (server.file("/strict", ""), server.route("/lenient", |_| Answer::ok("")));
    for url in [strict, lenient] {
        assert!(open(&plain_client(), &url).await.unwrap().is_empty(), "{url}");
    }
}

#[tokio::test]
async fn another_version_or_a_shifted_part_is_refused() {
    let server = Server::start().await;
    let changed = server.route("/changed", |request| {
        let etag = if request.nth == 1 { "\"v1\"" } else { "\"v2\"" };
        Answer::file(request, &Bytes::from(sample(100)), etag)
    });
    let error = read_some(&changed).await;
    says(&error, &["/changed", "changed while it was read"]);
    let change = Changed { was: "\"v1\"".into(), is: "\"v2\"".into() };
    assert_eq!(error.cause::<Changed>(), Some(&change));
    let longer = server.route("/longer", |request| {
        let n_bytes = if request.nth == 1 { 100 } else { 101 };
        Answer::file(request, &Bytes::from(sample(n_bytes)), "\"v1\"")
    });
    let error = read_some(&longer).await;
    says(&error, &["/longer", "changed while it was read", "100 bytes and has 101"]);
    assert!(error.cause::<Changed>().is_some(), "{error:?}");
    let shifted = server.route("/shifted", |request| match request.nth {
        1 => Answer::file(request, &Bytes::from(sample(100)), "\"v1\""),
        _ => Answer::new(206)
            .header("ETag", "\"v1\"")
            .header("Content-Range", "bytes 11-20/100")
            .body(sample(10)),
    });
    let error = read_some(&shifted).await;
    says(&error, &["/shifted", "11-20"]);
    assert!(error.cause::<Changed>().is_none(), "{error:?}");
}

async fn read_some(url: &str) -> aqueduct_core::Error {
    open(&plain_client(), url).await.unwrap().read(10..20).await.unwrap_err()
}
