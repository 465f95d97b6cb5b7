//! S0 whole: the sliding window, with the four questions of its original (S0.11).

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aqueduct_primitives::{
    Budget, ByteCount, Charged, ReserveError, TaskError, Tasks, WindowLimit, window, window_ordered,
};
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;

use crate::{Census, let_all_run, soon};

// S0.1, S0.4, S0.5, S0.12: never more than 10 started and unreturned, of 673.
#[tokio::test]
async fn no_more_than_the_limit_are_started_and_unreturned() {
    let tasks = Tasks::default();
    let census = Census::default();
    let counted = census.clone();
    let mut results = window(stream::iter(0..673), WindowLimit::tasks(10), &tasks, move |n| {
        let alive = counted.enter();
        async move {
            tokio::task::yield_now().await;
            (n, alive)
        }
    });
    let mut held = Vec::new();
    let mut n_results = 0;
    while let Some(result) = soon(results.next()).await {
        held.push(result.unwrap());
        n_results += 1;
        if held.len() == 10 {
            // S0.4: the window is full of results; nothing starts, however long the consumer keeps them.
            assert!(results.next().now_or_never().is_none());
            let_all_run().await;
            assert_eq!(census.born() - (n_results - 10), 10);
            held.clear();
        }
    }
    assert_eq!((n_results, census.born(), census.most()), (673, 673, 10));
    drop(held);
    assert_eq!(census.alive(), 0);
}

// S0.12: taken is not enough, it has to be dropped.
#[tokio::test]
async fn a_place_is_free_when_the_result_is_dropped() {
    let tasks = Tasks::default();
    let census = Census::default();
    let counted = census.clone();
    let mut results = window(stream::iter(0..5), WindowLimit::tasks(1), &tasks, move |n| {
        drop(counted.enter());
        ready(n)
    });
    let first = soon(results.next()).await.unwrap().unwrap();
    assert!(results.next().now_or_never().is_none());
    let_all_run().await;
    assert_eq!(census.born(), 1);
    let (value, place) = first.into_parts();
    // The place may outlive the value, as long as what is made of it.
    let mut made_of_it = Budget::new("rows", ByteCount::new(1)).try_reserve(ByteCount::new(1)).unwrap();
    made_of_it.merge(place);
    assert!(results.next().now_or_never().is_none());
    drop(made_of_it);
    let second = soon(results.next()).await.unwrap().unwrap().into_inner();
    assert_eq!((value, second), (0, 1));
}

// S0.12: freeing a place from another task wakes whoever waits for the window.
#[tokio::test]
async fn a_place_freed_elsewhere_wakes_the_window() {
    let tasks = Tasks::default();
    let mut results = window(stream::iter(0..2), WindowLimit::tasks(1), &tasks, ready);
    let first = soon(results.next()).await.unwrap().unwrap();
    let elsewhere = tasks.spawn(async move {
        let_all_run().await;
        drop(first);
    });
    assert_eq!(soon(results.next()).await.unwrap().unwrap().into_inner(), 1);
    elsewhere.await.unwrap();
}

// S0.2: a list of 1,000,000 inputs is pulled lazily.
#[tokio::test]
async fn inputs_are_pulled_when_there_is_a_place() {
    let tasks = Tasks::default();
    let pulled = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&pulled);
    let inputs = (0..1_000_000_u64).inspect(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let mut results = window(stream::iter(inputs), WindowLimit::tasks(10), &tasks, |n| async move {
        if n == 999_999 { n } else { pending().await }
    });
    assert_eq!(pulled.load(Ordering::SeqCst), 0, "nothing runs before the first poll");
    assert!(results.next().now_or_never().is_none());
    let_all_run().await;
    assert_eq!(pulled.load(Ordering::SeqCst), 10);
    assert_eq!((results.n_running(), tasks.n_running()), (10, 10));
    results.shutdown().await;
    assert_eq!(tasks.n_running(), 0);
}

