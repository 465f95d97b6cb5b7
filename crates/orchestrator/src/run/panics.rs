//! Panics of components: wherever one happens, it is an error that names the step, and nothing is committed after it.
//!
//! A step is called, polled and dropped behind a [`Guard`]. Without it, a panic would unwind through the steps that read from
//! this one, and what their own code does then, nobody has tried.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll};

use aqueduct_core::{Batch, BatchStream, Error, ErrorKind, Result};
use aqueduct_primitives::panic_message;
use futures::{FutureExt, Stream};

/// The first panic of a run. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Panics(Arc<OnceLock<Panicked>>);

#[derive(Clone, Debug)]
struct Panicked {
    step: Arc<str>,
    message: String,
}

impl Panicked {
    fn error(&self) -> Error {
        Error::bug("run", format!("the step panicked: {}", self.message)).with("step", &self.step)
    }
}

impl Panics {
    /// Whether all is well.
    ///
    /// # Errors
    /// A step has panicked, be it while it was dropped.
    pub(super) fn check(&self) -> Result<()> {
        self.0.get().map_or(Ok(()), |panicked| Err(panicked.error()))
    }

    /// What stands between a step and its runner.
    pub(super) fn guard(&self, step: &str) -> Guard {
        Guard { step: step.into(), panics: self.clone() }
    }
}

/// Stands between a step and its runner.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    step: Arc<str>,
    panics: Panics,
}

impl Guard {
    /// Calls the step.
    ///
    /// # Errors
    /// It panicked.
    pub(super) fn call<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        catch_unwind(AssertUnwindSafe(work)).map_err(|panic| self.caught(&*panic))
    }

    /// Waits for the step.
    ///
    /// # Errors
    /// It panicked.
    pub(super) async fn wait<T: Send>(&self, work: impl Future<Output = T> + Send) -> Result<T> {
        AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| self.caught(&*panic))
    }

    /// The rows of the step. They end with its panic, if it does, in whichever way.
    pub(super) fn stream(self, rows: impl FnOnce() -> BatchStream) -> BatchStream {
        match self.call(rows) {
            Ok(rows) => Box::pin(Guarded { rows: Some(rows), guard: self }),
            Err(panic) => Box::pin(futures::stream::iter([Err(panic)])),
        }
    }

    fn caught(&self, panic: &(dyn std::any::Any + Send)) -> Error {
        let panicked = Panicked { step: Arc::clone(&self.step), message: panic_message(panic) };
        self.panics.0.get_or_init(|| panicked.clone());
        panicked.error()
    }

    /// A task of the step that panicked is a defect of the step.
    fn named(&self, error: Error) -> Error {
        let is_nobodys = error.kind() == ErrorKind::Bug && error.context("step").is_none();
        if is_nobodys { error.with("step", &self.step) } else { error }
    }
}

/// Rows of a step, which goes when it has given the last.
struct Guarded {
    rows: Option<BatchStream>,
    guard: Guard,
}

impl Stream for Guarded {
    type Item = Result<Batch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(rows) = &mut this.rows else { return Poll::Ready(None) };
        let next = match this.guard.call(|| rows.as_mut().poll_next(cx)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(next)) => next,
            Err(panic) => Some(Err(panic)),
        };
        if let Some(Ok(batch)) = next {
            return Poll::Ready(Some(Ok(batch)));
        }
        let dropped = this.let_go();
        Poll::Ready(match next {
            Some(last) => Some(last.map_err(|error| this.guard.named(error))),
            None => dropped.err().map(Err),
        })
    }
}

