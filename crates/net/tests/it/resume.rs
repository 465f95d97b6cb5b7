//! Bodies that break off.

use aqueduct_core::ErrorKind;
use aqueduct_testkit::http::{Answer, Request, Server};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, proptest};
use serde_json::json;

use crate::{client, plain_client, sample, says};

// reliability 2
#[tokio::test]
async fn a_reset_body_is_taken_up_again_by_range() {
    let (server, body) = (Server::start().await, Bytes::from(sample(300_000)));
    let served = body.clone();
    let url = server.route("/a", move |request| match request.nth {
        1 => Answer::file(request, &served, "\"v1\"").cut_after(200_000),
        _ => Answer::file(request, &served, "\"v1\""),
    });
    let client = plain_client();
    assert_eq!(client.read(&url).await.unwrap(), body);
    let asked = server.asked("/a");
    assert_eq!(asked[1].header("range"), Some("bytes=200000-"));
    assert_eq!(asked[1].header("if-range"), Some("\"v1\""));
    assert_eq!(client.n_retries(), 1);
}

#[tokio::test]
async fn a_tcp_reset_loses_nothing() {
    let (server, body) = (Server::start().await, Bytes::from(sample(300_000)));
    let served = body.clone();
    let url = server.route("/a", move |request| match request.nth {
        1 | 2 => Answer::file(request, &served, "\"v1\"").reset_after(100_000),
        _ => Answer::file(request, &served, "\"v1\""),
    });
    assert_eq!(plain_client().read(&url).await.unwrap(), body);
}

// reliability 2: every byte of a small body, with and without parts
#[tokio::test]
async fn a_cut_at_every_byte_gives_the_same_bytes() {
    let (server, body) = (Server::start().await, Bytes::from(sample(64)));
    let client = plain_client();
    for at in 0..64 {
        for ranges in [true, false] {
            let served = body.clone();
            let path = format!("/{at}/{ranges}");
            let url = server.route(&path, move |request| {
                let whole = match ranges {
                    true => Answer::file(request, &served, "\"v1\""),
                    false => Answer::ok(served.clone()),
                };
                if request.nth == 1 { whole.cut_after(at) } else { whole }
            });
            assert_eq!(client.read(&url).await.unwrap(), body, "cut after {at}, ranges: {ranges}");
        }
    }
}

#[tokio::test]
async fn a_body_that_brings_a_byte_a_try_arrives_with_one_retry_allowed() {
    let (server, body) = (Server::start().await, Bytes::from(sample(64)));
    let served = body.clone();
    let url = server.route("/a", move |request| {
        let rest = served.len() - request.range_start().unwrap_or(0);
        Answer::file(request, &served, "\"v1\"").cut_after(rest.min(1))
    });
    let client = client(json!({"retries": 1}));
    assert_eq!(client.read(&url).await.unwrap(), body);
    assert_eq!(client.n_retries(), 63);
}

// reliability 3
#[tokio::test]
async fn a_whole_body_instead_of_a_part_is_not_given_twice() {
    let (server, body) = (Server::start().await, Bytes::from(sample(5000)));
    let served = body.clone();
    let url = server.route("/a", move |request| {
        let whole = Answer::new(200).header("ETag", "\"v1\"").body(served.clone());
        if request.nth == 1 { whole.cut_after(3000) } else { whole }
    });
    assert_eq!(plain_client().read(&url).await.unwrap(), body);
    assert_eq!(server.asked("/a")[1].header("range"), Some("bytes=3000-"));
}

// reliability 4
#[tokio::test]
async fn wrong_parts_are_refused_and_the_file_begun_again() {
    for place in
        ["bytes 2999-4999/5000", "bytes 3001-4999/5000", "bytes 3000-4999/6000", "bytes 3000-9999/*", "junk"]
    {
        let (server, body) = (Server::start().await, Bytes::from(sample(5000)));
        let served = body.clone();
        let url = server.route("/a", move |request| match request.header("range") {
            None if request.nth == 1 => Answer::file(request, &served, "\"v1\"").cut_after(3000),
            None => Answer::file(request, &served, "\"v1\""),
            Some(_) => Answer::new(206)
                .header("ETag", "\"v1\"")
                .header("Content-Range", place)
                .body(served.slice(3000..)),
        });
        assert_eq!(plain_client().read(&url).await.unwrap(), body, "{place}");
        assert_eq!(server.asked("/a").len(), 3, "{place}");
    }
}

