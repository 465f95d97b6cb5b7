//! What stands before the first row: what is asked for, fixed on the disk, and the columns.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use aqueduct_core::{Context, Durable, Error, ErrorKind, Fs, Keeper, Result};
use aqueduct_formats::{DecodedLimits, Inference, NewFields, ReadOptions, decode_file, look_at_file, stac};
use aqueduct_net::{Fetcher, Location, Trust};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::{Fields, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decoding::Decoding;
use super::given::{Given, damaged, memory_of_keys, need_of_keys};
use super::pages::{KeptPages, Page, Pages};
use super::trail::{ItemsOfPage, MAX_WALKS, TRAIL_BYTES, Trail, is_lost, tell_lost};
use super::{Paged, Service};
use crate::file_set::frozen::{columns_in, keep_columns_in};
use crate::file_set::memory::{Division, need_of_files};
use crate::file_set::ndjson::{Disk, failed, make_folder, rename};

const PLAN: &str = "plan.json";
/// A plan names what is asked for: no flow file is larger.
const MAX_PLAN_BYTES: u64 = 16 << 20;
/// Pages that are fetched in search of the columns, at most.
const MAX_SAMPLE_PAGES: usize = 100;

/// How a service is read.
pub(crate) struct Opening {
    pub(crate) fetcher: Fetcher,
    pub(crate) options: ReadOptions,
    /// Who names the pages after the first.
    pub(crate) trust: Trust,
    /// The server as the flow names it.
    pub(crate) home: Location,
    pub(crate) sampling: Sampling,
    /// Slices read at once.
    pub(crate) n_at_once: usize,
    pub(crate) max_items: Option<u64>,
    /// Columns that are there whatever the sample has: what runs know items by must be the same in all of them.
    pub(crate) times: Vec<&'static str>,
    /// Whether what earlier runs have given is not given again.
    pub(crate) is_incremental: bool,
}

/// Of which items the columns are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sampling {
    /// The first so many, and what else is on their pages.
    First(u64),
    /// All.
    All,
}

/// What a step keeps from run to run.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The run that kept it: what is not incremental starts anew with the next.
    run: String,
    given: Value,
    /// What was asked for.
    #[serde(default)]
    asks: String,
    /// The newest time of an item in runs that gave all there was, in microseconds since 1970: what comes before it needs not
    /// be asked for. Servers give the newest first, so that of a run that was not whole it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<i64>,
    /// The same of the run that kept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reached: Option<i64>,
}

impl Kept {
    fn of(cx: &Context) -> Option<Self> {
        Self::deserialize(cx.durable()?.kept()?).ok()
    }
}

/// The memory of a step that reads so many slices at once.
pub(crate) fn need(n_at_once: usize) -> aqueduct_core::MemoryNeed {
    let files = need_of_files(n_at_once, false);
    let (min_keys, max_keys) = need_of_keys();
    let trails = TRAIL_BYTES.saturating_mul(n_at_once as u64);
    aqueduct_core::MemoryNeed::between(
        files.min.saturating_add(min_keys).saturating_add(TRAIL_BYTES),
        files.want.saturating_add(max_keys).saturating_add(trails),
    )
}

/// What the run asks for, as it stood when it was begun: the clock says something else when it goes on.
///
/// # Errors
/// `make`'s own, or the disk's.
pub(crate) async fn planned<T>(cx: &Context, make: impl Future<Output = Result<T>> + Send) -> Result<T>
where
    T: Serialize + DeserializeOwned + Send,
{
    let Some(durable) = cx.durable() else { return make.await };
    let (disk, dir) = (Disk::of(cx), durable.run_dir().clone());
    let path = dir.join(PLAN);
    let there = path.clone();
    if let Some(bytes) = disk.block(move |fs| read_if_there(fs, &there)).await? {
        return serde_json::from_slice(&bytes).map_err(|error| {
            let message = "what the run asks for is damaged on the disk; `--fresh` begins anew";
            Error::new(ErrorKind::Conflict, "resume", message).with("path", path.display()).with_source(error)
        });
    }
    let plan = make.await?;
    let bytes = serde_json::to_vec(&plan)
        .map_err(|error| Error::bug("keep plan", "it has no JSON").with_source(error))?;
    check_plan(bytes.len() as u64)?;
    disk.block(move |fs| write_private(fs, &dir, &path, &bytes)).await?;
    Ok(plan)
}

/// A longer plan could not be read again: the run could never go on.
fn check_plan(n_bytes: u64) -> Result<()> {
    if n_bytes <= MAX_PLAN_BYTES {
        return Ok(());
    }
    let message = "what the run asks for is too long to be kept; ask for it in several flows";
    let error = Error::new(ErrorKind::Limit, "keep plan", message);
    Err(error.with("bytes", n_bytes).with("limit", MAX_PLAN_BYTES))
}

