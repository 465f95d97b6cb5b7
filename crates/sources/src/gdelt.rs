//! `gdelt`: GDELT 2.0's 15-minute files of events, mentions and the knowledge graph.
//!
//! Without `to`, each run reads what no earlier one has committed, from what the first run took `from` for up to what the list
//! has; the clock decides about nothing but what `from` means in that run. What is missing is asked for again.
//!
//! Order: none between files, by row within one. Memory: as for [`files`](crate::files), and one byte for each
//! interval asked for: the master list, of 115 MB, is read line by line. Sizes and digests are checked against
//! it; an interval that is not in it, or whose file is gone, is reported as a gap.
//! Formats: the GDELT 2.0 codebooks; the list: <http://data.gdeltproject.org/gdeltv2/masterfilelist.txt>.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use aqueduct_core::{
    ComponentInfo, Context, Error, ErrorKind, Factory, MemoryNeed, OtherFiles, Planning, Problem, Result,
    Source, SourceConfig, units,
};
use aqueduct_formats::{CsvOptions, Format, FormatOption, ReadOptions, declared_schema, output_schema};
use aqueduct_net::{Fetcher, HttpOptions, Location, Trust};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;

use self::list::Intervals;
use crate::file_set::gaps::Gaps;
use crate::file_set::input::{Found, Input, Inputs, list_lines};
use crate::file_set::memory::need_of_files;
use crate::file_set::seen::{By, OnlyNew, Reach, Seen};
use crate::file_set::verify::Expected;
use crate::file_set::{FileSet, Settings};
use crate::files::{self, again};
use crate::when::{When, range};

mod columns;
mod list;

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "gdelt",
    summary: "GDELT 2.0's 15-minute files, with the official columns",
    example: "gdelt: { dataset: events, from: 2026-01-01, to: 2026-01-07 }",
});

/// So many missing intervals are looked up together.
const MISSING_AT_ONCE: usize = 1000;

/// GDELT's own server answers plain HTTP with a redirect to this.
const OFFICIAL_BASE_URL: &str = "https://data.gdeltproject.org/gdeltv2";

/// Options of `gdelt`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which files.
    pub dataset: Dataset,
    /// The first instant or day: `2026-01-31`, `2026-01-31T12:00:00Z`, `today`, `-7d`. Without `to`, what the first run took
    /// it for stays.
    pub from: String,
    /// The instant before which, or the last day. Without it each run reads what there is and no earlier run has committed.
    pub to: Option<String>,
    /// Without `to`: a missing interval is asked for again by later runs, until the list has gone on for so long. Then a
    /// warning says that it is given up.
    #[serde(
        default = "three_days",
        deserialize_with = "units::duration",
        serialize_with = "units::write_duration"
    )]
    #[schemars(with = "units::Period")]
    pub retry_gaps: Duration,
    /// What stands before `/masterfilelist.txt` and the names of the files.
    #[serde(default = "official_base_url")]
    pub base_url: String,
    /// Whether to read the files of translated articles instead.
    #[serde(default)]
    pub translation: bool,
    /// Whether sizes and digests are checked against the master list where it has them.
    #[serde(default)]
    pub verify: Verify,
    /// How many files are read at once. Default `max_concurrency`.
    pub window: Option<usize>,
    /// Whether to add the columns `_file` and `_row` (from 1 in each file).
    #[serde(default)]
    pub origin: bool,
    /// Whether it is fine that there is no file at all.
    #[serde(default)]
    pub allow_empty: bool,
    /// What becomes of the run when a file changes while it is read; rows of two versions never stand in one output. `fail` ends
    /// it with an error that names both versions. `reread` drops what is not committed, and goes on from the last commit with
    /// the file as it is then: before sinks that can take rows back, and for files of which no rows are committed.
    #[serde(default)]
    pub on_change: files::OnChange,
    /// A line larger than this is an error.
    #[serde(default = "default_max_record_bytes", deserialize_with = "units::byte_count")]
    #[schemars(with = "units::Size", extend("default" = "16MiB"))]
    pub max_record_bytes: ByteCount,
    /// How files are fetched, on top of the flow's `http`.
    #[serde(flatten)]
    pub http: HttpOptions,
}

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dataset {
    /// Events: 61 columns.
    Events,
    /// Mentions of events: 16 columns.
    Mentions,
    /// The Global Knowledge Graph 2.1: 27 columns.
    Gkg,
    /// Not yet.
    Webngrams,
    /// Not yet.
    Gqg,
    /// Not yet.
    Geg,
    /// Not yet.
    Gfg,
    /// Not yet.
    Ggg,
    /// Not yet.
    Gemg,
    /// Not yet.
    Gal,
}

