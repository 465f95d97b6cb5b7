//! Runs of `files` that go on in another process.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Context, Durable, ErrorKind, Fs, Positions, ReadAgain, Result, SourceFactory, StdFs};
use aqueduct_formats::write::{CompressedWriter, TextCompression};
use aqueduct_net::{Fetcher, HttpOptions, StorageOptions};
use aqueduct_primitives::{Budget, ByteCount};
use aqueduct_sources::files::FACTORY;
use aqueduct_testkit::http::{Answer, Server};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::support::{Kept, ndjson, numbers};

/// Rows in a batch: few, so that small files have many.
const BATCH_ROWS: usize = 100;

/// The split whose position is all that a commit keeps.
const SPLIT: &str = "files";

/// The folders of a run, which its processes find again.
struct Run {
    dir: tempfile::TempDir,
}

/// One process of a run. What it rejects counts only if it is committed.
struct Process {
    cx: Context,
    rejected: Arc<Kept>,
}

/// What a process gave.
#[derive(Default)]
struct Given {
    rows: Vec<RecordBatch>,
    /// The rows that were rejected, by file and row.
    rejected: Vec<(String, Option<u64>)>,
    passed: Positions,
    n_batches: usize,
    /// The size of the largest position, as JSON.
    largest_position: usize,
}

impl Run {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn kept(&self, name: &str) -> PathBuf {
        self.path("state/run").join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn process(&self) -> Process {
        let rejected = Arc::new(Kept::default());
        let cx = Context::standalone_with(
            &Budget::new("test", ByteCount::mb(64)),
            |run| {
                run.base_dir = self.dir.path().to_owned();
                run.batch_rows = BATCH_ROWS;
                run.rejects = Arc::<Kept>::clone(&rejected) as _;
                let fetcher =
                    Fetcher::new(HttpOptions::default(), StorageOptions::default(), run.tasks.clone());
                run.services.insert(Arc::new(fetcher.unwrap()));
            },
            |step| {
                let durable = Durable::new(None, self.path("state/step"), self.path("state/run"));
                step.durable = Some(durable);
            },
        );
        Process { cx: cx.unwrap(), rejected }
    }

    /// Reads at most so many batches and commits.
    async fn read(&self, options: &Value, from: &Positions, n_batches: usize) -> Result<Given> {
        self.process().read(options, from, n_batches).await
    }

    async fn all(&self, options: &Value, from: &Positions) -> Result<Given> {
        self.read(options, from, usize::MAX).await
    }

