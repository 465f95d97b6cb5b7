//! `stac_catalog`: items of a static STAC catalogue, in the layout of stac-geoparquet.
//!
//! Catalogues and collections are followed from the root downwards, level by level, along their links `child` and `item` and
//! no others: what `root`, `parent` and `self` lead to is never asked for. Links are relative to where a document was found,
//! after redirects, and each place is read once, however many documents link to it. All items are found before the first is
//! read, and the list of them lies on the disk. Order: as for [`files`](crate::files), none between items. Memory: as for `files`, and
//! the names of one level of catalogues; while the list is made, one document for each that is fetched, and the keys of items,
//! which go to the disk where there are many.
//!
//! Format: STAC 1.0.0 and 1.1.0, Catalog and Collection specifications, "Static Catalogs" and "Relation types"
//! (<https://github.com/radiantearth/stac-spec>).

mod linked;

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{
    ComponentInfo, Context, Error, ErrorKind, Factory, MemoryNeed, Origin, Planning, Problem, Reject,
    RejectedItem, Result, Source, SourceConfig, units,
};
use aqueduct_formats::{Format, FormatOption, InferRows, NewFields, ReadOptions};
use aqueduct_net::{Fetched, Fetcher, HttpOptions, Location, Trust};
use aqueduct_primitives::{ByteCount, Reservation, WindowLimit, window_ordered};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Semaphore;

use self::linked::{KEYS_BYTES, LinkedItems};
use crate::file_set::input::{Found, Input, Inputs};
use crate::file_set::memory::need_of_files;
use crate::file_set::on_change::OnChange;
use crate::file_set::{FileSet, Settings};

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "stac_catalog",
    summary: "Items of a static STAC catalogue, followed from its root, in the layout of stac-geoparquet",
    example: "stac_catalog: { url: \"https://host/catalog.json\", collections: [landsat-c2] }",
});

/// A catalogue with more links than fit into this is no catalogue that anybody follows.
const MAX_DOCUMENT_BYTES: ByteCount = ByteCount::mib(16);
/// Most are smaller than this: so many are fetched at once, and of larger ones one at a time.
const SMALL_DOCUMENT_BYTES: ByteCount = ByteCount::mib(1);
const SMALL_AT_ONCE: usize = 8;
/// Catalogues and collections of one run at most: their names are held.
const MAX_CATALOGS: usize = 20_000;
/// What so many names take, of one level and of all.
const NAMES_BYTES: ByteCount = ByteCount::mib(4);
/// Held while the list of items is made.
const CRAWL_BYTES: ByteCount = ByteCount::new(
    NAMES_BYTES.get()
        + KEYS_BYTES.get()
        + MAX_DOCUMENT_BYTES.get()
        + SMALL_AT_ONCE as u64 * SMALL_DOCUMENT_BYTES.get(),
);

/// Options of `stac_catalog`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The root, or any catalogue or collection below it: a URL or a path.
    pub url: String,
    /// Only collections with these ids, and what is below them.
    #[serde(default)]
    pub collections: Vec<String>,
    /// Links from the root down to an item, at most.
    #[serde(default = "default_max_depth")]
    pub max_depth: usize,
    /// How many items are read at once. Default `max_concurrency`.
    pub window: Option<usize>,
    /// What the columns are: those of so many of the first items, or of `all`.
    #[serde(default)]
    pub infer_rows: InferRows,
    /// What to do with fields that are no columns.
    #[serde(default)]
    pub new_fields: NewFields,
    /// Whether it is fine that there is no item at all.
    #[serde(default)]
    pub allow_empty: bool,
    /// An item larger than this is an error.
    #[serde(default = "default_max_record_bytes", deserialize_with = "units::byte_count")]
    #[schemars(with = "units::Size", extend("default" = "16MiB"))]
    pub max_record_bytes: ByteCount,
    /// How documents are fetched, on top of the flow's `http`.
    #[serde(flatten)]
    pub http: HttpOptions,
}

fn default_max_depth() -> usize {
    20
}

fn default_max_record_bytes() -> ByteCount {
    ReadOptions::default().max_record_bytes
}

#[async_trait]
impl SourceConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.http.validate();
        if let Err(error) = Location::parse(&self.url, Path::new("")) {
            problems.push(Problem::at("/url", error.to_string()));
        }
        for (pointer, is_zero) in [("/window", self.window == Some(0)), ("/max_depth", self.max_depth == 0)] {
            if is_zero {
                problems.push(Problem::at(pointer, "expected at least 1"));
            }
        }
        problems
    }

    fn known_schema(&self, _: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        Ok(None)
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        let MemoryNeed { min, want, .. } =
            need_of_files(self.window.unwrap_or(planning.max_concurrency), false);
        MemoryNeed::between(min.saturating_add(CRAWL_BYTES), want.saturating_add(CRAWL_BYTES))
    }

    fn largest_record(&self) -> ByteCount {
        self.max_record_bytes
    }

    async fn open(self: Box<Self>, cx: &Context) -> Result<Box<dyn Source>> {
        let fetcher = cx.service::<Fetcher>()?.with(&self.http)?;
        let root = Location::parse(&self.url, cx.base_dir())?;
        let settings = Settings {
            options: self.read_options(),
            window: self.window.unwrap_or(cx.max_concurrency()).max(1),
            is_ordered: false,
            origin: false,
            allow_empty: self.allow_empty,
            what: format!("items in {root}"),
            is_remote: root.is_remote(),
            incremental: None,
            on_change: OnChange::Fail,
            beside: CRAWL_BYTES,
            rows_of: None,
        };
        let memory = cx.share().reserve(CRAWL_BYTES).await?;
        let crawl = Crawl { cx: cx.clone(), fetcher: fetcher.clone(), root, config: *self, memory };
        let inputs = |_: Option<&_>| crawl.inputs();
        Ok(Box::new(FileSet::open(cx, fetcher, settings, inputs).await?))
    }
}

