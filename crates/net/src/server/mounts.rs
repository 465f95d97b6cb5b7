//! What a server serves where: put there while it runs, and taken away by whoever put it there.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use aqueduct_core::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::watch;

use super::event_stream::Shared as Stream;
use super::head::RequestHead;
use super::refusal::Refusal;
use super::subscriber::Subscriber;
use crate::Secret;

/// Answers requests that are no streams. Called on the server's thread: what takes long belongs elsewhere.
#[async_trait]
pub trait Pages: Send + Sync {
    /// Whether this may be asked. Said before anything of the request's body is read; host, site and token were checked.
    ///
    /// # Errors
    /// The answer instead.
    fn admit(&self, _head: &RequestHead) -> Result<(), Refusal> {
        Ok(())
    }

    /// The answer to what was [admitted](Pages::admit).
    async fn answer(&self, request: Request<Bytes>) -> Response<Bytes>;
}

/// Lets clients into streams.
pub trait Streams: Send + Sync {
    /// A place in a stream. Only the host was checked: who may come in, from which site, is the stream's own matter.
    ///
    /// # Errors
    /// The answer that the client gets instead.
    fn subscribe(&self, head: &RequestHead) -> Result<Subscriber, Refusal>;
}

/// Who answers a path.
#[derive(Clone)]
pub(super) enum Route {
    Pages(Arc<dyn Pages>),
    Streams(Arc<dyn Streams>),
}

/// What a server serves. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub struct Mounts {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    routes: Mutex<Vec<(Pattern, Route)>>,
    token: RwLock<Option<Secret>>,
    is_starting: watch::Sender<bool>,
    metered: Mutex<Vec<Weak<Stream>>>,
}

impl Mounts {
    /// Has pages at a path, `/metrics`, or below one, `/runs/*`.
    ///
    /// # Errors
    /// Something is there already.
    pub fn pages(&self, pattern: &str, pages: Arc<dyn Pages>) -> Result<Mounted> {
        self.mount(pattern, Route::Pages(pages))
    }

    /// Has streams at a path, below one, or at one with a part that may be anything: `/runs/*/events`.
    ///
    /// # Errors
    /// Something is there already.
    pub fn streams(&self, pattern: &str, streams: Arc<dyn Streams>) -> Result<Mounted> {
        self.mount(pattern, Route::Streams(streams))
    }

    /// From now on pages are answered to those alone who send this token; streams have their own.
    pub fn require_token(&self, token: Secret) {
        *self.shared.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }

    /// Whether more is to be mounted soon. Until all is, who asks for what is not there waits, and `/healthz` is 503.
    pub fn set_starting(&self, is_starting: bool) {
        self.shared.is_starting.send_replace(is_starting);
    }

    pub(super) fn is_starting(&self) -> bool {
        *self.shared.is_starting.borrow()
    }

    /// Who answers a path, once all is mounted.
    pub(super) async fn find_when_started(&self, path: &str) -> Option<Route> {
        let mut is_starting = self.shared.is_starting.subscribe();
        loop {
            let found = self.find(path);
            if found.is_some() || !*is_starting.borrow_and_update() {
                return found;
            }
            is_starting.changed().await.ok()?;
        }
    }

    pub(super) fn token(&self) -> Option<Secret> {
        self.shared.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn mount(&self, pattern: &str, route: Route) -> Result<Mounted> {
        let pattern = Pattern::of(pattern);
        let mut routes = self.routes();
        if routes.iter().any(|(other, _)| *other == pattern) {
            let message = "two streams or pages of one path; give one of them another `name`";
            return Err(Error::new(ErrorKind::Config, "serve", message).with("path", pattern));
        }
        routes.push((pattern.clone(), route));
        Ok(Mounted { mounts: self.clone(), pattern, metered: None })
    }

    /// Who answers a path: of several that fit, the longest pattern.
    pub(super) fn find(&self, path: &str) -> Option<Route> {
        let routes = self.routes();
        let fitting = routes.iter().filter(|(pattern, _)| pattern.fits(path));
        fitting.max_by_key(|(pattern, _)| pattern.closeness()).map(|(_, route)| route.clone())
    }

    /// Streams that tell of themselves, by their names.
    pub fn stream_stats(&self) -> Vec<(String, super::StreamStats)> {
        let metered: Vec<_> = self.metered().iter().filter_map(Weak::upgrade).collect();
        metered.iter().map(|stream| (stream.name().to_owned(), stream.stats())).collect()
    }

    fn metered(&self) -> MutexGuard<'_, Vec<Weak<Stream>>> {
        self.shared.metered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> MutexGuard<'_, Vec<(Pattern, Route)>> {
        self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Mounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.routes().iter().map(|(pattern, _)| pattern.to_string())).finish()
    }
}

