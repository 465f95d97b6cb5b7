//! What a step counts while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

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

    /// What was counted so far, by name.
    pub fn snapshot(&self) -> BTreeMap<String, u64> {
        self.named().into_iter().map(|(name, counter)| (name.to_owned(), counter.get())).collect()
    }

    /// Goes on from what was counted before. Names that are not known are left out.
    pub fn add_all(&self, counted: &BTreeMap<String, u64>) {
        for (name, counter) in self.named() {
            counter.add(counted.get(name).copied().unwrap_or_default());
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
