//! One feed: asked, taken in, read entry by entry.

use std::sync::Arc;

use aqueduct_core::{Context, Error, ErrorKind, Origin, Reject, RejectedItem, Result};
use aqueduct_formats::Compression;
use aqueduct_formats::feed::{self, Entry, FeedFacts, FeedReader};
use aqueduct_net::{ContentEncoding, Fetched, Fetcher, Known, Location, Meta};
use aqueduct_primitives::ByteCount;
use futures::StreamExt;

use super::list::Feed;
use super::memory::{Held, Room, SMALL_FEED_BYTES};

/// What is shown of a bad entry.
const SHOWN_BYTES: usize = 200;
/// Memory is taken in steps of at least so much.
const STEP_BYTES: usize = 1 << 20;

/// How feeds are asked. Cheap to clone.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) cx: Context,
    pub(super) fetcher: Fetcher,
    pub(super) room: Room,
}

/// A feed that has come.
pub(super) struct Document {
    reader: FeedReader,
    pub(super) facts: FeedFacts,
    /// The BLAKE3 of its text.
    pub(super) digest: String,
    /// What to ask with the next time.
    pub(super) known: Known,
    /// Entries that are behind, good and bad.
    n_behind: u64,
    _held: Held,
}

/// How much of a feed is read at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageLimits {
    pub(super) entries: usize,
    pub(super) bytes: usize,
    /// An entry with more is rejected.
    pub(super) largest: usize,
}

/// Entries of a feed, one after the other.
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// What is wrong between them.
    pub(super) rejects: Vec<Reject>,
    /// Entries that are behind with them, good and bad.
    pub(super) n_behind: u64,
    /// How the feed ends with them, if it does.
    pub(super) end: Option<Result<()>>,
}

/// How a file is packed beside what it is.
pub(super) fn packed_in(meta: &Meta) -> Option<Compression> {
    match meta.content_encoding? {
        ContentEncoding::Gzip => Some(Compression::Gzip),
        ContentEncoding::Zstd => Some(Compression::Zstd),
    }
}

impl Asker {
    /// Asks a feed; nothing comes if it is the version that is known.
    ///
    /// # Errors
    /// It cannot be fetched, is larger than it may be, or is no feed.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub(super) async fn ask(&self, feed: &Feed, known: &Known) -> Result<Option<Document>> {
        let mut held = self.room.enter(&self.cx).await?;
        let answer =
            self.fetcher.get_unless(known, &feed.location, feed.trust.clone(), self.cx.metrics()).await?;
        let Some(Fetched { meta, body }) = answer else { return Ok(None) };
        let captured_at = self.cx.clock().now();
        let pieces = feed::document_bytes(body, Arc::clone(&feed.name), packed_in(&meta), self.cx.tasks());
        let bytes = self.body(pieces, &mut held).await?;
        let content_type = meta.content_type.clone();
        if bytes.len() > SMALL_FEED_BYTES && !feed::is_text_already(&bytes, content_type.as_deref()) {
            // No encoding has characters that take more than three times as much.
            let text = ByteCount::of(bytes.len()).saturating_mul(3).min(self.room.max_feed);
            held.grow(text).await?;
        }
        let max_bytes = self.room.max_feed.as_usize();
        let known = meta.known();
        let base = match meta.location {
            Location::Http(url) => Some(url),
            _ => None,
        };
        let open = move || {
            let text = feed::document_text(bytes, content_type.as_deref(), max_bytes)?;
            let digest = blake3::hash(text.as_bytes()).to_hex()[..32].to_owned();
            Ok::<_, Error>((digest, FeedReader::open(text, base.as_ref())?))
        };
        let (digest, reader) = self.cx.tasks().compute(open).await??;
        let title = reader.title().map(str::to_owned);
        let facts = FeedFacts { url: feed.name.to_string(), title, captured_at };
        Ok(Some(Document { reader, facts, digest, known, n_behind: 0, _held: held }))
    }

    /// All bytes of a feed, each covered by what is held.
    async fn body(&self, mut pieces: aqueduct_core::ByteStream, held: &mut Held) -> Result<Vec<u8>> {
        let max_bytes = self.room.max_feed;
        let mut bytes: Vec<u8> = Vec::new();
        let mut covered = SMALL_FEED_BYTES;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            self.cx.metrics().bytes.add_len(piece.len());
            let n_bytes = bytes.len() + piece.len();
            if ByteCount::of(n_bytes) > max_bytes {
                let message = format!("the feed is larger than `max_record_bytes`, {max_bytes}");
                return Err(Error::new(ErrorKind::Limit, "read feed", message));
            }
            if n_bytes > covered {
                let most = max_bytes.as_usize().max(n_bytes);
                let step = (n_bytes + STEP_BYTES.max(n_bytes / 4)).min(most) - covered;
                held.grow(ByteCount::of(step)).await?;
                covered += step;
                bytes.reserve_exact(covered - bytes.len());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

impl Document {
    /// Passes over so many entries, that were given of the same version before.
    pub(super) fn skip(&mut self, n_entries: u64) {
        while self.n_behind < n_entries {
            match self.reader.next_entry() {
                Ok(Some(_)) => {}
                Err(error) if feed::is_about_one_entry(&error) => {}
                // The end, or what is wrong there, is met again.
                _ => return,
            }
            self.n_behind += 1;
        }
    }

    /// The next entries. Computes.
    pub(super) fn next_page(&mut self, limits: PageLimits) -> Page {
        let (mut entries, mut rejects, mut n_bytes) = (Vec::new(), Vec::new(), 0);
        let facts_bytes = self.facts.url.len() + self.facts.title.as_ref().map_or(0, String::len);
        let end = loop {
            if entries.len() + rejects.len() >= limits.entries || n_bytes >= limits.bytes {
                break None;
            }
            match self.reader.next_entry() {
                Ok(Some(entry)) if entry.n_bytes() + facts_bytes > limits.largest => {
                    let message = format!(
                        "the entry takes {} bytes, and there are {} for one; raise `memory`",
                        entry.n_bytes(),
                        limits.largest
                    );
                    rejects.push(self.reject("limit", message, &entry));
                }
                Ok(Some(entry)) => {
                    n_bytes += entry.n_bytes() + facts_bytes;
                    entries.push(entry);
                }
                Ok(None) => break Some(Ok(())),
                Err(error) if feed::is_about_one_entry(&error) => {
                    let reason = super::read::reason(error.kind());
                    rejects.push(self.reject(reason, error.chain(), &Entry::default()));
                }
                Err(error) => break Some(Err(error)),
            }
            self.n_behind += 1;
        };
        Page { entries, rejects, n_behind: self.n_behind, end }
    }

    fn reject(&self, reason: &'static str, message: String, entry: &Entry) -> Reject {
        let origin =
            Origin { file: self.facts.url.clone(), row: Some(self.n_behind + 1), ..Origin::default() };
        let shown = entry.id.as_deref().or(entry.title.as_deref()).unwrap_or_default();
        let raw = shown.as_bytes()[..shown.len().min(SHOWN_BYTES)].to_vec();
        Reject { item: RejectedItem::Row, reason, message, origin, raw }
    }
}
