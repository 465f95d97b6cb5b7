//! Divides a flow's `memory` among its steps and the data in flight, or says how much would do.

mod cgroup;
#[cfg(test)]
mod tests;

use aqueduct_core::{MemoryNeed, Planning};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;

use crate::flow::{Flow, FlowError, FlowErrors, StepKind};

/// What a flow gets when neither the file nor the command line says.
const DEFAULT_MEMORY: ByteCount = ByteCount::mb(512);

/// Of a cgroup's limit: the rest is for what libraries and the system take.
const PERCENT_OF_CGROUP: u64 = 60;

/// Of `memory`, for data in flight, before steps get more than they must have. More would only let a source run
/// farther ahead; with less, large records would not fit.
const PERCENT_IN_FLIGHT: u64 = 25;

/// Batches that the data in flight must hold for every source: one being made, one on its way, one being
/// written, one to spare. With fewer, sources and sinks would take turns instead of working side by side.
const MIN_BATCHES_IN_FLIGHT: u64 = 4;

/// A batch is at most this part of `memory`: what is in flight is then eight of them.
const MEMORY_PER_BATCH: u64 = 32;

/// The sizes of batches that are tried, below what the flow asks for.
const BATCH_BYTES: [ByteCount; 4] =
    [ByteCount::mib(4), ByteCount::mib(1), ByteCount::kib(256), ByteCount::kib(64)];

/// How a flow's memory is divided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For data in flight between steps.
    pub flow_bytes: ByteCount,
    /// For each step by itself, in the order of [`Flow::steps`].
    pub shares: Vec<ByteCount>,
    /// At most so many bytes in a batch.
    pub batch_bytes: ByteCount,
    /// At most so many rows in a batch.
    pub batch_rows: usize,
    /// The columns that each step gives (a sink: takes); `None` is unknown until run.
    pub schemas: Vec<Option<SchemaRef>>,
    /// The smallest `memory` that would do.
    pub smallest: ByteCount,
}

/// Divides the memory of a flow.
///
/// Every step gets what it must have, the data in flight at least [a few batches](MIN_BATCHES_IN_FLIGHT); of the
/// rest, data in flight gets its part first, then every step more in proportion to what it wants, and what is
/// left goes to data in flight.
///
/// # Errors
/// The memory is too little: names the step that needs most and the smallest memory that would do.
pub fn plan(flow: &Flow) -> Result<Plan, FlowErrors> {
    let sizes = sizes_for(flow);
    let smallest = sizes.last().map(Needs::sum).unwrap_or_default().round_up_to_mb();
    let fits = |needs: &&Needs| {
        needs.sum() <= flow.memory && needs.batch_bytes.saturating_mul(MEMORY_PER_BATCH) <= flow.memory
    };
    let Some(needs) = sizes.iter().find(fits).or(sizes.last()).filter(|_| flow.memory >= smallest) else {
        return Err(refusal(flow, sizes.last(), smallest).into());
    };
    let (flow_bytes, shares) = divide(flow.memory, needs);
    Ok(Plan {
        flow_bytes,
        shares,
        batch_bytes: needs.batch_bytes,
        batch_rows: flow.execution.batch_size,
        schemas: flow.schemas.clone(),
        smallest,
    })
}

/// What a flow needs with batches of some size.
struct Needs {
    batch_bytes: ByteCount,
    in_flight: ByteCount,
    steps: Vec<MemoryNeed>,
}

impl Needs {
    fn sum(&self) -> ByteCount {
        self.steps.iter().map(|need| need.min).sum::<ByteCount>().saturating_add(self.in_flight)
    }
}

/// What the flow needs with each size of batch, the largest first.
fn sizes_for(flow: &Flow) -> Vec<Needs> {
    let asked = flow.execution.batch_bytes;
    let smaller = BATCH_BYTES.into_iter().filter(|size| *size < asked);
    std::iter::once(asked).chain(smaller).map(|size| needs(flow, size)).collect()
}

fn needs(flow: &Flow, batch_bytes: ByteCount) -> Needs {
    let need = |step| {
        let planning = Planning { batch_bytes, ..flow.planning(step) };
        match &step.kind {
            StepKind::Source(source) => source.memory(&planning),
            StepKind::Stage(stage) => stage.memory(&planning),
            StepKind::Sink(sink) => sink.memory(&planning),
        }
    };
    let n_sources = flow.steps.iter().filter(|step| step.is_source()).count().max(1) as u64;
    let in_flight = batch_bytes.saturating_mul(MIN_BATCHES_IN_FLIGHT * n_sources);
    Needs { batch_bytes, in_flight, steps: flow.steps.iter().map(need).collect() }
}

fn divide(memory: ByteCount, needs: &Needs) -> (ByteCount, Vec<ByteCount>) {
    let mut rest = memory.saturating_sub(needs.sum());
    let more_in_flight = memory.percent(PERCENT_IN_FLIGHT).saturating_sub(needs.in_flight).min(rest);
    rest = rest.saturating_sub(more_in_flight);
    let wishes: Vec<ByteCount> = needs.steps.iter().map(|need| need.want.saturating_sub(need.min)).collect();
    let wished: ByteCount = wishes.iter().copied().sum();
    let granted: Vec<ByteCount> = wishes.iter().map(|wish| part(*wish, rest, wished)).collect();
    let left = rest.saturating_sub(granted.iter().copied().sum());
    let shares = needs.steps.iter().zip(granted).map(|(need, more)| need.min.saturating_add(more)).collect();
    (needs.in_flight.saturating_add(more_in_flight).saturating_add(left), shares)
}

/// A wish, or its part of what there is.
fn part(wish: ByteCount, there_is: ByteCount, wished: ByteCount) -> ByteCount {
    if wished <= there_is {
        return wish;
    }
    let part = u128::from(wish.get()) * u128::from(there_is.get()) / u128::from(wished.get());
    ByteCount::new(u64::try_from(part).unwrap_or(u64::MAX))
}

fn refusal(flow: &Flow, needs: Option<&Needs>, smallest: ByteCount) -> FlowError {
    let steps = needs.map(|needs| needs.steps.as_slice()).unwrap_or_default();
    let table: Vec<String> =
        flow.steps.iter().zip(steps).map(|(step, need)| format!("{} {}", step.name, need.min)).collect();
    let most = flow
        .steps
        .iter()
        .zip(steps)
        .max_by_key(|(_, need)| need.min)
        .map_or("", |(step, _)| step.name.as_str());
    let in_flight = needs.map(|needs| needs.in_flight).unwrap_or_default();
    FlowError {
        file: flow.file.clone(),
        line: flow.memory_at.line,
        column: flow.memory_at.column,
        path: "memory".into(),
        message: format!(
            "{} is too little for this flow: step `{most}` needs most ({}, data in flight {in_flight}); the smallest \
             memory that would do is {}",
            flow.memory,
            table.join(", "),
            in_mb(smallest)
        ),
    }
}

/// A whole number of MB, so that it can be typed back.
fn in_mb(bytes: ByteCount) -> String {
    format!("{}MB", bytes.get() / ByteCount::mb(1).get())
}

/// What a flow gets by default: 512 MB, or 60 % of the cgroup's limit if that is less.
pub fn default_memory() -> ByteCount {
    match cgroup::memory_limit() {
        Some(limit) => DEFAULT_MEMORY.min(limit.percent(PERCENT_OF_CGROUP)),
        None => DEFAULT_MEMORY,
    }
}
