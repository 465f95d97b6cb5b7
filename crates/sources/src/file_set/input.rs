//! What is to be read, one file after the other, as lazily as it was named.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Context, Error, ErrorKind, Result};
use aqueduct_net::{Fetcher, Listed, Location, Trust, Validator};
use async_stream::try_stream;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::lines::lines;
use super::open::Opened;
use super::progress::Partial;
use super::seen::Key;
use super::verify::{Expected, verified};

/// What a search for files comes upon, in order. An error is about all of the rest, and the last item.
pub(crate) type Inputs = BoxStream<'static, Result<Found>>;

/// What a search for files comes upon.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// A file to read.
    Input(Box<Input>),
    /// A file that earlier runs have committed: not to be read, but for its columns.
    Known(Box<Input>),
    /// Something that should be there and is not, in words.
    Gap(String),
    /// The same, where it is known how long that is so.
    Missing(Missing),
}

/// Something that should be there and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missing {
    /// In words.
    pub(crate) told: String,
    /// Whether nobody will ask for it any more.
    pub(crate) is_given_up: bool,
    /// What is to be remembered of it with the next commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<Note>,
}

/// Since when something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) key: Key,
    /// See [`Gaps`](super::gaps::Gaps).
    pub(crate) since: u64,
}

/// A file to read.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// Where it is.
    pub(crate) location: Location,
    /// Its name in errors, positions and `_file`: the location without secrets.
    pub(crate) name: Arc<str>,
    /// Who named it.
    pub(crate) trust: Trust,
    /// What a list says about it.
    pub(crate) expected: Expected,
    /// Whether it may be missing: then it is a gap, not a bad file.
    pub(crate) may_be_missing: bool,
    /// What is known of its version before it is read: of the listing, or because it was asked for.
    pub(crate) listed: Validator,
    /// The BLAKE3 of its bytes, in hex, where that tells whether it is new.
    pub(crate) digest: Option<String>,
    /// How far earlier runs have committed it.
    pub(crate) begun: Option<Partial>,
}

/// A file to read, on its way into the window.
pub(crate) struct Queued {
    /// Its place among all inputs, from 0.
    pub(crate) number: u64,
    pub(crate) input: Input,
    /// How far an earlier process came with it.
    pub(crate) resumed: Option<Partial>,
    /// Open already, because the columns were looked for in it.
    pub(crate) opened: Option<Opened>,
    /// Whether none comes after it.
    pub(crate) is_last: bool,
}

impl Queued {
    pub(crate) fn new(number: u64, input: Input) -> Self {
        Self { number, input, resumed: None, opened: None, is_last: false }
    }
}

impl Input {
    /// A file about which no more is known than where it is.
    pub(crate) fn new(location: Location, trust: Trust) -> Self {
        let name = location.to_string().into();
        let (expected, listed) = (Expected::default(), Validator::default());
        Self { location, name, trust, expected, may_be_missing: false, listed, digest: None, begun: None }
    }
}

/// The files that patterns stand for, pattern by pattern.
pub(crate) fn of_patterns(patterns: Vec<String>, fetcher: Fetcher, base_dir: PathBuf) -> Inputs {
    Box::pin(try_stream! {
        for pattern in patterns {
            let mut listed = fetcher.list(&pattern, &base_dir);
            while let Some(file) = listed.next().await {
                yield Found::Input(Box::new(named(file, &pattern, &base_dir)?));
            }
        }
    })
}

/// A listed file. A plain name that is not there is a file like any other: opening it will say so, and the
/// policy for bad files decides.
fn named(listed: Result<Listed>, pattern: &str, base_dir: &Path) -> Result<Input> {
    match listed {
        Ok(file) => {
            let listed = file.validator();
            Ok(Input { listed, ..Input::new(file.location, Trust::Flow) })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(Input::new(Location::parse(pattern, base_dir)?, Trust::Flow))
        }
        Err(error) => Err(error),
    }
}

/// How a list of files is read.
#[derive(Clone, Debug)]
pub(crate) struct ListSpec {
    /// Where the list is.
    pub(crate) location: Location,
    /// Only lines in which this is found.
    pub(crate) only: Option<Regex>,
    /// The field that holds the file's URL or path, from 0; `None` means the whole line.
    pub(crate) column: Option<usize>,
    /// The field that holds its size, from 0.
    pub(crate) size_column: Option<usize>,
    /// The field that holds its MD5, from 0.
    pub(crate) md5_column: Option<usize>,
}

impl ListSpec {
    /// A list that has one file a line and nothing else.
    pub(crate) fn plain(location: Location) -> Self {
        Self { location, only: None, column: None, size_column: None, md5_column: None }
    }

