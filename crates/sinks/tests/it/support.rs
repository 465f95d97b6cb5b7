//! A folder, a budget and a sink on top.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Batch, Context, Fs, Part, Problem, Result, RunContext, Sink, SinkConfig, StdFs};
use aqueduct_primitives::{Budget, ByteCount};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tempfile::TempDir;

/// A folder to stage in, and half of `memory` for the sink.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) cx: Context,
}

impl Place {
    pub(crate) fn new(memory: ByteCount) -> Self {
        Self::on(Arc::new(StdFs), memory)
    }

    pub(crate) fn on(fs: Arc<dyn Fs>, memory: ByteCount) -> Self {
        Self::with(memory, |run| run.fs = fs)
    }

    pub(crate) fn with(memory: ByteCount, change: impl FnOnce(&mut RunContext)) -> Self {
        let dir = TempDir::new().unwrap();
        let stage_dir = dir.path().to_owned();
        let cx = Context::standalone_with(
            &Budget::new("test", memory),
            |run| {
                run.run_id = "r1".into();
                run.part_run = "r1".into();
                change(run);
            },
            |step| step.stage_dir = Some(stage_dir),
        );
        Self { dir, cx: cx.unwrap() }
    }

    pub(crate) async fn open(&self, sink: &str, options: Value, like: &RecordBatch) -> Result<Box<dyn Sink>> {
        configure(sink, options).unwrap().open(like.schema(), &self.cx).await
    }

    /// All batches into a new sink.
    pub(crate) async fn write(
        &self,
        sink: &str,
        options: Value,
        batches: &[RecordBatch],
    ) -> Result<Vec<Part>> {
        let mut sink = self.open(sink, options, &batches[0]).await?;
        for records in batches {
            sink.write(self.cx.admit(records.clone()).await?).await?;
        }
        sink.seal().await
    }
}

pub(crate) fn configure(sink: &str, options: Value) -> Result<Box<dyn SinkConfig>, Vec<Problem>> {
    let factory = aqueduct_sinks::ALL.iter().find(|factory| factory.info().name == sink).unwrap();
    factory.configure(options)
}

/// The bytes of a part, once they are known to be what it says.
pub(crate) fn checked(part: &Part) -> Vec<u8> {
    let bytes = StdFs.read(&part.staged, 1 << 30).unwrap();
    assert_eq!(bytes.len() as u64, part.n_bytes, "{}", part.name);
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), part.blake3, "{}", part.name);
    bytes
}

pub(crate) fn parquet(part: &Part) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(checked(part))).unwrap();
    let schema = Arc::clone(reader.schema());
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    let records = concat_batches(&schema, &batches).unwrap();
    assert_eq!(records.num_rows() as u64, part.rows, "{}", part.name);
    records
}

/// Rows with a number, a key out of so many, and a text.
pub(crate) fn rows(first: i64, n_rows: i64, n_keys: i64) -> RecordBatch {
    let ids = first..first + n_rows;
    let key = |id: i64| format!("k{}", (id * 7919) % n_keys);
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone()))),
        ("key", Arc::new(StringArray::from_iter_values(ids.clone().map(key)))),
        ("text", Arc::new(StringArray::from_iter_values(ids.map(|id| format!("{:x}", id * 0x9E37_79B9))))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

pub(crate) fn ids(records: &RecordBatch) -> Vec<i64> {
    let ids = records.column_by_name("id").unwrap();
    ids.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
}

pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in StdFs.list(folder).unwrap() {
        match entry.is_dir {
            true => files.extend(files_below(&entry.path)),
            false => files.push(entry.path),
        }
    }
    files
}

/// A batch that nothing is reserved for.
pub(crate) fn free(records: RecordBatch) -> Batch {
    Batch::new(records, aqueduct_primitives::Reservation::empty())
}
