//! `limit`: lets the first rows pass and then stops what feeds it. Rows stay in order; nothing is copied.

use aqueduct_core::{
    Batch, BatchStream, ComponentInfo, Context, Factory, Inputs, Problem, Result, Stage, StageConfig,
    only_input,
};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "limit",
    summary: "Lets the first rows pass and stops what feeds it",
    example: "limit: 10",
});

/// How many rows pass. Rows that were read with the last of them count as filtered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(u64);

impl StageConfig for Config {
    /// How many are left is not kept.
    fn is_resumable(&self) -> bool {
        false
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        Ok(Box::new(Limit { max_rows: self.0, schema: only_input(inputs)? }))
    }
}

struct Limit {
    max_rows: u64,
    schema: SchemaRef,
}

impl Stage for Limit {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        let mut n_left = self.max_rows;
        Box::pin(try_stream! {
            let mut input = futures::stream::iter(inputs).flatten();
            while n_left > 0 {
                let Some(batch) = input.next().await else { break };
                let batch = first_rows(batch?, n_left, &cx);
                n_left -= batch.num_rows() as u64;
                yield batch;
            }
        })
    }
}

/// At most so many rows of a batch; the others count as filtered.
fn first_rows(batch: Batch, max_rows: u64, cx: &Context) -> Batch {
    let n_rows = batch.num_rows();
    let n_kept = usize::try_from(max_rows).unwrap_or(usize::MAX).min(n_rows);
    if n_kept == n_rows {
        return batch;
    }
    cx.metrics().rows_filtered.add_len(n_rows - n_kept);
    let kept = batch.records().slice(0, n_kept);
    batch.with_records(kept)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, batch_of, int_column};
    use serde_json::json;

    #[tokio::test]
    async fn the_first_rows_pass_and_no_more_is_read() {
        let batches =
            || (0..5).map(|n| batch_of(&format!(r#"[{{"a": {n}}}, {{"a": {}}}]"#, n + 10))).collect();
        let bench = Bench::new();
        let out = bench.run("limit", json!(3), batches()).await.unwrap();
        assert_eq!(int_column(&out, "a"), [0, 10, 1]);
        assert_eq!(bench.n_pulled(), 2, "batches read");
        assert_eq!(bench.metrics().rows_filtered.get(), 1);

        let bench = Bench::new();
        assert_eq!(bench.run("limit", json!(0), batches()).await.unwrap().num_rows(), 0);
        assert_eq!(bench.n_pulled(), 0);
        assert_eq!(Bench::new().run("limit", json!(99), batches()).await.unwrap().num_rows(), 10);
    }
}
