//! What tells one version of a file from another, also to a later process.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// A longer ETag is kept as its hash: what is kept for each file must stay small, whatever a server says.
const MAX_ETAG_BYTES: usize = 128;

/// What a place says about the version of a file: the ETag of a URL or an object, else when it was changed last and how
/// long it is. May be kept, and compared with what another process sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validator {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n_bytes: Option<u64>,
}

impl Validator {
    pub(crate) fn new(etag: Option<&str>, modified: Option<DateTime<Utc>>, n_bytes: Option<u64>) -> Self {
        let modified = modified.map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        Self { etag: etag.map(short), modified, n_bytes }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A name for the version, the same wherever the same is known: the ETag, else when it was changed and how long it is. A
    /// length alone is none: another version may have it, too.
    pub fn name(&self) -> Option<String> {
        if let Some(etag) = &self.etag {
            return Some(format!("etag {}", opaque(etag)));
        }
        let n_bytes = self.n_bytes.map(|n_bytes| n_bytes.to_string()).unwrap_or_default();
        self.modified.as_ref().map(|modified| format!("changed {modified}, bytes {n_bytes}"))
    }

    /// The ETag that promises the same bytes wherever it is the same at one place (RFC 9110, section 8.8.1), if there is one.
    pub fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/"))
    }

    /// Whether a file of which this was known has become another. ETags decide where both have one, weak ones too
    /// (RFC 9110, section 8.8.3.2); else the time of the last change and the length. A version that had a name and
    /// cannot be recognised any more is another; where no more than a length was ever known, only another length is.
    pub fn has_become_another(&self, now: &Self) -> bool {
        if let (Some(was), Some(is)) = (&self.etag, &now.etag) {
            return opaque(was) != opaque(is);
        }
        if differ(&self.n_bytes, &now.n_bytes) || differ(&self.modified, &now.modified) {
            return true;
        }
        let had_name = self.etag.is_some() || self.modified.is_some();
        let is_recognised = self.modified.is_some() && now.modified.is_some();
        had_name && !is_recognised
    }
}

impl fmt::Display for Validator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let etag = self.etag.as_ref().map(|etag| format!("ETag {etag}"));
        let modified = self.modified.as_ref().map(|at| format!("changed {at}"));
        let n_bytes = self.n_bytes.map(|n_bytes| format!("{n_bytes} bytes"));
        let known: Vec<String> = [etag, modified, n_bytes].into_iter().flatten().collect();
        if known.is_empty() { f.write_str("unknown") } else { f.write_str(&known.join(", ")) }
    }
}

fn short(etag: &str) -> String {
    if etag.len() <= MAX_ETAG_BYTES {
        return etag.to_owned();
    }
    let weak = if etag.starts_with("W/") { "W/" } else { "" };
    format!("{weak}\"blake3-{}\"", blake3::hash(opaque(etag).as_bytes()).to_hex())
}

fn opaque(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

fn differ<T: PartialEq>(was: &Option<T>, is: &Option<T>) -> bool {
    was.as_ref().zip(is.as_ref()).is_some_and(|(was, is)| was != is)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(etag: Option<&str>, second: Option<i64>, n_bytes: Option<u64>) -> Validator {
        Validator::new(etag, second.and_then(|at| DateTime::from_timestamp(at, 7)), n_bytes)
    }

    #[test]
    fn an_etag_decides_then_time_and_length_and_a_name_that_is_gone_is_another_version() {
        let (a, weak_a, b) = (Some("\"a\""), Some("W/\"a\""), Some("\"b\""));
        for (was, is, is_another) in [
            (of(a, Some(1), Some(5)), of(a, Some(2), Some(6)), false),
            (of(weak_a, None, None), of(a, None, None), false),
            (of(a, Some(1), Some(5)), of(b, Some(1), Some(5)), true),
            (of(None, Some(1), Some(5)), of(None, Some(1), Some(5)), false),
            (of(None, Some(1), Some(5)), of(None, Some(2), Some(5)), true),
            (of(None, Some(1), Some(5)), of(None, Some(1), Some(6)), true),
            (of(None, Some(1), Some(5)), of(b, Some(1), Some(5)), false),
            (of(a, Some(1), Some(5)), of(None, Some(1), Some(5)), false),
            (of(a, None, Some(5)), of(None, None, Some(5)), true),
            (of(None, Some(1), None), of(None, None, None), true),
            (of(None, None, Some(5)), of(None, None, None), false),
            (of(None, None, Some(5)), of(None, None, Some(6)), true),
            (of(None, None, None), of(a, Some(1), Some(5)), false),
        ] {
            assert_eq!(was.has_become_another(&is), is_another, "{was} and then {is}");
        }
    }

    #[test]
    fn a_version_is_named_by_its_etag_else_by_time_and_length() {
        let (a, weak_a) = (Some("\"a\""), Some("W/\"a\""));
        assert_eq!(of(a, Some(1), Some(5)).name(), of(weak_a, Some(2), None).name());
        assert_ne!(of(None, Some(1), Some(5)).name(), of(None, Some(2), Some(5)).name());
        assert_ne!(of(None, Some(1), Some(5)).name(), of(None, Some(1), Some(6)).name());
        assert_eq!(of(None, None, Some(1)).name(), None);
        let long = format!("W/\"{}\"", "x".repeat(200));
        let strong =
            [of(a, None, None), of(weak_a, None, None), of(Some(&long), None, None), of(None, Some(1), None)]
                .map(|one| one.strong_etag().map(str::to_owned));
        assert_eq!(strong, [a.map(str::to_owned), None, None, None]);
    }

    #[test]
    fn what_is_kept_stays_small_and_comes_back_as_it_was() {
        let long = format!("\"{}\"", "x".repeat(10_000));
        let long = of(Some(&long), Some(1), Some(5));
        let kept = serde_json::to_string(&long).unwrap();
        assert!(kept.len() < 200, "{kept}");
        assert_eq!(serde_json::from_str::<Validator>(&kept).unwrap(), long);
        assert!(of(None, None, None).is_empty() && !long.is_empty());
    }
}
