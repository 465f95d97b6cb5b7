//! S2.2, S2.3: many streams as one, none of their errors lost.

use std::future::pending;
use std::time::Duration;

use aqueduct_primitives::{Tasks, merge};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio::time::sleep;

use crate::{Census, let_all_run, soon};

// S2.3: runs sources concurrently.
#[tokio::test(start_paused = true)]
async fn streams_run_at_once() {
    let tasks = Tasks::default();
    let tick = |name: &'static str, ms: u64| {
        stream::iter(0..3).then(move |n| async move {
            sleep(Duration::from_millis(ms)).await;
            (name, n)
        })
    };
    let merged = merge([tick("slow", 30), tick("fast", 25)], 100, &tasks);
    let items: Vec<_> = soon(merged.map(Result::unwrap).collect()).await;
    // At 25, 30, 50, 60, 75 and 90 ms.
    assert_eq!(items, [("fast", 0), ("slow", 0), ("fast", 1), ("slow", 1), ("fast", 2), ("slow", 2)]);
    assert_eq!(tasks.n_running(), 0);
}

// S2.3: ends when all end and the buffer is empty; a consumer that comes late misses nothing.
#[tokio::test]
async fn what_is_buffered_comes_out_after_all_have_ended() {
    let tasks = Tasks::default();
    let mut merged = merge((0..5).map(|n| stream::iter(n * 10..n * 10 + 10)), 100, &tasks);
    let first = soon(merged.next()).await.unwrap().unwrap();
    let_all_run().await;
    assert_eq!(tasks.n_running(), 0);
    let mut items: Vec<i32> = soon(merged.map(Result::unwrap).collect()).await;
    items.push(first);
    items.sort_unstable();
    assert_eq!(items, (0..50).collect::<Vec<_>>());
}

// S2.3: every error is passed on, and ends nobody.
#[tokio::test]
async fn errors_and_panics_are_items() {
    let tasks = Tasks::default();
    let streams: Vec<BoxStream<'static, Result<i32, &str>>> = vec![
        stream::iter([Ok(1), Err("one"), Err("two"), Ok(2)]).boxed(),
        stream::iter([Ok(3)]).chain(stream::once(async { panic!("three") })).boxed(),
        stream::empty().boxed(),
        stream::iter([Err("four")]).boxed(),
    ];
    let items: Vec<_> = soon(merge(streams, 1, &tasks).collect()).await;
    let mut found: Vec<String> = items
        .into_iter()
        .map(|item| match item {
            Ok(Ok(n)) => n.to_string(),
            Ok(Err(error)) => error.to_owned(),
            Err(panicked) => panicked.to_string(),
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, ["1", "2", "3", "a task panicked: three", "four", "one", "two"]);
}

// S2.2, S2.10: a slow consumer slows the streams.
#[tokio::test]
async fn no_stream_runs_ahead_of_the_buffer() {
    let tasks = Tasks::default();
    let census = Census::default();
    let counted = census.clone();
    let endless = move |_| {
        let counted = counted.clone();
        stream::repeat_with(move || counted.enter())
    };
    let mut merged = merge((0..3).map(endless), 4, &tasks);
    for _ in 0..10 {
        drop(soon(merged.next()).await.unwrap());
        let_all_run().await;
        assert!(census.alive() <= 4 + 3, "the buffer, and one that each stream waits with");
    }
    // S2.3: cancels the rest on early exit.
    drop(merged);
    soon(tasks.join()).await;
    assert_eq!((census.alive(), tasks.n_running()), (0, 0));
}

#[tokio::test]
async fn nothing_starts_before_the_first_poll() {
    let tasks = Tasks::default();
    let mut merged = merge([stream::once(pending::<u8>())], 1, &tasks);
    let_all_run().await;
    assert_eq!(tasks.n_running(), 0);
    assert!(merged.next().now_or_never().is_none());
    assert_eq!(tasks.n_running(), 1);
    assert_eq!(merge(Vec::<stream::Empty<u8>>::new(), 1, &tasks).count().now_or_never(), Some(0));
}
