//! Credentials go to the configured origin, and nowhere into a text.

use aqueduct_net::Trust;
use aqueduct_testkit::http::{Answer, Request, Server};
use serde_json::json;
use url::Url;

use crate::{client, says};

const CANARY: &str = "canary-31415";

fn got_canary(request: &Request) -> bool {
    request.query.contains(CANARY) || request.headers.values().any(|value| value.contains(CANARY))
}

// T2
#[tokio::test]
async fn no_credentials_follow_a_redirect_to_another_origin() {
    for auth in [
        json!({"auth": {"bearer": CANARY}}),
        json!({"auth": {"header": {"name": "X-Key", "value": CANARY}}}),
        json!({"auth": {"query": {"name": "k", "value": CANARY}}}),
        json!({"headers": {"Cookie": CANARY}}),
    ] {
        let (home, abroad) = (Server::start().await, Server::start().await);
        abroad.file("/end", "data");
        let target = abroad.url("/end");
        let url = home.route("/a", move |_| Answer::new(302).header("Location", &target).body(""));
        let client = client(auth.clone());
        assert_eq!(client.read(&url).await.unwrap(), b"data");
        assert!(got_canary(&home.asked("/a")[0]), "{auth}");
        assert!(!got_canary(&abroad.asked("/end")[0]), "{auth}");
    }
}

#[tokio::test]
async fn the_data_gets_credentials_only_for_where_it_came_from() {
    let (home, abroad) = (Server::start().await, Server::start().await);
    let (near, far) = (home.file("/a", "data"), abroad.file("/a", "data"));
    let client = client(json!({"auth": {"bearer": CANARY}, "allow_hosts": ["127.0.0.1"]}));
    let from = Trust::Data { origin: Some(Url::parse(&home.url("/list")).unwrap()) };
    for url in [near, far] {
        client.read_from(&url, from.clone()).await.unwrap();
    }
    assert!(got_canary(&home.asked("/a")[0]) && !got_canary(&abroad.asked("/a")[0]));
}

#[tokio::test]
async fn basic_credentials_come_from_options_or_the_url() {
    let server = Server::start().await;
    server.file("/a", "data");
    let basic = Some("Basic bWU6cHc=");
    let with_option = client(json!({"auth": {"basic": {"user": "me", "password": "pw"}}}));
    with_option.read(&server.url("/a")).await.unwrap();
    let with_url = client(json!({}));
    with_url.read(&format!("http://me:pw@127.0.0.1:{}/a", server.port())).await.unwrap();
    assert!(server.asked("/a").iter().all(|request| request.header("authorization") == basic));
}

// T2
#[tokio::test]
async fn no_error_shows_a_secret() {
    let server = Server::start().await;
    let client = client(json!({
        "retries": 0,
        "auth": {"query": {"name": "token", "value": CANARY}},
        "headers": {"X-Key": CANARY},
        "max_redirects": 1,
    }));
    server.route("/loop", |request| {
        Answer::new(302).header("Location", format!("/loop?{}", request.query)).body("")
    });
    server.route("/cut", |_| Answer::ok("abc").cut_after(1));
    for path in ["/gone", "/loop", "/cut"] {
        let url = format!("http://{CANARY}:{CANARY}@127.0.0.1:{}{path}?api_key={CANARY}", server.port());
        let error = client.fails(&url).await;
        says(&error, &[path]);
        assert!(!format!("{error} {error:?} {}", error.chain()).contains(CANARY), "{error:?}");
    }
    assert!(!format!("{:?}", client.fetcher).contains(CANARY));
}

// RFC 6749, section 4.4
#[tokio::test]
async fn a_token_is_fetched_once_and_renewed_when_refused() {
    let server = Server::start().await;
    server.route("/token", |request| {
        assert_eq!(request.method, "POST");
        Answer::ok(format!("{{\"access_token\": \"t{}\", \"expires_in\": 3600}}", request.nth))
    });
    server.route("/a", |request| match (request.nth, request.header("authorization")) {
        (1 | 2, Some("Bearer t1")) | (4, Some("Bearer t2")) => Answer::ok("data"),
        _ => Answer::new(401).body("no"),
    });
    let client = client(json!({"auth": {"oauth2": {
        "token_url": server.url("/token"), "client_id": "id", "client_secret": CANARY, "scopes": ["a", "b"],
    }}}));
    for _ in 0..3 {
        assert_eq!(client.read(&server.url("/a")).await.unwrap(), b"data");
    }
    let asked = server.asked("/token");
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].body, "grant_type=client_credentials&scope=a+b");
    assert!(!got_canary(&server.asked("/a")[0]));
}
