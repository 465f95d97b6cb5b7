//! Events of a stream: each a row, once, wherever the stream breaks off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use aqueduct_core::{Context, Durable, ErrorKind, Positions, Result};
use aqueduct_net::{Backoff, Fetcher, HttpOptions, StorageOptions};
use aqueduct_sources::sse::FACTORY;
use aqueduct_testkit::http::{Answer, Request, Server};
use arrow::array::{Array, RecordBatch};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::support::{Room, next, numbers, texts};

/// A room in which nobody waits long before something is asked for again.
fn room(kept: Option<Value>) -> Room {
    let dir = tempfile::tempdir().unwrap();
    let durable = Durable::new(kept, dir.path().join("kept"), dir.path().join("run"));
    let hasty = |run: &mut aqueduct_core::RunContext| {
        let fetcher = Fetcher::new(HttpOptions::default(), StorageOptions::default(), run.tasks.clone());
        let ms = Duration::from_millis(1);
        let backoff = Backoff { first: ms, max: ms, max_retry_after: Duration::from_secs(1) };
        run.services.insert(Arc::new(fetcher.unwrap().with_backoff(backoff)));
    };
    Room::with(hasty, |step| step.durable = Some(durable))
}

fn events(text: impl Into<String>) -> Answer {
    Answer::new(200).header("Content-Type", "text/event-stream").chunks([text.into()])
}

/// Answers in turn, the last one again and again.
fn in_turn(answers: Vec<Answer>) -> impl Fn(&Request) -> Answer + Send + Sync {
    let n = AtomicUsize::new(0);
    move |_| answers[n.fetch_add(1, SeqCst).min(answers.len() - 1)].clone()
}

fn ids_asked(server: &Server) -> Vec<Option<String>> {
    server.asked("/events").iter().map(|request| request.header("last-event-id").map(str::to_owned)).collect()
}

async fn kept(cx: &Context) -> Value {
    cx.durable().unwrap().keeper().unwrap().keep().await.unwrap().unwrap()
}

async fn read(room: &Room, options: Value) -> Result<Vec<RecordBatch>> {
    room.read(&FACTORY, options).await
}

