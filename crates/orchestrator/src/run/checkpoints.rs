//! Brings the rows of a run to a stand: every source stops behind a mark that travels with its rows, and whoever has seen
//! the mark has all rows that came before it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aqueduct_core::{Batch, BatchStream, Positions, SourceCaps, StepMetrics};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::flow::Commit;

/// How often the bytes written are looked at, where they decide about the next commit.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The gates of all sources of a run.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// The last checkpoint that was asked for.
    asked: watch::Sender<u64>,
    /// The last one behind which rows may go on.
    passed: watch::Sender<u64>,
    /// How far each source has let rows through.
    positions: Mutex<BTreeMap<String, Positions>>,
}

impl Default for Checkpoints {
    fn default() -> Self {
        let (asked, passed) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { asked, passed, positions: Mutex::default() }
    }
}

impl Checkpoints {
    /// The rows of a source, until a checkpoint is asked for; after its mark none, until they may go on.
    pub(super) fn gate(
        self: &Arc<Self>,
        mut stream: BatchStream,
        (source, schema): (String, SchemaRef),
        caps: SourceCaps,
    ) -> BatchStream {
        let gates = Arc::clone(self);
        let (mut asked, mut passed) = (self.asked.subscribe(), self.passed.subscribe());
        let mut at = 0;
        Box::pin(try_stream! {
            loop {
                let next = *asked.borrow_and_update();
                if next > at {
                    at = next;
                    yield Batch::only_positions(SchemaRef::clone(&schema), Positions::at_checkpoint(at));
                    if passed.wait_for(|passed| *passed >= at).await.is_err() {
                        break;
                    }
                }
                let batch = tokio::select! {
                    biased;
                    Ok(()) = asked.changed() => continue,
                    batch = stream.next() => batch,
                };
                let Some(batch) = batch else { break };
                let batch = batch?;
                gates.note(&source, batch.positions(), caps);
                yield batch;
            }
        })
    }

    fn note(&self, source: &str, positions: &Positions, caps: SourceCaps) {
        let mut later = positions.clone();
        if let Some(split) = caps.summed_up_in {
            later.keep_only(split);
        }
        if !later.is_empty() {
            self.lock().entry(source.to_owned()).or_default().merge(later);
        }
    }

    /// Asks all sources to stop; the number of the mark.
    pub(super) fn ask(&self) -> u64 {
        let mut n = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            n = *asked;
        });
        n
    }

    /// Lets rows go on behind a checkpoint.
    pub(super) fn pass(&self, n: u64) {
        self.passed.send_replace(n);
    }

    /// How far each source has let rows through since the last call. To be called while all stand.
    pub(super) fn take_positions(&self) -> BTreeMap<String, Positions> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Positions>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the next commit is due.
pub(super) struct Due {
    when: Commit,
    sinks: Vec<Arc<StepMetrics>>,
    since: Instant,
    bytes_before: u64,
}

impl Due {
    /// From now on.
    pub(super) fn new(when: Commit, sinks: Vec<Arc<StepMetrics>>) -> Self {
        let mut due = Self { when, sinks, since: Instant::now(), bytes_before: 0 };
        due.begin_anew();
        due
    }

    /// After a commit.
    pub(super) fn begin_anew(&mut self) {
        self.since = Instant::now();
        self.bytes_before = self.bytes();
    }

    fn bytes(&self) -> u64 {
        self.sinks.iter().map(|sink| sink.bytes.get()).sum()
    }

    /// Waits until a commit is due; for ever, if none is before the end.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn wait(&self) {
        loop {
            let left = self.when.every.map(|every| every.saturating_sub(self.since.elapsed()));
            let is_full = self.when.bytes.is_some_and(|most| self.bytes() - self.bytes_before >= most.get());
            if is_full || left == Some(Duration::ZERO) {
                return;
            }
            match (left, self.when.bytes) {
                (None, None) => std::future::pending().await,
                (Some(left), None) => tokio::time::sleep(left).await,
                (left, Some(_)) => tokio::time::sleep(LOOK_EVERY.min(left.unwrap_or(LOOK_EVERY))).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_primitives::Reservation;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    fn rows(n: i64) -> Batch {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![n]));
        let records = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        Batch::new(records, Reservation::empty()).with_positions(Positions::of("s", n.into()))
    }

    #[tokio::test]
    async fn behind_the_mark_comes_nothing_until_rows_may_go_on() {
        let gates = Arc::new(Checkpoints::default());
        let source = Box::pin(futures::stream::iter((1..=4).map(|n| Ok(rows(n)))));
        let named = ("source".to_owned(), rows(0).schema());
        let mut gated = gates.gate(source, named, SourceCaps::default());
        for n in 1..=2_i64 {
            let batch = gated.next().await.unwrap().unwrap();
            assert_eq!(batch.positions().get("s"), Some(&n.into()));
        }
        let n = gates.ask();
        let mark = gated.next().await.unwrap().unwrap();
        assert_eq!((mark.num_rows(), mark.positions().checkpoint()), (0, Some(n)));
        let stands = futures::poll!(gated.next());
        assert!(stands.is_pending());
        assert_eq!(gates.take_positions()["source"].get("s"), Some(&2.into()));
        gates.pass(n);
        assert_eq!(gated.next().await.unwrap().unwrap().positions().get("s"), Some(&3.into()));
        assert_eq!(gated.count().await, 1);
        assert_eq!(gates.take_positions()["source"].get("s"), Some(&4.into()));
    }

    #[tokio::test]
    async fn of_a_source_that_sums_up_only_the_sum_is_kept() {
        let gates = Arc::new(Checkpoints::default());
        let mut both = Positions::of("sum", 7.into());
        both.merge(Positions::done("a file"));
        let batch = Batch::only_positions(rows(0).schema(), both);
        let schema = batch.schema();
        let caps = SourceCaps { summed_up_in: Some("sum"), ..SourceCaps::default() };
        let source = Box::pin(futures::stream::iter([Ok(batch)]));
        let given: Vec<_> = gates.gate(source, ("source".to_owned(), schema), caps).collect().await;
        assert!(given[0].as_ref().unwrap().positions().is_done("a file"), "the steps behind see all");
        assert_eq!(gates.take_positions()["source"], Positions::of("sum", 7.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_is_due_after_so_much_time_or_so_many_bytes() {
        let sink = Arc::new(StepMetrics::default());
        let begun = Instant::now();
        let due = |every, bytes| Due::new(Commit { every, bytes }, vec![Arc::clone(&sink)]);
        due(Some(Duration::from_secs(60)), None).wait().await;
        assert_eq!(begun.elapsed().as_secs(), 60);
        let by_bytes = due(None, Some(aqueduct_primitives::ByteCount::new(100)));
        let mut waiting = Box::pin(by_bytes.wait());
        assert!(futures::poll!(&mut waiting).is_pending());
        sink.bytes.add(100);
        waiting.await;
        assert!(futures::poll!(Box::pin(due(None, None).wait())).is_pending());
    }
}
