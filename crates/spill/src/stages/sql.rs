//! `sql`: a query over all rows of the input, however many.
//!
//! DataFusion plans and runs it, on our sort; what cannot be run in bounded memory is refused before the run, with the
//! name of the operator. Memory: the step's share, from the first row to the last. An input that the query reads more
//! than once is written to disk first. Not counted: the rows of a window's usual frame (`range`) that are equal in its
//! order, and what `unnest` makes of one row.

use std::sync::Arc;

use aqueduct_core::{
    BatchStream, ComponentInfo, Context, Factory, Inputs, MemoryNeed, Planning, Problem, Result, Stage,
    StageConfig, column_clashes, only_input,
};
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{MIN_LEASE, WANTED_LEASE};
use crate::engine::{self, Query};
use crate::plain::{bind_plain, plain_schema};

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "sql",
    summary: "A SQL query over all rows, which it calls `input`",
    example: "sql: \"SELECT 1 AS one FROM input LIMIT 10\"",
});

/// A SELECT; its one table is `input`. Windows should say `rows between … and current row`: without, rows that are equal
/// in the window's order are held together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(String);

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        match self.0.trim().is_empty() {
            true => vec![Problem::at("", "the query is empty; expected `SELECT … FROM input`")],
            false => Vec::new(),
        }
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::between(MIN_LEASE, WANTED_LEASE)
    }

    fn spills(&self) -> bool {
        true
    }

    fn takes_all_first(&self) -> bool {
        // A query that neither sorts nor groups gives rows while it takes some.
        false
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = only_input(inputs)?;
        bind_plain(&input)?;
        let query = Query::plan(&self.0, &input).map_err(|error| vec![Problem::at("", error.to_string())])?;
        let schema = plain_schema(&query.plan.schema());
        let clashes = column_clashes(&schema, "");
        if clashes.is_empty() { Ok(Box::new(Sql { query, schema })) } else { Err(clashes) }
    }
}

struct Sql {
    query: Query,
    schema: SchemaRef,
}

impl Stage for Sql {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        let rows = Box::pin(futures::stream::iter(inputs).flatten());
        engine::run(self.query.plan, self.query.input, rows, self.schema, cx)
    }
}
