//! Children: what they may not do, and that none of them is left.

use std::time::Duration;

use aqueduct_core::ErrorKind;
use aqueduct_core::worker::{Worker, WorkerEnded, WorkerLimits, WorkerProcess};
use aqueduct_primitives::{ByteCount, Tasks};

/// Ten times what anything here needs.
const IN_TIME: Duration = Duration::from_secs(30);

fn start(cpu: Duration) -> WorkerProcess {
    let worker = Worker::new(env!("CARGO_BIN_EXE_aqueduct-core-worker"), Vec::<String>::new());
    worker.start("try", WorkerLimits { memory: ByteCount::mib(16), cpu_per_request: cpu }).unwrap()
}

async fn ask(child: &mut WorkerProcess, request: &str) -> aqueduct_core::Result<String> {
    let request = request.to_owned();
    let talk = move |pipes: &mut aqueduct_core::worker::WorkerPipes<'_>| {
        pipes.send(request.as_bytes())?;
        Ok(String::from_utf8_lossy(&pipes.receive()?).into_owned())
    };
    child.ask(&Tasks::default(), IN_TIME, talk).await
}

/// How the child ended that was asked.
async fn ended(child: &mut WorkerProcess, request: &str) -> WorkerEnded {
    let error = ask(child, request).await.unwrap_err();
    error.cause::<WorkerEnded>().unwrap_or_else(|| panic!("{}", error.chain())).clone()
}

// T8: no files, no network, no processes, nothing of this process's variables
#[tokio::test]
async fn a_child_may_open_nothing_and_start_nothing() {
    let mut child = start(IN_TIME);
    assert_eq!(ask(&mut child, "hello").await.unwrap(), "hello");
    for what in ["file", "socket"] {
        assert_eq!(ask(&mut child, what).await.unwrap(), "refused", "{what}");
    }
    // The system keeps no limit on processes for its administrator.
    if !rustix::process::geteuid().is_root() {
        assert_eq!(ask(&mut child, "program").await.unwrap(), "refused");
    }
    assert_eq!(ask(&mut child, "environment").await.unwrap(), "0 variables");
}

// T8: too much memory is its end, and said
#[tokio::test]
async fn a_child_that_takes_too_much_memory_ends_and_says_so() {
    let mut child = start(IN_TIME);
    let error = ask(&mut child, "hoard").await.unwrap_err();
    assert!(matches!(error.cause(), Some(WorkerEnded::OutOfMemory)), "{}", error.chain());
    assert_eq!(error.kind(), ErrorKind::Limit);
    // It stays ended.
    assert!(ask(&mut child, "hello").await.is_err());
}

// T8: a loop is ended by the system, or when time is up
#[tokio::test]
async fn a_child_that_computes_for_ever_is_ended() {
    let mut child = start(Duration::from_secs(1));
    let how = ended(&mut child, "spin").await;
    assert!(matches!(&how, WorkerEnded::Died { how } if how.contains("signal")), "{how:?}");
    let mut child = start(IN_TIME);
    let talk = |pipes: &mut aqueduct_core::worker::WorkerPipes<'_>| {
        pipes.send(b"spin")?;
        pipes.receive()
    };
    let error = child.ask(&Tasks::default(), Duration::from_millis(50), talk).await.unwrap_err();
    assert!(matches!(error.cause(), Some(WorkerEnded::TimedOut(_))), "{}", error.chain());
}

// T8: a crash is told with its signal, an unknown task with its words
#[tokio::test]
async fn a_child_that_dies_says_how() {
    let how = ended(&mut start(IN_TIME), "die").await;
    assert!(matches!(&how, WorkerEnded::Died { how } if how.contains("signal 6")), "{how:?}");
    let worker = Worker::new(env!("CARGO_BIN_EXE_aqueduct-core-worker"), Vec::<String>::new());
    let limits = WorkerLimits { memory: ByteCount::mib(16), cpu_per_request: IN_TIME };
    let how = ended(&mut worker.start("unknown", limits).unwrap(), "hello").await;
    assert!(matches!(&how, WorkerEnded::Died { how } if how.contains("no such task")), "{how:?}");
    let error = Worker::new("/nowhere/at/all", ["x"]).start("try", limits).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

// reliability.md section 3: no zombies, whatever was going on
#[tokio::test]
async fn a_child_that_is_dropped_is_gone_and_reaped() {
    for request in ["hello", "flood", "spin"] {
        let tasks = Tasks::default();
        let mut child = start(IN_TIME);
        let pid = child.id().unwrap();
        let talk = move |pipes: &mut aqueduct_core::worker::WorkerPipes<'_>| {
            pipes.send(request.as_bytes())?;
            loop {
                pipes.receive()?;
            }
        };
        {
            let mut asking = Box::pin(child.ask::<()>(&tasks, IN_TIME, talk));
            assert!(futures::poll!(&mut asking).is_pending());
        }
        drop(child);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{request}");
        tasks.join().await;
    }
}
