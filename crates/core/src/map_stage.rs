//! The common kind of stage: rows in, rows out, one batch at a time.

use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_stream::try_stream;
use futures::StreamExt;

use crate::{Batch, BatchStream, Context, Error, Inputs, Positions, Result, Stage};

/// The cause of an error of [`MapRows::map`]: what comes of the rows would weigh more than the step has memory, and was not
/// made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rows would grow by {n_bytes} bytes")]
pub struct BeyondMemory {
    /// By so many bytes, at least.
    pub n_bytes: u64,
}

/// A stage that turns one batch into one. Wrap it with [`map_stage`].
pub trait MapRows: Send + 'static {
    /// The columns that come out.
    fn schema(&self) -> SchemaRef;

    /// Turns rows into rows. Must give the same rows when a batch comes in two halves, and when it is called
    /// again: a result that does not fit the step's memory is thrown away and made in halves.
    ///
    /// # Errors
    /// The rows cannot be turned. With [`BeyondMemory`] as its cause they are tried again in halves: who can make much of
    /// little looks before it does.
    fn map(&mut self, records: RecordBatch, cx: &Context) -> Result<RecordBatch>;

    /// Called when the rows of the last [`MapRows::map`] go on: the place to count and to hand over rejects.
    ///
    /// # Errors
    /// The policy says that the run fails.
    fn settle(&mut self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    /// Whether no later row can come out: the rest of the input is not read.
    fn is_finished(&self) -> bool {
        false
    }
}

/// A [`MapRows`] as a [`Stage`]. A batch whose result does not fit the step's memory is turned in halves.
pub fn map_stage(map: impl MapRows) -> Box<dyn Stage> {
    Box::new(MapStage(map))
}

struct MapStage<M>(M);

impl<M: MapRows> Stage for MapStage<M> {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        let mut map = self.0;
        Box::pin(try_stream! {
            'inputs: for mut input in inputs {
                while let Some(batch) = input.next().await {
                    let whole = batch?; // `?` is not seen inside `vec![]` here
                    let mut pieces = vec![whole];
                    while let Some(piece) = pieces.pop() {
                        match map_one(&mut map, piece, &cx).await? {
                            Mapped::Whole(batch) => yield batch,
                            Mapped::TooLarge(first, second) => pieces.extend([second, first]),
                        }
                    }
                    if map.is_finished() {
                        break 'inputs;
                    }
                }
            }
        })
    }
}

enum Mapped {
    Whole(Batch),
    TooLarge(Batch, Batch),
}

async fn map_one(map: &mut impl MapRows, batch: Batch, cx: &Context) -> Result<Mapped> {
    let started = std::time::Instant::now();
    let mapped = map.map(batch.records().clone(), cx);
    cx.metrics().add_busy(started.elapsed());
    let growth = match mapped {
        Ok(records) => {
            let growth = crate::retained_bytes(&records).saturating_sub(batch.reserved());
            if growth <= cx.share().total() {
                map.settle(cx)?;
                return Ok(Mapped::Whole(cx.recharge(batch, records).await?));
            }
            growth
        }
        Err(error) => match error.cause::<BeyondMemory>() {
            Some(beyond) => ByteCount::new(beyond.n_bytes),
            None => return Err(error),
        },
    };
    if batch.num_rows() < 2 {
        return Err(Error::new(
            crate::ErrorKind::Limit,
            "transform",
            "one row grew beyond the step's memory; raise `memory`",
        )
        .with("step", cx.step())
        .with("grew_by_bytes", growth)
        .with("limit_bytes", cx.share().total()));
    }
    let (first, second) = halves(batch);
    Ok(Mapped::TooLarge(first, second))
}

/// The two halves of a batch; the positions and the reservation go with the second, which is dropped last.
fn halves(batch: Batch) -> (Batch, Batch) {
    let (records, reservation, positions, cut) = batch.into_parts();
    let middle = records.num_rows() / 2;
    let rest = records.slice(middle, records.num_rows() - middle);
    let first = Batch::new(records.slice(0, middle), aqueduct_primitives::Reservation::empty())
        .with_positions(Positions::default())
        .with_cut(cut);
    (first, Batch::new(rest, reservation).with_positions(positions))
}
