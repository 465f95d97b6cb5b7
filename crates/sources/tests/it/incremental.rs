//! `files` that reads only what no earlier run has committed: what counts is what a commit kept.

use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_core::{Context, Durable, ErrorKind, Positions, Result, SourceFactory};
use aqueduct_net::{Fetcher, HttpOptions, StorageOptions};
use aqueduct_primitives::{Budget, ByteCount};
use aqueduct_sources::files::FACTORY;
use arrow::array::RecordBatch;
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::support::{Kept, ndjson, numbers};

/// The folder of a flow.
struct Flow {
    dir: tempfile::TempDir,
}

/// What a run gave, and what its last commit kept.
struct Given {
    rows: Vec<RecordBatch>,
    n_batches: usize,
    kept: Value,
    n_known: u64,
    warnings: Vec<String>,
}

impl Flow {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// A new run, which reads at most so many batches and then commits.
    async fn run(&self, name: &str, kept: Option<Value>, options: Value, n_batches: usize) -> Result<Given> {
        let cx = Context::standalone_with(
            &Budget::new("test", ByteCount::mb(64)),
            |run| {
                run.base_dir = self.dir.path().to_owned();
                run.batch_rows = 100;
                run.rejects = Arc::new(Kept::default());
                let fetcher =
                    Fetcher::new(HttpOptions::default(), StorageOptions::default(), run.tasks.clone());
                run.services.insert(Arc::new(fetcher.unwrap()));
            },
            |step| step.durable = Some(Durable::new(kept, self.path("state/step"), self.path(name))),
        )?;
        let config = FACTORY.configure(options).map_err(|problems| panic!("{problems:?}")).unwrap();
        let mut batches = config.open(&cx).await?.run(cx.clone(), Positions::default());
        let (mut rows, mut n_given) = (Vec::new(), 0);
        while n_given < n_batches {
            let Some(batch) = batches.try_next().await? else { break };
            rows.push(batch.records().clone());
            n_given += 1;
        }
        let kept = cx.durable().unwrap().keeper().unwrap().keep().await?.unwrap();
        drop(batches);
        cx.tasks().join().await;
        let warnings = cx.notices().warnings.first();
        Ok(Given { rows, n_batches: n_given, kept, n_known: cx.metrics().files_known.get(), warnings })
    }
}

fn reading(by: &str) -> Value {
    json!({"paths": ["in"], "schema": {"n": "int64"}, "window": 3, "incremental": {"by": by}})
}

fn sorted(rows: &[RecordBatch]) -> Vec<i64> {
    let mut numbers = numbers(rows, "n");
    numbers.sort_unstable();
    numbers
}

// CKP-1
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_dropped_after_any_batch_leaves_the_next_one_what_had_not_come() {
    for by in ["modified", "name", "content"] {
        for n_batches in 1.. {
            let flow = Flow::new();
            for n in 0..4_i64 {
                flow.write(&format!("in/{n}.ndjson"), ndjson(n * 1000..n * 1000 + 250));
            }
            let dropped = flow.run("first", None, reading(by), n_batches).await.unwrap();
            let next = flow.run("second", Some(dropped.kept), reading(by), usize::MAX).await.unwrap();
            let rows = [dropped.rows, next.rows].concat();
            let expected: Vec<_> = (0..4).flat_map(|n| n * 1000..n * 1000 + 250).collect();
            assert_eq!(sorted(&rows), expected, "{by}, dropped after {n_batches} batches");
            assert!(next.warnings.is_empty(), "{:?}", next.warnings);
            let third = flow.run("third", Some(next.kept), reading(by), usize::MAX).await.unwrap();
            assert_eq!((third.n_batches, third.n_known), (0, 4));
            if dropped.n_batches < n_batches {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_and_never_committed_does_not_count() {
    let flow = Flow::new();
    flow.write("in/a.ndjson", ndjson(0..3));
    let first = flow.run("first", None, reading("name"), usize::MAX).await.unwrap();
    flow.write("in/b.ndjson", ndjson(3..5));
    for run in ["second", "third"] {
        let again = flow.run(run, Some(first.kept.clone()), reading("name"), usize::MAX).await.unwrap();
        assert_eq!(sorted(&again.rows), [3, 4]);
    }
}

/// In memory there are the keys that fit; what a commit keeps grows with neither files nor runs.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_stays_small_however_many_files_there_are() {
    let flow = Flow::new();
    let (mut kept, mut largest) = (None, 0);
    for night in 0..5 {
        for n in 0..600 {
            flow.write(&format!("in/{night}-{n}.ndjson"), ndjson([n]));
        }
        let run = format!("run{night}");
        let given = flow.run(&run, kept.take(), reading("modified"), usize::MAX).await.unwrap();
        assert_eq!((sorted(&given.rows).len(), given.n_known), (600, night * 600));
        largest = largest.max(given.kept.to_string().len());
        kept = Some(given.kept);
    }
    assert!(largest < 1000, "{largest} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_file_that_is_read_otherwise_now_or_is_gone_is_named() {
    let begun = async |flow: &Flow| {
        flow.write("in/a.ndjson", ndjson(0..250));
        let given = flow.run("first", None, reading("modified"), 1).await.unwrap();
        assert_eq!(sorted(&given.rows), (0..100).collect::<Vec<_>>());
        given.kept
    };
    let flow = Flow::new();
    let kept = begun(&flow).await;
    let mut otherwise = reading("modified");
    otherwise["format"] = json!("ndjson");
    let given = flow.run("second", Some(kept), otherwise, usize::MAX).await.unwrap();
    assert_eq!(sorted(&given.rows).len(), 250);
    assert!(given.warnings[0].contains("in/a.ndjson: 100 rows"), "{:?}", given.warnings);

    let flow = Flow::new();
    let kept = begun(&flow).await;
    std::fs::rename(flow.path("in/a.ndjson"), flow.path("in/b.ndjson")).unwrap();
    let given = flow.run("second", Some(kept), reading("modified"), usize::MAX).await.unwrap();
    assert!(given.warnings[0].contains("not there any more"), "{:?}", given.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_way_of_knowing_files_or_a_newer_version_kept_is_refused() {
    let flow = Flow::new();
    flow.write("in/a.ndjson", ndjson(0..3));
    let first = flow.run("first", None, reading("name"), usize::MAX).await.unwrap();
    let error = flow.run("second", Some(first.kept.clone()), reading("content"), 1).await.err().unwrap();
    assert_eq!((error.kind(), error.context("before")), (ErrorKind::Conflict, Some("name")));
    let mut newer = first.kept;
    newer["format"] = json!(99);
    let error = flow.run("third", Some(newer), reading("name"), 1).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Newer);
}
