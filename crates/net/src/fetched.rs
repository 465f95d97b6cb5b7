//! What comes of a fetch: what is known of a file, and its bytes.

use std::fmt;
use std::sync::Arc;

use aqueduct_core::{ByteStream, Error, ErrorKind, RandomAccess, Result};
use chrono::{DateTime, Utc};

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
