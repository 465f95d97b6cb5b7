//! `feeds`: entries of RSS, Atom and JSON Feed, each once.
//!
//! Every run asks each feed once, with the version that it had when its entries were committed last; of a feed that is the same
//! nothing comes. Order: within a feed as it has them, none between feeds. Memory: a small reserve for each feed that is asked
//! at once, one large one that a single feed may have at a time, the list of feeds, and the keys of entries that were given.
//!
//! **One bad feed never stops the others.** What fails of a feed is rejected by its name, its entries before that are given, and
//! the next run asks it again. Where the flow fails on what is bad, it does so when all other feeds are read.
//!
//! **Each entry once.** An entry is given once for its `id` and `updated_at`, in all runs that are committed and in whichever
//! feed it comes: two feeds that give one id to two entries of one time, or of none, have one row of both, and the entry that
//! came first wins. Such feeds are to be read in flows of their own, or with `entries: all`. A key is looked up before a batch,
//! and noted in the poll that gives it. What is known of a feed's version counts from the batch on that ends it.
//! Formats: see [`aqueduct_formats::feed`].

mod adapters;
mod collect;
mod known;
mod list;
mod memory;
mod poll;
mod progress;
mod read;

use std::path::Path;

use aqueduct_core::{
    BatchStream, ComponentInfo, Context, Factory, MemoryNeed, Planning, Positions, Problem, Result, Source,
    SourceCaps, SourceConfig, units,
};
use aqueduct_formats::ReadOptions;
use aqueduct_net::{Fetcher, HttpOptions, Location};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use self::known::Versions;
use self::list::Feed;
use self::memory::Room;
use crate::files::ListedPaths;
use crate::paged::given::Given;

pub use self::adapters::{Adapter, FeedAdapter, FeedClient, Record};
pub use self::collect::{DEFAULT_FEEDS_AT_ONCE, Feeds, Seen, collect_parallel, collect_stream};
pub use aqueduct_formats::feed::{Entry, FeedFacts, entries_schema};

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "feeds",
    summary: "Entries of RSS, Atom and JSON feeds, each once; feeds that have not changed are not fetched again",
    example: "feeds: { urls: [\"https://news.example/rss.xml\"], opml: feeds.opml }",
});

/// Options of `feeds`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The feeds: URLs or paths; or `{file: LIST}`, a file that names one a line.
    pub urls: Option<Urls>,
    /// An OPML list of feeds: a URL or a path.
    pub opml: Option<String>,
    /// Which entries of a feed that has changed are given: those that no earlier run has committed, or all.
    #[serde(default)]
    pub entries: Entries,
    /// How many feeds are asked at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// A feed larger than this is rejected.
    #[serde(default = "default_max_record_bytes", deserialize_with = "units::byte_count")]
    #[schemars(with = "units::Size", extend("default" = "16MiB"))]
    pub max_record_bytes: ByteCount,
    /// How feeds are fetched, on top of the flow's `http`.
    #[serde(flatten)]
    pub http: HttpOptions,
}

/// The feeds to read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Urls {
    /// These.
    Urls(Vec<String>),
    /// What a file names, one a line.
    Listed(ListedPaths),
    /// This.
    Url(String),
}

/// Which entries are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Entries {
    /// Each once for its `id` and `updated_at`, in all runs, in whichever feed it comes.
    #[default]
    New,
    /// All entries of each feed that is another than when it was read last.
    All,
}

fn default_concurrency() -> usize {
    DEFAULT_FEEDS_AT_ONCE
}

fn default_max_record_bytes() -> ByteCount {
    ReadOptions::default().max_record_bytes
}

