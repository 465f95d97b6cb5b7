//! A folder, a budget and a context to read in.

use std::path::Path;
use std::sync::{Arc, Mutex};

use aqueduct_core::{
    Batch, BatchStream, Context, Positions, Reject, RejectPolicy, Result, RunContext, Source, SourceFactory,
    StepContext,
};
use aqueduct_net::{Fetcher, HttpOptions, StorageOptions};
use aqueduct_primitives::{Budget, ByteCount};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, UInt64Type};
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

/// Keeps what is rejected, and goes on.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Vec<Reject>>);

impl RejectPolicy for Kept {
    fn reject(&self, _step: &str, reject: Reject) -> Result<()> {
        self.0.lock().unwrap().push(reject);
        Ok(())
    }
}

impl Kept {
    pub(crate) fn all(&self) -> Vec<Reject> {
        self.0.lock().unwrap().clone()
    }
}

/// Surroundings of one source.
pub(crate) struct Room {
    dir: tempfile::TempDir,
    pub(crate) cx: Context,
}

impl Room {
    /// Bad items are errors.
    pub(crate) fn new() -> Self {
        Self::with(|_| {}, |_| {})
    }

    /// Bad items are kept.
    pub(crate) fn tolerant() -> (Self, Arc<Kept>) {
        let kept = Arc::new(Kept::default());
        let rejects = Arc::clone(&kept);
        (Self::with(|run| run.rejects = rejects, |_| {}), kept)
    }

    pub(crate) fn with(
        change_run: impl FnOnce(&mut RunContext),
        change_step: impl FnOnce(&mut StepContext),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget::new("test", ByteCount::mb(64));
        let cx = Context::standalone_with(
            &budget,
            |run| {
                run.base_dir = dir.path().to_owned();
                let fetcher =
                    Fetcher::new(HttpOptions::default(), StorageOptions::default(), run.tasks.clone());
                run.services.insert(Arc::new(fetcher.unwrap()));
                change_run(run);
            },
            change_step,
        );
        Self { dir, cx: cx.unwrap() }
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn open(&self, factory: &dyn SourceFactory, options: Value) -> Result<Box<dyn Source>> {
        let config = factory.configure(options).map_err(|problems| panic!("{problems:?}")).unwrap();
        config.open(&self.cx).await
    }

    /// The batches of a source that was opened with these options.
    pub(crate) async fn stream(&self, factory: &dyn SourceFactory, options: Value) -> Result<BatchStream> {
        Ok(self.open(factory, options).await?.run(self.cx.clone(), Positions::default()))
    }

    /// All batches; each is dropped before the next is asked for.
    pub(crate) async fn read(&self, factory: &dyn SourceFactory, options: Value) -> Result<Vec<RecordBatch>> {
        let batches = self.stream(factory, options).await?;
        batches.map_ok(|batch| batch.records().clone()).try_collect().await
    }

    /// Waits for every task and checks that all memory is back.
    pub(crate) async fn check_all_is_back(&self) {
        self.cx.tasks().join().await;
        assert_eq!(self.cx.flow().free(), self.cx.flow().total(), "flow");
        assert_eq!(self.cx.share().free(), self.cx.share().total(), "share");
    }
}

/// The whole numbers of a column, in order, of whatever width.
pub(crate) fn numbers(batches: &[RecordBatch], column: &str) -> Vec<i64> {
    let of = |batch: &RecordBatch| -> Vec<i64> {
        let column = batch.column_by_name(column).unwrap();
        match column.as_primitive_opt::<UInt64Type>() {
            Some(column) => column.values().iter().map(|n| i64::try_from(*n).unwrap()).collect(),
            None => column.as_primitive::<Int64Type>().values().to_vec(),
        }
    };
    batches.iter().filter(|batch| batch.num_rows() > 0).flat_map(of).collect()
}

/// The texts of a column, in order.
pub(crate) fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let of = |batch: &RecordBatch| -> Vec<String> {
        let column =
            arrow::compute::cast(batch.column_by_name(column).unwrap(), &arrow::datatypes::DataType::Utf8);
        let column = column.unwrap();
        (0..column.len()).map(|row| column.as_string::<i32>().value(row).to_owned()).collect()
    };
    batches.iter().filter(|batch| batch.num_rows() > 0).flat_map(of).collect()
}

/// NDJSON rows `{"n": …}`.
pub(crate) fn ndjson(numbers: impl IntoIterator<Item = i64>) -> String {
    numbers.into_iter().map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

/// Whether it is the last batch of a file.
pub(crate) fn ends_a_file(batch: &Batch) -> bool {
    let positions = batch.positions();
    positions.iter().any(|(split, _)| positions.is_done(split))
}

/// The next batch; the stream must have one.
pub(crate) async fn next(batches: &mut BatchStream) -> Batch {
    batches.next().await.unwrap().unwrap()
}
