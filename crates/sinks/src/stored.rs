//! Rows of an output as its sink was given them: those in the files, with the columns that stand in the folders' names.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::{
    Error, ErrorKind, Folders, FsRead, Problem, RandomAccess, RecordStream, Result, Stored, StoredPart,
    StoredRead, StoredRows,
};
use aqueduct_formats::{
    DecodeSpec, DecodedLimits, Format, FormatOption, LargeRecords, NewFields, ReadOptions, decode_file,
};
use aqueduct_primitives::{Budget, ByteCount, Reservation, Tasks};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use crate::partition::{By, value_in};
use crate::table::Table;

/// Reads the rows of a [`Table`] back.
pub(crate) struct StoredTable {
    table: Table,
}

impl StoredTable {
    pub(crate) fn of(table: &Table) -> Self {
        Self { table: Table { merge: None, ..table.clone() } }
    }

    /// Whether a column is not in the files, but in their folders' names.
    fn is_in_folders(&self, column: &str) -> bool {
        !self.table.partition_columns && self.table.partition_by.iter().any(|item| item == column)
    }
}

impl StoredRows for StoredTable {
    fn are_together(&self, keys: &[String]) -> bool {
        self.table.partition_by.iter().all(|item| keys.contains(item))
    }

    fn folders(&self, input: &SchemaRef) -> Result<Folders, Vec<Problem>> {
        match self.table.by(input)? {
            None => {
                Ok(Box::new(|records| Ok((records.num_rows() > 0).then(String::new).into_iter().collect())))
            }
            Some(by) => Ok(Box::new(move |records| folders_of(&by, records))),
        }
    }

    fn read(&self, stored: &Stored, part: &StoredPart, asked: StoredRead) -> RecordStream {
        let (in_folders, in_file): (Vec<_>, Vec<_>) =
            asked.columns.fields().iter().cloned().partition(|field| self.is_in_folders(field.name()));
        let constants: Result<Vec<_>> = in_folders
            .iter()
            .map(|field| Ok((field.name().clone(), constant(part.folder(), field)?)))
            .collect();
        let (path, name) = (stored.path(part), part.name.clone());
        let (tasks, fs) = (asked.cx.tasks().clone(), Arc::clone(asked.cx.fs()));
        let n_bytes = part.n_bytes;
        Box::pin(async_stream::try_stream! {
            let constants = constants.map_err(|error| error.with("part", &name))?;
            let at = path.clone();
            let opened = tasks.block(move || fs.open_read(&at)).await?;
            let file = opened.map_err(|error| Error::io("read", path.display(), error))?;
            let file = StoredFile { file: Arc::from(file), n_bytes, path: path.display().to_string(), tasks };
            let spec = spec(&name, in_file, &asked);
            let mut rows = decode_file(Arc::new(file), spec, asked.cx.tasks());
            while let Some(decoded) = rows.next().await {
                let decoded = decoded.map_err(|error| merging(error, &name))?;
                if let Some(reject) = decoded.rejects.into_iter().next() {
                    let message = format!("a row does not fit the columns of this run: {}", reject.message);
                    let error = Error::new(ErrorKind::Data, "merge", message).with("part", &name);
                    Err(error.with("row", reject.row).with("column", reject.column.unwrap_or_default()))?;
                }
                yield with_constants(&decoded.records, &constants, &asked.columns)?;
            }
        })
    }
}

fn folders_of(by: &By, records: &RecordBatch) -> Result<BTreeSet<String>> {
    let columns = by.columns(records)?;
    let keys = by.keys(&columns)?;
    let mut folders = BTreeSet::new();
    let mut last = None;
    for row in 0..records.num_rows() {
        // Rows of one day often come one after the other.
        if last != Some(keys.row(row)) {
            folders.insert(by.folder(&columns, row)?.trim_end_matches('/').to_owned());
            last = Some(keys.row(row));
        }
    }
    Ok(folders)
}

