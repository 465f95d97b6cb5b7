//! Whoever takes the rows stands still for longer than any limit of time, by a clock that goes on only while all wait.

use std::time::Duration;

use aqueduct_sources::files::FACTORY;
use aqueduct_testkit::http::{Answer, Server};
use arrow::array::RecordBatch;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;

use crate::support::{Room, ndjson, numbers};

/// Longer than `read_timeout`, and than the time over which `min_rate` is measured.
const STALL: Duration = Duration::from_secs(600);
const SECOND: Duration = Duration::from_secs(1);

/// Where all wait, the clock leaps to the next moment that anybody waits for: it is to leap by a little only, so that what
/// is on a socket comes in between.
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

/// Rows of a file in pieces, to be sent a second apart: each is a batch of its own, for the reader does not wait so long for
/// more. There are more of them than there is room between the reader and who takes them.
fn pieces(file: i64) -> Vec<Bytes> {
    let first = file * 100;
    (0..25).map(|piece| ndjson(first + piece * 4..first + piece * 4 + 4).into()).collect()
}

/// All rows of these files, two at a time, by someone who stalls with the first batch and with the tenth in his hands; and
/// how many requests there were before and after each time.
async fn read_with_stalls(room: &Room, server: &Server, urls: &[String]) -> (Vec<i64>, Vec<[usize; 2]>) {
    let options =
        json!({"paths": urls, "window": 2, "schema": {"n": "int64"}, "read_timeout": "1m", "retries": 1});
    let mut batches = room.stream(&FACTORY, options).await.unwrap();
    let (mut rows, mut n_requests): (Vec<RecordBatch>, _) = (Vec::new(), Vec::new());
    while let Some(batch) = batches.next().await {
        let batch = batch.unwrap();
        rows.push(batch.records().clone());
        if [1, 10].contains(&rows.len()) {
            let before = server.n_requests();
            tokio::time::sleep(STALL).await;
            n_requests.push([before, server.n_requests()]);
        }
    }
    let mut numbers = numbers(&rows, "n");
    numbers.sort_unstable();
    (numbers, n_requests)
}

// reliability 44
#[tokio::test(start_paused = true)]
async fn no_request_fails_and_none_begins_while_nobody_takes_the_rows() {
    let (room, server) = (Room::new(), Server::start().await);
    let urls: Vec<_> = (0..4)
        .map(|file| {
            server.route(&format!("/{file}.ndjson"), move |_| {
                let n_bytes: usize = pieces(file).iter().map(Bytes::len).sum();
                let answer = Answer::new(200).header("Content-Length", n_bytes);
                pieces(file).into_iter().fold(answer, |answer, piece| answer.send(piece).wait(SECOND))
            })
        })
        .collect();
    let (rows, n_requests) = step_by_step(read_with_stalls(&room, &server, &urls)).await;
    assert_eq!(rows, (0..400).collect::<Vec<_>>());
    assert_eq!(n_requests[0], [2, 2]);
    assert_eq!(n_requests[1][0], n_requests[1][1], "requests before and after the second stall");
    assert_eq!((server.n_requests(), room.cx.metrics().retries.get()), (4, 0));
    room.check_all_is_back().await;
}

// reliability 44: a server need not have so much patience
#[tokio::test(start_paused = true)]
async fn a_connection_that_the_server_closes_meanwhile_costs_one_request() {
    let (room, server) = (Room::new(), Server::start().await);
    let urls: Vec<_> = (0..2)
        .map(|file| {
            let whole = Bytes::from(pieces(file).concat());
            server.route(&format!("/{file}.ndjson"), move |request| {
                if request.nth > 1 {
                    return Answer::file(request, &whole, "\"v1\"");
                }
                let answer = Answer::new(200).header("ETag", "\"v1\"").header("Content-Length", whole.len());
                let begun = pieces(file).into_iter().take(20);
                begun.fold(answer, |answer, piece| answer.send(piece).wait(SECOND)).wait(STALL / 2).reset()
            })
        })
        .collect();
    let (rows, _) = step_by_step(read_with_stalls(&room, &server, &urls)).await;
    assert_eq!(rows, (0..200).collect::<Vec<_>>());
    for file in 0..2 {
        let asked = server.asked(&format!("/{file}.ndjson"));
        assert_eq!(asked.len(), 2, "{file}");
        assert!(asked[1].range_start().is_some_and(|first| first > 0), "{:?}", asked[1]);
    }
    room.check_all_is_back().await;
}
