//! `files` over HTTP, as the server sees it.

use std::io::Write;

use aqueduct_core::{ErrorKind, RejectedItem};
use aqueduct_formats::write::{CompressedWriter, TextCompression};
use aqueduct_sources::files::FACTORY;
use aqueduct_testkit::http::{Answer, Gate, Server};
use futures::StreamExt;
use serde_json::json;

use crate::support::{Room, ends_a_file, ndjson, next, numbers};

// S0.1, S0.3
#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_three_has_three_bodies_open_at_most_and_really_has_them() {
    let (room, server, gate) = (Room::new(), Server::start().await, Gate::closed());
    let urls: Vec<_> = (0..24)
        .map(|file| {
            let (gate, body) = (gate.clone(), ndjson(file * 50..file * 50 + 50));
            server.route(&format!("/{file}.ndjson"), move |_| {
                let length = body.len();
                Answer::new(200).header("Content-Length", length).wait_for(&gate).send(body.clone())
            })
        })
        .collect();
    let options = json!({"paths": urls, "window": 3, "schema": {"n": "int64"}});
    let mut batches = room.stream(&FACTORY, options).await.unwrap();
    let opened = async {
        server.until_bodies(3).await;
        gate.open();
    };
    let (first, ()) = futures::join!(next(&mut batches), opened);
    let mut rows = vec![first.records().clone()];
    drop(first);
    while let Some(batch) = batches.next().await {
        rows.push(batch.unwrap().records().clone());
    }
    let mut read = numbers(&rows, "n");
    read.sort_unstable();
    assert_eq!(read, (0..24 * 50).collect::<Vec<_>>());
    assert_eq!(server.peak_bodies(), 3);
    assert_eq!(server.n_requests(), 24);
    room.check_all_is_back().await;
}

