//! Entries as rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::{DateTime, Utc};

use super::Entry;

/// What all entries of a feed have in common.
#[derive(Clone, Debug)]
pub struct FeedFacts {
    /// The feed's address, as it is shown.
    pub url: String,
    /// What it is called.
    pub title: Option<String>,
    /// When it was fetched.
    pub captured_at: DateTime<Utc>,
}

/// The columns of entries: `id`, `feed_url`, `feed_title`, `title`, `link`, `summary`, `content`, `authors`, `categories`,
/// `published_at`, `updated_at`, `captured_at`.
pub fn entries_schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let list = |name: &str| Field::new(name, DataType::List(Arc::new(item())), false);
    let time = |name: &str, nullable| {
        Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), nullable)
    };
    Arc::new(Schema::new(vec![
        text("id", false),
        text("feed_url", false),
        text("feed_title", true),
        text("title", true),
        text("link", true),
        text("summary", true),
        text("content", true),
        list("authors"),
        list("categories"),
        time("published_at", true),
        time("updated_at", true),
        time("captured_at", false),
    ]))
}

fn item() -> Field {
    Field::new("item", DataType::Utf8, false)
}

/// The rows of entries, with the columns of [`entries_schema`], buffers no larger than their texts.
///
/// # Errors
/// The texts of one column are longer than 2 GiB together.
pub fn entry_records(entries: &[Entry], feed: &FeedFacts) -> Result<RecordBatch, arrow::error::ArrowError> {
    let ids: Vec<_> = entries.iter().map(Entry::natural_key).collect();
    let texts = |of: fn(&Entry) -> Option<&str>| -> ArrayRef { texts_of(entries.iter().map(of)) };
    let all = |text: Option<&str>| -> ArrayRef { texts_of(entries.iter().map(|_| text)) };
    let captured: Vec<_> = entries.iter().map(|_| Some(feed.captured_at)).collect();
    let columns = vec![
        texts_of(ids.iter().map(|id| Some(&id[..]))),
        all(Some(&feed.url)),
        all(feed.title.as_deref()),
        texts(|entry| entry.title.as_deref()),
        texts(|entry| entry.link.as_deref()),
        texts(|entry| entry.summary.as_deref()),
        texts(|entry| entry.content.as_deref()),
        lists(entries, |entry| &entry.authors),
        lists(entries, |entry| &entry.categories),
        times(entries.iter().map(|entry| entry.published)),
        times(entries.iter().map(|entry| entry.updated)),
        times(captured.into_iter()),
    ];
    RecordBatch::try_new(entries_schema(), columns)
}

fn texts_of<'e>(texts: impl Iterator<Item = Option<&'e str>> + Clone) -> ArrayRef {
    let n_bytes = texts.clone().flatten().map(str::len).sum();
    let mut builder = StringBuilder::with_capacity(texts.clone().count(), n_bytes);
    texts.for_each(|text| builder.append_option(text));
    Arc::new(builder.finish()) as Arc<StringArray>
}

fn lists(entries: &[Entry], of: fn(&Entry) -> &Vec<String>) -> ArrayRef {
    let all = || entries.iter().flat_map(of);
    let items = StringBuilder::with_capacity(all().count(), all().map(String::len).sum());
    let mut builder = ListBuilder::with_capacity(items, entries.len()).with_field(item());
    for entry in entries {
        of(entry).iter().for_each(|text| builder.values().append_value(text));
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn times(times: impl Iterator<Item = Option<DateTime<Utc>>>) -> ArrayRef {
    let times: TimestampMicrosecondArray = times.map(|at| at.map(|at| at.timestamp_micros())).collect();
    Arc::new(times.with_timezone("UTC"))
}
