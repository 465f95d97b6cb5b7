//! Local files and their lists.

use std::fs;
use std::path::Path;

use aqueduct_core::{Changed, ErrorKind};
use aqueduct_net::{Listed, Location, Trust};
use futures::{StreamExt, TryStreamExt};

use crate::{Client, plain_client, sample, says};

async fn names(client: &Client, pattern: &str, dir: &Path) -> Vec<String> {
    let listed: Vec<Listed> = client.fetcher.list(pattern, dir).try_collect().await.unwrap();
    let name = |listed: &Listed| match &listed.location {
        Location::Local(path) => path.strip_prefix(dir).unwrap().display().to_string(),
        other => panic!("{other}"),
    };
    listed.iter().map(name).collect()
}

#[tokio::test]
async fn a_file_comes_whole_in_blocks() {
    let dir = tempfile::tempdir().unwrap();
    for n_bytes in [0, 1, 1 << 20, (1 << 20) + 1, 3_500_000] {
        let path = dir.path().join(n_bytes.to_string());
        fs::write(&path, sample(n_bytes)).unwrap();
        let client = plain_client();
        let at = Location::Local(path);
        let fetched = client.fetcher.get(&at, Trust::Flow, &client.metrics).await.unwrap();
        assert_eq!(fetched.meta.n_bytes, Some(n_bytes as u64));
        let blocks: Vec<bytes::Bytes> = fetched.body.try_collect().await.unwrap();
        assert!(blocks.iter().all(|block| block.len() <= 1 << 20));
        assert_eq!(blocks.concat(), sample(n_bytes));
        let file = client.fetcher.random_access(&at, Trust::Flow, &client.metrics).await.unwrap().file;
        let middle = n_bytes as u64 / 2;
        assert_eq!(file.read(middle..n_bytes as u64).await.unwrap(), sample(n_bytes)[n_bytes / 2..]);
        assert!(file.read(0..n_bytes as u64 + 1).await.is_err());
    }
}

// reliability 35
#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    for n_bytes_after in [100, 5_000_000, 6_000_000] {
        fs::write(&path, sample(5_000_000)).unwrap();
        let earlier = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        fs::File::options().write(true).open(&path).unwrap().set_modified(earlier).unwrap();
        let client = plain_client();
        let fetched =
            client.fetcher.get(&Location::Local(path.clone()), Trust::Flow, &client.metrics).await.unwrap();
        let mut body = fetched.body;
        body.next().await.unwrap().unwrap();
        fs::write(&path, sample(n_bytes_after)).unwrap();
        let error = body.try_collect::<Vec<_>>().await.unwrap_err();
        says(&error, &["/a", "changed while it was read"]);
        let change = error.cause::<Changed>().unwrap();
        assert!(change.was.contains("5000000 bytes") && change.was != change.is, "{change}");
        assert!(change.is.contains(&format!("{n_bytes_after} bytes")), "{change}");
    }
}

#[tokio::test]
async fn what_is_no_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, word) in [(dir.path(), "folder"), (&*pipe, "pipe"), (Path::new("/dev/null"), "device")] {
        let client = plain_client();
        let error = client
            .fetcher
            .get(&Location::Local(path.into()), Trust::Flow, &client.metrics)
            .await
            .unwrap_err();
        says(&error, &[word, &path.display().to_string()]);
    }
}

#[tokio::test]
async fn globs_and_folders_are_listed_by_name_without_what_is_hidden() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "b.csv",
        "a.csv",
        "c.json",
        "sub/d.csv",
        "sub/deep/e.csv",
        ".hidden.csv",
        ".git/f.csv",
        "_aqueduct/g.csv",
        "odd[1].csv",
    ] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    let (client, dir) = (plain_client(), dir.path());
    assert_eq!(names(&client, "*.csv", dir).await, ["a.csv", "b.csv", "odd[1].csv"]);
    assert_eq!(
        names(&client, "**/*.csv", dir).await,
        ["a.csv", "b.csv", "odd[1].csv", "sub/d.csv", "sub/deep/e.csv"]
    );
    assert_eq!(names(&client, "odd[1].csv", dir).await, ["odd[1].csv"]);
    assert_eq!(names(&client, "sub", dir).await, ["sub/d.csv", "sub/deep/e.csv"]);
    assert_eq!(names(&client, ".", dir).await.len(), 6);
    assert_eq!(names(&client, "*.xml", dir).await, [""; 0]);
    let error = client.fetcher.list("gone.csv", dir).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    says(&error, &["gone.csv"]);
}

#[tokio::test]
async fn more_files_than_are_looked_up_at_once_are_all_listed() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..600 {
        fs::write(dir.path().join(format!("{n:03}.csv")), "x").unwrap();
    }
    let found = names(&plain_client(), "*.csv", dir.path()).await;
    assert_eq!(found.len(), 600);
    assert!(found.is_sorted());
}
