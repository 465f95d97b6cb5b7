//! A durable copy of the rows that go into a global stage: such a stage gives nothing before it has taken in all, and a run
//! that is killed meanwhile would have to fetch everything again. The copy is committed as it grows; a run that goes on
//! begins with what it holds.
//!
//! Files `N.arrow` in the run's folder, each an Arrow IPC stream, LZ4: one between two commits.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::{
    Batch, BatchStream, Context, Durable, Error, Fs, FsFile, Keeper, Result, Scratch, StepMetrics,
    kill_point, retained_bytes,
};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::record_batch::RecordBatch;
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use async_stream::try_stream;
use async_trait::async_trait;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sinks::Reports;

const BUFFER_BYTES: usize = 256 << 10;

/// What a commit says of a copy.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// A copy is of no use to any other run.
    run_id: String,
    files: Vec<CopyFile>,
}

/// A file of the copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct CopyFile {
    name: String,
    rows: u64,
    n_bytes: u64,
    /// What the largest of its batches weighs in memory.
    largest_batch_bytes: u64,
}

/// The copy of one input of one stage.
pub(super) struct Copy {
    durable: Arc<Durable>,
    files: Arc<Files>,
    /// What an earlier process of this run has copied.
    earlier: Vec<CopyFile>,
    cx: Context,
    metrics: Arc<StepMetrics>,
}

/// The files there are, for the next commit.
struct Files {
    run_id: String,
    durable: Mutex<Vec<CopyFile>>,
    /// What they take of the disk.
    taken: Mutex<Reservation>,
}

impl Files {
    fn hold(&self, taken: Reservation) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).merge(taken);
    }
}

#[async_trait]
impl Keeper for Files {
    async fn keep(&self) -> Result<Option<Value>> {
        let files = self.durable.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kept = Kept { run_id: self.run_id.clone(), files };
        let failed = |error| Error::bug("keep copy", "a list of files has no JSON").with_source(error);
        serde_json::to_value(kept).map(Some).map_err(failed)
    }
}

impl Copy {
    /// A copy in its folder, with what the run that goes on has already. `cx` is that of the stage.
    pub(super) fn new(durable: Durable, cx: Context) -> Self {
        let kept: Kept =
            durable.kept().and_then(|kept| serde_json::from_value(kept.clone()).ok()).unwrap_or_default();
        let earlier = if kept.run_id == cx.run_id() { kept.files } else { Vec::new() };
        let files = Files {
            run_id: cx.run_id().to_owned(),
            durable: Mutex::new(earlier.clone()),
            taken: Mutex::default(),
        };
        let files = Arc::new(files);
        durable.register(Arc::clone(&files) as _);
        Self { durable: Arc::new(durable), files, earlier, cx, metrics: Arc::default() }
    }

    /// Counts the bytes that were copied, as they were in memory.
    pub(super) fn metrics(&self) -> Arc<StepMetrics> {
        Arc::clone(&self.metrics)
    }

    /// What is to be asked at each commit.
    pub(super) fn durable(&self) -> Arc<Durable> {
        Arc::clone(&self.durable)
    }

    /// First the rows that are copied already, then those of the input, copied as they pass. Marks of checkpoints end
    /// here, and are told.
    pub(super) fn run(self, mut input: BatchStream, reports: Reports) -> BatchStream {
        Box::pin(try_stream! {
            for file in &self.earlier {
                self.files.hold(self.cx.scratch().take(ByteCount::new(file.n_bytes))?);
                let mut rows = self.read(file);
                while let Some(batch) = rows.next().await {
                    yield batch?;
                }
            }
            let mut writer: Option<Writer> = None;
            while let Some(batch) = input.next().await {
                let mut batch = batch?;
                let mark = batch.take_checkpoint();
                if batch.num_rows() > 0 {
                    self.metrics.bytes.add(batch.reserved().get());
                    writer = Some(self.write(writer.take(), batch.records().clone()).await?);
                    yield batch;
                }
                if mark.is_some() {
                    self.seal(writer.take()).await?;
                    reports.sealed(mark, Vec::new()).await?;
                }
            }
            self.seal(writer.take()).await?;
            reports.sealed(None, Vec::new()).await?;
        })
    }

    async fn write(&self, writer: Option<Writer>, records: RecordBatch) -> Result<Writer> {
        let (fs, dir, scratch) =
            (Arc::clone(self.cx.fs()), self.durable.run_dir().clone(), self.cx.scratch().clone());
        let name = format!("{}-{:05}.arrow", self.cx.part_run(), self.n_files());
        let write = move || {
            let mut writer = match writer {
                Some(writer) => writer,
                None => Writer::create(&*fs, &dir, name, &records, scratch)?,
            };
            writer.write(&records)?;
            Ok(writer)
        };
        self.cx.tasks().block(write).await?
    }