/// What is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Size and MD5, where the master list has them.
    #[default]
    Auto,
    /// Nothing.
    Off,
}

fn official_base_url() -> String {
    OFFICIAL_BASE_URL.into()
}

fn three_days() -> Duration {
    Duration::from_secs(3 * 86_400)
}

fn default_max_record_bytes() -> ByteCount {
    ReadOptions::default().max_record_bytes
}

impl Dataset {
    /// The suffix and the columns; none for what is not read yet.
    fn file_kind(self) -> Option<(&'static str, &'static [(&'static str, &'static str)])> {
        match self {
            Self::Events => Some((".export.CSV.zip", columns::EVENTS)),
            Self::Mentions => Some((".mentions.CSV.zip", columns::MENTIONS)),
            Self::Gkg => Some((".gkg.csv.zip", columns::GKG)),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Mentions => "mentions",
            Self::Gkg => "gkg",
            _ => "other",
        }
    }
}

#[async_trait]
impl SourceConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.http.validate();
        problems.extend(self.read_options().validate());
        if self.dataset.file_kind().is_none() {
            let message = "this dataset is not read yet; expected events, mentions or gkg";
            problems.push(Problem::at("/dataset", message));
        }
        for (pointer, text) in [("/from", Some(&self.from)), ("/to", self.to.as_ref())] {
            if let Some(Err(message)) = text.map(|text| text.parse::<When>()) {
                problems.push(Problem::at(pointer, message));
            }
        }
        if let Err(error) = Location::parse(&self.base_url, Path::new("")) {
            problems.push(Problem::at("/base_url", error.to_string()));
        }
        if self.window == Some(0) {
            problems.push(Problem::at("/window", "expected at least 1 file at once"));
        }
        problems
    }

    fn known_schema(&self, _planning: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        let options = self.read_options();
        let declared = declared_schema(&options, Some(Format::Tsv))
            .map_err(|error| vec![Problem::at("/dataset", error.message())])?;
        Ok(declared.map(|read| output_schema(&read, &options, self.origin)))
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        need_of_files(self.window.unwrap_or(planning.max_concurrency), self.is_incremental())
    }

    fn largest_record(&self) -> ByteCount {
        self.max_record_bytes
    }

    fn is_incremental(&self) -> bool {
        self.to.is_none()
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn takes_back(&self) -> Option<&'static str> {
        self.on_change.takes_back()
    }

    fn suffix_of_records(&self, file: &str) -> Option<&'static str> {
        again::suffix(&self.read_options(), file)
    }

    fn over(&self, files: &OtherFiles) -> Option<Box<dyn SourceConfig>> {
        Some(Box::new(files::Config {
            paths: Some(again::listed(files)),
            list: None,
            window: self.window,
            order: files::Order::Any,
            origin: self.origin,
            allow_empty: self.allow_empty,
            incremental: None,
            on_change: files::OnChange::Fail,
            read: again::options(&self.read_options(), files),
            http: self.http.clone(),
        }))
    }

    async fn open(self: Box<Self>, cx: &Context) -> Result<Box<dyn Source>> {
        let fetcher = cx.service::<Fetcher>()?.with(&self.http)?;
        let list = Location::parse(&self.list_url(), cx.base_dir())?;
        let settings = Settings {
            options: self.read_options(),
            window: self.window.unwrap_or(cx.max_concurrency()).max(1),
            is_ordered: false,
            origin: self.origin,
            allow_empty: self.allow_empty,
            what: format!("{} from {} in {}", self.dataset.name(), self.from, list),
            is_remote: list.is_remote(),
            incremental: self
                .is_incremental()
                .then_some(OnlyNew { by: By::Name, retry_gaps: Some(self.retry_gaps) }),
            on_change: self.on_change,
            beside: ByteCount::ZERO,
            rows_of: None,
        };
        let range = self.range(cx)?;
        let files = fetcher.clone();
        let inputs = |seen: Option<&Seen>| self.inputs((list, range), files, cx, seen.cloned());
        Ok(Box::new(FileSet::open(cx, fetcher, settings, inputs).await?))
    }
}

