//! The memory that DataFusion's operators see: one lease, which is all there is.
//!
//! DataFusion's own pools either let the total pass (`FairSpillPool` checks each reservation against its share and never
//! the sum) or let the first operator take everything. This one keeps the total on every request, and a part of it free
//! for operators that cannot spill, whoever comes first.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_primitives::ByteCount;
use datafusion_common::{DataFusionError, Result};
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

use crate::beside::Pace;

/// Of a lease, at least so much is kept for operators that cannot spill.
const PERCENT_FOR_UNSPILLABLE: u64 = 20;
/// And so much beyond what they hold: a sort that fills all the rest leaves nothing to merge with.
const PERCENT_HEADROOM: u64 = 10;

/// What sums up groups gives all it holds as one batch, which it makes beside the table and then no longer counts: while
/// the batch is taken apart, what comes next fills its own part. So it may hold this part of a lease.
const PERCENT_FOR_GROUPS: u64 = 15;
/// But so much in any case: an empty table takes some of it.
const MIN_FOR_GROUPS: ByteCount = ByteCount::kib(512);
/// The operators that do so, by how their names begin.
const GROUPS: &str = "PartialHashAggregateStream";

/// A pool over a lease of so many bytes.
pub(crate) struct LeasePool {
    total: u64,
    state: Arc<Mutex<State>>,
    /// Told of every change: it stands still when the operators do.
    pace: Arc<Pace>,
}

#[derive(Debug, Default)]
struct State {
    consumers: HashMap<usize, Held>,
    n_spillable: u64,
    used: u64,
    unspillable: u64,
    peak: u64,
}

/// What one operator holds.
#[derive(Debug)]
struct Held {
    name: String,
    can_spill: bool,
    n_bytes: u64,
}

impl LeasePool {
    pub(crate) fn new(lease: ByteCount, pace: Arc<Pace>) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let told = Arc::clone(&state);
        pace.set_note(Box::new(move || told.lock().unwrap_or_else(PoisonError::into_inner).holders()));
        Self { total: lease.get(), state, pace }
    }

    /// The most bytes that were held at one moment.
    #[cfg(test)]
    pub(super) fn peak(&self) -> ByteCount {
        ByteCount::new(self.lock().peak)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What one operator may hold at most.
    fn most(&self, consumer: &MemoryConsumer, state: &State) -> u64 {
        if !consumer.can_spill() {
            return self.total;
        }
        let kept =
            self.percent(PERCENT_FOR_UNSPILLABLE).max(state.unspillable + self.percent(PERCENT_HEADROOM));
        let share = self.total.saturating_sub(kept) / state.n_spillable.max(1);
        match consumer.name().starts_with(GROUPS) {
            true => share.min(self.percent(PERCENT_FOR_GROUPS).max(MIN_FOR_GROUPS.get())),
            false => share,
        }
    }

    fn percent(&self, percent: u64) -> u64 {
        ByteCount::new(self.total).percent(percent).get()
    }
}

impl State {
    fn holders(&self) -> String {
        let mut held: Vec<&Held> = self.consumers.values().filter(|held| held.n_bytes > 0).collect();
        held.sort_by_key(|held| std::cmp::Reverse(held.n_bytes));
        let told = held.iter().map(|held| format!("{} {}", held.name, held.n_bytes));
        told.collect::<Vec<_>>().join(", ")
    }

    fn add(&mut self, consumer: &MemoryConsumer, n_bytes: u64) {
        if let Some(held) = self.consumers.get_mut(&consumer.id()) {
            held.n_bytes += n_bytes;
        }
        if !consumer.can_spill() {
            self.unspillable += n_bytes;
        }
        self.used += n_bytes;
        self.peak = self.peak.max(self.used);
    }

    fn remove(&mut self, consumer: &MemoryConsumer, n_bytes: u64) {
        if let Some(held) = self.consumers.get_mut(&consumer.id()) {
            held.n_bytes = held.n_bytes.saturating_sub(n_bytes);
        }
        if !consumer.can_spill() {
            self.unspillable = self.unspillable.saturating_sub(n_bytes);
        }
        self.used = self.used.saturating_sub(n_bytes);
    }
}

impl fmt::Debug for LeasePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasePool").field("total", &self.total).finish_non_exhaustive()
    }
}

