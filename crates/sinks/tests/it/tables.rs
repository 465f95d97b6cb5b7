//! Tables: what is on disk, how it is named, how much memory it took.

use std::sync::Arc;

use aqueduct_commit::{End, Epoch, FlowLog, Manifest, Mode, NewRun, Start, Target};
use aqueduct_core::{ErrorKind, Fs, Planning, StdFs};
use aqueduct_primitives::ByteCount;
use aqueduct_testkit::faults::FailingFs;
use serde_json::json;

use crate::support::{Place, checked, configure, files_below, free, ids, parquet, rows};

#[tokio::test]
async fn bytes_on_disk_are_what_the_parts_say() {
    for (sink, path, name) in [
        ("parquet", "out", "part-r1-00000.parquet"),
        ("ndjson", "out", "part-r1-00000.ndjson"),
        ("json", "out/all.json", "all.json"),
        ("csv", "out/all.csv.gz", "all.csv.gz"),
        ("arrow", "all.arrow", "all.arrow"),
    ] {
        let place = Place::new(ByteCount::mib(32));
        let parts = place.write(sink, json!({ "path": path }), &[rows(0, 500, 7), rows(500, 500, 7)]).await;
        let parts = parts.unwrap();
        assert_eq!(parts.len(), 1, "{sink}");
        assert_eq!((parts[0].name.as_str(), parts[0].rows), (name, 1000));
        checked(&parts[0]);
        assert_eq!(place.cx.metrics().bytes.get(), parts[0].n_bytes);
    }
}

#[tokio::test]
async fn an_output_without_rows_has_its_columns() {
    let place = Place::new(ByteCount::mib(32));
    let mut sink = place.open("parquet", json!({ "path": "none.parquet" }), &rows(0, 1, 1)).await.unwrap();
    sink.write(free(rows(0, 0, 1))).await.unwrap();
    let parts = sink.seal().await.unwrap();
    assert_eq!((parts.len(), parts[0].rows), (1, 0));
    assert_eq!(parquet(&parts[0]).num_columns(), 3);
    assert!(sink.seal().await.unwrap().is_empty(), "nothing came since");
}

#[tokio::test]
async fn a_new_part_begins_by_size_and_by_cut() {
    let place = Place::new(ByteCount::mib(32));
    let batches: Vec<_> = (0..20).map(|n| rows(n * 1000, 1000, 7)).collect();
    let options = json!({ "path": "out", "file_bytes": "100KB" });
    let parts = place.write("ndjson", options, &batches).await.unwrap();
    assert!(parts.len() > 5, "{}", parts.len());
    assert!(parts.iter().all(|part| part.n_bytes < 200_000));
    assert_eq!(parts.iter().map(|part| part.rows).sum::<u64>(), 20_000);

    let place = Place::new(ByteCount::mib(32));
    let mut sink = place.open("parquet", json!({ "path": "out" }), &batches[0]).await.unwrap();
    for (n, records) in batches.iter().enumerate() {
        sink.write(free(records.clone()).with_cut(n % 5 == 0)).await.unwrap();
    }
    let parts = sink.seal().await.unwrap();
    assert_eq!(parts.iter().map(|part| part.rows).collect::<Vec<_>>(), [5000; 4]);
    assert_eq!(ids(&parquet(&parts[1])), (5000..10_000).collect::<Vec<_>>());
}

// MEM-1, MEM-3: what waits in the writer is reserved, and three quarters of the share are enough
#[tokio::test]
async fn row_groups_shrink_to_the_memory_there_is() {
    let place = Place::new(ByteCount::mib(4));
    let batches: Vec<_> = (0..40).map(|n| rows(n * 5000, 5000, 5000)).collect();
    let parts = place.write("parquet", json!({ "path": "out" }), &batches).await.unwrap();
    let records = parquet(&parts[0]);
    assert_eq!(ids(&records), (0..200_000).collect::<Vec<_>>());
    let peak = place.cx.share().peak();
    assert!(peak <= ByteCount::mib(2) && peak > ByteCount::kib(500), "{peak}");
    assert_eq!(place.cx.share().free(), place.cx.share().total(), "all is given back");
}

