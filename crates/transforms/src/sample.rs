//! `sample`: keeps a random part of the rows, the same ones for the same seed. Rows stay in order; the memory
//! is that of the rows kept.
//!
//! Whether a row is kept depends on the seed and on its number in the stream alone, not on how rows are cut
//! into batches.

use aqueduct_core::{
    ComponentInfo, Context, Error, Factory, MapRows, Problem, Result, Stage, StageConfig, map_stage,
    only_input,
};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "sample",
    summary: "Keeps a random part of the rows, the same ones for the same seed",
    example: "sample: { fraction: 0.01, seed: 42 }",
});

/// Which part of the rows to keep.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The part of the rows to keep, from 0 to 1: each row is kept with this probability.
    #[schemars(range(min = 0, max = 1))]
    fraction: f64,
    /// Another seed keeps other rows.
    #[serde(default)]
    seed: u64,
}

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        match (0.0..=1.0).contains(&self.fraction) {
            true => Vec::new(),
            false => {
                let message =
                    format!("{} is no part of a whole; expected a number from 0 to 1", self.fraction);
                vec![Problem::at("/fraction", message)]
            }
        }
    }

    /// How many rows went by is not kept.
    fn is_resumable(&self) -> bool {
        false
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let schema = only_input(inputs)?;
        Ok(map_stage(Sample { fraction: self.fraction, seed: self.seed, schema, n_before: 0, last: (0, 0) }))
    }
}

struct Sample {
    fraction: f64,
    seed: u64,
    schema: SchemaRef,
    /// Rows that went by before.
    n_before: u64,
    /// Rows of the last pass, and how many of them were kept.
    last: (usize, usize),
}

impl MapRows for Sample {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn map(&mut self, records: RecordBatch, _cx: &Context) -> Result<RecordBatch> {
        let keep: BooleanArray = (0..records.num_rows() as u64)
            .map(|n| Some(uniform(self.seed, self.n_before + n) < self.fraction))
            .collect();
        let kept =
            filter_record_batch(&records, &keep).map_err(|error| Error::bug("sample", error.to_string()))?;
        self.last = (records.num_rows(), kept.num_rows());
        Ok(kept)
    }

    fn settle(&mut self, cx: &Context) -> Result<()> {
        let (n_rows, n_kept) = self.last;
        self.n_before += n_rows as u64;
        cx.metrics().rows_filtered.add_len(n_rows - n_kept);
        Ok(())
    }
}

/// A number from 0 to below 1 for each row: SplitMix64 (Steele, Lea, Flood 2014), entered at the row's place.
fn uniform(seed: u64, row: u64) -> f64 {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = seed.wrapping_add(row.wrapping_add(1).wrapping_mul(GAMMA));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    // 53 bits fill a double exactly.
    (z >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, batch_of, int_column, problems};
    use serde_json::json;

    fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
        let rows: Vec<_> = range.map(|a| json!({ "a": a })).collect();
        batch_of(&json!(rows).to_string())
    }

    #[tokio::test]
    async fn the_same_rows_are_kept_however_they_are_batched() {
        let options = || json!({"fraction": 0.3, "seed": 7});
        let whole = Bench::new().run("sample", options(), vec![numbers(0..5000)]).await.unwrap();
        let parts = vec![numbers(0..17), numbers(17..4000), numbers(4000..5000)];
        let bench = Bench::new();
        let parts = bench.run("sample", options(), parts).await.unwrap();
        assert_eq!(int_column(&whole, "a"), int_column(&parts, "a"));
        assert!((1350..1650).contains(&whole.num_rows()), "{}", whole.num_rows());
        assert_eq!(bench.metrics().rows_filtered.get(), 5000 - whole.num_rows() as u64);

        let options = json!({"fraction": 0.3, "seed": 8});
        let other = Bench::new().run("sample", options, vec![numbers(0..5000)]).await.unwrap();
        assert_ne!(int_column(&whole, "a"), int_column(&other, "a"));
    }

    #[tokio::test]
    async fn none_and_all() {
        let run = |fraction: f64| async move {
            let rows = vec![numbers(0..100)];
            Bench::new().run("sample", json!({ "fraction": fraction }), rows).await.unwrap().num_rows()
        };
        assert_eq!((run(0.0).await, run(1.0).await), (0, 100));
    }

    #[test]
    fn a_part_is_between_none_and_all() {
        assert_eq!(problems("sample", json!({"fraction": 1.5}), &numbers(0..1))[0].pointer, "/fraction");
    }
}
