//! The primitives as their users see them. Beside each test stands the point of the requirements it shows.

mod batch_and_throttle;
mod buffer;
mod merge;
mod pipeline;
mod tasks;
mod window;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A deadline against hanging, far above what any test here needs.
#[expect(clippy::expect_used, reason = "a test that hangs has failed")]
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it hangs")
}

/// Lets everything run that can, until nothing more happens. For the single-threaded runtime of the tests,
/// where a task runs only while the others wait.
async fn let_all_run() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Counts what is alive: one more with each [`Alive`], one less when that is dropped.
#[derive(Clone, Default)]
struct Census {
    alive: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    born: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Census {
    fn enter(&self) -> Alive {
        self.born.fetch_add(1, Ordering::SeqCst);
        let alive = self.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(alive, Ordering::SeqCst);
        Alive(Arc::clone(&self.alive))
    }

    fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn born(&self) -> usize {
        self.born.load(Ordering::SeqCst)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
