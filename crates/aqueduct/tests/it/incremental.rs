//! Sources that read only what no earlier run has committed.

use std::fs::{File, FileTimes};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use aqueduct_testkit::http::{Answer, Gate, Server};
use rustix::process::Signal;
use tokio::sync::watch;

use crate::job::{Job, ndjson};

const FLOW: &str = r#"
name: nights
source: { files: { paths: ["in"], incremental: { by: BY } } }
sink: { ndjson: { path: out } }
"#;

/// A flow over the folder `in`.
fn job_by(by: &str) -> Job {
    Job::with_flow(&FLOW.replace("BY", by))
}

/// The numbers in all parts of `out`, sorted.
fn numbers(job: &Job) -> Vec<i64> {
    let parts = job.files("out").into_iter().filter(|name| name.ends_with(".ndjson"));
    let mut numbers: Vec<_> = parts.flat_map(|part| job.numbers(&format!("out/{part}")).unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn range(rows: std::ops::Range<i64>) -> Vec<i64> {
    rows.collect()
}

/// Makes a file look as if it was changed at another time.
fn touch(job: &Job, name: &str) {
    let file = File::options().write(true).open(job.path(name)).unwrap();
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    file.set_times(FileTimes::new().set_modified(later)).unwrap();
}

#[test]
fn each_night_what_is_new_in_a_growing_folder_is_added() {
    for by in ["modified", "name", "content"] {
        let job = job_by(by);
        job.write("in/0.ndjson", ndjson(0..10));
        job.run("check flow.yaml").exits(0);
        let explained = job.run("explain flow.yaml").exits(0).stdout;
        assert!(explained.contains("append") && explained.contains("`source` reads only"), "{explained}");
        for (night, rows) in [(1, 0..10), (2, 10..25), (3, 25..26)] {
            job.write(&format!("in/{night}.ndjson"), ndjson(rows.clone()).replace('}', " }"));
            let done = job.run("run flow.yaml --report report.json").exits(0);
            done.says(&["mode append", "`source` reads only"]);
            let expected: Vec<_> = range(0..10).into_iter().chain(0..rows.end).collect();
            let mut expected = expected;
            expected.sort_unstable();
            assert_eq!(numbers(&job), expected, "{by}, night {night}");
            assert_eq!(job.report()["mode"], "append");
        }
        job.run("verify out").exits(0);
    }
}

#[test]
fn where_nothing_is_new_the_output_stays_as_it_is() {
    for (by, columns) in
        [("name", ""), ("modified", ""), ("content", ""), ("modified", ", schema: { n: int64 }")]
    {
        let flow = FLOW.replace("BY }", &format!("{by} }}{columns}"));
        let job = Job::with_flow(&flow.replace("sink:", "stages: [{ filter: \"n >= 0\" }]\nsink:"));
        for n in 0..3 {
            job.write(&format!("in/{n}.ndjson"), ndjson(n * 10..n * 10 + 10));
        }
        job.run("run flow.yaml").exits(0);
        let before = job.files("out");
        let done = job.run("run flow.yaml --report report.json").exits(0);
        done.says(&["nothing new: 3 files were committed by earlier runs", "3 files committed before"]);
        let report = job.report();
        assert_eq!(
            (&report["rows_in"], &report["rows_out"], &report["files_known"]),
            (&0.into(), &0.into(), &3.into())
        );
        assert_eq!((job.files("out"), numbers(&job)), (before, range(0..30)), "{by}");
    }
}

#[test]
fn nothing_that_matches_at_all_is_still_an_error() {
    let job = job_by("modified");
    job.write("in/0.ndjson", ndjson(0..3));
    job.run("run flow.yaml").exits(0);
    std::fs::remove_file(job.path("in/0.ndjson")).unwrap();
    job.run("run flow.yaml").exits(1).says(&["nothing matches", "allow_empty"]);
    job.run("run flow.yaml --set source.files.allow_empty=true --set source.files.schema.n=int64").exits(0);
    assert_eq!(numbers(&job), range(0..3));
}

/// The same four things happen to a file; which of them makes it new is what `by` says.
#[test]
fn a_file_that_was_touched_grown_renamed_or_copied_is_new_as_the_flow_says() {
    let (old, grown) = (range(0..3), [range(0..3), range(0..5)].concat());
    let sorted = |mut numbers: Vec<i64>| {
        numbers.sort_unstable();
        numbers
    };
    let twice = || sorted([old.clone(), old.clone()].concat());
    for (by, touched, rewritten, renamed) in [
        ("modified", twice(), sorted(grown.clone()), twice()),
        ("name", old.clone(), old.clone(), twice()),
        ("content", old.clone(), sorted(grown), old.clone()),
    ] {
        type Change = fn(&Job);
        let changes: [(Change, Vec<i64>); 4] = [
            (|job| touch(job, "in/a.ndjson"), touched),
            (|job| job.write("in/a.ndjson", ndjson(0..5)), rewritten),
            (
                |job| std::fs::rename(job.path("in/a.ndjson"), job.path("in/b.ndjson")).unwrap(),
                renamed.clone(),
            ),
            (
                |job| assert!(std::fs::copy(job.path("in/a.ndjson"), job.path("in/b.ndjson")).unwrap() > 0),
                renamed,
            ),
        ];
        for (n, (change, expected)) in changes.into_iter().enumerate() {
            let job = job_by(by);
            job.write("in/a.ndjson", ndjson(0..3));
            job.run("run flow.yaml").exits(0);
            change(&job);
            for _ in 0..2 {
                job.run("run flow.yaml").exits(0);
                assert_eq!(numbers(&job), expected, "{by}, change {n}");
            }
        }
    }
}

#[test]
fn a_bad_file_is_tried_again_when_it_is_another() {
    for by in ["modified", "name", "content"] {
        let job = job_by(by);
        let skip = "run flow.yaml --set execution.on_error=skip --report report.json";
        job.write("in/a.ndjson", ndjson(0..3));
        job.write("in/b.ndjson.gz", b"\x1f\x8bno gzip");
        job.run(skip).exits(0);
        job.run(skip).exits(0).says(&["nothing new: 2 files"]);
        job.write("in/b.ndjson.gz", ndjson(3..5));
        job.run(skip).exits(0);
        assert_eq!(numbers(&job), range(0..5), "{by}");
    }
}

#[test]
fn a_full_refresh_forgets_and_another_way_of_knowing_files_is_refused() {
    let job = job_by("modified");
    job.write("in/a.ndjson", ndjson(0..3));
    job.run("run flow.yaml").exits(0);
    job.write("in/b.ndjson", ndjson(3..5));
    job.run("run flow.yaml --set source.files.incremental.by=name")
        .exits(1)
        .says(&["--full-refresh", "modified"]);
    job.run("run flow.yaml").exits(0);
    assert_eq!(numbers(&job), range(0..5));
    std::fs::remove_file(job.path("in/a.ndjson")).unwrap();
    job.run("run flow.yaml --full-refresh").exits(0);
    assert_eq!(numbers(&job), range(3..5));
    job.run("run flow.yaml").exits(0).says(&["nothing new: 1 files"]);
    job.run("run flow.yaml --full-refresh --set source.files.incremental.by=content").exits(0);
    assert_eq!(numbers(&job), range(3..5));
}

/// Whatever remembers: what a run began without counts again if that run fails.
#[test]
fn a_full_refresh_that_fails_has_forgotten_nothing() {
    let unseen = FLOW
        .replace(", incremental: { by: BY }", "")
        .replace("sink", "stages: [{ unseen: { keys: [n] } }]\nsink");
    for flow in [FLOW.replace("BY", "modified"), unseen] {
        let job = Job::with_flow(&flow.replace("sink", "commit: { bytes: 1 }\nsink"));
        job.write("in/a.ndjson", ndjson(0..100));
        job.run("run flow.yaml").exits(0);
        job.write("in/b.ndjson", ndjson(100..200) + "broken\n");
        job.run("run flow.yaml --full-refresh").exits(1);
        job.write("in/b.ndjson", ndjson(100..200));
        job.run("run flow.yaml --fresh").exits(0);
        assert_eq!(numbers(&job), range(0..200), "{flow}");
    }
}

#[test]
fn a_trial_of_some_rows_does_not_count_their_files_as_read() {
    let job = job_by("modified");
    job.write("in/a.ndjson", ndjson(0..10));
    job.run("run flow.yaml --limit 4").exits(0);
    assert_eq!(numbers(&job), range(0..4));
    job.run("run flow.yaml --full-refresh").exits(0);
    job.write("in/b.ndjson", ndjson(10..20));
    job.run("run flow.yaml --limit 0").exits(0);
    job.run("run flow.yaml").exits(0);
    assert_eq!(numbers(&job), range(0..20));
}

#[test]
fn the_flow_is_the_same_wherever_it_is_started_from() {
    let job = job_by("name");
    job.write("in/a.ndjson", ndjson(0..3));
    job.run("run flow.yaml").exits(0);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = job.command("run");
    command.current_dir(elsewhere.path()).arg(job.path("flow.yaml"));
    crate::job::finish(command).exits(0).says(&["nothing new: 1 files"]);
}

/// Three files; the last one waits in its middle until the gate is opened. What came before is committed every second.
struct Stalled {
    job: Job,
    server: Server,
    gate: Gate,
    asked: watch::Sender<u64>,
    /// The version of the last file, and its rows.
    version: Arc<AtomicU64>,
}

impl Stalled {
    async fn new() -> Self {
        Self::with_stages("").await
    }

    async fn with_stages(stages: &str) -> Self {
        let (server, gate, version) = (Server::start().await, Gate::closed(), Arc::new(AtomicU64::new(1)));
        for n in 0..2 {
            server.file(&format!("/{n}.ndjson"), ndjson(n * 10..n * 10 + 10));
        }
        let (waits, is, asked) = (gate.clone(), Arc::clone(&version), watch::Sender::new(0));
        let was_asked = asked.clone();
        server.route("/2.ndjson", move |request| {
            let (first, second) = (ndjson(20..25), ndjson(25..30));
            let answer = Answer::new(200).header("ETag", format!("\"{}\"", is.load(SeqCst)));
            let answer = answer.header("Content-Length", first.len() + second.len());
            if request.method == "HEAD" {
                return answer;
            }
            was_asked.send_modify(|n| *n += 1);
            answer.send(first).wait_for(&waits).send(second)
        });
        let flow = r#"
name: stalled
commit: { every: 1s }
source:
  files: { paths: ["BASE/0.ndjson", "BASE/1.ndjson", "BASE/2.ndjson"], schema: { n: int64 }, window: 1, order: listed, incremental: {} }
STAGES
sink: { ndjson: { path: out } }
"#;
        let job = Job::with_flow(&flow.replace("BASE", &server.url("")).replace("STAGES", stages));
        Self { job, server, gate, asked, version }
    }

    /// A run that is ended in the middle of the last file, with what came before committed.
    async fn run_that_ends(&self, signal: Signal) {
        let mut asked = self.asked.subscribe();
        let run = self.job.start("run flow.yaml");
        asked.changed().await.unwrap();
        while self.numbers().len() < 25 {
            tokio::task::yield_now().await;
        }
        run.signal(signal);
        drop(run.wait());
        self.server.until_connections(0).await;
    }

    fn numbers(&self) -> Vec<i64> {
        match self.job.path("out").exists() {
            true => numbers(&self.job),
            false => Vec::new(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_goes_on_and_the_next_one_finds_nothing_new() {
    for signal in [Signal::KILL, Signal::TERM] {
        let stalled = Stalled::new().await;
        stalled.run_that_ends(signal).await;
        stalled.gate.open();
        stalled.job.run("run flow.yaml").exits(0).says(&["going on"]);
        assert_eq!(stalled.numbers(), range(0..30));
        stalled.job.run("run flow.yaml").exits(0).says(&["nothing new: 3 files"]);
        assert_eq!(stalled.numbers(), range(0..30));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_was_edited_in_the_middle_reads_the_rest_and_nothing_twice() {
    let edits: [(&str, &str, &str); 2] =
        [("run flow.yaml", "path: out", "path: out, compression: none"), ("run flow.yaml --fresh", "", "")];
    for (words, from, to) in edits {
        let stalled = Stalled::new().await;
        stalled.run_that_ends(Signal::KILL).await;
        stalled.gate.open();
        stalled.job.write("flow.yaml", stalled.job.read("flow.yaml").replace(from, to));
        let n_before = stalled.server.asked("/0.ndjson").len();
        stalled.job.run(words).exits(0).says(&["1 files are new, 2 were committed"]);
        assert_eq!(stalled.numbers(), range(0..30), "{words}");
        let asked = stalled.server.asked("/0.ndjson");
        assert!(asked[n_before..].iter().all(|one| one.method == "HEAD"), "only asked whether it is new");
        stalled.job.run("run flow.yaml").exits(0).says(&["nothing new: 3 files"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_after_half_of_it_was_committed_is_named() {
    let stalled = Stalled::new().await;
    stalled.run_that_ends(Signal::KILL).await;
    stalled.gate.open();
    stalled.version.store(2, SeqCst);
    stalled.job.run("run flow.yaml").exits(1).says(&["/2.ndjson", "changed", "--fresh"]);
    stalled.job.run("run flow.yaml --fresh --report report.json").exits(0).says(&["/2.ndjson", "5 rows"]);
    let expected: Vec<_> = range(0..25).into_iter().chain(20..30).collect();
    let mut expected = expected;
    expected.sort_unstable();
    assert_eq!(stalled.numbers(), expected, "all of the new version, beside what is public of the old one");
    assert_eq!(stalled.job.report()["warnings"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_read_again_when_its_version_is_another() {
    let server = Server::start().await;
    let version = Arc::new(AtomicU64::new(0));
    for (path, header) in [("/etag", "ETag"), ("/date", "Last-Modified")] {
        let version = Arc::clone(&version);
        server.route(path, move |_| {
            let n = version.load(SeqCst);
            let value = match header {
                "ETag" => format!("\"v{n}\""),
                _ => format!("Thu, 01 Jan 2026 00:00:0{n} GMT"),
            };
            let n = i64::try_from(n).unwrap();
            Answer::ok(ndjson([n])).header(header, value)
        });
    }
    let flow = r#"
name: urls
source: { files: { paths: ["BASE/etag", "BASE/date"], format: ndjson, incremental: {} } }
sink: { ndjson: { path: out } }
"#;
    let job = Job::with_flow(&flow.replace("BASE", &server.url("")));
    for night in 0..3 {
        version.store(night, SeqCst);
        job.run("run flow.yaml").exits(0);
        job.run("run flow.yaml").exits(0).says(&["nothing new: 2 files"]);
    }
    assert_eq!(numbers(&job), [0, 0, 1, 1, 2, 2]);
    let gets = |path: &str| server.asked(path).iter().filter(|one| one.method == "GET").count();
    // One more each quiet night is the one that tells the columns.
    assert!(gets("/date") <= 6, "{}", gets("/date"));
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_without_versions_are_refused_or_hashed() {
    let server = Server::start().await;
    let rows = Arc::new(AtomicU64::new(3));
    let n_rows = Arc::clone(&rows);
    server.route("/plain", move |_| {
        let n = i64::try_from(n_rows.load(SeqCst)).unwrap();
        Answer::new(200).chunks([ndjson(0..n)]).last_chunk()
    });
    let flow = r#"
name: plain
source: { files: { paths: ["BASE/plain"], format: ndjson, incremental: { by: modified } } }
sink: { ndjson: { path: out } }
"#;
    let job = Job::with_flow(&flow.replace("BASE", &server.url("")));
    job.run("run flow.yaml").exits(1).says(&["/plain", "by: content"]);
    job.write("flow.yaml", job.read("flow.yaml").replace("modified", "content"));
    for (n, expected) in [(3, vec![0, 1, 2]), (3, vec![0, 1, 2]), (4, vec![0, 0, 1, 1, 2, 2, 3])] {
        rows.store(n, SeqCst);
        job.run("run flow.yaml").exits(0);
        assert_eq!(numbers(&job), expected);
    }
}

/// A line of an events file: 61 fields, most of them empty.
fn event(id: u32) -> String {
    let mut fields = vec![String::new(); 61];
    fields[0] = id.to_string();
    fields.join("\t") + "\n"
}

/// A server laid out like GDELT's.
struct Gdelt {
    server: Server,
    job: Job,
}

impl Gdelt {
    async fn new(more: &str) -> Self {
        let server = Server::start().await;
        let flow = r#"
name: gdelt
source: { gdelt: { dataset: events, from: 2026-01-01, base_url: "BASE", verify: off MORE } }
stages: [{ select: [GlobalEventID] }]
sink: { ndjson: { path: out } }
"#;
        let job = Job::with_flow(&flow.replace("BASE", &server.url("")).replace("MORE", more));
        Self { server, job }
    }

    /// These intervals stand in the master list: their days and hours in January, each with a file of one event.
    fn list(&self, hours: &[&str]) {
        let names = hours.iter().map(|hour| format!("202601{hour}0000.export.CSV.zip"));
        let lines: String =
            names.map(|name| format!("1 0 http://data.gdeltproject.org/gdeltv2/{name}\n")).collect();
        self.server.file("/masterfilelist.txt", lines);
    }

    fn publish(&self, hours: &[&str]) {
        for hour in hours {
            self.server.file(&format!("/202601{hour}0000.export.CSV.zip"), event(hour.parse().unwrap()));
        }
    }

    /// A run that ends well; how many gaps and warnings it reports.
    fn run(&self) -> (usize, usize) {
        self.job.run("run flow.yaml --report report.json").exits(0);
        let report = self.job.report();
        let n = |name: &str| report[name].as_array().map_or(0, Vec::len);
        (n("gaps"), n("warnings"))
    }

    fn ids(&self) -> Vec<i64> {
        let parts = self.job.files("out").into_iter().filter(|name| name.ends_with(".ndjson"));
        let rows = parts.flat_map(|part| self.job.rows(&format!("out/{part}")).unwrap());
        let mut ids: Vec<_> = rows.map(|row| row["GlobalEventID"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        ids
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gdelt_without_an_end_reads_what_is_new_and_asks_for_gaps_again() {
    let gdelt = Gdelt::new("").await;
    gdelt.publish(&["0100", "0101", "0102", "0103"]);
    // An hour has four intervals, of which three are missing here.
    gdelt.list(&["0100", "0102"]);
    gdelt.job.run("check flow.yaml").exits(0);
    assert_eq!(gdelt.run(), (7, 0));
    assert_eq!(gdelt.ids(), [100, 102]);
    assert_eq!(gdelt.run(), (7, 0));
    gdelt.job.run("run flow.yaml").exits(0).says(&["nothing new: 2 files"]);
    gdelt.list(&["0100", "0101", "0102", "0103"]);
    assert_eq!(gdelt.run(), (9, 0), "one is filled, three come with what is new");
    assert_eq!(gdelt.ids(), [100, 101, 102, 103]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_missing_is_given_up_when_the_list_has_gone_on_for_long() {
    let gdelt = Gdelt::new(", retry_gaps: 3h").await;
    gdelt.publish(&["0100", "0102", "0103", "0105"]);
    // The file of one o'clock is listed, and not there.
    gdelt.list(&["0100", "0101", "0102"]);
    assert_eq!(gdelt.run(), (7, 0));
    gdelt.list(&["0100", "0101", "0102", "0103"]);
    assert_eq!(gdelt.run(), (10, 0));
    let n_before = gdelt.server.asked("/20260101010000.export.CSV.zip").len();
    gdelt.list(&["0100", "0101", "0102", "0103", "0105"]);
    assert_eq!(gdelt.run(), (10, 7), "those of the first run");
    assert!(gdelt.server.asked("/20260101010000.export.CSV.zip").len() > n_before);
    let n_before = gdelt.server.asked("/20260101010000.export.CSV.zip").len();
    assert_eq!(gdelt.run(), (10, 0));
    assert_eq!(
        gdelt.server.asked("/20260101010000.export.CSV.zip").len(),
        n_before,
        "it is asked for no more"
    );
    assert_eq!(gdelt.ids(), [100, 102, 103, 105]);
}

/// What a sort has taken in is nowhere when its run is dropped: those files are new again.
#[tokio::test(flavor = "multi_thread")]
async fn files_whose_rows_wait_in_a_sort_are_new_to_a_flow_that_was_edited() {
    let stalled = Stalled::with_stages("stages: [{ sort: { by: [n] } }]").await;
    let mut asked = stalled.asked.subscribe();
    let run = stalled.job.start("run flow.yaml");
    asked.changed().await.unwrap();
    stalled.server.until_bodies(1).await;
    run.signal(Signal::TERM);
    run.wait().exits(130);
    stalled.server.until_connections(0).await;
    stalled.gate.open();
    stalled.job.write("flow.yaml", stalled.job.read("flow.yaml").replace("by: [n]", "by: [\"n desc\"]"));
    stalled.job.run("run flow.yaml").exits(0).says(&["begins anew"]);
    assert_eq!(stalled.numbers(), range(0..30));
    stalled.job.run("run flow.yaml").exits(0).says(&["nothing new: 3 files"]);
}
