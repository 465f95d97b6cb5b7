//! A run as it can be watched: counters, budgets and peaks, read while it goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use aqueduct_core::StepMetrics;
use aqueduct_primitives::{Budget, ByteCount};
use tokio_util::sync::CancellationToken;

use super::rejects::Rejects;
use crate::process_memory::{self, ProcessMemory};

/// How often memory is looked at. Rarer would miss peaks, more often would cost what it measures.
const SAMPLE_EVERY: Duration = Duration::from_millis(25);
/// And how often where little is left: until the next look, no more than that can become resident.
const SAMPLE_OFTEN: Duration = Duration::from_millis(5);
/// With so much of what the process may take resident, little is left. With less, the allocator keeps unused pages again.
const TIGHT_PERCENT: u64 = 65;
/// With so much, the allocator keeps no unused page: they are up to a third of what it has, and cost time to get anew.
const GIVE_BACK_PERCENT: u64 = 75;
/// With so much of what the process may take given out, sources wait until it is less.
const PRESSURE_PERCENT: u64 = 85;
/// What a process may take beyond its `memory`.
pub(crate) const BESIDE_MEMORY: ByteCount = ByteCount::mib(64);

/// What can be seen of a run while it goes.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) limit: ByteCount,
    pub(crate) flow: Budget,
    pub(crate) steps: Vec<LiveStep>,
    rejects: Arc<Rejects>,
    reserved_peak: AtomicU64,
    allocated_peak: AtomicU64,
    rss_peak: AtomicU64,
    /// Of the process, before the run.
    rss_peak_before: u64,
}

/// What can be seen of a step.
#[derive(Debug)]
pub(crate) struct LiveStep {
    pub(crate) name: String,
    pub(crate) component: &'static str,
    pub(crate) role: Role,
    /// The steps whose rows it takes, as places among the steps.
    pub(crate) inputs: Vec<usize>,
    pub(crate) metrics: Arc<StepMetrics>,
    pub(crate) share: Budget,
    /// Its share is that of a step before it, which has ended when it begins.
    pub(crate) takes_turns: bool,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Source,
    Stage,
    Sink,
}

impl Live {
    pub(super) fn new(limit: ByteCount, flow: Budget, steps: Vec<LiveStep>, rejects: Arc<Rejects>) -> Self {
        Self {
            limit,
            flow,
            steps,
            rejects,
            reserved_peak: AtomicU64::new(0),
            allocated_peak: AtomicU64::new(0),
            rss_peak: AtomicU64::new(0),
            rss_peak_before: process_memory::rss_peak_bytes(),
        }
    }

    /// What was rejected so far, by reason.
    pub(crate) fn rejected_by_reason(&self) -> BTreeMap<String, u64> {
        self.rejects.by_reason()
    }

    /// Rows that wait before a step: its inputs gave them, and it has not taken them.
    pub(crate) fn rows_waiting(&self, step: &LiveStep) -> u64 {
        let given: u64 = step.inputs.iter().map(|input| self.steps[*input].metrics.rows_out.get()).sum();
        given.saturating_sub(step.metrics.rows_in.get())
    }

    /// Bytes reserved now, over all budgets.
    pub(crate) fn reserved(&self) -> ByteCount {
        let used = |budget: &Budget| budget.total().saturating_sub(budget.free());
        let shares = self.steps.iter().filter(|step| !step.takes_turns).map(|step| used(&step.share));
        shares.chain([used(&self.flow)]).sum()
    }

    /// The most bytes seen reserved at one moment; never less than any one budget's own peak, which is exact.
    pub(crate) fn reserved_peak(&self) -> ByteCount {
        let single = self.steps.iter().map(|step| step.share.peak()).chain([self.flow.peak()]).max();
        ByteCount::new(self.reserved_peak.load(Relaxed)).max(single.unwrap_or_default())
    }

    /// The most bytes seen given out by the allocator.
    pub(crate) fn allocated_peak(&self) -> ByteCount {
        ByteCount::new(self.allocated_peak.load(Relaxed))
    }

    /// The most bytes resident: as the kernel counts if the process never had more, else as was seen.
    pub(crate) fn rss_peak(&self) -> ByteCount {
        let of_process = process_memory::rss_peak_bytes();
        let seen = self.rss_peak.load(Relaxed);
        ByteCount::new(if of_process > self.rss_peak_before { of_process } else { seen })
    }

    /// Sums a counter over the steps of one role.
    pub(crate) fn sum(&self, role: Role, counter: impl Fn(&StepMetrics) -> u64) -> u64 {
        self.steps.iter().filter(|step| step.role == role).map(|step| counter(&step.metrics)).sum()
    }

    /// Sums a counter over all steps.
    pub(crate) fn total(&self, counter: impl Fn(&StepMetrics) -> u64) -> u64 {
        self.steps.iter().map(|step| counter(&step.metrics)).sum()
    }

    /// Looks at memory until told to stop. Under pressure the sources wait (MEM-6), and the allocator keeps nothing.
    pub(crate) async fn watch(self: Arc<Self>, process: Arc<ProcessMemory>, stop: CancellationToken) {
        let may_take = process.limit.saturating_add(BESIDE_MEMORY);
        let (mut giving_back, mut next) = (None, Duration::ZERO);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(next) => {}
            }
            let resident = self.sample();
            let is_tight = resident > may_take.percent(TIGHT_PERCENT);
            if resident > may_take.percent(GIVE_BACK_PERCENT) {
                giving_back.get_or_insert_with(|| process.give_back());
            } else if !is_tight {
                giving_back = None;
            }
            next = if is_tight { SAMPLE_OFTEN } else { SAMPLE_EVERY };
            self.flow
                .set_paused(process_memory::allocated_bytes() > may_take.percent(PRESSURE_PERCENT).get());
        }
        self.sample();
    }

    /// What is resident now.
    fn sample(&self) -> ByteCount {
        self.reserved_peak.fetch_max(self.reserved().get(), Relaxed);
        self.allocated_peak.fetch_max(process_memory::allocated_bytes(), Relaxed);
        let resident = process_memory::rss_bytes();
        self.rss_peak.fetch_max(resident, Relaxed);
        ByteCount::new(resident)
    }
}
