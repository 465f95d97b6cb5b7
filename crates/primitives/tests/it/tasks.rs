//! Owned tasks: aborted when let go, joined by their family.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use aqueduct_primitives::{TaskError, Tasks};
use futures::future::join_all;

use crate::{Census, let_all_run, soon};

#[tokio::test]
async fn a_dropped_handle_aborts_its_task() {
    let tasks = Tasks::default();
    let census = Census::default();
    let alive = census.enter();
    let task = tasks.spawn(async move {
        let _alive = alive;
        pending::<()>().await;
    });
    let_all_run().await;
    assert_eq!((census.alive(), tasks.n_running(), task.is_finished()), (1, 1, false));
    drop(task);
    soon(tasks.join()).await;
    assert_eq!((census.alive(), tasks.n_running()), (0, 0));
}

// S4.3: what was begun elsewhere is undone although nobody waits for it.
#[tokio::test]
async fn an_owed_task_goes_on_without_its_handle_and_is_joined() {
    let tasks = Tasks::default();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let is_undone = Arc::new(AtomicBool::new(false));
    let undone = Arc::clone(&is_undone);
    drop(tasks.spawn_owed(async move {
        let _ = gone.await;
        undone.store(true, SeqCst);
    }));
    let_all_run().await;
    assert_eq!((tasks.n_running(), is_undone.load(SeqCst)), (1, false));
    go.send(()).unwrap();
    soon(tasks.join_owed()).await;
    assert!(is_undone.load(SeqCst));
    soon(tasks.join()).await;
    let panicked = tasks.spawn_owed(async { panic!("row {}", 7) });
    assert_eq!(soon(panicked).await, Err::<u8, _>(TaskError::Panicked("row 7".into())));
    assert_eq!(soon(tasks.spawn_owed(async { 7 })).await, Ok(7));
}

// S0.8: what went wrong in a task is a value for its owner.
#[tokio::test]
async fn a_task_says_how_it_ended() {
    let tasks = Tasks::default();
    let aborted = tasks.spawn(pending::<u8>());
    aborted.abort();
    assert_eq!(soon(aborted).await, Err(TaskError::Cancelled));
    let panicked = tasks.spawn(async { panic!("row {}", 7) });
    assert_eq!(soon(panicked).await, Err::<u8, _>(TaskError::Panicked("row 7".into())));
    let panicked = tasks.block(|| panic!("disk")).await;
    assert_eq!(panicked, Err::<u8, _>(TaskError::Panicked("disk".into())));
    assert_eq!(soon(tasks.spawn(async { 7 })).await, Ok(7));
}

#[tokio::test]
async fn compute_jobs_take_turns() {
    let tasks = Tasks::new(2);
    let census = Census::default();
    let jobs = (0..50).map(|n| {
        let census = census.clone();
        tasks.compute(move || {
            let _alive = census.enter();
            std::thread::yield_now();
            n
        })
    });
    let results: Result<Vec<i32>, TaskError> = soon(join_all(jobs)).await.into_iter().collect();
    assert_eq!(results, Ok((0..50).collect()));
    assert_eq!(census.born(), 50);
    assert!(census.most() <= 2);
}

// reliability 49: many sources are merged, and who takes their rows computes as well
#[tokio::test]
async fn a_job_that_nobody_polls_holds_no_other_up() {
    let tasks = Tasks::new(1);
    let (go_on, waits) = std::sync::mpsc::sync_channel::<()>(1);
    let first = tasks.spawn({
        let tasks = tasks.clone();
        async move { tasks.compute(move || waits.recv()).await }
    });
    let_all_run().await;
    let mut unpolled = Box::pin(tasks.compute(|| "second"));
    assert!(futures::poll!(&mut unpolled).is_pending());
    let mut third = Box::pin(tasks.compute(|| "third"));
    assert!(futures::poll!(&mut third).is_pending());
    go_on.send(()).unwrap();
    assert_eq!(soon(third).await, Ok("third"));
    assert_eq!(soon(unpolled).await, Ok("second"));
    assert_eq!(soon(first).await.unwrap(), Ok(Ok(())));
}

// What waits for its turn is dropped with the one who waits for it.
#[tokio::test]
async fn a_job_that_is_given_up_before_its_turn_is_not_done() {
    let tasks = Tasks::new(1);
    let (go_on, waits) = std::sync::mpsc::sync_channel::<()>(1);
    let census = Census::default();
    let mut first = Box::pin(tasks.compute(move || waits.recv()));
    assert!(futures::poll!(&mut first).is_pending());
    let held = census.enter();
    let was_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&was_done);
    let mut second = Box::pin(tasks.compute(move || {
        let _held = held;
        done.store(true, SeqCst);
    }));
    assert!(futures::poll!(&mut second).is_pending());
    drop(second);
    go_on.send(()).unwrap();
    assert_eq!(soon(first).await, Ok(Ok(())));
    soon(tasks.join()).await;
    assert_eq!((was_done.load(SeqCst), census.alive()), (false, 0));
}

// A job that was given up goes on to its end, and its family waits for it.
#[tokio::test]
async fn joining_waits_for_blocking_jobs() {
    let tasks = Tasks::default();
    let census = Census::default();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::sync_channel(1);
    let alive = census.enter();
    let job = tasks.block(move || {
        let _alive = alive;
        started.send(()).unwrap();
        may_go_on.recv().unwrap();
    });
    tokio::select! {
        result = job => panic!("it cannot have ended: {result:?}"),
        started = soon(has_started) => started.unwrap(),
    }
    assert_eq!((census.alive(), tasks.n_running()), (1, 1));
    go_on.send(()).unwrap();
    soon(tasks.join()).await;
    assert_eq!((census.alive(), tasks.n_running()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_is_gone_when_its_job_was_joined() {
    let tasks = Tasks::default();
    let census = Census::default();
    for _ in 0..500 {
        let alive = census.enter();
        let mut job = Box::pin(tasks.block(move || alive));
        // It may have ended already.
        let _ = futures::poll!(job.as_mut());
        drop(job);
        soon(tasks.join()).await;
        assert_eq!(census.alive(), 0);
    }
}
