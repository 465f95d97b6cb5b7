//! Feeds: RSS 0.9x, 1.0 and 2.0, Atom 0.3 and 1.0, JSON Feed; and OPML lists of them.
//!
//! A [`FeedReader`] gives the entries of a document one at a time, in the document's order. Memory: the text of the document
//! and one entry, each with a bound of its own; what an entry does not keep is never copied. Time is linear in the bytes: no
//! depth, no number of attributes or namespaces and no length of a text makes it slower, because each has a bound, too.
//!
//! **Hostile documents.** Entities that a document type definition declares are never expanded and those outside the document
//! never read: their names stay as they are written. **Sloppy ones.** Names of characters that HTML has are known, an end tag
//! that ends nothing is passed over, and one that is missing is taken as said where an outer one ends. A document that is cut off
//! or no feed at all is an error; the entries before that come first.
//!
//! Sources: RSS 0.90 to 1.0 and 2.0.11, RFC 4287 (Atom), JSON Feed 1.1, OPML 2.0; modules Dublin Core, Content, iTunes, Media RSS
//! as far as they say what an [`Entry`] has.
//!
//! ```
//! use aqueduct_formats::feed::FeedReader;
//!
//! let text = "<rss version='2.0'><channel><title>News</title>
//!     <item><guid>a1</guid><title>One &amp; two</title><pubDate>Thu, 01 Jan 2026 10:00:00 GMT</pubDate></item>
//!     </channel></rss>";
//! let mut feed = FeedReader::open(text, None)?;
//! assert_eq!(feed.title(), Some("News"));
//! let entry = feed.next_entry()?.expect("an entry");
//! assert_eq!((entry.natural_key().as_str(), entry.title.as_deref()), ("a1", Some("One & two")));
//! assert!(feed.next_entry()?.is_none());
//! # Ok::<(), aqueduct_core::Error>(())
//! ```

mod body;
mod charset;
mod date;
mod entity;
mod entry;
mod json;
mod names;
mod opml;
mod rows;
mod scan;
mod xml;

#[cfg(test)]
mod tests;

use std::fmt::Display;

use aqueduct_core::{Error, ErrorKind, Result};
use url::Url;

pub use body::document_bytes;
pub use entry::Entry;
pub use opml::{OutlineLimits, outlines};
pub use rows::{FeedFacts, entries_schema, entry_records};

use self::json::JsonFeed;
use self::xml::XmlFeed;

/// Elements within each other, at most. With more, a document could make its reader hold as many. An entry that passes it is an
/// error of its own: those after it are read.
pub const MAX_DEPTH: usize = 128;
/// Attributes of one element, at most.
pub const MAX_ATTRIBUTES: usize = 256;
/// Namespaces that are declared at one place, at most: each name of an element is looked up among them.
pub const MAX_NAMESPACES: usize = 256;
/// Bytes that one entry keeps, at most, its texts and lists together. A larger one is an error of its own: those after it are
/// read.
pub const MAX_ENTRY_BYTES: usize = 4 << 20;
/// Entries of one document, at most.
pub const MAX_ENTRIES: u64 = 1_000_000;
/// Authors of an entry, at most, and categories; more are left out.
pub const MAX_LIST_ITEMS: usize = 1000;
/// A longer link or base of links is none.
pub const MAX_LINK_BYTES: usize = 16 << 10;
/// A longer title of a feed is cut: it stands in every row.
pub const MAX_FEED_TITLE_BYTES: usize = 4 << 10;

/// The text of a document that came as bytes, which follows from its byte order mark, the `charset` of its content type, or its
/// XML declaration, as browsers understand them. Bytes that are none in what was declared are read as windows-1252.
///
/// # Errors
/// [`ErrorKind::Limit`]: it is longer than `max_bytes`, in UTF-8.
pub fn document_text(bytes: Vec<u8>, content_type: Option<&str>, max_bytes: usize) -> Result<String> {
    charset::text(bytes, content_type, max_bytes).map_err(|charset::TooLong| {
        let message = format!("the text of the feed is longer than {max_bytes} bytes");
        Error::new(ErrorKind::Limit, "read feed", message)
    })
}