impl Config {
    fn read_options(&self) -> ReadOptions {
        ReadOptions {
            format: FormatOption::Is(Format::Stac),
            new_fields: self.new_fields,
            infer_rows: self.infer_rows,
            max_record_bytes: self.max_record_bytes,
            ..ReadOptions::default()
        }
    }
}

/// The way through a catalogue.
struct Crawl {
    cx: Context,
    fetcher: Fetcher,
    root: Location,
    config: Config,
    /// Held until the last item is found.
    memory: Reservation,
}

/// A catalogue or a collection, as far as it is followed.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    id: String,
    links: Option<Vec<Link>>,
}

/// One without a kind or a place leads nowhere.
#[derive(Debug, Deserialize)]
struct Link {
    rel: Option<String>,
    href: Option<String>,
}

/// A catalogue that is to be looked at.
#[derive(Clone)]
struct Place {
    at: Location,
    /// Whether it is, or is below, a collection that was asked for.
    is_wanted: bool,
}

impl Crawl {
    /// The items, as they are found.
    fn inputs(self) -> Inputs {
        Box::pin(try_stream! {
            let (mut met, mut given) = (Met::default(), HashSet::new());
            let mut linked = LinkedItems::new(&self.cx).await?;
            let is_wanted = self.config.collections.is_empty();
            let mut level = vec![Place { at: self.root.clone(), is_wanted }];
            met.insert(&self.root, is_wanted)?;
            for depth in 0..self.config.max_depth {
                let mut next = Vec::new();
                let mut documents = self.documents(std::mem::take(&mut level));
                while let Some(document) = documents.next().await {
                    let (place, document) = document?;
                    let Some((found, document)) = self.settled(&place, document, depth == 0)? else { continue };
                    if found != place.at && !met.insert(&found, place.is_wanted)? {
                        continue;
                    }
                    let is_wanted = place.is_wanted || self.config.collections.contains(&document.id);
                    // One that was met on two ways gives its items once.
                    let gives = is_wanted && given.insert(found.to_string());
                    let mut items = Vec::new();
                    for link in document.links.into_iter().flatten() {
                        let (Some(rel), Some(href)) = (link.rel, link.href) else { continue };
                        if !(rel == "child" || (rel == "item" && gives)) {
                            continue;
                        }
                        match below(&found, &href) {
                            Err(error) => self.refuse(&found, error)?,
                            Ok(at) if rel == "item" => items.push(at),
                            // What was passed on the way to another collection is looked at again for this one.
                            Ok(at) if met.insert(&at, is_wanted)? => next.push(Place { at, is_wanted }),
                            Ok(_) => {}
                        }
                    }
                    for at in linked.first_met(items).await? {
                        let trust = self.trust(&at);
                        yield Found::Input(Box::new(Input::new(at, trust)));
                    }
                }
                level = next;
                if level.is_empty() {
                    break;
                }
            }
            if !level.is_empty() {
                Err(self.too_deep())?;
            }
            drop((linked, self.memory));
        })
    }

    /// The documents of a level, in order, some of them fetched at once.
    fn documents(
        &self,
        level: Vec<Place>,
    ) -> impl futures::Stream<Item = Result<(Place, Result<(Location, Document)>)>> + Send + Unpin + use<>
    {
        let limit = WindowLimit::tasks(self.cx.max_concurrency().min(SMALL_AT_ONCE));
        let (cx, fetcher, large) = (self.cx.clone(), self.fetcher.clone(), Arc::new(Semaphore::new(1)));
        let fetch = move |(place, trust): (Place, Trust)| {
            let (cx, fetcher, large) = (cx.clone(), fetcher.clone(), Arc::clone(&large));
            async move {
                let document = document(&cx, &fetcher, (&place.at, trust), &large).await;
                (place, document)
            }
        };
        let level: Vec<_> = level.into_iter().map(|place| (place.clone(), self.trust(&place.at))).collect();
        let documents = window_ordered(stream::iter(level), limit, self.cx.tasks(), fetch);
        Box::pin(documents.map(|document| Ok(document?.into_inner())))
    }

