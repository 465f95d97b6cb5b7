//! A stream of bytes that can be looked at before it is taken.

use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::{ByteStream, Error, ErrorKind, RandomAccess, Result};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use super::Left;

/// Read at once from what is read by range.
const RANGE_BYTES: u64 = 256 << 10;

/// What has come of a stream and was not taken yet.
pub(crate) struct Input {
    body: ByteStream,
    pending: Bytes,
    is_end: bool,
    n_taken: u64,
}

impl Input {
    pub(crate) fn new(body: ByteStream) -> Self {
        Self { body, pending: Bytes::new(), is_end: false, n_taken: 0 }
    }

    /// What has come.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// How many bytes were taken.
    pub(crate) fn n_taken(&self) -> u64 {
        self.n_taken
    }

    /// Waits until so many bytes are pending, or the stream has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn peek(&mut self, n: usize) -> Result<()> {
        while self.pending.len() < n && !self.is_end {
            match self.body.next().await {
                None => self.is_end = true,
                Some(bytes) => self.append(bytes?),
            }
        }
        Ok(())
    }

    fn append(&mut self, bytes: Bytes) {
        if self.pending.is_empty() {
            self.pending = bytes;
            return;
        }
        let mut both = BytesMut::with_capacity(self.pending.len() + bytes.len());
        both.extend_from_slice(&self.pending);
        both.extend_from_slice(&bytes);
        self.pending = both.freeze();
    }

    /// Takes up to so many of the pending bytes; nothing when none are pending.
    pub(crate) fn take(&mut self, max: usize) -> Option<Bytes> {
        let n = self.pending.len().min(max);
        self.n_taken += n as u64;
        (n > 0).then(|| self.pending.split_to(n))
    }

    /// Exactly so many bytes, a few: they may be copied.
    ///
    /// # Errors
    /// The stream ends before.
    pub(crate) async fn take_exactly(&mut self, n: usize) -> Result<Bytes> {
        self.peek(n).await?;
        if self.pending.len() < n {
            return Err(cut_off());
        }
        Ok(self.take(n).unwrap_or_default())
    }

    /// Up to so many of the pending bytes, which stay pending; nothing when there are none.
    pub(crate) fn look(&self, max: usize) -> Option<Bytes> {
        let n = self.pending.len().min(max);
        (n > 0).then(|| self.pending.slice(..n))
    }

    /// Copies up to `room` bytes as they are.
    pub(crate) async fn copy(&mut self, mut out: Vec<u8>, room: usize) -> Result<(Vec<u8>, Left)> {
        self.peek(1).await?;
        let Some(bytes) = self.take(room) else {
            // No room is not the end.
            return Ok((out, if self.pending.is_empty() { Left::End } else { Left::More }));
        };
        out.extend_from_slice(&bytes);
        Ok((out, Left::More))
    }
}

/// The input ended in the middle.
pub(crate) fn cut_off() -> Error {
    Error::new(ErrorKind::Data, "unpack", "the file is cut off: it ends before it is complete")
}

/// A range of a file as a stream.
pub(crate) fn byte_stream(file: Arc<dyn RandomAccess>, range: Range<u64>) -> ByteStream {
    Box::pin(async_stream::try_stream! {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + RANGE_BYTES);
            yield file.read(start..end).await?;
            start = end;
        }
    })
}
