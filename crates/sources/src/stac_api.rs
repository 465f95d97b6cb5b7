//! `stac_api`: items of a STAC API's search, in the layout of stac-geoparquet.
//!
//! Order: within a slice as the server has it, none between slices. Memory: a reserve for each slice that is read at once;
//! pages wait on the disk. See [`paged`](crate::paged) for how a run goes on and why no item comes twice.
//!
//! Formats: STAC API - Item Search 1.0.0 (<https://api.stacspec.org>), its Query and Filter extensions, and its two ways to
//! the next page: a link, or a link with a body that is merged into the question or takes its place.

mod search;
mod slices;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aqueduct_core::{
    ComponentInfo, Context, Error, ErrorKind, Factory, MemoryNeed, Planning, Problem, Result, Source,
    SourceConfig, units,
};
use aqueduct_formats::{Format, FormatOption, InferRows, NewFields, ReadOptions};
use aqueduct_net::{Auth, Fetched, Fetcher, HttpOptions, Location, Trust};
use aqueduct_primitives::ByteCount;
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::search::Search;
use self::slices::{Asked, Between};
use crate::paged::{self, Ask, Envelope, Opening, Sampling, Service};
use crate::when::When;

pub use self::slices::Split;

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "stac_api",
    summary: "Items of a STAC API's search, page by page, in the layout of stac-geoparquet",
    example: "stac_api: { url: \"https://stac.example/v1\", collections: [sentinel-2-l2a], datetime: 2026-01-01/2026-01-31 }",
});

/// Options of `stac_api`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The root of the API, or its search itself.
    pub url: String,
    /// Only items of these collections.
    #[serde(default)]
    pub collections: Vec<String>,
    /// Only items with these ids.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Only items whose place touches this box: west, south, east, north, or with heights west, south, lowest, east, north,
    /// highest.
    pub bbox: Option<Vec<f64>>,
    /// Only items of this time: a day, an instant, or `FROM/TO`, of which one may be `..`. A day is meant whole; `TO` is an
    /// instant before which, or the last day. `today` and `-7d` work, and mean what they did when the run was begun.
    pub datetime: Option<String>,
    /// Only items whose place touches this GeoJSON geometry.
    pub intersects: Option<Value>,
    /// Only items for which this is true: CQL2 as text, or as JSON.
    pub filter: Option<Value>,
    /// How many items to ask for at once. Without it the server decides.
    pub page_size: Option<u32>,
    /// The same, as searches call it.
    pub limit: Option<u32>,
    /// At most so many items in all.
    pub max_items: Option<u64>,
    /// Read `datetime` in slices, several at once. Each item comes in the slice of its `datetime`, or where it has none of
    /// its `start_datetime`.
    pub split: Option<Split>,
    /// What the columns are: those of the first items, or of all, which takes the disk for all pages.
    #[serde(default)]
    pub schema: SchemaOf,
    /// With `schema: sample`: of so many items, though it takes several pages. Without it those of the first page that has
    /// any.
    pub infer_rows: Option<u64>,
    /// What to do with fields that are no columns.
    #[serde(default)]
    pub new_fields: NewFields,
    /// Read only what came since the last run that was committed.
    pub incremental: Option<Incremental>,
    /// An item larger than this is an error.
    #[serde(default = "default_max_record_bytes", deserialize_with = "units::byte_count")]
    #[schemars(with = "units::Size", extend("default" = "16MiB"))]
    pub max_record_bytes: ByteCount,
    /// How pages are fetched, on top of the flow's `http`.
    #[serde(flatten)]
    pub http: HttpOptions,
}

/// Of which items the columns are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SchemaOf {
    /// The first ones; what later ones have beside goes by `new_fields`.
    #[default]
    Sample,
    /// All: pages are fetched once and read twice.
    Union,
}

/// Reading only what came since.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Incremental {
    /// The time by which items are new: `datetime`, `updated`, `created`. For others than `datetime` the API must know the
    /// Filter extension.
    pub column: String,
    /// From where on the first run reads; without it from the beginning.
    pub start: Option<String>,
    /// So far before the newest item that was committed the next run begins, for items that come late. Items that were
    /// committed do not come again.
    #[serde(default, deserialize_with = "units::duration", serialize_with = "units::write_duration")]
    #[schemars(with = "units::Period")]
    pub lag: Duration,
}

fn default_max_record_bytes() -> ByteCount {
    ReadOptions::default().max_record_bytes
}

