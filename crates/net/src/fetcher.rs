//! The one way to bytes: whatever the location, the same calls.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Problem, Result, StepMetrics};
use aqueduct_primitives::Tasks;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{Method, StatusCode, header};
use url::Url;

use crate::failure::shut_down;
use crate::fetched::{Fetched, Meta, Ranged, encoding};
use crate::inner::Inner;
use crate::objects::Object;
use crate::request::{Answer, Ask, drain};
use crate::store::Stores;
use crate::{
    Backoff, Call, HttpOptions, Known, Listed, Listener, Location, Reply, StorageOptions, Trust, body,
    http_ranges, list, local, masked_url, range,
};

/// Reads local files, HTTP URLs and objects. Cheap to clone; clones share connections, limits and the end.
///
/// Bytes are given as they come, undecoded and uncounted: callers count what they take into
/// [`StepMetrics::bytes`]. Requests made again are counted here, in [`StepMetrics::retries`].
#[derive(Clone)]
pub struct Fetcher {
    inner: Arc<Inner>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("http", &self.inner.http).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A fetcher with these options. Opens no connection and no file.
    ///
    /// # Errors
    /// The options are wrong; see [`HttpOptions::validate`], [`StorageOptions::validate`].
    pub fn new(http: HttpOptions, storage: StorageOptions, tasks: Tasks) -> Result<Self> {
        no_problems("http", http.validate())?;
        no_problems("storage", storage.validate())?;
        let stores = Arc::new(Stores::new(storage, http.clone()));
        let inner = Inner { http, backoff: Backoff::default(), tasks, web: Arc::default(), stores };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same fetcher with options of one's own on top of its own.
    ///
    /// # Errors
    /// The options are wrong.
    pub fn with(&self, own: &HttpOptions) -> Result<Self> {
        let http = own.clone().or(&self.inner.http);
        no_problems("http", http.validate())?;
        Ok(self.changed(http, self.inner.backoff))
    }

    /// The same fetcher with other waits before requests are made again.
    #[must_use]
    pub fn with_backoff(&self, backoff: Backoff) -> Self {
        self.changed(self.inner.http.clone(), backoff)
    }

    fn changed(&self, http: HttpOptions, backoff: Backoff) -> Self {
        let Inner { tasks, web, stores, .. } = &*self.inner;
        let (tasks, web, stores) = (tasks.clone(), Arc::clone(web), Arc::clone(stores));
        Self { inner: Arc::new(Inner { http, backoff, tasks, web, stores }) }
    }

    /// Hosts that the flow file names, as `host` or `host:port`: URLs out of data may go there. For all
    /// clones.
    pub fn trust(&self, hosts: impl IntoIterator<Item = String>) {
        self.inner.web.trust(hosts);
    }

    /// Opens a file.
    ///
    /// # Errors
    /// It is not there, access is refused, it is larger than `max_bytes`, or the tries are used up. An error
    /// of the body is its last item.
    ///
    /// # Cancel safety
    /// Dropping the future or the body closes the connection.
    pub async fn get(&self, at: &Location, from: Trust, metrics: &Arc<StepMetrics>) -> Result<Fetched> {
        self.check_open()?;
        match at {
            Location::Http(url) => self.get_http(Ask::new(url, from, Method::GET), metrics).await,
            Location::Store { root, key } => self.object(root, key, &from)?.get().await,
            Location::Local(path) => {
                check_local(path, &from)?;
                local::get(path, &self.inner.tasks).await
            }
        }
    }

    /// Opens a file unless it is the version that is known: then there is nothing to read, and next to nothing was sent. A
    /// server that does not compare versions sends the file in any case.
    ///
    /// # Errors
    /// As [`Fetcher::get`].
    ///
    /// # Cancel safety
    /// As [`Fetcher::get`].
    pub async fn get_unless(
        &self,
        known: &Known,
        at: &Location,
        from: Trust,
        metrics: &Arc<StepMetrics>,
    ) -> Result<Option<Fetched>> {
        if known.is_empty() {
            return self.get(at, from, metrics).await.map(Some);
        }
        let Location::Http(url) = at else {
            let is_known = known.is_version_of(&self.meta(at, from.clone(), metrics).await?);
            return if is_known { Ok(None) } else { self.get(at, from, metrics).await.map(Some) };
        };
        self.check_open()?;
        let ask = Ask::new(url, from, Method::GET);
        let conditional = Ask { unless: Some(known.clone()), ..ask.clone() };
        let mut tries = self.inner.tries(metrics);
        let answer = self.inner.open(&conditional, &mut tries).await?;
        if answer.response.status() == StatusCode::NOT_MODIFIED {
            drain(answer.response).await;
            return Ok(None);
        }
        let meta = http_meta(&answer)?;
        // What is asked for of a body that broke off is asked for without a condition.
        let body = body::body(Arc::clone(&self.inner), ask, answer, tries)?;
        Ok(Some(Fetched { meta, body }))
    }

    /// Asks a question that is sent as JSON, by POST: one that changes nothing, for it is asked again as a GET would be.
    /// A redirect is followed with the same question.
    ///
    /// # Errors
    /// As [`Fetcher::get`]; and the location is no HTTP URL.
    ///
    /// # Cancel safety
    /// As [`Fetcher::get`].
    pub async fn ask(
        &self,
        at: &Location,
        from: Trust,
        question: Bytes,
        metrics: &Arc<StepMetrics>,
    ) -> Result<Fetched> {
        self.check_open()?;
        match at {
            Location::Http(url) => self.get_http(Ask::post(url, from, question), metrics).await,
            _ => Err(Error::bug("ask", "only HTTP servers are asked questions").with("url", at)),
        }
    }

    /// Makes a request once, and reads its answer whole, whatever its status. It may change something on the server: whether it
    /// is made again is the caller's affair. No redirect is followed.
    ///
    /// # Errors
    /// There was no answer, it broke off, did not end in time or is too long. [`Error::retry`] says whether it may pass.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; whether the server has done what was asked is not known then.
    pub async fn call(&self, call: &Call) -> Result<Reply> {
        self.check_open()?;
        self.inner.call(call).await.map_err(|failure| failure.error)
    }

    /// The options that it was made with.
    pub fn options(&self) -> &HttpOptions {
        &self.inner.http
    }

    /// Gets ready to listen to a stream of events. Once it has been open, it is asked for again `reconnects` times without
    /// anything new at most; before that, `retries` times.
    ///
    /// # Errors
    /// The location is no HTTP URL.
    pub fn listener(&self, at: &Location, reconnects: u32, metrics: &Arc<StepMetrics>) -> Result<Listener> {
        self.check_open()?;
        match at {
            Location::Http(url) => {
                Ok(Listener::new(Arc::clone(&self.inner), url, reconnects, Arc::clone(metrics)))
            }
            _ => Err(Error::bug("listen", "only HTTP servers send events").with("url", at)),
        }
    }

    async fn get_http(&self, ask: Ask, metrics: &Arc<StepMetrics>) -> Result<Fetched> {
        let mut tries = self.inner.tries(metrics);
        let answer = self.inner.open(&ask, &mut tries).await?;
        let meta = http_meta(&answer)?;
        let body = body::body(Arc::clone(&self.inner), ask, answer, tries)?;
        Ok(Fetched { meta, body })
    }

    /// What is known of a file without its bytes.
    ///
    /// # Errors
    /// As [`Fetcher::get`].
    pub async fn meta(&self, at: &Location, from: Trust, metrics: &Arc<StepMetrics>) -> Result<Meta> {
        self.check_open()?;
        match at {
            Location::Http(url) => self.http_head(url, from, metrics).await,
            Location::Store { root, key } => self.object(root, key, &from)?.meta().await,
            Location::Local(path) => {
                check_local(path, &from)?;
                local::meta(path, &self.inner.tasks).await
            }
        }
    }

    /// Servers that do not do HEAD are asked for the body, which is not read.
    async fn http_head(&self, url: &Url, from: Trust, metrics: &Arc<StepMetrics>) -> Result<Meta> {
        let mut tries = self.inner.tries(metrics);
        let head = Ask::new(url, from, Method::HEAD);
        let answer = match self.inner.open(&head, &mut tries).await {
            Err(error) if matches!(error.context("status"), Some("400" | "403" | "405" | "501")) => {
                let get = Ask { method: Method::GET, ..head };
                self.inner.open(&get, &mut tries).await
            }
            answer => answer,
        };
        http_meta(&answer?)
    }

    /// Opens a file to be read by range, pinned to the version found now.
    ///
    /// # Errors
    /// As [`Fetcher::get`]; and the server gives no parts: [`does_no_ranges`](crate::does_no_ranges).
    pub async fn random_access(
        &self,
        at: &Location,
        from: Trust,
        metrics: &Arc<StepMetrics>,
    ) -> Result<Ranged> {
        self.check_open()?;
        match at {
            Location::Http(url) => http_ranges::open(Arc::clone(&self.inner), url, from, metrics).await,
            Location::Store { root, key } => self.object(root, key, &from)?.random_access().await,
            Location::Local(path) => {
                check_local(path, &from)?;
                local::random_access(path, &self.inner.tasks).await
            }
        }
    }

    /// What a path, glob, folder, URL or prefix stands for, in order of name.
    ///
    /// Folders mean all files below them but hidden ones and what is under `_aqueduct`. A URL stands for
    /// itself, and is not asked. A pattern that nothing matches gives nothing; a plain name that is not there
    /// is an error. Objects are listed page by page; of a local folder, the names of one level are held.
    pub fn list(&self, pattern: &str, base_dir: &Path) -> BoxStream<'static, Result<Listed>> {
        match self.check_open() {
            Ok(()) => list::list(&self.inner, pattern, base_dir),
            Err(error) => Box::pin(futures::stream::iter([Err(error)])),
        }
    }

