//! Reads feeds and prints one JSON object a file: its title and entries, or why it is none. To compare with other readers:
//!
//! `cargo run --release -p aqueduct-formats --example feed_lines -- FILE...`

use std::error::Error;
use std::io::{Read, Write};
use std::time::Instant;

use aqueduct_formats::feed::{Entry, FeedReader, document_text, is_about_one_entry};
use chrono::SecondsFormat;
use serde_json::{Value, json};
use url::Url;

/// A larger file is no feed.
const MAX_BYTES: u64 = 256 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    for path in std::env::args().skip(1) {
        let begun = Instant::now();
        let mut bytes = Vec::new();
        std::fs::File::open(&path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let mut told = told(bytes)?;
        told["file"] = json!(path);
        told["ms"] = json!(u64::try_from(begun.elapsed().as_millis())?);
        writeln!(out, "{told}")?;
    }
    Ok(())
}

fn told(bytes: Vec<u8>) -> Result<Value, Box<dyn Error>> {
    let (mut title, mut entries, mut errors) = (None, Vec::new(), Vec::new());
    let base = Url::parse("http://127.0.0.1:8097/feed")?;
    let opened = document_text(bytes, None, usize::try_from(MAX_BYTES)?)
        .and_then(|text| FeedReader::open(text, Some(&base)));
    match opened {
        Err(error) => errors.push(error.chain()),
        Ok(mut feed) => {
            title = feed.title().map(str::to_owned);
            loop {
                match feed.next_entry() {
                    Ok(Some(entry)) => entries.push(shown(&entry)),
                    Ok(None) => break,
                    Err(error) => {
                        errors.push(error.chain());
                        if !is_about_one_entry(&error) {
                            break;
                        }
                    }
                }
            }
        }
    }
    Ok(json!({"title": title, "n_entries": entries.len(), "entries": entries, "errors": errors}))
}

fn shown(entry: &Entry) -> Value {
    let time = |at: Option<chrono::DateTime<chrono::Utc>>| {
        at.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    };
    json!({
        "id": entry.natural_key(), "title": entry.title, "link": entry.link, "published": time(entry.published),
        "updated": time(entry.updated), "authors": entry.authors, "categories": entry.categories,
        "summary": entry.summary, "content": entry.content,
    })
}
