//! S2.2 and S3.2: batches by count, bytes and time; and the throttle's rate.

use std::time::Duration;

use aqueduct_primitives::{BatchLimits, ByteCount, batch, tap, throttle, try_batch};
use futures::{FutureExt, StreamExt, stream};
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use crate::soon;

fn limits(max_items: usize, max_bytes: u64) -> BatchLimits {
    BatchLimits { max_items, max_bytes: ByteCount::new(max_bytes), every: None }
}

proptest! {
    // S2.2: the last partial batch too; nothing lost, nothing twice, no limit passed, none cut too early.
    #[test]
    fn batches_are_full_and_not_too_full(
        sizes in proptest::collection::vec(0..40_u64, 0..60), max_items in 0..8_usize, max_bytes in 0..60_u64,
    ) {
        let batches = batch(stream::iter(sizes.clone()), limits(max_items, max_bytes), |size| ByteCount::new(*size));
        let batches: Vec<Vec<u64>> = batches.collect().now_or_never().expect("all is ready");
        prop_assert_eq!(&batches.concat(), &sizes);
        for (at, items) in batches.iter().enumerate() {
            let bytes: u64 = items.iter().sum();
            prop_assert!(!items.is_empty());
            prop_assert!(items.len() <= max_items.max(1));
            prop_assert!(bytes <= max_bytes || items.len() == 1);
            if let Some(next) = batches.get(at + 1) {
                prop_assert!(items.len() >= max_items || bytes >= max_bytes || bytes + next[0] > max_bytes);
            }
        }
    }
}

// S2.2: a batch waits no longer than it may, counted from its first item.
#[tokio::test(start_paused = true)]
async fn time_ends_a_batch() {
    let start = Instant::now();
    let slow = stream::iter([1, 6, 3, 8, 1]).then(|seconds| async move {
        sleep(Duration::from_secs(seconds)).await;
        seconds
    });
    let every = Some(Duration::from_secs(5));
    let batches = batch(slow, BatchLimits { every, ..BatchLimits::default() }, |_| ByteCount::ZERO)
        .map(|items| (items, start.elapsed().as_secs()));
    let batches: Vec<_> = soon(batches.collect()).await;
    // Items come at 1, 7, 10, 18 and 19 seconds, and the stream ends at 19.
    assert_eq!(batches, [(vec![1], 6), (vec![6, 3], 12), (vec![8, 1], 19)]);
}

#[tokio::test]
async fn an_error_comes_after_the_batch_before_it() {
    let items = stream::iter([Ok(1), Ok(2), Err("one"), Err("two"), Ok(3)]);
    let batches: Vec<_> = try_batch(items, limits(10, 10), |_| ByteCount::new(1)).collect().await;
    assert_eq!(batches, [Ok(vec![1, 2]), Err("one"), Err("two"), Ok(vec![3])]);
}

#[tokio::test(start_paused = true)]
async fn the_first_come_at_once_and_then_at_the_rate() {
    let start = Instant::now();
    let at: Vec<u128> = throttle(stream::iter(0..7), 3, Duration::from_millis(300))
        .map(|_| start.elapsed().as_millis())
        .collect()
        .await;
    assert_eq!(at, [0, 0, 0, 100, 200, 300, 400]);
}

// A pause is not saved up beyond one burst.
#[tokio::test(start_paused = true)]
async fn after_a_pause_there_is_one_burst() {
    let start = Instant::now();
    let items = stream::iter(0..8).then(|n| async move {
        if n == 3 {
            sleep(Duration::from_secs(60)).await;
        }
    });
    let at: Vec<u128> =
        throttle(items, 2, Duration::from_millis(200)).map(|()| start.elapsed().as_millis()).collect().await;
    let pause = at[3];
    let after: Vec<u128> = at[3..].iter().map(|ms| ms - pause).collect();
    assert_eq!(after, [0, 0, 100, 200, 300]);
}

// S2.4: side effect, item passes unchanged.
#[tokio::test]
async fn a_tap_changes_nothing() {
    let mut seen = Vec::new();
    let items: Vec<_> = tap(stream::iter([3, 1, 2]), |n| seen.push(*n)).collect().await;
    assert_eq!((&items, &seen), (&vec![3, 1, 2], &vec![3, 1, 2]));
}
