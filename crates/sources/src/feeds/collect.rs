//! Entries of many places, each once, one place after another or several at once.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_commit::{KeyStore, Keyed, KeysIn, Remembering};
use aqueduct_core::{Context, Error, Result};
use aqueduct_primitives::{Pipeline, Reservation, Tasks, merge};
use async_stream::stream;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::adapters::{Adapter, Record};
use super::read::key;
use crate::paged::given::memory_of_keys;

/// Feeds that are asked at once.
pub const DEFAULT_FEEDS_AT_ONCE: usize = 4;

/// What was given already. Cheap to clone: clones are one set.
///
/// An entry passes once for its [natural key](aqueduct_formats::feed::Entry::natural_key) and the time of its last change. Asking
/// for it notes it, in one step: of several that ask for the same at once, one gets it. Memory: a part of the context's share;
/// what that does not hold goes to its scratch.
#[derive(Clone)]
pub struct Seen {
    keys: Arc<Mutex<KeyStore>>,
    tasks: Tasks,
    _memory: Arc<Reservation>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}

impl Seen {
    /// Nothing was given yet.
    ///
    /// # Errors
    /// The context's share is too small.
    pub async fn new(cx: &Context) -> Result<Self> {
        let memory = memory_of_keys(cx.share().total());
        let reservation = cx.share().reserve(memory).await?;
        let how = Remembering { versioned: false, forget_after_days: None, memory };
        let (fs, place) = (Arc::clone(cx.fs()), KeysIn::Scratch(cx.scratch().clone()));
        let store = cx.tasks().block(move || KeyStore::open(&fs, place, how, None)).await??;
        let keys = Arc::new(Mutex::new(store));
        Ok(Self { keys, tasks: cx.tasks().clone(), _memory: Arc::new(reservation) })
    }

    /// Whether an entry is new. From then on it is not.
    ///
    /// # Errors
    /// The disk's.
    pub async fn admit(&self, record: &Record) -> Result<bool> {
        let (keys, key) = (Arc::clone(&self.keys), key(&record.entry));
        let admit = move || {
            let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.admit(&[Keyed { key, version: 0 }], 0)
        };
        Ok(self.tasks.block(admit).await??.first().copied().unwrap_or_default())
    }
}

/// The entries of adapters, one adapter after another: each is got ready, fetched and closed, which it is after an error, too.
/// Entries that were given are left out. An error is an item that names its adapter, and the next one follows.
///
/// Order: as the adapters have it. Memory: one entry beside what an adapter holds.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use aqueduct_sources::feeds::{Adapter, FeedClient, Seen, collect_stream};
/// use futures::TryStreamExt;
/// # let dir = tempfile::tempdir()?;
/// # let tasks = aqueduct_primitives::Tasks::default();
/// # let fetcher = aqueduct_net::Fetcher::new(Default::default(), Default::default(), tasks.clone())?;
/// # let budget = aqueduct_primitives::Budget::new("example", aqueduct_primitives::ByteCount::mib(64));
/// # let change = |run: &mut aqueduct_core::RunContext| {
/// #     run.base_dir = dir.path().to_owned();
/// #     run.tasks = tasks;
/// #     run.services.insert(std::sync::Arc::new(fetcher));
/// # };
/// # let cx = aqueduct_core::Context::standalone_with(&budget, change, |_| {})?;
/// # let feed = |ids: &[&str]| {
/// #     let items: String = ids.iter().map(|id| format!("<item><guid>{id}</guid></item>")).collect();
/// #     format!("<rss><channel><title>News</title>{items}</channel></rss>")
/// # };
/// std::fs::write(dir.path().join("a.xml"), feed(&["1", "2"]))?;
/// std::fs::write(dir.path().join("b.xml"), feed(&["2", "3"]))?;
///
/// let client = FeedClient::new(&cx)?;
/// let feeds: Vec<Box<dyn Adapter>> = vec![Box::new(client.feed("a.xml")?), Box::new(client.feed("b.xml")?)];
/// let records: Vec<_> = collect_stream(feeds, Seen::new(&cx).await?).try_collect().await?;
/// let ids: Vec<_> = records.iter().map(|record| &record.id[..]).collect();
/// assert_eq!(ids, ["1", "2", "3"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Cancel safety
/// Dropping the stream drops the adapter that is fetched, without closing it.
pub fn collect_stream<A>(adapters: A, seen: Seen) -> BoxStream<'static, Result<Record>>
where
    A: IntoIterator<Item = Box<dyn Adapter>, IntoIter: Send + 'static>,
{
    let mut adapters = adapters.into_iter();
    records(move || adapters.next(), seen)
}

