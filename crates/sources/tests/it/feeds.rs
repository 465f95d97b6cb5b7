//! `feeds` against a server: what a run asks, gives, and keeps for the next one.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use aqueduct_core::{Context, Durable, Error, ErrorKind, Positions, RejectPolicy, Result, SourceFactory};
use aqueduct_net::{Fetcher, StorageOptions};
use aqueduct_primitives::{Budget, ByteCount};
use aqueduct_sources::feeds::{
    Adapter, DEFAULT_FEEDS_AT_ONCE, Entry, FACTORY, FeedClient, FeedFacts, Feeds, Record, Seen,
    collect_parallel, collect_stream,
};
use aqueduct_testkit::http::{Answer, Server};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::support::{Kept, texts};

/// A flow's folder and server, over several runs.
struct Flow {
    dir: tempfile::TempDir,
    server: Server,
    kept: Option<Value>,
    n_runs: usize,
}

/// What a run gave.
struct Ran {
    rows: Vec<RecordBatch>,
    n_duplicate: u64,
    error: Option<Error>,
    rejected: Vec<(String, String)>,
}

impl Ran {
    fn ids(&self) -> Vec<String> {
        let mut ids = texts(&self.rows, "id");
        ids.sort_unstable();
        ids
    }
}

impl Flow {
    async fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), server: Server::start().await, kept: None, n_runs: 0 }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.dir.path().join(name), bytes).unwrap();
    }

    /// A run that keeps what is bad aside, and commits at its end.
    async fn run(&mut self, options: Value) -> Ran {
        let kept = Arc::new(Kept::default());
        let policy = Arc::clone(&kept) as Arc<dyn RejectPolicy>;
        let mut ran = self.run_with(options, Some(policy), ByteCount::mb(96)).await;
        ran.rejected = kept.all().into_iter().map(|reject| (reject.origin.file, reject.message)).collect();
        ran
    }

    /// A run that fails with the first thing that is bad, and commits nothing then.
    async fn strict_run(&mut self, options: Value) -> Ran {
        self.run_with(options, None, ByteCount::mb(96)).await
    }

    async fn run_with(
        &mut self,
        options: Value,
        rejects: Option<Arc<dyn RejectPolicy>>,
        memory: ByteCount,
    ) -> Ran {
        self.n_runs += 1;
        let (dir, run) = (self.dir.path(), format!("run{}", self.n_runs));
        let durable = Durable::new(self.kept.clone(), dir.join("state"), dir.join(run));
        let cx = context(dir, memory, rejects, Some(durable));
        let config = FACTORY.configure(options).map_err(|problems| panic!("{problems:?}")).unwrap();
        let mut batches = config.open(&cx).await.unwrap().run(cx.clone(), Positions::default());
        let (mut rows, mut error) = (Vec::new(), None);
        while let Some(batch) = batches.next().await {
            match batch {
                Ok(batch) => rows.push(batch.records().clone()),
                Err(told) => error = Some(told),
            }
        }
        if error.is_none() {
            self.kept = cx.durable().unwrap().keeper().unwrap().keep().await.unwrap();
        }
        drop(batches);
        cx.tasks().join().await;
        assert_eq!(cx.flow().free(), cx.flow().total(), "MEM-1");
        assert_eq!(cx.share().free(), cx.share().total(), "MEM-1");
        Ran { rows, n_duplicate: cx.metrics().rows_duplicate.get(), error, rejected: Vec::new() }
    }
}

fn context(
    dir: &std::path::Path,
    memory: ByteCount,
    rejects: Option<Arc<dyn RejectPolicy>>,
    durable: Option<Durable>,
) -> Context {
    let change = |run: &mut aqueduct_core::RunContext| {
        run.base_dir = dir.to_owned();
        run.rejects = rejects.unwrap_or(Arc::clone(&run.rejects));
        let http = serde_json::from_value(json!({"retries": 0})).unwrap();
        let fetcher = Fetcher::new(http, StorageOptions::default(), run.tasks.clone());
        run.services.insert(Arc::new(fetcher.unwrap()));
    };
    Context::standalone_with(&Budget::new("test", memory), change, |step| step.durable = durable).unwrap()
}

fn rss<T: std::fmt::Display>(ids: impl IntoIterator<Item = T>) -> String {
    let items = ids.into_iter().fold(String::new(), |mut items, id| {
        write!(items, "<item><guid>{id}</guid><title>t {id}</title></item>").unwrap();
        items
    });
    format!("<rss version='2.0'><channel><title>News</title>{items}</channel></rss>")
}

