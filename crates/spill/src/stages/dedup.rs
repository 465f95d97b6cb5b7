//! `dedup`: one row of each key, however many keys there are. The rows come out in the order of their keys.
//!
//! Memory: the step's share, from the first row to the last. What it does not hold goes to disk, sorted; rows that are
//! like another are dropped as soon as they meet it.

use aqueduct_core::{
    ComponentInfo, Factory, MemoryNeed, Planning, Problem, Result, Stage, StageConfig, find_column,
    only_input,
};
use aqueduct_primitives::ByteCount;
use arrow::compute::SortOptions;
use arrow::datatypes::{Schema, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;

use super::order_by::{bind_all, check_order, parse_all};
use super::sorted::InOrder;
use super::{MIN_LEASE, WANTED_LEASE, spill_note};
use crate::plain::bind_plain;
use crate::{SortKey, SortOrder};

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "dedup",
    summary: "One row of each key, the first or the last, in bounded memory",
    example: "dedup: { keys: [id], keep: first, by: [\"updated_at desc\"] }",
});

/// Which rows are alike, and which of them stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Rows that are equal in all of these columns are alike; a null equals a null.
    keys: Vec<String>,
    /// Which of them stays.
    #[serde(default)]
    keep: Keep,
    /// In which order they stand, as in `sort`; without it, and where it says nothing, as they arrived.
    #[serde(default)]
    by: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Keep {
    #[default]
    First,
    Last,
}

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.keys.is_empty() {
            problems.push(Problem::at("/keys", "no column says which rows are alike; expected at least one"));
        }
        if !self.by.is_empty() {
            problems.extend(parse_all(&self.by, "/by").err().unwrap_or_default());
        }
        problems
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
        let keys = self.keys_in(&schema);
        let by = match self.by.is_empty() {
            true => Ok(Vec::new()),
            false => parse_all(&self.by, "/by").and_then(|by| bind_all(&by, &schema, "/by")),
        };
        match (keys, by) {
            (Ok(keys), Ok(by)) => Ok(Box::new(InOrder { schema, order: self.order(keys, by) })),
            (keys, by) => Err([keys.err(), by.err()].into_iter().flatten().flatten().collect()),
        }
    }
}

impl Config {
    fn keys_in(&self, schema: &Schema) -> Result<Vec<SortKey>, Vec<Problem>> {
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        for (n, name) in self.keys.iter().enumerate() {
            let pointer = format!("/keys/{n}");
            let found = find_column(schema, name, &pointer).and_then(|column| {
                check_order(schema.field(column).data_type(), name, &pointer)?;
                Ok(SortKey { column, options: SortOptions::default() })
            });
            match found {
                Ok(key) => keys.push(key),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(keys) } else { Err(problems) }
    }

    /// An order in which the row that stays is the first of those like it: the last of an order is the first of the
    /// reverse.
    fn order(&self, keys: Vec<SortKey>, by: Vec<SortKey>) -> SortOrder {
        let unique = Some(keys.len());
        let latest_first = self.keep == Keep::Last;
        let reversed = |SortOptions { descending, nulls_first }: SortOptions| SortOptions {
            descending: descending != latest_first,
            nulls_first: nulls_first != latest_first,
        };
        let by = by.into_iter().map(|key| SortKey { options: reversed(key.options), ..key });
        SortOrder { keys: keys.into_iter().chain(by).collect(), latest_first, unique, ..SortOrder::default() }
    }
}
