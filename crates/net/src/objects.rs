//! Reading objects: whole, by range, and their lists.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{ByteStream, Changed, Error, ErrorKind, RandomAccess, Result};
use async_stream::try_stream;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Attribute, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::failure::shut_down;
use crate::fetched::{Fetched, Meta, Ranged, encoding};
use crate::inner::Inner;
use crate::{Location, Validator};

/// The store makes its own tries within this time; past it the request is given up.
const MAX_REQUEST_TIME: Duration = Duration::from_secs(300);

const CHANGED: &str = "it changed while it was read; run again";

/// One object and the store that holds it.
#[derive(Clone)]
pub(crate) struct Object {
    inner: Arc<Inner>,
    store: Arc<dyn ObjectStore>,
    root: String,
    path: Path,
}

impl Object {
    /// Finds the store of an object. Asks nothing.
    ///
    /// # Errors
    /// The key is malformed; the store cannot be set up; the fetcher was closed.
    pub(crate) fn new(inner: &Arc<Inner>, root: &str, key: &str) -> Result<Self> {
        if inner.web.clients.closed().is_cancelled() {
            return Err(shut_down());
        }
        let path = Path::parse(key).map_err(|error| {
            let message = "not the key of an object";
            Error::new(ErrorKind::Config, "fetch", message)
                .with("url", format!("{root}/{key}"))
                .with_source(error)
        })?;
        let store = inner.stores.store(root, key)?;
        Ok(Self { inner: Arc::clone(inner), store, root: root.to_owned(), path })
    }

    /// What is known of it.
    pub(crate) async fn meta(&self) -> Result<Meta> {
        let found = self.head().await?;
        Ok(self.meta_of(&found))
    }

    /// Whether it is there.
    pub(crate) async fn find(&self) -> Result<Option<ObjectMeta>> {
        match self.head().await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens it to be read from its start. The store takes a broken body up again by itself.
    pub(crate) async fn get(&self) -> Result<Fetched> {
        let result = self.ask(self.store.get_opts(&self.path, GetOptions::default())).await?;
        let mut meta = self.meta_of(&result.meta);
        meta.content_type = result.attributes.get(&Attribute::ContentType).map(|value| value.to_string());
        if let Some(coding) = result.attributes.get(&Attribute::ContentEncoding) {
            meta.content_encoding = encoding(coding).map_err(|error| error.with("url", self))?;
        }
        self.check_size(result.meta.size)?;
        Ok(Fetched { meta, body: self.clone().body(result) })
    }

    /// Opens it to be read by range.
    pub(crate) async fn random_access(self) -> Result<Ranged> {
        let found = self.head().await?;
        self.check_size(found.size)?;
        let validator = self.meta_of(&found).validator();
        let (n_total, etag) = (found.size, found.e_tag);
        let file = ObjectRanges { object: self, n_total, etag, version: validator.clone() };
        Ok(Ranged { validator, file: Arc::new(file) })
    }

    /// Writes it whole.
    pub(crate) async fn put(&self, bytes: Bytes) -> Result<()> {
        self.ask(self.store.put(&self.path, bytes.into())).await.map(drop)
    }

    fn body(self, result: GetResult) -> ByteStream {
        let n_total = result.meta.size;
        let mut pieces = result.into_stream();
        Box::pin(try_stream! {
            let mut n_given = 0;
            while let Some(piece) = self.within(self.inner.http.read_timeout(), pieces.next()).await? {
                let piece = piece.map_err(|error| self.error(error))?;
                n_given += piece.len() as u64;
                yield piece;
            }
            if n_given != n_total {
                let message = format!("the body ended after {n_given} of {n_total} bytes");
                Err(Error::new(ErrorKind::Io, "fetch", message).with("url", &self).retry_later())?;
            }
        })
    }

    async fn head(&self) -> Result<ObjectMeta> {
        self.ask(self.store.head(&self.path)).await
    }

    async fn ask<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> Result<T> {
        self.within(MAX_REQUEST_TIME, work).await?.map_err(|error| self.error(error))
    }

    async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.inner.web.clients.closed().cancelled() => Err(shut_down()),
            done = tokio::time::timeout(limit, work) => done.map_err(|_| {
                let message = format!("timed out: nothing came within {}", humantime::format_duration(limit));
                Error::new(ErrorKind::Io, "fetch", message).with("url", self).retry_later()
            }),
        }
    }

    fn check_size(&self, n_bytes: u64) -> Result<()> {
        match self.inner.http.max_bytes {
            Some(max_bytes) if n_bytes > max_bytes.get() => {
                let message =
                    format!("the object is longer than `max_bytes`, {max_bytes}; raise it if that is meant");
                Err(Error::new(ErrorKind::Limit, "fetch", message).with("url", self).with("n_bytes", n_bytes))
            }
            _ => Ok(()),
        }
    }

    fn error(&self, error: object_store::Error) -> Error {
        of_store(error).with("url", self)
    }

    /// It is another than this by now.
    async fn became(&self, was: &Validator) -> Error {
        let is = self.meta().await.map(|now| now.validator()).unwrap_or_default();
        let change = Changed { was: was.to_string(), is: is.to_string() };
        Error::new(ErrorKind::Io, "fetch", CHANGED).with("url", self).with_source(change)
    }

    fn meta_of(&self, found: &ObjectMeta) -> Meta {
        Meta {
            n_bytes: Some(found.size),
            modified: Some(found.last_modified),
            etag: found.e_tag.clone(),
            content_type: None,
            content_encoding: None,
            location: Location::Store { root: self.root.clone(), key: self.path.to_string() },
        }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.root, self.path)
    }
}

