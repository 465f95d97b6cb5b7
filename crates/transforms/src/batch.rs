//! `batch`: cuts the stream into batches of so many rows or bytes, or of what came in a time. Rows stay in
//! order.
//!
//! Rows that wait are copied into the stage's own share of memory, so that they hold nothing that a source
//! waits for. When the share is spent, a batch goes on before it is full.

use std::num::NonZeroUsize;
use std::time::Duration;

use aqueduct_core::rows::{copied, row_bytes};
use aqueduct_core::{
    Batch, BatchStream, ComponentInfo, Context, Error, Factory, Inputs, MemoryNeed, Planning, Positions,
    Problem, Result, Stage, StageConfig, only_input, retained_bytes, units,
};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::{Stream, StreamExt};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "batch",
    summary: "Cuts the stream into batches of so many rows or bytes, or of what came in a time",
    example: "batch: { rows: 1000, bytes: 1MiB, every: 5s }",
});

/// When a batch is full: at the first of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// So many rows; `execution.batch_size` if not given.
    rows: Option<NonZeroUsize>,
    /// So many bytes in memory: `1MiB`; `execution.batch_bytes` if not given.
    #[serde(default, deserialize_with = "units::optional_byte_count")]
    #[schemars(with = "Option<units::Size>")]
    bytes: Option<ByteCount>,
    /// So much time after its first row: `5s`.
    #[serde(default, deserialize_with = "units::optional_duration")]
    #[schemars(with = "Option<units::Period>")]
    every: Option<Duration>,
}

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.rows.is_none() && self.bytes.is_none() && self.every.is_none() {
            problems
                .push(Problem::at("", "nothing says when a batch is full; give `rows`, `bytes` or `every`"));
        }
        if self.bytes == Some(ByteCount::ZERO) {
            problems.push(Problem::at("/bytes", "no bytes at all; write `1MiB` or leave it out"));
        }
        problems
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        let full = self.bytes.unwrap_or(planning.batch_bytes);
        MemoryNeed::between(ByteCount::kib(512), ByteCount::new(full.get().saturating_mul(2)))
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let schema = only_input(inputs)?;
        Ok(Box::new(Rebatch { rows: self.rows, bytes: self.bytes, every: self.every, schema }))
    }
}

struct Rebatch {
    rows: Option<NonZeroUsize>,
    bytes: Option<ByteCount>,
    every: Option<Duration>,
    schema: SchemaRef,
}

impl Stage for Rebatch {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        Box::pin(try_stream! {
            let mut waiting = Waiting::new(&self, &cx);
            let mut input = futures::stream::iter(inputs).flatten();
            loop {
                let batch = match waiting.next(&mut input).await {
                    Next::Batch(batch) => batch?,
                    Next::TimeIsUp => {
                        yield waiting.give(&cx).await?;
                        continue;
                    }
                    Next::End => break,
                };
                if batch.cut() && !waiting.is_empty() {
                    yield waiting.give(&cx).await?;
                }
                if batch.num_rows() == 0 {
                    let is_checkpoint = batch.positions().checkpoint().is_some();
                    match waiting.is_empty() {
                        true => yield batch,
                        false => waiting.positions.merge(batch.into_parts().2),
                    }
                    if is_checkpoint && !waiting.is_empty() {
                        yield waiting.give(&cx).await?;
                    }
                    continue;
                }
                let mut rest = Rest { row_bytes: row_bytes(batch.records()), batch, at: 0 };
                while let Some(piece) = waiting.fitting(&rest)? {
                    if !waiting.has_room(&piece, &cx) {
                        yield waiting.give(&cx).await?;
                        continue;
                    }
                    waiting.take(piece, &mut rest, &cx).await?;
                    if waiting.is_full() {
                        yield waiting.give(&cx).await?;
                    }
                }
            }
            if !waiting.is_empty() {
                yield waiting.give(&cx).await?;
            }
        })
    }
}

/// What comes next.
enum Next {
    Batch(Result<Batch>),
    TimeIsUp,
    End,
}

/// A batch, what each of its rows weighs, and how many of them were taken.
struct Rest {
    batch: Batch,
    row_bytes: Vec<u64>,
    at: usize,
}

/// The rows of a batch that is not full yet.
struct Waiting {
    schema: SchemaRef,
    max_rows: usize,
    max_bytes: ByteCount,
    every: Option<Duration>,
    pieces: Vec<RecordBatch>,
    n_rows: usize,
    reservation: Reservation,
    positions: Positions,
    cut: bool,
    deadline: Option<Instant>,
}

