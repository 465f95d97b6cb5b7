//! `csv`: comma-separated values with a header (RFC 4180, lines end in LF).
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
    name: "csv",
    summary: "Writes comma-separated values with a header",
    example: "csv: { path: out/events.csv }",
});

/// Options of `csv`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Config(pub TextOptions);

impl Config {
    fn table(&self) -> Table {
        self.0.table(&[".csv"], WriteFormat::Csv)
    }
}

table_sink!(Config);