// issue 6: reconnect with Last-Event-ID; an event that comes again is no row
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_goes_on_where_it_was_and_nothing_comes_twice() {
    let server = Server::start().await;
    let answers = vec![
        events(": hello\n\nid: 1\ndata: {\"n\":1}\n\nid: 2\ndata: {\"n\":2}\n\nid: 3\ndata: {\"n\":3}\n")
            .hang_up(),
        Answer::new(503),
        events("id: 2\ndata: {\"n\":2}\n\nid: 3\ndata: {\"n\":3}\n\nid: 3\n\nid: 4\ndata: {\"n\":4}\n\n")
            .hang_up(),
        events("id: 5\nevent: end\ndata\n\nid: 6\ndata: {\"n\":6}\n\n"),
    ];
    let url = server.route("/events", in_turn(answers));
    let room = room(None);
    let rows = read(&room, json!({"url": url, "schema": {"n": "int64"}})).await.unwrap();
    assert_eq!(numbers(&rows, "n"), [1, 2, 3, 4]);
    let asked = ids_asked(&server);
    assert_eq!(asked, [None, Some("2".into()), Some("2".into()), Some("4".into())]);
    assert_eq!(room.cx.metrics().rows_duplicate.get(), 1);
    assert_eq!(server.asked("/events")[0].header("accept"), Some("text/event-stream"));
    assert_eq!(kept(&room.cx).await, json!({"stream": url, "id": "5"}));
    room.check_all_is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sends_all_of_it_again_does_not_move_the_place_back() {
    let server = Server::start().await;
    let first = "id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: c\n\n";
    let answers = vec![
        events(first).hang_up(),
        events("id: 1\ndata: a\n\nid: 2\n\n").hang_up(),
        events(format!("{first}id: 4\ndata: d\n\nevent: end\ndata\n\n")),
    ];
    let url = server.route("/events", in_turn(answers));
    let room = room(None);
    let rows = read(&room, json!({"url": url})).await.unwrap();
    assert_eq!(texts(&rows, "data"), ["a", "b", "c", "d"]);
    assert_eq!(ids_asked(&server), [None, Some("3".into()), Some("3".into())]);
}

// S1, the standard's columns
#[tokio::test(flavor = "multi_thread")]
async fn as_text_an_event_is_a_row_of_its_id_its_type_its_data_and_when_it_came() {
    let server = Server::start().await;
    let stream = "data: a\ndata: b\n\nid: x\nevent: tick\ndata: {\n\nevent: end\ndata\n\n";
    let url = server.route("/events", move |_| events(stream));
    let room = room(None);
    let rows = read(&room, json!({"url": url})).await.unwrap();
    assert_eq!(texts(&rows, "data"), ["a\nb", "{"]);
    assert_eq!(texts(&rows, "event"), ["message", "tick"]);
    let ids = rows[0].column_by_name("id").unwrap();
    assert!(ids.is_null(0) && !ids.is_null(1));
    assert_eq!(texts(&rows, "received_at").len(), 2);
    let warnings = room.cx.notices().warnings.first();
    assert!(warnings.len() == 1 && warnings[0].contains("no ids"), "{warnings:?}");
}

// stdin's promise: a row goes on within a second, though the stream stays open
#[tokio::test(flavor = "multi_thread")]
async fn rows_go_on_while_the_stream_is_open_and_dropping_it_closes_the_connection() {
    let server = Server::start().await;
    let url = server.route("/events", |_| events("id: 1\ndata: {\"n\":1}\n\n").hang());
    for options in [json!({"url": url, "schema": {"n": "int64"}}), json!({"url": url, "format": "json"})] {
        let room = room(None);
        let mut batches = room.stream(&FACTORY, options).await.unwrap();
        let batch = next(&mut batches).await;
        assert_eq!((batch.num_rows(), batch.positions().get("events")), (1, Some(&json!({"id": "1"}))));
        drop((batch, batches));
        server.until_connections(0).await;
        room.check_all_is_back().await;
    }
}

// contract: a next run reconnects behind the last committed event
#[tokio::test(flavor = "multi_thread")]
async fn a_next_run_asks_for_what_is_behind_the_last_commit_of_the_same_stream() {
    let server = Server::start().await;
    let url = server.route("/events", |_| Answer::new(204));
    let options = json!({"url": format!("{url}?token=secret"), "schema": {"n": "int64"}});
    for (stream, asked) in [(url.clone(), Some("7".to_owned())), (format!("{url}2"), None)] {
        let room = room(Some(json!({"stream": stream, "id": "7"})));
        assert!(read(&room, options.clone()).await.unwrap().iter().all(|rows| rows.num_rows() == 0));
        assert_eq!(ids_asked(&server).pop().unwrap(), asked);
        assert_eq!(room.cx.notices().warnings.count(), u64::from(asked.is_none()));
        assert_eq!(kept(&room.cx).await, json!({"stream": url, "id": asked.unwrap_or_default()}));
    }
    let room = room(Some(json!(7)));
    let told = room.open(&FACTORY, options).await.err().unwrap();
    assert!(told.kind() == ErrorKind::Conflict && told.message().contains("--full-refresh"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_seen_the_end_does_not_ask_again() {
    let server = Server::start().await;
    let url = server.route("/events", |_| events("event: end\ndata\n\n"));
    let room = room(None);
    let source = room.open(&FACTORY, json!({"url": url})).await.unwrap();
    let batches: Vec<_> = source.run(room.cx.clone(), Positions::done("events")).try_collect().await.unwrap();
    assert_eq!((batches.len(), server.n_requests()), (0, 0));
}

// what our own server says of its stream
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_no_longer_has_is_a_gap_and_not_a_row() {
    let server = Server::start().await;
    let stream = "id: 1\ndata: a\n\nid: 4\nevent: lagged\ndata: {\"from\":2,\"to\":4}\n\nid: 5\ndata: b\n\n\
                  event: restart\ndata: {}\n\nid: 5\ndata: b\n\nid: 6\ndata: c\n\nevent: end\ndata\n\n";
    let url = server.route("/events", move |_| events(stream));
    let room = room(None);
    let rows = read(&room, json!({"url": url})).await.unwrap();
    assert_eq!(texts(&rows, "data"), ["a", "b", "c"]);
    let gaps = room.cx.notices().gaps.first();
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert!(gaps[0].contains("behind `1`") && gaps[0].contains("{\"from\":2,\"to\":4}"), "{gaps:?}");
    assert!(gaps[1].contains("begun anew"), "{gaps:?}");

    let url =
        server.route("/events", in_turn(vec![events("event: end\ndata: x\n\n").hang_up(), Answer::new(204)]));
    let rows = read(&room, json!({"url": url, "control": false})).await.unwrap();
    assert_eq!(texts(&rows, "event"), ["end"], "another's event may have that name");
    assert!(room.cx.notices().gaps.first()[2].contains("no ids"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_brings_nothing_new_is_given_up_and_says_after_how_many_tries() {
    let server = Server::start().await;
    let url = server.route("/events", |_| events("id: 1\ndata: a\n\n").hang_up());
    let room = room(None);
    let told = read(&room, json!({"url": url, "reconnects": 3})).await.unwrap_err();
    assert_eq!((told.kind(), told.context("reconnects")), (ErrorKind::Io, Some("3")), "{told}");
    assert_eq!(server.n_requests(), 4, "one that brought something, and three after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_connection_and_heartbeats_keep_it() {
    let server = Server::start().await;
    let beat = Duration::from_millis(120);
    let beats =
        (0..5).fold(events("id: 1\ndata: a\n\n"), |answer, _| answer.wait(beat).send("3\r\n:\n\n\r\n"));
    let url = server.route("/events", in_turn(vec![beats.hang(), events("event: end\ndata\n\n")]));
    let room = room(None);
    let rows = read(&room, json!({"url": url, "read_timeout": "400ms"})).await.unwrap();
    assert_eq!(texts(&rows, "data"), ["a"]);
    assert_eq!(
        ids_asked(&server),
        [None, Some("1".into())],
        "600 ms of heartbeats are no silence, 400 ms of nothing are"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_stream_of_events_is_an_error_that_says_what_came() {
    let server = Server::start().await;
    let url = server.route("/events", |_| Answer::ok("<html>").header("Content-Type", "text/html"));
    let room = room(None);
    let told = read(&room, json!({"url": url})).await.unwrap_err();
    assert!(told.message().contains("text/html") && told.message().contains("text/event-stream"), "{told}");
    assert_eq!(server.n_requests(), 1);
}

// every limit has a name and an error: an event of more than max_record_bytes
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_large_is_rejected_by_its_id_and_large_ones_pass() {
    let server = Server::start().await;
    let large = "x".repeat(1 << 20);
    let stream = format!(
        "id: 1\ndata: {large}\n\nid: 2\ndata: {large}\ndata: {large}\n\nid: 3\ndata: {{\"n\":3}}\n\nid: 4\n\
         data: {{\"n\":\n\nevent: end\ndata\n\n"
    );
    let url = server.route("/events", move |_| events(stream.clone()));
    let (room, rejects) = Room::tolerant();
    let options = json!({"url": url, "max_record_bytes": "1200KiB"});
    let rows = read(&room, options).await.unwrap();
    assert_eq!(texts(&rows, "data").iter().map(String::len).collect::<Vec<_>>(), [1 << 20, 7, 5]);
    let told = rejects.all();
    assert_eq!((told.len(), told[0].reason, told[0].raw.len()), (1, "too large", 4096));
    assert!(
        told[0].message.contains("`2`") && told[0].message.contains("max_record_bytes"),
        "{}",
        told[0].message
    );
    let rows = read(&room, json!({"url": url, "schema": {"n": "int64"}})).await.unwrap();
    assert_eq!(numbers(&rows, "n"), [3]);
    let told = rejects.all();
    let ids: Vec<_> = told[1..].iter().map(|reject| reject.message.rsplit('`').nth(1).unwrap()).collect();
    assert_eq!(ids, ["1", "2", "4"], "{told:?}");
    room.check_all_is_back().await;
}

// reliability: a server that was started again gives its ids anew
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_begins_its_ids_anew_without_a_word_loses_no_event() {
    let server = Server::start().await;
    let answers = vec![
        events("id: 1\ndata: a\n\nid: 2\ndata: b\n\n").hang_up(),
        events("id: 1\ndata: c\n\nid: 2\ndata: d\n\nevent: end\ndata\n\n"),
    ];
    let url = server.route("/events", in_turn(answers));
    let room = room(None);
    let rows = read(&room, json!({"url": url})).await.unwrap();
    assert_eq!(texts(&rows, "data"), ["a", "b", "c", "d"]);
    assert_eq!(room.cx.metrics().rows_duplicate.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_too_large_and_comes_again_is_rejected_once_and_moves_no_place_back() {
    let server = Server::start().await;
    let first = format!("id: 1\ndata: {}\n\nid: 2\ndata: b\n\n", "x".repeat(2000));
    let answers = vec![
        events(first.clone()).hang_up(),
        events(first.split_inclusive("\n\n").next().unwrap()).hang_up(),
        events(format!("{first}event: end\ndata\n\n")),
    ];
    let url = server.route("/events", in_turn(answers));
    let (tolerant, rejects) = Room::tolerant();
    let rows = read(&tolerant, json!({"url": url, "max_record_bytes": "1KiB"})).await.unwrap();
    assert_eq!(texts(&rows, "data"), ["b"]);
    assert_eq!(ids_asked(&server), [None, Some("2".into()), Some("2".into())]);
    assert_eq!(rejects.all().len(), 1);
    assert_eq!(tolerant.cx.metrics().rows_duplicate.get(), 3);
}

// A place that cannot be asked for takes that of an earlier one: a run that goes on gives no event twice.
#[tokio::test(flavor = "multi_thread")]
async fn behind_an_id_that_cannot_be_sent_there_is_no_place() {
    let server = Server::start().await;
    for id in ["id", "id: a\tb"] {
        let stream = format!("id: 1\ndata: a\n\n{id}\ndata: b\n\n");
        let url = server.route("/events", move |_| events(stream.clone()).hang());
        let room = room(None);
        let mut batches = room.stream(&FACTORY, json!({"url": url})).await.unwrap();
        let (mut n_rows, mut place) = (0, None);
        while n_rows < 2 {
            let batch = next(&mut batches).await;
            n_rows += batch.num_rows();
            place = batch.positions().get("events").cloned().or(place);
        }
        assert_eq!(place, Some(json!({"id": ""})));
        let source = room.open(&FACTORY, json!({"url": url})).await.unwrap();
        let mut again = source.run(room.cx.clone(), Positions::of("events", json!({"id": ""})));
        drop((batches, again.next().await));
        assert_eq!(ids_asked(&server).pop(), Some(None));
    }
}

// T15
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_says_reaches_no_terminal_as_it_is() {
    let server = Server::start().await;
    let long = "9".repeat(900);
    let stream = format!(
        "id: \u{9b}{long}\ndata: a\n\nevent: lagged\ndata: \u{1b}[2J{long}\n\nevent: restart\ndata: \u{1b}[2J\n\nevent: end\ndata\n\n"
    );
    let url = server.route("/events", move |_| events(stream.clone()));
    let room = room(None);
    read(&room, json!({"url": url})).await.unwrap();
    let gaps = room.cx.notices().gaps.first();
    assert_eq!(gaps.len(), 2);
    assert!(gaps.iter().all(|gap| !gap.chars().any(char::is_control) && gap.len() < 700), "{gaps:?}");
    assert!(gaps.iter().all(|gap| gap.contains("\\u{9b}99") && gap.contains("\\u{1b}[2J")), "{gaps:?}");
}

// MEM-1: what comes before the first event is held within bounds.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_schema_what_only_says_where_to_go_on_is_not_held() {
    let server = Server::start().await;
    let ids: String = (0..5000).map(|n| format!("id: {n}\n\n")).collect();
    let stream = format!("{ids}id: x\ndata: {{\"n\":1}}\n\nevent: end\ndata\n\n");
    let url = server.route("/events", move |_| events(stream.clone()));
    let room = room(None);
    let rows = read(&room, json!({"url": url, "format": "json"})).await.unwrap();
    assert_eq!(numbers(&rows, "n"), [1]);
    assert_eq!(kept(&room.cx).await["id"], "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_schema_columns_are_not_looked_for_behind_a_thousand_bad_events() {
    let server = Server::start().await;
    let bad = format!("data: {}\n\n", "x".repeat(2000)).repeat(1000);
    let url = server.route("/events", move |_| events(bad.clone()).hang());
    let (tolerant, _) = Room::tolerant();
    let options = json!({"url": url, "format": "json", "max_record_bytes": "1KiB"});
    let told = tolerant.open(&FACTORY, options).await.err();
    assert!(told.is_none_or(|error| error.kind() == ErrorKind::Data));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_sent_and_shown_nowhere() {
    let server = Server::start().await;
    let url = server.route("/events", |request| match request.header("authorization") {
        Some("Bearer tok-123") => Answer::new(204),
        _ => Answer::new(401),
    });
    let room = room(None);
    read(&room, json!({"url": url, "auth": {"bearer": "tok-123"}})).await.unwrap();
    let told = read(&room, json!({"url": url, "auth": {"bearer": "tok-124"}})).await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Denied);
    assert!(!told.chain().contains("tok-124"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_schema_the_columns_are_those_of_what_comes_first_and_stay_while_the_run_goes_on() {
    let server = Server::start().await;
    let stream = "id: 1\ndata: {\"n\":1}\n\nid: 2\ndata: {\"n\":2,\"t\":\"x\"}\n\nevent: end\ndata\n\n";
    let url = server.route("/events", move |_| events(stream));
    let room = room(None);
    let options = json!({"url": url, "format": "json"});
    let rows = read(&room, options.clone()).await.unwrap();
    assert_eq!(numbers(&rows, "n"), [1, 2]);
    assert_eq!(server.n_requests(), 1, "what was looked at is not asked for twice");
    let again = room.open(&FACTORY, options).await.unwrap();
    assert_eq!((again.schema(), server.n_requests()), (rows[0].schema(), 1));
    let mut rest = again.run(room.cx.clone(), Positions::of("events", json!({"id": "1"})));
    let batch = rest.next().await.unwrap().unwrap();
    assert_eq!(numbers(&[batch.records().clone()], "n"), [2]);
}

#[test]
fn options_that_do_not_fit_say_what_was_expected() {
    use aqueduct_core::SourceFactory;
    let pointer =
        |options: Value| FACTORY.configure(options).err().map(|problems| problems[0].pointer.clone());
    let url = "http://host/events";
    assert_eq!(pointer(json!({"url": url})), None);
    assert_eq!(pointer(json!({"url": "events.txt"})).as_deref(), Some("/url"));
    assert_eq!(
        pointer(json!({"url": url, "format": "text", "schema": {"n": "int64"}})).as_deref(),
        Some("/schema")
    );
    assert_eq!(pointer(json!({"url": url, "max_bytes": "1MB"})).as_deref(), Some("/max_bytes"));
    assert_eq!(pointer(json!({"url": url, "schema": {"n": "int65"}})).as_deref(), Some("/schema/n"));
}
