//! Servers that say something, but hardly anything, by a clock that goes on only while all wait.

use std::time::Duration;

use aqueduct_core::ErrorKind;
use aqueduct_net::Trust;
use aqueduct_testkit::http::{Answer, Gate, Server};
use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::json;
use tokio::time::Instant;

use crate::{client, location, sample, says};

/// Where all wait, the clock leaps to the next moment that anybody waits for, and whoever waits for a socket would find it
/// at its deadline: it is to leap by a little only.
async fn step_by_step<T>(work: impl Future<Output = T>) -> T {
    let ticks = async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = ticks => unreachable!(),
    }
}

// reliability 8: a byte a second
#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_given_up_after_as_many_tries_as_any_other() {
    let (server, body) = (Server::start().await, Bytes::from(sample(1_000_000)));
    let url = server.route("/a", move |request| Answer::file(request, &body, "\"v1\"").bytes_per_second(1));
    let client = client(json!({"retries": 2, "read_timeout": "1m"}));
    let started = Instant::now();
    let error = step_by_step(client.fails(&url)).await;
    assert_eq!(error.kind(), ErrorKind::Io);
    says(
        &error,
        &["/a", "too slow", "bytes arrived in 1m", "min_rate", "16 bytes a second", "tries: 3", "retries: 2"],
    );
    // Each try brought some bytes, which is no reason to go on for ever.
    assert_eq!((client.n_retries(), server.asked("/a").len()), (2, 3));
    assert!(started.elapsed() < Duration::from_secs(240), "{:?}", started.elapsed());
}

// reliability 8: a part of a file
#[tokio::test(start_paused = true)]
async fn a_range_that_drips_is_given_up() {
    let (server, body) = (Server::start().await, Bytes::from(sample(1_000_000)));
    let url = server.route("/a", move |request| {
        let answer = Answer::file(request, &body, "\"v1\"");
        if request.nth == 1 { answer } else { answer.bytes_per_second(1) }
    });
    let client = client(json!({"retries": 0, "read_timeout": "1m", "min_rate": "1KB"}));
    let place = location(&url);
    let read = async {
        let opened = client.fetcher.random_access(&place, Trust::Flow, &client.metrics).await.unwrap();
        opened.file.read(0..500_000).await
    };
    says(
        &step_by_step(read).await.unwrap_err(),
        &["/a", "too slow", "min_rate", "1000 bytes a second", "tries: 1"],
    );
}

// reliability 8: slow, but not that slow, or slow by leave of the flow
#[tokio::test(start_paused = true)]
async fn a_slow_body_comes_whole_and_at_once() {
    let server = Server::start().await;
    for (rate, n_bytes, min_rate) in [(20, 4000, None), (40, 4000, Some("30B")), (1, 200, Some("0"))] {
        let (path, body) = (format!("/{rate}"), sample(n_bytes));
        let served = body.clone();
        let url = server.route(&path, move |_| Answer::ok(served.clone()).bytes_per_second(rate));
        let client = client(json!({"read_timeout": "1m", "min_rate": min_rate}));
        let started = Instant::now();
        assert_eq!(step_by_step(client.read(&url)).await.unwrap(), body, "{rate}");
        assert_eq!((client.n_retries(), server.asked(&path).len()), (0, 1), "{rate}");
        // Else it took less than is measured, and nothing is shown.
        assert!(started.elapsed() > Duration::from_secs(90), "{rate}: {:?}", started.elapsed());
    }
}

// reliability 44: it is the reader who is slow
#[tokio::test(start_paused = true)]
async fn a_server_is_not_blamed_for_a_reader_that_takes_its_time() {
    let server = Server::start().await;
    let chunks: Vec<Vec<u8>> = vec![b"x".to_vec(); 4];
    let url = server.route("/a", move |_| Answer::new(200).chunks(&chunks).last_chunk());
    let client = client(json!({"read_timeout": "1m"}));
    let place = location(&url);
    let n_bytes = step_by_step(async {
        let mut fetched = client.fetcher.get(&place, Trust::Flow, &client.metrics).await.unwrap();
        let mut n_bytes = 0;
        while let Some(piece) = fetched.body.try_next().await.unwrap() {
            n_bytes += piece.len();
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
        n_bytes
    });
    assert_eq!((n_bytes.await, client.n_retries()), (4, 0));
}

// reliability 44: what is asked for comes at once, and the reader, who is held up elsewhere, takes it ten minutes later
#[tokio::test(start_paused = true)]
async fn a_server_is_not_blamed_for_bytes_that_waited_for_their_reader() {
    let (server, [second, third]) = (Server::start().await, [Gate::closed(), Gate::closed()]);
    let waits = [second.clone(), third.clone()];
    let url = server.route("/a", move |_| {
        let answer = Answer::new(200).header("Content-Length", 3).send("1");
        answer.wait_for(&waits[0]).send("2").wait_for(&waits[1]).send("3")
    });
    let client = client(json!({"read_timeout": "1m"}));
    let place = location(&url);
    let rest = step_by_step(async {
        let mut body = client.fetcher.get(&place, Trust::Flow, &client.metrics).await.unwrap().body;
        assert_eq!(body.try_next().await.unwrap().unwrap(), "1");
        assert!(futures::poll!(body.try_next()).is_pending());
        second.open();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(body.try_next().await.unwrap().unwrap(), "2");
        third.open();
        body.try_collect::<Vec<Bytes>>().await.unwrap().concat()
    });
    assert_eq!((rest.await, client.n_retries(), server.asked("/a").len()), (b"3".to_vec(), 0, 1));
}

// reliability 8: a token whose answer does not end
#[tokio::test(start_paused = true)]
async fn a_token_that_drips_is_given_up() {
    let server = Server::start().await;
    let url = server.file("/a", "x");
    let token_url = server.route("/token", |_| Answer::ok(vec![b' '; 1_000_000]).bytes_per_second(1));
    let auth = json!({"oauth2": {"token_url": token_url, "client_id": "i", "client_secret": "s"}});
    let error =
        step_by_step(client(json!({"retries": 1, "read_timeout": "1m", "auth": auth})).fails(&url)).await;
    says(&error, &["/token", "timed out", "read_timeout", "1m", "tries: 2"]);
    assert_eq!(server.asked("/a").len(), 0);
}
