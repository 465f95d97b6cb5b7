//! Where entries come from, for those who read feeds without a flow.

use std::fmt;
use std::sync::Arc;

use aqueduct_core::{Context, Result};
use aqueduct_formats::ReadOptions;
use aqueduct_formats::feed::{Entry, FeedFacts};
use aqueduct_net::{Fetcher, Known, Location, Trust};
use aqueduct_primitives::{ByteCount, Reservation};
use async_stream::try_stream;
use async_trait::async_trait;
use futures::stream::BoxStream;

use super::DEFAULT_FEEDS_AT_ONCE;
use super::list::Feed;
use super::memory::Room;
use super::poll::Asker;
use super::read::limits;

/// An entry, and the feed that it came in.
#[derive(Clone, Debug)]
pub struct Record {
    /// What it is known by, in all feeds: see [`Entry::natural_key`].
    pub id: String,
    /// The entry.
    pub entry: Entry,
    /// Its feed, and when that was fetched.
    pub feed: Arc<FeedFacts>,
}

impl Record {
    /// An entry of a feed.
    pub fn new(entry: Entry, feed: Arc<FeedFacts>) -> Self {
        Self { id: entry.natural_key(), entry, feed }
    }
}

/// Entries of one place: got ready, fetched, and closed, whatever happened.
#[async_trait]
pub trait Adapter: Send {
    /// What it is called, in errors.
    fn name(&self) -> &str;

    /// Gets ready to fetch.
    ///
    /// # Errors
    /// It cannot; it is closed then, and nothing is fetched.
    async fn initialise(&mut self) -> Result<()> {
        Ok(())
    }

    /// The entries, as they come. Whoever does not ask for the next has nothing more fetched.
    ///
    /// # Errors
    /// In the stream: an error is its last item.
    ///
    /// # Cancel safety
    /// Dropping the stream ends what it fetches.
    fn fetch(&mut self) -> BoxStream<'_, Result<Record>>;

    /// Lets go of what it holds.
    ///
    /// # Errors
    /// It could not; the entries that were given count all the same.
    async fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Asks feeds, within the memory of one context. Cheap to clone.
#[derive(Clone)]
pub struct FeedClient {
    asker: Asker,
}

impl fmt::Debug for FeedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedClient").finish_non_exhaustive()
    }
}

impl FeedClient {
    /// With the [`Fetcher`] and the share of a context.
    ///
    /// # Errors
    /// The context has no fetcher in its services.
    pub fn new(cx: &Context) -> Result<Self> {
        let fetcher = cx.service::<Fetcher>()?.as_ref().clone();
        let max_feed: ByteCount = ReadOptions::default().max_record_bytes;
        let room = Room::of(cx, &Reservation::empty(), DEFAULT_FEEDS_AT_ONCE, max_feed);
        Ok(Self { asker: Asker { cx: cx.clone(), fetcher, room } })
    }

    /// A feed at a URL or a path. Nothing is asked yet.
    ///
    /// # Errors
    /// It is neither.
    pub fn feed(&self, url: &str) -> Result<FeedAdapter> {
        let location = Location::parse(url, self.asker.cx.base_dir())?;
        let feed = Feed::new(location, Trust::Flow, self.asker.cx.base_dir());
        Ok(FeedAdapter { feed, asker: self.asker.clone(), known: Known::default() })
    }
}

/// One feed: RSS, Atom or JSON Feed. Fetched again, it gives nothing unless it has changed.
pub struct FeedAdapter {
    feed: Feed,
    asker: Asker,
    /// The version that was read to its end.
    known: Known,
}

impl fmt::Debug for FeedAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedAdapter").field("name", &self.feed.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl Adapter for FeedAdapter {
    fn name(&self) -> &str {
        &self.feed.name
    }

    /// An entry that is larger than one may be is an error behind all others.
    fn fetch(&mut self) -> BoxStream<'_, Result<Record>> {
        Box::pin(try_stream! {
            let cx = self.asker.cx.clone();
            let Some(mut document) = self.asker.ask(&self.feed, &self.known).await? else { return };
            let (facts, limits) = (Arc::new(document.facts.clone()), limits(&cx));
            let mut rejected = None;
            loop {
                let read = move || {
                    let page = document.next_page(limits);
                    (document, page)
                };
                let (back, page) = cx.tasks().compute(read).await?;
                document = back;
                for entry in page.entries {
                    yield Record::new(entry, Arc::clone(&facts));
                }
                rejected = rejected.or(page.rejects.into_iter().next());
                match page.end {
                    None => {}
                    Some(Ok(())) => break,
                    Some(Err(error)) => Err(error)?,
                }
            }
            if let Some(reject) = rejected {
                Err(reject.into_error())?;
            }
            self.known = document.known.clone();
        })
    }
}
