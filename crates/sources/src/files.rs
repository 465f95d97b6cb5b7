//! `files`: rows of files, wherever they are.
//!
//! Order: `any` gives batches as files have them, `listed` file after file; within a file by row, always.
//! Memory: the reserves of the files in the window; lists are read line by line. See the set of files behind
//! it for how a file's place in the window is kept until its last batch is dropped.

use std::path::Path;
use std::sync::Arc;

use aqueduct_core::{
    ComponentInfo, Context, Error, ErrorKind, Factory, MemoryNeed, OtherFiles, Planning, Problem, Result,
    Source, SourceConfig,
};
use aqueduct_formats::{ReadOptions, declared_schema, output_schema};
use aqueduct_net::{Fetcher, HttpOptions, Location};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::file_set::input::{Inputs, ListSpec, of_list, of_patterns};
use crate::file_set::memory::need_of_files;
use crate::file_set::open::RowsOf;
use crate::file_set::seen::OnlyNew;
use crate::file_set::{FileSet, Settings};

pub use crate::file_set::on_change::OnChange;
pub use crate::file_set::seen::By;

pub(crate) mod again;
mod look;

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "files",
    summary: "Rows of files: local, over HTTP, in object stores; by name, by pattern, from a list",
    example: "files: { paths: [\"data/*.csv.gz\"], format: csv, window: 4 }",
});

/// Options of `files`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to read: paths, globs, folders, URLs, object-store prefixes; or `{file: LIST}`, a file that names
    /// one a line.
    pub paths: Option<Paths>,
    /// A list of files to read, somewhere else.
    pub list: Option<List>,
    /// How many files are read at once. Default `max_concurrency`.
    pub window: Option<usize>,
    /// Whether files come as they are ready, or one after the other as they are listed.
    #[serde(default)]
    pub order: Order,
    /// Whether to add the columns `_file` and `_row` (from 1 in each file).
    #[serde(default)]
    pub origin: bool,
    /// Whether it is fine that there is no file at all. Files of earlier runs count.
    #[serde(default)]
    pub allow_empty: bool,
    /// Read only files that no earlier run of the flow has committed: `{by: modified}`. Rows are then added to those of
    /// earlier runs.
    pub incremental: Option<Incremental>,
    /// What becomes of the run when a file changes while it is read; rows of two versions never stand in one output. `fail` ends
    /// it with an error that names both versions. `reread` drops what is not committed, and goes on from the last commit with
    /// the file as it is then: before sinks that can take rows back, and for files of which no rows are committed.
    #[serde(default)]
    pub on_change: OnChange,
    /// How files are read.
    #[serde(flatten)]
    pub read: ReadOptions,
    /// How files are fetched, on top of the flow's `http`.
    #[serde(flatten)]
    pub http: HttpOptions,
}

/// What to read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Paths {
    /// These.
    Patterns(Vec<String>),
    /// What a file names, one a line.
    Listed(ListedPaths),
    /// This.
    Pattern(String),
}

/// A file that names what to read.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListedPaths {
    /// The path or URL of a file with one path or URL a line.
    pub file: String,
}

/// A list of files to read, read line by line.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The URL or path of the list.
    pub url: String,
    /// A regular expression: only lines in which it is found.
    #[serde(rename = "match")]
    pub only: Option<String>,
    /// The field of a line, split at white space, that holds the URL; from 1.
    #[serde(default = "first_column")]
    pub column: usize,
    /// The field that holds the size in bytes, from 1; a file of another size is an error.
    pub size_column: Option<usize>,
    /// The field that holds the MD5 in hex, from 1; a file with another is an error.
    pub md5_column: Option<usize>,
}

/// In which order files come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// As they are ready.
    #[default]
    Any,
    /// As they are listed, one after the other.
    Listed,
}

/// How files of earlier runs are known.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Incremental {
    /// By what a file is known again.
    #[serde(default)]
    pub by: By,
}

fn first_column() -> usize {
    1
}