impl Waiting {
    fn new(stage: &Rebatch, cx: &Context) -> Self {
        let half_of_share = ByteCount::new(cx.share().total().get() / 2);
        Self {
            schema: stage.schema(),
            max_rows: stage.rows.map_or(cx.batch_rows().max(1), NonZeroUsize::get),
            max_bytes: stage.bytes.unwrap_or(cx.batch_bytes()).min(half_of_share),
            every: stage.every,
            pieces: Vec::new(),
            n_rows: 0,
            reservation: Reservation::empty(),
            positions: Positions::default(),
            cut: false,
            deadline: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    fn is_full(&self) -> bool {
        self.n_rows >= self.max_rows || self.reservation.size() >= self.max_bytes
    }

    /// What the input gives, unless the time of the rows that wait is up before.
    async fn next(&self, input: &mut (impl Stream<Item = Result<Batch>> + Unpin)) -> Next {
        let next = match self.deadline {
            Some(deadline) => timeout_at(deadline, input.next()).await,
            None => Ok(input.next().await),
        };
        match next {
            Err(_elapsed) => Next::TimeIsUp,
            Ok(None) => Next::End,
            Ok(Some(batch)) => Next::Batch(batch),
        }
    }

    /// A copy of the next rows, as many as have room beside those that wait, but at least one. Nothing when all are
    /// taken.
    fn fitting(&self, rest: &Rest) -> Result<Option<RecordBatch>> {
        let left = rest.row_bytes.get(rest.at..).unwrap_or_default();
        if left.is_empty() {
            return Ok(None);
        }
        let room = self.max_bytes.saturating_sub(self.reservation.size()).get();
        let mut n_bytes = 0;
        let fits = |row_bytes: &&u64| {
            n_bytes += **row_bytes;
            n_bytes <= room
        };
        let n_rows = left.iter().take(self.max_rows - self.n_rows).take_while(fits).count().max(1);
        copied(rest.batch.records(), rest.at..rest.at + n_rows).map(Some)
    }

    /// Whether the rows can wait with those that wait already.
    fn has_room(&self, piece: &RecordBatch, cx: &Context) -> bool {
        let weight = retained_bytes(piece);
        let together = self.reservation.size().saturating_add(weight);
        self.is_empty() || (together <= self.max_bytes && weight <= cx.share().free())
    }

    /// Lets the rows wait. Waits itself only when it holds nothing else: for its own earlier output to go on.
    async fn take(&mut self, piece: RecordBatch, rest: &mut Rest, cx: &Context) -> Result<()> {
        let reservation = cx.share().reserve(retained_bytes(&piece)).await?;
        self.reservation.merge(reservation);
        self.cut |= rest.at == 0 && rest.batch.cut();
        rest.at += piece.num_rows();
        if rest.at == rest.batch.num_rows() {
            self.positions.merge(rest.batch.positions().clone());
        }
        self.n_rows += piece.num_rows();
        self.pieces.push(piece);
        self.deadline = self.deadline.or_else(|| Instant::now().checked_add(self.every?));
        Ok(())
    }

    /// Everything that waits, as one batch.
    async fn give(&mut self, cx: &Context) -> Result<Batch> {
        let records = concat_batches(&self.schema, &std::mem::take(&mut self.pieces))
            .map_err(|error| Error::bug("batch", error.to_string()))?;
        let held = Batch::new(
            RecordBatch::new_empty(SchemaRef::clone(&self.schema)),
            std::mem::take(&mut self.reservation),
        )
        .with_positions(std::mem::take(&mut self.positions))
        .with_cut(std::mem::take(&mut self.cut));
        self.n_rows = 0;
        self.deadline = None;
        cx.recharge(held, records).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, int_column, problems};
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::Arc;

    fn numbers(range: std::ops::Range<usize>) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(range.map(|n| i64::try_from(n).ok()).collect::<Int64Array>());
        RecordBatch::try_from_iter_with_nullable([("a", numbers, true)]).unwrap()
    }

    #[tokio::test]
    async fn batches_have_so_many_rows() {
        let input = vec![numbers(0..3), numbers(3..4), numbers(4..11)];
        let bench = Bench::new();
        let out = bench.batches("batch", json!({"rows": 4}), input).await.unwrap();
        let sizes: Vec<_> = out.iter().map(Batch::num_rows).collect();
        assert_eq!(sizes, [4, 4, 3]);
        assert!(out[0].positions().is_done("split-1") && !out[1].positions().is_done("split-2"));
        assert!(out[2].positions().is_done("split-2"));
    }

    #[tokio::test]
    async fn batches_are_as_full_as_rows_allow_and_a_wide_row_is_alone() {
        let text = |n: usize| "x".repeat(if n == 150 { 2 << 20 } else { 10_000 });
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..301).map(text)));
        let rows = RecordBatch::try_from_iter([("a", texts)]).unwrap();
        let out = Bench::new().batches("batch", json!({"bytes": "1MiB"}), vec![rows]).await.unwrap();
        let sizes: Vec<_> = out.iter().map(Batch::num_rows).collect();
        assert_eq!(sizes, [104, 46, 1, 104, 46]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_goes_on_when_its_time_is_up() {
        let bench = Bench::new();
        let slow =
            bench.slow_input(vec![numbers(0..1), numbers(1..2), numbers(2..3)], Duration::from_secs(2));
        let out = bench.batches_of("batch", json!({"every": "3s"}), slow).await.unwrap();
        let sizes: Vec<_> = out.iter().map(Batch::num_rows).collect();
        assert_eq!(sizes, [2, 1]);
    }

    // MEM-2
    #[tokio::test]
    async fn rows_that_wait_hold_nothing_of_the_flow() {
        let bench = Bench::new();
        let out =
            bench.batches("batch", json!({"rows": 1000}), vec![numbers(0..500), numbers(500..900)]).await;
        assert_eq!(out.unwrap().len(), 1);
        assert_eq!(bench.flow_held_at_last_pull(), ByteCount::ZERO);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn rows_and_positions_all_come_in_order(sizes in prop::collection::vec(0_usize..40, 1..8), rows in 1_usize..50, bytes in 1_u64..2000) {
            let mut next = 0;
            let input = sizes.iter().map(|n| { next += n; numbers(next - n..next) }).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let bench = Bench::new();
                let out = bench.run("batch", json!({"rows": rows, "bytes": bytes}), input).await.unwrap();
                let expected: Vec<i64> = (0..i64::try_from(next).unwrap()).collect();
                assert_eq!(int_column(&out, "a"), expected);
                assert_eq!(bench.positions().iter().count(), sizes.len());
            });
        }
    }

    #[test]
    fn something_must_say_when() {
        assert!(problems("batch", json!({}), &numbers(0..1))[0].message.contains("nothing says"));
        assert_eq!(problems("batch", json!({"bytes": 0}), &numbers(0..1))[0].pointer, "/bytes");
    }
}
