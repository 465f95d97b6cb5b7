//! `documents`: what becomes of good PDFs, bad ones, and those that attack their reader.

use std::sync::Arc;

use aqueduct_core::worker::Worker;
use aqueduct_core::{ErrorKind, Reject, Source, SourceFactory};
use aqueduct_sources::documents;
use aqueduct_testkit::pdf;
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::conformance::worker;
use crate::support::{Kept, Room};

/// A row: document, section, index, pages, text.
type Row = (String, String, i64, String, String);

fn room() -> (Room, Arc<Kept>) {
    room_with(worker())
}

fn room_with(worker: Worker) -> (Room, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let rejects = Arc::clone(&kept);
    let change = |run: &mut aqueduct_core::RunContext| {
        run.rejects = rejects;
        run.services.insert(Arc::new(worker));
    };
    (Room::with(change, |_| {}), kept)
}

async fn open(room: &Room, options: Value) -> aqueduct_core::Result<Box<dyn Source>> {
    let config = documents::FACTORY.configure(options).unwrap_or_else(|problems| panic!("{problems:?}"));
    config.open(&room.cx).await
}

async fn rows(room: &Room, options: Value) -> Vec<Row> {
    let source = open(room, options).await.unwrap();
    let mut batches = source.run(room.cx.clone(), Default::default());
    let folder = format!("{}/", room.path().display());
    let mut rows = Vec::new();
    while let Some(batch) = batches.try_next().await.unwrap() {
        let records = batch.records();
        for at in 0..records.num_rows() {
            let text =
                |column: usize| records.column(column).as_string::<i32>().value(at).replace(&folder, "");
            let index = records.column(2).as_primitive::<Int64Type>().value(at);
            rows.push((text(0), text(1), index, text(3), text(4)));
        }
    }
    rows
}

fn names(kept: &Kept, room: &Room) -> Vec<(String, Option<u64>, String)> {
    let folder = format!("{}/", room.path().display());
    let told = |reject: Reject| (reject.origin.file.replace(&folder, ""), reject.origin.row, reject.message);
    let mut told: Vec<_> = kept.all().into_iter().map(told).collect();
    told.sort();
    told
}

// S4.1, S4.14: section by section, in order
#[tokio::test]
async fn sections_come_by_pages_by_bookmarks_and_by_name() {
    let (room, kept) = room();
    let texts = ["one", "two", "three", "four", "five"];
    room.write("a.pdf", pdf::with_bookmarks(&texts, &[("Begin", 1), ("End", 3)]));
    let cut = |sections: Value| json!({"paths": ["a.pdf"], "sections": sections});
    let told = |rows: Vec<Row>| -> Vec<(String, i64, String, String)> {
        rows.into_iter()
            .map(|(_, section, index, pages, text)| (section, index, pages, text.replace('\n', "")))
            .collect()
    };
    let row =
        |section: &str, index, pages: &str, text: &str| (section.into(), index, pages.into(), text.into());
    let by_pages = told(rows(&room, cut(json!({"pages": 2}))).await);
    let expected = [
        row("pages 1-2", 1, "1-2", "one\u{c}two"),
        row("pages 3-4", 2, "3-4", "three\u{c}four"),
        row("page 5", 3, "5", "five"),
    ];
    assert_eq!(by_pages, expected);
    let by_outline = told(rows(&room, cut(json!({"outline": true}))).await);
    let expected = [
        row("before the first bookmark", 1, "1", "one"),
        row("Begin", 2, "2-3", "two\u{c}three"),
        row("End", 3, "4-5", "four\u{c}five"),
    ];
    assert_eq!(by_outline, expected);
    let ranges = json!({"ranges": [{"name": "last", "pages": "4-"}, {"name": "gone", "pages": "6-7"}, {"name": "b", "pages": 2}]});
    let by_name = told(rows(&room, cut(ranges)).await);
    assert_eq!(by_name, [row("last", 1, "4-5", "four\u{c}five"), row("b", 3, "2", "two")]);
    let told = names(&kept, &room);
    assert_eq!((told.len(), told[0].1), (1, Some(2)), "{told:?}");
    assert!(told[0].2.contains("`gone`") && told[0].2.contains("pages 6 to 7"), "{told:?}");
}

