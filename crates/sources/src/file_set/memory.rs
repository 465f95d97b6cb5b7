//! How the memory of a step is divided between the files that it reads at once.
//!
//! Every file takes its reserve from the step's share before it is opened, in the order of the inputs, and
//! keeps it to its end. From then on it waits for nothing that another file holds: what it decodes waits in
//! its reserve until the consumer takes it into the flow's memory. The one exception are records larger than
//! a block, of which at most one at a time may take from the flow's memory, in the lane.

use std::sync::Arc;

use aqueduct_core::{Context, Error, ErrorKind, MemoryNeed, Result};
use aqueduct_formats::{LargeRecords, memory_need};
use aqueduct_primitives::{Budget, ByteCount, Reservation};
use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::seen::need_of_keys;

/// Of a file's reserve, one part in so many is for the decoder's blocks.
const DECODER_PART: u64 = 2;
/// Of a file's reserve, one part in so many is the largest batch: three may wait outside the decoder (sent,
/// about to be sent, about to be admitted).
const BATCH_PART: u64 = 8;

/// The reserve of one file: with less it cannot be read, with more it is read no faster.
pub(crate) fn need_of_file() -> MemoryNeed {
    let MemoryNeed { min, want, .. } = memory_need();
    MemoryNeed::between(min.saturating_mul(DECODER_PART), want.saturating_mul(DECODER_PART))
}

/// What the planner must keep for a step that reads so many files at once, and for the keys of earlier ones if it reads new
/// ones only.
pub(crate) fn need_of_files(n_files: usize, is_incremental: bool) -> MemoryNeed {
    let MemoryNeed { min, want, .. } = need_of_file();
    let (min_keys, max_keys) = if is_incremental { need_of_keys() } else { Default::default() };
    let want = want.saturating_mul(n_files.max(1) as u64).saturating_add(max_keys);
    MemoryNeed::between(min.saturating_add(min_keys), want)
}

/// How a share is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    /// Files at once.
    pub(crate) n_files: usize,
    /// The reserve of each.
    pub(crate) per_file: ByteCount,
}

impl Division {
    /// First smaller blocks, then fewer files.
    pub(crate) fn of(share: ByteCount, n_files: usize) -> Self {
        Self::by(need_of_file(), share, n_files)
    }

    /// First smaller reserves, then fewer files.
    pub(crate) fn by(need: MemoryNeed, share: ByteCount, n_files: usize) -> Self {
        let MemoryNeed { min, want, .. } = need;
        let n_files = n_files.max(1);
        let per_file = ByteCount::new(share.get() / n_files as u64).clamp(min, want);
        let n_fit = usize::try_from(share.get() / per_file.get().max(1)).unwrap_or(usize::MAX);
        Self { n_files: n_fit.clamp(1, n_files), per_file }
    }

    /// For the decoder's blocks.
    pub(crate) fn decoder(self) -> ByteCount {
        ByteCount::new(self.per_file.get() / DECODER_PART)
    }

    /// For one batch.
    pub(crate) fn batch(self) -> ByteCount {
        ByteCount::new(self.per_file.get() / BATCH_PART)
    }
}

/// The lane for records larger than a block: one file at a time may be in it.
///
/// All sources of a run share one ([`Context::shared`]): with a lane each, two
/// could each hold part of the flow's memory and wait for the other's.
#[derive(Clone, Debug)]
pub(crate) struct LargeRecordLane {
    turns: Arc<Semaphore>,
}

impl Default for LargeRecordLane {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(1)) }
    }
}

/// The way of one file into the lane.
pub(crate) struct FileLane {
    lane: LargeRecordLane,
    flow: Budget,
    max_bytes: ByteCount,
    /// The `memory` with which the largest record would fit.
    enough: ByteCount,
    /// Set once the consumer reads this file. Before that it must not hold any of the flow's memory, which
    /// those before it need.
    is_read: CancellationToken,
}

impl FileLane {
    /// A way for records of at most `largest` bytes into the lane of a context, open once `is_read`. Of the
    /// flow's memory it leaves two batches to others, so that the consumer can always take those that stand
    /// before the large record.
    pub(crate) fn new(
        cx: &Context,
        largest: ByteCount,
        batch_bytes: ByteCount,
        is_read: CancellationToken,
    ) -> Self {
        let lane = cx.shared(LargeRecordLane::default).as_ref().clone();
        let flow = cx.flow().clone();
        let kept_free = batch_bytes.saturating_mul(2);
        let max_bytes = flow.total().saturating_sub(kept_free);
        // Its text, and its rows beside that.
        let enough = cx.memory_for(largest.saturating_mul(2).saturating_add(kept_free));
        Self { lane, flow, max_bytes, enough, is_read }
    }

