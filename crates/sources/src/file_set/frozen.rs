//! What a run reads, fixed on the disk before it reads anything: the list of its inputs and the columns of the first.
//!
//! A run that goes on reads the same files by the same numbers, whatever a listing would say now. The list is written and
//! read line by line, and never held.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use aqueduct_core::{Context, Durable, Error, ErrorKind, Fs, Result};
use aqueduct_net::{Location, Trust, Validator};
use arrow::datatypes::SchemaRef;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use async_stream::try_stream;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::input::{Found, Input, Inputs, Missing};
use super::ndjson::{Disk, Lines, failed, make_folder, rename};
use super::progress::Partial;
use super::verify::Expected;

const INPUTS: &str = "inputs.ndjson";
const COLUMNS: &str = "columns.arrow";

/// More is no schema of a file that anybody reads.
const MAX_COLUMNS_BYTES: u64 = 64 << 20;

/// The end mark is no longer than this.
const MAX_END_BYTES: usize = 64;

/// A line of the list.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Input(Record),
    Known(Record),
    Gap(String),
    Missing(Missing),
    /// So many inputs there are.
    End(u64),
}

/// All that is needed to read a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    at: Place,
    by: NamedBy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    md5: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    may_be_missing: bool,
    #[serde(default, skip_serializing_if = "Validator::is_empty")]
    listed: Validator,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begun: Option<Partial>,
}

/// A location, with what it takes to fetch from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Url(String),
    Object {
        root: String,
        key: String,
    },
    Path(String),
    /// A path that is no UTF-8.
    PathBytes(Vec<u8>),
}

/// A [`Trust`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NamedBy {
    Flow,
    Data(Option<String>),
}

/// The list of a run.
pub(crate) struct Frozen {
    disk: Disk,
    dir: PathBuf,
    /// Whether it was made by this process.
    pub(crate) is_new: bool,
}

impl Frozen {
    /// The list that an earlier process of the run made, else one that is made now, durable before anything is read.
    ///
    /// # Errors
    /// The listing's own, or the disk's.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a list without its end mark at most, which is made anew.
    pub(crate) async fn open(cx: &Context, durable: &Durable, inputs: Inputs) -> Result<Self> {
        let (disk, dir) = (Disk::of(cx), durable.run_dir().clone());
        let path = dir.join(INPUTS);
        let is_new = !disk.block(move |fs| is_whole(fs, &path)).await?;
        let frozen = Self { disk, dir, is_new };
        if is_new {
            frozen.write(inputs).await?;
        }
        Ok(frozen)
    }

    /// Where it lies.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    async fn write(&self, mut inputs: Inputs) -> Result<()> {
        let (folder, fresh) = (self.dir.clone(), self.dir.join(format!("{INPUTS}.new")));
        let path = fresh.clone();
        let begin = move |fs: &dyn Fs| {
            make_folder(fs, &folder)?;
            Lines::begin(fs, &path)
        };
        let mut lines = self.disk.block(begin).await?;
        let mut n_inputs = 0;
        while let Some(found) = inputs.next().await {
            match found? {
                Found::Input(input) => {
                    lines.push(&Line::Input(Record::of(&input)))?;
                    n_inputs += 1;
                }
                Found::Known(input) => lines.push(&Line::Known(Record::of(&input)))?,
                Found::Gap(gap) => lines.push(&Line::Gap(gap))?,
                Found::Missing(missing) => lines.push(&Line::Missing(missing))?,
            }
            if lines.is_due() {
                let path = fresh.clone();
                let write = move |_: &dyn Fs| {
                    lines.write_out().map_err(|error| failed(&path, error))?;
                    Ok(lines)
                };
                lines = self.disk.block(write).await?;
            }
        }
        lines.push(&Line::End(n_inputs))?;
        let path = self.dir.join(INPUTS);
        self.disk.block(move |fs| lines.publish(fs, &fresh, &path)).await
    }

    /// The inputs, read from the disk as they are needed.
    pub(crate) fn inputs(&self) -> Inputs {
        let path = self.dir.join(INPUTS);
        let lines = self.disk.lines(path.clone());
        Box::pin(try_stream! {
            futures::pin_mut!(lines);
            while let Some(line) = lines.next().await {
                match read_line(&line?, &path)? {
                    Line::Input(record) => yield Found::Input(Box::new(record.into_input()?)),
                    Line::Known(record) => yield Found::Known(Box::new(record.into_input()?)),
                    Line::Gap(gap) => yield Found::Gap(gap),
                    Line::Missing(missing) => yield Found::Missing(missing),
                    Line::End(_) => break,
                }
            }
        })
    }

    /// The columns to read, if an earlier process of the run found them.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) async fn columns(&self) -> Result<Option<SchemaRef>> {
        columns_in(&self.disk, &self.dir).await
    }

    /// Keeps the columns to read.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn keep_columns(&self, columns: &SchemaRef) -> Result<()> {
        keep_columns_in(&self.disk, &self.dir, columns).await
    }
}

