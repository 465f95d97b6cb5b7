//! Parts of a representation and what names its version (RFC 9110, sections 8.8 and 14).

use std::time::Duration;

use aqueduct_core::Changed;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, header};

use crate::Validator;

/// Last-Modified names a version strongly when the answer is dated at least so much later: whoever changed
/// the file after we read it did so in a later second, by any clock that is not off by more than this
/// (RFC 9110, section 8.8.2.2).
const SAFE_AGE: Duration = Duration::from_secs(60);

/// What a version of a representation is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) etag: Option<String>,
    pub(crate) modified: Option<String>,
    modified_is_strong: bool,
}

impl Version {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let modified = text(headers, &header::LAST_MODIFIED);
        let age = date(headers, &header::DATE)
            .zip(date(headers, &header::LAST_MODIFIED))
            .and_then(|(answered, modified)| (answered - modified).to_std().ok());
        Self {
            etag: text(headers, &header::ETAG),
            modified,
            modified_is_strong: age.is_some_and(|age| age >= SAFE_AGE),
        }
    }

    /// What `If-Range` may carry: a strong ETag, or a date that is as good as one. Weak names never.
    pub(crate) fn strong(&self) -> Option<&str> {
        match &self.etag {
            Some(etag) => etag.starts_with('"').then_some(etag),
            None => self.modified.as_deref().filter(|_| self.modified_is_strong),
        }
    }

    /// Whether another answer names the same version. What only one of them says does not count against it:
    /// some servers leave Last-Modified out of parts, which the RFC allows beside an ETag.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let differ = |a: &Option<String>, b: &Option<String>| a.is_some() && b.is_some() && a != b;
        match (&self.etag, &other.etag) {
            (Some(mine), Some(others)) => mine == others,
            (Some(_), None) | (None, Some(_)) => false,
            (None, None) => !differ(&self.modified, &other.modified),
        }
    }

    /// This version, of a file of so many bytes, as a later process may compare it.
    pub(crate) fn validator(&self, n_total: u64) -> Validator {
        Validator::new(self.etag.as_deref(), self.modified.as_deref().and_then(instant), Some(n_total))
    }

    /// That a file of this version is of another now.
    pub(crate) fn became(&self, now: &Self) -> Changed {
        Changed { was: self.shown().to_owned(), is: now.shown().to_owned() }
    }

    /// How a person would tell it from another.
    pub(crate) fn shown(&self) -> &str {
        self.etag.as_deref().or(self.modified.as_deref()).unwrap_or("no name")
    }
}

/// Where a part lies: `bytes FIRST-LAST/TOTAL` (RFC 9110, section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) start: u64,
    /// One past the last byte.
    pub(crate) end: u64,
    pub(crate) total: Option<u64>,
}

impl ContentRange {
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(header::CONTENT_RANGE)?.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (start, end) = (digits(first)?, digits(last)?.checked_add(1)?);
        let total = if total == "*" { None } else { Some(digits(total)?) };
        (start < end && total.is_none_or(|total| end <= total)).then_some(Self { start, end, total })
    }
}

/// The total of an unsatisfied range, `bytes */TOTAL`.
pub(crate) fn unsatisfied_total(headers: &HeaderMap) -> Option<u64> {
    digits(headers.get(header::CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes */")?)
}

/// Whether the server says that it gives no parts.
pub(crate) fn refuses_ranges(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT_RANGES).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"none"))
}

/// The length of the body that the headers promise.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    digits(headers.get(header::CONTENT_LENGTH)?.to_str().ok()?)
}

/// The instant in a date header (RFC 9110, section 5.6.7).
pub(crate) fn date(headers: &HeaderMap, name: &HeaderName) -> Option<DateTime<Utc>> {
    instant(headers.get(name)?.to_str().ok()?)
}

fn instant(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text).ok().map(|date| date.with_timezone(&Utc))
}

/// The text of a header.
pub(crate) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Digits only: the parser of the standard library would take a plus sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(pairs: &[(HeaderName, &str)]) -> Version {
        Version::of(&pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect())
    }

    #[test]
    fn content_ranges_are_read_strictly() {
        let read = |text| ContentRange::parse(text);
        assert_eq!(read("bytes 5-9/10"), Some(ContentRange { start: 5, end: 10, total: Some(10) }));
        assert_eq!(read("bytes 0-0/*"), Some(ContentRange { start: 0, end: 1, total: None }));
        for wrong in
            ["bytes 9-5/10", "bytes 5-10/10", "bytes +5-9/10", "items 0-1/2", "bytes */10", "5-9/10", ""]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_strong_names_go_into_if_range() {
        assert_eq!(version(&[(header::ETAG, "\"a\"")]).strong(), Some("\"a\""));
        assert_eq!(version(&[(header::ETAG, "W/\"a\"")]).strong(), None);
        let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
        let dated = |date| version(&[(header::LAST_MODIFIED, modified), (header::DATE, date)]);
        assert_eq!(dated("Sun, 06 Nov 1994 08:50:37 GMT").strong(), Some(modified));
        assert_eq!(dated("Sun, 06 Nov 1994 08:50:36 GMT").strong(), None);
        assert_eq!(version(&[(header::LAST_MODIFIED, modified)]).strong(), None);
        assert_eq!(version(&[]).strong(), None);
    }

    #[test]
    fn an_etag_that_is_gone_is_another_version() {
        assert!(!version(&[(header::ETAG, "\"a\"")]).agrees(&version(&[])));
        assert!(version(&[]).agrees(&version(&[(header::LAST_MODIFIED, "today")])));
    }
}