#[async_trait]
impl SourceConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.http.validate();
        if self.urls.is_none() && self.opml.is_none() {
            problems.push(Problem::at("", "nothing to read; expected `urls` or `opml`"));
        }
        if self.concurrency == 0 {
            problems.push(Problem::at("/concurrency", "expected at least 1 feed at once"));
        }
        if self.max_record_bytes == ByteCount::ZERO {
            problems.push(Problem::at("/max_record_bytes", "expected at least 1 byte"));
        }
        problems.extend(self.urls.as_ref().map(Urls::problems).into_iter().flatten());
        problems.extend(self.opml.iter().filter_map(|opml| name_problem("/opml".into(), opml)));
        problems
    }

    fn known_schema(&self, _: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        Ok(Some(entries_schema()))
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        memory::need(self.n_at_once(planning.max_concurrency), self.max_record_bytes)
    }

    fn is_incremental(&self) -> bool {
        true
    }

    async fn open(self: Box<Self>, cx: &Context) -> Result<Box<dyn Source>> {
        let fetcher = cx.service::<Fetcher>()?.with(&self.http)?;
        fetcher.trust(self.hosts());
        let n_at_once = self.n_at_once(cx.max_concurrency());
        let feeds = Box::pin(list::feeds(&self, &fetcher, cx)).await?;
        memory::check_room(cx.share().total(), list::bytes(&feeds))?;
        let memory_of_list = cx.share().reserve(list::bytes(&feeds)).await?;
        let versions = Versions::open(cx, &feeds)?;
        let (given, memory_of_given) = match self.entries {
            Entries::New => Some(Box::pin(Given::open(cx, versions.given_before())).await?).unzip(),
            Entries::All => (None, None),
        };
        versions.register(cx, given.clone());
        let room = Room::of(cx, &memory_of_list, n_at_once, self.max_record_bytes);
        let held = vec![Some(memory_of_list), memory_of_given];
        let held = held.into_iter().flatten().collect();
        Ok(Box::new(OpenFeeds { fetcher, feeds, versions, given, room, _held: held }))
    }
}

impl Config {
    fn n_at_once(&self, max_concurrency: usize) -> usize {
        self.concurrency.min(max_concurrency).max(1)
    }

    /// Feeds that the flow itself names.
    fn named(&self) -> &[String] {
        match &self.urls {
            Some(Urls::Urls(urls)) => urls,
            Some(Urls::Url(url)) => std::slice::from_ref(url),
            Some(Urls::Listed(_)) | None => &[],
        }
    }

    fn list(&self) -> Option<&str> {
        match &self.urls {
            Some(Urls::Listed(listed)) => Some(&listed.file),
            _ => None,
        }
    }

    /// The hosts that the flow file names.
    fn hosts(&self) -> Vec<String> {
        let host = |name: &str| match Location::parse(name, Path::new("")) {
            Ok(Location::Http(url)) => url.host_str().map(str::to_owned),
            _ => None,
        };
        let names = self.named().iter().map(String::as_str).chain(self.list()).chain(self.opml.as_deref());
        names.filter_map(host).collect()
    }
}

impl Urls {
    fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Urls(urls) if urls.is_empty() => {
                vec![Problem::at("/urls", "empty; expected at least one URL")]
            }
            Self::Urls(urls) => {
                let named = urls.iter().enumerate();
                named.filter_map(|(n, url)| name_problem(format!("/urls/{n}"), url)).collect()
            }
            Self::Listed(listed) => name_problem("/urls/file".into(), &listed.file).into_iter().collect(),
            Self::Url(url) => name_problem("/urls".into(), url).into_iter().collect(),
        }
    }
}

fn name_problem(pointer: String, name: &str) -> Option<Problem> {
    match Location::parse(name, Path::new("")) {
        _ if name.is_empty() => Some(Problem::at(pointer, "empty; expected a URL or a path")),
        Ok(_) => None,
        Err(error) => Some(Problem::at(pointer, error.to_string())),
    }
}

/// Feeds, ready to be asked.
struct OpenFeeds {
    fetcher: Fetcher,
    feeds: Vec<Feed>,
    versions: Versions,
    /// The entries that were given; nothing, where all are.
    given: Option<Given>,
    room: Room,
    /// Memory of what is held to the end.
    _held: Vec<Reservation>,
}

impl Source for OpenFeeds {
    fn schema(&self) -> SchemaRef {
        entries_schema()
    }

    fn capabilities(&self) -> SourceCaps {
        SourceCaps {
            replayable: true,
            ordered: false,
            endless: false,
            remote: true,
            summed_up_in: Some(progress::SPLIT),
        }
    }

    fn run(self: Box<Self>, cx: Context, from: Positions) -> BatchStream {
        read::run(*self, cx, from)
    }
}
