//! What every source promises, tried on each. A new source gets a row in the table [`fixtures`].

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use aqueduct_core::worker::Worker;
use aqueduct_core::{Clock, Positions, RunContext};
use aqueduct_net::{Fetcher, HttpOptions, StorageOptions};
use aqueduct_testkit::http::{Answer, Request};
use aqueduct_testkit::pdf;
use aqueduct_testkit::source_suite::{Fixture, Input};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

aqueduct_testkit::source_suite!(aqueduct_sources::ALL, fixtures, services);

/// One row a fixture; a source may have several.
fn fixtures() -> Vec<Fixture> {
    vec![
        documents(),
        listed_files(),
        files_as_they_come(),
        files_with_bad_rows(),
        file_over_http(),
        parquet_file(),
        items_of_stac(),
        page_of_an_api(),
        items_of_a_catalog(),
        gdelt(),
        feeds(),
        bad_feeds(),
        generate(),
        sse(),
        sse_of_json(),
        stdin(),
    ]
}

fn services(run: &mut RunContext) {
    let fetcher = Fetcher::new(HttpOptions::default(), StorageOptions::default(), run.tasks.clone());
    run.services.insert(Arc::new(fetcher.unwrap()));
    run.clock = Arc::new(Still);
    run.services.insert(Arc::new(worker()));
}

/// How children are started in tests.
pub(crate) fn worker() -> Worker {
    Worker::new(env!("CARGO_BIN_EXE_aqueduct-sources-worker"), Vec::<String>::new())
}

/// It is always the same time.
#[derive(Debug)]
struct Still;

const NOW: &str = "2026-06-01T00:00:00Z";

impl Clock for Still {
    fn now(&self) -> DateTime<Utc> {
        NOW.parse().unwrap()
    }
}

/// So many rows weigh 1.25 MiB.
const N_ROWS: i64 = 6000;

/// Three files of a third of the rows each.
fn thirds() -> [std::ops::Range<i64>; 3] {
    [0..N_ROWS / 3, N_ROWS / 3..N_ROWS / 3 * 2, N_ROWS / 3 * 2..N_ROWS]
}

fn text(n: i64) -> String {
    format!("{n:0200}")
}

/// The rows as the suite compares them.
fn rows() -> Vec<String> {
    (0..N_ROWS).map(|n| format!("{n}\t{}", text(n))).collect()
}

fn ndjson(numbers: std::ops::Range<i64>) -> String {
    numbers.map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", text(n))).collect()
}

fn columns() -> Value {
    json!({"n": "int64", "text": "string"})
}