    /// Writes a small object whole, for tests over `memory://` above all.
    ///
    /// # Errors
    /// The location is in no object store, or the store refuses.
    pub async fn put(&self, at: &Location, bytes: Bytes) -> Result<()> {
        self.check_open()?;
        match at {
            Location::Store { root, key } => self.object(root, key, &Trust::Flow)?.put(bytes).await,
            _ => Err(Error::bug("put", "only objects are written here").with("url", at)),
        }
    }

    /// Ends everything: bodies under way fail, connections close, every later call is an error. For all
    /// clones.
    pub async fn close(&self) {
        self.inner.web.clients.close();
        self.inner.stores.close();
        // The tasks that hold idle connections end when they are next polled.
        tokio::task::yield_now().await;
    }

    fn check_open(&self) -> Result<()> {
        if self.inner.web.clients.closed().is_cancelled() { Err(shut_down()) } else { Ok(()) }
    }

    /// An object that only the data names must be in a store that the flow sets up, or in the same one.
    fn object(&self, root: &str, key: &str, from: &Trust) -> Result<Object> {
        let is_allowed = match from {
            Trust::Flow => true,
            Trust::Data { origin } => {
                let is_same = origin.as_ref().is_some_and(|origin| {
                    let host = origin.host_str().unwrap_or_default();
                    root == format!("{}://{host}", origin.scheme())
                });
                is_same || self.inner.stores.is_named(root, key)
            }
        };
        if !is_allowed {
            let message = "only the data names this store; if it is meant, add it to `storage`";
            return Err(Error::new(ErrorKind::Denied, "fetch", message).with("url", format!("{root}/{key}")));
        }
        Object::new(&self.inner, root, key)
    }
}

fn http_meta(answer: &Answer) -> Result<Meta> {
    let headers = answer.response.headers();
    let encoded = range::text(headers, &header::CONTENT_ENCODING).unwrap_or_default();
    Ok(Meta {
        n_bytes: range::content_length(headers),
        modified: range::date(headers, &header::LAST_MODIFIED),
        etag: range::text(headers, &header::ETAG),
        content_type: range::text(headers, &header::CONTENT_TYPE),
        content_encoding: encoding(&encoded).map_err(|error| error.with("url", masked_url(&answer.url)))?,
        location: Location::Http(answer.url.clone()),
    })
}

/// Data never names local files.
fn check_local(path: &Path, from: &Trust) -> Result<()> {
    if *from == Trust::Flow {
        return Ok(());
    }
    let message = "a local file that only the data names is not read";
    Err(Error::new(ErrorKind::Denied, "fetch", message).with("path", path.display()))
}

fn no_problems(key: &'static str, problems: Vec<Problem>) -> Result<()> {
    let Some(first) = problems.first() else { return Ok(()) };
    let message = format!("{key}{}: {}", first.pointer, first.message);
    Err(Error::new(ErrorKind::Config, "set up http", message))
}