impl Guarded {
    fn let_go(&mut self) -> Result<()> {
        let rows = self.rows.take();
        self.guard.call(|| drop(rows))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Noted, if it panics: nothing is committed then.
        let _ = self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use aqueduct_primitives::{Budget, ByteCount};
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use futures::StreamExt;

    use super::*;

    /// Two batches, and a panic at the polls and in the drop that are named.
    struct Rows {
        memory: Budget,
        n_polls: usize,
        panics_at: Option<usize>,
        panics_in_drop: bool,
    }

    impl Rows {
        fn new(panics_at: Option<usize>, panics_in_drop: bool) -> Self {
            let memory = Budget::new("test", ByteCount::kib(1));
            Self { memory, n_polls: 0, panics_at, panics_in_drop }
        }
    }

    impl Stream for Rows {
        type Item = Result<Batch>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
            self.n_polls += 1;
            let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
            let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
            let batch = Batch::new(rows, self.memory.try_reserve(ByteCount::new(100)).unwrap());
            assert!(self.panics_at != Some(self.n_polls), "poll {}", self.n_polls);
            Poll::Ready((self.n_polls <= 2).then_some(Ok(batch)))
        }
    }

    impl Drop for Rows {
        fn drop(&mut self) {
            assert!(!self.panics_in_drop, "drop");
        }
    }

    async fn all(rows: Rows, panics: &Panics) -> Vec<Result<Batch>> {
        panics.guard("one").stream(|| Box::pin(rows)).collect().await
    }

    // reliability 48, MEM-1
    #[tokio::test]
    async fn a_panic_at_any_poll_or_in_the_drop_is_the_last_item_and_is_noted() {
        for (panics_at, panics_in_drop, n_batches, told) in [
            (Some(1), false, 0, "poll 1"),
            (Some(2), true, 1, "poll 2"),
            (Some(3), false, 2, "poll 3"),
            (None, true, 2, "drop"),
        ] {
            let (rows, panics) = (Rows::new(panics_at, panics_in_drop), Panics::default());
            let memory = rows.memory.clone();
            let mut given = all(rows, &panics).await;
            let told_last = given.pop().unwrap().unwrap_err().chain();
            for part in ["panicked", told, "step: one"] {
                assert!(told_last.contains(part), "{part}: {told_last}");
            }
            assert_eq!(given.iter().filter(|batch| batch.is_ok()).count(), n_batches, "{told}");
            assert!(panics.check().unwrap_err().chain().contains(told));
            drop(given);
            assert_eq!(memory.free(), memory.total(), "{told}");
        }
    }

    #[tokio::test]
    async fn who_does_not_panic_is_not_touched() {
        let panics = Panics::default();
        assert_eq!(all(Rows::new(None, false), &panics).await.len(), 2);
        assert!(panics.check().is_ok());
    }

    // reliability 48: nobody waits for the rows any more, and whoever drops them is panicking already
    #[tokio::test]
    async fn a_panic_in_a_drop_that_nobody_asked_for_is_noted_even_amid_another() {
        let panics = Panics::default();
        let mut rows = panics.guard("one").stream(|| Box::pin(Rows::new(None, true)));
        assert!(rows.next().await.unwrap().is_ok());
        let two = Mutex::new(Some(rows));
        let told = panics.guard("two").call(|| {
            let _rows = two.lock().unwrap().take();
            panic!("two")
        });
        assert!(told.unwrap_err().chain().contains("panicked: two"));
        assert!(panics.check().unwrap_err().chain().contains("step: one"));
    }

    #[tokio::test]
    async fn a_panic_before_there_are_rows_is_their_end() {
        let panics = Panics::default();
        let given: Vec<_> = panics.guard("one").stream(|| panic!("no rows")).collect().await;
        assert_eq!(given.len(), 1);
        assert!(given[0].as_ref().unwrap_err().chain().contains("no rows"));
    }

    #[tokio::test]
    async fn a_task_of_a_step_that_panics_is_told_with_the_step() {
        let error = Error::from(aqueduct_primitives::TaskError::Panicked("deep".into()));
        let given: Vec<_> = Panics::default()
            .guard("one")
            .stream(|| Box::pin(futures::stream::iter([Err(error)])))
            .collect()
            .await;
        let told = given[0].as_ref().unwrap_err().chain();
        assert!(told.contains("deep") && told.contains("step: one"), "{told}");
    }
}