impl Config {
    fn read_options(&self) -> ReadOptions {
        let columns = self.dataset.file_kind().map_or(&[][..], |(_, columns)| columns);
        ReadOptions {
            format: FormatOption::Is(Format::Tsv),
            csv: CsvOptions { header: false, quote: Some("none".into()), ..CsvOptions::default() },
            max_record_bytes: self.max_record_bytes,
            schema: columns.iter().map(|(name, of)| ((*name).to_owned(), (*of).to_owned())).collect(),
            ..ReadOptions::default()
        }
    }

    fn suffix(&self) -> String {
        let translation = if self.translation { ".translation" } else { "" };
        let suffix = self.dataset.file_kind().map_or("", |(suffix, _)| suffix);
        format!("{translation}{suffix}")
    }

    fn url_of(&self, name: &str) -> String {
        format!("{}/{name}", self.base_url.trim_end_matches('/'))
    }

    fn list_url(&self) -> String {
        let translation = if self.translation { "-translation" } else { "" };
        self.url_of(&format!("masterfilelist{translation}.txt"))
    }

    fn range(&self, cx: &Context) -> Result<Range<DateTime<Utc>>> {
        let when = |text: &String| {
            text.parse::<When>().map_err(|message| Error::new(ErrorKind::Config, "read time", message))
        };
        Ok(range(when(&self.from)?, self.to.as_ref().map(when).transpose()?, cx.clock().now()))
    }

    /// The files of the master list, as they come in it. What is missing is said at its end.
    fn inputs(
        &self,
        (list, range): (Location, Range<DateTime<Utc>>),
        fetcher: Fetcher,
        cx: &Context,
        seen: Option<Seen>,
    ) -> Inputs {
        let (config, base_dir, suffix, now) =
            (self.clone(), cx.base_dir().to_owned(), self.suffix(), cx.clock().now());
        let mut intervals = match &seen {
            Some(seen) => Intervals::without_end(self.first(seen, range.start), now),
            None => Intervals::new(range, now),
        };
        let lines = list_lines(list, fetcher, cx);
        Box::pin(try_stream! {
            futures::pin_mut!(lines);
            while let Some(line) = lines.next().await {
                let line = line?;
                let Some(listed) = list::parse(&line, &suffix) else { continue };
                if intervals.take(listed.at) {
                    yield Found::Input(Box::new(config.input(&listed, &base_dir)?));
                }
            }
            let gaps = seen.as_ref().and_then(|seen| config.reach(seen, &intervals));
            let mut missing = intervals.missing().peekable();
            while missing.peek().is_some() {
                let some: Vec<_> = missing.by_ref().take(MISSING_AT_ONCE).collect();
                for found in config.missing(some, gaps.zip(seen.as_ref()), &base_dir).await? {
                    yield found;
                }
            }
        })
    }

    /// From where on, if there is no end: what the first run took `from` for, unless that was edited, and at least `from`.
    fn first(&self, seen: &Seen, from: DateTime<Utc>) -> DateTime<Utc> {
        let kept = seen.reach().filter(|reach| reach.from == self.from);
        let before = kept.and_then(|reach| DateTime::from_timestamp(reach.first, 0));
        before.map_or(from, |before| before.min(from))
    }