// S0.4, S2.10
#[tokio::test(flavor = "multi_thread")]
async fn while_the_consumer_holds_what_it_got_nothing_new_is_asked_for() {
    let (room, server) = (Room::new(), Server::start().await);
    let urls: Vec<_> = (0..20).map(|file| server.file(&format!("/{file}.ndjson"), ndjson([file]))).collect();
    let options = json!({"paths": urls, "window": 2, "schema": {"n": "int64"}});
    let mut batches = room.stream(&FACTORY, options).await.unwrap();
    let mut held = Vec::new();
    while held.iter().filter(|batch| ends_a_file(batch)).count() < 2 {
        held.push(next(&mut batches).await);
    }
    for _ in 0..200 {
        assert!(futures::poll!(batches.next()).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(server.n_requests(), 2);
    drop(held);
    let mut n_rows = 2;
    while let Some(batch) = batches.next().await {
        n_rows += batch.unwrap().num_rows();
    }
    assert_eq!((n_rows, server.n_requests()), (22 - 2, 20));
}

// S0.10, S1.8
#[tokio::test(flavor = "multi_thread")]
async fn an_early_stop_leaves_no_connection_open() {
    let (room, server, gate) = (Room::new(), Server::start().await, Gate::closed());
    let urls: Vec<_> = (0..10)
        .map(|file| {
            let (gate, rows) = (gate.clone(), ndjson(0..100));
            server.route(&format!("/{file}.ndjson"), move |_| {
                let length = rows.len() * 2;
                let answer = Answer::new(200).header("Content-Length", length).send(rows.clone());
                answer.wait_for(&gate).send(rows.clone())
            })
        })
        .collect();
    let options = json!({"paths": urls, "window": 4, "schema": {"n": "int64"}});
    let mut batches = room.stream(&FACTORY, options).await.unwrap();
    drop(next(&mut batches).await);
    server.until_bodies(4).await;
    drop(batches);
    room.check_all_is_back().await;
    server.until_connections(0).await;
    gate.open();
    assert!(server.n_requests() <= 5, "{}", server.n_requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_file_is_asked_for_once_though_it_tells_the_columns() {
    let (room, server) = (Room::new(), Server::start().await);
    let urls: Vec<_> = (0..3).map(|file| server.file(&format!("/{file}.ndjson"), ndjson([file]))).collect();
    let rows = room.read(&FACTORY, json!({"paths": urls, "order": "listed"})).await.unwrap();
    assert_eq!(numbers(&rows, "n"), [0, 1, 2]);
    assert_eq!(server.n_requests(), 3);
    let sent: usize = (0..3).map(|file| ndjson([file]).len()).sum();
    assert_eq!(room.cx.metrics().bytes.get(), sent as u64);
}

// S0.7
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_named_with_its_status_and_the_others_go_on() {
    let (room, kept) = Room::tolerant();
    let server = Server::start().await;
    let good = server.file("/good.ndjson", ndjson(0..3));
    let rows = room.read(&FACTORY, json!({"paths": [server.url("/gone.ndjson"), good]})).await.unwrap();
    assert_eq!(numbers(&rows, "n"), [0, 1, 2]);
    let kept = kept.all();
    assert_eq!((kept.len(), kept[0].item), (1, RejectedItem::File));
    assert!(
        kept[0].message.contains("404") && kept[0].message.contains("gone.ndjson"),
        "{}",
        kept[0].message
    );
    assert_eq!(server.asked("/gone.ndjson").len(), 1);
    room.check_all_is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_list_leads_to_its_own_server() {
    let (room, server) = (Room::new(), Server::start().await);
    for file in 0..4 {
        server.file(&format!("/v2/{file}.ndjson"), ndjson([file]));
    }
    let list: String =
        (0..4).map(|file| format!("x {}\n", server.url(&format!("/v2/{file}.ndjson")))).collect();
    let list = server.file("/v2/list.txt", list + "y not-asked-for.txt\nx 0.ndjson\n");
    let options =
        json!({"list": {"url": list, "match": "^x", "column": 2}, "format": "ndjson", "order": "listed"});
    let rows = room.read(&FACTORY, options).await.unwrap();
    assert_eq!(numbers(&rows, "n"), [0, 1, 2, 3, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_breaks_off_ends_the_run_whatever_the_policy() {
    let (room, _kept) = Room::tolerant();
    let server = Server::start().await;
    server.file("/0.ndjson", ndjson([0]));
    let list = server.route("/list.txt", |_| Answer::ok("0.ndjson\n0.nd").cut_after(9));
    let options = json!({"list": {"url": list}, "format": "ndjson", "retries": 0});
    let error = room.read(&FACTORY, options).await.unwrap_err();
    assert!(error.chain().contains("list.txt"), "{}", error.chain());
    room.check_all_is_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_is_read_by_range_or_from_a_copy_where_the_server_has_none() {
    let (room, server) = (Room::new(), Server::start().await);
    let column: arrow::array::ArrayRef =
        std::sync::Arc::new(arrow::array::Int64Array::from_iter_values(0..1000));
    let rows = arrow::array::RecordBatch::try_from_iter([("n", column)]).unwrap();
    let mut file = parquet::arrow::ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
    file.write(&rows).unwrap();
    let bytes = file.into_inner().unwrap();
    let by_range = server.file("/a.parquet", bytes.clone());
    let whole =
        server.route("/b.parquet", move |_| Answer::ok(bytes.clone()).header("Accept-Ranges", "none"));
    let rows = room.read(&FACTORY, json!({"paths": [by_range, whole], "order": "listed"})).await.unwrap();
    assert_eq!(numbers(&rows, "n"), (0..2).flat_map(|_| 0..1000).collect::<Vec<_>>());
    room.check_all_is_back().await;
}

// reliability 11: by range, which a server for files gives of a page, too, and whole
#[tokio::test(flavor = "multi_thread")]
async fn a_login_page_in_the_place_of_parquet_is_named() {
    let (room, server) = (Room::new(), Server::start().await);
    let page = "<!DOCTYPE html>\n<html><body>Log in</body></html>\n";
    let by_range = server.file("/a.parquet", page);
    let whole = server
        .route("/b.parquet", move |_| Answer::ok(page).header("Content-Type", "text/html; charset=utf-8"));
    for (url, name) in [(by_range, "/a.parquet"), (whole, "/b.parquet")] {
        for options in [json!({"paths": [url.clone()]}), json!({"paths": [url], "schema": {"n": "int64"}})] {
            let told = room.read(&FACTORY, options).await.unwrap_err().chain();
            for part in ["HTML page", "parquet", name] {
                assert!(told.contains(part), "{part}: {told}");
            }
        }
    }
    room.check_all_is_back().await;
}

fn packed(bytes: &[u8], compression: TextCompression) -> Vec<u8> {
    let mut writer = CompressedWriter::new(Vec::new(), compression);
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

// reliability 14: encodings of the transfer
#[tokio::test(flavor = "multi_thread")]
async fn encoded_bodies_are_whole_or_errors_that_name_the_file() {
    let rows = ndjson(0..1000);
    for (coding, compression) in [("gzip", TextCompression::Gzip), ("zstd", TextCompression::Zstd)] {
        let one = packed(rows.as_bytes(), compression);
        let (two, junk) = (one.repeat(2), [&one[..], b"junk, long enough to be no header"].concat());
        let (server, cut) = (Server::start().await, one[..one.len() - 9].to_vec());
        let serve = |path: &str, body: Vec<u8>| {
            server.route(path, move |_| Answer::ok(body.clone()).header("Content-Encoding", coding))
        };
        for (url, n_rows) in [
            (serve("/one", one), Some(1000)),
            (serve("/two", two), Some(2000)),
            (serve("/cut", cut), None),
            (serve("/junk", junk), None),
        ] {
            let room = Room::new();
            let options =
                json!({"paths": [url.clone()], "format": "ndjson", "schema": {"n": "int64"}, "retries": 0});
            match (room.read(&FACTORY, options).await, n_rows) {
                (Ok(rows), Some(n_rows)) => assert_eq!(numbers(&rows, "n").len(), n_rows, "{url}, {coding}"),
                (Err(error), None) => {
                    let told = error.chain();
                    assert!(error.kind() == ErrorKind::Data && told.contains(&url), "{coding}: {told}");
                }
                (read, _) => panic!("{url}, {coding}: {read:?}"),
            }
            room.check_all_is_back().await;
        }
    }
}

// reliability 14: a bomb; one of gzip is among the tests of the binary
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_unpacks_to_far_more_than_it_is_stops_at_the_ratio() {
    // Blank lines are no rows: nothing but the ratio can end this.
    let blank = [&[b' '; 1023][..], b"\n"].concat().repeat(8 << 10);
    let bomb = packed(&blank, TextCompression::Zstd).repeat(20);
    let (room, server) = (Room::new(), Server::start().await);
    let url = server.route("/bomb", move |_| Answer::ok(bomb.clone()).header("Content-Encoding", "zstd"));
    let options = json!({"paths": [url.clone()], "format": "ndjson", "schema": {"n": "int64"}});
    let told = room.read(&FACTORY, options).await.unwrap_err().chain();
    for part in ["1000 times its size", &url] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(server.asked("/bomb").len(), 1);
    room.check_all_is_back().await;
}

// reliability 14: what was not asked for and is not understood, and several of what is
#[tokio::test(flavor = "multi_thread")]
async fn encodings_that_are_not_understood_are_named() {
    let (room, server) = (Room::new(), Server::start().await);
    for (n, coding) in ["br", "gzip, gzip", "gzip, br", "x-anything"].into_iter().enumerate() {
        let url = server.route(&format!("/{n}.ndjson"), move |_| {
            Answer::ok(ndjson([1])).header("Content-Encoding", coding)
        });
        let told = room.read(&FACTORY, json!({"paths": [url.clone()]})).await.unwrap_err().chain();
        for part in [&format!("`{coding}`"), &url] {
            assert!(told.contains(part.as_str()), "{part}: {told}");
        }
        assert_eq!(server.asked(&format!("/{n}.ndjson")).len(), 1, "asked again for {coding}");
    }
    room.check_all_is_back().await;
}
