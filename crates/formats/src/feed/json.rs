//! JSON Feed 1.0 and 1.1 (<https://www.jsonfeed.org/version/1.1/>).

use std::borrow::Cow;
use std::fmt;

use aqueduct_core::{Error, ErrorKind, Result};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use url::Url;

use super::entry::filled;
use super::{
    Entry, MAX_ENTRY_BYTES, MAX_FEED_TITLE_BYTES, MAX_LIST_ITEMS, ONE_ENTRY, cut, data, link_from, too_large,
};

/// A document of JSON Feed.
#[derive(Debug)]
pub(super) struct JsonFeed {
    text: String,
    base: Option<Url>,
    title: Option<String>,
    /// Where the next item, or a comma before it, is looked for; nothing behind the last.
    at: Option<usize>,
}

#[derive(Deserialize)]
struct Document<'t> {
    #[serde(default)]
    version: Text,
    #[serde(default)]
    title: Text,
    #[serde(borrow)]
    items: Option<&'t RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    id: Text,
    url: Text,
    external_url: Text,
    title: Text,
    summary: Text,
    content_html: Text,
    content_text: Text,
    date_published: Text,
    date_modified: Text,
    author: Names,
    authors: Names,
    tags: Names,
}

impl JsonFeed {
    pub(super) fn open(text: String, base: Option<&Url>) -> Result<Self> {
        let head = text.trim_start_matches('\u{feff}');
        let document: Document<'_> = serde_json::from_str(head)
            .map_err(|error| data("it is no JSON object of a JSON Feed, or is cut off").with_source(error))?;
        let is_told = document.version.0.as_deref().is_some_and(|version| version.contains("jsonfeed.org"));
        let at = match document.items.map(RawValue::get) {
            Some(items) if items.starts_with('[') => Some(items.as_ptr().addr() - text.as_ptr().addr() + 1),
            None if is_told => None,
            _ => return Err(data("it is no feed: a JSON object without a list `items`; expected JSON Feed")),
        };
        let title = document.title.0.as_deref().and_then(|title| filled(cut(title, MAX_FEED_TITLE_BYTES)));
        Ok(Self { base: base.cloned(), title, at, text })
    }

    pub(super) fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>> {
        let Some(written) = self.next_item()? else { return Ok(None) };
        // References to characters only make it shorter.
        if written.len() > MAX_ENTRY_BYTES.saturating_mul(2) {
            return Err(too_large());
        }
        let item: Item = serde_json::from_str(written).map_err(|error| {
            Error::new(ErrorKind::Data, ONE_ENTRY, "an item is no object of JSON Feed").with_source(error)
        })?;
        let entry = item.entry(self.base.as_ref());
        if entry.is_too_large() { Err(too_large()) } else { Ok(Some(entry)) }
    }

    /// The next item, as it is written.
    fn next_item(&mut self) -> Result<Option<&str>> {
        let Some(at) = self.at.take() else { return Ok(None) };
        let rest = &self.text[at..];
        let start = at + rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n', ',']).len();
        if self.text[start..].starts_with(']') {
            return Ok(None);
        }
        let mut values = serde_json::Deserializer::from_str(&self.text[start..]).into_iter::<&RawValue>();
        let item = values.next().transpose();
        let item = item.map_err(|error| data("an item is damaged").with("byte", start).with_source(error))?;
        self.at = Some(start + values.byte_offset());
        Ok(item.map(RawValue::get))
    }
}

impl Item {
    fn entry(self, base: Option<&Url>) -> Entry {
        let link = self.url.filled().or_else(|| self.external_url.filled());
        let mut entry = Entry {
            id: self.id.filled(),
            title: self.title.filled(),
            link: link.and_then(|link| link_from(&link, base)),
            summary: self.summary.filled(),
            content: self.content_html.filled().or_else(|| self.content_text.filled()),
            ..Entry::default()
        };
        entry.publish(self.date_published.0.as_deref().unwrap_or_default());
        entry.update(self.date_modified.0.as_deref().unwrap_or_default());
        // Version 1.0 has one author.
        let authors = if self.authors.names.is_empty() { &self.author } else { &self.authors };
        authors.names.iter().for_each(|name| entry.add_author(name));
        self.tags.names.iter().for_each(|name| entry.add_category(name));
        entry
    }
}

/// A text, or a number where there should be one; anything else is nothing.
#[derive(Debug, Default)]
struct Text(Option<String>);

impl Text {
    fn filled(&self) -> Option<String> {
        self.0.as_deref().and_then(filled)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Names { mut names, is_one } = Names::deserialize(from)?;
        Ok(Self(names.pop().filter(|_| is_one)))
    }
}

/// Names in whatever way they are told: one text, an object with a `name`, a list of either.
#[derive(Debug, Default)]
struct Names {
    names: Vec<String>,
    is_one: bool,
}

impl Names {
    fn one(name: impl ToString) -> Self {
        Self { names: vec![name.to_string()], is_one: true }
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Names, E> {
        Ok(Names::one(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Names, E> {
        Ok(Names::one(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Names, E> {
        Ok(Names::one(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Names, E> {
        Ok(Names::one(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Names, E> {
        Ok(Names::default())
    }

    fn visit_unit<E>(self) -> Result<Names, E> {
        Ok(Names::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
        let mut all = Names::default();
        while all.names.len() < MAX_LIST_ITEMS {
            let Some(one) = list.next_element::<Names>()? else { return Ok(all) };
            all.names.extend(one.names);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut person: A) -> Result<Names, A::Error> {
        let (mut name, mut page) = (None, None);
        while let Some(key) = person.next_key::<Cow<'de, str>>()? {
            match &key[..] {
                "name" => name = person.next_value::<Text>()?.filled(),
                "url" => page = person.next_value::<Text>()?.filled(),
                _ => {
                    person.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Names { names: name.or(page).into_iter().collect(), is_one: false })
    }
}