/// Three documents of two pages, whose texts together weigh as much as the rows of others.
fn documents() -> Fixture {
    let options = |names: Value| json!({"paths": names, "sections": {"pages": 1}});
    let page = |name: &str, page: usize| format!("{name}-{page:06}-").repeat(17_000);
    let document = |name: &str| {
        let pages: Vec<_> = (1..=2).map(|number| page(name, number)).collect();
        pdf::long_pages(&pages.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let names = ["a.pdf", "b.pdf", "c.pdf"];
    let usual =
        names.iter().fold(Input::of(options(json!(names))), |input, name| input.file(name, document(name)));
    let row = |name: &str, number: usize| {
        format!("{name}\tpage {number}\t{number}\t{number}\t{}\n", page(name, number))
    };
    let allowed = json!({"paths": ["none/*.pdf"], "sections": {"pages": 1}, "allow_empty": true});
    Fixture {
        component: "documents",
        variant: "",
        usual,
        rows: names.iter().flat_map(|name| (1..=2).map(move |number| row(name, number))).collect(),
        n_splits: 4,
        empty: Input::of(allowed),
        failing: Ok(Input::of(options(json!(["a.pdf"]))).file("a.pdf", pdf::locked())),
    }
}

fn listed_files() -> Fixture {
    let read = |names: Value| json!({"paths": names, "schema": columns(), "order": "listed"});
    let [first, second, third] = thirds().map(ndjson);
    let usual = Input::of(read(json!(["a.ndjson", "b.ndjson", "c.ndjson"])));
    let failing = Input::of(read(json!(["a.ndjson", "broken.ndjson"]))).file("a.ndjson", first.clone());
    Fixture {
        component: "files",
        variant: "in the order of a list",
        usual: usual.file("a.ndjson", first).file("b.ndjson", second).file("c.ndjson", third),
        rows: rows(),
        n_splits: 4,
        empty: Input::of(read(json!("empty.ndjson"))).file("empty.ndjson", ""),
        failing: Ok(failing.file("broken.ndjson", "{\"n\":1}\n{\"n\":\n")),
    }
}

fn files_as_they_come() -> Fixture {
    let csv = |numbers: std::ops::Range<i64>| {
        let header = String::from("n,text\n");
        numbers.fold(header, |mut text, n| {
            writeln!(text, "{n},x{n:0200}").unwrap();
            text
        })
    };
    let [first, second, third] = thirds().map(csv);
    let usual = Input::of(json!({"paths": ["data/*.csv"]}));
    let failing = Input::of(json!({"paths": ["data/*.csv"]})).file("data/a.csv", first.clone());
    Fixture {
        component: "files",
        variant: "as they come, with inferred columns",
        usual: usual.file("data/a.csv", first).file("data/b.csv", second).file("data/c.csv", third),
        rows: (0..N_ROWS).map(|n| format!("{n}\tx{n:0200}")).collect(),
        n_splits: 4,
        empty: Input::of(json!({"paths": ["data/*.csv"]})).file("data/a.csv", "n,text\n"),
        failing: Ok(failing.file("data/b.csv", "n,text\nno number,x\n")),
    }
}

/// Files of several formats, with bad rows among the good ones, and one that is not there.
fn files_with_bad_rows() -> Fixture {
    let read = |names: Value| json!({"paths": names, "schema": columns(), "window": 2});
    let is_bad = |n: i64| n % 100 == 50;
    let lines = |numbers: std::ops::Range<i64>| -> String {
        let line = |n| if is_bad(n) { "{\"n\":\n".to_owned() } else { ndjson(n..n + 1) };
        numbers.map(line).collect()
    };
    let csv = |numbers: std::ops::Range<i64>| -> String {
        let line = |n| if is_bad(n) { format!("x,{}\n", text(n)) } else { format!("{n},{}\n", text(n)) };
        std::iter::once("n,text\n".to_owned()).chain(numbers.map(line)).collect()
    };
    let [first, second, third] = thirds();
    let usual = Input::of(read(json!(["a.ndjson", "b.csv", "c.parquet", "gone.csv"])));
    let good = |n: &i64| !is_bad(*n) || third.contains(n);
    Fixture {
        component: "files",
        variant: "with bad rows",
        rows: (0..N_ROWS).filter(good).map(|n| format!("{n}\t{}", text(n))).collect(),
        usual: usual
            .file("a.ndjson", lines(first))
            .file("b.csv", csv(second))
            .file("c.parquet", parquet(third.clone()))
            .rejected(41),
        n_splits: 5,
        empty: Input::of(read(json!("empty.ndjson"))).file("empty.ndjson", ""),
        failing: Ok(Input::of(read(json!("a.ndjson"))).file("a.ndjson", "{\"n\":\n")),
    }
}

/// One file, so that what a slow consumer makes wait is memory and no window.
fn file_over_http() -> Fixture {
    let read = |names: Value| json!({"paths": names, "schema": columns()});
    let failing = Input::of(read(json!(["{server}/a.ndjson", "{server}/gone.ndjson"])));
    Fixture {
        component: "files",
        variant: "over HTTP",
        usual: Input::of(read(json!("{server}/a.ndjson"))).served("/a.ndjson", ndjson(0..N_ROWS)),
        rows: rows(),
        n_splits: 2,
        empty: Input::of(read(json!("{server}/empty.ndjson"))).served("/empty.ndjson", ""),
        failing: Ok(failing.served("/a.ndjson", ndjson(0..10))),
    }
}

fn parquet_file() -> Fixture {
    let read = || Input::of(json!({"paths": "a.parquet"}));
    let file = parquet(0..N_ROWS);
    let mut damaged = file.clone();
    damaged[4..64].fill(0xff);
    Fixture {
        component: "files",
        variant: "parquet",
        usual: read().file("a.parquet", file),
        rows: rows(),
        n_splits: 2,
        empty: read().file("a.parquet", parquet(0..0)),
        failing: Ok(read().file("a.parquet", damaged)),
    }
}

/// A collection, a list and lines of items.
fn items_of_stac() -> Fixture {
    let read = |names: Value| json!({"paths": names, "format": "stac", "schema": columns(), "new_fields": "ignore", "order": "listed"});
    let items = |numbers: std::ops::Range<i64>, end: &str| -> String {
        let item = |n| {
            let properties = json!({"datetime": null, "n": n, "text": text(n)});
            json!({"type": "Feature", "id": n.to_string(), "geometry": null, "properties": properties})
                .to_string()
        };
        numbers.map(item).collect::<Vec<_>>().join(end)
    };
    let collection = |items: String| {
        format!("{{\"type\": \"FeatureCollection\", \"features\": [{items}], \"links\": []}}")
    };
    let [first, second, third] = thirds();
    let first = collection(items(first, ","));
    let usual = Input::of(read(json!(["a.json", "b.json", "c.ndjson"]))).file("a.json", first.clone());
    let failing = Input::of(read(json!(["a.json", "broken.json"]))).file("a.json", first);
    Fixture {
        component: "files",
        variant: "items of STAC",
        usual: usual
            .file("b.json", format!("[{}]", items(second, ",\n")))
            .file("c.ndjson", items(third, "\n")),
        rows: rows(),
        n_splits: 4,
        empty: Input::of(read(json!("empty.json"))).file("empty.json", collection(String::new())),
        failing: Ok(failing.file("broken.json", "{\"type\": \"FeatureCollection\", \"features\": [")),
    }
}

fn parquet(numbers: std::ops::Range<i64>) -> Vec<u8> {
    let columns: [(&str, ArrayRef); 2] = [
        ("n", Arc::new(Int64Array::from_iter_values(numbers.clone()))),
        ("text", Arc::new(StringArray::from_iter_values(numbers.map(text)))),
    ];
    let records = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), records.schema(), None).unwrap();
    writer.write(&records).unwrap();
    writer.into_inner().unwrap()
}