// reliability 5
#[tokio::test]
async fn a_part_of_another_version_is_never_mixed_in() {
    let server = Server::start().await;
    let (old, new) = (Bytes::from(sample(5000)), Bytes::from(vec![7; 5000]));
    let url = server.route("/a", move |request| match request.nth {
        1 => Answer::file(request, &old, "\"v1\"").cut_after(3000),
        // A server that ignores If-Range.
        _ if request.header("range").is_some() => Answer::new(206)
            .header("ETag", "\"v2\"")
            .header("Content-Range", "bytes 3000-4999/5000")
            .body(new.slice(3000..)),
        _ => Answer::file(request, &new, "\"v2\""),
    });
    let error = plain_client().fails(&url).await;
    says(&error, &["/a", "changed while it was read", "3000"]);
    assert_eq!(error.kind(), ErrorKind::Io);
}

// Found by `two_versions_are_never_mixed`: a version counts only once its beginning has been compared.
#[tokio::test]
async fn a_version_whose_beginning_was_not_seen_is_not_taken_up() {
    let server = Server::start().await;
    let (old, new) = (Bytes::from(sample(5000)), Bytes::from(vec![7; 5000]));
    let url = server.route("/a", move |request| match request.nth {
        1 => Answer::file(request, &old, "\"v1\"").cut_after(3000),
        2 => Answer::file(request, &new, "\"v2\"").cut_after(0),
        _ => Answer::file(request, &new, "\"v2\""),
    });
    says(&plain_client().fails(&url).await, &["changed while it was read"]);
}

#[tokio::test]
async fn another_version_with_the_same_bytes_goes_on() {
    let (server, body) = (Server::start().await, Bytes::from(sample(5000)));
    let served = body.clone();
    let url = server.route("/a", move |request| match request.nth {
        1 => Answer::file(request, &served, "\"v1\"").cut_after(3000),
        _ => Answer::file(request, &served, "\"v2\""),
    });
    assert_eq!(plain_client().read(&url).await.unwrap(), body);
}

#[tokio::test]
async fn another_length_is_another_version() {
    let server = Server::start().await;
    let url = server.route("/a", |request| match request.nth {
        1 => Answer::ok(sample(5000)).cut_after(3000),
        _ => Answer::ok(sample(6000)),
    });
    says(&plain_client().fails(&url).await, &["changed while it was read", "5000", "6000"]);
}

// reliability 6
#[tokio::test]
async fn without_a_strong_name_no_part_is_asked_for() {
    for name in [None, Some(("ETag", "W/\"v1\"")), Some(("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"))] {
        let (server, body) = (Server::start().await, Bytes::from(sample(5000)));
        let served = body.clone();
        let url = server.route("/a", move |request| {
            let mut whole = Answer::new(200).header("Accept-Ranges", "bytes");
            if let Some((key, value)) = name {
                whole = whole.header(key, value);
            }
            let whole = whole.body(served.clone());
            if request.nth == 1 { whole.cut_after(3000) } else { whole }
        });
        assert_eq!(plain_client().read(&url).await.unwrap(), body, "{name:?}");
        assert_eq!(server.asked("/a")[1].header("range"), None, "{name:?}");
    }
}

#[tokio::test]
async fn a_server_that_says_none_is_not_asked_for_parts() {
    let (server, body) = (Server::start().await, Bytes::from(sample(5000)));
    let served = body.clone();
    let url = server.route("/a", move |request| {
        let whole =
            Answer::new(200).header("ETag", "\"v1\"").header("Accept-Ranges", "none").body(served.clone());
        if request.nth == 1 { whole.cut_after(3000) } else { whole }
    });
    assert_eq!(plain_client().read(&url).await.unwrap(), body);
    assert_eq!(server.asked("/a")[1].header("range"), None);
}

