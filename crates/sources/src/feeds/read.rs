//! Reads all feeds, some at once, and gives the rows of entries that were not given.

use std::sync::Arc;

use aqueduct_core::{
    Batch, BatchStream, Context, Error, ErrorKind, Origin, Positions, Reject, RejectedItem, Result,
};
use aqueduct_formats::feed::{Entry, FeedFacts, entries_schema, entry_records};
use aqueduct_net::Known;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use async_stream::try_stream;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::OpenFeeds;
use super::known::Versions;
use super::list::Feed;
use super::memory::BATCH_BYTES;
use super::poll::{Asker, Document, Page, PageLimits};
use super::progress::{Place, Progress};
use crate::paged::given::Given;

/// What comes of a feed.
enum Event {
    /// Rows with their keys, and what is wrong between them.
    Rows {
        records: RecordBatch,
        keys: Vec<u128>,
        rejects: Vec<Reject>,
        place: Place,
        bad_date: Option<String>,
    },
    /// All of it has come, of this version; or it is as it was.
    End(Option<Known>),
    /// The feed, or the rest of it, cannot be read.
    Failed(Error),
}

/// The rows of all feeds that are left.
pub(super) fn run(feeds: OpenFeeds, cx: Context, from: Positions) -> BatchStream {
    let OpenFeeds { fetcher, feeds, versions, given, room, _held } = feeds;
    Box::pin(try_stream! {
        let _held = _held;
        let progress = Progress::of(&from)?;
        let feeds: Arc<[Feed]> = feeds.into();
        let n_feeds = feeds.len() as u64;
        cx.metrics().files_total.add(n_feeds);
        let n_at_once = room.n_at_once;
        let asker = Asker { cx: cx.clone(), fetcher, room };
        let (asked, known) = (Arc::clone(&feeds), versions.clone());
        let polls = progress.left(n_feeds).map(move |(number, from)| Poll {
            asker: asker.clone(),
            feeds: Arc::clone(&asked),
            versions: known.clone(),
            number,
            from,
        });
        let mut events = stream::iter(polls).map(Poll::events).flatten_unordered(n_at_once);
        let mut consumer = Consumer { cx, feeds, versions, given, progress, failed: None };
        while let Some(event) = events.next().await {
            let (number, event) = event?;
            if let Some(batch) = consumer.take(number, event).await? {
                yield batch;
            }
        }
        consumer.finish()?;
    })
}

/// One feed on its way.
struct Poll {
    asker: Asker,
    feeds: Arc<[Feed]>,
    versions: Versions,
    number: u64,
    from: Place,
}

impl Poll {
    /// What comes of the feed.
    fn events(self) -> BoxStream<'static, Result<(u64, Event)>> {
        let number = self.number;
        Box::pin(try_stream! {
            let cx = self.asker.cx.clone();
            let from = self.from.clone();
            // In a task of its own: it goes on while the rows of others are taken.
            let asking = cx.tasks().spawn(async move { self.ask().await });
            let mut document = match asking.await? {
                Ok(Some(document)) => document,
                Ok(None) => {
                    yield (number, Event::End(None));
                    return;
                }
                Err(error) => {
                    yield (number, Event::Failed(its_own(error)?));
                    return;
                }
            };
            let is_same = from.digest.as_ref() == Some(&document.digest);
            let limits = limits(&cx);
            // Told once of each feed.
            let mut has_bad_date = false;
            loop {
                let read = move || {
                    if is_same {
                        document.skip(from.entries);
                    }
                    let page = document.next_page(limits);
                    let event = rows(&document, &page);
                    (document, page, event)
                };
                let (back, Page { entries, rejects, n_behind, end }, event) = cx.tasks().compute(read).await?;
                document = back;
                let (records, keys) = event?;
                // Of another version of the feed, what was told is not told again.
                let is_new = |reject: &Reject| reject.origin.row.is_none_or(|row| row > from.entries);
                let rejects: Vec<_> = rejects.into_iter().filter(is_new).collect();
                if !keys.is_empty() || !rejects.is_empty() {
                    let place = Place { entries: n_behind, digest: Some(document.digest.clone()) };
                    let bad_date = entries.into_iter().find_map(|entry| entry.bad_date).filter(|_| !has_bad_date);
                    has_bad_date |= bad_date.is_some();
                    yield (number, Event::Rows { records, keys, rejects, place, bad_date });
                }
                match end {
                    None => {}
                    Some(Ok(())) => {
                        yield (number, Event::End(Some(document.known.clone())));
                        return;
                    }
                    Some(Err(error)) => {
                        yield (number, Event::Failed(its_own(error)?));
                        return;
                    }
                }
            }
        })
    }

    async fn ask(self) -> Result<Option<Document>> {
        let Some(feed) = usize::try_from(self.number).ok().and_then(|number| self.feeds.get(number)) else {
            return Err(Error::new(
                ErrorKind::Conflict,
                "resume",
                "the position names a feed that there is not",
            ));
        };
        self.asker.ask(feed, &self.versions.of(feed)).await
    }
}

/// An error that is about one feed; others end the run.
fn its_own(error: Error) -> Result<Error> {
    if error.kind().is_about_one_item() { Ok(error) } else { Err(error) }
}

pub(super) fn limits(cx: &Context) -> PageLimits {
    PageLimits {
        entries: cx.batch_rows(),
        bytes: cx.batch_bytes().min(BATCH_BYTES).as_usize() / 2,
        // Room for what stands before it, and for what a row takes beside its texts.
        largest: cx.flow().total().as_usize() / 2,
    }
}

