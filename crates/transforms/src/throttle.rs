//! `throttle`: lets at most so many rows pass in a time, by cutting batches and waiting between the pieces.
//! Rows stay in order; nothing is copied. Rows that wait keep their reservation, so that whatever feeds this
//! stage slows down with it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{
    Batch, BatchStream, ComponentInfo, Context, Factory, Inputs, Problem, Result, Stage, StageConfig,
    only_input, units,
};
use aqueduct_primitives::{Reservation, Throttle as Meter};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "throttle",
    summary: "Lets at most so many rows pass in a time",
    example: "throttle: { rows: 1000, per: 1s }",
});

/// How many rows may pass in how much time. They pass in pieces of a tenth.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// How many rows.
    rows: NonZeroU32,
    /// In how much time: `1s`, `100ms`, `1m`.
    #[serde(
        default = "one_second",
        deserialize_with = "units::duration",
        serialize_with = "units::write_duration"
    )]
    #[schemars(with = "units::Period")]
    per: Duration,
}

const fn one_second() -> Duration {
    Duration::from_secs(1)
}

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        match self.per.is_zero() {
            true => vec![Problem::at("/per", "no time at all; write `1s`, or leave the stage out")],
            false => Vec::new(),
        }
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let (n_rows, per) = (self.rows.get(), self.per);
        Ok(Box::new(Throttle { n_rows, per, schema: only_input(inputs)? }))
    }
}

struct Throttle {
    n_rows: u32,
    per: Duration,
    schema: SchemaRef,
}

impl Stage for Throttle {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        let stop = cx.tasks().cancelled().clone();
        let mut meter = Meter::new(self.n_rows, self.per);
        let max_rows = (self.n_rows / 10).max(1);
        Box::pin(try_stream! {
            let mut input = futures::stream::iter(inputs).flatten();
            while let Some(batch) = input.next().await {
                let mut pieces = Pieces::new(batch?);
                while let Some((n_rows, piece)) = pieces.next(max_rows) {
                    if n_rows > 0 {
                        // A run that is being stopped drains at once.
                        let _stopped = stop.run_until_cancelled(meter.ready()).await;
                        meter.spend(n_rows);
                    }
                    yield piece;
                }
            }
        })
    }
}

/// A batch, piece by piece. The pieces share its reservation; positions go with the last.
struct Pieces {
    rest: Option<Batch>,
    reservation: Arc<Reservation>,
}

impl Pieces {
    fn new(batch: Batch) -> Self {
        let (records, reservation, positions, cut) = batch.into_parts();
        let rest = Batch::new(records, Reservation::empty()).with_positions(positions).with_cut(cut);
        Self { rest: Some(rest), reservation: Arc::new(reservation) }
    }

    /// The next rows, at most so many, and how many they are.
    fn next(&mut self, max_rows: u32) -> Option<(u32, Batch)> {
        let batch = self.rest.take()?;
        let n_rows = u32::try_from(batch.num_rows()).unwrap_or(u32::MAX).min(max_rows);
        let at = n_rows as usize;
        let (records, _, positions, cut) = batch.into_parts();
        let mut piece = Batch::new(records.slice(0, at), Reservation::empty()).with_cut(cut);
        piece.reservation_mut().attach(Arc::clone(&self.reservation));
        if at == records.num_rows() {
            return Some((n_rows, piece.with_positions(positions)));
        }
        let rest = records.slice(at, records.num_rows() - at);
        self.rest = Some(Batch::new(rest, Reservation::empty()).with_positions(positions));
        Some((n_rows, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, batch_of, problems};
    use serde_json::json;

    fn numbers(n: u32) -> arrow::array::RecordBatch {
        let rows: Vec<_> = (0..n).map(|a| json!({ "a": a })).collect();
        batch_of(&json!(rows).to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn rows_pass_no_faster_than_they_may() {
        let bench = Bench::new();
        let start = tokio::time::Instant::now();
        let mut stream = bench.stream("throttle", json!({"rows": 10, "per": "1s"}), vec![numbers(35)]);
        let mut n_rows = 0;
        while let Some(batch) = stream.next().await {
            n_rows += batch.unwrap().num_rows();
            let most = 10.0 + 10.0 * start.elapsed().as_secs_f64() + 1.0;
            assert!(
                f64::from(u32::try_from(n_rows).unwrap()) <= most,
                "{n_rows} rows in {:?}",
                start.elapsed()
            );
        }
        assert_eq!(n_rows, 35);
        assert!(start.elapsed() >= Duration::from_millis(2400), "{:?}", start.elapsed());
    }

    // MEM-1
    #[tokio::test(start_paused = true)]
    async fn the_reservation_goes_back_with_the_last_piece_only() {
        let bench = Bench::new();
        let batches =
            bench.batches("throttle", json!({"rows": 1, "per": "1s"}), vec![numbers(3)]).await.unwrap();
        assert_eq!(batches.len(), 3);
        assert!(batches[..2].iter().all(|batch| batch.positions().is_empty()));
        assert!(batches[2].positions().is_done("split-0"));
        let mut batches = batches;
        let held = bench.cx.flow().free();
        assert!(held < bench.cx.flow().total());
        drop(batches.pop());
        drop(batches.pop());
        assert_eq!(bench.cx.flow().free(), held, "a piece is still alive");
        drop(batches);
        assert_eq!(bench.cx.flow().free(), bench.cx.flow().total());
    }

    #[test]
    fn a_time_needs_a_unit() {
        let rows = numbers(1);
        assert!(problems("throttle", json!({"rows": 1, "per": 5}), &rows)[0].message.contains("such as 5s"));
        assert_eq!(problems("throttle", json!({"rows": 1, "per": "0s"}), &rows)[0].pointer, "/per");
        assert!(problems("throttle", json!({"rows": 0}), &rows)[0].message.contains("zero"));
    }
}
