//! RSS and Atom: which elements say what about a feed and its entries.
//!
//! Feeds mix the vocabularies, so all versions are read by one table: what an element means follows from its name and
//! namespace, not from the root.

use aqueduct_core::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use super::entry::filled;
use super::names::Space;
use super::scan::{Element, Piece, Place, Scan};
use super::{
    DEPTH, Entry, MAX_ENTRY_BYTES, MAX_FEED_TITLE_BYTES, cut, data, entity, link_from, shown, too_deep,
    too_large,
};

/// A document of RSS or Atom.
#[derive(Debug)]
pub(super) struct XmlFeed {
    text: String,
    place: Place,
    title: Option<String>,
    next: Next,
}

/// What comes next in a document.
#[derive(Debug)]
enum Next {
    /// Something that is no entry.
    Other,
    /// The inside of an entry, whose element is named by this.
    Entry { about: Option<String> },
    /// Nothing of the feed.
    Nothing,
}

impl XmlFeed {
    pub(super) fn open(text: String, base: Option<&Url>) -> Result<Self> {
        let mut feed = Self { text, place: Place::start(base), title: None, next: Next::Other };
        feed.begin()?;
        if feed.title.is_none() && matches!(feed.next, Next::Entry { .. }) {
            feed.title = feed.title_behind();
        }
        Ok(feed)
    }

    pub(super) fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut scan = Scan::new(&self.text, &mut self.place);
        if matches!(self.next, Next::Other) {
            self.next = to_entry(&mut scan, &mut self.title)?;
        }
        match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Entry { about } => {
                let depth = scan.place.depth();
                let entry = EntryScan::new(&mut scan, about).read();
                self.next = Next::Other;
                match entry {
                    // Tags that are never closed, as `<br>`, lie within each other.
                    Err(error) if error.context("limit_of") == Some(DEPTH) && scan.leave(depth).is_ok() => {
                        Err(too_deep())
                    }
                    entry => entry.map(Some),
                }
            }
            Next::Other | Next::Nothing => Ok(None),
        }
    }

    /// Goes to the first entry.
    fn begin(&mut self) -> Result<()> {
        let mut scan = Scan::new(&self.text, &mut self.place);
        loop {
            match scan.next()? {
                Piece::Start(root) if is_root(&root) => {
                    scan.take_for_feed(&root);
                    break;
                }
                Piece::Start(root) => {
                    let message = format!(
                        "it is no feed: its outermost element is <{}>; expected rss, rdf:RDF or feed",
                        shown(root.name)
                    );
                    return Err(data(message));
                }
                Piece::Eof => {
                    return Err(data("it is no feed: there is no element in it; expected RSS or Atom"));
                }
                _ => {}
            }
        }
        // What is wrong behind the head is told when it is met.
        self.next = to_entry(&mut scan, &mut self.title)?;
        Ok(())
    }

    /// The title of a feed that tells it behind its entries.
    fn title_behind(&self) -> Option<String> {
        let (mut place, mut title) = (self.place.clone(), None);
        let mut scan = Scan::new(&self.text, &mut place);
        while title.is_none() {
            scan.leave(scan.place.depth()).ok()?;
            if !matches!(to_entry(&mut scan, &mut title), Ok(Next::Entry { .. })) {
                break;
            }
        }
        title
    }
}

fn is_root(element: &Element<'_>) -> bool {
    let is_feed = |name| element.name.eq_ignore_ascii_case(name);
    match element.space {
        Space::Rdf => is_feed("RDF"),
        Space::Feed | Space::Other => ["rss", "feed", "channel", "rdf"].into_iter().any(is_feed),
        _ => false,
    }
}

fn is_entry(element: &Element<'_>) -> bool {
    element.is(Space::Feed, "item") || element.is(Space::Feed, "entry")
}

