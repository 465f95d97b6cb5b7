//! `primes`: the prime numbers below a limit, in order. Memory: one batch.

use std::sync::Arc;

use aqueduct::core::{
    ComponentInfo, Context, Factory, MemoryNeed, Planning, Problem, Result, Source, SourceConfig,
};
use aqueduct::primitives::ByteCount;
use aqueduct::sources::source_fn;
use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::stream;
use schemars::JsonSchema;
use serde::Deserialize;

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "primes",
    summary: "Gives the prime numbers below a limit",
    example: "primes: { below: 1000 }",
});

/// The largest `below`.
const MAX_BELOW: u64 = 10_000_000;

/// Options of `primes`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// All of them are smaller.
    below: u64,
}

#[async_trait]
impl SourceConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        match self.below {
            0..=MAX_BELOW => Vec::new(),
            _ => vec![Problem::at("/below", format!("too many; expected at most {MAX_BELOW}"))],
        }
    }

    fn known_schema(&self, _: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        Ok(Some(schema()))
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        MemoryNeed::between(ByteCount::kib(64), planning.batch_bytes)
    }

    async fn open(self: Box<Self>, cx: &Context) -> Result<Box<dyn Source>> {
        let n_rows = cx.batch_rows();
        Ok(source_fn(schema(), move |_| stream::iter(batches(self.below, n_rows))))
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("prime", DataType::UInt64, false)]))
}

/// Batches of so many rows, made when they are asked for.
fn batches(below: u64, n_rows: usize) -> impl Iterator<Item = Result<RecordBatch>> {
    let mut primes = (2..below).filter(|n| is_prime(*n));
    std::iter::from_fn(move || {
        let column: ArrayRef = Arc::new(UInt64Array::from_iter_values(primes.by_ref().take(n_rows)));
        (!column.is_empty()).then(|| {
            RecordBatch::try_new(schema(), vec![column])
                .map_err(|error| aqueduct::core::Error::bug("make primes", "a batch").with_source(error))
        })
    })
}

fn is_prime(n: u64) -> bool {
    (2..).take_while(|divisor| divisor * divisor <= n).all(|divisor| n % divisor != 0)
}