fn read_if_there(fs: &dyn Fs, path: &Path) -> Result<Option<Vec<u8>>> {
    match fs.stat(path).map_err(|error| failed(path, error))? {
        Some(_) => fs.read(path, MAX_PLAN_BYTES).map(Some).map_err(|error| failed(path, error)),
        None => Ok(None),
    }
}

fn write_private(fs: &dyn Fs, dir: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    make_folder(fs, dir)?;
    let fresh = path.with_extension("new");
    let written = fs.remove_file(&fresh).and_then(|()| {
        let mut file = fs.create_private(&fresh)?;
        file.write_all(bytes)?;
        file.sync()
    });
    written.map_err(|error| failed(&fresh, error))?;
    rename(fs, &fresh, path)
}

/// Up to which time earlier runs have given all that is asked for.
pub(crate) fn newest(cx: &Context, asks: &str) -> Option<i64> {
    let kept = Kept::of(cx)?;
    if kept.newest.is_some() && kept.asks != asks {
        cx.warn("another question than in earlier runs: all it asks for is read once more, and what was given is left out");
        return None;
    }
    kept.newest
}

/// The newest time of an item that this run has given before it goes on.
pub(crate) fn reached(cx: &Context) -> Option<i64> {
    Kept::of(cx).filter(|kept| kept.run == cx.run_id())?.reached
}

impl Opening {
    /// Finds the columns, in what an earlier process of the run found, or in the first pages.
    ///
    /// # Errors
    /// Pages cannot be fetched or read; what was kept is damaged.
    ///
    /// # Cancel safety
    /// Dropping the future closes what it had opened.
    pub(crate) async fn open(self, cx: &Context, service: Arc<dyn Service>) -> Result<Paged> {
        let (given, memory_of_given) = Given::open(cx, self.given_before(cx)?).await?;
        let share = cx.share().total();
        let others = memory_of_keys(share).saturating_add(TRAIL_BYTES.saturating_mul(self.n_at_once as u64));
        let decoding = Decoding { division: Division::of(share.saturating_sub(others), self.n_at_once) };
        let kept = match (cx.durable(), self.sampling) {
            (Some(durable), Sampling::All) => Some(KeptPages::new(cx, durable.run_dir())),
            _ => None,
        };
        let options = Arc::new(self.options);
        let pages = Arc::new(Pages {
            cx: cx.clone(),
            fetcher: self.fetcher,
            service: Arc::clone(&service),
            options: Arc::clone(&options),
            decoding,
            trust: self.trust,
            home: self.home,
            kept,
        });
        let (read, fetched) =
            columns(cx, &pages, &self.times, self.sampling, decoding.division.decoder()).await?;
        let is_whole = Arc::default();
        if let Some(durable) = cx.durable() {
            durable.register(Arc::new(PagesKeeper {
                run: cx.run_id().to_owned(),
                given: given.clone(),
                service: Arc::clone(&service),
                newest: Kept::of(cx).filter(|kept| kept.asks == service.asks()).and_then(|kept| kept.newest),
                is_whole: Arc::clone(&is_whole),
            }));
        }
        let max_items = self.max_items;
        Ok(Paged {
            service,
            pages,
            given,
            memory_of_given,
            decoding,
            read,
            options,
            fetched,
            max_items,
            is_whole,
        })
    }

    fn given_before(&self, cx: &Context) -> Result<Option<Value>> {
        let Some(value) = cx.durable().and_then(Durable::kept) else { return Ok(None) };
        let kept = Kept::deserialize(value).map_err(|error| damaged(value).with_source(error))?;
        Ok((self.is_incremental || kept.run == cx.run_id()).then_some(kept.given))
    }
}

struct PagesKeeper {
    run: String,
    given: Given,
    service: Arc<dyn Service>,
    /// Up to where earlier runs have given all there was.
    newest: Option<i64>,
    is_whole: Arc<AtomicBool>,
}

#[async_trait]
impl Keeper for PagesKeeper {
    async fn keep(&self) -> Result<Option<Value>> {
        let given = self.given.keep().await?;
        let reached = self.service.reached();
        let newest = if self.is_whole.load(Relaxed) { self.newest.max(reached) } else { self.newest };
        let kept = Kept { run: self.run.clone(), given, asks: self.service.asks(), newest, reached };
        let value = serde_json::to_value(kept)
            .map_err(|error| Error::bug("keep items", "they have no JSON").with_source(error))?;
        Ok(Some(value))
    }
}

/// The columns to read, and the pages that were fetched for them and are at hand.
async fn columns(
    cx: &Context,
    pages: &Pages,
    times: &[&str],
    sampling: Sampling,
    memory: ByteCount,
) -> Result<(SchemaRef, Vec<(u64, Page)>)> {
    if let Some(durable) = cx.durable()
        && let Some(columns) = columns_in(&Disk::of(cx), durable.run_dir()).await?
    {
        return Ok((columns, Vec::new()));
    }
    let _reserve = cx.share().reserve(memory.min(cx.share().free())).await?;
    let (columns, fetched) = look(cx, pages, sampling).await?;
    let columns = stac::with_times(&columns, times);
    if let Some(durable) = cx.durable() {
        keep_columns_in(&Disk::of(cx), durable.run_dir(), &columns).await?;
    }
    Ok((columns, fetched))
}

