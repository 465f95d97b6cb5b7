//! Bytes as they come from somewhere: in order, or by range.

use std::ops::Range;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

use crate::Result;

/// Bytes in order, in pieces of any size. The first error is the last item.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Bytes by range, for formats that are read from their end: Parquet, Arrow files.
#[async_trait]
pub trait RandomAccess: Send + Sync {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Exactly the bytes of the range.
    ///
    /// # Errors
    /// The range goes past the end, the bytes cannot be read, or they changed since the first read.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    async fn read(&self, range: Range<u64>) -> Result<Bytes>;
}
