//! Options that several sinks share.

use aqueduct_core::Mode;
use aqueduct_core::units::{Size, optional_byte_count};
use aqueduct_formats::write::{TextCompression, WriteFormat};
use aqueduct_primitives::ByteCount;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::table::{Table, is_one_file};

/// So many partitions unless told otherwise: each is a folder, and a column of ids would make millions.
pub(crate) fn default_max_partitions() -> usize {
    1000
}

/// What becomes of columns that rows which are there do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Evolve {
    /// They are added: in the files that are there they are missing, which reads as null.
    #[default]
    Add,
    /// They are an error.
    Freeze,
}

/// Options of the sinks that write text: `ndjson`, `json`, `csv`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextOptions {
    /// Where to write: with the format's suffix one file, else a folder of parts.
    pub path: String,
    /// How files are compressed; if not given, by the path's last suffix.
    #[serde(default)]
    pub compression: Option<TextCompression>,
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
}

impl TextOptions {
    /// The table that they describe. `suffixes` are those of one file, each with its dot.
    pub(crate) fn table(&self, suffixes: &[&str], format: impl Fn(TextCompression) -> WriteFormat) -> Table {
        let by_name = TextCompression::of_name(&self.path);
        let base = match (by_name, self.path.rsplit_once('.')) {
            (Some(_), Some((base, _))) => base,
            _ => &self.path,
        };
        Table {
            path: self.path.clone(),
            is_file: is_one_file(base, suffixes),
            format: format(self.compression.or(by_name).unwrap_or_default()),
            file_bytes: self.file_bytes,
            partition_by: self.partition_by.clone(),
            partition_columns: self.partition_columns,
            max_partitions: self.max_partitions,
            allow_empty: self.allow_empty,
            mode: self.mode,
            evolve: self.evolve,
            merge: None,
            n_leaves: 1,
        }
    }
}

/// A sink whose options describe a [`Table`].
macro_rules! table_sink {
    ($config:ty) => {
        #[async_trait::async_trait]
        impl aqueduct_core::SinkConfig for $config {
            fn validate(&self) -> Vec<aqueduct_core::Problem> {
                self.table().validate()
            }

            fn fit(&self, input: &arrow::datatypes::SchemaRef) -> Vec<aqueduct_core::Problem> {
                self.table().fit(input)
            }

            fn fit_stored(
                &self,
                input: &arrow::datatypes::SchemaRef,
                stored: &aqueduct_core::Stored,
            ) -> Vec<aqueduct_core::Problem> {
                self.table().fit_stored(input, stored)
            }

            fn output(&self, planning: &aqueduct_core::Planning) -> Option<aqueduct_core::Output> {
                Some(self.table().output(planning))
            }

            fn merging(&self) -> Option<aqueduct_core::Merging> {
                self.table().merging()
            }

            fn guarantee(&self) -> aqueduct_core::Guarantee {
                aqueduct_core::Guarantee::ExactlyOnce
            }

            fn memory(&self, planning: &aqueduct_core::Planning) -> aqueduct_core::MemoryNeed {
                self.table().memory(planning)
            }

            async fn open(
                self: Box<Self>,
                input: arrow::datatypes::SchemaRef,
                cx: &aqueduct_core::Context,
            ) -> aqueduct_core::Result<Box<dyn aqueduct_core::Sink>> {
                self.table().open(input, cx)
            }
        }
    };
}
pub(crate) use table_sink;