/// The root of an API with links to all its collections is no larger.
const MAX_LANDING_BYTES: usize = 8 << 20;

/// Columns that an incremental run may go by: times of the items themselves.
const TIMES: [&str; 5] = ["datetime", "updated", "created", "start_datetime", "published"];

#[async_trait]
impl SourceConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.http.validate();
        let mut wrong = |pointer: &str, message: String| problems.push(Problem::at(pointer, message));
        match Location::parse(&self.url, Path::new("")) {
            Ok(Location::Http(_)) => {}
            _ => wrong(
                "/url",
                format!("`{}` is no http or https URL; expected the root of a STAC API", self.url),
            ),
        }
        if let Some(Err(message)) = self.datetime.as_ref().map(|text| text.parse::<Asked>()) {
            wrong("/datetime", message);
        }
        if let Some(message) = self.bbox.as_deref().and_then(box_problem) {
            wrong("/bbox", message);
        }
        if self.page_size.is_some() && self.limit.is_some() {
            wrong("/limit", "`page_size` says the same; expected one of them".into());
        }
        if self.bbox.is_some() && self.intersects.is_some() {
            wrong("/intersects", "a search takes `bbox` or `intersects`, not both".into());
        }
        if self
            .intersects
            .as_ref()
            .is_some_and(|place| place.get("type").is_none_or(|kind| !kind.is_string()))
        {
            wrong("/intersects", "expected a GeoJSON geometry: an object with a `type`".into());
        }
        if self.filter.as_ref().is_some_and(|filter| !filter.is_string() && !filter.is_object()) {
            wrong("/filter", "expected CQL2: a text, or an object of its JSON form".into());
        }
        for (pointer, is_zero) in [
            ("/page_size", self.page_size == Some(0)),
            ("/limit", self.limit == Some(0)),
            ("/max_items", self.max_items == Some(0)),
            ("/infer_rows", self.infer_rows == Some(0)),
        ] {
            if is_zero {
                wrong(pointer, "expected at least 1".into());
            }
        }
        if let Some(message) = self.split.and_then(|_| self.split_problem()) {
            wrong("/split", message);
        }
        problems.extend(self.incremental.as_ref().map(|one| one.problems(self)).into_iter().flatten());
        problems
    }

    fn known_schema(&self, _: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        Ok(None)
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        paged::need(self.n_at_once(planning.max_concurrency))
    }

    fn largest_record(&self) -> ByteCount {
        self.max_record_bytes
    }

    fn is_incremental(&self) -> bool {
        self.incremental.is_some()
    }

    async fn open(self: Box<Self>, cx: &Context) -> Result<Box<dyn Source>> {
        let fetcher = cx.service::<Fetcher>()?.with(&self.http)?;
        let Location::Http(root) = Location::parse(&self.url, cx.base_dir())? else {
            return Err(Error::new(ErrorKind::Config, "open stac_api", "expected an http or https URL"));
        };
        fetcher.trust(host_of(root.as_ref()));
        let plan = paged::planned(cx, self.plan(cx, &fetcher)).await?;
        let opening = Opening {
            fetcher,
            options: self.read_options(),
            trust: Trust::Data { origin: Some(root.clone()) },
            home: Location::Http(root),
            sampling: match self.schema {
                SchemaOf::Sample => Sampling::First(self.infer_rows.unwrap_or(1)),
                SchemaOf::Union => Sampling::All,
            },
            n_at_once: self.n_at_once(cx.max_concurrency()),
            max_items: self.max_items,
            is_incremental: self.is_incremental(),
            times: if self.is_incremental() { vec!["datetime", "updated"] } else { Vec::new() },
        };
        let asks = self.asks();
        let service =
            Arc::new(Items::new(plan, asks, self.incremental.map(|one| one.column), paged::reached(cx))?);
        Ok(Box::new(opening.open(cx, service).await?))
    }
}

