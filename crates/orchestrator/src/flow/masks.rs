//! Secret values, hidden by what they are wherever text goes out: logs, reports, errors, explanations.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::flow::node::{Entry, Kind, Node};

/// What is encoded in a URL's query: all but the unreserved characters (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What stands in the place of a secret.
pub(crate) const HIDDEN: &str = "***";

/// A value that only its key's name calls a secret is masked from so many characters on: masking every `1`
/// because of `page_token: 1` would hide the text and not the secret.
const MIN_GUESSED_CHARS: usize = 4;

/// Hides secret values in text. Cheap to clone; `Debug` shows none of them.
#[derive(Clone, Default)]
pub struct Masks {
    /// The longest first, so that a secret within another one leaves nothing of it.
    values: Arc<Vec<String>>,
}

impl Masks {
    /// The text with `***` in the place of every secret value.
    pub fn mask(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for value in self.values.iter() {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), HIDDEN);
            }
        }
        text
    }

    /// Hides what either hides.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.values.iter().chain(other.values.iter()).cloned().collect::<BTreeSet<_>>().into()
    }
}

impl From<BTreeSet<String>> for Masks {
    fn from(values: BTreeSet<String>) -> Self {
        let mut values: Vec<String> =
            values.into_iter().filter(|value| !value.is_empty() && value != HIDDEN).collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { values: Arc::new(values) }
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masks").field("n_values", &self.values.len()).finish()
    }
}

/// Whether a key or a variable of this name holds a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase().replace('-', "_");
    ["token", "password", "secret"].iter().any(|word| name.contains(word))
        || ["authorization", "api_key", "secret_access_key"].contains(&name.as_str())
}

/// Gathers what is secret while a file is filled in.
#[derive(Debug, Default)]
pub(crate) struct MaskBuilder {
    values: BTreeSet<String>,
}

impl MaskBuilder {
    /// The value of a `secrets:` entry: masked however short it is.
    pub(crate) fn declared(&mut self, value: &str) {
        self.add(value);
    }

    /// A value whose key or variable is called like a secret.
    pub(crate) fn guessed(&mut self, value: &str) {
        if value.chars().count() >= MIN_GUESSED_CHARS {
            self.add(value);
        }
    }

    /// A value, and how it looks within a URL and within JSON.
    fn add(&mut self, value: &str) {
        self.values.insert(value.to_owned());
        self.values.insert(utf8_percent_encode(value, ENCODED).to_string());
        let quoted = serde_json::Value::from(value).to_string();
        self.values.insert(quoted[1..quoted.len() - 1].to_owned());
    }

    /// All that stands under keys that are called like secrets, and user info in URLs.
    fn tree(&mut self, node: &Node) {
        for entry in node.entries() {
            self.entry(entry);
        }
        for item in node.items() {
            self.tree(item);
        }
        if let Kind::Text(text) = &node.kind {
            self.user_info(text);
        }
    }

    /// A key and all that stands under it.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        if is_secret_name(&entry.key) {
            self.all_scalars(&entry.value);
        }
        self.tree(&entry.value);
    }

    fn all_scalars(&mut self, node: &Node) {
        if let Some(text) = node.scalar_text() {
            self.guessed(&text);
            // `Bearer TOKEN`: the token alone may be told by somebody too.
            if let Some((scheme, credentials)) = text.split_once(' ')
                && ["bearer", "basic", "token"].contains(&scheme.to_lowercase().as_str())
            {
                self.guessed(credentials.trim());
            }
        }
        for below in node.items().iter().chain(node.entries().iter().map(|entry| &entry.value)) {
            self.all_scalars(below);
        }
    }

    fn user_info(&mut self, text: &str) {
        for (at, _) in text.match_indices("://") {
            let rest = &text[at + 3..];
            let authority = &rest[..rest.find(['/', '?', '#', ' ', '"']).unwrap_or(rest.len())];
            let Some((info, _)) = authority.rsplit_once('@') else { continue };
            if !info.contains("${") {
                self.guessed(info);
                self.guessed(info.split_once(':').map_or("", |(_, password)| password));
            }
        }
    }

    pub(crate) fn build(self) -> Masks {
        self.values.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::yaml;

    fn masks(text: &str) -> Masks {
        let mut builder = MaskBuilder::default();
        builder.tree(&yaml::parse(text).unwrap());
        builder.build()
    }

    #[test]
    fn values_under_secret_names_are_hidden_wherever_they_stand() {
        let masks = masks(
            "source: {x: {headers: {Authorization: Bearer abcd-1234, x-db-password: pw&word}, limit: 10}}",
        );
        assert_eq!(masks.mask("GET ?p=pw%26word with abcd-1234: 10"), "GET ?p=*** with ***: 10");
        assert_eq!(masks.mask("Bearer abcd-1234, pw&word"), "***, ***");
    }

    #[test]
    fn user_info_in_urls_is_hidden_and_short_guesses_are_not() {
        let masks = masks("{url: 'https://me:hunter2@host/a', page_token: 1}");
        assert_eq!(masks.mask("https://me:hunter2@host/a?1 hunter2"), "https://***@host/a?1 ***");
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", masks("api_key: secret-value")), "Masks { n_values: 1 }");
    }
}
