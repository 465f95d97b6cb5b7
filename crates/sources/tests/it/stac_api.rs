//! `stac_api` against a server with pages.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use aqueduct_core::{Context, Durable, Error, Positions, Result, SourceFactory};
use aqueduct_net::{Backoff, Fetcher, HttpOptions, StorageOptions};
use aqueduct_primitives::{Budget, ByteCount};
use aqueduct_sources::stac_api::FACTORY;
use aqueduct_testkit::http::{Answer, Request, Server};
use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::support::{Kept, texts};

/// How the server leads to the next page.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Style {
    Link,
    /// A body to merge into the one before.
    Merge,
    /// A body that takes its place.
    Whole,
}

/// A page of items, from 0, and whether there is one after it.
type PageOf = Arc<dyn Fn(&Question) -> (Vec<Value>, Option<String>) + Send + Sync>;

/// What a request asks for.
#[derive(Clone, Debug, Default)]
struct Question(BTreeMap<String, String>);

impl Question {
    fn of(request: &Request) -> Self {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let fields = match serde_json::from_slice::<Value>(&request.body) {
            Ok(Value::Object(body)) => {
                body.iter().map(|(name, value)| (name.clone(), plain(value))).collect()
            }
            _ => request.query.split('&').filter_map(|pair| pair.split_once('=')).map(decoded).collect(),
        };
        Self(fields)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Where the page begins.
    fn start(&self) -> usize {
        self.get("token").map_or(0, |token| token.parse().unwrap())
    }

    fn limit(&self) -> usize {
        self.get("limit").map_or(10, |limit| limit.parse().unwrap())
    }
}

fn decoded((name, value): (&str, &str)) -> (String, String) {
    let value = ["%2C", "%3A", "%2F"]
        .iter()
        .zip([",", ":", "/"])
        .fold(value.to_owned(), |value, (code, text)| value.replace(code, text));
    (name.to_owned(), value)
}

/// Items in order, a page after the other.
fn in_order(items: Vec<Value>) -> PageOf {
    Arc::new(move |question| {
        let end = (question.start() + question.limit()).min(items.len());
        let next = (end < items.len()).then(|| end.to_string());
        (items[question.start().min(end)..end].to_vec(), next)
    })
}

fn answer(server: &str, style: Style, request: &Request, pages: &PageOf) -> Answer {
    Answer::ok(page(server, style, request, pages).to_string())
}

fn page(server: &str, style: Style, request: &Request, pages: &PageOf) -> Value {
    let question = Question::of(request);
    let (items, next) = pages(&question);
    let mut links = vec![json!({"rel": "root", "href": "http://nowhere.invalid/"})];
    links.extend(next.map(|token| {
        let rest = question.0.iter().filter(|(name, _)| *name != "token");
        let rest: BTreeMap<_, _> = rest.map(|(name, value)| (name.clone(), json!(value))).collect();
        match style {
            Style::Link => {
                let query: String = rest.iter().map(|(name, value)| format!("&{name}={}", value.as_str().unwrap())).collect();
                json!({"rel": "next", "href": format!("{server}/search?token={token}{query}")})
            }
            Style::Merge => json!({"rel": "next", "href": "/search", "method": "POST", "merge": true, "body": {"token": token}}),
            Style::Whole => {
                let mut body = json!(rest);
                body["token"] = json!(token);
                json!({"rel": "next", "href": format!("{server}/search"), "method": "POST", "body": body})
            }
        }
    }));
    json!({"type": "FeatureCollection", "features": items, "links": links})
}

async fn api(style: Style, pages: PageOf) -> Server {
    let server = Server::start().await;
    let at = server.url("");
    let landing = json!({"type": "Catalog", "links": [
        {"rel": "search", "href": format!("{at}/search"), "method": "GET"},
        {"rel": "search", "href": format!("{at}/search"), "method": "POST"},
    ]});
    server.file("/", landing.to_string());
    server.route("/search", move |request| answer(&at, style, request, &pages));
    server
}

fn item(n: usize) -> Value {
    let day = 1 + n % 28;
    json!({
        "type": "Feature", "stac_version": "1.0.0", "id": format!("item-{n:04}"), "collection": "made",
        "geometry": {"type": "Point", "coordinates": [n, 1.5]}, "bbox": [n, 1.5, n, 1.5],
        "properties": {"datetime": format!("2026-01-{day:02}T12:00:00Z"), "updated": "2026-02-01T00:00:00Z", "n": n},
        "links": [], "assets": {"data": {"href": "https://data.example/a.tif"}},
    })
}

fn items(n: usize) -> Vec<Value> {
    (0..n).map(item).collect()
}

fn ids(n: std::ops::Range<usize>) -> Vec<String> {
    n.map(|n| format!("item-{n:04}")).collect()
}

/// The folders of a flow's runs.
struct Run {
    dir: tempfile::TempDir,
}

/// What came of a process.
struct Given {
    ids: Vec<String>,
    passed: Positions,
    kept: Option<Value>,
    rejected: usize,
    n_duplicate: u64,
    n_filtered: u64,
}

impl Run {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn context(&self, kept: Option<Value>, rejected: &Arc<Kept>) -> Context {
        let cx = Context::standalone_with(
            &Budget::new("test", ByteCount::mb(64)),
            |run| {
                run.run_id = "run".into();
                run.batch_rows = 7;
                run.base_dir = self.dir.path().to_owned();
                run.rejects = Arc::<Kept>::clone(rejected) as _;
                let fetcher =
                    Fetcher::new(HttpOptions::default(), StorageOptions::default(), run.tasks.clone());
                let at_once = Backoff { first: Duration::ZERO, ..Backoff::default() };
                run.services.insert(Arc::new(fetcher.unwrap().with_backoff(at_once)));
            },
            |step| step.durable = Some(Durable::new(kept, self.path("step"), self.path("run"))),
        );
        cx.unwrap()
    }

