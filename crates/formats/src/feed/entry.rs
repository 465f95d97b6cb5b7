//! What is known of one entry.

use chrono::{DateTime, Utc};

use super::{MAX_ENTRY_BYTES, MAX_LIST_ITEMS, date};

/// An entry of a feed, as the feed tells it: texts are trimmed, references to characters resolved, and markup is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its `guid` (RSS), `id` (Atom, JSON Feed), `dc:identifier` or `rdf:about` (RSS 1.0), as it is written.
    pub id: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// Where it leads, as a whole URL where that can be told.
    pub link: Option<String>,
    /// What it is about: `description` (RSS), `summary`.
    pub summary: Option<String>,
    /// All of it: `content:encoded` (RSS), `content`, `content_html` or `content_text` (JSON Feed).
    pub content: Option<String>,
    /// Names, or addresses, of who wrote it, each once.
    pub authors: Vec<String>,
    /// What it is filed under, each once.
    pub categories: Vec<String>,
    /// When it came out.
    pub published: Option<DateTime<Utc>>,
    /// When it was changed last.
    pub updated: Option<DateTime<Utc>>,
    /// A time that it names and that is none, as it is written.
    pub bad_date: Option<String>,
    /// The first time that it names, as it is written: part of what an entry without an id is known by.
    pub date_text: Option<String>,
}

impl Entry {
    /// What the entry is known by, in all feeds and for good: its id, trimmed and in lower case. If it has none, a hash of its
    /// link, title and date; where it has neither link nor title, its text takes their place.
    ///
    /// ```
    /// use aqueduct_formats::feed::Entry;
    /// let with_id = Entry { id: Some(" Tag:Host,2026:1 ".into()), ..Entry::default() };
    /// assert_eq!(with_id.natural_key(), "tag:host,2026:1");
    /// let without = Entry { title: Some("One".into()), ..Entry::default() };
    /// assert_eq!(without.natural_key(), without.clone().natural_key());
    /// assert_ne!(without.natural_key(), Entry::default().natural_key());
    /// ```
    pub fn natural_key(&self) -> String {
        let id = self.id.as_deref().unwrap_or_default().trim();
        if !id.is_empty() {
            return id.to_lowercase();
        }
        let text = match (&self.link, &self.title) {
            (None, None) => self.summary.as_deref().or(self.content.as_deref()),
            _ => None,
        };
        let mut hash = blake3::Hasher::new();
        for part in [self.link.as_deref(), self.title.as_deref(), self.date_text.as_deref(), text] {
            // What is missing hashes as no text does.
            hash.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            hash.update(part.unwrap_or_default().as_bytes());
        }
        let hash = hash.finalize().to_hex();
        format!("hash:{}", &hash[..32])
    }

    /// Bytes of its texts.
    pub fn n_bytes(&self) -> usize {
        let texts = [&self.id, &self.title, &self.link, &self.summary, &self.content];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        texts + self.authors.iter().chain(&self.categories).map(String::len).sum::<usize>()
    }

    pub(super) fn publish(&mut self, text: &str) {
        let at = self.time(text);
        self.published = self.published.or(at);
    }

    pub(super) fn update(&mut self, text: &str) {
        let at = self.time(text);
        self.updated = self.updated.or(at);
    }

    fn time(&mut self, text: &str) -> Option<DateTime<Utc>> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        self.date_text.get_or_insert_with(|| super::cut(text, 200).to_owned());
        let at = date::instant(text);
        if at.is_none() {
            self.bad_date.get_or_insert_with(|| super::cut(text, 200).to_owned());
        }
        at
    }

    pub(super) fn add_author(&mut self, name: &str) {
        add(&mut self.authors, name);
    }

    pub(super) fn add_category(&mut self, name: &str) {
        add(&mut self.categories, name);
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.n_bytes() > MAX_ENTRY_BYTES
    }
}

fn add(list: &mut Vec<String>, name: &str) {
    let name = name.trim();
    if !name.is_empty() && list.len() < MAX_LIST_ITEMS && !list.iter().any(|known| known == name) {
        list.push(name.to_owned());
    }
}

/// A text without white space around it; nothing, if nothing else is in it.
pub(super) fn filled(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