/// What a store's error means.
pub(crate) fn of_store(error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let (kind, message) = match &error {
        Store::NotFound { .. } => (ErrorKind::NotFound, "no such object (404)"),
        Store::PermissionDenied { .. } => (ErrorKind::Denied, "access to the object was refused (403)"),
        Store::Unauthenticated { .. } => (ErrorKind::Denied, "the credentials were not accepted (401)"),
        Store::Precondition { .. } | Store::NotModified { .. } => (ErrorKind::Io, CHANGED),
        Store::InvalidPath { .. } => (ErrorKind::Config, "not the key of an object"),
        _ => (ErrorKind::Io, "the object store failed"),
    };
    Error::new(kind, "fetch", message).with_source(error)
}

/// Whether a store refused because the object is not the one that was asked for.
fn is_unmet(error: &Error) -> bool {
    matches!(error.cause(), Some(object_store::Error::Precondition { .. }))
}

/// An object read by range, pinned to the version found at the start.
struct ObjectRanges {
    object: Object,
    n_total: u64,
    etag: Option<String>,
    version: Validator,
}

#[async_trait]
impl RandomAccess for ObjectRanges {
    fn len(&self) -> u64 {
        self.n_total
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let object = &self.object;
        if range.end > self.n_total {
            let message = format!("bytes {}..{} of an object of {}", range.start, range.end, self.n_total);
            return Err(Error::new(ErrorKind::Data, "fetch", message).with("url", object));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: self.etag.clone(),
            ..GetOptions::default()
        };
        let read = object.ask(async { object.store.get_opts(&object.path, options).await?.bytes().await });
        let bytes = match read.await {
            Err(error) if is_unmet(&error) => return Err(object.became(&self.version).await),
            read => read?,
        };
        if bytes.len() as u64 != range.end - range.start {
            let message =
                format!("{} bytes where {}..{} were asked for", bytes.len(), range.start, range.end);
            return Err(Error::new(ErrorKind::Io, "fetch", message).with("url", object));
        }
        Ok(bytes)
    }
}

/// All objects under a prefix, page by page, in the order of the store.
pub(crate) fn list(
    inner: &Arc<Inner>,
    root: &str,
    prefix: &str,
) -> Result<futures::stream::BoxStream<'static, Result<ObjectMeta>>> {
    let object = Object::new(inner, root, prefix)?;
    let pages = object.store.list(Some(&object.path).filter(|path| !path.as_ref().is_empty()));
    Ok(pages.map_err(move |error| object.error(error)).boxed())
}