/// Whether [`document_text`] takes bytes as they are, so that it needs no memory beside theirs.
pub fn is_text_already(bytes: &[u8], content_type: Option<&str>) -> bool {
    charset::is_utf8(bytes, content_type)
}

/// The entries of a document, one at a time.
#[derive(Debug)]
pub struct FeedReader {
    kind: Kind,
    n_entries: u64,
}

#[derive(Debug)]
enum Kind {
    Xml(Box<XmlFeed>),
    Json(JsonFeed),
}

impl FeedReader {
    /// Reads a document up to its first entry. Links in it start from `base`, its own address, unless it says otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Data`]: it is no feed; [`ErrorKind::Limit`]: it passes a bound of this module.
    pub fn open(text: impl Into<String>, base: Option<&Url>) -> Result<Self> {
        let text: String = text.into();
        let kind = match text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']).as_bytes().first() {
            None => return Err(data("the document is empty; expected RSS, Atom or JSON Feed")),
            Some(b'{' | b'[') => Kind::Json(JsonFeed::open(text, base)?),
            Some(_) => Kind::Xml(Box::new(XmlFeed::open(text, base)?)),
        };
        Ok(Self { kind, n_entries: 0 })
    }

    /// What the feed is called.
    pub fn title(&self) -> Option<&str> {
        match &self.kind {
            Kind::Xml(feed) => feed.title(),
            Kind::Json(feed) => feed.title(),
        }
    }

    /// The next entry; nothing behind the last.
    ///
    /// # Errors
    /// [`ErrorKind::Data`]: the document is cut off or damaged here; [`ErrorKind::Limit`]: it passes a bound of this module.
    /// Where [`is_about_one_entry`] says so, the call may be made again, and goes on behind the entry.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.n_entries >= MAX_ENTRIES {
            return Err(limit("entries", format!("more than {MAX_ENTRIES} entries")));
        }
        self.n_entries += 1;
        match &mut self.kind {
            Kind::Xml(feed) => feed.next_entry(),
            Kind::Json(feed) => feed.next_entry(),
        }
    }
}

const ONE_ENTRY: &str = "read entry";
/// What the limit is of that elements within elements pass.
const DEPTH: &str = "depth";
/// Of a name that is shown in a message.
const MAX_SHOWN_BYTES: usize = 40;

/// Whether an error is about one entry alone, so that those behind it can be read.
pub fn is_about_one_entry(error: &Error) -> bool {
    error.operation() == ONE_ENTRY
}

fn data(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Data, "read feed", message)
}

fn limit(what: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Limit, "read feed", message).with("limit_of", what)
}

fn too_large() -> Error {
    let message = format!("an entry keeps more than {MAX_ENTRY_BYTES} bytes; it is left out");
    Error::new(ErrorKind::Limit, ONE_ENTRY, message)
}

fn too_deep() -> Error {
    let message = format!("in an entry elements lie more than {MAX_DEPTH} deep; it is left out");
    Error::new(ErrorKind::Limit, ONE_ENTRY, message)
}

/// Where a link leads: one that is whole stays as it is, others start from `base`.
fn link_from(link: &str, base: Option<&Url>) -> Option<String> {
    let link = link.trim();
    if link.is_empty() || link.len() > MAX_LINK_BYTES {
        return None;
    }
    match (Url::parse(link), base) {
        (Err(url::ParseError::RelativeUrlWithoutBase), Some(base)) => {
            let whole = base.join(link).map_or_else(|_| link.to_owned(), String::from);
            Some(whole).filter(|whole| whole.len() <= MAX_LINK_BYTES)
        }
        _ => Some(link.to_owned()),
    }
}

/// The name of an element as messages show it: short, and without what a terminal would take for a command.
fn shown(name: &str) -> impl Display {
    cut(name, MAX_SHOWN_BYTES).escape_debug()
}

/// A text of at most so many bytes, whole characters.
fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}