    fn n_files(&self) -> usize {
        self.files.durable.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Makes what was written durable, and tells the next commit.
    async fn seal(&self, writer: Option<Writer>) -> Result<()> {
        let Some(writer) = writer else { return Ok(()) };
        let (fs, dir) = (Arc::clone(self.cx.fs()), self.durable.run_dir().clone());
        let (file, taken) = self.cx.tasks().block(move || writer.seal(&*fs, &dir)).await??;
        self.files.hold(taken);
        self.files.durable.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        Ok(())
    }

    /// The rows of a file, each batch paid from the data in flight before it is read.
    fn read(&self, file: &CopyFile) -> BatchStream {
        let (path, cx) = (self.durable.run_dir().join(&file.name), self.cx.clone());
        let (rows, largest) = (file.rows, ByteCount::new(file.largest_batch_bytes));
        Box::pin(try_stream! {
            let mut reader = Some(cx.tasks().block({
                let path = path.clone();
                move || open(&path)
            }).await??);
            let mut n_rows = 0;
            loop {
                let room = cx.flow().reserve(largest).await?;
                let Some(reading) = reader.take() else { break };
                let path = path.clone();
                let next = move || (next(reading, &path), room);
                let (read, room) = cx.tasks().block(next).await?;
                let Some((records, rest)) = read? else { break };
                reader = Some(rest);
                n_rows += records.num_rows() as u64;
                let mut batch = Batch::new(records, room);
                let weight = retained_bytes(batch.records());
                batch.reservation_mut().shrink_to(weight);
                yield batch;
            }
            if n_rows != rows {
                Err(damaged(&path, format!("it has {n_rows} rows, and {rows} were written")))?;
            }
        })
    }
}

type Stored = StreamReader<BufReader<File>>;

fn open(path: &Path) -> Result<Stored> {
    let file = File::open(path).map_err(|error| Error::io("read copy", path.display(), error))?;
    let reader = StreamReader::try_new(BufReader::with_capacity(BUFFER_BYTES, file), None);
    reader.map_err(|error| damaged(path, error.to_string()))
}

fn next(mut reader: Stored, path: &Path) -> Result<Option<(RecordBatch, Stored)>> {
    let next = reader.next().transpose().map_err(|error| damaged(path, error.to_string()))?;
    Ok(next.map(|records| (records, reader)))
}

fn damaged(path: &Path, message: String) -> Error {
    let message =
        format!("the copy of rows that a run keeps is damaged: {message}; begin anew with `--fresh`");
    Error::new(aqueduct_core::ErrorKind::Conflict, "read copy", message).with("path", path.display())
}

/// A file being written.
struct Writer {
    writer: StreamWriter<BufWriter<Counted>>,
    name: String,
    path: PathBuf,
    rows: u64,
    largest_batch_bytes: u64,
}

impl Writer {
    fn create(
        fs: &dyn Fs,
        dir: &Path,
        name: String,
        records: &RecordBatch,
        scratch: Scratch,
    ) -> Result<Self> {
        let path = dir.join(&name);
        let failed = |error| Error::io("copy rows", path.display(), error);
        fs.create_dir_all(dir).map_err(failed)?;
        let file = Counted {
            file: fs.create_new(&path).map_err(failed)?,
            scratch,
            taken: Reservation::empty(),
            n_bytes: 0,
        };
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let writer = IpcWriteOptions::default()
            .try_with_compression(Some(CompressionType::LZ4_FRAME))
            .and_then(|options| StreamWriter::try_new_with_options(file, &records.schema(), options))
            .map_err(|error| failed(std::io::Error::other(error)))?;
        Ok(Self { writer, name, path, rows: 0, largest_batch_bytes: 0 })
    }

    fn write(&mut self, records: &RecordBatch) -> Result<()> {
        self.rows += records.num_rows() as u64;
        self.largest_batch_bytes = self.largest_batch_bytes.max(retained_bytes(records).get());
        self.writer
            .write(records)
            .map_err(|error| Error::io("copy rows", self.path.display(), std::io::Error::other(error)))
    }

    fn seal(mut self, fs: &dyn Fs, dir: &Path) -> Result<(CopyFile, Reservation)> {
        let failed = |error| Error::io("copy rows", self.path.display(), error);
        self.writer.finish().map_err(|error| failed(std::io::Error::other(error)))?;
        let file = self.writer.into_inner().map_err(|error| failed(std::io::Error::other(error)))?;
        let mut file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.file.sync().map_err(failed)?;
        kill_point("copies.file.synced");
        // The folders above were made with it.
        for folder in dir.ancestors().take(4) {
            fs.sync_dir(folder).map_err(failed)?;
        }
        let sealed = CopyFile {
            name: self.name,
            rows: self.rows,
            n_bytes: file.n_bytes,
            largest_batch_bytes: self.largest_batch_bytes,
        };
        Ok((sealed, file.taken))
    }
}

/// A file whose bytes are taken from the disk's room before they are written.
struct Counted {
    file: Box<dyn FsFile>,
    scratch: Scratch,
    taken: Reservation,
    n_bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = self.scratch.take(ByteCount::of(bytes.len())).map_err(std::io::Error::other)?;
        self.taken.merge(room);
        let n_written = self.file.write(bytes)?;
        self.n_bytes += n_written as u64;
        Ok(n_written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
