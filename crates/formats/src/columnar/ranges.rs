//! Bytes by range for a reader that blocks: small pieces read ahead, so that columns that are read side by
//! side each have theirs, and a column chunk is never in memory whole.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::RandomAccess;
use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

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
}

impl Ranges {
    /// Reads through `runtime`, `piece_bytes` at once, and keeps up to `max_bytes`.
    pub(super) fn new(
        file: Arc<dyn RandomAccess>,
        runtime: Handle,
        piece_bytes: u64,
        max_bytes: u64,
    ) -> Self {
        let pieces = Mutex::default();
        Self { shared: Arc::new(Shared { file, runtime, piece_bytes, max_bytes, pieces }) }
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
        let piece = read.map_err(|error| ParquetError::External(Box::new(error)))?;
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
        Ok(RangeRead { ranges: self.clone(), at: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.bytes(start, length as u64)
    }
}

/// Reads on from a place.
pub(super) struct RangeRead {
    ranges: Ranges,
    at: u64,
}

impl Read for RangeRead {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
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
