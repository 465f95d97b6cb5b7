//! What DataFusion's operators write to disk goes to our folder: named, counted and bounded as our own runs are.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use datafusion_common::{DataFusionError, Result};
use datafusion_execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion_execution::{SpillFile, SpillWriter, TempFileFactory};
use futures::Stream;

use crate::SpillDir;
use crate::disk::SpillFile as OwnFile;

/// Read from a file at once.
const CHUNK_BYTES: usize = 128 << 10;
/// A merge of spilled states opens so many files at most: each holds a few batches.
const MAX_FAN_IN: usize = 8;

/// A disk manager over our folder.
pub(super) fn disk_manager(dir: SpillDir) -> DiskManagerBuilder {
    let factory = DiskManagerMode::Custom(Arc::new(Factory(dir)));
    let mut builder = DiskManagerBuilder::default().with_mode(factory);
    builder.set_max_spill_merge_fan_in(MAX_FAN_IN);
    builder
}

struct Factory(SpillDir);

impl TempFileFactory for Factory {
    fn create_temp_file(&self, _description: &str) -> Result<Arc<dyn SpillFile>> {
        let (own, file) = self.0.create().map_err(super::outside)?;
        Ok(Arc::new(Spilled { own: Arc::new(Mutex::new(own)), file }))
    }
}

/// A file, removed when the last handle on it is dropped.
struct Spilled {
    own: Arc<Mutex<OwnFile>>,
    file: File,
}

impl Spilled {
    fn path(&self) -> std::path::PathBuf {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).path().to_owned()
    }
}

impl SpillFile for Spilled {
    fn path(&self) -> Option<&Path> {
        // Whoever knows the path opens the file without us, uncounted.
        None
    }

    fn size(&self) -> Option<u64> {
        self.file.metadata().ok().map(|metadata| metadata.len())
    }

    /// Blocks while it reads: plans run on a thread of their own.
    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        let mut file = File::open(Self::path(self)).map_err(DataFusionError::IoError)?;
        let own = Arc::clone(&self.own);
        let chunks = std::iter::from_fn(move || {
            let _alive = &own;
            next_chunk(&mut file).map_err(DataFusionError::IoError).transpose()
        });
        Ok(Box::pin(futures::stream::iter(chunks)))
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        let file = self.file.try_clone().map_err(DataFusionError::IoError)?;
        Ok(Box::new(Writer { own: Arc::clone(&self.own), file }))
    }
}

fn next_chunk(file: &mut File) -> io::Result<Option<Bytes>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let n_read = file.read(&mut chunk)?;
    chunk.truncate(n_read);
    Ok((n_read > 0).then(|| chunk.into()))
}

struct Writer {
    own: Arc<Mutex<OwnFile>>,
    file: File,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What it was in memory nobody says.
        let n_bytes = bytes.len() as u64;
        let counted = self.own.lock().unwrap_or_else(PoisonError::into_inner).grow(n_bytes, n_bytes);
        counted.map_err(io::Error::other)?;
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl SpillWriter for Writer {
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