// S0.3, S0.11 "wait-any": completion order, one new start per result.
#[tokio::test(start_paused = true)]
async fn results_come_as_they_complete() {
    let tasks = Tasks::default();
    let millis = [500, 100, 300, 200];
    let results = window(stream::iter(millis), WindowLimit::tasks(2), &tasks, |ms| async move {
        sleep(Duration::from_millis(ms)).await;
        ms
    });
    let order: Vec<u64> = soon(results.map(|result| result.unwrap().into_inner()).collect()).await;
    // 100 is done first, then 300 (started at 100) at 400, 500 at 500, 200 (started at 400) at 600.
    assert_eq!(order, [100, 300, 500, 200]);
}

#[tokio::test(start_paused = true)]
async fn ordered_results_come_in_the_order_of_the_inputs() {
    let tasks = Tasks::default();
    let census = Census::default();
    let counted = census.clone();
    let results = window_ordered(stream::iter(0..50_u64), WindowLimit::tasks(7), &tasks, move |n| {
        let alive = counted.enter();
        async move {
            sleep(Duration::from_millis(n * 37 % 11)).await;
            (n, alive)
        }
    });
    let order: Vec<u64> = soon(results.map(|result| result.unwrap().0).collect()).await;
    assert_eq!(order, (0..50).collect::<Vec<_>>());
    assert_eq!(census.most(), 7);
}

