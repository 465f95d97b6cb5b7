//! The markup of a document, piece by piece, within bounds.
//!
//! What is open at a place is held in a [`Place`], by which scanning goes on there later: nothing else is held between two
//! entries.

use std::borrow::Cow;
use std::ops::Range;

use aqueduct_core::{Error, Result};
use quick_xml::Reader;
use quick_xml::events::Event;
use quick_xml::events::attributes::Attributes;
use url::Url;

use super::names::{Space, of_namespace, of_prefix};
use super::{
    DEPTH, MAX_ATTRIBUTES, MAX_DEPTH, MAX_LINK_BYTES, MAX_NAMESPACES, data, entity, limit, link_from, shown,
};

/// A place in a document: what is behind, and which elements are open there.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Bytes that are behind.
    pub(super) at: usize,
    open: Vec<Open>,
    /// Whether the innermost element is an empty one, which ends here.
    is_empty_element: bool,
    namespaces: Vec<(String, Space)>,
    bases: Vec<Url>,
}

#[derive(Clone, Debug)]
struct Open {
    name: Range<usize>,
    n_namespaces_outside: usize,
    n_bases_outside: usize,
}

impl Place {
    /// The start of a document, whose links start from `base`.
    pub(super) fn start(base: Option<&Url>) -> Self {
        Self { bases: base.cloned().into_iter().collect(), ..Self::default() }
    }

    /// How many elements are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// Where links start from.
    pub(super) fn base(&self) -> Option<&Url> {
        self.bases.last()
    }

    /// The name of the innermost element, with its prefix.
    pub(super) fn innermost<'t>(&self, text: &'t str) -> &'t str {
        self.open.last().map_or("", |open| &text[open.name.clone()])
    }
}

/// A piece of a document.
#[derive(Debug)]
pub(super) enum Piece<'t> {
    /// An element begins.
    Start(Element<'t>),
    /// Elements have ended: [`Place::depth`] says which are open still. What was in the innermost one ends at this byte.
    End(usize),
    /// Characters.
    Text(&'t str),
    /// A reference, by what is between `&` and `;`.
    Reference(&'t str),
    /// The end of the document.
    Eof,
}

/// The start of an element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'t> {
    pub(super) space: Space,
    /// Without its prefix.
    pub(super) name: &'t str,
    tag: &'t str,
    n_name_bytes: usize,
}

impl<'t> Element<'t> {
    /// Whether it is called so, in upper or lower case.
    pub(super) fn is(&self, space: Space, name: &str) -> bool {
        self.space == space && self.name.eq_ignore_ascii_case(name)
    }

    /// Names and values of attributes, as they are written.
    fn written(&self) -> impl Iterator<Item = (&'t str, &'t str)> + use<'t> {
        let tag = self.tag;
        let mut attributes = Attributes::html(tag, self.n_name_bytes);
        attributes.with_checks(false);
        attributes.take(MAX_ATTRIBUTES).filter_map(Result::ok).filter_map(move |attribute| {
            let value = match &attribute.value {
                Cow::Borrowed(value) => within(tag, value)?,
                Cow::Owned(_) => return None,
            };
            Some((within(tag, attribute.key.into_inner())?, value))
        })
    }

    /// The value of an attribute, by its name with its prefix.
    pub(super) fn attribute(&self, name: &str) -> Option<Cow<'t, str>> {
        let (_, value) = self.written().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(entity::resolved(value))
    }
}

/// Goes through a document from a place on.
pub(super) struct Scan<'t, 'p> {
    text: &'t str,
    reader: Reader<&'t [u8]>,
    /// Where the reader began.
    origin: usize,
    /// Whether what begins too deep is passed over.
    is_leaving: bool,
    pub(super) place: &'p mut Place,
}

impl<'t, 'p> Scan<'t, 'p> {
    pub(super) fn new(text: &'t str, place: &'p mut Place) -> Self {
        // The reader drops a byte order mark where it begins, and does not count it.
        let rest = &text[place.at..];
        place.at += rest.len() - rest.trim_start_matches('\u{feff}').len();
        let origin = place.at;
        let mut reader = Reader::from_str(&text[origin..]);
        let config = reader.config_mut();
        config.allow_dangling_amp = true;
        config.allow_unmatched_ends = true;
        config.check_end_names = false;
        Self { text, reader, origin, is_leaving: false, place }
    }

    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// The next piece.
    ///
    /// # Errors
    /// The markup is damaged here, or passes a bound.
    pub(super) fn next(&mut self) -> Result<Piece<'t>> {
        if std::mem::take(&mut self.place.is_empty_element) {
            self.close(self.place.depth().saturating_sub(1));
            return Ok(Piece::End(self.place.at));
        }
        loop {
            let event = self.reader.read_event();
            self.place.at =
                self.origin + usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX);
            let event = event.map_err(|error| {
                data("the markup is damaged or cut off").with("byte", self.place.at).with_source(error)
            })?;
            match event {
                Event::Start(_) | Event::Empty(_) if self.is_leaving && self.place.depth() >= MAX_DEPTH => {}
                Event::Start(start) => {
                    let n_name_bytes = start.name().as_ref().len();
                    return self.start(self.slice(&start)?, n_name_bytes).map(Piece::Start);
                }
                Event::Empty(start) => {
                    let n_name_bytes = start.name().as_ref().len();
                    let element = self.start(self.slice(&start)?, n_name_bytes)?;
                    self.place.is_empty_element = true;
                    return Ok(Piece::Start(element));
                }
                Event::End(end) => {
                    let name = self.slice(&end)?;
                    if self.end(name) {
                        return Ok(Piece::End(self.offset(name).saturating_sub("</".len())));
                    }
                }
                Event::Text(text) => return Ok(Piece::Text(self.slice(&text)?)),
                Event::CData(text) => return Ok(Piece::Text(self.slice(&text)?)),
                Event::GeneralRef(name) => return Ok(Piece::Reference(self.slice(&name)?)),
                Event::Eof => return Ok(Piece::Eof),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
    }