// reliability 7
#[tokio::test]
async fn short_bodies_are_never_whole() {
    let server = Server::start().await;
    server.route("/length", |_| Answer::new(200).header("Content-Length", 5001).send(sample(5000)).hang_up());
    server.route("/chunks", |_| Answer::new(200).chunks([sample(100), sample(200)]).hang_up());
    server.route("/half-chunk", |_| {
        Answer::new(200).header("Transfer-Encoding", "chunked").send("ff\r\nabc").hang_up()
    });
    server.route("/negative", |_| Answer::new(200).header("Content-Length", -1).send("abc").hang_up());
    server.route("/twice", |_| {
        Answer::new(200).header("Content-Length", 3).header("Content-Length", 4).send("abcd").hang_up()
    });
    for path in ["/length", "/chunks", "/half-chunk", "/negative", "/twice"] {
        let client = client(json!({"retries": 1}));
        let error = client.fails(&server.url(path)).await;
        says(&error, &[path, "tries: 2"]);
        assert_eq!(server.asked(path).len(), 2, "{path}");
    }
}

#[tokio::test]
async fn a_cut_chunked_body_is_completed_from_the_start() {
    let server = Server::start().await;
    let url = server.route("/a", |request| {
        let cut = Answer::new(200).chunks([sample(1000), sample(1000)]);
        if request.nth < 3 { cut.hang_up() } else { cut.last_chunk() }
    });
    assert_eq!(plain_client().read(&url).await.unwrap(), [sample(1000), sample(1000)].concat());
}

#[tokio::test]
async fn a_body_that_is_always_cut_at_one_place_ends_after_all_tries() {
    let server = Server::start().await;
    let url = server.route("/a", |_| Answer::ok(sample(100)).cut_after(50));
    let client = client(json!({"retries": 2}));
    says(&client.fails(&url).await, &["/a", "tries: 3"]);
    assert_eq!(server.asked("/a").len(), 3);
}

/// One bad answer of a server.
#[derive(Clone, Copy, Debug)]
struct Fault {
    kind: u8,
    after: usize,
}

impl Fault {
    fn answer(self, request: &Request, body: &Bytes, etag: &str) -> Answer {
        let good = Answer::file(request, body, etag);
        match self.kind {
            0 => good.cut_after(self.after),
            1 => good.reset_after(self.after),
            2 => Answer::ok(body.clone()).header("ETag", etag).cut_after(self.after),
            3 => Answer::new(503).body("later"),
            _ => {
                let start = (request.range_start().unwrap_or(0) + 1).min(body.len() - 1);
                let place = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
                Answer::new(206).header("ETag", etag).header("Content-Range", place).body(body.slice(start..))
            }
        }
    }
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    vec((0..5u8, 0..2000usize).prop_map(|(kind, after)| Fault { kind, after }), 0..5)
}

/// What a client reads of a server that answers its first requests badly, and that has another version of
/// the file from some request on.
fn read_through(
    faults: Vec<Fault>,
    old: Vec<u8>,
    new: Vec<u8>,
    n_old: usize,
) -> aqueduct_core::Result<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::start().await;
        let (old, new) = (Bytes::from(old), Bytes::from(new));
        let url = server.route("/a", move |request| {
            let (body, etag) = if request.nth <= n_old { (&old, "\"v1\"") } else { (&new, "\"v2\"") };
            match faults.get(request.nth - 1) {
                Some(fault) => fault.answer(request, body, etag),
                None => Answer::file(request, body, etag),
            }
        });
        client(json!({"retries": 5})).read(&url).await
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_breaks_on_the_way_the_bytes_are_whole(faults in faults()) {
        // A part that was not asked for is refused at once, not tried again.
        let faults: Vec<Fault> = faults.into_iter().enumerate().filter(|(n, f)| *n > 0 || f.kind < 4).map(|(_, f)| f).collect();
        if let Ok(bytes) = read_through(faults.clone(), sample(1500), sample(1500), 99) {
            prop_assert!(bytes == sample(1500));
        } else {
            prop_assert!(faults.iter().any(|fault| fault.kind == 4));
        }
    }

    #[test]
    fn two_versions_are_never_mixed(faults in faults(), n_old in 0..4usize, same in 0..1500usize, seed in any::<u8>()) {
        let old = sample(1500);
        let mut new = old.clone();
        new[same..].iter_mut().for_each(|byte| *byte ^= seed | 1);
        if let Ok(bytes) = read_through(faults, old.clone(), new.clone(), n_old) {
            prop_assert!(bytes == old || bytes == new);
        }
    }
}