/// The rows of entries, and their keys.
fn rows(document: &Document, page: &Page) -> Result<(RecordBatch, Vec<u128>)> {
    let records = records(&page.entries, &document.facts)?;
    Ok((records, page.entries.iter().map(key).collect()))
}

fn records(entries: &[Entry], facts: &FeedFacts) -> Result<RecordBatch> {
    entry_records(entries, facts)
        .map_err(|error| Error::bug("read feed", "entries that are no rows").with_source(error))
}

/// What an entry is known by once it was given: its id, and when it was changed.
pub(super) fn key(entry: &Entry) -> u128 {
    let at = entry.updated.as_ref().map(DateTime::<Utc>::timestamp_micros);
    let mut hash = blake3::Hasher::new();
    hash.update(entry.natural_key().as_bytes());
    // No id has the byte 0xff.
    hash.update(&[0xff, u8::from(at.is_some())]).update(&at.unwrap_or_default().to_le_bytes());
    let mut key = [0; 16];
    hash.finalize_xof().fill(&mut key);
    u128::from_le_bytes(key)
}

/// One of few words for what is wrong with a feed or an entry.
pub(super) fn reason(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "missing",
        ErrorKind::Denied => "denied",
        ErrorKind::Limit => "limit",
        ErrorKind::Io => "io",
        _ => "data",
    }
}

/// Gives rows that were not given, each batch with the place behind it.
struct Consumer {
    cx: Context,
    feeds: Arc<[Feed]>,
    versions: Versions,
    given: Option<Given>,
    progress: Progress,
    /// What the policy does not let pass, with the number of feeds: told when all others are read.
    failed: Option<(Error, u64)>,
}

impl Consumer {
    async fn take(&mut self, number: u64, event: Event) -> Result<Option<Batch>> {
        match event {
            Event::Rows { records, keys, rejects, place, bad_date } => {
                self.tell_bad_date(number, bad_date);
                self.give(number, records, keys, (rejects, place)).await.map(Some)
            }
            Event::End(known) => {
                self.cx.metrics().files_done.add(1);
                if let (Some(known), Some(feed)) = (known, self.feed(number)) {
                    self.versions.note(feed, known);
                }
                self.progress.end(number);
                self.no_rows().map(Some)
            }
            Event::Failed(error) => self.fail(number, &error),
        }
    }

    fn tell_bad_date(&self, number: u64, bad_date: Option<String>) {
        if let Some((text, feed)) = bad_date.zip(self.feed(number)) {
            let name = &feed.name;
            self.cx.warn(format!(
                "{name}: entries name times that are none, as `{}`: they have none here",
                text.escape_debug()
            ));
        }
    }

    /// After the wait for memory nothing waits any more: keys, rejects and place go with the batch, or none of them.
    async fn give(
        &mut self,
        number: u64,
        records: RecordBatch,
        keys: Vec<u128>,
        (rejects, place): (Vec<Reject>, Place),
    ) -> Result<Batch> {
        let n_rows = keys.len();
        let (records, keys) = match &self.given {
            Some(given) => {
                given.make_room().await?;
                let is_new = given.are_new(keys.clone()).await?;
                chosen(records, keys, &is_new)?
            }
            None => (records, keys),
        };
        let batch = self.cx.admit(records).await?;
        self.cx.metrics().rows_duplicate.add((n_rows - keys.len()) as u64);
        if let Some(given) = &self.given {
            given.give(keys);
        }
        rejects.into_iter().try_for_each(|reject| self.cx.reject(reject))?;
        self.progress.reach(number, place);
        Ok(batch.with_positions(self.progress.positions()?))
    }

    /// A feed that cannot be read is asked again by the next run. Where it is to end this one, others are read before.
    fn fail(&mut self, number: u64, error: &Error) -> Result<Option<Batch>> {
        let file = self.feed(number).map(|feed| feed.name.to_string()).unwrap_or_default();
        let reject = Reject {
            item: RejectedItem::File,
            reason: reason(error.kind()),
            message: error.chain(),
            origin: Origin { file, ..Origin::default() },
            raw: Vec::new(),
        };
        match self.cx.reject(reject) {
            Ok(()) => {
                self.progress.end(number);
                self.no_rows().map(Some)
            }
            Err(refused) => {
                let n_before = self.failed.as_ref().map_or(0, |(_, n_feeds)| *n_feeds);
                let first = self.failed.take().map_or(refused, |(first, _)| first);
                self.failed = Some((first, n_before + 1));
                Ok(None)
            }
        }
    }

    /// All feeds are read.
    fn finish(self) -> Result<()> {
        match self.failed {
            None => Ok(()),
            Some((error, 1)) => Err(error),
            Some((error, n_feeds)) => Err(error.with("feeds_that_failed", n_feeds)),
        }
    }

    fn feed(&self, number: u64) -> Option<&Feed> {
        self.feeds.get(usize::try_from(number).ok()?)
    }

    fn no_rows(&self) -> Result<Batch> {
        Ok(Batch::only_positions(entries_schema(), self.progress.positions()?))
    }
}

/// The rows that are new.
fn chosen(records: RecordBatch, keys: Vec<u128>, is_new: &BooleanArray) -> Result<(RecordBatch, Vec<u128>)> {
    if is_new.true_count() == keys.len() {
        return Ok((records, keys));
    }
    let chosen = filter_record_batch(&records, is_new).map_err(|error| {
        Error::bug("choose entries", "a mask that does not fit its rows").with_source(error)
    })?;
    let keys = keys.into_iter().zip(is_new.values()).filter_map(|(key, is_new)| is_new.then_some(key));
    Ok((chosen, keys.collect()))
}
