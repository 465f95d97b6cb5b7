//! `sort`: all rows in order, however many. Stable: rows that are equal in every key stay as they came.
//!
//! Memory: the step's share, from the first row to the last. What it does not hold goes to disk, sorted.

use aqueduct_core::{
    ComponentInfo, Factory, MemoryNeed, Planning, Problem, Result, Stage, StageConfig, only_input,
};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Deserialize;

use super::order_by::{bind_all, parse_all};
use super::sorted::InOrder;
use super::{MIN_LEASE, WANTED_LEASE, spill_note};
use crate::SortOrder;
use crate::plain::bind_plain;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "sort",
    summary: "All rows in order, in bounded memory",
    example: "sort: { by: [country, \"ts desc nulls last\"] }",
});

/// The order.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Columns, the most significant first: `name`, `name desc`, `name nulls first`. Nulls come last otherwise.
    by: Vec<String>,
}

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        parse_all(&self.by, "/by").err().unwrap_or_default()
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::between(MIN_LEASE, WANTED_LEASE)
    }

    fn spills(&self) -> bool {
        true
    }

    fn spill_note(&self, share: ByteCount) -> String {
        spill_note(share)
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let schema = bind_plain(&*only_input(inputs)?)?;
        let keys = bind_all(&parse_all(&self.by, "/by")?, &schema, "/by")?;
        let order = SortOrder { keys, ..SortOrder::default() };
        Ok(Box::new(InOrder { schema, order }))
    }
}
