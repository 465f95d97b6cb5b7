//! Runs a plan beside the flow, on a thread of its own.

use std::sync::Arc;

use aqueduct_core::{BatchStream, Context, Error, Result, retained_bytes};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use datafusion_physical_plan::ExecutionPlan;
use futures::StreamExt;

use super::input::{Input, Live};
use super::pool::LeasePool;
use super::sort_runs::with_own_sorts;
use super::{inside, session};
use crate::beside::{Desk, Done, Fed, Output, beside};
use crate::plain::plain_rows;

/// Of a lease, one part in so many is for what operators hold and do not ask for, and for their code, which is resident
/// while they run: some tens of MB more than without them.
const UNASKED_PART: u64 = 2;
/// And no more than this, however large the lease.
const MAX_UNASKED: ByteCount = ByteCount::mib(16);

/// What the operators' pool has of a lease.
fn pool_of(lease: ByteCount) -> ByteCount {
    lease.saturating_sub(ByteCount::new(lease.get() / UNASKED_PART).min(MAX_UNASKED))
}

/// What a row takes before any was seen.
const USUAL_ROW_BYTES: u64 = 256;

/// The rows of a plan over one input, of these columns. The lease is the step's share, taken when the first row is
/// asked for and held until the plan has ended. The positions of the input pass after the last row.
///
/// # Cancel safety
/// As [`beside`].
pub(crate) fn run(
    plan: Arc<dyn ExecutionPlan>,
    input: Arc<Input>,
    stream: BatchStream,
    schema: SchemaRef,
    cx: Context,
) -> BatchStream {
    let columns = Arc::clone(&schema);
    beside(vec![stream], schema, cx, move |desk| {
        // Operators start blocking reads of their own, which need a runtime; it ends with them.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| Error::io("run a plan", "runtime", error))?;
        runtime.block_on(Run { plan, input, columns }.drive(desk))
    })
}

struct Run {
    plan: Arc<dyn ExecutionPlan>,
    input: Arc<Input>,
    columns: SchemaRef,
}

impl Run {
    async fn drive(self, mut desk: Desk) -> Result<Done> {
        let first = desk.feed.next().await?;
        let lease = pool_of(desk.lease);
        let pool = Arc::new(LeasePool::new(lease, Arc::clone(&desk.pace)));
        let plan = with_own_sorts(self.plan, lease, &desk.dir, &desk.stop()).map_err(inside)?;
        let (dir, row_bytes) = (desk.dir.clone(), row_bytes(&first));
        let task = session::task(pool, dir, lease, row_bytes, desk.max_rows).map_err(inside)?;
        let live = Live::new(first, desk.feed, lease);
        self.input.connect(live, &desk.dir).await?;
        let rows = plan.execute(0, Arc::new(task)).map_err(inside)?;
        send_all(rows, &desk.out, &self.columns).await?;
        Ok(Done::default())
    }
}

async fn send_all(
    mut rows: datafusion_execution::SendableRecordBatchStream,
    out: &Output,
    columns: &SchemaRef,
) -> Result<()> {
    loop {
        let next = tokio::select! {
            biased;
            () = out.stopped() => return Err(Error::cancelled("run a plan")),
            next = rows.next() => next,
        };
        let Some(records) = next.transpose().map_err(inside)? else { return Ok(()) };
        out.send(plain_rows(records.columns().to_vec(), records.num_rows(), columns)?).await?;
    }
}

/// What a row takes, by the first batch.
fn row_bytes(first: &Fed) -> u64 {
    match &first.rows {
        Some((records, _)) if records.num_rows() > 0 => {
            retained_bytes(records).get().div_ceil(records.num_rows() as u64)
        }
        _ => USUAL_ROW_BYTES,
    }
}
