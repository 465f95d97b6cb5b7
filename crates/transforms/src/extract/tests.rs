//! Sections against a stand-in for the service, which counts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{
    Batch, BatchStream, Context, Durable, Error, ErrorKind, Fs, Positions, Result, StageFactory, StdFs,
};
use aqueduct_net::{Fetcher, HttpOptions, StorageOptions};
use aqueduct_primitives::{Budget, ByteCount};
use aqueduct_testkit::ai_service::{AiService, Behaviour, Counts};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use serde_json::{Value, json};

use super::FACTORY;

/// Where a step runs, again and again.
struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn step_dir(&self) -> PathBuf {
        self.dir.path().join("steps/extract")
    }

    /// What another process finds.
    fn cx(&self) -> Context {
        let budget = Budget::new("test", ByteCount::mb(200));
        Context::standalone_with(
            &budget,
            |run| {
                run.fs = Arc::new(StdFs) as Arc<dyn Fs>;
                let fetcher =
                    Fetcher::new(HttpOptions::default(), StorageOptions::default(), run.tasks.clone());
                run.services.insert(Arc::new(fetcher.unwrap()));
            },
            |step| {
                let run_dir = self.dir.path().join("runs/r1/extract");
                step.durable = Some(Durable::new(None, self.step_dir(), run_dir));
            },
        )
        .unwrap()
    }
}

/// How a service is asked in tests.
fn options(service: &AiService, more: &Value) -> Value {
    let mut options = json!({
        "service": "gemini", "url": service.url(), "model": "m-1", "prompt": "What is {section}?", "section": "pdf",
        "delay": "0s", "cool_down": "1ms", "retries": 2,
    });
    for (name, value) in more.as_object().unwrap() {
        options[name] = value.clone();
    }
    options
}

/// A section each; the n-th of each document has n more bytes than the first.
fn sections(names: &[&str]) -> Vec<RecordBatch> {
    names
        .iter()
        .enumerate()
        .map(|(n, name)| section(name, Some(format!("%PDF-{}", "x".repeat(n)).as_bytes())))
        .collect()
}