    /// Remembers how far the list goes now.
    fn reach(&self, seen: &Seen, intervals: &Intervals) -> Option<Gaps> {
        let newest = intervals.newest()?.timestamp().max(0).unsigned_abs();
        let before = seen.reach().map_or(0, |reach| reach.newest);
        let (from, first) = (self.from.clone(), intervals.start().timestamp());
        seen.set_reach(Reach { from, first, newest: newest.max(before) });
        seen.gaps()
    }

    /// What to say of intervals that the list does not have.
    async fn missing(
        &self,
        missing: Vec<DateTime<Utc>>,
        gaps: Option<(Gaps, &Seen)>,
        base_dir: &Path,
    ) -> Result<Vec<Found>> {
        let told = |at: &DateTime<Utc>| {
            format!(
                "{} of {}: missing in the master list",
                self.dataset.name(),
                at.format("%Y-%m-%dT%H:%M:%SZ")
            )
        };
        let Some((gaps, seen)) = gaps else {
            return Ok(missing.iter().map(|at| Found::Gap(told(at))).collect());
        };
        let file = |at: &DateTime<Utc>| {
            let name = format!("{}{}", at.format("%Y%m%d%H%M%S"), self.suffix());
            let location = Location::parse(&self.url_of(&name), base_dir)?;
            Ok((Input::new(location, Trust::Flow), told(at)))
        };
        let files = missing.iter().map(file).collect::<Result<Vec<_>>>()?;
        Ok(gaps.unlisted(seen, files).await?.into_iter().map(Found::Missing).collect())
    }

    /// The list still has `http:` links of GDELT's own server, and mirrors have a copy of the list: only the
    /// name counts, under `base_url`.
    fn input(&self, listed: &list::Listed<'_>, base_dir: &Path) -> Result<Input> {
        let location = Location::parse(&self.url_of(listed.name), base_dir)?;
        let mut input = Input::new(location, Trust::Flow);
        input.may_be_missing = true;
        if self.verify == Verify::Auto {
            let md5 = listed.md5.map(str::to_owned);
            input.expected = Expected { n_bytes: listed.n_bytes, md5 };
        }
        Ok(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn config(options: Value) -> Config {
        serde_json::from_value(options).unwrap()
    }

    #[test]
    fn columns_are_as_many_as_the_files_have() {
        for (dataset, n_columns) in [("events", 61), ("mentions", 16), ("gkg", 27)] {
            let config = config(json!({"dataset": dataset, "from": "today"}));
            let planning = Planning {
                base_dir: "".into(),
                batch_rows: 8192,
                batch_bytes: aqueduct_primitives::ByteCount::mib(1),
                max_concurrency: 10,
            };
            let schema = config.known_schema(&planning).unwrap().unwrap();
            assert_eq!(schema.fields().len(), n_columns, "{dataset}");
            assert!(config.validate().is_empty());
        }
    }

    #[test]
    fn a_listed_name_is_looked_for_under_the_base_url_alone() {
        let config = config(json!({"dataset": "gkg", "from": "today", "translation": true}));
        let line = "17 0123456789abcdef0123456789abcdef \
                    http://data.gdeltproject.org/gdeltv2/20260101000000.translation.gkg.csv.zip";
        let listed = list::parse(line, &config.suffix()).unwrap();
        let input = config.input(&listed, Path::new("")).unwrap();
        let name = "https://data.gdeltproject.org/gdeltv2/20260101000000.translation.gkg.csv.zip";
        assert_eq!(&*input.name, name);
        assert_eq!(input.expected.n_bytes, Some(17));
        assert_eq!(config.list_url(), "https://data.gdeltproject.org/gdeltv2/masterfilelist-translation.txt");
    }

    #[test]
    fn what_is_wrong_is_told_at_its_place() {
        let config = config(json!({"dataset": "gal", "from": "soon", "to": "never", "base_url": "ftp://h"}));
        let problems = config.validate();
        let pointers: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(pointers, ["/dataset", "/from", "/to", "/base_url"]);
        assert!(problems[0].message.contains("events, mentions or gkg"));
    }
}
