//! A folder, a budget and a sink on top.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{
    Batch, Context, Durable, Fs, Part, Problem, Result, RunContext, Sink, SinkConfig, StdFs,
};
use aqueduct_primitives::{Budget, ByteCount};
use arrow::array::{
    Array, ArrayRef, BinaryArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::Field;
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
        Self::with_kept(memory, change, None)
    }

    /// A step that keeps something, and what it kept.
    pub(crate) fn with_kept(
        memory: ByteCount,
        change: impl FnOnce(&mut RunContext),
        durable: Option<Durable>,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let stage_dir = dir.path().to_owned();
        let cx = Context::standalone_with(
            &Budget::new("test", memory),
            |run| {
                run.run_id = "r1".into();
                run.part_run = "r1".into();
                change(run);
            },
            |step| {
                step.stage_dir = Some(stage_dir);
                step.durable = durable;
            },
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

/// STAC items: points along the equator, of so many collections.
pub(crate) fn items(first: i64, n_rows: i64, n_collections: i64) -> RecordBatch {
    let ns = || first..first + n_rows;
    let texts = |text: &dyn Fn(i64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(ns().map(text)))
    };
    let longitudes: ArrayRef = Arc::new(Float64Array::from_iter_values(ns().map(longitude)));
    let latitudes: ArrayRef = Arc::new(Float64Array::from_iter_values(ns().map(|_| 0.0)));
    let bbox =
        structs([("xmin", &longitudes), ("ymin", &latitudes), ("xmax", &longitudes), ("ymax", &latitudes)]);
    let geometries = BinaryArray::from_iter_values(ns().map(|n| point(longitude(n), 0.0)));
    let href = texts(&|n| format!("https://x.org/{n}.tif"));
    let assets = structs([("data", &structs([("href", &href)]))]);
    let times = TimestampMicrosecondArray::from_iter_values(ns().map(|n| n * 1_000_000)).with_timezone("UTC");
    let links = structs([("href", &href), ("rel", &texts(&|_| "self".into()))]);
    let columns: [(&str, ArrayRef); 8] = [
        ("stac_extensions", lists(&texts(&|_| "https://x.org/eo.json".into()))),
        ("id", texts(&|n| format!("item-{n}"))),
        ("geometry", Arc::new(geometries)),
        ("bbox", bbox),
        ("links", lists(&links)),
        ("assets", assets),
        ("collection", texts(&|n| format!("c{}", n % n_collections))),
        ("datetime", Arc::new(times)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn longitude(n: i64) -> f64 {
    (n % 360 - 180) as f64
}

fn structs<const N: usize>(fields: [(&str, &ArrayRef); N]) -> ArrayRef {
    let field = |(name, column): (&str, &ArrayRef)| {
        (Arc::new(Field::new(name, column.data_type().clone(), true)), Arc::clone(column))
    };
    Arc::new(StructArray::from(fields.map(field).to_vec()))
}

/// A list of each value.
fn lists(values: &ArrayRef) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(1, values.len()));
    Arc::new(ListArray::new(field, offsets, Arc::clone(values), None))
}

/// A point as well-known binary.
pub(crate) fn point(x: f64, y: f64) -> Vec<u8> {
    [&[1, 1, 0, 0, 0][..], &x.to_le_bytes(), &y.to_le_bytes()].concat()
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