/// Goes behind the start tag of the next entry, and takes in the title of the feed on the way.
fn to_entry(scan: &mut Scan<'_, '_>, title: &mut Option<String>) -> Result<Next> {
    let mut second = None;
    // What ends the root may be the end of something within it.
    while scan.place.depth() > 0 {
        let parent = scan.place.innermost(scan.text());
        let is_in_feed = ["channel", "feed"].iter().any(|name| is_called(parent, name));
        match scan.next()? {
            Piece::Start(element) if is_entry(&element) => {
                let about = element.attribute("rdf:about").and_then(|about| filled(&about));
                *title = title.take().or(second);
                return Ok(Next::Entry { about });
            }
            Piece::Start(element) if element.is(Space::Feed, "title") && is_in_feed && title.is_none() => {
                *title = title_in(scan, &element)?;
            }
            Piece::Start(element) if element.is(Space::Dc, "title") && is_in_feed && second.is_none() => {
                second = title_in(scan, &element)?;
            }
            Piece::Start(element) if passes_over(&element) => scan.leave(scan.place.depth())?,
            Piece::Eof => return Err(scan.cut_off()),
            _ => {}
        }
    }
    *title = title.take().or(second);
    Ok(Next::Nothing)
}

/// The title that the element says which began last.
fn title_in(scan: &mut Scan<'_, '_>, element: &Element<'_>) -> Result<Option<String>> {
    let told = Inner::of(scan, element, MAX_ENTRY_BYTES)?.decoded(element);
    Ok(filled(cut(&told, MAX_FEED_TITLE_BYTES)))
}

fn is_url(id: &str) -> bool {
    id.starts_with("http://") || id.starts_with("https://")
}

fn is_called(tag: &str, name: &str) -> bool {
    tag.rsplit(':').next().is_some_and(|local| local.eq_ignore_ascii_case(name))
}

/// Whether an element of a feed has nothing in it that is the feed's or an entry's.
fn passes_over(element: &Element<'_>) -> bool {
    ["image", "textinput", "author", "content", "description"]
        .iter()
        .any(|name| element.is(Space::Feed, name))
}

/// What is in an element.
struct Inner {
    /// Its characters; with markup in it, all of it as it is written.
    told: String,
    has_markup: bool,
}

impl Inner {
    /// What is in the element that began last, up to so many bytes: of more, nothing.
    fn of(scan: &mut Scan<'_, '_>, element: &Element<'_>, max_bytes: usize) -> Result<Self> {
        let (from, depth) = (scan.place.at, scan.place.depth());
        let (mut told, mut has_markup) = (String::new(), false);
        let to = loop {
            match scan.next()? {
                Piece::Start(_) => has_markup = true,
                Piece::End(at) if scan.place.depth() < depth => break at,
                Piece::End(_) => {}
                Piece::Text(text) if !has_markup && told.len() <= max_bytes => told.push_str(text),
                Piece::Reference(name) if !has_markup && told.len() <= max_bytes => {
                    entity::push(&mut told, name)
                }
                Piece::Text(_) | Piece::Reference(_) => {}
                Piece::Eof => return Err(scan.cut_off()),
            }
        };
        if has_markup {
            let written = scan.text().get(from..to).unwrap_or_default();
            if written.len() > max_bytes {
                return Err(too_large());
            }
            told = without_div(element, written).to_owned();
        }
        if told.len() > max_bytes {
            return Err(too_large());
        }
        Ok(Self { told, has_markup })
    }

    /// In Atom, what is no text may be in base64.
    fn decoded(self, element: &Element<'_>) -> String {
        if self.has_markup || !is_base64(element) {
            return self.told;
        }
        let letters: String = self.told.split_ascii_whitespace().collect();
        match STANDARD.decode(letters) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => self.told,
        }
    }
}

/// Whether an element of Atom holds what is no text (RFC 4287, section 4.1.3.3; in Atom 0.3 it says so).
fn is_base64(element: &Element<'_>) -> bool {
    if let Some(mode) = element.attribute("mode") {
        return mode.eq_ignore_ascii_case("base64");
    }
    let kind = element.attribute("type").unwrap_or_default().to_ascii_lowercase();
    kind.contains('/') && !kind.starts_with("text/") && !kind.contains("xml") && !kind.contains("html")
}

/// What XHTML says within the `div` that Atom has around it (RFC 4287, section 3.1.1.3).
fn without_div<'t>(element: &Element<'_>, written: &'t str) -> &'t str {
    let trimmed = written.trim();
    let is_xhtml = element.attribute("type").is_some_and(|kind| kind.to_ascii_lowercase().contains("xhtml"));
    let inside = || {
        let name = trimmed.strip_prefix('<')?.split([' ', '\t', '\r', '\n', '>', '/']).next()?;
        let (start, inside) = trimmed.split_once('>')?;
        let inside = inside.strip_suffix('>')?.strip_suffix(name)?.strip_suffix("</")?;
        (is_called(name, "div") && !start.ends_with('/')).then_some(inside.trim())
    };
    if is_xhtml { inside().unwrap_or(trimmed) } else { trimmed }
}

