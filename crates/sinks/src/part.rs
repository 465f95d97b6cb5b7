//! Parts of an output: named, opened, written within the memory there is, closed.

use std::io::BufWriter;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_core::collections::Extents;
use aqueduct_core::rows::{row_bytes, runs};
use aqueduct_core::{Context, Counter, Error, Fs, Result, Scratch, StepMetrics, retained_bytes};
use aqueduct_formats::write::{Encoder, WriteFormat};
use aqueduct_primitives::ByteCount;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::extents;
use crate::staged_file::{BUFFER_BYTES, Complete, StagedFile};

/// Opens the parts of one output, one after the other.
pub(crate) struct PartMaker {
    fs: Arc<dyn Fs>,
    metrics: Arc<StepMetrics>,
    scratch: Scratch,
    stage_dir: PathBuf,
    format: WriteFormat,
    schema: SchemaRef,
    names: Names,
}

/// How parts are called.
pub(crate) enum Names {
    /// The one file's own name. Each seal gives one more part of it; who publishes takes one and refuses more, by
    /// name.
    One { name: String, n_parts: u64 },
    /// `part-RUN-00000.SUFFIX` and so on.
    Numbered { run_id: String, n_parts: u64 },
}

impl Names {
    /// The next part's name, and the path that it is staged at.
    fn next(&mut self, folder: &str, suffix: &str) -> (String, String) {
        match self {
            Self::One { name, n_parts } => {
                *n_parts += 1;
                let staged_as = if *n_parts == 1 { name.clone() } else { format!("{n_parts}-{name}") };
                (name.clone(), staged_as)
            }
            Self::Numbered { run_id, n_parts } => {
                *n_parts += 1;
                let name = format!("{folder}part-{run_id}-{:05}.{suffix}", *n_parts - 1);
                (name.clone(), name)
            }
        }
    }
}

impl PartMaker {
    pub(crate) fn new(cx: &Context, format: WriteFormat, schema: SchemaRef, names: Names) -> Result<Self> {
        Ok(Self {
            fs: Arc::clone(cx.fs()),
            metrics: Arc::clone(cx.metrics()),
            scratch: cx.scratch().clone(),
            stage_dir: cx.stage_dir()?.to_owned(),
            format,
            schema,
            names,
        })
    }

    pub(crate) fn format(&self) -> &WriteFormat {
        &self.format
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn fs(&self) -> &Arc<dyn Fs> {
        &self.fs
    }

    pub(crate) fn metrics(&self) -> &Arc<StepMetrics> {
        &self.metrics
    }

    /// What the run may put on the disk for itself.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// A path beside the parts for what is not to be published.
    pub(crate) fn scratch_path(&self, name: &str) -> PathBuf {
        self.stage_dir.join(name)
    }

    /// Whether all rows must go into the same file.
    pub(crate) fn is_one_file(&self) -> bool {
        matches!(self.names, Names::One { .. })
    }

    /// Whether rows are items of STAC.
    fn holds_items(&self) -> bool {
        matches!(&self.format, WriteFormat::Parquet(options) if options.geo.is_some())
    }

    /// Opens the next part. `folder` is empty or ends in `/`.
    pub(crate) fn open(&mut self, folder: &str, memory: ByteCount) -> Result<OpenPart> {
        let (name, staged_as) = self.names.next(folder, &self.format.suffix());
        let path = self.stage_dir.join(staged_as);
        let file = StagedFile::create(&self.fs, path.clone(), Arc::clone(&self.metrics))?;
        let written = file.counter();
        let encoder = self.format.encoder(SchemaRef::clone(&self.schema), file.buffered(), memory)?;
        let extents = self.holds_items().then(Extents::default);
        Ok(OpenPart { encoder, written, folder: folder.to_owned(), name, path, n_rows: 0, extents })
    }
}

/// A part being written. Blocks.
pub(crate) struct OpenPart {
    encoder: Box<dyn Encoder<BufWriter<StagedFile>>>,
    written: Arc<Counter>,
    folder: String,
    name: String,
    path: PathBuf,
    n_rows: u64,
    /// Where and when its items are, if it holds items.
    extents: Option<Extents>,
}

impl OpenPart {
    /// Writes rows, a slice at a time, so that what is held back never outgrows `limit` by more than a slice.
    pub(crate) fn write(&mut self, records: &RecordBatch, limit: ByteCount) -> Result<()> {
        for rows in rows_at_once(records, limit) {
            let slice = records.slice(rows.start, rows.len());
            self.encoder.write(&slice).map_err(|error| self.at(error))?;
            if self.memory() > limit {
                self.flush()?;
            }
        }
        self.n_rows += records.num_rows() as u64;
        if let Some(extents) = &mut self.extents {
            extents::add(extents, &self.folder, records);
        }
        Ok(())
    }

    /// Lets go of what can be written out.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.encoder.flush().map_err(|error| self.at(error))
    }

    /// The bytes held back.
    pub(crate) fn memory(&self) -> ByteCount {
        let extents = self.extents.as_ref().map_or(0, Extents::n_bytes);
        self.encoder.memory().saturating_add(ByteCount::of(BUFFER_BYTES + extents))
    }

    /// How large the file would be if it ended now, roughly.
    pub(crate) fn n_bytes(&self) -> ByteCount {
        ByteCount::new(self.written.get()).saturating_add(self.encoder.memory())
    }

    /// Whether the file had better end here.
    pub(crate) fn is_full(&self) -> bool {
        self.encoder.is_full()
    }

    /// Completes the part. It is not durable yet.
    pub(crate) fn complete(self) -> Result<Complete> {
        let at = |error: Error| error.with("path", self.path.display());
        let file = self.encoder.finish().map_err(at)?;
        let file =
            file.into_inner().map_err(|error| Error::io("write", self.path.display(), error.into_error()))?;
        Ok(file.complete(self.name, self.n_rows).with_extents(self.extents))
    }

    fn at(&self, error: Error) -> Error {
        error.with("path", self.path.display())
    }
}

/// Rows whose encoded form stays well within the limit; a row that cannot is alone.
fn rows_at_once(records: &RecordBatch, limit: ByteCount) -> Vec<Range<usize>> {
    let most = limit.get() / 4;
    let n_rows = records.num_rows();
    if n_rows > 0 && retained_bytes(records).get() <= most {
        return std::iter::once(0..n_rows).collect();
    }
    runs(&row_bytes(records), most)
}
