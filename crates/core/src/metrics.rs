//! What a step counts while it runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A step has so many counters of its own at most: more would be names made of data.
const MAX_OWN: usize = 100;
/// What their names begin with where all counters stand together.
const OWN: &str = "own.";

/// A counter that many tasks add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds so many.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Adds the length of something in memory.
    pub fn add_len(&self, n: usize) {
        self.add(n as u64);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of one step. Rows in and out are counted by the runner; the step counts the rest.
#[derive(Debug, Default)]
pub struct StepMetrics {
    /// Rows that came in; of a source, rows read, bad ones among them.
    pub rows_in: Counter,
    /// Rows that went out; of a sink, rows written.
    pub rows_out: Counter,
    /// Rows dropped by a condition or a limit.
    pub rows_filtered: Counter,
    /// Rows dropped as duplicates.
    pub rows_duplicate: Counter,
    /// Rows that the policy took.
    pub rows_rejected: Counter,
    /// Files, pages or documents that the policy took.
    pub files_rejected: Counter,
    /// Files, pages or documents read to their end.
    pub files_done: Counter,
    /// Files, pages or documents there are, as far as known.
    pub files_total: Counter,
    /// Files that earlier runs have committed: there, and not read again.
    pub files_known: Counter,
    /// Bytes read from outside (a source, as they came: compressed) or written (a sink).
    pub bytes: Counter,
    /// Requests made again.
    pub retries: Counter,
    /// Bytes written to spill files.
    pub spilled_bytes: Counter,
    /// What those were in memory.
    pub spilled_raw_bytes: Counter,
    /// Times that spilled rows were merged and spilled again.
    pub spill_merges: Counter,
    /// What only steps of its kind count, by name.
    own: Mutex<BTreeMap<String, u64>>,
    busy_nanos: AtomicU64,
    in_flight: Arc<AtomicU64>,
}

/// One file, page or document that is being read, until this is dropped.
#[must_use = "dropping it says that it is read no more"]
#[derive(Debug)]
pub struct InFlight(Arc<AtomicU64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl StepMetrics {
    /// One more file, page or document is being read.
    pub fn begin_one(&self) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(&self.in_flight))
    }

    /// How many files, pages or documents are being read now.
    pub fn n_in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Counts something that only steps of its kind do: questions asked of a service, say. The report tells it by this name;
    /// more than a hundred names are not kept.
    pub fn count(&self, name: &str, n: u64) {
        let mut own = self.lock_own();
        if let Some(sum) = own.get_mut(name) {
            *sum += n;
        } else if own.len() < MAX_OWN {
            own.insert(name.to_owned(), n);
        }
    }

    /// What was counted by [`StepMetrics::count`] so far, by name.
    pub fn own(&self) -> BTreeMap<String, u64> {
        self.lock_own().clone()
    }

    fn lock_own(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted so far, by name.
    pub fn snapshot(&self) -> BTreeMap<String, u64> {
        let named = self.named().into_iter().map(|(name, counter)| (name.to_owned(), counter.get()));
        let own = self.own().into_iter().map(|(name, n)| (format!("{OWN}{name}"), n));
        named.chain(own).collect()
    }

    /// Goes on from what was counted before. Names that are not known are left out.
    pub fn add_all(&self, counted: &BTreeMap<String, u64>) {
        for (name, counter) in self.named() {
            counter.add(counted.get(name).copied().unwrap_or_default());
        }
        for (name, n) in counted {
            if let Some(name) = name.strip_prefix(OWN) {
                self.count(name, *n);
            }
        }
    }

    fn named(&self) -> [(&'static str, &Counter); 14] {
        [
            ("rows_in", &self.rows_in),
            ("rows_out", &self.rows_out),
            ("rows_filtered", &self.rows_filtered),
            ("rows_duplicate", &self.rows_duplicate),
            ("rows_rejected", &self.rows_rejected),
            ("files_rejected", &self.files_rejected),
            ("files_done", &self.files_done),
            ("files_total", &self.files_total),
            ("files_known", &self.files_known),
            ("bytes", &self.bytes),
            ("retries", &self.retries),
            ("spilled_bytes", &self.spilled_bytes),
            ("spilled_raw_bytes", &self.spilled_raw_bytes),
            ("spill_merges", &self.spill_merges),
        ]
    }

    /// Of a source, rows read: what it gave, and what it rejected or left out.
    pub fn rows_read(&self) -> u64 {
        let left_out = self.rows_filtered.get() + self.rows_duplicate.get();
        self.rows_out.get() + self.rows_rejected.get() + left_out
    }

    /// Adds time spent computing.
    pub fn add_busy(&self, time: Duration) {
        self.busy_nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Time spent computing so far, over all tasks.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_its_own_go_on_in_another_process() {
        let before = StepMetrics::default();
        before.count("requests", 2);
        before.count("requests", 3);
        before.rows_out.add(7);
        let after = StepMetrics::default();
        after.add_all(&before.snapshot());
        after.count("requests", 1);
        assert_eq!(after.own(), BTreeMap::from([("requests".to_owned(), 6)]));
        assert_eq!(after.rows_out.get(), 7);
    }
}