    /// [`FileLane::new`] for the only file there is, which is always read.
    pub(crate) fn open(cx: &Context, largest: ByteCount, batch_bytes: ByteCount) -> Self {
        let is_read = CancellationToken::new();
        is_read.cancel();
        Self::new(cx, largest, batch_bytes, is_read)
    }

    fn too_large(&self, needed: ByteCount) -> Error {
        let message = format!(
            "a record needs more than there is for data in flight; set `memory` to {} for records of \
             `max_record_bytes`",
            self.enough
        );
        Error::new(ErrorKind::Limit, "read large record", message)
            .with("needed", needed)
            .with("limit", self.max_bytes)
    }
}

#[async_trait]
impl LargeRecords for FileLane {
    async fn reserve(&self, held: ByteCount, more: ByteCount) -> Result<Reservation> {
        let needed = held.saturating_add(more);
        if needed > self.max_bytes {
            return Err(self.too_large(needed));
        }
        if held > ByteCount::ZERO {
            return Ok(self.flow.reserve(more).await?);
        }
        self.is_read.cancelled().await;
        // The turn goes back with the record: the next one, of this file too, waits until its rows are gone.
        let turn = Arc::clone(&self.lane.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Error::cancelled("read large record"))?;
        let mut reservation = self.flow.reserve(more).await?;
        reservation.attach(turn);
        Ok(reservation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_get_smaller_before_files_get_fewer() {
        let MemoryNeed { min, want, .. } = need_of_file();
        let of = |share: ByteCount| Division::of(share, 10);
        assert_eq!(of(want.saturating_mul(20)), Division { n_files: 10, per_file: want });
        assert_eq!(of(min.saturating_mul(10)), Division { n_files: 10, per_file: min });
        assert_eq!(of(min.saturating_mul(3)), Division { n_files: 3, per_file: min });
        assert_eq!(of(min), Division { n_files: 1, per_file: min });
    }

    fn context(flow: ByteCount) -> Context {
        let budget = Budget::new("memory", flow.saturating_mul(2));
        Context::standalone(&budget).unwrap()
    }

    fn way(cx: &Context, is_read: &CancellationToken) -> FileLane {
        FileLane::new(cx, ByteCount::mib(16), ByteCount::kib(512), is_read.clone())
    }

    #[tokio::test]
    async fn one_record_at_a_time_is_in_the_lane_and_only_when_its_file_is_read() {
        let cx = context(ByteCount::mib(8));
        let (nothing, two) = (ByteCount::ZERO, ByteCount::mib(2));
        let read = CancellationToken::new();
        read.cancel();
        let (first, second, third) = (way(&cx, &read), way(&cx, &read), way(&cx, &CancellationToken::new()));
        let mut held = first.reserve(nothing, two).await.unwrap();
        held.merge(first.reserve(held.size(), two).await.unwrap());
        let mut of_same_file = first.reserve(nothing, two);
        let mut of_other_file = second.reserve(nothing, two);
        assert!(futures::poll!(&mut of_same_file).is_pending());
        assert!(futures::poll!(&mut of_other_file).is_pending());
        assert!(futures::poll!(third.reserve(nothing, two)).is_pending());
        drop(held);
        drop(of_same_file.await.unwrap());
        drop(of_other_file.await.unwrap());
        assert_eq!(cx.flow().free(), cx.flow().total());
    }

    #[tokio::test]
    async fn a_record_larger_than_the_flow_names_the_memory_that_would_do() {
        let cx = context(ByteCount::mib(8));
        let way = FileLane::open(&cx, ByteCount::mib(16), ByteCount::kib(512));
        let held = way.reserve(ByteCount::ZERO, ByteCount::mib(4)).await.unwrap();
        let error = way.reserve(held.size(), ByteCount::mib(4)).await.unwrap_err();
        assert_eq!((error.kind(), error.context("limit")), (ErrorKind::Limit, Some("7MiB")));
        assert!(error.message().contains("set `memory` to 139MB"), "{error}");
    }
}
