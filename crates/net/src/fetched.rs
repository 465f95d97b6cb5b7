//! What comes of a fetch: what is known of a file, and its bytes.

use std::fmt;
use std::sync::Arc;

use aqueduct_core::{ByteStream, Error, ErrorKind, RandomAccess, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Location, Validator};

/// What is known of a file before its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// How many bytes there are, as they are sent.
    pub n_bytes: Option<u64>,
    /// When it was last changed.
    pub modified: Option<DateTime<Utc>>,
    /// Names this version of it.
    pub etag: Option<String>,
    /// What the server says it is.
    pub content_type: Option<String>,
    /// How the bytes are encoded on top of what the file is, if the server did so although it was asked not
    /// to. The caller decodes, with its limit on the ratio.
    pub content_encoding: Option<ContentEncoding>,
    /// Where it was found, after redirects.
    pub location: Location,
}

impl Meta {
    /// What tells this version of the file from another.
    pub fn validator(&self) -> Validator {
        Validator::new(self.etag.as_deref(), self.modified, self.n_bytes)
    }
}

impl Meta {
    /// What a later [`Fetcher::get_unless`](crate::Fetcher::get_unless) goes by.
    pub fn known(&self) -> Known {
        let is_short = |etag: &&String| etag.len() <= MAX_KEPT_ETAG_BYTES;
        Known { etag: self.etag.as_ref().filter(is_short).cloned(), modified: self.modified }
    }
}

/// A longer ETag is not kept: what is kept of each file must stay small, whatever a server says.
const MAX_KEPT_ETAG_BYTES: usize = 512;

/// The version of a file that was fetched before, as its server named it. May be kept, for a later process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<DateTime<Utc>>,
}

impl Known {
    /// Whether nothing is known: the file is fetched in any case.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The value of `If-None-Match` (RFC 9110, section 13.1.2).
    pub(crate) fn if_none_match(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// The value of `If-Modified-Since` (RFC 9110, section 13.1.3).
    pub(crate) fn if_modified_since(&self) -> Option<String> {
        self.modified.map(|at| at.format("%a, %d %b %Y %H:%M:%S GMT").to_string())
    }

    /// Whether this is the version of a file that was found now. ETags decide where both have one.
    pub(crate) fn is_version_of(&self, now: &Meta) -> bool {
        match (&self.etag, &now.etag) {
            (Some(was), Some(is)) => was == is,
            _ => self.modified.is_some() && self.modified == now.modified,
        }
    }
}

/// A `Content-Encoding` (RFC 9110, section 8.4.1) that callers can decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentEncoding {
    /// `gzip`, `x-gzip`.
    Gzip,
    /// `zstd` (RFC 8878).
    Zstd,
}

/// A file, opened.
pub struct Fetched {
    /// What is known before the bytes.
    pub meta: Meta,
    /// The bytes, in order. Complete when the stream ends without an error, whatever happened on the way.
    pub body: ByteStream,
}

/// A file, opened to be read by range.
pub struct Ranged {
    /// Of which version all ranges are.
    pub validator: Validator,
    /// Its bytes.
    pub file: Arc<dyn RandomAccess>,
}

impl fmt::Debug for Ranged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ranged").field("validator", &self.validator).finish_non_exhaustive()
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// How a body is encoded beside what it is, by a `Content-Encoding` header.
///
/// # Errors
/// It is encoded in a way that cannot be decoded here, or several times over.
pub(crate) fn encoding(text: &str) -> Result<Option<ContentEncoding>> {
    match text.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(None),
        "gzip" | "x-gzip" => Ok(Some(ContentEncoding::Gzip)),
        "zstd" => Ok(Some(ContentEncoding::Zstd)),
        other => {
            let shown: String = other.chars().take(40).collect();
            let message = format!("the server encoded it as `{shown}` although it was asked not to");
            Err(Error::new(ErrorKind::Data, "fetch", message))
        }
    }
}
