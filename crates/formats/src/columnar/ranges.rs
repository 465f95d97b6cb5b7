//! Bytes by range for a reader that blocks: small pieces read ahead, so that columns that are read side by
//! side each have theirs, and a column chunk is never in memory whole.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::{Error, RandomAccess};
use aqueduct_primitives::Reservation;
use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

use super::damaged;
use super::pages::Pages;
use super::thrift::{PAGE_HEAD_BYTES, page_head};

/// A file for `parquet`, used on threads that may block.
#[derive(Clone)]
pub(super) struct Ranges {
    shared: Arc<Shared>,
}

struct Shared {
    file: Arc<dyn RandomAccess>,
    runtime: Handle,
    /// Read at once at least.
    piece_bytes: u64,
    /// Kept at most, beside the piece in use.
    max_bytes: u64,
    /// The one used last stands last.
    pieces: Mutex<Vec<(u64, Bytes)>>,
    /// Told of each page before it is read.
    pages: Option<Pages>,
    /// Why the last read failed: `parquet` keeps no more of it than its text.
    failure: Mutex<Option<Error>>,
}

impl Ranges {
    /// Reads through `runtime`, `piece_bytes` at once, and keeps up to `max_bytes`. Pages wait for their memory.
    pub(super) fn new(
        file: Arc<dyn RandomAccess>,
        runtime: Handle,
        piece_bytes: u64,
        max_bytes: u64,
        pages: Option<Pages>,
    ) -> Self {
        let (pieces, failure) = Default::default();
        Self { shared: Arc::new(Shared { file, runtime, piece_bytes, max_bytes, pieces, pages, failure }) }
    }

    /// Memory of the pages, for rows that are made of them.
    pub(super) fn hand_over(&self) -> Reservation {
        self.shared.pages.as_ref().map(Pages::hand_over).unwrap_or_default()
    }

    /// Why `parquet` failed: a read of the file, or what is in it.
    pub(super) fn why_failed(&self, error: impl std::error::Error + Send + Sync + 'static) -> Error {
        let failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.unwrap_or_else(|| damaged("Parquet file", error))
    }

    fn fail(&self, error: Error) -> ParquetError {
        let message = error.to_string();
        *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        ParquetError::General(message)
    }

    /// Waits for the memory of the page whose header begins at `at`.
    fn admit_page(&self, at: u64) -> Result<()> {
        let Some(pages) = &self.shared.pages else { return Ok(()) };
        let n = PAGE_HEAD_BYTES.min(self.len().saturating_sub(at));
        match page_head(&self.bytes(at, n)?) {
            Some(head) => pages.admit(at, head, &self.shared.runtime).map_err(|error| self.fail(error)),
            // The reader finds what is wrong with it.
            None => Ok(()),
        }
    }

    fn bytes(&self, start: u64, n: u64) -> Result<Bytes> {
        let shared = &self.shared;
        let len = shared.file.len();
        let end = start.checked_add(n).filter(|end| *end <= len);
        let Some(end) = end else {
            return Err(ParquetError::EOF(format!(
                "bytes {start} to {} of a file of {len}",
                start.saturating_add(n)
            )));
        };
        if let Some(bytes) = self.kept(start, end) {
            return Ok(bytes);
        }
        let until = end.max(start.saturating_add(shared.piece_bytes).min(len));
        let read = shared.runtime.block_on(shared.file.read(start..until));
        let piece = read.map_err(|error| self.fail(error))?;
        if piece.len() as u64 != until - start {
            return Err(ParquetError::EOF(format!("{} of {} bytes at {start}", piece.len(), until - start)));
        }
        let bytes = piece.slice(..usize::try_from(n)?);
        self.keep(start, piece);
        Ok(bytes)
    }

    fn kept(&self, start: u64, end: u64) -> Option<Bytes> {
        let mut pieces = self.shared.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let found = pieces.iter().position(|(at, bytes)| *at <= start && end <= at + bytes.len() as u64)?;
        let (at, bytes) = pieces.remove(found);
        let from = usize::try_from(start - at).ok()?;
        let slice = bytes.slice(from..from + usize::try_from(end - start).ok()?);
        pieces.push((at, bytes));
        Some(slice)
    }

    fn keep(&self, start: u64, piece: Bytes) {
        let mut pieces = self.shared.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        // A piece that overlaps the new one at its start has been read to its end.
        pieces.retain(|(at, bytes)| !(*at..at + bytes.len() as u64).contains(&start));
        pieces.push((start, piece));
        let mut sum: u64 = pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        while sum > self.shared.max_bytes && pieces.len() > 1 {
            sum -= pieces.remove(0).1.len() as u64;
        }
    }
}

impl Length for Ranges {
    fn len(&self) -> u64 {
        self.shared.file.len()
    }
}

impl ChunkReader for Ranges {
    type T = RangeRead;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(RangeRead { ranges: self.clone(), at: start, is_at_head: true })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.bytes(start, length as u64)
    }
}

/// Reads on from a place.
pub(super) struct RangeRead {
    ranges: Ranges,
    at: u64,
    /// Nothing has been read yet, and what is read first is the header of a page.
    is_at_head: bool,
}

impl Read for RangeRead {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if std::mem::take(&mut self.is_at_head) {
            self.ranges.admit_page(self.at).map_err(std::io::Error::other)?;
        }
        let left = self.ranges.len().saturating_sub(self.at);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        if n == 0 {
            return Ok(0);
        }
        let bytes = self.ranges.bytes(self.at, n as u64).map_err(std::io::Error::other)?;
        out[..n].copy_from_slice(&bytes);
        self.at += n as u64;
        Ok(n)
    }
}