/// The one value that a folder's name gives for a column.
fn constant(folder: &str, field: &Field) -> Result<ArrayRef> {
    let unknown = |message: &str| {
        Error::new(ErrorKind::Data, "merge", message).with("folder", folder).with("column", field.name())
    };
    let Some(value) = value_in(folder, field.name()) else {
        return Err(unknown(
            "the folder's name does not tell the column's value; write with `partition_columns: true`, which \
             keeps it in the files",
        ));
    };
    let text = StringArray::from(vec![value]);
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&text, field.data_type(), &strict)
        .map_err(|error| unknown("the folder's name is no value of the column").with_source(error))
}

/// How the file is read: of columns that may be missing, which are null then.
fn spec(name: &str, columns: Vec<Arc<Field>>, asked: &StoredRead) -> DecodeSpec {
    let fields: Vec<_> =
        columns.into_iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let format = match name.rsplit_once('.') {
        Some((_, "arrow")) => Format::Arrow,
        _ => Format::Parquet,
    };
    let new_fields = if asked.is_partial { NewFields::Ignore } else { NewFields::Fail };
    let options = ReadOptions { format: FormatOption::Is(format), new_fields, ..ReadOptions::default() };
    let half = ByteCount::new(asked.memory.get() / 2);
    DecodeSpec {
        name: name.into(),
        options: Arc::new(options),
        schema: Arc::new(Schema::new(fields)),
        origin: false,
        batch_rows: asked.cx.batch_rows(),
        batch_bytes: asked.cx.batch_bytes().min(ByteCount::new(half.get() / 4)),
        memory: half,
        large_records: Arc::new(Lane(Budget::new("stored rows", half))),
        limits: DecodedLimits::default(),
        flush_after: std::time::Duration::from_secs(1),
        after: None,
        skip: 0,
    }
}

/// An error of a file that a run of aqueduct wrote.
fn merging(error: Error, part: &str) -> Error {
    let message = "what is there cannot be merged with: it has other columns, or is damaged";
    Error::new(error.kind(), "merge", message).with("part", part).with_source(error)
}

/// The columns that are wanted, in their order.
fn with_constants(
    records: &RecordBatch,
    constants: &[(String, ArrayRef)],
    wanted: &SchemaRef,
) -> Result<RecordBatch> {
    let n_rows = records.num_rows();
    let column = |field: &Arc<Field>| -> Result<ArrayRef> {
        if let Some((_, value)) = constants.iter().find(|(name, _)| name == field.name()) {
            return repeated(value, n_rows);
        }
        Ok(records
            .column_by_name(field.name())
            .map_or_else(|| new_null_array(field.data_type(), n_rows), Arc::clone))
    };
    let columns = wanted.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let kinds: Vec<_> = columns.iter().map(|column| column.data_type().clone()).collect();
    let fields = wanted.fields().iter().zip(kinds);
    let fields: Vec<_> =
        fields.map(|(field, kind): (_, DataType)| Field::new(field.name(), kind, true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(unfit)
}

fn repeated(value: &ArrayRef, n_rows: usize) -> Result<ArrayRef> {
    let first = arrow::array::UInt32Array::from_value(0, n_rows);
    arrow::compute::take(value, &first, None).map_err(unfit)
}

fn unfit(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Data, "merge", "the rows that are there do not fit their columns")
        .with_source(error)
}

/// A part on the disk.
struct StoredFile {
    file: Arc<dyn FsRead>,
    n_bytes: u64,
    path: String,
    tasks: Tasks,
}

#[async_trait]
impl RandomAccess for StoredFile {
    fn len(&self) -> u64 {
        self.n_bytes
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let file = Arc::clone(&self.file);
        let n_bytes = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let read = self.tasks.block(move || {
            let mut bytes = vec![0; n_bytes];
            file.read_exact_at(&mut bytes, range.start).map(|()| Bytes::from(bytes))
        });
        read.await?.map_err(|error| Error::io("read", &self.path, error))
    }
}

/// Pages that are larger than usual take their memory from what reading may take.
struct Lane(Budget);

#[async_trait]
impl LargeRecords for Lane {
    async fn reserve(&self, held: ByteCount, more: ByteCount) -> Result<Reservation> {
        self.0.try_reserve(more).map_err(|error| {
            let message = "the pages of a file take more than the step that merges has; raise `memory`";
            Error::new(ErrorKind::Limit, "merge", message)
                .with("needed_bytes", held.saturating_add(more))
                .with("limit_bytes", self.0.total())
                .with_source(error)
        })
    }
}
