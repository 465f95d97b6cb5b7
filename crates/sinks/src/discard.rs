//! `discard`: rows go nowhere. For measurements and trials.
//!
//! Order and memory: none; a batch's bytes go back at once.

use aqueduct_core::{
    Batch, ComponentInfo, Context, Factory, Guarantee, MemoryNeed, Output, Part, Planning, Result, Sink,
    SinkConfig,
};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "discard",
    summary: "Drops all rows, for measurements",
    example: "discard: {}",
});

/// Options of `discard`: none.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

#[async_trait]
impl SinkConfig for Config {
    fn output(&self, _: &Planning) -> Option<Output> {
        None
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::default()
    }

    async fn open(self: Box<Self>, _: SchemaRef, _: &Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Discard))
    }
}

struct Discard;

#[async_trait]
impl Sink for Discard {
    async fn write(&mut self, _: Batch) -> Result<()> {
        Ok(())
    }

    async fn seal(&mut self) -> Result<Vec<Part>> {
        Ok(Vec::new())
    }

    async fn abort(self: Box<Self>) {}
}