    /// The same bytes, as a part of the text.
    fn slice(&self, bytes: &[u8]) -> Result<&'t str> {
        within(self.text, bytes).ok_or_else(|| Error::bug("read feed", "a piece of another text"))
    }

    fn offset(&self, part: &str) -> usize {
        part.as_ptr().addr().saturating_sub(self.text.as_ptr().addr())
    }

    fn start(&mut self, tag: &'t str, n_name_bytes: usize) -> Result<Element<'t>> {
        if self.place.depth() >= MAX_DEPTH {
            let message = format!("elements lie more than {MAX_DEPTH} deep");
            return Err(limit(DEPTH, message).with("byte", self.place.at));
        }
        let name = &tag[..n_name_bytes];
        let start = self.offset(name);
        let open = Open {
            name: start..start + name.len(),
            n_namespaces_outside: self.place.namespaces.len(),
            n_bases_outside: self.place.bases.len(),
        };
        self.place.open.push(open);
        let mut element = Element { space: Space::Other, name, tag, n_name_bytes };
        if tag.len() > n_name_bytes {
            self.look_at_attributes(&element)?;
        }
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        element.name = local;
        element.space = self.space(prefix);
        Ok(element)
    }

    /// Takes the namespace of an element for that of feeds, whatever it is called.
    pub(super) fn take_for_feed(&mut self, root: &Element<'t>) {
        if root.space == Space::Other {
            let prefix = root.tag[..root.n_name_bytes].split_once(':').map_or("", |(prefix, _)| prefix);
            self.place.namespaces.push((prefix.to_owned(), Space::Feed));
        }
    }

    fn look_at_attributes(&mut self, element: &Element<'t>) -> Result<()> {
        let (mut n_attributes, mut has_base) = (0, false);
        for (key, value) in element.written() {
            n_attributes += 1;
            if n_attributes == MAX_ATTRIBUTES {
                let message = format!("an element has {MAX_ATTRIBUTES} attributes or more");
                return Err(limit("attributes", message).with("byte", self.place.at));
            }
            if key == "xml:base" && value.len() <= MAX_LINK_BYTES && !std::mem::replace(&mut has_base, true) {
                let base = link_from(&entity::resolved(value), self.place.base());
                let base = base.and_then(|base| Url::parse(&base).ok());
                self.place.bases.extend(base.filter(|base| base.as_str().len() <= MAX_LINK_BYTES));
            }
            let Some(prefix) = key.strip_prefix("xmlns") else { continue };
            let prefix = match prefix.strip_prefix(':') {
                Some(prefix) => prefix,
                None if prefix.is_empty() => "",
                None => continue,
            };
            if self.place.namespaces.len() >= MAX_NAMESPACES {
                let message = format!("more than {MAX_NAMESPACES} namespaces at one place");
                return Err(limit("namespaces", message).with("byte", self.place.at));
            }
            self.place.namespaces.push((prefix.to_owned(), of_namespace(&entity::resolved(value))));
        }
        Ok(())
    }

    fn space(&self, prefix: &str) -> Space {
        let declared = self.place.namespaces.iter().rev().find(|(name, _)| name == prefix);
        declared.map_or_else(|| of_prefix(&prefix.to_ascii_lowercase()), |(_, space)| *space)
    }

    /// Ends the innermost element of this name, with all in it, if there is one.
    fn end(&mut self, name: &str) -> bool {
        let name = name.trim_ascii_end();
        let n_outside = self.place.open.iter().rposition(|open| self.text[open.name.clone()] == *name);
        n_outside.map(|n_outside| self.close(n_outside)).is_some()
    }

    /// Leaves only so many elements open.
    fn close(&mut self, n_outside: usize) {
        let Place { open, namespaces, bases, .. } = &mut *self.place;
        if let Some(closed) = open.get(n_outside) {
            namespaces.truncate(closed.n_namespaces_outside);
            bases.truncate(closed.n_bases_outside);
        }
        open.truncate(n_outside);
    }

    /// Passes over the element that began last, with all in it. Where its inside ends.
    ///
    /// # Errors
    /// As [`Scan::next`]; the document ends before it does.
    pub(super) fn skip(&mut self) -> Result<usize> {
        let depth = self.place.depth();
        loop {
            match self.next()? {
                Piece::End(at) if self.place.depth() < depth => return Ok(at),
                Piece::Eof => return Err(self.cut_off()),
                _ => {}
            }
        }
    }

    /// Passes over what is left of the element of this depth, however deep it goes: what begins too deep is not looked at.
    /// Does nothing where that has ended.
    ///
    /// # Errors
    /// As [`Scan::skip`], but for the depth.
    pub(super) fn leave(&mut self, depth: usize) -> Result<()> {
        self.is_leaving = true;
        while self.place.depth() >= depth {
            if matches!(self.next()?, Piece::Eof) {
                return Err(self.cut_off());
            }
        }
        self.is_leaving = false;
        Ok(())
    }

    pub(super) fn cut_off(&self) -> Error {
        let name = shown(self.place.innermost(self.text));
        data(format!("the document ends within <{name}>: it is cut off")).with("byte", self.place.at)
    }
}

/// Bytes as a part of the text that they lie in.
fn within<'t>(text: &'t str, bytes: &[u8]) -> Option<&'t str> {
    let start = bytes.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    text.get(start..start.checked_add(bytes.len())?)
}