    /// Reads at most so many batches and commits.
    async fn read(&self, options: &Value, from: Option<&Given>, n_batches: usize) -> Result<Given> {
        let rejected = Arc::new(Kept::default());
        let cx = self.context(from.and_then(|given| given.kept.clone()), &rejected);
        let config = FACTORY.configure(options.clone()).map_err(|problems| panic!("{problems:?}")).unwrap();
        let source = config.open(&cx).await?;
        let start = from.map(|given| given.passed.clone()).unwrap_or_default();
        let mut batches = source.run(cx.clone(), start.clone()).take(n_batches);
        let (mut rows, mut passed) = (Vec::new(), start);
        while let Some(batch) = batches.try_next().await? {
            passed.merge(batch.positions().clone());
            rows.push(batch.records().clone());
        }
        drop(batches);
        let kept = cx.durable().unwrap().keeper().unwrap().keep().await?;
        let (n_duplicate, n_filtered) = (cx.metrics().rows_duplicate.get(), cx.metrics().rows_filtered.get());
        cx.tasks().join().await;
        assert_eq!(cx.flow().free(), cx.flow().total(), "flow");
        Ok(Given {
            ids: ids_of(&rows),
            passed,
            kept,
            rejected: rejected.all().len(),
            n_duplicate,
            n_filtered,
        })
    }

