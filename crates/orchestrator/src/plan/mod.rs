//! Divides a flow's `memory` among its steps and the data in flight, or says how much would do.

mod cgroup;
mod leases;
#[cfg(test)]
mod tests;

use aqueduct_core::{IN_FLIGHT_PART, MemoryNeed, Planning, RecordRoom};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;

use crate::flow::{Flow, FlowError, FlowErrors, Step, StepKind};

/// What a flow gets when neither the file nor the command line says.
const DEFAULT_MEMORY: ByteCount = ByteCount::mb(512);

/// Of a cgroup's limit: the rest is for what libraries and the system take.
const PERCENT_OF_CGROUP: u64 = 60;

/// Batches that the data in flight must hold for every source: one being made, one on its way, one being
/// written, one to spare. With fewer, sources and sinks would take turns instead of working side by side.
const MIN_BATCHES_IN_FLIGHT: u64 = 4;

/// A record that is larger than a batch is held as text and as rows at once, while the batches before it pass.
const COPIES_OF_A_RECORD: u64 = 2;
const BATCHES_BESIDE_A_RECORD: u64 = 2;

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
    /// For each step by itself, in the order of [`Flow::steps`]. Steps of one lease have it one after the other.
    pub shares: Vec<ByteCount>,
    /// For each step the number of its lease, if it is a global stage.
    pub leases: Vec<Option<usize>>,
    /// At most so many bytes in a batch.
    pub batch_bytes: ByteCount,
    /// At most so many rows in a batch.
    pub batch_rows: usize,
    /// The columns that each step gives (a sink: takes); `None` is unknown until run.
    pub schemas: Vec<Option<SchemaRef>>,
    /// The smallest `memory` that would do.
    pub smallest: ByteCount,
    /// What it takes for the largest record that a source allows to fit.
    pub record_room: RecordRoom,
}

/// Divides the memory of a flow.
///
/// Every step gets what it must have, the data in flight at least [a few batches](MIN_BATCHES_IN_FLIGHT). Of the
/// rest, data in flight gets its [part](IN_FLIGHT_PART) first, or room for the largest record if that is more: more
/// would only let a source run farther ahead. Then steps get more, equally, up to what they want, global stages before
/// the others: who wants little gets it whole. What is left goes to data in flight. Batches are rather smaller than that there is no such
/// room, or no such part: with more memory there never is less of either.
///
/// Global stages want `execution.spill_threshold_mb` together, or half of the memory.
///
/// # Errors
/// The memory is too little: names the step that needs most and the smallest memory that would do.
pub fn plan(flow: &Flow) -> Result<Plan, FlowErrors> {
    let sizes = sizes_for(flow);
    let smallest = sizes.last().map(Needs::sum).unwrap_or_default().round_up_to_mb();
    let room = record_room(&sizes);
    let Some(needs) = best_size(&sizes, flow.memory, room.in_flight).filter(|_| flow.memory >= smallest)
    else {
        return Err(refusal(flow, sizes.last(), smallest).into());
    };
    let leases = leases::leases(flow);
    let (flow_bytes, mut shares) = divide(flow.memory, needs, room.in_flight, &leases);
    for place in 0..shares.len() {
        shares[place] = shares[first_of_lease(&leases, place)];
    }
    Ok(Plan {
        flow_bytes,
        shares,
        leases,
        batch_bytes: needs.batch_bytes,
        batch_rows: flow.execution.batch_size,
        schemas: flow.schemas.clone(),
        smallest,
        record_room: room,
    })
}

/// What a flow needs with batches of some size.
struct Needs {
    batch_bytes: ByteCount,
    in_flight: ByteCount,
    /// For the largest record and the batches beside it; nothing if all records fit batches.
    record_room: ByteCount,
    steps: Vec<MemoryNeed>,
}

impl Needs {
    fn sum(&self) -> ByteCount {
        self.with_in_flight(ByteCount::ZERO)
    }

    /// What all steps must have, and so much for data in flight if that is more than the least.
    fn with_in_flight(&self, in_flight: ByteCount) -> ByteCount {
        self.steps_min().saturating_add(in_flight.max(self.in_flight))
    }

    fn steps_min(&self) -> ByteCount {
        self.steps.iter().map(|need| need.min).sum()
    }

    /// Whether so much memory has such batches at all.
    fn is_for(&self, memory: ByteCount) -> bool {
        self.batch_bytes.saturating_mul(MEMORY_PER_BATCH) <= memory
    }
}

/// The largest batches with which there is room for the largest record, and the most for data in flight; in
/// want of either, the largest that fit.
fn best_size(sizes: &[Needs], memory: ByteCount, room: ByteCount) -> Option<&Needs> {
    let part = ByteCount::new(memory.get() / IN_FLIGHT_PART);
    let lacks = |needs: &&Needs| {
        let has = |in_flight| needs.with_in_flight(in_flight) <= memory;
        (!has(room), !has(part))
    };
    let fits = |needs: &&Needs| needs.sum() <= memory && needs.is_for(memory);
    sizes.iter().filter(fits).min_by_key(lacks).or(sizes.last())
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
    let mut steps: Vec<MemoryNeed> = flow.steps.iter().map(need).collect();
    lease_together(flow, &mut steps);
    Needs { batch_bytes, in_flight, record_room: room_for_records(flow, batch_bytes), steps }
}

