//! Inputs as one stream in an order: what `sort`, `dedup` and `tile` are made of.

use std::thread::{Scope, ScopedJoinHandle};

use aqueduct_core::{BatchStream, Context, Error, Inputs, Result, Stage};
use aqueduct_primitives::ByteCount;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::beside::{Desk, Done, beside};
use crate::plain::plain_pieces;
use crate::{ExternalSort, PendingRun, Run, SortMemory, SortOrder, SortSpec, Sorted};

/// Runs that are written while rows come in.
const RUN_MAKERS: u64 = 1;

/// How a lease is divided.
pub(super) fn memory_of(lease: ByteCount) -> SortMemory {
    SortMemory::of_lease(lease).with_run_makers(RUN_MAKERS)
}

/// All rows of the inputs in an order. Each batch is made plain, as `input` says, and then changed by `before`, which
/// gives rows of `schema`.
pub(crate) fn sort_inputs(
    desk: &mut Desk,
    n_inputs: usize,
    input: &SchemaRef,
    schema: &SchemaRef,
    order: SortOrder,
    before: impl FnMut(RecordBatch) -> Result<RecordBatch>,
) -> Result<Sorted> {
    let spec = SortSpec {
        schema: SchemaRef::clone(schema),
        order,
        memory: memory_of(desk.lease),
        compression: None,
        max_rows: desk.max_rows,
    };
    let sorted = fill(desk, n_inputs, input, spec, before)?.finish()?;
    desk.widen_output(ByteCount::new(sorted.room_bytes()))?;
    Ok(sorted)
}

/// [`sort_inputs`], as far as all rows of the inputs are taken in.
pub(super) fn fill(
    desk: &mut Desk,
    n_inputs: usize,
    input: &SchemaRef,
    spec: SortSpec,
    mut before: impl FnMut(RecordBatch) -> Result<RecordBatch>,
) -> Result<ExternalSort> {
    let block = ByteCount::new(spec.memory.block_bytes());
    let mut sort = ExternalSort::new(spec, desk.dir.clone())?.stopped_by(desk.stop());
    std::thread::scope(|scope| {
        let mut writing = None;
        let mut n_open = n_inputs;
        while n_open > 0 {
            let Some((records, _reservation)) = desk.feed.next_blocking()?.rows else {
                n_open -= 1;
                continue;
            };
            for rows in plain_pieces(records.columns().to_vec(), records.num_rows(), input, block)? {
                sort.push_with(&before(rows?)?, |pending| {
                    let written = wait(writing.take())?;
                    writing = Some(write_beside(scope, pending)?);
                    Ok(written)
                })?;
            }
        }
        wait(writing)?.into_iter().for_each(|run| sort.add(run));
        Ok::<_, Error>(())
    })?;
    Ok(sort)
}

type Writing<'scope> = ScopedJoinHandle<'scope, Result<Run>>;

/// Writes a run on a thread of its own, which ends before the rows have ended.
fn write_beside<'scope>(scope: &'scope Scope<'scope, '_>, pending: PendingRun) -> Result<Writing<'scope>> {
    let thread = std::thread::Builder::new().name("write-run".into());
    thread
        .spawn_scoped(scope, move || pending.write())
        .map_err(|error| Error::io("start a thread", "write-run", error))
}

/// The run that was being written, if there is one.
fn wait(writing: Option<Writing<'_>>) -> Result<Option<Run>> {
    let join =
        |writing: Writing<'_>| writing.join().map_err(|_| Error::bug("sort", "writing a run panicked"))?;
    writing.map(join).transpose()
}

/// What there is to say of a sort that has ended.
pub(crate) fn done(sorted: &Sorted) -> Done {
    Done { n_duplicates: sorted.report().n_duplicates }
}

/// All rows in an order, or the first of those that are alike in it: all of `sort` and of `dedup`, once they are bound.
pub(super) struct InOrder {
    pub(super) schema: SchemaRef,
    pub(super) order: SortOrder,
}

impl Stage for InOrder {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        let (schema, n_inputs) = (self.schema(), inputs.len());
        beside(inputs, self.schema(), cx, move |mut desk| {
            let mut sorted = sort_inputs(&mut desk, n_inputs, &schema, &schema, self.order, Ok)?;
            for records in &mut sorted {
                desk.out.send_blocking(records?, false)?;
            }
            Ok(done(&sorted))
        })
    }
}