impl fmt::Display for LeasePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease of {} bytes", self.total)
    }
}

impl MemoryPool for LeasePool {
    fn name(&self) -> &'static str {
        "lease"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        let mut state = self.lock();
        let (name, can_spill) = (consumer.name().to_owned(), consumer.can_spill());
        let is_new = state.consumers.insert(consumer.id(), Held { name, can_spill, n_bytes: 0 }).is_none();
        state.n_spillable += u64::from(is_new && can_spill);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        let mut state = self.lock();
        if state.consumers.remove(&consumer.id()).is_some_and(|held| held.can_spill) {
            state.n_spillable -= 1;
        }
    }

    /// Operators that call this do not ask: it is counted, and whoever asks next is refused.
    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        let mut state = self.lock();
        state.add(reservation.consumer(), additional as u64);
        self.pace.tick();
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut state = self.lock();
        state.remove(reservation.consumer(), shrink as u64);
        self.pace.tick();
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let (consumer, wanted) = (reservation.consumer(), additional as u64);
        let mut state = self.lock();
        let held = state.consumers.get(&consumer.id()).map_or(0, |held| held.n_bytes);
        if state.used + wanted <= self.total && held + wanted <= self.most(consumer, &state) {
            state.add(consumer, wanted);
            self.pace.tick();
            return Ok(());
        }
        Err(DataFusionError::ResourcesExhausted(format!(
            "{} needs {wanted} bytes more than the {held} it holds; of {} bytes are held: {}",
            consumer.name(),
            self.total,
            state.holders()
        )))
    }

    fn reserved(&self) -> usize {
        usize::try_from(self.lock().used).unwrap_or(usize::MAX)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(usize::try_from(self.total).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(total: u64) -> Arc<dyn MemoryPool> {
        Arc::new(LeasePool::new(ByteCount::new(total), Arc::default()))
    }

    fn consumer(name: &str, can_spill: bool, pool: &Arc<dyn MemoryPool>) -> MemoryReservation {
        MemoryConsumer::new(name).with_can_spill(can_spill).register(pool)
    }

    // MEM-5: what DataFusion's fair pool does not keep
    #[test]
    fn the_total_holds_whoever_comes_when_and_however_often() {
        let pool = pool(1000);
        let early = consumer("early", true, &pool);
        early.try_grow(800).unwrap();
        assert!(early.try_grow(1).is_err(), "a fifth is kept");
        let late = consumer("late", true, &pool);
        late.try_grow(200).unwrap();
        assert!(late.try_grow(1).is_err(), "its own share has room, the lease has none");
        drop((early, late));
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn several_reservations_of_one_operator_count_together() {
        let pool = pool(1000);
        let first = consumer("sort", true, &pool);
        let second = first.new_empty();
        first.try_grow(500).unwrap();
        second.try_grow(300).unwrap();
        assert!(second.try_grow(1).is_err());
    }

    #[test]
    fn what_cannot_spill_finds_room_beside_what_fills_the_rest() {
        let pool = pool(1000);
        let merge = consumer("merge", false, &pool);
        merge.try_grow(300).unwrap();
        let sort = consumer("sort", true, &pool);
        sort.try_grow(600).unwrap();
        assert!(sort.try_grow(1).is_err(), "a tenth is left beyond what the merge holds");
        merge.try_grow(100).unwrap();
        assert!(merge.try_grow(1).is_err());
    }

    #[test]
    fn what_sums_up_groups_leaves_room_for_what_it_gives() {
        let total = 10 << 20;
        let pool = pool(total);
        let groups = consumer("PartialHashAggregateStream[0]", true, &pool);
        let most = usize::try_from(total * PERCENT_FOR_GROUPS / 100).unwrap();
        groups.try_grow(most).unwrap();
        assert!(groups.try_grow(1).is_err());
        consumer("sort", false, &pool).try_grow(most * 4).unwrap();
    }

    #[test]
    fn a_refusal_tells_who_holds_what() {
        let pool = pool(1000);
        let join = consumer("join", false, &pool);
        join.grow(900);
        let error = consumer("sort", true, &pool).try_grow(400).unwrap_err();
        assert!(matches!(error, DataFusionError::ResourcesExhausted(_)));
        for part in ["sort needs 400", "of 1000 bytes", "join 900"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
