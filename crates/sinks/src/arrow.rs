//! `arrow`: Arrow IPC files, as other tools map them into memory.
//!
//! Order: as the rows come, batch by batch. Memory: a batch being written and the file's index of batches.

use aqueduct_core::units::{Size, optional_byte_count};
use aqueduct_core::{ComponentInfo, Factory, Mode};
use aqueduct_formats::write::{ArrowCompression, WriteFormat};
use aqueduct_primitives::ByteCount;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::options::{Evolve, default_max_partitions, table_sink};
use crate::table::{Merge, Table, is_one_file};

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "arrow",
    summary: "Writes Arrow IPC files",
    example: "arrow: { path: out/events.arrow }",
});

/// Options of `arrow`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to write: `*.arrow` is one file, else a folder of parts.
    pub path: String,
    /// How the buffers in the files are compressed.
    #[serde(default)]
    pub compression: ArrowCompression,
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

impl Config {
    fn table(&self) -> Table {
        Table {
            path: self.path.clone(),
            is_file: is_one_file(&self.path, &[".arrow"]),
            format: WriteFormat::Arrow(self.compression),
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
