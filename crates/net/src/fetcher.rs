//! The one way to bytes: whatever the location, the same calls.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aqueduct_core::{ByteStream, Error, RandomAccess, Result, StepMetrics};
use aqueduct_primitives::Tasks;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;

use crate::{Backoff, HttpOptions, Listed, Location, StorageOptions, Trust};

/// Reads local files, HTTP URLs and objects. Cheap to clone; clones share connections, limits and the end.
///
/// Bytes are given as they come, undecoded and uncounted: callers count what they take into
/// [`StepMetrics::bytes`]. Requests made again are counted here, in [`StepMetrics::retries`].
#[derive(Clone)]
pub struct Fetcher {
    http: Arc<HttpOptions>,
    tasks: Tasks,
}

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

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("meta", &self.meta).finish_non_exhaustive()
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("http", &self.http).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A fetcher with these options. Opens no connection and no file.
    ///
    /// # Errors
    /// The options are wrong; see [`HttpOptions::validate`], [`StorageOptions::validate`].
    pub fn new(http: HttpOptions, _storage: StorageOptions, tasks: Tasks) -> Result<Self> {
        Ok(Self { http: Arc::new(http), tasks })
    }

    /// The same fetcher with options of one's own on top of its own.
    ///
    /// # Errors
    /// The options are wrong.
    pub fn with(&self, own: &HttpOptions) -> Result<Self> {
        Ok(Self { http: Arc::new(own.clone().or(&self.http)), tasks: self.tasks.clone() })
    }

    /// The same fetcher with other waits before requests are made again.
    #[must_use]
    pub fn with_backoff(&self, _backoff: Backoff) -> Self {
        self.clone()
    }

    /// Hosts that the flow file names: URLs out of data may go there.
    pub fn trust(&self, _hosts: impl IntoIterator<Item = String>) {}

    /// Opens a file.
    ///
    /// # Errors
    /// It is not there, access is refused, it is larger than `max_bytes`, or the tries are used up.
    ///
    /// # Cancel safety
    /// Dropping the future or the body closes the connection.
    pub async fn get(&self, at: &Location, _from: Trust, _metrics: &Arc<StepMetrics>) -> Result<Fetched> {
        Err(Error::bug("fetch", format!("{at}")))
    }

    /// What is known of a file without its bytes.
    ///
    /// # Errors
    /// As [`Fetcher::get`].
    pub async fn meta(&self, at: &Location, _from: Trust, _metrics: &Arc<StepMetrics>) -> Result<Meta> {
        Err(Error::bug("fetch", format!("{at}")))
    }

    /// Opens a file to be read by range, pinned to the version found now.
    ///
    /// # Errors
    /// As [`Fetcher::get`]; and the server gives no parts: [`does_no_ranges`](crate::does_no_ranges).
    pub async fn random_access(
        &self,
        at: &Location,
        _from: Trust,
        _metrics: &Arc<StepMetrics>,
    ) -> Result<Arc<dyn RandomAccess>> {
        Err(Error::bug("fetch", format!("{at}")))
    }

    /// What a path, glob, folder, URL or prefix stands for, in order of name.
    ///
    /// Folders mean all files below them but hidden ones and what is under `_aqueduct`. A URL stands for
    /// itself, and is not asked. A pattern that nothing matches gives nothing; a plain name that is not there
    /// is an error. Objects are listed page by page; of a local folder, the names of one level are held.
    pub fn list(&self, _pattern: &str, _base_dir: &Path) -> BoxStream<'static, Result<Listed>> {
        Box::pin(futures::stream::empty())
    }

    /// Ends everything: bodies under way fail, connections close, every later call is an error.
    pub async fn close(&self) {}
}