#[async_trait]
impl SourceConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.read.validate();
        problems.extend(self.http.validate());
        if self.window == Some(0) {
            problems.push(Problem::at("/window", "expected at least 1 file at once"));
        }
        if self.paths.is_none() && self.list.is_none() {
            problems.push(Problem::at("", "nothing to read; expected `paths` or `list`"));
        }
        problems.extend(self.paths.as_ref().map(Paths::problems).into_iter().flatten());
        problems.extend(self.list.as_ref().map(List::problems).into_iter().flatten());
        problems
    }

    fn known_schema(&self, planning: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        let declared = declared_schema(&self.read, self.read.format.named())
            .map_err(|error| vec![Problem::at("/schema", error.message())])?;
        let read = declared.or_else(|| look::columns_of_local_file(self, planning));
        Ok(read.map(|read| output_schema(&read, &self.read, self.origin)))
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        need_of_files(self.n_files(planning.max_concurrency), self.is_incremental())
    }

    fn largest_record(&self) -> ByteCount {
        self.read.largest_record()
    }

    fn is_incremental(&self) -> bool {
        self.incremental.is_some()
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn takes_back(&self) -> Option<&'static str> {
        self.on_change.takes_back()
    }

    fn suffix_of_records(&self, file: &str) -> Option<&'static str> {
        again::suffix(&self.read, file)
    }

    fn over(&self, files: &OtherFiles) -> Option<Box<dyn SourceConfig>> {
        Some(Box::new(Self {
            paths: Some(again::listed(files)),
            list: None,
            incremental: None,
            // What is replayed is committed at once, in one attempt.
            on_change: OnChange::Fail,
            read: again::options(&self.read, files),
            ..self.clone()
        }))
    }

    async fn open(self: Box<Self>, cx: &Context) -> Result<Box<dyn Source>> {
        Ok(Box::new(self.open_with(None, cx).await?))
    }
}

impl Config {
    /// Opens the files; `rows_of` makes the rows of each, where they are of no format that is decoded as it comes.
    pub(crate) async fn open_with(&self, rows_of: Option<Arc<dyn RowsOf>>, cx: &Context) -> Result<FileSet> {
        let fetcher = cx.service::<Fetcher>()?.with(&self.http)?;
        fetcher.trust(self.hosts());
        let settings = Settings {
            window: self.n_files(cx.max_concurrency()),
            is_ordered: self.order == Order::Listed,
            origin: self.origin,
            allow_empty: self.allow_empty,
            what: self.names().into_iter().map(shown).collect::<Vec<_>>().join(", "),
            options: self.read.clone(),
            is_remote: self.is_remote(),
            incremental: self.incremental.map(|Incremental { by }| OnlyNew { by, retry_gaps: None }),
            on_change: self.on_change,
            beside: ByteCount::ZERO,
            rows_of,
        };
        let inputs = self.inputs(&fetcher, cx)?;
        FileSet::open(cx, fetcher, settings, |_| inputs).await
    }

    /// How many files are read at once: no more than there can be.
    fn n_files(&self, max_concurrency: usize) -> usize {
        let window = self.window.unwrap_or(max_concurrency).max(1);
        let patterns = self.patterns();
        let is_plain =
            self.list.is_none() && !patterns.is_empty() && patterns.iter().all(|name| is_one_file(name));
        if is_plain { window.min(patterns.len()) } else { window }
    }

    fn patterns(&self) -> &[String] {
        match &self.paths {
            Some(Paths::Patterns(patterns)) => patterns,
            Some(Paths::Pattern(pattern)) => std::slice::from_ref(pattern),
            Some(Paths::Listed(_)) | None => &[],
        }
    }

    /// Patterns and lists, as they were given.
    fn names(&self) -> Vec<&str> {
        let listed = match &self.paths {
            Some(Paths::Listed(listed)) => Some(listed.file.as_str()),
            _ => None,
        };
        let list = self.list.as_ref().map(|list| list.url.as_str());
        self.patterns().iter().map(String::as_str).chain(listed).chain(list).collect()
    }

    /// Whether some files come over a network; what a list names, nobody knows yet.
    fn is_remote(&self) -> bool {
        let is_far = |name: &String| Location::parse(name, Path::new("")).is_ok_and(|one| one.is_remote());
        let has_list = self.list.is_some() || matches!(self.paths, Some(Paths::Listed(_)));
        has_list || self.patterns().iter().any(is_far)
    }

    /// The hosts that the flow file names.
    fn hosts(&self) -> Vec<String> {
        let host = |name: &str| match Location::parse(name, Path::new("")) {
            Ok(Location::Http(url)) => url.host_str().map(str::to_owned),
            _ => None,
        };
        self.names().into_iter().filter_map(host).collect()
    }

    fn inputs(&self, fetcher: &Fetcher, cx: &Context) -> Result<Inputs> {
        let mut parts = Vec::new();
        if let Some(Paths::Listed(listed)) = &self.paths {
            let location = Location::parse(&listed.file, cx.base_dir())?;
            parts.push(of_list(ListSpec::plain(location), fetcher.clone(), cx));
        }
        if !self.patterns().is_empty() {
            parts.push(of_patterns(self.patterns().to_vec(), fetcher.clone(), cx.base_dir().to_owned()));
        }
        if let Some(list) = &self.list {
            parts.push(of_list(list.spec(cx.base_dir())?, fetcher.clone(), cx));
        }
        Ok(futures::stream::iter(parts).flatten().boxed())
    }
}

/// A name without the credentials that a URL may hold.
fn shown(name: &str) -> String {
    Location::parse(name, Path::new("")).map_or_else(|_| String::new(), |location| location.to_string())
}

