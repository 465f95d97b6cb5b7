//! Objects, in memory and behind the S3 protocol of a scripted server.

use aqueduct_core::{Changed, ErrorKind};
use aqueduct_net::{Fetcher, HttpOptions, Listed, StorageOptions, Trust};
use aqueduct_primitives::Tasks;
use aqueduct_testkit::http::{Answer, Server};
use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::json;
use std::sync::Arc;

use crate::{Client, location, plain_client, sample, says};

async fn filled(keys: &[&str]) -> Client {
    let client = plain_client();
    for key in keys {
        client
            .fetcher
            .put(&location(&format!("memory://lake/{key}")), Bytes::from(sample(1000)))
            .await
            .unwrap();
    }
    client
}

async fn list(client: &Client, pattern: &str) -> aqueduct_core::Result<Vec<String>> {
    let listed: Vec<Listed> = client.fetcher.list(pattern, "/".as_ref()).try_collect().await?;
    Ok(listed.iter().map(|listed| listed.location.to_string()).collect())
}

#[tokio::test]
async fn prefixes_globs_and_names_are_listed() {
    let client = filled(&["a/1.csv", "a/2.csv", "a/b/3.csv", "ab/4.csv", "a/_aqueduct/manifest.json"]).await;
    let all = ["memory://lake/a/1.csv", "memory://lake/a/2.csv", "memory://lake/a/b/3.csv"];
    assert_eq!(list(&client, "memory://lake/a").await.unwrap(), all);
    assert_eq!(list(&client, "memory://lake/a/").await.unwrap(), all);
    assert_eq!(list(&client, "memory://lake/a/*.csv").await.unwrap(), all[..2]);
    assert_eq!(list(&client, "memory://lake/a/**/*.csv").await.unwrap(), all);
    assert_eq!(list(&client, "memory://lake/a/1.csv").await.unwrap(), all[..1]);
    assert_eq!(list(&client, "memory://lake/x*").await.unwrap(), [""; 0]);
    assert_eq!(list(&client, "memory://lake/gone").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn objects_are_read_whole_and_by_range() {
    let client = filled(&["a"]).await;
    assert_eq!(client.read("memory://lake/a").await.unwrap(), sample(1000));
    let file = client
        .fetcher
        .random_access(&location("memory://lake/a"), Trust::Flow, &client.metrics)
        .await
        .unwrap()
        .file;
    assert_eq!(file.read(10..20).await.unwrap(), sample(1000)[10..20]);
    let error = client.fails("memory://lake/b").await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    says(&error, &["memory://lake/b"]);
}

#[tokio::test]
async fn an_object_that_changes_is_not_read_on() {
    let client = filled(&["a"]).await;
    let at = location("memory://lake/a");
    let file = client.fetcher.random_access(&at, Trust::Flow, &client.metrics).await.unwrap().file;
    client.fetcher.put(&at, Bytes::from(vec![1; 1000])).await.unwrap();
    let error = file.read(10..20).await.unwrap_err();
    says(&error, &["memory://lake/a", "changed while it was read"]);
    assert!(error.cause::<Changed>().is_some_and(|change| change.was != change.is), "{error:?}");
}

#[tokio::test]
async fn an_endpoint_of_one_s_own_is_spoken_to_as_the_settings_say() {
    let server = Server::start().await;
    server.route("/lake/a", |_| {
        Answer::new(200)
            .header("ETag", "\"v1\"")
            .header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
            .body("data")
    });
    let storage: StorageOptions = serde_json::from_value(json!({"s3://lake": {
        "endpoint": server.url(""), "region": "eu-west-1", "path_style": true, "allow_http": true,
        "access_key_id": "id", "secret_access_key": "canary-31415",
    }}))
    .unwrap();
    assert!(!format!("{storage:?}").contains("canary"));
    let fetcher = Fetcher::new(HttpOptions::default(), storage, Tasks::default()).unwrap();
    let client = Client { fetcher, metrics: Arc::default() };
    assert_eq!(client.read("s3://lake/a").await.unwrap(), b"data");
    let asked = server.asked("/lake/a");
    assert!(asked[0].header("authorization").unwrap().contains("eu-west-1"));
    client.fetcher.close().await;
    server.until_connections(0).await;
}
