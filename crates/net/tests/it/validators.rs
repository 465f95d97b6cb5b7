//! Whether a file is still what it was.

use aqueduct_core::ErrorKind;
use aqueduct_net::{Known, Trust, Validator};
use aqueduct_testkit::http::{Answer, Server};
use bytes::Bytes;
use serde_json::json;

use crate::{Client, client, location, plain_client, sample, says};

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

async fn look(client: &Client, at: &str) -> aqueduct_core::Result<Validator> {
    let meta = client.fetcher.meta(&location(at), Trust::Flow, &client.metrics).await?;
    Ok(meta.validator())
}

/// As it is known of what is read from its start, read by range, and only looked at.
async fn all_ways(client: &Client, at: &str) -> [Validator; 3] {
    let whole = client.fetcher.get(&location(at), Trust::Flow, &client.metrics).await.unwrap();
    let ranged = client.fetcher.random_access(&location(at), Trust::Flow, &client.metrics).await.unwrap();
    [whole.meta.validator(), ranged.validator, look(client, at).await.unwrap()]
}

#[tokio::test]
async fn a_file_is_the_same_however_it_is_looked_at_and_another_once_it_changed() {
    let (server, client, dir) = (Server::start().await, plain_client(), tempfile::tempdir().unwrap());
    let body = Bytes::from(sample(1000));
    let served = body.clone();
    server.route("/weak", move |request| Answer::file(request, &served, "W/\"v1\""));
    let served = body.clone();
    server.route("/dated", move |_| Answer::new(200).header("Last-Modified", MODIFIED).body(served.clone()));
    let path = dir.path().join("a");
    std::fs::write(&path, &body).unwrap();
    let local = path.to_str().unwrap().to_owned();
    client.fetcher.put(&location("memory://lake/a"), body.clone()).await.unwrap();
    let strong = server.file("/strong", body.clone());
    let places = [strong, server.url("/weak"), local, "memory://lake/a".into()];
    let mut before = Vec::new();
    for at in &places {
        let [whole, ranged, looked] = all_ways(&client, at).await;
        assert!(!whole.is_empty(), "{at}");
        assert!(!whole.has_become_another(&looked) && !ranged.has_become_another(&looked), "{at}: {looked}");
        before.push(whole);
    }
    let dated = look(&client, &server.url("/dated")).await.unwrap();
    assert_eq!(dated.to_string(), "changed 1994-11-06T08:49:37Z, 1000 bytes");

    let other = Bytes::from(sample(999));
    for (path, etag) in [("/strong", "\"v2\""), ("/weak", "W/\"v2\"")] {
        let other = other.clone();
        server.route(path, move |request| Answer::file(request, &other, etag));
    }
    let longer = Bytes::from(sample(1001));
    server.route("/dated", move |_| Answer::new(200).header("Last-Modified", MODIFIED).body(longer.clone()));
    std::fs::write(&path, &other).unwrap();
    client.fetcher.put(&location("memory://lake/a"), other).await.unwrap();
    for (at, was) in places.iter().zip(before) {
        let is = look(&client, at).await.unwrap();
        assert!(was.has_become_another(&is), "{at}: {was} and then {is}");
    }
    let is = look(&client, &server.url("/dated")).await.unwrap();
    assert!(dated.has_become_another(&is), "{is}");
}

#[tokio::test]
async fn a_look_asks_for_the_head_and_for_the_body_only_where_that_is_refused() {
    let (server, client) = (Server::start().await, client(json!({"retries": 0})));
    let plain = server.file("/plain", "12345");
    for (path, status) in [("/405", 405), ("/501", 501)] {
        server.route(path, move |request| match request.method.as_str() {
            "HEAD" => Answer::new(status).header("Content-Length", 0),
            _ => Answer::file(request, &Bytes::from("12345"), "\"v1\""),
        });
    }
    look(&client, &plain).await.unwrap();
    let methods = |path: &str| -> Vec<String> {
        server.asked(path).into_iter().map(|request| request.method).collect()
    };
    assert_eq!(methods("/plain"), ["HEAD"]);
    for path in ["/405", "/501"] {
        assert_eq!(look(&client, &server.url(path)).await.unwrap().to_string(), "ETag \"v1\", 5 bytes");
        assert_eq!(methods(path), ["HEAD", "GET"]);
    }
    let gone = look(&client, &server.url("/gone")).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    says(&gone, &["/gone", "404"]);
    assert_eq!(methods("/gone"), ["HEAD"]);
}

// S2.6: asked with the version that is known, a server sends nothing of it
#[tokio::test]
async fn a_file_that_is_the_version_that_is_known_is_not_sent_again() {
    let (server, client, dir) = (Server::start().await, plain_client(), tempfile::tempdir().unwrap());
    let route = |etag: &'static str| {
        move |request: &aqueduct_testkit::http::Request| {
            let is_known = request.header("if-none-match") == Some(etag)
                && request.header("if-modified-since") == Some(MODIFIED);
            let answer = if is_known { Answer::new(304) } else { Answer::ok("body") };
            answer.header("ETag", etag).header("Last-Modified", MODIFIED)
        }
    };
    let at = server.route("/a", route("\"v1\""));
    server.route("/moved", move |_| Answer::new(302).header("Location", "/a"));
    let get = async |known: &Known, at: &str| {
        client.fetcher.get_unless(known, &location(at), Trust::Flow, &client.metrics).await.unwrap()
    };
    let known = get(&Known::default(), &at).await.unwrap().meta.known();
    assert!(get(&known, &at).await.is_none());
    assert!(get(&known, &server.url("/moved")).await.is_none());
    let kept = serde_json::to_string(&known).unwrap();
    assert_eq!(serde_json::from_str::<Known>(&kept).unwrap(), known);
    server.route("/a", route("\"v2\""));
    assert_ne!(get(&known, &at).await.unwrap().meta.known(), known);
    // One that answers 304 to who knows nothing has not answered.
    server.route("/odd", |_| Answer::new(304));
    assert!(
        client
            .fetcher
            .get_unless(&Known::default(), &location(&server.url("/odd")), Trust::Flow, &client.metrics)
            .await
            .is_err()
    );

    let path = dir.path().join("a");
    std::fs::write(&path, "one").unwrap();
    let at = path.to_str().unwrap();
    let known = get(&Known::default(), at).await.unwrap().meta.known();
    assert!(get(&known, at).await.is_none());
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!(get(&known, at).await.is_some());
}

// A body that breaks off is taken up again although it was asked for with a condition.
#[tokio::test]
async fn a_body_that_came_of_a_condition_is_whole() {
    let (server, client) = (Server::start().await, plain_client());
    let body = Bytes::from(sample(100_000));
    let served = body.clone();
    let at = server.route("/a", move |request| {
        let answer = Answer::file(request, &served, "\"v2\"");
        if request.nth == 2 { answer.cut_after(1000) } else { answer }
    });
    let known = client.fetcher.get(&location(&at), Trust::Flow, &client.metrics).await.unwrap().meta.known();
    let fetched =
        client.fetcher.get_unless(&known, &location(&at), Trust::Flow, &client.metrics).await.unwrap();
    let pieces: Vec<Bytes> = futures::TryStreamExt::try_collect(fetched.unwrap().body).await.unwrap();
    assert_eq!(pieces.concat(), body);
    assert!(server.asked("/a")[2].header("if-none-match").is_none());
}