    /// For every batch of a run: cut after it, the run goes on with what had not come.
    async fn check_every_cut(options: &Value, lay_down: impl Fn(&Self)) {
        let whole = Self::new();
        lay_down(&whole);
        let expected = whole.all(options, &Positions::default()).await.unwrap();
        assert!(expected.n_batches > 5, "{} batches", expected.n_batches);
        for n_batches in 1.. {
            let run = Self::new();
            lay_down(&run);
            let before = run.read(options, &Positions::default(), n_batches).await.unwrap();
            if before.n_batches < n_batches {
                break;
            }
            let after = run.all(options, &before.passed).await.unwrap();
            let told = format!("{options}, cut after {n_batches} batches at {:?}", before.passed);
            assert_eq!(joined(&before.rows, &after.rows), joined(&expected.rows, &[]), "{told}");
            let mut rejected = [before.rejected, after.rejected].concat();
            let mut all_rejected = expected.rejected.clone();
            rejected.sort();
            all_rejected.sort();
            assert_eq!(rejected, all_rejected, "{told}");
        }
    }
}

/// `n` and `_row` of all rows, whatever their order.
fn joined(before: &[RecordBatch], after: &[RecordBatch]) -> Vec<(i64, i64)> {
    let rows = [before, after].concat();
    let mut rows: Vec<_> = numbers(&rows, "n").into_iter().zip(numbers(&rows, "_row")).collect();
    rows.sort_unstable();
    rows
}

impl Process {
    async fn read(&self, options: &Value, from: &Positions, n_batches: usize) -> Result<Given> {
        let config = FACTORY.configure(options.clone()).map_err(|problems| panic!("{problems:?}")).unwrap();
        let mut batches = config.open(&self.cx).await?.run(self.cx.clone(), from.clone());
        let mut given = Given::default();
        while given.n_batches < n_batches {
            let Some(batch) = batches.try_next().await? else { break };
            given.rows.push(batch.records().clone());
            given.passed.merge(batch.positions().clone());
            given.passed.keep_only(SPLIT);
            let position = given.passed.get(SPLIT).unwrap().to_string();
            given.largest_position = given.largest_position.max(position.len());
            given.n_batches += 1;
        }
        let of = |reject: aqueduct_core::Reject| {
            let name = Path::new(&reject.origin.file).file_name().unwrap().to_string_lossy().into_owned();
            (name, reject.origin.row)
        };
        given.rejected = self.rejected.all().into_iter().map(of).collect();
        self.cx.durable().unwrap().keeper().unwrap().keep().await?;
        drop(batches);
        self.cx.tasks().join().await;
        assert_eq!(self.cx.flow().free(), self.cx.flow().total());
        assert_eq!(self.cx.share().free(), self.cx.share().total());
        Ok(given)
    }
}

/// A thousand rows, of which every 90th is bad.
fn with_bad_rows(from: i64) -> String {
    let row = |n: i64| if n % 90 == 7 { "{\"n\":\"seven\"}\n".to_owned() } else { ndjson([n]) };
    (from..from + 1000).map(row).collect()
}

fn csv(from: i64) -> String {
    let rows = (from..from + 1000).map(|n| if n % 90 == 7 { "seven\n".to_owned() } else { format!("{n}\n") });
    std::iter::once("n\n".to_owned()).chain(rows).collect()
}

fn parquet(numbers: std::ops::Range<i64>) -> Vec<u8> {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut writer = CompressedWriter::new(Vec::new(), TextCompression::Gzip);
    writer.write_all(text.as_bytes()).unwrap();
    writer.finish().unwrap()
}

fn zipped(members: &[(&str, String)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in members {
        archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn reading(paths: Value) -> Value {
    json!({"paths": paths, "schema": {"n": "int64"}, "origin": true})
}

// CKP-1
#[tokio::test(flavor = "multi_thread")]
async fn a_csv_file_goes_on_after_every_batch() {
    Run::check_every_cut(&reading(json!("a.csv")), |run| run.write("a.csv", csv(0))).await;
}

// CKP-1
#[tokio::test(flavor = "multi_thread")]
async fn an_ndjson_file_with_bad_rows_goes_on_after_every_batch_and_tells_each_once() {
    let options = reading(json!("a.ndjson"));
    Run::check_every_cut(&options, |run| run.write("a.ndjson", with_bad_rows(0))).await;
    let run = Run::new();
    run.write("a.ndjson", with_bad_rows(0));
    let all = run.all(&options, &Positions::default()).await.unwrap();
    assert_eq!(all.rejected.len(), 12);
    assert_eq!(all.rejected[0], ("a.ndjson".to_owned(), Some(8)));
}

// CKP-1
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_bad_rows_alone_goes_on_although_no_row_comes() {
    let options = reading(json!(["a.ndjson", "b.ndjson"]));
    Run::check_every_cut(&options, |run| {
        run.write("a.ndjson", "no row\n".repeat(5000));
        run.write("b.ndjson", ndjson(0..10));
    })
    .await;
}

// CKP-1
#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_file_goes_on_after_every_batch() {
    Run::check_every_cut(&reading(json!("a.parquet")), |run| run.write("a.parquet", parquet(0..1000))).await;
}

// CKP-1
#[tokio::test(flavor = "multi_thread")]
async fn packed_files_go_on_after_every_batch() {
    let (gz, zip) = (gzip(&csv(0)), zipped(&[("a.csv", csv(0)), ("b.csv", csv(1000))]));
    Run::check_every_cut(&reading(json!("a.csv.gz")), |run| run.write("a.csv.gz", &gz)).await;
    Run::check_every_cut(&reading(json!("a.csv.zip")), |run| run.write("a.csv.zip", &zip)).await;
}

// CKP-1
#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_mixed_go_on_after_every_batch() {
    for order in ["any", "listed"] {
        let mut options = reading(json!(["in/*", "gone.ndjson"]));
        options["window"] = json!(3);
        options["order"] = json!(order);
        Run::check_every_cut(&options, |run| {
            for (file, from) in (0..7).map(|file| (file, file * 1000)) {
                let rows: String =
                    with_bad_rows(from).lines().take(250).map(|row| format!("{row}\n")).collect();
                run.write(&format!("in/{file}.ndjson"), rows);
            }
        })
        .await;
    }
}

// MEM-1
#[tokio::test(flavor = "multi_thread")]
async fn positions_stay_small_however_many_files_there_are() {
    let run = Run::new();
    run.write("slow.ndjson", ndjson(0..30_000));
    run.write("a.ndjson", ndjson([7]));
    run.write("list.txt", format!("slow.ndjson\n{}", "a.ndjson\n".repeat(19_999)));
    let mut options = reading(json!({"file": "list.txt"}));
    options["window"] = json!(4);
    let before = run.read(&options, &Positions::default(), 20_000).await.unwrap();
    run.write("list.txt", "other.ndjson\n");
    let after = run.all(&options, &before.passed).await.unwrap();
    assert_eq!(joined(&before.rows, &after.rows).len(), 30_000 + 19_999);
    let largest = before.largest_position.max(after.largest_position);
    assert!(largest < 1000, "{largest} bytes");
    assert_eq!(after.passed.get(SPLIT), Some(&json!({"upto": 20_000})));
}

fn refused(error: &aqueduct_core::Error, file: &str) {
    let told = error.chain();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{told}");
    assert!(error.context("file").is_some_and(|found| found.ends_with(file)), "{told}");
    assert!(error.context("was").is_some() && error.context("is").is_some(), "{told}");
    assert!(told.contains("--fresh") && told.contains("cannot be taken back"), "{told}");
    assert!(error.cause::<ReadAgain>().is_none(), "{told}");
}

/// Whether a file is in the middle, by the position that a commit kept.
fn is_open(given: &Given) -> bool {
    given.passed.get(SPLIT).unwrap().get("open").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_file_that_changed_is_refused_by_name_open_or_done() {
    let mut options = reading(json!(["a.ndjson", "b.ndjson"]));
    options["order"] = json!("listed");
    let lay_down = |run: &Run| {
        run.write("a.ndjson", ndjson(0..250));
        run.write("b.ndjson", ndjson(250..500));
    };
    for (n_batches, name, text, is_read_on) in [
        (1, "a.ndjson", Some(ndjson(0..251)), false),
        (1, "a.ndjson", None, false),
        // Nothing of it came yet.
        (1, "b.ndjson", Some(ndjson(250..501)), true),
        (5, "a.ndjson", Some(ndjson(0..251)), false),
        (5, "a.ndjson", None, false),
        (5, "b.ndjson", Some(ndjson(250..501)), false),
    ] {
        let run = Run::new();
        lay_down(&run);
        let before = run.read(&options, &Positions::default(), n_batches).await.unwrap();
        assert!(is_open(&before), "{:?}", before.passed);
        match &text {
            Some(text) => run.write(name, text),
            None => std::fs::remove_file(run.path(name)).unwrap(),
        }
        let after = run.all(&options, &before.passed).await;
        match is_read_on {
            true => assert_eq!(joined(&before.rows, &after.unwrap().rows).len(), 501),
            false => refused(&after.err().unwrap(), name),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_on_a_server_that_changed_is_refused_by_name_open_or_done() {
    for (n_batches, name) in [(1, "/a.ndjson"), (5, "/a.ndjson"), (5, "/b.ndjson")] {
        for is_gone in [false, true] {
            let (run, server) = (Run::new(), Server::start().await);
            let a = server.file("/a.ndjson", ndjson(0..250));
            let b = server.file("/b.ndjson", ndjson(250..500));
            let mut options = reading(json!([a, b]));
            options["order"] = json!("listed");
            let before = run.read(&options, &Positions::default(), n_batches).await.unwrap();
            assert!(is_open(&before), "{:?}", before.passed);
            let body = Bytes::from(ndjson(0..250));
            server.route(name, move |request| match is_gone {
                true => Answer::new(404).body("gone\n"),
                false => Answer::file(request, &body, "\"v2\""),
            });
            refused(&run.all(&options, &before.passed).await.err().unwrap(), name);
        }
    }
}

/// What was committed stays: the policy for files that change is for what was not.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_which_rows_are_committed_is_not_read_again_and_another_is() {
    for (n_batches, name, is_refused) in
        [(1, "/a.ndjson", true), (1, "/b.ndjson", false), (5, "/a.ndjson", true), (5, "/b.ndjson", true)]
    {
        let (run, server) = (Run::new(), Server::start().await);
        let a = server.file("/a.ndjson", ndjson(0..250));
        let b = server.file("/b.ndjson", ndjson(250..500));
        let mut options = reading(json!([a, b]));
        options["order"] = json!("listed");
        options["on_change"] = json!("reread");
        let before = run.read(&options, &Positions::default(), n_batches).await.unwrap();
        let body = Bytes::from(ndjson(250..501));
        server.route(name, move |request| Answer::file(request, &body, "\"v2\""));
        let after = run.all(&options, &before.passed).await;
        match is_refused {
            true => refused(&after.err().unwrap(), name),
            false => assert_eq!(joined(&before.rows, &after.unwrap().rows).len(), 501),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn done_files_are_looked_at_and_not_read_again() {
    let (run, server) = (Run::new(), Server::start().await);
    let names: Vec<_> = (0..6).map(|file| format!("/{file}.ndjson")).collect();
    let urls: Vec<_> = (0..).zip(&names).map(|(file, name)| server.file(name, ndjson([file]))).collect();
    let list = server.file("/list.txt", urls.join("\n"));
    let options = json!({"list": {"url": list}, "schema": {"n": "int64"}, "origin": true, "order": "listed",
                         "window": 2});
    let before = run.read(&options, &Positions::default(), 8).await.unwrap();
    assert_eq!(before.passed.get(SPLIT), Some(&json!({"upto": 4})));
    server.route("/list.txt", |_| Answer::new(404).body("gone\n"));
    let n_before: Vec<_> = names.iter().map(|name| server.asked(name).len()).collect();
    let after = run.all(&options, &before.passed).await.unwrap();
    assert_eq!(joined(&before.rows, &after.rows).len(), 6);
    let methods = |file: usize| -> Vec<String> {
        let asked = server.asked(&names[file]);
        asked[n_before[file]..].iter().map(|request| request.method.clone()).collect()
    };
    (0..4).for_each(|file| assert_eq!(methods(file), ["HEAD"], "{file}"));
    (4..6).for_each(|file| assert_eq!(methods(file), ["GET"], "{file}"));
    assert_eq!(server.asked("/list.txt").len(), 1, "what is listed once is not listed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_came_after_the_run_began_are_not_read_and_its_columns_stay() {
    let run = Run::new();
    run.write("in/b.ndjson", ndjson(0..150));
    run.write("in/c.ndjson", ndjson(150..300));
    let options = json!({"paths": "in/*.ndjson", "origin": true, "order": "listed"});
    let before = run.read(&options, &Positions::default(), 3).await.unwrap();
    run.write("in/a.ndjson", "{\"n\":1,\"other\":\"column\"}\n");
    run.write("in/d.ndjson", ndjson(300..400));
    let after = run.all(&options, &before.passed).await.unwrap();
    let rows: Vec<_> = joined(&before.rows, &after.rows).into_iter().map(|(n, _)| n).collect();
    assert_eq!(rows, (0..300).collect::<Vec<_>>());
    assert_eq!(before.rows[0].schema(), after.rows[0].schema());
    // The columns are those of the first file as it was.
    run.write("in/b.ndjson", "{\"m\":true}\n");
    let process = run.process();
    let source = FACTORY.configure(options.clone()).unwrap().open(&process.cx).await.unwrap();
    assert_eq!(source.schema(), before.rows[0].schema());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_its_end_is_made_anew_and_one_that_is_gone_is_missed() {
    let run = Run::new();
    run.write("a.ndjson", ndjson(0..150));
    let options = reading(json!("*.ndjson"));
    let before = run.read(&options, &Positions::default(), 1).await.unwrap();
    let list = StdFs.read(&run.kept("inputs.ndjson"), 1 << 20).unwrap();
    let cut = list.len() - 4;
    std::fs::write(run.kept("inputs.ndjson"), &list[..cut]).unwrap();
    run.write("b.ndjson", ndjson(150..300));
    let anew = run.all(&options, &Positions::default()).await.unwrap();
    assert_eq!(joined(&anew.rows, &[]).len(), 300);
    std::fs::remove_file(run.kept("inputs.ndjson")).unwrap();
    let error = run.all(&options, &before.passed).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.chain().contains("--fresh"), "{}", error.chain());
}

// T2
#[tokio::test(flavor = "multi_thread")]
async fn what_holds_credentials_is_read_by_its_owner_alone() {
    let (run, server) = (Run::new(), Server::start().await);
    let url = server.file("/a.ndjson", ndjson(0..10)) + "?token=canary";
    run.all(&reading(json!([url])), &Positions::default()).await.unwrap();
    let mut n_found = 0;
    for entry in std::fs::read_dir(run.path("state/run")).unwrap() {
        let path = entry.unwrap().path();
        let holds = String::from_utf8_lossy(&StdFs.read(&path, 1 << 20).unwrap()).contains("canary");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert!(!holds || mode == 0o600, "{path:?} has mode {mode:o}");
        n_found += usize::from(holds);
    }
    assert_eq!(n_found, 2, "the list and what was read of it");
}