/// The columns that an earlier process of the run has kept in its folder.
///
/// # Errors
/// They cannot be read.
pub(crate) async fn columns_in(disk: &Disk, dir: &Path) -> Result<Option<SchemaRef>> {
    let path = dir.join(COLUMNS);
    disk.block(move |fs| read_columns(fs, &path)).await
}

/// Keeps columns in the folder of a run, which it makes.
///
/// # Errors
/// The disk's.
pub(crate) async fn keep_columns_in(disk: &Disk, dir: &Path, columns: &SchemaRef) -> Result<()> {
    let (folder, path) = (dir.to_owned(), dir.join(COLUMNS));
    let unwritten = |error| Error::bug("keep columns", "the columns cannot be written").with_source(error);
    let mut writer = StreamWriter::try_new(Vec::new(), columns).map_err(unwritten)?;
    writer.finish().map_err(unwritten)?;
    let bytes = writer.into_inner().map_err(unwritten)?;
    let write = move |fs: &dyn Fs| {
        make_folder(fs, &folder)?;
        write_columns(fs, &path, &bytes)
    };
    disk.block(write).await
}

fn write_columns(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    let written = fs.remove_file(&fresh).and_then(|()| {
        let mut file = fs.create_new(&fresh)?;
        file.write_all(bytes)?;
        file.sync()
    });
    written.map_err(|error| failed(&fresh, error))?;
    rename(fs, &fresh, path)
}

fn read_columns(fs: &dyn Fs, path: &Path) -> Result<Option<SchemaRef>> {
    let there = fs.stat(path).map_err(|error| failed(path, error))?;
    if there.is_none() {
        return Ok(None);
    }
    let bytes = fs.read(path, MAX_COLUMNS_BYTES).map_err(|error| failed(path, error))?;
    match StreamReader::try_new(std::io::Cursor::new(bytes), None) {
        Ok(reader) => Ok(Some(reader.schema())),
        Err(error) => Err(damaged(path).with_source(error)),
    }
}

/// Whether a list is there to its end mark.
fn is_whole(fs: &dyn Fs, path: &Path) -> Result<bool> {
    let Some(there) = fs.stat(path).map_err(|error| failed(path, error))? else { return Ok(false) };
    let n_bytes = usize::try_from(there.n_bytes).unwrap_or(usize::MAX).min(MAX_END_BYTES);
    let mut end = vec![0; n_bytes];
    let read =
        fs.open_read(path).and_then(|file| file.read_exact_at(&mut end, there.n_bytes - n_bytes as u64));
    read.map_err(|error| failed(path, error))?;
    let last = end.strip_suffix(b"\n").and_then(|end| end.rsplit(|byte| *byte == b'\n').next());
    Ok(last.is_some_and(|last| matches!(serde_json::from_slice(last), Ok(Line::End(_)))))
}

