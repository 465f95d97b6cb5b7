//! `tap`: shows rows as they pass: as NDJSON in a file, or in the log. Rows pass unchanged and in order; the
//! memory is one small buffer.
//!
//! The file is for looking, not an output: it is written as rows pass, and no commit waits for it. It never
//! replaces a file: when its name is taken, `name-2.ndjson` and so on is.

use std::io::{self, BufWriter, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{
    BatchStream, ComponentInfo, Context, Error, Factory, Fs, FsFile, Inputs, Problem, Result, Stage,
    StageConfig, only_input,
};
use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow_json::LineDelimitedWriter;
use async_stream::try_stream;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "tap",
    summary: "Writes passing rows to a file or the log, and lets them pass unchanged",
    example: "tap: { path: seen.ndjson, every: 100 }",
});

/// Where passing rows are shown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// An NDJSON file. If there is one already, `name-2.ndjson` and so on is written.
    path: Option<PathBuf>,
    /// Shows rows in the log, in the place of a file.
    #[serde(default)]
    log: bool,
    /// One row of so many is shown, the first among them.
    #[serde(default = "one")]
    every: NonZeroU64,
}

const fn one() -> NonZeroU64 {
    NonZeroU64::MIN
}

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        match (&self.path, self.log) {
            (None, false) => vec![Problem::at("", "nowhere to show rows; give a `path`, or `log: true`")],
            (Some(_), true) => {
                vec![Problem::at("/log", "either a `path` or `log: true`; use two taps for both")]
            }
            _ => Vec::new(),
        }
    }

    fn only_watches(&self) -> bool {
        true
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        Ok(Box::new(Tap { path: self.path.clone(), every: self.every, schema: only_input(inputs)? }))
    }
}

struct Tap {
    path: Option<PathBuf>,
    every: NonZeroU64,
    schema: SchemaRef,
}

impl Stage for Tap {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        Box::pin(try_stream! {
            let mut lines = self.open(&cx).await?;
            let mut n_before = 0;
            let mut input = futures::stream::iter(inputs).flatten();
            while let Some(batch) = input.next().await {
                let batch = batch?;
                let shown = shown_rows(batch.records(), n_before, self.every)?;
                n_before += batch.num_rows() as u64;
                lines = cx.tasks().block(move || lines.write(&shown)).await??;
                yield batch;
            }
            cx.tasks().block(move || lines.finish()).await??;
        })
    }
}

impl Tap {
    async fn open(&self, cx: &Context) -> Result<Lines> {
        let Some(path) = self.path.as_ref().map(|path| cx.resolve(path)) else {
            let log = LogLines { step: cx.step().to_owned(), line: Vec::new() };
            return Ok(Lines::new("the log".into(), Target::Log(log)));
        };
        let fs = Arc::clone(cx.fs());
        cx.tasks()
            .block(move || {
                let (path, file) = create_free(&*fs, &path)?;
                Ok(Lines::new(path, Target::File(BufWriter::new(file))))
            })
            .await?
    }
}

/// One row of `every`, counted over the whole stream.
fn shown_rows(rows: &RecordBatch, n_before: u64, every: NonZeroU64) -> Result<RecordBatch> {
    let n_rows = rows.num_rows() as u64;
    let first = (every.get() - n_before % every) % every;
    let step = usize::try_from(every.get()).unwrap_or(usize::MAX);
    let places: UInt64Array = (first..n_rows).step_by(step).collect::<Vec<_>>().into();
    take_record_batch(rows, &places).map_err(|error| Error::bug("tap", error.to_string()))
}

/// After so many files of one name, somebody should clean up.
const MAX_FILES: u32 = 1000;

