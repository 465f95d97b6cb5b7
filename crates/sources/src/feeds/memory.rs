//! How the memory of the step is divided.
//!
//! Each feed that is asked takes a small reserve first, and keeps it to its end: most fit. One that does not takes the lane, of
//! which there is one, and what the lane has beside the reserves: nobody else waits for that, so that it always comes.

use std::sync::Arc;

use aqueduct_core::{Context, Error, ErrorKind, MemoryNeed, Result};
use aqueduct_formats::feed::MAX_ENTRY_BYTES;
use aqueduct_primitives::{ByteCount, Reservation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::paged::given::{memory_of_keys, need_of_keys};

/// A feed with so many bytes needs no more than its reserve.
pub(super) const SMALL_FEED_BYTES: usize = 256 << 10;
/// The reserve of a feed: its bytes, its text, which may take three times as many, and one batch twice, as entries and as rows.
const RESERVE: ByteCount = ByteCount::mib(2);
/// Of entries that wait to become rows, so many bytes.
pub(super) const BATCH_BYTES: ByteCount = ByteCount::kib(256);
/// The largest entry, and its row.
const LARGE_ENTRY: ByteCount = ByteCount::new(2 * MAX_ENTRY_BYTES as u64);
/// With less in the lane, feeds would be rejected that are not large.
const LEAST_LANE: ByteCount = ByteCount::mib(12);
/// For names of feeds: with more of them, the share has to be larger.
const LIST: ByteCount = ByteCount::mib(1);
const LONG_LIST: ByteCount = ByteCount::mib(8);

/// What a step needs that asks so many feeds at once, each of so many bytes at most.
pub(super) fn need(n_at_once: usize, max_feed: ByteCount) -> MemoryNeed {
    let (min_keys, max_keys) = need_of_keys();
    let lane = LARGE_ENTRY.saturating_add(max_feed.saturating_mul(2)).max(LEAST_LANE);
    let reserves = RESERVE.saturating_mul(n_at_once as u64);
    MemoryNeed::between(
        [min_keys, LIST, RESERVE, LEAST_LANE].into_iter().sum(),
        [max_keys, LONG_LIST, reserves, lane].into_iter().sum(),
    )
}

/// Checks that there is room for a list of feeds beside all that one feed takes: before anything is held, for what is held
/// to the end is not waited for.
///
/// # Errors
/// [`ErrorKind::Limit`]: the share is smaller.
pub(super) fn check_room(share: ByteCount, list: ByteCount) -> Result<()> {
    let (min_keys, _) = need_of_keys();
    let lane = min_keys.saturating_add(LEAST_LANE).max(memory_of_keys(share).saturating_add(LARGE_ENTRY));
    let needed: ByteCount = [list, RESERVE, lane].into_iter().sum();
    if needed <= share {
        return Ok(());
    }
    let message =
        "the list of feeds leaves no memory to read them; raise `memory`, or read them in several flows";
    let error = Error::new(ErrorKind::Limit, "list feeds", message);
    Err(error.with("list", list).with("needed", needed).with("limit", share))
}

/// The room of a step.
#[derive(Clone)]
pub(super) struct Room {
    /// Feeds at once.
    pub(super) n_at_once: usize,
    /// Bytes of a feed at most, and of its text.
    pub(super) max_feed: ByteCount,
    lane: Arc<Semaphore>,
    /// What the lane has.
    lane_bytes: ByteCount,
}

/// What one feed holds.
pub(super) struct Held {
    room: Room,
    cx: Context,
    _reserve: Reservation,
    lane: Option<(OwnedSemaphorePermit, Reservation)>,
}

impl Room {
    /// The room that a share has beside keys and the list: of reserves there are fewer before the lane gets narrow.
    pub(super) fn of(cx: &Context, list: &Reservation, n_at_once: usize, max_feed: ByteCount) -> Self {
        let share = cx.share().total();
        let rest = share.saturating_sub(memory_of_keys(share)).saturating_sub(list.size());
        let for_reserves = rest.saturating_sub(LEAST_LANE).get() / RESERVE.get();
        let n_at_once = usize::try_from(for_reserves).unwrap_or(usize::MAX).clamp(1, n_at_once);
        let lane_bytes = rest.saturating_sub(RESERVE.saturating_mul(n_at_once as u64));
        Self { n_at_once, max_feed, lane: Arc::new(Semaphore::new(1)), lane_bytes }
    }

    /// The reserve of one feed.
    ///
    /// # Errors
    /// The share is smaller than it.
    pub(super) async fn enter(&self, cx: &Context) -> Result<Held> {
        let reserve = cx.share().reserve(RESERVE).await?;
        Ok(Held { room: self.clone(), cx: cx.clone(), _reserve: reserve, lane: None })
    }
}

impl Held {
    /// Waits until there is memory for so many bytes more than a small feed takes.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`]: the step never has so much.
    pub(super) async fn grow(&mut self, more: ByteCount) -> Result<()> {
        let held = self.lane.as_ref().map_or(LARGE_ENTRY, |(_, held)| held.size());
        let needed = held.saturating_add(more);
        if needed > self.room.lane_bytes {
            let message = "the feed needs more memory than there is for one; raise `memory`";
            let error = Error::new(ErrorKind::Limit, "read feed", message);
            return Err(error.with("needed", needed).with("limit", self.room.lane_bytes));
        }
        if let Some((_, held)) = &mut self.lane {
            held.merge(self.cx.share().reserve(more).await?);
            return Ok(());
        }
        let turn = Arc::clone(&self.room.lane).acquire_owned().await;
        let turn = turn.map_err(|_| Error::cancelled("read feed"))?;
        self.lane = Some((turn, self.cx.share().reserve(needed).await?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // MEM-2: what cannot fit is told, not waited for.
    #[test]
    fn a_list_that_leaves_no_room_is_refused_and_what_the_step_asks_for_is_enough() {
        let least = need(1, ByteCount::mib(16)).min;
        check_room(least, LIST).unwrap();
        for share in [least, ByteCount::mib(24), ByteCount::mib(60), ByteCount::mib(96)] {
            let fits = |list| check_room(share, list).is_ok();
            let most = (0..96).map(ByteCount::mib).take_while(|list| fits(*list)).last().unwrap();
            let held = most.saturating_add(memory_of_keys(share)).saturating_add(RESERVE);
            assert!(held.saturating_add(LARGE_ENTRY) <= share, "{share}: {most}");
            let error = check_room(share, most.saturating_add(ByteCount::mib(1))).unwrap_err();
            assert!(error.kind() == ErrorKind::Limit && error.message().contains("`memory`"), "{error}");
        }
    }
}
