//! Addresses that only the data names.

use aqueduct_core::ErrorKind;
use aqueduct_net::Trust;
use aqueduct_testkit::http::{Answer, Server};
use serde_json::json;
use url::Url;

use crate::{Client, client, from_data, plain_client, says};

async fn is_denied(client: &Client, url: &str) -> bool {
    match client.read_from(url, from_data()).await {
        Err(error) if error.kind() == ErrorKind::Denied => true,
        Err(error) => panic!("{url}: {error:?}"),
        Ok(_) => false,
    }
}

// T1
#[tokio::test]
async fn private_addresses_out_of_data_are_not_dialled() {
    let server = Server::start().await;
    server.file("/a", "secret");
    let client = plain_client();
    let port = server.port();
    for host in
        ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::ffff:127.0.0.1]", "localhost"]
    {
        assert!(is_denied(&client, &format!("http://{host}:{port}/a")).await, "{host}");
    }
    assert_eq!(server.n_accepted(), 0);
    assert_eq!(client.n_retries(), 0);
}

#[tokio::test]
async fn the_message_says_what_to_do() {
    let error = plain_client().read_from("http://169.254.169.254/latest", from_data()).await.unwrap_err();
    says(&error, &["169.254.169.254", "link-local", "allow_hosts"]);
}

// A URL out of data may go where the data came from and to hosts that the flow names, nowhere private else.
#[tokio::test]
async fn the_data_may_go_where_it_came_from_and_where_the_flow_says() {
    let server = Server::start().await;
    let url = server.file("/a", "data");
    let origin = Some(Url::parse(&server.url("/list")).unwrap());
    assert!(plain_client().read_from(&url, Trust::Data { origin }).await.is_ok());

    let elsewhere = Some(Url::parse("http://127.0.0.1:1/list").unwrap());
    assert!(plain_client().read_from(&url, Trust::Data { origin: elsewhere }).await.is_err());

    let allowed = client(json!({"allow_hosts": ["127.0.0.1"]}));
    assert!(!is_denied(&allowed, &url).await);
    let trusting = plain_client();
    trusting.fetcher.trust([format!("127.0.0.1:{}", server.port())]);
    assert!(!is_denied(&trusting, &url).await);
}

// T1: 302 to a private address
#[tokio::test]
async fn a_redirect_counts_as_data() {
    let server = Server::start().await;
    let url = server.route("/a", |_| Answer::new(302).header("Location", "http://169.254.169.254/").body(""));
    let error = plain_client().fails(&url).await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    says(&error, &["169.254.169.254", "link-local"]);
}

#[tokio::test]
async fn the_data_names_no_local_file_and_no_strange_store() {
    let client = plain_client();
    for place in ["/etc/hostname", "file:///etc/hostname", "s3://somebody/else"] {
        assert!(is_denied(&client, place).await, "{place}");
    }
}