fn feature(n: i64) -> Value {
    json!({"type": "Feature", "id": n.to_string(), "properties": {"n": n, "text": text(n)}})
}

/// A feature's columns: those of the layout, most of them null, and its properties.
fn feature_rows() -> Vec<String> {
    (0..N_ROWS).map(|n| format!("Feature\t\t\t{n}\t\t\t\t\t{n}\t{}", text(n))).collect()
}

fn features(numbers: std::ops::Range<i64>, links: Value) -> String {
    let features: Vec<_> = numbers.map(feature).collect();
    json!({"type": "FeatureCollection", "features": features, "links": links}).to_string()
}

fn page_of_an_api() -> Fixture {
    let read = || Input::of(json!({"url": "{server}/search"}));
    let broken = json!([{"rel": "next", "href": "/gone"}]);
    Fixture {
        component: "stac_api",
        variant: "",
        usual: read().served("/search", features(0..N_ROWS, json!([]))),
        rows: feature_rows(),
        n_splits: 1,
        empty: read().served("/search", features(0..0, json!([]))),
        failing: Ok(read().served("/search", features(0..10, broken))),
    }
}

fn items_of_a_catalog() -> Fixture {
    let read = || Input::of(json!({"url": "catalog.json", "allow_empty": true}));
    let catalog = |items: &[&str]| {
        let links: Vec<_> = items.iter().map(|item| json!({"rel": "item", "href": item})).collect();
        json!({"type": "Catalog", "id": "root", "links": links}).to_string()
    };
    let [first, second, third] = thirds().map(|numbers| features(numbers, json!([])));
    let usual = read().file("catalog.json", catalog(&["a.json", "b.json", "c.json"]));
    let failing =
        read().file("catalog.json", catalog(&["a.json", "gone.json"])).file("a.json", first.clone());
    Fixture {
        component: "stac_catalog",
        variant: "",
        usual: usual.file("a.json", first).file("b.json", second).file("c.json", third),
        rows: feature_rows(),
        n_splits: 4,
        empty: read().file("catalog.json", catalog(&[])),
        failing: Ok(failing),
    }
}

