//! What earlier runs have written to an output, for a sink that adds to it or [updates](crate::Mode::updates) it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aqueduct_primitives::ByteCount;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::Stream;
use serde::{Deserialize, Serialize};

use crate::{Context, Problem, Result};

/// An output as earlier runs have left it, and what becomes of it in this run.
///
/// The sink tells what its rows look like. Where it updates, it and the step before it tell the folders of which nothing is
/// to stay. The runner commits that together with the parts that this run writes.
#[derive(Debug, Default)]
pub struct Stored {
    dir: PathBuf,
    parts: Vec<StoredPart>,
    shape: Option<TableShape>,
    replaced: Mutex<BTreeSet<String>>,
    described: OnceLock<TableShape>,
}

/// What the rows of an output look like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableShape {
    /// The format of the files: `parquet`.
    pub format: String,
    /// The columns, those that stand in the names of folders among them.
    pub columns: Vec<ColumnShape>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// Its type, as Arrow writes it, and however it lies in memory: `Int64`, `Utf8`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl TableShape {
    /// Of files of a format with these columns.
    pub fn new(format: impl Into<String>, schema: &Schema) -> Self {
        let column =
            |field: &Arc<Field>| ColumnShape { name: field.name().clone(), kind: kind_of(field.data_type()) };
        Self { format: format.into(), columns: schema.fields().iter().map(column).collect() }
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&ColumnShape> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// These columns, and behind them those that only the other has.
    #[must_use]
    pub fn with_columns_of(mut self, other: &Self) -> Self {
        let more: Vec<_> =
            other.columns.iter().filter(|column| self.column(&column.name).is_none()).cloned().collect();
        self.columns.extend(more);
        self
    }
}

/// One of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// Its name within the output, with `/` between folders.
    pub name: String,
    /// How many rows.
    pub rows: u64,
    /// How many bytes.
    pub n_bytes: u64,
}

/// The name of a type: texts are one, and so are bytes, whatever holds them.
fn kind_of(kind: &DataType) -> String {
    match kind {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8.to_string(),
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary.to_string(),
        DataType::Dictionary(_, values) => kind_of(values),
        kind => kind.to_string(),
    }
}

impl StoredPart {
    /// The folder within the output that it lies in, without a slash at its end; in the output itself, the empty one.
    pub fn folder(&self) -> &str {
        folder_of(&self.name)
    }
}

/// The folder of a part by its name.
fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Stored {
    /// An output of this shape, as far as is known, and with these parts, whose names start from a folder.
    pub fn new(shape: Option<TableShape>, dir: PathBuf, parts: Vec<StoredPart>) -> Self {
        Self { dir, parts, shape, ..Self::default() }
    }

    /// What the rows look like that are there.
    pub fn shape(&self) -> Option<&TableShape> {
        self.shape.as_ref()
    }

    /// This is what the rows of this run look like.
    pub fn describe(&self, shape: TableShape) {
        // A sink is opened once; a second description would be the same.
        let _ = self.described.set(shape);
    }

    /// What the sink has said of its rows.
    pub fn described(&self) -> Option<&TableShape> {
        self.described.get()
    }

    /// The files that are there, by name; none where the sink does not update.
    pub fn parts(&self) -> &[StoredPart] {
        &self.parts
    }

    /// Where a part lies.
    pub fn path(&self, part: &StoredPart) -> PathBuf {
        self.dir.join(&part.name)
    }

    /// What earlier runs wrote in this folder makes way for what this run writes, with its next commit.
    pub fn replace(&self, folder: impl Into<String>) {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.into());
    }

    /// [`Stored::replace`] for the folder of a part, by its name.
    pub fn replace_folder_of(&self, part: &str) {
        self.replace(folder_of(part));
    }

    /// All folders that were replaced so far.
    pub fn replaced(&self) -> BTreeSet<String> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a sink that [merges](crate::Mode::Merge) asks of the step before it: to put rows that are there beside those that
/// come, and to let one pass of each key.
#[derive(Clone)]
pub struct Merging {
    /// Rows that are equal in all of these columns take each other's place; a null equals a null.
    pub keys: Vec<String>,
    /// The row with the greatest values is the newest, the first column counting most; a null is the oldest. Without it,
    /// and where it says nothing, the one that came last.
    pub by: Vec<String>,
    /// Reads what is there.
    pub rows: Arc<dyn StoredRows>,
}

/// Rows of some file, batch by batch.
pub type RecordStream = Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>;

/// Tells the folders of some rows, each once.
pub type Folders = Box<dyn FnMut(&RecordBatch) -> Result<BTreeSet<String>> + Send>;

/// Reads the rows of an output back as its sink was given them.
pub trait StoredRows: Send + Sync {
    /// Whether rows that are equal in these columns always lie in one folder.
    fn are_together(&self, keys: &[String]) -> bool;

    /// Tells in which folders rows with the columns of the sink's input will lie.
    ///
    /// # Errors
    /// The options do not fit the columns.
    fn folders(&self, input: &SchemaRef) -> Result<Folders, Vec<Problem>>;

    /// The rows of a part, of these columns of the sink's input, in memory of about so many bytes.
    ///
    /// # Errors
    /// In the stream: the part cannot be read, or its columns are others.
    fn read(&self, stored: &Stored, part: &StoredPart, asked: StoredRead) -> RecordStream;
}

/// How a part is read.
#[derive(Clone, Debug)]
pub struct StoredRead {
    /// The columns that are wanted, of the sink's input.
    pub columns: SchemaRef,
    /// Whether the part may have others: if not, that is an error, for they would be lost.
    pub is_partial: bool,
    /// What reading may take.
    pub memory: ByteCount,
    /// The surroundings of the step that reads.
    pub cx: Context,
}