/// Looks at pages, slice after slice, until enough items were seen.
async fn look(cx: &Context, pages: &Pages, sampling: Sampling) -> Result<(SchemaRef, Vec<(u64, Page)>)> {
    let mut looked = Looked { cx, pages, sampling, seen: Inference::default(), fetched: Vec::new() };
    for slice in 0..pages.service.n_slices() {
        if looked.at_slice(slice).await? {
            break;
        }
    }
    let Looked { seen, fetched, .. } = looked;
    Ok((if seen.n_rows() == 0 { stac::layout() } else { seen.schema()? }, fetched))
}

/// What was seen of pages, and those with items that are at hand.
struct Looked<'a> {
    cx: &'a Context,
    pages: &'a Pages,
    sampling: Sampling,
    seen: Inference,
    fetched: Vec<(u64, Page)>,
}

impl Looked<'_> {
    /// Looks at the pages of a slice; whether enough was seen.
    async fn at_slice(&mut self, slice: u64) -> Result<bool> {
        let first = (1, self.pages.service.first(slice));
        let (mut trail, mut n_walks, mut next) = (Trail::default(), 1, Some(first.clone()));
        while let Some((number, ask)) = next.take() {
            let page = match self.pages.get(slice, number, ask).await {
                Ok(page) => page,
                Err(error) if number > 1 && n_walks < MAX_WALKS && is_lost(&error) => {
                    tell_lost(&self.pages.service.name(slice), number, &error);
                    self.pages.forget(slice, number).await?;
                    n_walks += 1;
                    (trail, next) = (Trail::default(), Some(first.clone()));
                    continue;
                }
                Err(error) => return Err(error),
            };
            trail
                .ask(number, &page.ask)
                .map_err(|error| error.with("slice", self.pages.service.name(slice)).with("page", number))?;
            next = page.next.clone().map(|ask| (number + 1, ask));
            // All pages stay on the disk: a server that does not go on must not fill it.
            if self.sampling == Sampling::All {
                let came = trail.came(number, &self.items_of(&page).await?);
                came.map_err(|error| error.with("slice", self.pages.service.name(slice)))?;
            }
            if self.at_page(slice, page).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The items of a page, known by their names alone.
    async fn items_of(&self, page: &Page) -> Result<ItemsOfPage> {
        let options = ReadOptions { new_fields: NewFields::Ignore, ..(*page.options).clone() };
        let layout = stac::layout();
        let names =
            layout.fields().iter().filter(|field| ["id", "collection"].contains(&field.name().as_str()));
        let columns = Arc::new(Schema::new(names.cloned().collect::<Fields>()));
        let spec = self.pages.decoding.spec(self.cx, &page.ask.shown(), Arc::new(options), columns, 0);
        let mut rows = decode_file(Arc::clone(&page.file), spec, self.cx.tasks());
        let mut items = ItemsOfPage::default();
        while let Some(decoded) = rows.next().await {
            items.add(&self.pages.service.keys(&decoded?.records));
        }
        Ok(items)
    }

    async fn at_page(&mut self, slice: u64, page: Page) -> Result<bool> {
        let (file, limits, tasks) = (Arc::clone(&page.file), DecodedLimits::default(), self.cx.tasks());
        let seen = look_at_file(file, &page.ask.shown(), &page.options, limits, tasks).await?;
        let has_items = seen.n_rows() > 0;
        self.seen.merge(seen);
        let Sampling::First(n_rows) = self.sampling else { return Ok(false) };
        if has_items {
            self.fetched.push((slice, page));
        }
        Ok(self.seen.n_rows() >= n_rows || self.fetched.len() >= MAX_SAMPLE_PAGES)
    }
}

#[cfg(test)]
mod tests {
    use aqueduct_primitives::Budget;

    use super::*;

    #[tokio::test]
    async fn a_plan_that_could_not_be_read_again_is_refused_before_anything_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let durable = Durable::new(None, dir.path().join("kept"), dir.path().join("run"));
        let memory = Budget::new("test", ByteCount::mib(1));
        let keep = |step: &mut aqueduct_core::StepContext| step.durable = Some(durable);
        let cx = Context::standalone_with(&memory, |_| {}, keep).unwrap();
        let long = "x".repeat(usize::try_from(MAX_PLAN_BYTES).unwrap());
        let error = planned(&cx, async { Ok(long) }).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Limit, "keep plan"), "{error}");
        assert_eq!(planned(&cx, async { Ok("short".to_owned()) }).await.unwrap(), "short");
        assert_eq!(planned(&cx, async { Ok("other".to_owned()) }).await.unwrap(), "short", "as it was kept");
    }
}