/// A path that is served until this is dropped.
#[must_use = "dropping it takes the path away"]
#[derive(Debug)]
pub struct Mounted {
    mounts: Mounts,
    pattern: Pattern,
    metered: Option<Weak<Stream>>,
}

impl Mounted {
    /// Tells of a stream as long as it is mounted, whoever still reads it after.
    pub(super) fn metering(mut self, stream: &Arc<Stream>) -> Self {
        let metered = Arc::downgrade(stream);
        self.mounts.metered().push(Weak::clone(&metered));
        {
            self.metered = Some(metered);
            self
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(own) = &self.metered {
            self.mounts.metered().retain(|stream| !stream.ptr_eq(own));
        }
        let removed = {
            let mut routes = self.mounts.routes();
            let at = routes.iter().position(|(pattern, _)| *pattern == self.pattern);
            at.map(|at| routes.swap_remove(at))
        };
        // What it served may be large, or mount something itself: not under the lock.
        drop(removed);
    }
}

/// Which paths.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    /// All that begin with this, which ends with a slash.
    Below(String),
    /// All that begin with this and end with that, with one part between.
    Between(String, String),
}

impl Pattern {
    fn of(text: &str) -> Self {
        match text.split_once('*') {
            Some((above, "")) => Self::Below(above.to_owned()),
            Some((above, below)) => Self::Between(above.to_owned(), below.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }

    /// Of several that fit, the greatest answers.
    fn closeness(&self) -> (u8, usize) {
        match self {
            Self::Exact(path) => (2, path.len()),
            Self::Between(above, below) => (1, above.len() + below.len()),
            Self::Below(above) => (0, above.len()),
        }
    }

    fn fits(&self, path: &str) -> bool {
        match self {
            Self::Exact(own) => own == path,
            Self::Below(above) => path.starts_with(above.as_str()),
            Self::Between(above, below) => path
                .strip_prefix(above.as_str())
                .and_then(|rest| rest.strip_suffix(below.as_str()))
                .is_some_and(|part| !part.is_empty() && !part.contains('/')),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Below(above) => write!(f, "{above}*"),
            Self::Between(above, below) => write!(f, "{above}*{below}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(&'static str);

    #[async_trait]
    impl Pages for Says {
        async fn answer(&self, _: Request<Bytes>) -> Response<Bytes> {
            Response::new(self.0.into())
        }
    }

    #[tokio::test]
    async fn the_closest_pattern_answers_until_it_is_dropped() {
        let mounts = Mounts::default();
        let _all = mounts.pages("/*", Arc::new(Says("all"))).unwrap();
        let _runs = mounts.pages("/runs/*", Arc::new(Says("runs"))).unwrap();
        let _events = mounts.pages("/runs/*/events", Arc::new(Says("events"))).unwrap();
        let one = mounts.pages("/runs/one", Arc::new(Says("one"))).unwrap();
        assert!(mounts.pages("/runs/one", Arc::new(Says("two"))).is_err());
        let ask = async |path: &str| match mounts.find(path) {
            Some(Route::Pages(pages)) => pages.answer(Request::new(Bytes::new())).await.into_body(),
            _ => Bytes::new(),
        };
        assert_eq!(
            (ask("/runs/one").await, ask("/runs/x").await, ask("/x").await),
            ("one".into(), "runs".into(), "all".into())
        );
        assert_eq!(
            (ask("/runs/x/events").await, ask("/runs/x/y/events").await),
            ("events".into(), "runs".into())
        );
        drop(one);
        assert_eq!(ask("/runs/one").await, "runs");
    }
}