    /// The file of a line; none if the line is blank or not asked for.
    fn input(&self, line: &str, base_dir: &Path) -> Result<Option<Input>> {
        let line = line.trim();
        if line.is_empty() || self.only.as_ref().is_some_and(|only| !only.is_match(line)) {
            return Ok(None);
        }
        let Some(text) = self.column.map_or(Some(line), |column| line.split_whitespace().nth(column)) else {
            return Err(self.bad_line(line, "it has too few fields for `column`"));
        };
        let mut input = Input::new(self.locate(text, base_dir)?, self.trust());
        input.expected = self.expected(line)?;
        Ok(Some(input))
    }

    /// A relative URL or path starts from the list's own place, if that is a URL, else from the flow's.
    fn locate(&self, text: &str, base_dir: &Path) -> Result<Location> {
        match &self.location {
            Location::Http(list) if !text.contains("://") => list
                .join(text)
                .map(Location::Http)
                .map_err(|error| self.bad_line(text, "it is no URL").with_source(error)),
            _ => Location::parse(text, base_dir).map_err(|error| error.with("list", &self.location)),
        }
    }

    /// A local list is the operator's own; a remote one is data.
    fn trust(&self) -> Trust {
        match &self.location {
            Location::Local(_) => Trust::Flow,
            Location::Http(url) => Trust::Data { origin: Some(url.clone()) },
            Location::Store { .. } => Trust::Data { origin: None },
        }
    }

    fn expected(&self, line: &str) -> Result<Expected> {
        let field = |column: Option<usize>| column.and_then(|column| line.split_whitespace().nth(column));
        let n_bytes = match field(self.size_column) {
            None => None,
            Some(size) => {
                Some(size.parse().map_err(|_| self.bad_line(line, "its `size_column` holds no number"))?)
            }
        };
        Ok(Expected { n_bytes, md5: field(self.md5_column).map(str::to_owned) })
    }

    fn bad_line(&self, line: &str, message: &str) -> Error {
        let shown: String = line.chars().take(200).collect();
        Error::new(ErrorKind::Data, "read list", format!("a line cannot be read: {message}"))
            .with("list", &self.location)
            .with("found", shown)
    }
}

/// The files of a list, read as they are needed.
pub(crate) fn of_list(spec: ListSpec, fetcher: Fetcher, cx: &Context) -> Inputs {
    let base_dir = cx.base_dir().to_owned();
    let lines = list_lines(spec.location.clone(), fetcher, cx);
    Box::pin(try_stream! {
        futures::pin_mut!(lines);
        while let Some(line) = lines.next().await {
            let line = line?;
            if let Some(input) = spec.input(&line, &base_dir)? {
                yield Found::Input(Box::new(input));
            }
        }
    })
}

/// The lines of a list, opened when the first is asked for.
pub(crate) fn list_lines(
    location: Location,
    fetcher: Fetcher,
    cx: &Context,
) -> impl Stream<Item = Result<String>> + Send + use<> {
    let metrics = Arc::clone(cx.metrics());
    try_stream! {
        let fetched = fetcher.get(&location, Trust::Flow, &metrics).await?;
        let body = verified(fetched.body, Expected::default(), metrics);
        let lines = lines(body, location.to_string());
        futures::pin_mut!(lines);
        while let Some(line) = lines.next().await {
            let line = line?;
            yield line;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(list: &str) -> ListSpec {
        ListSpec {
            only: Some(Regex::new(r"export\.CSV$").unwrap()),
            column: Some(2),
            size_column: Some(0),
            md5_column: Some(1),
            ..ListSpec::plain(Location::parse(list, Path::new("/flows")).unwrap())
        }
    }

    fn read(list: &str, line: &str) -> Result<Option<Input>> {
        spec(list).input(line, Path::new("/flows"))
    }

    #[test]
    fn a_line_gives_url_size_and_digest() {
        let input = read("http://host/v2/list.txt", "17 abcd http://host/v2/a.export.CSV").unwrap().unwrap();
        assert_eq!(&*input.name, "http://host/v2/a.export.CSV");
        assert_eq!(input.expected, Expected { n_bytes: Some(17), md5: Some("abcd".into()) });
        assert!(matches!(input.trust, Trust::Data { origin: Some(_) }));
        assert!(read("http://host/list.txt", "17 abcd http://host/a.mentions.CSV").unwrap().is_none());
        assert!(read("http://host/list.txt", "  ").unwrap().is_none());
    }

    #[test]
    fn relative_names_start_from_the_list_or_from_the_flow() {
        let name = |list: &str| read(list, "1 a sub/a.export.CSV").unwrap().unwrap().name;
        assert_eq!(&*name("http://host/v2/list.txt"), "http://host/v2/sub/a.export.CSV");
        assert_eq!(&*name("list.txt"), "/flows/sub/a.export.CSV");
    }

    #[test]
    fn lines_that_cannot_be_read_name_the_list_and_themselves() {
        for line in ["a.export.CSV", "x abcd http://host/a.export.CSV"] {
            let error = read("http://host/list.txt", line).err().unwrap();
            assert_eq!(error.context("list"), Some("http://host/list.txt"));
            assert_eq!(error.context("found"), Some(line));
        }
    }
}