fn read_line(line: &str, path: &Path) -> Result<Line> {
    serde_json::from_str(line).map_err(|error| damaged(path).with_source(error))
}

/// A file of the run is not as it was written.
pub(crate) fn damaged(path: &Path) -> Error {
    let message = "what the run keeps of its files is damaged or gone; `--fresh` begins anew";
    Error::new(ErrorKind::Conflict, "resume", message).with("path", path.display())
}

impl Record {
    pub(crate) fn of(input: &Input) -> Self {
        let Expected { n_bytes, md5 } = input.expected.clone();
        let by = match &input.trust {
            Trust::Flow => NamedBy::Flow,
            Trust::Data { origin } => NamedBy::Data(origin.as_ref().map(ToString::to_string)),
        };
        let Input { may_be_missing, listed, digest, begun, .. } = input.clone();
        Self { at: Place::of(&input.location), by, n_bytes, md5, may_be_missing, listed, digest, begun }
    }

    pub(crate) fn into_input(self) -> Result<Input> {
        let Self { at, by, n_bytes, md5, may_be_missing, listed, digest, begun } = self;
        let trust = match by {
            NamedBy::Flow => Trust::Flow,
            NamedBy::Data(None) => Trust::Data { origin: None },
            NamedBy::Data(Some(origin)) => match Location::parse(&origin, Path::new(""))? {
                Location::Http(origin) => Trust::Data { origin: Some(origin) },
                _ => Trust::Data { origin: None },
            },
        };
        let expected = Expected { n_bytes, md5 };
        let input = Input::new(at.into_location()?, trust);
        Ok(Input { expected, may_be_missing, listed, digest, begun, ..input })
    }
}

impl Place {
    fn of(location: &Location) -> Self {
        match location {
            Location::Http(url) => Self::Url(url.to_string()),
            Location::Store { root, key } => Self::Object { root: root.clone(), key: key.clone() },
            Location::Local(path) => match path.to_str() {
                Some(path) => Self::Path(path.to_owned()),
                None => Self::PathBytes(path.as_os_str().as_bytes().to_vec()),
            },
        }
    }

    fn into_location(self) -> Result<Location> {
        match self {
            Self::Url(url) => Location::parse(&url, Path::new("")),
            Self::Object { root, key } => Ok(Location::Store { root, key }),
            Self::Path(path) => Ok(Location::Local(path.into())),
            Self::PathBytes(path) => Ok(Location::Local(std::ffi::OsString::from_vec(path).into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_comes_back_as_it_was() {
        let url = |text: &str| match Location::parse(text, Path::new("")).unwrap() {
            Location::Http(url) => url,
            other => panic!("{other}"),
        };
        let odd = std::ffi::OsString::from_vec(b"/data/\xff.csv".to_vec());
        for location in [
            Location::Http(url("https://me:secret@host/a%20b?token=canary#part")),
            Location::Store { root: "s3://lake".into(), key: "a b/\u{e9}.csv".into() },
            Location::Local("/data/a \"b\"\n.csv".into()),
            Location::Local(odd.into()),
        ] {
            for trust in [
                Trust::Flow,
                Trust::Data { origin: None },
                Trust::Data { origin: Some(url("http://me:pw@list/x")) },
            ] {
                let input = Input {
                    expected: Expected { n_bytes: Some(7), md5: Some("ab".into()) },
                    may_be_missing: true,
                    digest: Some("cd".into()),
                    begun: Some(Partial { rows: 7, ..Partial::default() }),
                    listed: serde_json::from_str(r#"{"etag":"\"v1\""}"#).unwrap(),
                    ..Input::new(location.clone(), trust)
                };
                let line = serde_json::to_string(&Line::Input(Record::of(&input))).unwrap();
                let Line::Input(record) = read_line(&line, Path::new("list")).unwrap() else {
                    panic!("{line}")
                };
                assert_eq!(format!("{:?}", record.into_input().unwrap()), format!("{input:?}"));
            }
        }
    }
}
