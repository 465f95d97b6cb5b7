//! `ndjson`: one JSON object a line.
//!
//! Order: as the rows come. Memory: a few KiB of text and the tables of the compression; nothing else waits.
//! How values are written stands in [`aqueduct_formats::write`].

use aqueduct_core::{ComponentInfo, Factory};
use aqueduct_formats::write::WriteFormat;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::options::{TextOptions, table_sink};
use crate::table::Table;

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "ndjson",
    summary: "Writes one JSON object a line",
    example: "ndjson: { path: out/events.ndjson.gz }",
});

/// Options of `ndjson`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Config(pub TextOptions);

impl Config {
    fn table(&self) -> Table {
        self.0.table(&[".ndjson", ".jsonl"], WriteFormat::Ndjson)
    }
}

table_sink!(Config);