/// A new file of this name, or of the first free `name-2`, `name-3`….
fn create_free(fs: &dyn Fs, path: &Path) -> Result<(PathBuf, Box<dyn FsFile>)> {
    let fail = |path: &Path, error| Error::io("open tap", path.display(), error);
    if let Some(folder) = path.parent() {
        fs.create_dir_all(folder).map_err(|error| fail(folder, error))?;
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let suffix = path.extension().map(|suffix| format!(".{}", suffix.to_string_lossy())).unwrap_or_default();
    let mut free = path.to_owned();
    for n in 2..=MAX_FILES {
        match fs.create_new(&free) {
            Ok(file) => return Ok((free, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                free = path.with_file_name(format!("{stem}-{n}{suffix}"));
            }
            Err(error) => return Err(fail(&free, error)),
        }
    }
    Err(fail(path, io::ErrorKind::AlreadyExists.into()).with("files_of_this_name", MAX_FILES))
}

/// Writes rows as lines. All of it blocks.
struct Lines {
    path: PathBuf,
    writer: LineDelimitedWriter<Target>,
}

impl Lines {
    fn new(path: PathBuf, target: Target) -> Self {
        Self { path, writer: LineDelimitedWriter::new(target) }
    }

    fn write(mut self, rows: &RecordBatch) -> Result<Self> {
        match self.writer.write(rows) {
            Ok(()) => Ok(self),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn finish(mut self) -> Result<()> {
        self.writer.finish().map_err(|error| self.failed(error))?;
        let path = self.path;
        match self.writer.into_inner() {
            Target::Log(_) => Ok(()),
            Target::File(buffer) => buffer
                .into_inner()
                .map_err(io::IntoInnerError::into_error)
                .and_then(|mut file| file.sync())
                .map_err(|error| Error::io("write tap", path.display(), error)),
        }
    }

    fn failed(&self, error: ArrowError) -> Error {
        match error {
            ArrowError::IoError(_, error) => Error::io("write tap", self.path.display(), error),
            other => Error::bug("write tap", other.to_string()).with("path", self.path.display()),
        }
    }
}

enum Target {
    File(BufWriter<Box<dyn FsFile>>),
    Log(LogLines),
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Log(log) => log.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Log(_) => Ok(()),
        }
    }
}

/// More of a row makes a log that nobody reads.
const MAX_LOG_LINE_BYTES: usize = 4096;

/// Each line that is written is one event of the log.
struct LogLines {
    step: String,
    line: Vec<u8>,
}

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = MAX_LOG_LINE_BYTES.saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..room.min(text.len())]);
            if text.len() < piece.len() {
                tracing::info!(step = self.step, row = %String::from_utf8_lossy(&self.line), "tap");
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, batch_of, int_column, problems};
    use serde_json::json;

    // S2.4
    #[tokio::test]
    async fn rows_pass_unchanged_and_some_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/seen.ndjson");
        let batches = || {
            vec![
                batch_of(r#"[{"a": 0}, {"a": 1}, {"a": 2}]"#),
                batch_of(r#"[{"a": 3}]"#),
                batch_of(r#"[{"a": 4}, {"a": 5}, {"a": 6}]"#),
            ]
        };
        let options = json!({"path": path, "every": 3});
        let out = Bench::new().run("tap", options.clone(), batches()).await.unwrap();
        assert_eq!(int_column(&out, "a"), [0, 1, 2, 3, 4, 5, 6]);
        let expected = b"{\"a\":0}\n{\"a\":3}\n{\"a\":6}\n";
        assert_eq!(aqueduct_core::StdFs.read(&path, 1000).unwrap(), expected);

        Bench::new().run("tap", options, batches()).await.unwrap();
        let second = path.with_file_name("seen-2.ndjson");
        assert_eq!(aqueduct_core::StdFs.read(&second, 1000).unwrap(), expected, "the first file stays");
    }

    #[tokio::test]
    async fn an_unwritable_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        Bench::new().run("tap", json!({"path": file}), vec![batch_of(r#"[{"a": 0}]"#)]).await.unwrap();
        let options = json!({"path": file.join("seen.ndjson")});
        let error = Bench::new().run("tap", options, vec![batch_of(r#"[{"a": 0}]"#)]).await.unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }

    #[test]
    fn long_lines_are_cut_in_the_log() {
        let mut log = LogLines { step: "tap".into(), line: Vec::new() };
        log.write_all(&[b'x'; 10_000]).unwrap();
        assert_eq!(log.line.len(), MAX_LOG_LINE_BYTES);
        log.write_all(b"\nrest").unwrap();
        assert_eq!(log.line, b"rest");
    }

    #[test]
    fn one_place_must_be_named() {
        let rows = batch_of(r#"[{"a": 1}]"#);
        assert!(problems("tap", json!({}), &rows)[0].message.contains("nowhere"));
        assert_eq!(problems("tap", json!({"path": "x", "log": true}), &rows)[0].pointer, "/log");
    }
}
