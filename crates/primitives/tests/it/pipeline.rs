//! S2.5: the chain, lazy until it is ended and polled.

use std::future::ready;
use std::sync::{Arc, Mutex};

use aqueduct_primitives::{
    BatchLimits, BoxError, ByteCount, Charged, Pipeline, TaskError, Tasks, WindowLimit,
};
use futures::{FutureExt, StreamExt, stream};

use crate::{Census, let_all_run, soon};

#[derive(Debug, PartialEq)]
enum Failed {
    At(i32),
    Task(TaskError),
}

impl From<TaskError> for Failed {
    fn from(error: TaskError) -> Self {
        Self::Task(error)
    }
}

fn numbers(to: i32) -> Pipeline<i32, Failed> {
    Pipeline::from_iter(0..to)
}

fn failing_at(bad: &'static [i32], to: i32) -> Pipeline<i32, Failed> {
    numbers(to).and_then(move |n| ready(if bad.contains(&n) { Err(Failed::At(n)) } else { Ok(n) }))
}

// S2.2, S2.4, S2.5: map, filter, batch, tap chained.
#[tokio::test]
async fn steps_chain() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let limits = BatchLimits { max_items: 2, ..BatchLimits::default() };
    let batches = numbers(10)
        .filter(|n| ready(n % 2 == 1))
        .map(async |n| n * n)
        .tap(move |n| log.lock().unwrap().push(*n))
        .batch(limits, |_| ByteCount::new(8))
        .collect()
        .await;
    assert_eq!(batches, Ok(vec![vec![1, 9], vec![25, 49], vec![81]]));
    assert_eq!(*seen.lock().unwrap(), [1, 9, 25, 49, 81]);
}

// S2.5: terminals iterate, collect, count, drain.
#[tokio::test]
async fn every_end_stops_at_the_first_error() {
    assert_eq!(numbers(5).count().await, Ok(5));
    assert_eq!(numbers(5).drain().await, Ok(()));
    assert_eq!(failing_at(&[3], 5).count().await, Err(Failed::At(3)));
    assert_eq!(failing_at(&[3], 5).collect().await, Err(Failed::At(3)));
    assert_eq!(failing_at(&[3], 5).drain().await, Err(Failed::At(3)));
    let all: Vec<_> = failing_at(&[3], 5).into_stream().collect().await;
    assert_eq!(all, [Ok(0), Ok(1), Ok(2), Err(Failed::At(3)), Ok(4)]);
    let mut sum = 0;
    let ended = numbers(5).for_each(|n| {
        sum += n;
        ready(if n == 3 { Err(Failed::At(n)) } else { Ok(()) })
    });
    assert_eq!(ended.await, Err(Failed::At(3)));
    assert_eq!(sum, 6);
}

// S0.7: skip, count or stop is decided in one place.
#[tokio::test]
async fn a_policy_decides_about_errors() {
    let skipped = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&skipped);
    let kept = failing_at(&[1, 3], 5).on_error(move |error| {
        log.lock().unwrap().push(error);
        Ok(())
    });
    assert_eq!(kept.collect().await, Ok(vec![0, 2, 4]));
    assert_eq!(*skipped.lock().unwrap(), [Failed::At(1), Failed::At(3)]);
    let stops =
        failing_at(&[1, 3], 5).on_error(|error| if error == Failed::At(1) { Ok(()) } else { Err(error) });
    assert_eq!(stops.collect().await, Err(Failed::At(3)));
}

// S2.5: nothing runs until a terminal is polled.
#[tokio::test]
async fn nothing_runs_until_an_end_is_polled() {
    let tasks = Tasks::default();
    let census = Census::default();
    let counted = census.clone();
    let chain = numbers(3).map(move |_| ready(counted.enter())).buffer(2, &tasks).window(
        WindowLimit::tasks(2),
        &tasks,
        |alive| ready(Ok(alive)),
    );
    let end = chain.drain();
    let_all_run().await;
    assert_eq!((census.born(), tasks.n_running()), (0, 0));
    assert_eq!(soon(end).await, Ok(()));
    assert_eq!((census.born(), census.alive()), (3, 0));
}

// S2.10: process while downloading, and slow storage slows the fetchers.
#[tokio::test]
async fn a_slow_end_slows_its_beginning() {
    let tasks = Tasks::default();
    let census = Census::default();
    let counted = census.clone();
    let mut fetched = numbers(1000)
        .window(WindowLimit::tasks(3), &tasks, move |n| {
            let alive = counted.enter();
            async move { Ok((n, alive)) }
        })
        .buffer(2, &tasks)
        .into_stream();
    let mut n_stored = 0;
    while let Some(item) = soon(fetched.next()).await {
        let_all_run().await; // the storage takes its time, and holds the item
        assert!(census.alive() <= 3);
        assert!(census.born() <= n_stored + 3);
        drop(item.unwrap());
        n_stored += 1;
    }
    assert_eq!((n_stored, census.born(), census.alive()), (1000, 1000, 0));
}

// S0.8, S2.3: panics in a window and in a merged stream are errors of the chain.
#[tokio::test]
async fn panics_become_errors_of_the_chain() {
    let tasks = Tasks::default();
    let window = numbers(3).window_ordered(WindowLimit::tasks(2), &tasks, |n| async move {
        assert_ne!(n, 1);
        Ok(n)
    });
    let results: Vec<_> =
        soon(window.into_stream().map(|result| result.map(Charged::into_inner)).collect()).await;
    assert!(matches!(&results[1], Err(Failed::Task(TaskError::Panicked(_)))), "{results:?}");
    assert_eq!(results.len(), 3);

    let bad = Pipeline::from_stream(stream::once(async { panic!("lost") }));
    let merged = soon(numbers(100).merge([bad], 1, &tasks).into_stream().collect::<Vec<_>>()).await;
    assert_eq!(merged.iter().filter(|item| item.is_ok()).count(), 100);
    assert_eq!(merged.iter().filter(|item| item.is_err()).count(), 1);
}

// Errors before a window keep their place in it.
#[tokio::test]
async fn errors_pass_through_a_window() {
    let tasks = Tasks::default();
    let window = failing_at(&[1], 3).window_ordered(WindowLimit::tasks(2), &tasks, |n| ready(Ok(n)));
    let results: Vec<_> =
        soon(window.into_stream().map(|result| result.map(Charged::into_inner)).collect()).await;
    assert_eq!(results, [Ok(0), Err(Failed::At(1)), Ok(2)]);
}

#[tokio::test(start_paused = true)]
async fn any_error_will_do() -> Result<(), BoxError> {
    let chain = Pipeline::<_>::from_iter(["1", "2", "x"])
        .throttle(1, std::time::Duration::from_secs(1))
        .and_then(|text| ready(text.parse::<u8>().map_err(Into::into)));
    let error = chain.collect().await.expect_err("x is no number");
    assert!(error.is::<std::num::ParseIntError>());
    assert_eq!(Pipeline::<_>::from_iter([1, 2]).count().now_or_never().expect("nothing to wait for")?, 2);
    Ok(())
}