/// Bounds what global stages want together; of those with one lease, the first needs what any of them needs, the
/// others nothing.
fn lease_together(flow: &Flow, steps: &mut [MemoryNeed]) {
    let leases = leases::leases(flow);
    let n_leases = leases.iter().flatten().max().map_or(1, |last| *last as u64 + 1);
    let together =
        flow.execution.spill_threshold_mb.map_or(flow.memory.percent(PERCENT_SPILL), ByteCount::mb);
    let each = ByteCount::new(together.get() / n_leases);
    for place in (0..steps.len()).filter(|place| leases[*place].is_some()) {
        let MemoryNeed { min, want, .. } = std::mem::take(&mut steps[place]);
        let first = &mut steps[first_of_lease(&leases, place)];
        first.min = first.min.max(min);
        first.want = first.want.max(want.min(each));
    }
}

/// Of the memory, for global stages.
const PERCENT_SPILL: u64 = 50;

/// The first step with the lease of this one; a step without a lease is by itself.
fn first_of_lease(leases: &[Option<usize>], place: usize) -> usize {
    let same = |lease: &Option<usize>| lease.is_some() && *lease == leases[place];
    leases.iter().position(same).unwrap_or(place)
}

/// For one of the largest records that any source allows: there is one at a time. Not where a global stage would have
/// to give of its lease for it: it could not take such a record in.
fn room_for_records(flow: &Flow, batch_bytes: ByteCount) -> ByteCount {
    if leases::leases(flow).iter().any(Option::is_some) {
        return ByteCount::ZERO;
    }
    let largest = |step: &Step| match &step.kind {
        StepKind::Source(source) => source.largest_record(),
        _ => ByteCount::ZERO,
    };
    let largest = flow.steps.iter().map(largest).max().unwrap_or_default();
    if largest <= batch_bytes {
        return ByteCount::ZERO;
    }
    let record = largest.saturating_mul(COPIES_OF_A_RECORD);
    record.saturating_add(batch_bytes.saturating_mul(BATCHES_BESIDE_A_RECORD))
}

/// The memory with which the largest record fits: with the largest batches that so much memory has.
fn record_room(sizes: &[Needs]) -> RecordRoom {
    let memory = |needs: &Needs| needs.with_in_flight(needs.record_room);
    let has_such_batches = |needs: &&Needs| needs.is_for(memory(needs));
    let (Some(smallest), Some(needs)) = (sizes.last(), sizes.iter().find(has_such_batches).or(sizes.last()))
    else {
        return RecordRoom::default();
    };
    RecordRoom { in_flight: needs.record_room, memory: memory(needs), parted_from: parted_from(smallest) }
}

/// The least memory of which data in flight gets its part.
fn parted_from(needs: &Needs) -> ByteCount {
    let other_parts = needs.steps_min().get().div_ceil(IN_FLIGHT_PART - 1);
    ByteCount::new(other_parts).max(needs.in_flight).saturating_mul(IN_FLIGHT_PART)
}

fn divide(
    memory: ByteCount,
    needs: &Needs,
    room: ByteCount,
    leases: &[Option<usize>],
) -> (ByteCount, Vec<ByteCount>) {
    let mut rest = memory.saturating_sub(needs.sum());
    let at_best = ByteCount::new(memory.get() / IN_FLIGHT_PART).max(room);
    let more_in_flight = at_best.saturating_sub(needs.in_flight).min(rest);
    rest = rest.saturating_sub(more_in_flight);
    let mut shares: Vec<ByteCount> = needs.steps.iter().map(|need| need.min).collect();
    for round in [Round::First, Round::Leases, Round::Rest] {
        let has = needs.steps.iter().zip(leases).zip(&shares);
        let wishes: Vec<ByteCount> = has
            .map(|((need, lease), share)| round.wish(need, lease.is_some()).saturating_sub(*share))
            .collect();
        for (share, more) in shares.iter_mut().zip(shared_out(rest, &wishes)) {
            *share = share.saturating_add(more);
            rest = rest.saturating_sub(more);
        }
    }
    (needs.in_flight.saturating_add(more_in_flight).saturating_add(rest), shares)
}

/// In which order steps get more than they must have.
#[derive(Clone, Copy)]
enum Round {
    /// What decides what a step can do.
    First,
    /// What global stages want.
    Leases,
    /// What all want.
    Rest,
}

impl Round {
    /// How much a step wants to have in all.
    fn wish(self, need: &MemoryNeed, has_lease: bool) -> ByteCount {
        match self {
            Self::First => need.first.min(need.want),
            Self::Leases if !has_lease => ByteCount::ZERO,
            Self::Leases | Self::Rest => need.want,
        }
    }
}

/// Of what there is, equal parts for all, except that nobody gets more than they wish.
fn shared_out(there_is: ByteCount, wishes: &[ByteCount]) -> Vec<ByteCount> {
    let mut modest_first: Vec<usize> = (0..wishes.len()).collect();
    modest_first.sort_by_key(|place| wishes[*place]);
    let mut granted = vec![ByteCount::ZERO; wishes.len()];
    let mut rest = there_is;
    for (n_served, place) in modest_first.into_iter().enumerate() {
        let equal = ByteCount::new(rest.get() / (wishes.len() - n_served) as u64);
        granted[place] = wishes[place].min(equal);
        rest = rest.saturating_sub(granted[place]);
    }
    granted
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