    /// A document; nothing, where the policy takes a bad one. A bad root is an error.
    fn settled<D>(&self, place: &Place, document: Result<D>, is_root: bool) -> Result<Option<D>> {
        match document {
            Ok(document) => Ok(Some(document)),
            Err(error) if is_root => Err(error),
            Err(error) => self.refuse(&place.at, error).map(|()| None),
        }
    }

    /// A document, or a link in it, that cannot be followed: the policy decides.
    fn refuse(&self, at: &Location, error: Error) -> Result<()> {
        let origin = Origin { file: at.to_string(), ..Origin::default() };
        let (item, reason, message) = (RejectedItem::File, "catalog", error.chain());
        self.cx.reject(Reject { item, reason, message, origin, raw: Vec::new() })
    }

    /// A catalogue on this machine is the operator's own, and so is a store that the flow names: they may lead to their
    /// like. Other links are data.
    fn trust(&self, at: &Location) -> Trust {
        match (&self.root, at) {
            (Location::Local(_), Location::Local(_)) => Trust::Flow,
            (Location::Http(url), _) => Trust::Data { origin: Some(url.clone()) },
            (Location::Store { root, .. }, Location::Store { root: other, .. }) if root == other => {
                Trust::Flow
            }
            (Location::Local(_) | Location::Store { .. }, _) => Trust::Data { origin: None },
        }
    }

    fn too_deep(&self) -> Error {
        let message =
            format!("catalogues lie more than {} links deep; raise `max_depth`", self.config.max_depth);
        Error::new(ErrorKind::Limit, "follow catalogue", message).with("url", &self.root)
    }
}

/// The catalogues and collections that were met.
#[derive(Default)]
struct Met {
    places: HashSet<(String, bool)>,
    n_bytes: usize,
}

impl Met {
    /// Whether it was not met before.
    fn insert(&mut self, at: &Location, is_wanted: bool) -> Result<bool> {
        let name = at.to_string();
        let n_bytes = name.len();
        if !self.places.insert((name, is_wanted)) {
            return Ok(false);
        }
        // The name stands here, and in the level that it is of.
        self.n_bytes += 2 * n_bytes;
        if self.places.len() <= MAX_CATALOGS && self.n_bytes <= NAMES_BYTES.as_usize() {
            return Ok(true);
        }
        let message = format!(
            "more than {MAX_CATALOGS} catalogues and collections, or {NAMES_BYTES} of their names; begin further down"
        );
        Err(Error::new(ErrorKind::Limit, "follow catalogue", message).with("at", at))
    }
}

/// Fetches and reads a document; with where it was found, after redirects. Of large ones, one at a time.
async fn document(
    cx: &Context,
    fetcher: &Fetcher,
    (at, trust): (&Location, Trust),
    large: &Semaphore,
) -> Result<(Location, Document)> {
    let mut turn = None;
    let Fetched { meta, mut body } = fetcher.get(at, trust, cx.metrics()).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        cx.metrics().bytes.add_len(chunk.len());
        let n_bytes = ByteCount::of(bytes.len() + chunk.len());
        if n_bytes > SMALL_DOCUMENT_BYTES && turn.is_none() {
            turn = Some(large.acquire().await.map_err(|_| Error::cancelled("read catalogue"))?);
        }
        bytes.extend_from_slice(&chunk);
        if n_bytes > MAX_DOCUMENT_BYTES {
            let message = format!("the document is larger than {MAX_DOCUMENT_BYTES}");
            return Err(Error::new(ErrorKind::Limit, "read catalogue", message).with("url", at));
        }
    }
    let wrong = |message: String| Error::new(ErrorKind::Data, "read catalogue", message).with("url", at);
    let document: Document = serde_json::from_slice(&bytes)
        .map_err(|error| wrong("it is no JSON object of a STAC catalogue".into()).with_source(error))?;
    if document.links.is_none() {
        let kind = document.kind.as_deref().unwrap_or("nothing");
        return Err(wrong(format!(
            "its `type` is {kind} and it has no `links`; expected a catalogue or a collection"
        )));
    }
    Ok((meta.location, document))
}

/// A link as it stands in a document.
fn below(base: &Location, href: &str) -> Result<Location> {
    let wrong = || {
        let message = "the link leads nowhere that can be read";
        Error::new(ErrorKind::Data, "follow catalogue", message).with("href", href).with("in", base)
    };
    match base {
        _ if href.contains("://") => Location::parse(href, Path::new("")),
        Location::Http(url) => url.join(href).map(Location::Http).map_err(|error| wrong().with_source(error)),
        Location::Local(path) => {
            Ok(Location::Local(plain_path(&path.parent().unwrap_or(Path::new("")).join(href))))
        }
        Location::Store { root, key } => {
            let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
            Ok(Location::Store { root: root.clone(), key: joined_key(folder, href).ok_or_else(wrong)? })
        }
    }
}

/// A path without detours, so that one document has one name.
fn plain_path(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            part => plain.push(part),
        }
        plain
    })
}

/// A relative name below a folder of a store; nothing, if it leads above the store.
fn joined_key(folder: &str, href: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in href.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