// S0.11 "does yield block": the consumer is busy, and what runs goes on to its end.
#[tokio::test]
async fn tasks_run_while_nobody_polls_the_window() {
    let tasks = Tasks::default();
    let gate = Arc::new(Semaphore::new(1));
    let done = Arc::new(AtomicU64::new(0));
    let work = {
        let (gate, done) = (Arc::clone(&gate), Arc::clone(&done));
        move |_| {
            let (gate, done) = (Arc::clone(&gate), Arc::clone(&done));
            async move {
                gate.acquire().await.unwrap().forget();
                done.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let mut results = window(stream::iter(0..10), WindowLimit::tasks(4), &tasks, work);
    let first = soon(results.next()).await.unwrap().unwrap();
    gate.add_permits(10);
    let_all_run().await;
    assert_eq!(done.load(Ordering::SeqCst), 4, "the other three ended, nothing new started");
    drop(first);
    assert_eq!(soon(results.count()).await, 9);
}

// S0.8, S0.9, S0.11 "raising task": a panic is an error item, and the others go on.
#[tokio::test]
async fn a_panic_ends_only_its_own_task() {
    let tasks = Tasks::default();
    let results = window(stream::iter(0..20), WindowLimit::tasks(3), &tasks, |n| {
        assert_ne!(n, 3, "panics before its first await");
        async move {
            tokio::task::yield_now().await;
            assert_ne!(n, 7, "panics in its middle");
            n
        }
    });
    let (sound, errors): (Vec<_>, Vec<_>) =
        soon(results.map(|result| result.map(Charged::into_inner)).collect::<Vec<_>>())
            .await
            .into_iter()
            .partition(Result::is_ok);
    assert_eq!(sound.len(), 18);
    let messages: Vec<String> = errors.into_iter().map(|error| error.unwrap_err().to_string()).collect();
    assert!(messages[0].contains("before its first await"), "{messages:?}");
    assert!(messages[1].contains("in its middle"), "{messages:?}");
}

// S0.7: what a failure means is the consumer's to say; a result may be an error like any value.
#[tokio::test]
async fn failures_are_values() {
    let tasks = Tasks::default();
    let inputs = stream::iter([Ok(1), Err("bad list"), Ok(2), Ok(3)]);
    let results =
        window_ordered(inputs, WindowLimit::tasks(2), &tasks, |input: Result<i32, &str>| async move {
            if input? == 2 { Err("404") } else { input }
        });
    let results: Vec<_> = soon(results.map(|result| result.unwrap().into_inner()).collect()).await;
    assert_eq!(results, [Ok(1), Err("bad list"), Err("404"), Ok(3)]);
}

// S0.10, S0.11 "cancellation": cancel what is pending and await it, errors and all.
#[tokio::test]
async fn an_early_stop_leaves_nothing_behind() {
    let tasks = Tasks::default();
    let census = Census::default();
    let counted = census.clone();
    let work = move |n| {
        let alive = counted.enter();
        async move {
            let _alive = alive;
            if n > 0 { pending().await } else { n }
        }
    };
    let mut results = window(stream::iter(0..100), WindowLimit::tasks(5), &tasks, work.clone());
    drop(soon(results.next()).await);
    assert!(results.next().now_or_never().is_none());
    let_all_run().await;
    assert_eq!(census.alive(), 5);
    soon(results.shutdown()).await;
    assert_eq!((census.alive(), tasks.n_running()), (0, 0));

    // Dropping it does the same; the family waits.
    let mut results = window(stream::iter(1..100), WindowLimit::tasks(5), &tasks, work);
    assert!(results.next().now_or_never().is_none());
    let_all_run().await;
    drop(results);
    soon(tasks.join()).await;
    assert_eq!((census.alive(), tasks.n_running()), (0, 0));
}

// S0.5, MEM-1, MEM-2: 10 × 50 MB at most, whatever comes of 673 files.
#[tokio::test]
async fn bytes_are_reserved_before_a_task_starts_and_until_its_result_is_dropped() {
    let tasks = Tasks::default();
    let budget = Budget::new("window", ByteCount::mb(500));
    let limit = WindowLimit::tasks(100).with_bytes(&budget, ByteCount::mb(50));
    let census = Census::default();
    let counted = census.clone();
    let results = window(stream::iter(0..673), limit, &tasks, move |n| {
        let alive = counted.enter();
        async move {
            tokio::task::yield_now().await;
            assert_ne!(n % 100, 99, "a panic gives its bytes back too");
            alive
        }
    });
    let sizes: Vec<_> = soon(results.map(|result| result.map(|done| done.size())).collect()).await;
    assert_eq!(sizes.iter().filter(|size| **size == Ok(ByteCount::mb(50))).count(), 667);
    assert_eq!(sizes.iter().filter(|size| size.is_err()).count(), 6);
    assert_eq!(census.most(), 10);
    assert_eq!((budget.peak(), budget.free()), (budget.total(), budget.total()));
}

// I4: an input that is late holds no bytes that others need.
#[tokio::test]
async fn bytes_are_asked_for_after_the_input_came() {
    let tasks = Tasks::default();
    let budget = Budget::new("window", ByteCount::new(10));
    let (input, late) = oneshot::channel::<u8>();
    let limit = WindowLimit::tasks(2).with_bytes(&budget, ByteCount::new(10));
    let mut results = window(stream::once(late), limit, &tasks, ready);
    assert!(results.next().now_or_never().is_none());
    assert_eq!(budget.free(), budget.total());
    input.send(7).unwrap();
    let mut result = soon(results.next()).await.unwrap().unwrap();
    assert_eq!(budget.free(), ByteCount::ZERO);
    result.reservation_mut().shrink_to(ByteCount::new(1));
    assert_eq!(budget.free(), ByteCount::new(9));
    assert_eq!(*result, Ok(7));
}

// MEM-1: what can never be had is an error at once, not a hang.
#[tokio::test]
async fn a_task_larger_than_the_budget_is_an_error() {
    let tasks = Tasks::default();
    let budget = Budget::new("window", ByteCount::new(10));
    let limit = WindowLimit::tasks(2).with_bytes(&budget, ByteCount::new(11));
    let results: Vec<_> = soon(window(stream::iter(0..3), limit, &tasks, ready).collect()).await;
    assert_eq!(results.len(), 3);
    for result in results {
        assert!(matches!(result, Err(TaskError::NotStarted(ReserveError::TooLarge { .. }))));
    }
}

// S0.1: the bound holds on a runtime of many threads too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_limit_holds_across_threads() {
    let tasks = Tasks::default();
    let census = Census::default();
    let counted = census.clone();
    let mut results = window(stream::iter(0..5000_u64), WindowLimit::tasks(8), &tasks, move |n| {
        let alive = counted.enter();
        async move {
            if n % 3 == 0 {
                tokio::task::yield_now().await;
            }
            (n, alive)
        }
    });
    let mut sum = 0;
    while let Some(result) = soon(results.next()).await {
        sum += result.unwrap().0;
    }
    assert_eq!(sum, 4999 * 5000 / 2);
    assert!(census.most() <= 8, "{}", census.most());
}
