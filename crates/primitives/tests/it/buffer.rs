//! S2.1: bounded, closing is a signal, no polling, any value.

use std::sync::Arc;

use aqueduct_primitives::{
    Budget, BufferClosed, ByteCount, Charged, DEFAULT_BUFFER_ITEMS, Tasks, TrySendError, buffer,
};
use futures::{FutureExt, StreamExt};

use crate::{let_all_run, soon};

// S2.1: put waits when full.
#[tokio::test]
async fn a_full_buffer_makes_the_sender_wait() {
    let (sender, mut receiver) = buffer(2);
    for item in 0..2 {
        sender.send(item).now_or_never().expect("there is room").unwrap();
    }
    assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    let mut third = Box::pin(sender.send(2));
    assert!(third.as_mut().now_or_never().is_none());
    assert_eq!(receiver.len(), 2);
    assert_eq!(receiver.next().await, Some(0));
    soon(third).await.unwrap();
    assert_eq!(receiver.len(), 2);
}

// S2.1: default 1000.
#[tokio::test]
async fn the_default_bound_is_a_thousand() {
    let (sender, _receiver) = buffer(DEFAULT_BUFFER_ITEMS);
    let n_taken = (0..5000).take_while(|item| sender.try_send(*item).is_ok()).count();
    assert_eq!(n_taken, 1000);
}

// S2.1: ends when done and empty; null items are items.
#[tokio::test]
async fn after_closing_what_is_in_it_still_comes_out() {
    let (sender, receiver) = buffer(10);
    let clone = sender.clone();
    sender.send(Some("first")).await.unwrap();
    clone.send(None).await.unwrap();
    sender.close();
    assert_eq!(clone.send(Some("late")).await, Err(BufferClosed(Some("late"))));
    assert_eq!(clone.try_send(None), Err(TrySendError::Closed(None)));
    assert!(clone.is_closed());
    assert_eq!(soon(receiver.collect::<Vec<_>>()).await, [Some("first"), None]);
}

// S2.1: closing wakes whoever waits, on either side; nobody looks at a clock.
#[tokio::test(start_paused = true)]
async fn closing_wakes_who_waits() {
    let before = tokio::time::Instant::now();
    let tasks = Tasks::default();
    let (sender, mut receiver) = buffer(1);
    let waits = tasks.spawn(async move { receiver.next().await.map(|n: u8| (n, receiver)) });
    let_all_run().await;
    sender.close();
    assert!(soon(waits).await.unwrap().is_none());

    let (sender, receiver) = buffer(1);
    sender.send(0).await.unwrap();
    let sender = Arc::new(sender);
    let waits = tasks.spawn({
        let sender = Arc::clone(&sender);
        async move { sender.send(1).await }
    });
    let_all_run().await;
    sender.close();
    assert_eq!(soon(waits).await.unwrap(), Err(BufferClosed(1)));
    assert_eq!(receiver.collect::<Vec<_>>().await, [0]);
    assert_eq!(before.elapsed().as_nanos(), 0, "woken, not timed");
}

#[tokio::test]
async fn dropping_one_side_tells_the_other() {
    let (sender, receiver) = buffer(1);
    drop(receiver);
    assert_eq!(sender.send(1).await, Err(BufferClosed(1)));

    let (sender, mut receiver) = buffer::<u8>(1);
    let other = sender.clone();
    drop(sender);
    assert!(receiver.next().now_or_never().is_none(), "one sender is left");
    drop(other);
    assert_eq!(soon(receiver.next()).await, None);
}

// MEM-1: what waits in a buffer is paid for, and free when the buffer is dropped.
#[tokio::test]
async fn a_dropped_buffer_gives_its_bytes_back() {
    let budget = Budget::new("buffer", ByteCount::new(10));
    let (sender, receiver) = buffer(10);
    for _ in 0..5 {
        let reservation = budget.reserve(ByteCount::new(2)).await.unwrap();
        sender.send(Charged::new((), reservation)).await.unwrap();
    }
    assert_eq!(budget.free(), ByteCount::ZERO);
    drop(receiver);
    assert_eq!(budget.free(), budget.total());
}
