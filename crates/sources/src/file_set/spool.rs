//! A file saved to disk because it cannot be read as it comes: Parquet from a server without ranges, a zip
//! that only its directory explains.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use aqueduct_core::{ByteStream, Context, Error, ErrorKind, RandomAccess, Result, Scratch};
use aqueduct_primitives::{ByteCount, Reservation, Tasks};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

/// Where files are saved that cannot be read as they come, and how much they may take in all, with what else the run
/// keeps on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Spool(Scratch);

impl Spool {
    /// The spool of a context.
    pub(crate) fn of(cx: &Context) -> Self {
        Self(cx.scratch().clone())
    }

    /// Saves a body. The file is gone when the result is.
    ///
    /// # Errors
    /// The body's own, the quota is used up, or the disk fails.
    pub(crate) async fn save(&self, mut body: ByteStream, tasks: &Tasks) -> Result<Arc<dyn RandomAccess>> {
        let Self(scratch) = self;
        let dir = scratch.dir.clone();
        let mut file = tasks.block(move || create(&dir)).await??;
        let mut space = Reservation::empty();
        let mut n_bytes: u64 = 0;
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            let more = scratch.take(ByteCount::of(chunk.len()));
            space.merge(more.map_err(|error| error.with("folder", scratch.dir.display()))?);
            n_bytes += chunk.len() as u64;
            let dir = scratch.dir.clone();
            file = tasks.block(move || append(file, &chunk, &dir)).await??;
        }
        Ok(Arc::new(Saved { file: Arc::new(file), n_bytes, tasks: tasks.clone(), _space: space }))
    }
}

/// A file without a name, so that nothing is left of it whatever happens.
fn create(dir: &Path) -> Result<File> {
    let created = std::fs::create_dir_all(dir).and_then(|()| tempfile::tempfile_in(dir));
    created.map_err(|error| Error::io("save to disk", dir.display(), error))
}

fn append(mut file: File, chunk: &Bytes, dir: &Path) -> Result<File> {
    file.write_all(chunk).map_err(|error| Error::io("save to disk", dir.display(), error))?;
    Ok(file)
}

/// A saved file.
struct Saved {
    file: Arc<File>,
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
        let state = dir.path().join("state/spill");
        let spool = Spool(Scratch::new(state.clone(), ByteCount::new(100)));
        let saved = spool.save(body("0123456789", 3), &Tasks::default()).await.unwrap();
        assert_eq!(saved.len(), 30);
        assert_eq!(saved.read(8..13).await.unwrap(), "89012");
        assert!(saved.read(25..31).await.is_err());
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);
        assert_eq!(spool.0.disk.free(), ByteCount::new(70));
        drop(saved);
        assert_eq!(spool.0.disk.free(), spool.0.disk.total());
    }

    #[tokio::test]
    async fn the_quota_is_named_when_it_is_used_up() {
        let spool = Spool(Scratch::new(std::env::temp_dir(), ByteCount::new(25)));
        let error = spool.save(body("0123456789", 3), &Tasks::default()).await.err().unwrap();
        assert_eq!((error.kind(), error.context("limit")), (ErrorKind::Limit, Some("25")));
        assert!(error.message().contains("execution.spill.max_bytes"), "{error}");
        assert_eq!(spool.0.disk.free(), spool.0.disk.total());
    }
}
