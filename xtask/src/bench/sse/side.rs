//! A server of events, ours or a peer's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use super::Case;
use crate::bench::Bench;
use crate::live::Server;
use crate::live::kernel::{cpu, pss_bytes};

/// What ours may take.
const MEMORY_MB: u64 = 128;

/// Rows that ours is given at once.
const ROWS_AT_ONCE: u64 = 50;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A server of events that runs.
pub(super) trait Side {
    /// In the table.
    fn name(&self) -> &'static str;

    /// Where it listens.
    fn address(&self) -> &str;

    /// The path of its stream.
    fn path(&self) -> &str;

    /// Its processes.
    ///
    /// # Errors
    /// It has ended.
    fn pids(&self) -> Result<Vec<u32>>;

    /// Gives it the events, as fast as it takes them.
    ///
    /// # Errors
    /// It does not take them.
    fn publish(&mut self, case: Case) -> Result<()>;

    /// Processor time so far.
    ///
    /// # Errors
    /// It has ended.
    fn cpu(&self) -> Result<Duration> {
        self.pids()?.into_iter().map(cpu).sum()
    }
}

/// Ours: a run whose sink is a stream.
pub(super) struct Ours(Server);

impl Ours {
    /// Starts it.
    ///
    /// # Errors
    /// It does not serve.
    pub(super) fn start(bench: &Bench, case: Case) -> Result<Self> {
        let max_clients = case.n_reading + case.n_stalled + 16;
        let flow = format!(
            "name: bench\nmemory: {MEMORY_MB}MB\n\
             source: {{ stdin: {{ format: ndjson, schema: {{ n: int64, text: string }} }} }}\n\
             sink: {{ sse: {{ max_clients: {max_clients} }} }}\n"
        );
        Ok(Self(Server::start(bench, "sse", &flow)?))
    }
}

impl Side for Ours {
    fn name(&self) -> &'static str {
        "aqueduct"
    }

    fn address(&self) -> &str {
        self.0.address()
    }

    fn path(&self) -> &str {
        "/streams/bench"
    }

    fn pids(&self) -> Result<Vec<u32>> {
        Ok(vec![self.0.pid()])
    }

    fn publish(&mut self, case: Case) -> Result<()> {
        for first in (0..case.n_events).step_by(usize::try_from(ROWS_AT_ONCE)?) {
            let rows = first..case.n_events.min(first + ROWS_AT_ONCE);
            self.0.give(&rows.map(|n| event(n, case) + "\n").collect::<String>())?;
        }
        Ok(())
    }
}

/// The data of an event.
pub(super) fn event(n: u64, case: Case) -> String {
    let head = format!("{{\"n\":{n},\"text\":\"");
    let text = "x".repeat(case.event_bytes.saturating_sub(head.len() + 2));
    format!("{head}{text}\"}}")
}

/// Looks at what processes take, until it is dropped.
pub(super) struct Watch {
    is_over: Arc<AtomicBool>,
    peak_bytes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look.
    pub(super) fn start(pids: Vec<u32>) -> Self {
        let (is_over, peak_bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, peak) = (Arc::clone(&is_over), Arc::clone(&peak_bytes));
        let look = move || {
            while !over.load(Relaxed) {
                // Who has ended takes nothing.
                let now = pids.iter().filter_map(|pid| pss_bytes(*pid).ok()).sum();
                peak.fetch_max(now, Relaxed);
                thread::sleep(LOOK_EVERY);
            }
        };
        Self { is_over, peak_bytes, thread: Some(thread::spawn(look)) }
    }

    /// The most that was seen.
    pub(super) fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sse::CASES;

    #[test]
    fn an_event_has_its_length() {
        for case in CASES {
            assert_eq!(event(1234, case).len(), case.event_bytes);
        }
    }

    #[test]
    fn what_this_process_takes_is_seen() {
        let watch = Watch::start(vec![std::process::id()]);
        while watch.peak_bytes() == 0 {
            thread::yield_now();
        }
        assert!(watch.peak_bytes() > 1 << 20);
    }
}