/// [`collect_stream`] of several adapters at once, each in a task of its own, of which at most `max_concurrent` run:
/// [`DEFAULT_FEEDS_AT_ONCE`] is a good number. Adapters are taken from the iterator as their turn comes.
///
/// Order: as they come. Who takes entries slowly slows the adapters: beside what they hold, `max_concurrent` entries wait.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use aqueduct_sources::feeds::{Adapter, DEFAULT_FEEDS_AT_ONCE, FeedClient, Seen, collect_parallel};
/// use futures::TryStreamExt;
/// # let dir = tempfile::tempdir()?;
/// # let tasks = aqueduct_primitives::Tasks::default();
/// # let fetcher = aqueduct_net::Fetcher::new(Default::default(), Default::default(), tasks.clone())?;
/// # let budget = aqueduct_primitives::Budget::new("example", aqueduct_primitives::ByteCount::mib(64));
/// # let change = |run: &mut aqueduct_core::RunContext| {
/// #     run.base_dir = dir.path().to_owned();
/// #     run.tasks = tasks;
/// #     run.services.insert(std::sync::Arc::new(fetcher));
/// # };
/// # let cx = aqueduct_core::Context::standalone_with(&budget, change, |_| {})?;
/// # for (name, id) in [("a.xml", 1), ("b.xml", 2), ("c.xml", 1)] {
/// #     let feed = format!("<rss><channel><item><guid>{id}</guid></item></channel></rss>");
/// #     std::fs::write(dir.path().join(name), feed)?;
/// # }
/// let client = FeedClient::new(&cx)?;
/// let mut feeds: Vec<Box<dyn Adapter>> = Vec::new();
/// for name in ["a.xml", "b.xml", "c.xml"] {
///     feeds.push(Box::new(client.feed(name)?));
/// }
/// let seen = Seen::new(&cx).await?;
/// let records = collect_parallel(feeds, seen, DEFAULT_FEEDS_AT_ONCE, cx.tasks());
/// assert_eq!(records.try_collect::<Vec<_>>().await?.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Cancel safety
/// Dropping the stream ends the tasks, and drops their adapters without closing them.
pub fn collect_parallel<A>(
    adapters: A,
    seen: Seen,
    max_concurrent: usize,
    tasks: &Tasks,
) -> BoxStream<'static, Result<Record>>
where
    A: IntoIterator<Item = Box<dyn Adapter>, IntoIter: Send + 'static>,
{
    let adapters = Arc::new(Mutex::new(adapters.into_iter()));
    let next = move || adapters.lock().unwrap_or_else(PoisonError::into_inner).next();
    let n_at_once = max_concurrent.max(1);
    let workers: Vec<_> = (0..n_at_once).map(|_| records(next.clone(), seen.clone())).collect();
    merge(workers, n_at_once, tasks).map(|record| record.unwrap_or_else(|error| Err(error.into()))).boxed()
}

/// The new entries of adapters, as long as there is a next one.
fn records(
    mut next: impl FnMut() -> Option<Box<dyn Adapter>> + Send + 'static,
    seen: Seen,
) -> BoxStream<'static, Result<Record>> {
    Box::pin(stream! {
        while let Some(mut adapter) = next() {
            let name = adapter.name().to_owned();
            let mut failed = adapter.initialise().await.err();
            if failed.is_none() {
                let mut fetched = adapter.fetch();
                while let Some(record) = fetched.next().await {
                    match admitted(record, &seen).await {
                        Ok(Some(record)) => yield Ok(record),
                        Ok(None) => {}
                        Err(error) => {
                            failed = Some(error);
                            break;
                        }
                    }
                }
            }
            let not_closed = adapter.close().await.err();
            for error in failed.into_iter().chain(not_closed) {
                yield Err(error.with("feed", &name));
            }
        }
    })
}

async fn admitted(record: Result<Record>, seen: &Seen) -> Result<Option<Record>> {
    let record = record?;
    Ok(seen.admit(&record).await?.then_some(record))
}

/// Adapters that are read together.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use aqueduct_sources::feeds::{FeedClient, Feeds};
/// # let dir = tempfile::tempdir()?;
/// # let tasks = aqueduct_primitives::Tasks::default();
/// # let fetcher = aqueduct_net::Fetcher::new(Default::default(), Default::default(), tasks.clone())?;
/// # let budget = aqueduct_primitives::Budget::new("example", aqueduct_primitives::ByteCount::mib(64));
/// # let change = |run: &mut aqueduct_core::RunContext| {
/// #     run.base_dir = dir.path().to_owned();
/// #     run.tasks = tasks;
/// #     run.services.insert(std::sync::Arc::new(fetcher));
/// # };
/// # let cx = aqueduct_core::Context::standalone_with(&budget, change, |_| {})?;
/// # let feed = "<rss><channel><item><guid>1</guid><title>One</title></item></channel></rss>";
/// std::fs::write(dir.path().join("a.xml"), feed)?;
///
/// let client = FeedClient::new(&cx)?;
/// let mut feeds = Feeds::default();
/// feeds.register(client.feed("a.xml")?);
/// let titles = feeds
///     .pipeline(&cx)
///     .await?
///     .map(async |record| record.entry.title.unwrap_or_default())
///     .filter(|title| std::future::ready(!title.is_empty()))
///     .collect()
///     .await?;
/// assert_eq!(titles, ["One"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Feeds {
    adapters: Vec<Box<dyn Adapter>>,
}

impl fmt::Debug for Feeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.adapters.iter().map(|adapter| adapter.name())).finish()
    }
}

impl Feeds {
    /// Adds a place that entries come from.
    pub fn register(&mut self, adapter: impl Adapter + 'static) -> &mut Self {
        self.adapters.push(Box::new(adapter));
        self
    }

    /// The new entries of all that are registered, [`DEFAULT_FEEDS_AT_ONCE`] at once, each once. Nothing is asked before the
    /// pipeline is ended; [`Pipeline::on_error`] decides about feeds that fail.
    ///
    /// # Errors
    /// The context's share is too small.
    pub async fn pipeline(self, cx: &Context) -> Result<Pipeline<Record, Error>> {
        let seen = Seen::new(cx).await?;
        Ok(Pipeline::from_stream(collect_parallel(self.adapters, seen, DEFAULT_FEEDS_AT_ONCE, cx.tasks())))
    }
}