/// Reads the entry whose start tag is right behind.
struct EntryScan<'s, 't, 'p> {
    scan: &'s mut Scan<'t, 'p>,
    entry: Entry,
    /// What takes the place of what is missing in the end.
    second: Entry,
    /// What the element of the entry itself is named by.
    about: Option<String>,
    is_too_large: bool,
}

impl<'s, 't, 'p> EntryScan<'s, 't, 'p> {
    fn new(scan: &'s mut Scan<'t, 'p>, about: Option<String>) -> Self {
        let (entry, second) = Default::default();
        Self { scan, entry, second, about, is_too_large: false }
    }

    fn read(mut self) -> Result<Entry> {
        let depth = self.scan.place.depth();
        while self.scan.place.depth() >= depth {
            match self.scan.next()? {
                Piece::Start(element) => self.take(&element)?,
                Piece::Eof => return Err(self.scan.cut_off()),
                _ => {}
            }
        }
        let Self { mut entry, second, about, .. } = self;
        entry.id = entry.id.or(second.id).or(about);
        entry.title = entry.title.or(second.title);
        entry.link = entry.link.or(second.link);
        entry.summary = entry.summary.or(second.summary);
        entry.content = entry.content.or(second.content);
        if self.is_too_large || entry.is_too_large() {
            return Err(too_large());
        }
        Ok(entry)
    }

    /// Takes in what an element of the entry says.
    fn take(&mut self, element: &Element<'t>) -> Result<()> {
        let name = element.name.to_ascii_lowercase();
        match (element.space, &name[..]) {
            (Space::Feed, "title") => self.text(element, |entry| &mut entry.title),
            (Space::Dc, "title") | (Space::Itunes | Space::Media, "title") => {
                self.second_text(element, |entry| &mut entry.title)
            }
            (Space::Feed, "guid") => self.guid(element),
            (Space::Feed, "id") => self.id(element),
            (Space::Dc, "identifier") => self.second_text(element, |entry| &mut entry.id),
            (Space::Feed, "link") => self.link(element),
            (Space::Feed, "description" | "summary") => self.text(element, |entry| &mut entry.summary),
            (Space::Dc, "description")
            | (Space::Itunes, "summary" | "subtitle")
            | (Space::Media, "description")
            | (Space::DcTerms, "abstract") => self.second_text(element, |entry| &mut entry.summary),
            (Space::Feed, "content") | (Space::Content, "encoded") => {
                self.text(element, |entry| &mut entry.content)
            }
            (Space::Other, "body") => self.second_text(element, |entry| &mut entry.content),
            (Space::Feed, "author" | "contributor") | (Space::Dc, "creator") | (Space::Itunes, "author") => {
                self.author(&name)
            }
            (Space::Feed, "category") | (Space::Dc, "subject") => self.category(element),
            (Space::Feed, "pubdate" | "published" | "issued" | "created")
            | (Space::Dc, "date")
            | (Space::DcTerms, "issued" | "created" | "date") => self.time(element, Entry::publish),
            (Space::Feed, "updated" | "modified" | "lastbuilddate") | (Space::DcTerms, "modified") => {
                self.time(element, Entry::update)
            }
            // What they have within them is said of the entry.
            (Space::Media, "group" | "content") | (Space::Feed, "enclosure") => Ok(()),
            _ => self.scan.skip().map(drop),
        }
    }

