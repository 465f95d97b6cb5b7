//! `parquet`: Parquet files, row groups cut by bytes, by rows, and by the memory there is.
//!
//! Order: as the rows come. Memory: the row group under way, at most three quarters of the step's share; the
//! columns of a batch are encoded side by side. In a small memory row groups are small, too.

use aqueduct_core::units::{Size, byte_count, optional_byte_count};
use aqueduct_core::{ComponentInfo, Factory, Mode};
use aqueduct_formats::write::{ParquetCompression, ParquetOptions, WriteFormat};
use aqueduct_primitives::ByteCount;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::options::{Evolve, default_max_partitions, table_sink};
use crate::table::{Merge, Table, is_one_file};

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "parquet",
    summary: "Writes Parquet files",
    example: "parquet: { path: out/events, partition_by: [country] }",
});

/// Options of `parquet`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to write: `*.parquet` is one file, else a folder of parts `part-{run}-{seq}.parquet`.
    pub path: String,
    /// How pages are compressed. A row group with a row larger than a quarter of the sink's memory (1 MiB at least) is
    /// not, and has no dictionaries and no statistics.
    #[serde(default)]
    pub compression: ParquetCompression,
    /// A row group ends at about this encoded size, or sooner when the memory is small.
    #[serde(default = "default_row_group_bytes", deserialize_with = "byte_count")]
    #[schemars(with = "Size")]
    pub row_group_bytes: ByteCount,
    /// A row group ends at this many rows.
    #[serde(default)]
    pub row_group_rows: Option<usize>,
    /// Start a new file at about this size.
    #[serde(default, deserialize_with = "optional_byte_count")]
    #[schemars(with = "Option<Size>")]
    pub file_bytes: Option<ByteCount>,
    /// Columns whose values make folders `column=value`; each a column, or `expression as name`.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// Keep the columns of `partition_by` in the files, too.
    #[serde(default)]
    pub partition_columns: bool,
    /// More partitions than this are an error.
    #[serde(default = "default_max_partitions")]
    pub max_partitions: usize,
    /// Let a run without rows replace an output that has some.
    #[serde(default)]
    pub allow_empty: bool,
    /// How its rows relate to those that earlier runs wrote there. Without it `replace`, or `append` behind a step that
    /// remembers what it has seen.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// In an output that is not replaced: whether columns may come that are not there yet. One whose type has changed is
    /// always an error, before a byte is written.
    #[serde(default)]
    pub evolve: Evolve,
    /// With `mode: merge`: rows that are equal in all of these columns take each other's place.
    #[serde(default)]
    pub keys: Vec<String>,
    /// With `mode: merge`: of rows with the same keys, the one with the greatest values of these columns stays; a null is
    /// the least. Without it, and where it says nothing, the one that came last.
    #[serde(default)]
    pub by: Vec<String>,
}

fn default_row_group_bytes() -> ByteCount {
    ParquetOptions::default().row_group_bytes
}

impl Config {
    fn table(&self) -> Table {
        let options = ParquetOptions {
            compression: self.compression,
            row_group_bytes: self.row_group_bytes,
            row_group_rows: self.row_group_rows.map(|n_rows| n_rows.max(1)),
            ..ParquetOptions::default()
        };
        Table {
            path: self.path.clone(),
            is_file: is_one_file(&self.path, &[".parquet"]),
            format: WriteFormat::Parquet(options),
            file_bytes: self.file_bytes,
            partition_by: self.partition_by.clone(),
            partition_columns: self.partition_columns,
            max_partitions: self.max_partitions,
            allow_empty: self.allow_empty,
            mode: self.mode,
            evolve: self.evolve,
            merge: Some(Merge { keys: self.keys.clone(), by: self.by.clone() }),
            n_leaves: 1,
        }
    }
}

table_sink!(Config);
