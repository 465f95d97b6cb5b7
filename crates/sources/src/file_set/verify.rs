//! Counts the bytes of a file as they come, and holds them against what a list said about them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aqueduct_core::{ByteStream, Error, ErrorKind, Result, StepMetrics};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use md5::{Digest, Md5};

/// What a list says about a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// How many bytes it has.
    pub(crate) n_bytes: Option<u64>,
    /// The MD5 of its bytes, in hex, in whatever case.
    pub(crate) md5: Option<String>,
}

impl Expected {
    /// Compares a length that is known before the bytes are read.
    ///
    /// # Errors
    /// It is another.
    pub(crate) fn check_length(&self, n_bytes: Option<u64>) -> Result<()> {
        match (self.n_bytes, n_bytes) {
            (Some(expected), Some(actual)) if expected != actual => Err(mismatch("size", expected, actual)),
            _ => Ok(()),
        }
    }
}

/// The body, counted into [`StepMetrics::bytes`]; at its end an error if it is not what was expected.
pub(crate) fn verified(body: ByteStream, expected: Expected, metrics: Arc<StepMetrics>) -> ByteStream {
    let hash = expected.md5.is_some().then(Md5::new);
    Box::pin(Verified { body, expected, hash, metrics, n_bytes: 0, is_done: false })
}

struct Verified {
    body: ByteStream,
    expected: Expected,
    hash: Option<Md5>,
    metrics: Arc<StepMetrics>,
    n_bytes: u64,
    is_done: bool,
}

impl Stream for Verified {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        let item = match std::task::ready!(self.body.poll_next_unpin(cx)) {
            Some(Ok(chunk)) => {
                self.take_in(&chunk);
                return Poll::Ready(Some(Ok(chunk)));
            }
            Some(Err(error)) => Some(Err(error)),
            None => self.check().err().map(Err),
        };
        self.is_done = true;
        Poll::Ready(item)
    }
}

impl Verified {
    fn take_in(&mut self, chunk: &Bytes) {
        self.n_bytes += chunk.len() as u64;
        self.metrics.bytes.add_len(chunk.len());
        if let Some(hash) = &mut self.hash {
            hash.update(chunk);
        }
    }

    fn check(&mut self) -> Result<()> {
        self.expected.check_length(Some(self.n_bytes))?;
        let (Some(expected), Some(hash)) = (&self.expected.md5, self.hash.take()) else { return Ok(()) };
        let actual: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if expected.eq_ignore_ascii_case(&actual) { Ok(()) } else { Err(mismatch("md5", expected, actual)) }
    }
}

fn mismatch(what: &str, expected: impl std::fmt::Display, actual: impl std::fmt::Display) -> Error {
    let message =
        format!("the {what} is not the one that the list gives; the file or the list is stale or damaged");
    Error::new(ErrorKind::Data, "verify", message).with("expected", expected).with("actual", actual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{TryStreamExt, stream};

    async fn read(n_bytes: Option<u64>, md5: Option<&str>) -> (Result<Vec<Bytes>>, u64) {
        let body = stream::iter([Ok(Bytes::from("hello ")), Ok(Bytes::from("world"))]);
        let expected = Expected { n_bytes, md5: md5.map(str::to_owned) };
        let metrics = Arc::new(StepMetrics::default());
        let read = verified(Box::pin(body), expected, Arc::clone(&metrics)).try_collect().await;
        (read, metrics.bytes.get())
    }

    #[tokio::test]
    async fn what_fits_passes_and_is_counted() {
        let (read, n_bytes) = read(Some(11), Some("5EB63BBBE01EEED093CB22BB8F5ACDC3")).await;
        assert_eq!((read.unwrap().concat(), n_bytes), (b"hello world".to_vec(), 11));
    }

    #[tokio::test]
    async fn what_does_not_fit_names_both_sides() {
        let error = read(Some(12), None).await.0.unwrap_err();
        assert_eq!((error.context("expected"), error.context("actual")), (Some("12"), Some("11")));
        let error = read(None, Some("00000000000000000000000000000000")).await.0.unwrap_err();
        assert_eq!(error.context("actual"), Some("5eb63bbbe01eeed093cb22bb8f5acdc3"));
    }
}