    async fn all(&self, options: &Value) -> Result<Given> {
        self.read(options, None, usize::MAX).await
    }
}

fn ids_of(rows: &[RecordBatch]) -> Vec<String> {
    texts(rows, "id")
}

fn told(result: Result<Given>) -> String {
    result.map(|given| given.ids).map_err(|error: Error| error.chain()).unwrap_err()
}

#[tokio::test]
async fn every_page_comes_once_whatever_the_link_to_it() {
    for style in [Style::Link, Style::Merge, Style::Whole] {
        let server = api(style, in_order(items(43))).await;
        for schema in ["sample", "union"] {
            let before = server.asked("/search").len();
            let options =
                json!({"url": server.url("/"), "collections": ["made"], "page_size": 5, "schema": schema});
            let given = Run::new().all(&options).await.unwrap();
            assert_eq!(given.ids, ids(0..43), "{style:?} {schema}");
            let asked = server.asked("/search").split_off(before);
            assert_eq!(asked.len(), 9, "{style:?} {schema}");
            for request in &asked {
                let question = Question::of(request);
                assert_eq!(question.limit(), 5);
                assert!(question.get("collections").unwrap().contains("made"));
            }
        }
    }
}

#[tokio::test]
async fn no_more_than_one_page_is_fetched_ahead() {
    let server = api(Style::Link, in_order(items(60))).await;
    let options = json!({"url": server.url("/"), "page_size": 10});
    for (n_batches, n_pages) in [(1, 2), (3, 2), (4, 3)] {
        let before = server.asked("/search").len();
        // Of a page, two batches and its end.
        Run::new().read(&options, None, n_batches).await.unwrap();
        let n_asked = server.asked("/search").len() - before;
        assert!(n_asked <= n_pages, "{n_asked} pages for {n_batches} batches");
    }
}

#[tokio::test]
async fn a_run_goes_on_after_any_batch() {
    for options in [
        json!({"page_size": 10}),
        json!({"page_size": 10, "schema": "union"}),
        json!({"page_size": 10, "datetime": "2026-01-01/2026-01-28", "split": "day"}),
    ] {
        let server = api(Style::Merge, by_time(items(47))).await;
        let mut options = options;
        options["url"] = json!(server.url("/"));
        let mut n_batches = 1;
        loop {
            let run = Run::new();
            let before = run.read(&options, None, n_batches).await.unwrap();
            let after = run.read(&options, Some(&before), usize::MAX).await.unwrap();
            let mut all = [before.ids, after.ids].concat();
            all.sort();
            assert_eq!(all, ids(0..47), "{options}, cut after {n_batches}");
            if after.passed == before.passed {
                break;
            }
            n_batches += 1;
        }
        assert!(n_batches > 5);
    }
}

/// Items of the time that is asked for, both ends within it, as the standard says.
fn by_time(items: Vec<Value>) -> PageOf {
    Arc::new(move |question| {
        let range = question.get("datetime").map(|text| text.split_once('/').unwrap());
        let is_asked = |item: &&Value| {
            let at = item["properties"]["datetime"].as_str().unwrap();
            range.is_none_or(|(from, to)| (from..=to).contains(&at))
        };
        let found: Vec<_> = items.iter().filter(is_asked).cloned().collect();
        in_order(found)(question)
    })
}

#[tokio::test]
async fn slices_give_each_item_once_though_the_server_counts_both_ends_in() {
    let mut all = items(28);
    for (n, item) in all.iter_mut().enumerate() {
        item["properties"]["datetime"] = json!(format!("2026-01-{:02}T00:00:00Z", n + 1));
    }
    let server = api(Style::Link, by_time(all)).await;
    let options = json!({"url": server.url("/"), "datetime": "2026-01-02/2026-01-10", "split": "day"});
    let given = Run::new().all(&options).await.unwrap();
    let mut got = given.ids;
    got.sort();
    assert_eq!(got, ids(1..10));
    assert_eq!((given.n_filtered, given.n_duplicate), (9, 0));
}

// reliability 23
#[tokio::test]
async fn links_that_go_in_a_circle_are_named_by_page() {
    let circle: PageOf = Arc::new(|question| {
        let start = question.start();
        (items(70)[start..start + 10].to_vec(), Some(if start == 40 { 20 } else { start + 10 }.to_string()))
    });
    let server = api(Style::Link, circle).await;
    let options = json!({"url": server.url("/")});
    let error = told(Run::new().all(&options).await);
    assert!(error.contains("page 5 leads back to page 3"), "{error}");
    let itself: PageOf = Arc::new(|_| (items(10), Some("0".into())));
    let server = api(Style::Merge, itself).await;
    let error = told(Run::new().all(&json!({"url": server.url("/")})).await);
    assert!(
        error.contains("page 2 leads back to page 2") || error.contains("same items as page 1"),
        "{error}"
    );
    let deaf = AtomicUsize::new(0);
    let deaf: PageOf = Arc::new(move |_| (items(10), Some(deaf.fetch_add(1, SeqCst).to_string())));
    let server = api(Style::Link, deaf).await;
    let error = told(Run::new().all(&json!({"url": server.url("/")})).await);
    assert!(error.contains("same items as page 1"), "{error}");
    // Where all pages are fetched before the first row, too.
    let n_before = server.n_requests();
    let error = told(Run::new().all(&json!({"url": server.url("/"), "schema": "union"})).await);
    assert!(error.contains("page 2 has the same items as page 1"), "{error}");
    assert_eq!(server.n_requests() - n_before, 3);
}

// reliability 24
#[tokio::test]
async fn a_token_that_expires_midway_costs_no_item_and_no_double() {
    let n_expired = Arc::new(AtomicUsize::new(0));
    let server = api(Style::Link, in_order(items(50))).await;
    let (at, pages, expired) = (server.url(""), in_order(items(50)), Arc::clone(&n_expired));
    server.route("/search", move |request| match Question::of(request).start() {
        30 if expired.fetch_add(1, SeqCst) == 0 => Answer::new(400).body("token expired"),
        _ => answer(&at, Style::Link, request, &pages),
    });
    let given = Run::new().all(&json!({"url": server.url("/")})).await.unwrap();
    assert_eq!(given.ids, ids(0..50));
    assert_eq!(given.n_duplicate, 30);
    assert_eq!(n_expired.load(SeqCst), 2);
    n_expired.store(0, SeqCst);
    let given = Run::new().all(&json!({"url": server.url("/"), "schema": "union"})).await.unwrap();
    assert_eq!((given.ids, given.n_duplicate), (ids(0..50), 0));
}

// reliability 25
#[tokio::test]
async fn items_on_two_pages_come_once_and_empty_pages_are_passed() {
    let odd: PageOf = Arc::new(|question| match question.start() {
        0 => (items(10), Some("1".into())),
        1 => (Vec::new(), Some("2".into())),
        // The server's order has moved by three.
        2 => (items(17)[7..].to_vec(), Some("3".into())),
        _ => (items(20)[17..].to_vec(), None),
    });
    let server = api(Style::Link, odd).await;
    let given = Run::new().all(&json!({"url": server.url("/")})).await.unwrap();
    assert_eq!((given.ids, given.n_duplicate), (ids(0..20), 3));
}

// reliability 25
#[tokio::test]
async fn totals_that_lie_change_nothing() {
    for total in [json!(0), json!(5), json!(1_000_000), json!(-1), json!("many"), json!(null)] {
        let server = api(Style::Link, in_order(items(20))).await;
        let (at, pages, lie) = (server.url(""), in_order(items(20)), total.clone());
        server.route("/search", move |request| {
            let mut page = page(&at, Style::Link, request, &pages);
            page["numberMatched"] = lie.clone();
            page["numberReturned"] = lie.clone();
            page["context"] = json!({"matched": lie, "returned": lie, "limit": lie});
            Answer::ok(page.to_string())
        });
        for schema in ["sample", "union"] {
            let given = Run::new().all(&json!({"url": server.url("/"), "schema": schema})).await.unwrap();
            assert_eq!((given.ids, given.n_duplicate), (ids(0..20), 0), "{total}, {schema}");
        }
    }
}

#[tokio::test]
async fn what_fails_once_costs_that_request_alone() {
    let server = api(Style::Link, in_order(items(50))).await;
    let (at, pages) = (server.url(""), in_order(items(50)));
    server.route("/search", move |request| match request.nth {
        2 => Answer::new(429).header("Retry-After", "0"),
        4 => Answer::new(500),
        6 => answer(&at, Style::Link, request, &pages).cut_after(100),
        _ => answer(&at, Style::Link, request, &pages),
    });
    let given = Run::new().all(&json!({"url": server.url("/")})).await.unwrap();
    assert_eq!((given.ids, given.n_duplicate), (ids(0..50), 0));
    assert_eq!(server.asked("/search").len(), 8);
}

// S3.5: on page 300 of 305.
#[tokio::test]
async fn a_fault_on_page_300_costs_that_request_alone() {
    for fault in ["a connection that is dropped", "a 500", "none"] {
        let server = api(Style::Link, in_order(items(3050))).await;
        let (at, pages) = (server.url(""), in_order(items(3050)));
        server.route("/search", move |request| match (fault, request.nth) {
            ("a 500", 300) => Answer::new(500),
            ("a connection that is dropped", 300) => answer(&at, Style::Link, request, &pages).cut_after(100),
            _ => answer(&at, Style::Link, request, &pages),
        });
        let given = Run::new().all(&json!({"url": server.url("/")})).await.unwrap();
        assert_eq!((given.ids, given.n_duplicate), (ids(0..3050), 0), "{fault}");
        let n_more = usize::from(fault != "none");
        assert_eq!(server.asked("/search").len(), 305 + n_more, "{fault}");
    }
}

#[tokio::test]
async fn links_are_relative_to_where_the_root_was_found() {
    let server = api(Style::Link, in_order(items(20))).await;
    let (at, pages) = (server.url(""), in_order(items(20)));
    server.route("/latest", |_| Answer::new(302).header("Location", "/v1/deep/").body(""));
    server.file("/v1/deep/", json!({"links": [{"rel": "search", "href": "./search"}]}).to_string());
    server.route("/v1/deep/search", move |request| answer(&at, Style::Link, request, &pages));
    let given = Run::new().all(&json!({"url": server.url("/latest")})).await.unwrap();
    assert_eq!(given.ids, ids(0..20));
    assert_eq!(server.asked("/v1/deep/search").len(), 1);
}

#[tokio::test]
async fn the_next_run_reads_what_came_since() {
    let served = Arc::new(std::sync::Mutex::new(items(20)));
    let items_now = Arc::clone(&served);
    let pages: PageOf = Arc::new(move |question| {
        let since = question.get("datetime").map(|text| text.split_once('/').unwrap().0.to_owned());
        let all = items_now.lock().unwrap().clone();
        let is_new = |item: &&Value| {
            since.as_deref().is_none_or(|since| item["properties"]["datetime"].as_str().unwrap() >= since)
        };
        in_order(all.iter().filter(is_new).cloned().collect())(question)
    });
    let server = api(Style::Link, pages).await;
    let options = json!({"url": server.url("/"), "incremental": {"column": "datetime", "lag": "2d"}});
    let flow = Run::new();
    let first = flow.all(&options).await.unwrap();
    assert_eq!(first.ids, ids(0..20));
    served.lock().unwrap().extend((20..28).map(item));
    std::fs::remove_dir_all(flow.path("run")).unwrap();
    let from = Given { passed: Positions::default(), ..first };
    let second = flow.read(&options, Some(&from), usize::MAX).await.unwrap();
    // The newest was of the 20th: two days before are asked for again, and do not come again.
    assert_eq!((second.ids, second.n_duplicate), (ids(20..28), 3));
}

#[tokio::test]
async fn a_run_that_was_not_whole_moves_no_cursor() {
    let newest_first: Vec<_> = (0..27).rev().map(item).collect();
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (seen, inner) = (Arc::clone(&asked), in_order(newest_first));
    let pages: PageOf = Arc::new(move |question| {
        seen.lock().unwrap().push(question.get("datetime").map(str::to_owned));
        inner(question)
    });
    let server = api(Style::Link, pages).await;
    let options = json!({"url": server.url("/"), "incremental": {"column": "datetime"}});
    let flow = Run::new();
    let part = flow.read(&options, None, 4).await.unwrap();
    assert!(!part.ids.is_empty() && part.ids.len() < 27);
    // Another run begins, as after `--fresh`: it asks for all, and what was given does not come again.
    std::fs::remove_dir_all(flow.path("run")).unwrap();
    let from = Given { passed: Positions::default(), ..part };
    let rest = flow.read(&options, Some(&from), usize::MAX).await.unwrap();
    let mut all = [from.ids, rest.ids].concat();
    all.sort();
    assert_eq!(all, ids(0..27));
    assert!(asked.lock().unwrap().iter().all(Option::is_none));
    // That one was whole.
    std::fs::remove_dir_all(flow.path("run")).unwrap();
    let from = Given { ids: Vec::new(), passed: Positions::default(), ..rest };
    flow.read(&options, Some(&from), usize::MAX).await.unwrap();
    assert_eq!(asked.lock().unwrap().last().unwrap().as_deref(), Some("2026-01-27T12:00:00Z/.."));
    // Another question knows of nothing.
    std::fs::remove_dir_all(flow.path("run")).unwrap();
    let mut wider = options;
    wider["bbox"] = json!([0, 0, 90, 90]);
    flow.read(&wider, Some(&from), usize::MAX).await.unwrap();
    assert_eq!(asked.lock().unwrap().last().unwrap(), &None);
}

#[tokio::test]
async fn an_item_of_the_future_hides_none_that_comes_until_then() {
    let mut all = items(5);
    all[2]["properties"]["datetime"] = json!("9999-12-31T00:00:00Z");
    let asked = Arc::new(std::sync::Mutex::new(None));
    let (seen, inner) = (Arc::clone(&asked), in_order(all));
    let pages: PageOf = Arc::new(move |question| {
        *seen.lock().unwrap() = question.get("datetime").map(str::to_owned);
        inner(question)
    });
    let server = api(Style::Link, pages).await;
    let options = json!({"url": server.url("/"), "incremental": {"column": "datetime"}});
    let flow = Run::new();
    let first = flow.all(&options).await.unwrap();
    std::fs::remove_dir_all(flow.path("run")).unwrap();
    let from = Given { passed: Positions::default(), ..first };
    flow.read(&options, Some(&from), usize::MAX).await.unwrap();
    let since = asked.lock().unwrap().clone().unwrap();
    assert!(since.starts_with("20"), "{since}");
}

#[tokio::test]
async fn where_nothing_is_found_there_are_columns_all_the_same() {
    let server = api(Style::Link, by_time(items(28))).await;
    for range in ["1999-01-01/1999-12-31", "2025-06-01/2026-01-28"] {
        let options =
            json!({"url": server.url("/"), "datetime": range, "split": "day", "new_fields": "ignore"});
        let given = Run::new().all(&options).await.unwrap();
        let n_expected = if range.starts_with("1999") { 0 } else { 28 };
        assert_eq!((given.ids.len(), given.n_duplicate), (n_expected, 0), "{range}");
    }
}

#[tokio::test]
async fn rows_that_were_rejected_are_told_once_though_a_slice_is_walked_again() {
    let mut all = items(50);
    all[3].as_object_mut().unwrap().remove("id");
    let server = api(Style::Link, in_order(all.clone())).await;
    let (at, pages, n_expired) = (server.url(""), in_order(all), AtomicUsize::new(0));
    server.route("/search", move |request| match Question::of(request).start() {
        30 if n_expired.fetch_add(1, SeqCst) == 0 => Answer::new(400).body("token expired"),
        _ => answer(&at, Style::Link, request, &pages),
    });
    let given = Run::new().all(&json!({"url": server.url("/")})).await.unwrap();
    assert_eq!((given.ids.len(), given.rejected), (49, 1));
}

#[tokio::test]
async fn bad_items_are_rejected_by_name_and_the_rest_comes() {
    let mut all = items(25);
    all[3].as_object_mut().unwrap().remove("id");
    all[12]["geometry"] = json!({"type": "Sphere", "coordinates": [1]});
    let server = api(Style::Link, in_order(all)).await;
    let given = Run::new().all(&json!({"url": server.url("/")})).await.unwrap();
    let expected: Vec<_> =
        ids(0..25).into_iter().enumerate().filter(|(n, _)| ![3, 12].contains(n)).map(|(_, id)| id).collect();
    assert_eq!((given.ids, given.rejected), (expected, 2));
}

#[tokio::test]
async fn what_is_no_page_is_named() {
    for (body, told_of) in [("<html>log in</html>", "HTML"), ("[1, 2", "json"), ("7", "")] {
        let server = api(Style::Link, in_order(Vec::new())).await;
        let body = body.to_owned();
        server.route("/search", move |_| Answer::ok(body.clone()));
        let error = told(Run::new().all(&json!({"url": server.url("/")})).await);
        assert!(error.to_lowercase().contains(&told_of.to_lowercase()), "{error}");
        assert!(error.contains("/search"), "{error}");
    }
}

#[test]
fn what_is_wrong_with_the_options_is_told_at_its_place() {
    let problems = |options: Value| match FACTORY.configure(options) {
        Ok(config) => config.validate(),
        Err(problems) => problems,
    };
    let wrong = json!({
        "url": "s3://bucket/stac", "datetime": "soon", "bbox": [1, 2, 3], "intersects": 7, "filter": 7, "page_size": 0,
        "split": "day", "incremental": {"column": "size"},
    });
    let pointers: Vec<_> = problems(wrong).into_iter().map(|problem| problem.pointer).collect();
    for pointer in [
        "/url",
        "/datetime",
        "/bbox",
        "/intersects",
        "/filter",
        "/page_size",
        "/split",
        "/incremental/column",
    ] {
        assert!(pointers.iter().any(|one| one == pointer), "{pointer} in {pointers:?}");
    }
    assert_eq!(problems(json!({"url": "http://host/", "split": "day", "datetime": "2026-01-01"})), []);
}
