//! Text formats: blocks of whole records, decoded in parallel, given in order.
//!
//! One task reads, unpacks and cuts; blocks are decoded as compute jobs, a bounded number at once; the
//! stream gives their rows in the order of the file and counts them.

mod blocks;
mod column;
mod csv;
mod cut;
mod fill;
mod geometry;
mod infer;
mod json;
mod json_scan;
mod plan;
mod rows;
pub(crate) mod shape;
#[cfg(test)]
pub(crate) mod tests;
mod value;

use std::collections::VecDeque;
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, MemoryNeed, Result};
use aqueduct_primitives::{ByteCount, Task, TaskError, Tasks};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use tokio::sync::mpsc;

use crate::origin::with_origin;
use crate::unpack::Unpacker;
use crate::{DecodeSpec, Decoded, DecodedStream, NeedsSpool, output_schema};
use blocks::{Block, Cutting, read_blocks};
pub(crate) use column::Fields;
pub(crate) use fill::{Filling, Path, fill_column, fill_field};
pub use infer::Inference;
pub(crate) use infer::infer_text;
pub(crate) use json::{Json, Kind, unescaped};
use rows::{Part, decode_part};
pub(crate) use value::{BadValue, float, shown, type_name};

/// Blocks larger than this are no quicker.
const BEST_BLOCK: ByteCount = ByteCount::mib(1);

/// Blocks smaller than this spend their time on being begun.
const LEAST_BLOCK: ByteCount = ByteCount::kib(64);

/// How much is in flight.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    n_parallel: usize,
    /// Of a block, and of a batch made of one.
    bytes: ByteCount,
}

impl InFlight {
    /// One block fills and one waits; of those that are decoded, each has a batch beside it.
    const fn n_units(n_parallel: u64) -> u64 {
        2 * n_parallel + 2
    }

    /// The most that can be made of so much memory.
    fn within(memory: ByteCount, tasks: u64) -> Self {
        let fits = |n: &u64| memory.get() / Self::n_units(*n) >= BEST_BLOCK.get() / 4;
        let n_parallel = (1..=tasks).rev().find(fits).unwrap_or(1);
        let unit = ByteCount::new(memory.get() / Self::n_units(n_parallel));
        let bytes = unit.max(LEAST_BLOCK).min(BEST_BLOCK);
        Self { n_parallel: usize::try_from(n_parallel).unwrap_or(1), bytes }
    }
}

fn n_processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(8)
}

/// The memory of one file's reader: at least, and at best.
pub(crate) fn memory_need() -> MemoryNeed {
    let least = LEAST_BLOCK.saturating_mul(InFlight::n_units(1));
    MemoryNeed::between(least, BEST_BLOCK.saturating_mul(InFlight::n_units(n_processors())))
}

/// The rows of text.
pub(crate) fn decode_text(unpacker: Unpacker, spec: DecodeSpec, tasks: &Tasks) -> DecodedStream {
    let tasks = tasks.clone();
    Box::pin(try_stream! {
        let in_flight = InFlight::within(spec.memory, n_processors());
        let batch_bytes = spec.batch_bytes.min(in_flight.bytes).as_usize();
        let (sender, receiver) = mpsc::channel(1);
        let cutting = Cutting {
            name: Arc::clone(&spec.name),
            options: Arc::clone(&spec.options),
            block_bytes: in_flight.bytes.as_usize(),
            large_records: Arc::clone(&spec.large_records),
            flush_after: spec.flush_after,
            planner: plan::planner(&spec, batch_bytes),
        };
        let _reader = tasks.spawn(read_blocks(unpacker, cutting, sender));
        let mut numbering = Numbering::new(&spec);
        let mut jobs = Jobs::new(receiver, in_flight.n_parallel, tasks);
        while let Some(part) = jobs.next().await.map_err(|error| numbering.locate(error))? {
            yield numbering.number(part)?;
        }
    })
}