#[test]
fn options_that_do_not_go_together_are_told_at_once() {
    let problems = |options| match configure("parquet", options) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.into_iter().map(|problem| problem.pointer).collect::<Vec<_>>(),
    };
    assert_eq!(
        problems(json!({ "path": "a.parquet", "partition_by": ["key"], "file_bytes": "1MB" })),
        ["/partition_by", "/file_bytes"]
    );
    assert_eq!(problems(json!({ "path": "s3://bucket/out" })), [] as [&str; 0]);
    for path in ["s3://bucket", "memory://bucket/out", "https://example.com/out"] {
        assert_eq!(problems(json!({ "path": path })), ["/path"], "{path}");
    }
    assert_eq!(problems(json!({ "path": ".." })), ["/path"]);
    assert_eq!(problems(json!({ "path": "a.parquet", "mode": "append" })), ["/mode"]);
    assert_eq!(problems(json!({ "path": "out", "mode": "mix" })).len(), 1);
    assert_eq!(problems(json!({ "path": "out", "max_partitions": 0 })), ["/max_partitions"]);
    assert!(problems(json!({ "path": "out", "partition_by": ["key"] })).is_empty());
}

#[test]
fn a_suffix_makes_one_file() {
    let planning = Planning {
        base_dir: "/base".into(),
        batch_rows: 8192,
        batch_bytes: ByteCount::mib(4),
        max_concurrency: 10,
    };
    for (sink, path, is_file) in [
        ("parquet", "a/b.parquet", true),
        ("parquet", "a/b", false),
        ("parquet", "a/b.ndjson", false),
        ("stac_geoparquet", "a/b.parquet", true),
        ("stac_geoparquet", "b.geoparquet", true),
        ("stac_geoparquet", "a/b", false),
        ("ndjson", "b.ndjson.zst", true),
        ("ndjson", "b.jsonl", true),
        ("csv", "b.csv", true),
        ("json", "b.json.gz", true),
        ("arrow", "b.arrow", true),
    ] {
        let output = configure(sink, json!({ "path": path })).unwrap().output(&planning).unwrap();
        assert_eq!((output.path.to_str().unwrap(), output.is_file), (&*format!("/base/{path}"), is_file));
    }
}

// 50: a full disk is told as such, with the file
#[tokio::test]
async fn a_full_disk_is_named() {
    for sink in ["parquet", "ndjson", "json", "csv", "arrow"] {
        let place = Place::on(Arc::new(FailingFs::full()), ByteCount::mib(16));
        let error = place.write(sink, json!({ "path": "out" }), &[rows(0, 50_000, 7)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{sink}: {error:?}");
        assert!(error.to_string().contains("no space left"), "{error}");
        assert!(error.context("path").unwrap().contains("part-r1-00000"), "{error}");
        assert!(place.cx.share().free() == place.cx.share().total(), "{sink} kept memory");
    }
}

#[tokio::test]
async fn a_sealed_table_is_published_with_its_manifest() {
    let place = Place::new(ByteCount::mib(16));
    let config =
        configure("parquet", json!({ "path": place.dir.path().join("lake"), "partition_by": ["key"] }));
    let planning =
        Planning { base_dir: "".into(), batch_rows: 1, batch_bytes: ByteCount::mib(1), max_concurrency: 1 };
    let output = config.unwrap().output(&planning).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(StdFs);
    let written = "2026-01-01T00:00:00Z".parse().unwrap();
    let run = NewRun {
        flow: "f".into(),
        run_id: "r1".into(),
        now: written,
        identity: Default::default(),
        fixed: Default::default(),
        targets: vec![Target { output: output.clone(), mode: Mode::Replace, is_filled_last: false }],
    };
    let log = FlowLog::open(&fs, &place.dir.path().join("state")).unwrap();
    let mut run = log.begin(run, Start::Resume).unwrap();
    let inside = Place::new(ByteCount::mib(16));
    let parts = inside
        .write("parquet", json!({ "path": "lake", "partition_by": ["key"] }), &[rows(0, 1000, 5)])
        .await;
    let epoch = Epoch { parts: vec![parts.unwrap()], ..Epoch::default() };
    let committed = run.commit(epoch, End::Finish, written).unwrap();
    assert!(committed.pending.is_none());
    let published = &committed.published[0];
    assert_eq!((published.rows, published.n_parts), (1000, 5));

    let text = StdFs.read(&output.path.join("_aqueduct/manifest.json"), 1 << 20).unwrap();
    let manifest = Manifest::parse(&text).unwrap();
    for part in &manifest.parts {
        let bytes = StdFs.read(&output.path.join(&part.name), 1 << 20).unwrap();
        assert_eq!(
            (bytes.len() as u64, blake3::hash(&bytes).to_hex().as_str()),
            (part.bytes, part.blake3.as_str())
        );
    }
    assert_eq!(files_below(&output.path).len(), 6);
}