/// Three quarters of an hour of events, laid out like GDELT's server.
fn gdelt() -> Fixture {
    let read = || {
        Input::of(json!({
            "dataset": "events", "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:45:00Z",
            "base_url": "v2", "allow_empty": true,
        }))
    };
    let (mut usual, mut list) = (read(), String::new());
    for (stamp, numbers) in ["20260101000000", "20260101001500", "20260101003000"].into_iter().zip(thirds()) {
        let (name, events) = (format!("{stamp}.export.CSV.zip"), numbers.map(event).collect::<String>());
        writeln!(list, "{} - http://data.gdeltproject.org/gdeltv2/{name}", events.len()).unwrap();
        usual = usual.file(&format!("v2/{name}"), events);
    }
    let wrong_size = "7 - http://data.gdeltproject.org/gdeltv2/20260101000000.export.CSV.zip\n";
    let failing = read().file("v2/20260101000000.export.CSV.zip", event(1));
    Fixture {
        component: "gdelt",
        variant: "",
        usual: usual.file("v2/masterfilelist.txt", list),
        rows: (0..N_ROWS).map(|n| event(n).trim_end_matches('\n').to_owned()).collect(),
        n_splits: 4,
        empty: read().file("v2/masterfilelist.txt", ""),
        failing: Ok(failing.file("v2/masterfilelist.txt", wrong_size)),
    }
}

/// A line of an events file: 61 fields, most of them empty.
fn event(id: i64) -> String {
    let mut fields = vec![String::new(); 61];
    fields[0] = id.to_string();
    fields[26] = "010".into();
    fields[30] = "-2.5".into();
    fields[60] = format!("https://example.com/{}", text(id));
    fields.join("\t") + "\n"
}

/// A third of the entries in each kind of feed.
fn kinds_of_feeds() -> [String; 3] {
    let [first, second, third] = thirds();
    let rss = first.map(|n| format!("<item><guid>R{n}</guid><title>{}</title></item>", text(n)));
    let atom = second.map(|n| {
        format!(
            "<entry><id>A{n}</id><title>{}</title><updated>2026-01-01T00:00:00Z</updated></entry>",
            text(n)
        )
    });
    let json: Vec<_> = third.map(|n| json!({"id": n, "title": text(n)})).collect();
    [
        format!("<rss><channel><title>R</title>{}</channel></rss>", rss.collect::<String>()),
        format!(
            "<feed xmlns='http://www.w3.org/2005/Atom'><title>A</title>{}</feed>",
            atom.collect::<String>()
        ),
        json!({"version": "https://jsonfeed.org/version/1.1", "title": "J", "items": json}).to_string(),
    ]
}

fn entry(n: i64) -> String {
    let [first, second, _] = thirds();
    let (id, feed, updated) = match n {
        n if first.contains(&n) => (format!("r{n}"), "a.xml\tR", ""),
        n if second.contains(&n) => (format!("a{n}"), "b.xml\tA", "2026-01-01T00:00:00Z"),
        n => (n.to_string(), "c.json\tJ", ""),
    };
    format!("{id}\t{feed}\t{}\t\t\t\t[]\t[]\t\t{updated}\t2026-06-01T00:00:00Z", text(n))
}

fn feeds() -> Fixture {
    let read = |names: &[&str]| Input::of(json!({"urls": names}));
    let [rss, atom, json] = kinds_of_feeds();
    let usual = read(&["a.xml", "b.xml", "c.json"]).file("a.xml", rss.clone());
    Fixture {
        component: "feeds",
        variant: "",
        usual: usual.file("b.xml", atom).file("c.json", json),
        rows: (0..N_ROWS).map(entry).collect(),
        n_splits: 1,
        empty: read(&["a.xml"]).file("a.xml", "<rss><channel/></rss>"),
        failing: Ok(read(&["a.xml", "broken.xml"]).file("a.xml", rss).file("broken.xml", "<html/>")),
    }
}

/// One that is not there, one that is none, one that is cut off within its last entry; and each entry twice.
fn bad_feeds() -> Fixture {
    let read = |names: &[&str]| Input::of(json!({"urls": names, "concurrency": 2}));
    let [rss, atom, json] = kinds_of_feeds();
    let cut = rss.replacen("</channel></rss>", "<item><guid>cut", 1);
    let usual = read(&["gone.xml", "a.xml", "page.xml", "b.xml", "c.json", "again.json"]);
    Fixture {
        component: "feeds",
        variant: "with bad ones",
        usual: usual
            .file("a.xml", cut)
            .file("page.xml", "<html><body/></html>")
            .file("b.xml", atom)
            .file("c.json", json)
            .file(
                "again.json",
                r#"{"version": "https://jsonfeed.org/version/1.1", "items": [7, {"id": "a2000"}, 8]}"#,
            )
            .rejected(5),
        rows: (0..N_ROWS).map(entry).chain([AGAIN.to_owned()]).collect(),
        n_splits: 1,
        empty: read(&["a.xml"]).file("a.xml", "<rss><channel/></rss>"),
        failing: Ok(read(&["a.xml", "gone.xml"]).file("a.xml", rss)),
    }
}