/// Blocks being decoded, in order.
struct Jobs {
    blocks: Option<mpsc::Receiver<Result<Block>>>,
    running: VecDeque<Task<Result<Result<Part>, TaskError>>>,
    /// Why the reader stopped, told once what came before has been given.
    error: Option<Error>,
    n_parallel: usize,
    tasks: Tasks,
}

enum Event {
    Decoded(Result<Result<Result<Part>, TaskError>, TaskError>),
    Block(Option<Result<Block>>),
}

impl Jobs {
    fn new(blocks: mpsc::Receiver<Result<Block>>, n_parallel: usize, tasks: Tasks) -> Self {
        Self { blocks: Some(blocks), running: VecDeque::new(), error: None, n_parallel, tasks }
    }

    fn start(&self, block: Block) -> Task<Result<Result<Part>, TaskError>> {
        let tasks = self.tasks.clone();
        self.tasks.spawn(async move { tasks.compute(move || decode_part(block)).await })
    }

    /// The next rows in order; nothing at the end.
    async fn next(&mut self) -> Result<Option<Part>> {
        while let Some(event) = self.wait().await {
            match event {
                Event::Decoded(result) => {
                    self.running.pop_front();
                    let mut part = result.and_then(|inner| inner).map_err(failed)??;
                    if let Some(rest) = part.rest.take() {
                        let job = self.start(rest);
                        self.running.push_front(job);
                    }
                    return Ok(Some(part));
                }
                Event::Block(Some(Ok(block))) => self.running.push_back(self.start(block)),
                Event::Block(Some(Err(error))) => {
                    self.error = Some(error);
                    self.blocks = None;
                }
                Event::Block(None) => self.blocks = None,
            }
        }
        self.error.take().map_or(Ok(None), Err)
    }

    /// What happens first; nothing when nothing can.
    async fn wait(&mut self) -> Option<Event> {
        let blocks = self.blocks.as_mut().filter(|_| self.running.len() < self.n_parallel);
        match (self.running.front_mut(), blocks) {
            (None, None) => None,
            (Some(job), None) => Some(Event::Decoded(job.await)),
            (None, Some(blocks)) => Some(Event::Block(blocks.recv().await)),
            (Some(job), Some(blocks)) => Some(tokio::select! {
                biased;
                decoded = job => Event::Decoded(decoded),
                block = blocks.recv() => Event::Block(block),
            }),
        }
    }
}

/// A panic is the file's fault: it goes the way of bad files, not of defects.
pub(crate) fn failed(error: TaskError) -> Error {
    match error {
        TaskError::Panicked(message) => {
            let text = format!("the reader gave up on this file: {message}");
            Error::new(ErrorKind::Data, "decode", text)
        }
        other => other.into(),
    }
}

/// Counts rows through the file.
struct Numbering {
    name: Arc<str>,
    schema: SchemaRef,
    origin: bool,
    n_rows: u64,
}

impl Numbering {
    fn new(spec: &DecodeSpec) -> Self {
        Self {
            name: Arc::clone(&spec.name),
            schema: output_schema(&spec.schema, &spec.options, spec.origin),
            origin: spec.origin,
            n_rows: spec.after.as_ref().map_or(0, |after| after.n_rows),
        }
    }

    /// Says in which file.
    fn locate(&self, error: Error) -> Error {
        let error = match NeedsSpool::of(&error) {
            Some(needs) => needs.after_rows(self.n_rows),
            None => error,
        };
        if error.context("file").is_some() { error } else { error.with("file", &self.name) }
    }

    fn number(&mut self, part: Part) -> Result<Decoded> {
        let rows_read = part.n_rows();
        let bad: Vec<u64> = part.rejects.iter().map(|reject| reject.row).collect();
        let columns = match self.origin {
            true => with_origin(part.columns, &self.name, self.n_rows, part.n_good, &bad),
            false => part.columns,
        };
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(part.n_good));
        let records = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| Error::bug("decode", "columns do not fit the schema").with_source(error))?;
        let mut rejects = part.rejects;
        rejects.iter_mut().for_each(|reject| reject.row += self.n_rows);
        self.n_rows += rows_read;
        Ok(Decoded { records, rows_read, rejects, reservation: part.large })
    }
}