/// A host as the flow names it.
fn host_of(url: &str) -> Option<String> {
    let Ok(Location::Http(url)) = Location::parse(url, Path::new("")) else { return None };
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn box_problem(bbox: &[f64]) -> Option<String> {
    let half = bbox.len() / 2;
    if bbox.len() != 4 && bbox.len() != 6 {
        return Some(format!(
            "{} numbers; expected 4: west, south, east, north, or 6 with heights",
            bbox.len()
        ));
    }
    if bbox.iter().any(|value| !value.is_finite()) {
        return Some("expected finite numbers".into());
    }
    // West may be east of east, across the antimeridian.
    (bbox[1] > bbox[half + 1]).then(|| {
        format!("south is {} and north {}; expected south to be no greater", bbox[1], bbox[half + 1])
    })
}

impl Incremental {
    fn problems(&self, config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !TIMES.contains(&self.column.as_str()) {
            let message =
                format!("`{}` is no time of an item; expected one of {}", self.column, TIMES.join(", "));
            problems.push(Problem::at("/incremental/column", message));
        }
        if let Some(Err(message)) = self.start.as_ref().map(|text| text.parse::<When>()) {
            problems.push(Problem::at("/incremental/start", message));
        }
        if config.max_items.is_some() {
            let message =
                "with `incremental` all that is new is read: what `max_items` leaves out would never come";
            problems.push(Problem::at("/max_items", message));
        }
        if self.column == "datetime" && config.datetime.is_some() {
            let message = "with `incremental` the time that is asked for follows from what was committed; \
                           say `start` in it";
            problems.push(Problem::at("/datetime", message));
        }
        problems
    }

    /// From where on this run asks: before the newest item of earlier runs, else from the start.
    fn since(&self, cx: &Context, asks: &str) -> Result<Option<DateTime<Utc>>> {
        let newest = paged::newest(cx, asks).and_then(DateTime::from_timestamp_micros);
        if let Some(newest) = newest {
            // An item of the future must not hide those that come until then.
            let newest = newest.min(cx.clock().now());
            let lag = TimeDelta::from_std(self.lag).unwrap_or(TimeDelta::MAX);
            return Ok(Some(newest.checked_sub_signed(lag).unwrap_or(DateTime::<Utc>::MIN_UTC)));
        }
        let start = self.start.as_ref().map(|text| text.parse::<When>()).transpose();
        let start = start.map_err(|message| Error::new(ErrorKind::Config, "read time", message))?;
        Ok(start.map(|when| when.start(cx.clock().now())))
    }
}

/// What a run asks for.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    search: Search,
    between: Between,
    split: Option<Split>,
}

impl Config {
    fn n_at_once(&self, max_concurrency: usize) -> usize {
        if self.split.is_some() { max_concurrency.max(1) } else { 1 }
    }

    /// What is asked for but the time, as a hash: secrets may be in it.
    fn asks(&self) -> String {
        let column = self.incremental.as_ref().map(|one| &one.column);
        let asked = serde_json::json!([self.url, column, self.question(None)]);
        blake3::hash(asked.to_string().as_bytes()).to_hex().to_string()
    }

    fn split_problem(&self) -> Option<String> {
        let asked = self.datetime.as_ref()?.parse::<Asked>().ok();
        let is_closed = matches!(asked, Some(Asked::Range(Some(_), Some(_))));
        (!is_closed).then(|| "`split` needs a `datetime` with both ends: FROM/TO".to_owned())
    }

    fn read_options(&self) -> ReadOptions {
        ReadOptions {
            format: FormatOption::Is(Format::Stac),
            new_fields: self.new_fields,
            max_record_bytes: self.max_record_bytes,
            infer_rows: InferRows::All,
            ..ReadOptions::default()
        }
    }

    /// What is asked for now; a run that goes on keeps to it.
    async fn plan(&self, cx: &Context, fetcher: &Fetcher) -> Result<Plan> {
        let asked = self.datetime.as_ref().map(|text| text.parse::<Asked>()).transpose();
        let asked = asked.map_err(|message| Error::new(ErrorKind::Config, "read time", message))?;
        let mut between = Between::of(asked, cx.clock().now());
        let mut since = None;
        if let Some(incremental) = &self.incremental {
            let from = incremental.since(cx, &self.asks())?;
            match incremental.column.as_str() {
                "datetime" => between.from = from,
                column => {
                    since = from.map(|from| (column, from.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
                }
            }
        }
        let since = since.as_ref().map(|(column, instant)| (*column, instant.as_str()));
        let landing = self.landing(cx, fetcher).await?;
        let hidden = match &self.http.auth {
            Some(Auth::Query { name, .. }) => Some(name.clone()),
            _ => None,
        };
        let (root, landing) = landing.map_or((self.url.clone(), None), |(at, landing)| (at, Some(landing)));
        let search = Search::of(&root, landing.as_ref(), self.question(since), hidden)?;
        Ok(Plan { search, between, split: self.split })
    }

    /// The root of the API, and its URL after redirects, which its links are relative to; nothing, where the flow names the
    /// search itself.
    async fn landing(&self, cx: &Context, fetcher: &Fetcher) -> Result<Option<(String, Envelope)>> {
        let at = Location::parse(&self.url, cx.base_dir())?;
        if matches!(&at, Location::Http(url) if url.path().trim_end_matches('/').ends_with("/search")) {
            return Ok(None);
        }
        let Fetched { meta, mut body } = fetcher.get(&at, Trust::Flow, cx.metrics()).await?;
        let Location::Http(found) = meta.location else {
            return Err(Error::bug("open stac_api", "a URL leads to no URL"));
        };
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() > MAX_LANDING_BYTES {
                let message = "the root of the API is too large; name its search in `url`";
                return Err(Error::new(ErrorKind::Limit, "open stac_api", message)
                    .with("url", &at)
                    .with("limit_bytes", MAX_LANDING_BYTES));
            }
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(landing)) => Ok(Some((found.into(), landing))),
            _ => {
                let message = "what is there is no JSON object; expected the root of a STAC API";
                Err(Error::new(ErrorKind::Data, "open stac_api", message).with("url", &at))
            }
        }
    }
}