fn section(name: &str, pdf: Option<&[u8]>) -> RecordBatch {
    let columns: [(&str, ArrayRef); 4] = [
        ("document", Arc::new(StringArray::from(vec!["in/Report 1.pdf"]))),
        ("section", Arc::new(StringArray::from(vec![name]))),
        ("index", Arc::new(Int64Array::from(vec![1]))),
        ("pdf", Arc::new(BinaryArray::from(vec![pdf]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn stream(cx: &Context, options: Value, rows: Vec<RecordBatch>) -> BatchStream {
    let config = FACTORY.configure(options).map_err(|problems| format!("{problems:?}")).unwrap();
    let stage = config.bind(&[rows[0].schema()]).map_err(|problems| format!("{problems:?}")).unwrap();
    let input = async_stream::stream! {
        for (n, rows) in rows.into_iter().enumerate() {
            let reservation = aqueduct_primitives::Reservation::empty();
            yield Ok(Batch::new(rows, reservation).with_positions(Positions::done(format!("split-{n}"))));
        }
    };
    stage.run(vec![Box::pin(input)], cx.clone())
}

/// The rows, each as `section: answer | status | error`.
async fn asked(cx: &Context, options: Value, rows: Vec<RecordBatch>) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let mut batches = stream(cx, options, rows);
    while let Some(batch) = batches.try_next().await? {
        texts.extend(told(batch.records()));
    }
    drop(batches);
    cx.tasks().join().await;
    assert_eq!(cx.share().free(), cx.share().total(), "MEM-1");
    Ok(texts)
}

fn told(rows: &RecordBatch) -> Vec<String> {
    let text = |name: &str, row: usize| {
        let column = rows.column_by_name(name).unwrap().as_string::<i32>();
        if column.is_valid(row) { column.value(row).to_owned() } else { "-".to_owned() }
    };
    let row = |row| {
        let [section, answer, status, error] =
            ["section", "answer", "status", "error"].map(|name| text(name, row));
        format!("{section}: {answer} | {status} | {error}")
    };
    (0..rows.num_rows()).map(row).collect()
}

fn ok(name: &str, n_bytes: usize) -> String {
    format!("{name}: What is {name}? ({n_bytes} bytes) | ok | -")
}

fn assert_clean(service: &AiService, room: &Room) -> Counts {
    let counts = service.counts();
    assert_eq!(counts.open_files, 0, "{counts:?}");
    assert_eq!(counts.uploads, counts.deletes, "{counts:?}");
    assert_eq!(files_in(&room.step_dir().join("remote")), 0, "the journal");
    counts
}

fn files_in(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

// S4.1, S4.2, S4.8
#[tokio::test]
async fn each_service_is_asked_about_each_section_and_every_file_is_deleted() {
    for kind in ["gemini", "openai", "http"] {
        let (service, room) = (AiService::start(Behaviour::default()).await, Room::new());
        let url = if kind == "openai" { service.openai_url() } else { service.url() };
        let cx = room.cx();
        let options = options(&service, &json!({"service": kind, "url": url}));
        let rows = asked(&cx, options, sections(&["a", "b", "c"])).await.unwrap();
        assert_eq!(rows, [ok("a", 5), ok("b", 6), ok("c", 7)], "{kind}");
        let counts = assert_clean(&service, &room);
        assert_eq!((counts.uploads, counts.questions, counts.peak_open_files), (3, 3, 1), "{kind}");
        let own = cx.metrics().own();
        assert_eq!(
            (own["questions"], own["uploads"], own["deletes"], own["tokens"]),
            (3, 3, 3, 30),
            "{kind}"
        );
    }
}

// S4.8, S4.9: typed, in order, the others go on
#[tokio::test]
async fn a_section_that_fails_says_how_and_the_others_go_on() {
    let names = ["a", "[refuse]", "[empty]", "[broken off]", "[fail]", "[stall]", "[busy]", "z"];
    for (kind, concurrency) in [("gemini", json!(1)), ("openai", json!(3)), ("gemini", json!("adaptive"))] {
        let (service, room) = (AiService::start(Behaviour::default()).await, Room::new());
        let url = if kind == "openai" { service.openai_url() } else { service.url() };
        let mut rows = sections(&names);
        rows.insert(1, section("no bytes", Some(b"")));
        rows.insert(1, section("no section", None));
        let cx = room.cx();
        let more = json!({"service": kind, "url": url, "concurrency": concurrency, "timeout": "250ms"});
        let found = asked(&cx, options(&service, &more), rows).await.unwrap();
        let failed = |name: &str, error: &str| format!("{name}: - | failed | {error}");
        let expected = [
            ok("a", 5),
            failed("no section", "split_failed"),
            failed("no bytes", "empty_download"),
            failed("[refuse]", "refused"),
            failed("[empty]", "empty_answer"),
            failed("[broken off]", "bad_answer"),
            failed("[fail]", "ask_failed"),
            failed("[stall]", "timed_out"),
            ok("[busy]", 11),
            ok("z", 12),
        ];
        assert_eq!(found, expected, "{kind} {concurrency}");
        assert_clean(&service, &room);
        let warnings = cx.notices().warnings.first().join("");
        assert!(
            warnings.contains("7 of 10 sections have no answer") && warnings.contains("timed_out 1"),
            "{warnings}"
        );
    }
}

// S4.8, reliability.md 37: calls that fail, stall and drop
#[tokio::test]
async fn whatever_the_service_does_files_are_deleted_and_rows_keep_their_order() {
    for (seed, kind) in [(1, "gemini"), (2, "openai"), (3, "http"), (4, "gemini")] {
        let spoiling = Behaviour { fails: 0.1, stalls: 0.05, drops: 0.1, seed, ..Behaviour::default() };
        let (service, room) = (AiService::start(spoiling).await, Room::new());
        let url = if kind == "openai" { service.openai_url() } else { service.url() };
        let names: Vec<String> = (0..30).map(|n| format!("s{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let more = json!({"service": kind, "url": url, "concurrency": "adaptive", "timeout": "400ms", "retries": 40});
        let found = asked(&room.cx(), options(&service, &more), sections(&names)).await.unwrap();
        let expected: Vec<String> = names.iter().enumerate().map(|(n, name)| ok(name, 5 + n)).collect();
        assert_eq!(found, expected, "seed {seed}");
        service.behave(Behaviour::default());
        // What could not be deleted in time is, by the next run, which asks nothing.
        let n_questions = service.counts().questions;
        let again = asked(&room.cx(), options(&service, &more), sections(&names)).await.unwrap();
        assert_eq!(again, expected, "seed {seed}");
        let counts = assert_clean_in_the_end(&service, &room);
        assert!(counts.spoiled > 5, "{counts:?}");
        assert_eq!(counts.questions, n_questions, "nothing is asked again");
    }
}

/// Where drops are, a deletion may be done twice, and an upload counted that was never heard of.
fn assert_clean_in_the_end(service: &AiService, room: &Room) -> Counts {
    let counts = service.counts();
    assert_eq!(counts.open_files, 0, "{counts:?}");
    assert_eq!(files_in(&room.step_dir().join("remote")), 0, "the journal");
    counts
}

// S4: one answer per hash of section, prompt and model, kept across runs
#[tokio::test]
async fn what_was_answered_is_not_asked_again_unless_something_is_other() {
    let (service, room) = (AiService::start(Behaviour::default()).await, Room::new());
    let same = [section("a", Some(b"%PDF-1")), section("a", Some(b"%PDF-1")), section("b", Some(b"%PDF-1"))];
    let cx = room.cx();
    let options_of = |more: Value| options(&service, &more);
    asked(&cx, options_of(json!({"concurrency": 3})), same.to_vec()).await.unwrap();
    assert_eq!((service.counts().questions, cx.metrics().own()["cached"]), (2, 1));
    let cx = room.cx();
    let rows = asked(&cx, options_of(json!({})), same.to_vec()).await.unwrap();
    assert_eq!(rows, [ok("a", 6), ok("a", 6), ok("b", 6)]);
    assert_eq!((service.counts().questions, cx.metrics().own()["cached"]), (2, 3));
    for (more, n_new) in [
        (json!({"model": "m-2"}), 2),
        (json!({"prompt": "Who is {section}?"}), 2),
        (json!({"options": {"temperature": 0}}), 2),
        (json!({}), 0),
    ] {
        let before = service.counts().questions;
        asked(&room.cx(), options_of(more.clone()), same.to_vec()).await.unwrap();
        assert_eq!(service.counts().questions - before, n_new, "{more}");
    }
    // For this run only, which goes on.
    let before = service.counts().questions;
    for n_new in [2, 2] {
        asked(&room.cx(), options_of(json!({"cache": false})), same.to_vec()).await.unwrap();
        assert_eq!(service.counts().questions - before, n_new);
    }
    assert_clean(&service, &room);
}

// S4: drained; the next run goes on
#[tokio::test]
async fn a_run_that_has_asked_all_it_may_fails_and_the_next_goes_on() {
    for concurrency in [json!(1), json!("adaptive")] {
        let (service, room) = (AiService::start(Behaviour::default()).await, Room::new());
        let names = ["a", "b", "c", "d", "e"];
        let options = options(&service, &json!({"max_requests": 2, "concurrency": concurrency}));
        for n_asked in [2, 4] {
            let error = asked(&room.cx(), options.clone(), sections(&names)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Limit);
            assert!(error.chain().contains("raise `max_requests`"), "{}", error.chain());
            assert_eq!(service.counts().questions, n_asked);
        }
        let rows = asked(&room.cx(), options.clone(), sections(&names)).await.unwrap();
        assert_eq!(rows, [ok("a", 5), ok("b", 6), ok("c", 7), ok("d", 8), ok("e", 9)]);
        assert_eq!(assert_clean(&service, &room).questions, 5);
    }
}

// S4.2, S4.3: on every path
#[tokio::test]
async fn a_stream_that_is_dropped_deletes_what_it_has_uploaded() {
    let (service, room) = (AiService::start(Behaviour::default()).await, Room::new());
    let cx = room.cx();
    let rows = sections(&["a", "[stall] 1", "[stall] 2", "[stall] 3"]);
    let mut batches = stream(&cx, options(&service, &json!({"concurrency": 3})), rows);
    assert_eq!(told(batches.try_next().await.unwrap().unwrap().records()), [ok("a", 5)]);
    tokio::select! {
        _ = batches.try_next() => panic!("nothing comes"),
        () = service.until(|counts| counts.questions == 4) => {}
    }
    drop(batches);
    cx.tasks().join_owed().await;
    assert_clean(&service, &room);
    cx.tasks().join().await;
    assert_eq!(cx.share().free(), cx.share().total(), "MEM-1");
}

// S4: orphans of a killed run are deleted by the next, and what was answered is not asked again
#[test]
fn what_a_killed_run_has_left_is_deleted_by_the_next() {
    let outside = runtime();
    let room = Room::new();
    for kind in ["gemini", "openai", "http"] {
        let service = outside.block_on(AiService::start(Behaviour::default()));
        let url = if kind == "openai" { service.openai_url() } else { service.url() };
        let more = json!({"service": kind, "url": url, "concurrency": 2});
        let killed = runtime();
        let (cx, options) = (room.cx(), options(&service, &more));
        let begun = options.clone();
        killed.block_on(async {
            let mut batches = stream(&cx, begun, sections(&["a", "[stall]", "[stall] 2"]));
            batches.try_next().await.unwrap().unwrap();
            tokio::select! {
                _ = batches.try_next() => panic!("nothing comes"),
                () = service.until(|counts| counts.questions == 3) => {}
            }
            // No more of it is ever polled: neither the stream nor its tasks.
            std::mem::forget(batches);
        });
        killed.shutdown_background();
        assert_eq!(service.counts().open_files, 2, "{kind}");
        let cx = room.cx();
        let rows = outside.block_on(asked(&cx, options, sections(&["a", "b"]))).unwrap();
        assert_eq!(rows, [ok("a", 5), ok("b", 6)]);
        assert_eq!(cx.metrics().own()["orphans_deleted"], 2, "{kind}");
        assert_eq!(assert_clean(&service, &room).questions, 4, "{kind}");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

// S4.3
#[tokio::test]
async fn a_file_that_is_not_deleted_does_not_mask_the_answer_and_is_left_to_the_next_run() {
    let server = aqueduct_testkit::http::Server::start().await;
    use aqueduct_testkit::http::Answer;
    server.route("*", |request| match request.method.as_str() {
        "PUT" => Answer::ok("{}"),
        "POST" => Answer::ok(r#"{"answer": "42"}"#),
        _ => Answer::new(400).body("not now"),
    });
    let (service, room) = (AiService::start(Behaviour::default()).await, Room::new());
    let cx = room.cx();
    let more = json!({"service": "http", "url": server.url("")});
    let rows = asked(&cx, options(&service, &more), sections(&["a"])).await.unwrap();
    assert_eq!(rows, ["a: 42 | ok | -"]);
    // Once after the answer, once at the end.
    assert_eq!(cx.metrics().own()["deletes_failed"], 2);
    assert_eq!(files_in(&room.step_dir().join("remote")), 1);
    server.route("*", |_| Answer::ok("{}"));
    let cx = room.cx();
    asked(&cx, options(&service, &more), sections(&["a"])).await.unwrap();
    assert_eq!(cx.metrics().own()["orphans_deleted"], 1);
    assert_eq!(files_in(&room.step_dir().join("remote")), 0);
}

#[tokio::test]
async fn a_service_that_does_not_know_us_ends_the_run() {
    let server = aqueduct_testkit::http::Server::start().await;
    use aqueduct_testkit::http::Answer;
    server.route("*", |_| Answer::new(401).body("who are you"));
    let (service, room) = (AiService::start(Behaviour::default()).await, Room::new());
    let more = json!({"service": "http", "url": server.url("")});
    let error: Error = asked(&room.cx(), options(&service, &more), sections(&["a", "b"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error.chain().contains("see `auth`") && error.chain().contains("who are you"),
        "{}",
        error.chain()
    );
}

#[tokio::test]
async fn an_answer_of_a_form_becomes_a_struct() {
    let form = json!({"schema": {"title": "string", "pages": "list<int64>"}, "column": "found"});
    for kind in ["gemini", "openai", "http"] {
        let (service, room) = (AiService::start(Behaviour::default()).await, Room::new());
        let url = if kind == "openai" { service.openai_url() } else { service.url() };
        let more = json!({"service": kind, "url": url, "answer": form});
        let cx = room.cx();
        let mut batches = stream(&cx, options(&service, &more), sections(&["a"]));
        let batch = batches.try_next().await.unwrap().unwrap();
        let found = batch.records().column_by_name("found").unwrap().as_struct();
        assert_eq!(
            found.column_by_name("title").unwrap().as_string::<i32>().value(0),
            "What is a?",
            "{kind}"
        );
    }
}

// S4.7, S4.9: a batch of several rows, text that is not uploaded
#[tokio::test]
async fn rows_of_one_batch_come_one_by_one_and_text_needs_no_file() {
    let (service, room) = (AiService::start(Behaviour::default()).await, Room::new());
    let rows = crate::testing::batch_of(
        r#"[{"section": "a", "text": "one"}, {"section": "b", "text": "two"}, {"section": "c", "text": "three"}]"#,
    );
    let more = json!({"section": null, "upload": false, "prompt": "{section}={text}", "concurrency": 2});
    let cx = room.cx();
    let batches: Vec<Batch> = stream(&cx, options(&service, &more), vec![rows]).try_collect().await.unwrap();
    let texts: Vec<String> = batches.iter().flat_map(|batch| told(batch.records())).collect();
    assert_eq!(
        texts,
        ["a", "b", "c"].map(|name| {
            let text = match name {
                "a" => "one",
                "b" => "two",
                _ => "three",
            };
            format!("{name}: {name}={text} (0 bytes) | ok | -")
        })
    );
    let with_positions = batches.iter().map(|batch| !batch.positions().is_empty());
    assert_eq!(with_positions.collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(service.counts().uploads, 0);
}

#[tokio::test]
async fn adaptive_asks_about_several_at_once_and_one_after_the_other_means_that() {
    for (concurrency, is_several) in [(json!(1), false), (json!("adaptive"), true)] {
        let slow = Behaviour { answers_after: Duration::from_millis(30), ..Behaviour::default() };
        let (service, room) = (AiService::start(slow).await, Room::new());
        let names: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let more = json!({"concurrency": concurrency});
        let rows = asked(&room.cx(), options(&service, &more), sections(&names)).await.unwrap();
        assert_eq!(rows.len(), 20);
        let peak = assert_clean(&service, &room).peak_open_files;
        assert_eq!((peak > 1, peak <= 10), (is_several, true), "{peak}");
    }
}

#[test]
fn what_is_wrong_with_options_is_told_at_once() {
    let wrong = json!({
        "service": "openai", "url": "ftp://x", "prompt": " ", "concurrency": 0, "timeout": "0s", "max_requests": 0,
        "answer": {"column": "status", "schema": {"a": "itn64"}}, "api": {},
    });
    let problems = FACTORY.configure(wrong).err().unwrap();
    let at: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    let expected = [
        "/url",
        "/model",
        "/prompt",
        "/api",
        "/concurrency",
        "/timeout",
        "/max_requests",
        "/answer/column",
        "/answer/schema/a",
    ];
    assert_eq!(at, expected);
    let never_done =
        json!({"service": "http", "url": "http://x", "prompt": "?", "max_requests": 1, "cache": false});
    assert_eq!(FACTORY.configure(never_done).err().unwrap()[0].pointer, "/max_requests");
    let rows = sections(&["a"]);
    let unfit = json!({"service": "http", "url": "http://x", "prompt": "{sektion}", "section": "index"});
    let problems = FACTORY.configure(unfit).unwrap().bind(&[rows[0].schema()]).err().unwrap();
    let at: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!(at, ["/section", "/prompt"]);
}