/// The same id, of another version.
const AGAIN: &str = "a2000\tagain.json\t\t\t\t\t\t[]\t[]\t\t\t2026-06-01T00:00:00Z";

fn generate() -> Fixture {
    let names = || (0..16).map(|n| (format!("c{n}"), json!("sequence")));
    let options = |rows: i64| json!({"rows": rows, "columns": names().collect::<serde_json::Map<_, _>>()});
    let row = |n: i64| vec![n.to_string(); 16].join("\t");
    Fixture {
        component: "generate",
        variant: "",
        usual: Input::of(options(10_000)),
        rows: (0..10_000).map(row).collect(),
        n_splits: 1,
        empty: Input::of(options(0)),
        failing: Ok(Input::of(options(10)).from(Positions::of("rows", json!("no number")))),
    }
}

/// What a stream has to say: events with ids that count up, a connection for each thousand, and its end.
fn events(request: &Request, data: impl Fn(i64) -> String) -> Answer {
    let last: i64 = request.header("last-event-id").map_or(-1, |id| id.parse().unwrap());
    let numbers = last + 1..N_ROWS.min(last + 1001);
    let mut text = String::from("retry: 1\n\n");
    for n in numbers {
        write!(text, "id: {n}\nevent: row\ndata: {}\n\n", data(n)).unwrap();
    }
    if last + 1001 >= N_ROWS {
        text += "event: end\ndata: {}\n\n";
    }
    event_stream(text)
}

fn event_stream(text: String) -> Answer {
    Answer::new(200).header("Content-Type", "text/event-stream").chunks([text]).hang_up()
}

fn sse() -> Fixture {
    let read = || json!({"url": "{server}/events", "retries": 0});
    let usual = Input::of(read()).answered("/events", |request| events(request, text));
    Fixture {
        component: "sse",
        variant: "as text",
        usual,
        rows: (0..N_ROWS).map(|n| format!("{n}\trow\t{}\t{NOW}", text(n))).collect(),
        n_splits: 1,
        empty: Input::of(read()).answered("/events", |_| Answer::new(204)),
        failing: Ok(Input::of(read()).answered("/events", |_| Answer::new(404))),
    }
}

fn sse_of_json() -> Fixture {
    let read = || json!({"url": "{server}/events", "schema": columns(), "retries": 0});
    let row = |n: i64| match n % 100 {
        50 => "{\"n\":".to_owned(),
        70 => " ".to_owned(),
        _ => format!("{{\"n\":{n},\ndata: \"text\":\"{}\"}}", text(n)),
    };
    let usual = Input::of(read()).answered("/events", move |request| events(request, row));
    let is_row = |n: &i64| !matches!(n % 100, 50 | 70);
    let failing = Input::of(read()).answered("/events", |_| event_stream("data: {\"n\":\n\n".into()));
    Fixture {
        component: "sse",
        variant: "of JSON, some of it bad",
        usual: usual.rejected(60),
        rows: (0..N_ROWS).filter(is_row).map(|n| format!("{n}\t{}", text(n))).collect(),
        n_splits: 1,
        empty: Input::of(read()).answered("/events", |_| event_stream("event: end\ndata\n\n".into())),
        failing: Ok(failing),
    }
}

fn stdin() -> Fixture {
    let read = |text: String| {
        Input::of(json!({"format": "ndjson", "schema": columns()}))
            .file("stdin", text)
            .stdin("stdin", |path: &Path| Ok(rustix::stdio::dup2_stdin(std::fs::File::open(path)?)?))
    };
    Fixture {
        component: "stdin",
        variant: "",
        usual: read(ndjson(0..N_ROWS)),
        rows: rows(),
        n_splits: 1,
        empty: read(String::new()),
        failing: Ok(read(ndjson(0..1000) + "{\"n\":\n")),
    }
}