/// Whether a name stands for one file at most. A folder cannot be told from a file by its name, unless that has
/// a suffix.
fn is_one_file(name: &str) -> bool {
    let is_url = name.starts_with("http://") || name.starts_with("https://");
    let last = name.rsplit('/').next().unwrap_or_default();
    is_url || (!name.contains(['*', '?', '[']) && last.contains('.'))
}

impl Paths {
    fn problems(&self) -> Vec<Problem> {
        let problem = |pointer: String, name: &str| match Location::parse(name, Path::new("")) {
            _ if name.is_empty() => Some(Problem::at(pointer, "empty; expected a path or a URL")),
            Ok(_) => None,
            Err(error) => Some(Problem::at(pointer, error.to_string())),
        };
        match self {
            Self::Patterns(patterns) if patterns.is_empty() => {
                vec![Problem::at("/paths", "empty; expected at least one path or URL")]
            }
            Self::Patterns(patterns) => {
                let named = patterns.iter().enumerate();
                named.filter_map(|(n, name)| problem(format!("/paths/{n}"), name)).collect()
            }
            Self::Listed(listed) => problem("/paths/file".into(), &listed.file).into_iter().collect(),
            Self::Pattern(name) => problem("/paths".into(), name).into_iter().collect(),
        }
    }
}

impl List {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Err(error) = Location::parse(&self.url, Path::new("")) {
            problems.push(Problem::at("/list/url", error.to_string()));
        }
        if let Err(error) = self.only.as_deref().map(Regex::new).transpose() {
            problems.push(Problem::at("/list/match", format!("no regular expression: {error}")));
        }
        let columns = [
            ("/list/column", Some(self.column)),
            ("/list/size_column", self.size_column),
            ("/list/md5_column", self.md5_column),
        ];
        for (pointer, _) in columns.into_iter().filter(|(_, column)| *column == Some(0)) {
            problems.push(Problem::at(pointer, "fields are counted from 1"));
        }
        problems
    }

    fn spec(&self, base_dir: &Path) -> Result<ListSpec> {
        let only = self.only.as_deref().map(Regex::new).transpose().map_err(|error| {
            Error::new(ErrorKind::Config, "read list", "`match` is no regular expression").with_source(error)
        })?;
        let place = |column: usize| column.saturating_sub(1);
        Ok(ListSpec {
            location: Location::parse(&self.url, base_dir)?,
            only,
            column: Some(place(self.column)),
            size_column: self.size_column.map(place),
            md5_column: self.md5_column.map(place),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_core::SourceFactory;
    use serde_json::{Value, json};

    fn read(options: Value) -> Config {
        serde_json::from_value(options).unwrap()
    }

    fn pointers(options: Value) -> Vec<String> {
        read(options).validate().into_iter().map(|problem| problem.pointer).collect()
    }

    #[test]
    fn options_of_reading_and_fetching_stand_beside_its_own() {
        let config = read(json!({
            "paths": ["a.csv", "https://host/b.csv"], "format": "csv", "retries": 2, "read_timeout": "1s",
            "max_bytes": "5MB", "schema": {"z": "int64", "a": "string"}, "window": 3, "order": "listed",
        }));
        assert_eq!((config.http.retries, config.window, config.order), (Some(2), Some(3), Order::Listed));
        assert_eq!(config.read.schema[0].0, "z");
        assert!(serde_json::from_value::<Config>(json!({"paths": ["a"], "retrys": 2})).is_err());
        assert!(serde_json::from_value::<Config>(json!({"paths": {"file": "list.txt"}})).is_ok());
        let properties = FACTORY.options();
        let properties = properties.get("properties").unwrap().as_object().unwrap();
        for name in
            ["paths", "list", "window", "format", "csv", "schema", "retries", "max_record_bytes", "auth"]
        {
            assert!(properties.contains_key(name), "{name}");
        }
    }

    #[test]
    fn all_problems_are_told_at_their_places() {
        assert_eq!(pointers(json!({})), [""]);
        assert_eq!(
            pointers(json!({
                "paths": ["ok.csv", "", "ftp://host/x"], "window": 0,
                "list": {"url": "http://h/l", "match": "(", "column": 0},
            })),
            ["/window", "/paths/1", "/paths/2", "/list/match", "/list/column"]
        );
    }

    #[test]
    fn a_window_is_no_wider_than_the_files_there_are() {
        let n_files = |paths: Value| read(json!({"paths": paths})).n_files(10);
        assert_eq!(n_files(json!(["a.csv", "https://host/b?x=*"])), 2);
        assert_eq!(n_files(json!("a.csv")), 1);
        assert_eq!(n_files(json!(["data/*.csv"])), 10);
        assert_eq!(n_files(json!(["data"])), 10);
        assert_eq!(n_files(json!({"file": "a.txt"})), 10);
    }
}