/// Serves a feed with an ETag, which decides about a 304.
fn serve(server: &Server, path: &str, body: String, etag: &'static str) -> String {
    let body = Bytes::from(body);
    server.route(path, move |request| {
        if request.header("if-none-match") == Some(etag) {
            return Answer::new(304).header("ETag", etag);
        }
        Answer::ok(body.clone()).header("ETag", etag).header("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    })
}

fn n_not_modified(server: &Server, path: &str) -> usize {
    let was_asked_so = |request: &&aqueduct_testkit::http::Request| {
        request.header("if-none-match").is_some() && request.header("if-modified-since").is_some()
    };
    server.asked(path).iter().filter(was_asked_so).count()
}

// S2.8, S2.12: three feeds of one pool of entries, each entry once; what came again is counted; feeds that are as they were
// are not sent again.
#[tokio::test]
async fn two_runs_over_overlapping_feeds_give_each_entry_once() {
    let mut flow = Flow::new().await;
    let urls = [
        serve(&flow.server, "/a", rss(0..100), "\"a1\""),
        serve(&flow.server, "/b", rss(60..160), "\"b1\""),
        serve(&flow.server, "/c", rss(["X-1", " x-1 ", "159"]), "\"c1\""),
    ];
    let options = json!({"urls": urls});
    let first = flow.run(options.clone()).await;
    let mut expected: Vec<_> = (0..160).map(|n| n.to_string()).chain(["x-1".into()]).collect();
    expected.sort_unstable();
    assert_eq!(first.ids(), expected);
    assert_eq!((first.n_duplicate, first.rejected.len()), (42, 0));

    serve(&flow.server, "/b", rss(80..180), "\"b2\"");
    let second = flow.run(options.clone()).await;
    assert_eq!(second.ids(), (160..180).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(second.n_duplicate, 80);
    let n_asked = ["/a", "/b", "/c"].map(|path| flow.server.asked(path).len());
    assert_eq!(n_asked, [2, 2, 2]);
    assert_eq!(["/a", "/b", "/c"].map(|path| n_not_modified(&flow.server, path)), [1, 1, 1]);

    let third = flow.run(options).await;
    assert_eq!((third.ids().len(), third.n_duplicate), (0, 0));
}

// reliability 27: the same guid with new content
#[tokio::test]
async fn an_entry_comes_again_when_it_was_changed_and_only_then() {
    let mut flow = Flow::new().await;
    let atom = |updated: &str, title: &str| {
        format!(
            "<feed xmlns='http://www.w3.org/2005/Atom'><entry><id>e</id><title>{title}</title><updated>{updated}</updated></entry></feed>"
        )
    };
    let options = json!({"urls": "a.xml"});
    let mut titles = Vec::new();
    for (updated, title) in [
        ("2026-01-01T00:00:00Z", "first"),
        ("2026-01-01T00:00:00Z", "same time, other title"),
        ("2026-01-02T00:00:00Z", "second"),
        ("2026-01-01T00:00:00Z", "the first again"),
    ] {
        flow.write("a.xml", atom(updated, title));
        titles.extend(texts(&flow.run(options.clone()).await.rows, "title"));
    }
    assert_eq!(titles, ["first", "second"]);

    flow.write("a.xml", atom("2026-01-01T00:00:00Z", "all of a feed that has changed"));
    let all = flow.run(json!({"urls": "a.xml", "entries": "all"})).await;
    assert_eq!(all.ids(), ["e"]);
    assert_eq!(flow.run(json!({"urls": "a.xml", "entries": "all"})).await.ids().len(), 0);
}

// reliability 11, 28; T6
#[tokio::test]
async fn a_bad_feed_is_rejected_by_name_and_asked_again_by_the_next_run() {
    let mut flow = Flow::new().await;
    flow.write("private.txt", "private-71828");
    let laughs: String = (1..10).fold("<!DOCTYPE l [<!ENTITY l0 \"ha\">".into(), |mut text, n| {
        write!(text, "<!ENTITY l{n} \"{}\">", format!("&l{};", n - 1).repeat(10)).unwrap();
        text
    });
    let private = flow.dir.path().join("private.txt");
    let bodies = [
        ("/laughs", format!("{laughs}]>{}", rss(["l&l9;"]))),
        (
            "/snoop",
            format!("<!DOCTYPE r [<!ENTITY x SYSTEM 'file://{}'>]>{}", private.display(), rss(["s&x;"])),
        ),
        ("/login", "<!doctype html><html><body>Log in</body></html>".into()),
        ("/empty", String::new()),
        ("/cut", rss(["c1", "c2"]).replace("</item></channel></rss>", "")),
        ("/good", rss(["g"])),
    ];
    let mut urls: Vec<String> =
        bodies.into_iter().map(|(path, body)| serve(&flow.server, path, body, "\"1\"")).collect();
    urls.push(flow.server.route("/down", |_| Answer::new(500)));
    let options = json!({"urls": urls});
    let ran = flow.run(options.clone()).await;
    assert_eq!(ran.ids(), ["c1", "g", "l&l9;", "s&x;"]);
    let told = |path: &str| {
        let url = flow.server.url(path);
        ran.rejected
            .iter()
            .find(|(file, _)| *file == url)
            .map(|(_, message)| message.clone())
            .unwrap_or_default()
    };
    assert_eq!(ran.rejected.len(), 4, "{:?}", ran.rejected);
    for (path, part) in [
        ("/login", "outermost element is <html>"),
        ("/empty", "empty"),
        ("/cut", "cut off"),
        ("/down", "500"),
    ] {
        assert!(told(path).contains(part), "{path}: {}", told(path));
    }

    serve(&flow.server, "/cut", rss(["c1", "c2", "c3"]), "\"1\"");
    serve(&flow.server, "/down", rss(["d"]), "\"1\"");
    let again = flow.run(options).await;
    assert_eq!(again.ids(), ["c2", "c3", "d"]);
    assert_eq!(flow.server.asked("/cut")[1].header("if-none-match"), None);
}

// S2.6
#[tokio::test]
async fn where_bad_feeds_end_the_run_they_do_so_when_all_others_are_read() {
    let mut flow = Flow::new().await;
    let (bad, other) = (serve(&flow.server, "/bad", "<html/>".into(), "\"1\""), flow.server.url("/gone"));
    let urls = [bad, other, serve(&flow.server, "/good", rss(0..3), "\"1\"")];
    let ran = flow.strict_run(json!({"urls": urls, "concurrency": 1})).await;
    assert_eq!(ran.ids(), ["0", "1", "2"]);
    let error = ran.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Data);
    for part in ["/bad", "<html>", "feeds_that_failed: 2"] {
        assert!(error.chain().contains(part), "{}", error.chain());
    }
}

// T1, T7: what a remote list names leads to no private place and to no file; a local list is the operator's own.
#[tokio::test]
async fn lists_name_feeds_and_remote_ones_are_trusted_no_further() {
    let mut flow = Flow::new().await;
    flow.write("local.xml", rss(["local"]));
    serve(&flow.server, "/news/a.xml", rss(["a"]), "\"1\"");
    flow.write("private.xml", rss(["private"]));
    let private = flow.dir.path().join("private.xml");
    let outlines = [
        "a.xml".into(),
        flow.server.url("/news/a.xml"),
        flow.server.url("/news/b.xml").replace("127.0.0.1", "127.0.0.2"),
        "http://169.254.169.254/latest".into(),
        format!("file://{}", private.display()),
        "gopher://old.example/feed".into(),
    ];
    let outline = |url: &String| format!("<outline text='x'><outline xmlUrl='{url}'/></outline>");
    let opml = format!(
        "<opml version='2.0'><body>{}</body></opml>",
        outlines.iter().map(outline).collect::<String>()
    );
    let url = flow.server.file("/news/list.opml", opml);
    flow.write("urls.txt", "local.xml\n\nlocal.xml\n");
    let ran = flow.run(json!({"opml": url, "urls": {"file": "urls.txt"}})).await;
    assert_eq!(ran.ids(), ["a", "local"]);
    assert_eq!(ran.rejected.len(), 4, "{:?}", ran.rejected);
    assert!(ran.rejected.iter().any(|(_, message)| message.contains("allow_hosts")), "{:?}", ran.rejected);
    assert_eq!(flow.server.asked("/news/a.xml").len(), 1);
}

// T1, T7: credentials belong to the origin that the flow names, wherever its list is found.
#[tokio::test]
async fn a_list_that_was_moved_to_another_origin_gets_no_credentials_there() {
    let mut flow = Flow::new().await;
    let elsewhere = Server::start().await;
    let theirs = serve(&elsewhere, "/theirs/a.xml", rss(["theirs"]), "\"1\"");
    let own = serve(&flow.server, "/own.xml", rss(["own"]), "\"1\"");
    let list = elsewhere.file(
        "/theirs/list.opml",
        format!("<opml><body><outline xmlUrl='a.xml'/><outline xmlUrl='{own}'/></body></opml>"),
    );
    let url = flow.server.route("/list.opml", move |_| Answer::new(302).header("Location", &list));
    let ran = flow.run(json!({"opml": url, "auth": {"bearer": "tok-123"}})).await;
    assert_eq!(ran.ids(), ["own", "theirs"], "links start from where the list is: {theirs}");
    let sent = |server: &Server, path: &str| server.asked(path)[0].header("authorization").map(str::to_owned);
    assert_eq!(sent(&elsewhere, "/theirs/list.opml"), None);
    assert_eq!(sent(&elsewhere, "/theirs/a.xml"), None);
    assert_eq!(sent(&flow.server, "/own.xml").as_deref(), Some("Bearer tok-123"));
}

// MEM-2: a list that leaves no memory is told before anything waits for it.
#[tokio::test]
async fn a_list_that_leaves_no_memory_to_read_it_is_an_error_that_names_memory() {
    let flow = Flow::new().await;
    let url = |n: usize| format!("http://127.0.0.1:9/{n:0>400}\n");
    flow.write("urls.txt", (0..8000).map(url).collect::<String>());
    let cx = context(flow.dir.path(), ByteCount::mib(20), None, None);
    let config = FACTORY.configure(json!({"urls": {"file": "urls.txt"}})).unwrap();
    let error = config.open(&cx).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(error.message().contains("`memory`"), "{error}");
}

// reliability 8, 14; MEM-2
#[tokio::test]
async fn a_feed_larger_than_it_may_be_is_rejected_and_large_ones_take_turns() {
    let mut flow = Flow::new().await;
    let wide = |id: &str, n_bytes: usize| {
        rss([id]).replace("</item>", &format!("<description>{}</description></item>", "x".repeat(n_bytes)))
    };
    let urls: Vec<String> = (0..6)
        .map(|n| serve(&flow.server, &format!("/{n}"), wide(&n.to_string(), 3_000_000), "\"1\""))
        .collect();
    let large = serve(&flow.server, "/large", wide("large", 5_000_000), "\"1\"");
    let endless = flow.server.route("/endless", |_| Answer::new(200).repeat("<rss><channel><item/>"));
    let all: Vec<_> = urls.iter().chain([&large, &endless]).collect();
    let ran = flow.run(json!({"urls": all, "max_record_bytes": "8MB"})).await;
    assert_eq!(ran.ids(), ["0", "1", "2", "3", "4", "5"]);
    let told: Vec<_> = ran.rejected.iter().map(|(_, message)| &message[..]).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().any(|message| message.contains("max_record_bytes")), "{told:?}");
    assert!(
        told.iter().any(|message| message.contains("an entry keeps more than 4194304 bytes")),
        "{told:?}"
    );
}

#[test]
fn wrong_options_are_told_together() {
    let problems = |options: Value| {
        let problems = FACTORY.configure(options).map(drop).unwrap_err();
        problems.into_iter().map(|problem| problem.pointer).collect::<Vec<_>>()
    };
    assert_eq!(problems(json!({})), [""]);
    assert_eq!(
        problems(json!({"urls": ["", "ftp://x/y"], "concurrency": 0})),
        ["/concurrency", "/urls/0", "/urls/1"]
    );
}

/// An adapter that says what is done to it.
struct Told {
    name: String,
    ids: Vec<&'static str>,
    fails_at: &'static str,
    log: Arc<Mutex<Vec<String>>>,
    running: Arc<(AtomicUsize, AtomicUsize)>,
}

#[async_trait]
impl Adapter for Told {
    fn name(&self) -> &str {
        &self.name
    }

    async fn initialise(&mut self) -> Result<()> {
        self.say("initialise")
    }

    fn fetch(&mut self) -> BoxStream<'_, Result<Record>> {
        let began = self.say("fetch");
        let facts =
            Arc::new(FeedFacts { url: self.name.clone(), title: None, captured_at: Default::default() });
        let record = move |id: &&str| {
            let entry = Entry { id: Some((*id).to_owned()), ..Entry::default() };
            Ok(Record::new(entry, Arc::clone(&facts)))
        };
        let records: Vec<_> = self.ids.iter().map(record).chain(began.err().map(Err)).collect();
        let running = Arc::clone(&self.running);
        let now = running.0.fetch_add(1, SeqCst) + 1;
        running.1.fetch_max(now, SeqCst);
        Box::pin(async_stream::stream! {
            for record in records {
                yield record;
            }
            running.0.fetch_sub(1, SeqCst);
        })
    }

    async fn close(&mut self) -> Result<()> {
        self.say("close")
    }
}

impl Told {
    fn say(&self, what: &str) -> Result<()> {
        self.log.lock().unwrap().push(format!("{what} {}", self.name));
        let message = format!("{what} failed");
        if self.fails_at == what { Err(Error::new(ErrorKind::Io, "test", message)) } else { Ok(()) }
    }
}

fn told(name: &str, ids: &[&'static str], fails_at: &'static str, log: &Arc<Mutex<Vec<String>>>) -> Told {
    let (log, running) = (Arc::clone(log), Arc::default());
    Told { name: name.into(), ids: ids.to_vec(), fails_at, log, running }
}

// S2.6
#[tokio::test]
async fn adapters_are_read_one_after_another_and_closed_after_an_error_too() {
    let dir = tempfile::tempdir().unwrap();
    let cx = context(dir.path(), ByteCount::mb(64), None, None);
    let log = Arc::default();
    let adapters: Vec<Box<dyn Adapter>> = vec![
        Box::new(told("a", &["1", "2"], "", &log)),
        Box::new(told("b", &["3"], "initialise", &log)),
        Box::new(told("c", &["2", " 2 ", "4"], "fetch", &log)),
        Box::new(told("d", &["5"], "close", &log)),
    ];
    let mut records = collect_stream(adapters, Seen::new(&cx).await.unwrap());
    let mut given = Vec::new();
    while let Some(record) = records.next().await {
        given.push(match record {
            Ok(record) => record.id,
            Err(error) => format!("{}: {}", error.context("feed").unwrap(), error.message()),
        });
    }
    assert_eq!(given, ["1", "2", "b: initialise failed", "4", "c: fetch failed", "5", "d: close failed"]);
    let expected = "initialise a, fetch a, close a, initialise b, close b, initialise c, fetch c, close c, \
                    initialise d, fetch d, close d";
    assert_eq!(log.lock().unwrap().join(", "), expected);
}

// S2.7, S2.8, S2.10
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_adapters_are_as_many_as_may_be_and_share_what_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let cx = context(dir.path(), ByteCount::mb(64), None, None);
    let (log, running, n_made) =
        (Arc::default(), Arc::<(AtomicUsize, AtomicUsize)>::default(), Arc::new(AtomicUsize::new(0)));
    let ids: Vec<&'static str> = (0..200).map(|n: usize| &*n.to_string().leak()).collect();
    let (of_adapters, made) = (Arc::clone(&running), Arc::clone(&n_made));
    let adapters = (0..50).map(move |n| {
        made.fetch_add(1, SeqCst);
        let told = told(&n.to_string(), &ids, "", &log);
        Box::new(Told { running: Arc::clone(&of_adapters), ..told }) as Box<dyn Adapter>
    });
    let seen = Seen::new(&cx).await.unwrap();
    let mut records = collect_parallel(adapters, seen, DEFAULT_FEEDS_AT_ONCE, cx.tasks());
    let first = records.next().await.unwrap().unwrap().id;
    // Nobody takes the rest: the adapters wait, and no further one is begun.
    while running.1.load(SeqCst) < DEFAULT_FEEDS_AT_ONCE {
        tokio::task::yield_now().await;
    }
    assert_eq!(n_made.load(SeqCst), DEFAULT_FEEDS_AT_ONCE);
    let rest: Vec<Record> = records.try_collect().await.unwrap();
    let ids = rest.into_iter().map(|record| record.id).chain([first]);
    let mut all: Vec<usize> = ids.map(|id| id.parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..200).collect::<Vec<_>>());
    assert_eq!((n_made.load(SeqCst), running.1.load(SeqCst)), (50, DEFAULT_FEEDS_AT_ONCE));
    cx.tasks().join().await;
}

// S2.9
#[tokio::test]
async fn a_pipeline_reads_all_feeds_that_are_registered() {
    let dir = tempfile::tempdir().unwrap();
    let cx = context(dir.path(), ByteCount::mb(64), None, None);
    std::fs::write(dir.path().join("a.xml"), rss(0..30)).unwrap();
    std::fs::write(dir.path().join("b.xml"), rss(20..50)).unwrap();
    let client = FeedClient::new(&cx).unwrap();
    let mut feeds = Feeds::default();
    for name in ["a.xml", "gone.xml", "b.xml"] {
        feeds.register(client.feed(name).unwrap());
    }
    let failed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failed);
    let pipeline = feeds.pipeline(&cx).await.unwrap().on_error(move |error| {
        assert!(error.chain().contains("gone.xml"), "{}", error.chain());
        count.fetch_add(1, SeqCst);
        Ok(())
    });
    assert_eq!(pipeline.count().await.unwrap(), 50);
    assert_eq!(failed.load(SeqCst), 1);
    cx.tasks().join().await;
}
