//! A file saved to disk because it cannot be read as it comes: Parquet from a server without ranges, a zip
//! that only its directory explains.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{ByteStream, Context, Error, ErrorKind, RandomAccess, Result};
use aqueduct_primitives::{Budget, ByteCount, Reservation, Tasks};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tempfile::NamedTempFile;

/// All files that a step saves to disk may take so much at once unless told otherwise. More could fill the
/// disk that outputs need.
const DEFAULT_MAX_SPOOL: ByteCount = ByteCount::mib(20 * 1024);

/// Where files are saved that cannot be read as they come, and how much they may take in all. The runner puts
/// one into the services of the context; without it, it is the system's folder for temporary files.
#[derive(Clone, Debug)]
pub struct Spool {
    dir: PathBuf,
    quota: Budget,
}

impl Spool {
    /// Files go to this folder, which is there, and take at most so much in all.
    pub fn new(dir: impl Into<PathBuf>, max_bytes: ByteCount) -> Self {
        Self { dir: dir.into(), quota: Budget::new("spool on disk", max_bytes) }
    }

    /// The spool of a context.
    pub(crate) fn of(cx: &Context) -> Arc<Self> {
        cx.shared(|| Self::new(std::env::temp_dir(), DEFAULT_MAX_SPOOL))
    }

    /// Saves a body. The file is gone when the result is.
    ///
    /// # Errors
    /// The body's own, the quota is used up, or the disk fails.
    pub(crate) async fn save(&self, mut body: ByteStream, tasks: &Tasks) -> Result<Arc<dyn RandomAccess>> {
        let dir = self.dir.clone();
        let mut file = tasks.block(move || create(&dir)).await??;
        let mut space = self.quota.try_reserve(ByteCount::ZERO)?;
        let mut n_bytes: u64 = 0;
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            let more =
                self.quota.try_reserve(ByteCount::of(chunk.len())).map_err(|error| self.full(error))?;
            space.merge(more);
            n_bytes += chunk.len() as u64;
            file = tasks.block(move || append(file, &chunk)).await??;
        }
        let file = Arc::new(file.into_file());
        Ok(Arc::new(Saved { file, n_bytes, tasks: tasks.clone(), _space: space }))
    }

    fn full(&self, error: aqueduct_primitives::ReserveError) -> Error {
        Error::new(ErrorKind::Limit, "save to disk", "the files saved at once are larger than the quota")
            .with("folder", self.dir.display())
            .with("limit", self.quota.total())
            .with_source(error)
    }
}

fn create(dir: &Path) -> Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix("aqueduct-")
        .tempfile_in(dir)
        .map_err(|error| Error::io("save to disk", dir.display(), error))
}

fn append(mut file: NamedTempFile, chunk: &Bytes) -> Result<NamedTempFile> {
    file.write_all(chunk).map_err(|error| Error::io("save to disk", file.path().display(), error))?;
    Ok(file)
}

/// A saved file; it has no name any more, so that nothing is left of it whatever happens.
struct Saved {
    file: Arc<std::fs::File>,
    n_bytes: u64,
    tasks: Tasks,
    _space: Reservation,
}

#[async_trait]
impl RandomAccess for Saved {
    fn len(&self) -> u64 {
        self.n_bytes
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let file = Arc::clone(&self.file);
        let n_bytes = ByteCount::new(range.end.saturating_sub(range.start)).as_usize();
        if range.end > self.n_bytes {
            return Err(Error::new(ErrorKind::Data, "read", "the range goes past the end of the file")
                .with("end", range.end)
                .with("n_bytes", self.n_bytes));
        }
        self.tasks
            .block(move || {
                let mut bytes = vec![0; n_bytes];
                std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, range.start)
                    .map_err(|error| Error::io("read", "a temporary file", error))?;
                Ok(Bytes::from(bytes))
            })
            .await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn body(text: &'static str, n: usize) -> ByteStream {
        Box::pin(stream::iter(std::iter::repeat_n(text, n).map(|text| Ok(Bytes::from(text)))))
    }

    #[tokio::test]
    async fn what_was_saved_is_read_by_range_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::new(dir.path(), ByteCount::new(100));
        let saved = spool.save(body("0123456789", 3), &Tasks::default()).await.unwrap();
        assert_eq!(saved.len(), 30);
        assert_eq!(saved.read(8..13).await.unwrap(), "89012");
        assert!(saved.read(25..31).await.is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(spool.quota.free(), ByteCount::new(70));
        drop(saved);
        assert_eq!(spool.quota.free(), spool.quota.total());
    }

    #[tokio::test]
    async fn the_quota_is_named_when_it_is_used_up() {
        let spool = Spool::new(std::env::temp_dir(), ByteCount::new(25));
        let error = spool.save(body("0123456789", 3), &Tasks::default()).await.err().unwrap();
        assert_eq!((error.kind(), error.context("limit")), (ErrorKind::Limit, Some("25")));
        assert_eq!(spool.quota.free(), spool.quota.total());
    }
}