// S4.1: a section is a PDF of its own
#[tokio::test]
async fn a_section_as_a_pdf_has_its_pages_and_no_others() {
    let (room, _) = room();
    room.write("a.pdf", pdf::pages(&["one", "two", "three"]));
    let options = json!({"paths": ["a.pdf"], "sections": {"pages": 2}, "pdf": true});
    let source = open(&room, options).await.unwrap();
    let mut batches = source.run(room.cx.clone(), Default::default());
    let mut sections = Vec::new();
    while let Some(batch) = batches.try_next().await.unwrap() {
        let column = batch.records().column(5).as_binary::<i32>();
        sections.extend(column.iter().flatten().map(<[u8]>::to_vec));
    }
    room.write("first.pdf", &sections[0]);
    room.write("second.pdf", &sections[1]);
    let again = json!({"paths": ["first.pdf", "second.pdf"], "sections": {"pages": 1}});
    let texts: Vec<_> = rows(&room, again).await.into_iter().map(|row| (row.0, row.4)).collect();
    let expected = [("first.pdf", "one\n"), ("first.pdf", "two\n"), ("second.pdf", "three\n")];
    assert_eq!(texts, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    let has = |bytes: &[u8], text: &str| String::from_utf8_lossy(bytes).contains(text);
    assert!(has(&sections[1], "(three)") && !has(&sections[1], "(one)"));
}

// reliability.md 37, T8, S4.8: each fails by itself, by name
#[tokio::test]
async fn bad_documents_are_rejected_by_name_and_the_others_go_on() {
    let (room, kept) = room();
    room.write("in/a-good.pdf", pdf::pages(&["good"]));
    room.write("in/b-nested.pdf", pdf::nested());
    room.write("in/c-cyclic-pages.pdf", pdf::cyclic_pages());
    room.write("in/d-cyclic-table.pdf", pdf::cyclic_table());
    room.write("in/e-length.pdf", pdf::lying_length());
    room.write("in/f-locked.pdf", pdf::locked());
    room.write("in/g-no-pages.pdf", pdf::pages(&[]));
    room.write("in/h-text.pdf", "no PDF at all\n".repeat(1000));
    room.write("in/i-bomb.pdf", pdf::bomb());
    room.write("in/j-cut.pdf", &pdf::pages(&["cut"])[..200]);
    room.write("in/k-empty.pdf", "");
    room.write("in/l-good.pdf", pdf::pages(&["good"]));
    let rows = rows(&room, json!({"paths": ["in/*.pdf"], "sections": {"pages": 1}})).await;
    let good: Vec<_> = rows.iter().map(|row| row.0.as_str()).collect();
    for name in ["in/a-good.pdf", "in/l-good.pdf"] {
        assert_eq!(good.iter().filter(|one| **one == name).count(), 1, "{good:?}");
    }
    let told = names(&kept, &room);
    let about = |name: &str| told.iter().find(|(file, ..)| file == name).map(|told| told.2.as_str());
    for (name, words) in [
        ("in/f-locked.pdf", "password"),
        ("in/g-no-pages.pdf", "PDF"),
        ("in/h-text.pdf", "no PDF"),
        ("in/i-bomb.pdf", "memory"),
        ("in/k-empty.pdf", "no PDF"),
    ] {
        assert!(about(name).is_some_and(|message| message.contains(words)), "{name}: {told:?}");
    }
    // Whether a reader makes something of these is its affair; that they are told, or come, is not.
    for name in ["b-nested", "c-cyclic-pages", "d-cyclic-table", "e-length", "j-cut"] {
        let name = format!("in/{name}.pdf");
        assert!(about(&name).is_some() || good.contains(&name.as_str()), "{name}: {told:?}");
    }
}

// reliability.md 37: a million pages, in little memory
#[tokio::test]
async fn more_pages_than_fit_are_rejected_by_name() {
    let (room, kept) = room();
    room.write("many.pdf", pdf::of_n_pages(300_000));
    room.write("one.pdf", pdf::pages(&["one"]));
    let rows = rows(&room, json!({"paths": ["many.pdf", "one.pdf"], "sections": {"pages": 1000}})).await;
    assert!(rows.iter().any(|row| row.0 == "one.pdf"));
    let told = names(&kept, &room);
    assert!(
        told.iter().any(|(name, _, message)| name == "many.pdf" && message.contains("memory")),
        "{told:?}"
    );
}

// decisions.md 16: whoever has not said how children are started is told so before anything is read
#[tokio::test]
async fn without_a_worker_it_does_not_open() {
    let room = Room::new();
    room.write("a.pdf", pdf::pages(&["one"]));
    let error = open(&room, json!({"paths": ["a.pdf"], "sections": {"pages": 1}})).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("worker::serve"), "{error}");
}

// T8: a child that dies, or says nothing, costs its document and nothing else
#[tokio::test]
async fn a_child_that_dies_or_is_silent_is_the_end_of_its_document() {
    for (command, told) in [("exit 7", "exit code 7"), ("exec sleep 60", "no answer within")] {
        let (room, kept) = room_with(Worker::new("/bin/sh", ["-c", command]));
        room.write("a.pdf", pdf::pages(&["one"]));
        let options =
            json!({"paths": ["a.pdf"], "sections": {"pages": 1}, "timeout": "1s", "allow_empty": true});
        assert!(rows(&room, options).await.is_empty());
        let rejected = names(&kept, &room);
        assert!(rejected.len() == 1 && rejected[0].2.contains(told), "{rejected:?}");
    }
}

// S2.8: all that is wrong with the options, at its place
#[test]
fn wrong_options_are_told_at_their_places() {
    let wrong = json!({
        "paths": [""], "sections": {"pages": 0}, "concurrency": 0, "timeout": "1ms", "max_record_bytes": "2GiB",
    });
    let problems = documents::FACTORY.configure(wrong).err().unwrap();
    let pointers: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    assert_eq!(pointers, ["/paths/0", "/sections/pages", "/concurrency", "/timeout", "/max_record_bytes"]);
    let good =
        json!({"paths": "a.pdf", "sections": {"outline": true}, "concurrency": "adaptive", "retries": 1});
    assert!(documents::FACTORY.configure(good).is_ok());
}