/// The items of a plan.
struct Items {
    search: Search,
    whole: Between,
    slices: Vec<Between>,
    asks: String,
    /// By which column items are new, and the newest that was given.
    reached: Option<(String, Mutex<Option<i64>>)>,
}

impl Items {
    fn new(plan: Plan, asks: String, column: Option<String>, reached: Option<i64>) -> Result<Self> {
        let Plan { search, between, split } = plan;
        let reached = column.map(|column| (column, Mutex::new(reached)));
        Ok(Self { search, whole: between, slices: between.slices(split)?, asks, reached })
    }

    fn slice(&self, slice: u64) -> Between {
        let at = usize::try_from(slice).unwrap_or(usize::MAX);
        self.slices.get(at).copied().unwrap_or(self.whole)
    }
}

impl Service for Items {
    fn n_slices(&self) -> u64 {
        self.slices.len() as u64
    }

    fn name(&self, slice: u64) -> String {
        self.slice(slice).text().unwrap_or_else(|| "all time".to_owned())
    }

    fn first(&self, slice: u64) -> Ask {
        self.search.first(self.slice(slice).text())
    }

    fn next(&self, slice: u64, asked: &Ask, page: &Envelope) -> Result<Option<Ask>> {
        self.search.next(self.slice(slice).text(), asked, page)
    }

    fn owned(&self, slice: u64, rows: &RecordBatch) -> Option<BooleanArray> {
        self.slice(slice).owned(self.whole, rows)
    }

    fn keys(&self, rows: &RecordBatch) -> Vec<u128> {
        keys(rows)
    }

    fn give(&self, rows: &RecordBatch) {
        let Some((column, reached)) = &self.reached else { return };
        let times = rows
            .column_by_name(column)
            .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let of_rows = times.and_then(arrow::compute::max);
        let mut reached = reached.lock().unwrap_or_else(PoisonError::into_inner);
        *reached = (*reached).max(of_rows);
    }

    fn reached(&self) -> Option<i64> {
        *self.reached.as_ref()?.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asks(&self) -> String {
        self.asks.clone()
    }
}

/// An item is known by its collection, its id and when it was updated.
fn keys(rows: &RecordBatch) -> Vec<u128> {
    let text = |name: &str| rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let (collections, ids) = (text("collection"), text("id"));
    let updated = rows.column_by_name("updated");
    let times = updated.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let texts = updated.and_then(|column| column.as_string_opt::<i32>());
    let part = |hasher: &mut blake3::Hasher, part: Option<&[u8]>| {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        hasher.update(&length.to_le_bytes()).update(part.unwrap_or_default());
    };
    let key = |row: usize| {
        let mut hasher = blake3::Hasher::new();
        part(&mut hasher, bytes_at(collections, row));
        part(&mut hasher, bytes_at(ids, row));
        let time = times.filter(|times| times.is_valid(row)).map(|times| times.value(row).to_le_bytes());
        part(&mut hasher, time.as_ref().map(<[u8; 8]>::as_slice));
        part(&mut hasher, bytes_at(texts, row));
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        u128::from_le_bytes(key)
    };
    (0..rows.num_rows()).map(key).collect()
}

fn bytes_at(column: Option<&StringArray>, row: usize) -> Option<&[u8]> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row).as_bytes())
}