    /// What is in the element; nothing, where the entry has become too large.
    fn inner(&mut self, element: &Element<'t>) -> Result<Option<String>> {
        let left = MAX_ENTRY_BYTES.saturating_sub(self.entry.n_bytes() + self.second.n_bytes());
        match Inner::of(self.scan, element, left) {
            Ok(inner) => Ok(filled(&inner.decoded(element))),
            Err(error) if super::is_about_one_entry(&error) => {
                self.is_too_large = true;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A text of which the first counts.
    fn text(&mut self, element: &Element<'t>, of: fn(&mut Entry) -> &mut Option<String>) -> Result<()> {
        let told = self.inner(element)?;
        let place = of(&mut self.entry);
        *place = place.take().or(told);
        Ok(())
    }

    fn second_text(
        &mut self,
        element: &Element<'t>,
        of: fn(&mut Entry) -> &mut Option<String>,
    ) -> Result<()> {
        let told = self.inner(element)?;
        let place = of(&mut self.second);
        *place = place.take().or(told);
        Ok(())
    }

    /// An id of Atom may be a link, too.
    fn id(&mut self, element: &Element<'t>) -> Result<()> {
        let Some(id) = self.inner(element)? else { return Ok(()) };
        if is_url(&id) {
            self.second.link.get_or_insert_with(|| id.clone());
        }
        self.entry.id.get_or_insert(id);
        Ok(())
    }

    /// An id of RSS is a link, too, unless it says that it is none.
    fn guid(&mut self, element: &Element<'t>) -> Result<()> {
        let is_link = element.attribute("isPermaLink").is_none_or(|is_link| is_link.trim() != "false");
        let Some(id) = self.inner(element)? else { return Ok(()) };
        if is_link && is_url(&id) {
            self.second.link.get_or_insert_with(|| id.clone());
        }
        self.entry.id.get_or_insert(id);
        Ok(())
    }

    /// Of several links of Atom the first that leads to the entry itself counts.
    fn link(&mut self, element: &Element<'t>) -> Result<()> {
        let base = self.scan.place.base().cloned();
        let link = match element.attribute("href") {
            Some(href) => {
                let rel = element.attribute("rel");
                let is_itself = rel.is_none_or(|rel| {
                    let rel = rel.trim();
                    rel.is_empty() || rel.eq_ignore_ascii_case("alternate")
                });
                self.scan.skip()?;
                is_itself.then_some(href.into_owned())
            }
            None => self.inner(element)?,
        };
        let link = link.and_then(|link| link_from(&link, base.as_ref()));
        self.entry.link = self.entry.link.take().or(link);
        Ok(())
    }

    /// A person of Atom has a name, an address of mail, or a page; of RSS, a text.
    fn author(&mut self, name: &str) -> Result<()> {
        let depth = self.scan.place.depth();
        let (mut plain, mut person) = (String::new(), Person::default());
        while self.scan.place.depth() >= depth {
            match self.scan.next()? {
                Piece::Start(part) => {
                    let told = self.inner(&part)?;
                    person.take(part.name, told);
                }
                Piece::End(_) => {}
                Piece::Text(text) if plain.len() <= super::MAX_LINK_BYTES => plain.push_str(text),
                Piece::Reference(name) if plain.len() <= super::MAX_LINK_BYTES => {
                    entity::push(&mut plain, name)
                }
                Piece::Text(_) | Piece::Reference(_) => {}
                Piece::Eof => return Err(self.scan.cut_off()),
            }
        }
        if name != "contributor" {
            let told = person.told().or_else(|| filled(&plain)).unwrap_or_default();
            self.entry.add_author(cut(&told, super::MAX_LINK_BYTES));
        }
        Ok(())
    }

    fn category(&mut self, element: &Element<'t>) -> Result<()> {
        let term = element.attribute("term");
        let told = self.inner(element)?;
        let told = term.as_deref().and_then(filled).or(told).unwrap_or_default();
        self.entry.add_category(cut(&told, super::MAX_LINK_BYTES));
        Ok(())
    }

    fn time(&mut self, element: &Element<'t>, take: fn(&mut Entry, &str)) -> Result<()> {
        if let Some(told) = self.inner(element)? {
            take(&mut self.entry, &told);
        }
        Ok(())
    }
}

/// Who wrote an entry of Atom.
#[derive(Default)]
struct Person {
    name: Option<String>,
    email: Option<String>,
    page: Option<String>,
}

impl Person {
    fn take(&mut self, part: &str, told: Option<String>) {
        let place = match &part.to_ascii_lowercase()[..] {
            "name" => &mut self.name,
            "email" => &mut self.email,
            "uri" | "url" | "homepage" => &mut self.page,
            _ => return,
        };
        *place = place.take().or(told);
    }

    fn told(self) -> Option<String> {
        self.name.or(self.email).or(self.page)
    }
}
