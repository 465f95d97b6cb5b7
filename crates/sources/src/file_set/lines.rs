//! The lines of a body, one at a time: lists of files may have millions.

use aqueduct_core::{ByteStream, Error, ErrorKind, Result};
use async_stream::try_stream;
use bytes::BytesMut;
use futures::{Stream, StreamExt};
use tokio_util::codec::{Decoder, LinesCodec, LinesCodecError};

/// A longer line of a list is an error: no URL needs it, and it would have to be held whole.
pub(crate) const MAX_LINE_BYTES: usize = 64 * 1024;

/// The lines of a body without their ends, in order, none longer than [`MAX_LINE_BYTES`].
///
/// # Errors
/// In the stream: the body's own, a line that is too long or no UTF-8. `name` stands in them.
pub(crate) fn lines(body: ByteStream, name: String) -> impl Stream<Item = Result<String>> + Send {
    lines_up_to(MAX_LINE_BYTES, body, name)
}

/// [`lines`] of at most so many bytes.
pub(crate) fn lines_up_to(
    max_bytes: usize,
    mut body: ByteStream,
    name: String,
) -> impl Stream<Item = Result<String>> + Send {
    let broken = move |error, name: &str, n_lines| broken(error, max_bytes, name, n_lines);
    try_stream! {
        let mut codec = LinesCodec::new_with_max_length(max_bytes);
        let mut buffer = BytesMut::new();
        let mut n_lines: u64 = 0;
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            buffer.extend_from_slice(&chunk);
            while let Some(line) = codec.decode(&mut buffer).map_err(|error| broken(error, &name, n_lines))? {
                n_lines += 1;
                yield line;
            }
        }
        while let Some(line) = codec.decode_eof(&mut buffer).map_err(|error| broken(error, &name, n_lines))? {
            n_lines += 1;
            yield line;
        }
    }
}

fn broken(error: LinesCodecError, max_bytes: usize, name: &str, n_lines_before: u64) -> Error {
    let error = match error {
        LinesCodecError::MaxLineLengthExceeded => {
            Error::new(ErrorKind::Limit, "read list", "a line is too long; expected one file a line")
                .with("limit_bytes", max_bytes)
        }
        LinesCodecError::Io(error) => {
            Error::new(ErrorKind::Data, "read list", "a line is no UTF-8 text").with_source(error)
        }
    };
    error.with("list", name).with("line", n_lines_before + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::{TryStreamExt, stream};

    async fn read(chunks: &[&'static [u8]]) -> Result<Vec<String>> {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect();
        lines(Box::pin(stream::iter(chunks)), "list.txt".into()).try_collect().await
    }

    #[tokio::test]
    async fn lines_are_whole_wherever_the_chunks_end() {
        assert_eq!(read(&[b"a\r", b"\nbc", b"", b"d\n\ne"]).await.unwrap(), ["a", "bcd", "", "e"]);
        assert!(read(&[]).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_line_without_end_is_an_error_that_names_the_limit() {
        const PIECE: &[u8] = &[b'x'; 40_000];
        let error = read(&[b"first\n", PIECE, PIECE, PIECE]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert_eq!((error.context("line"), error.context("list")), (Some("2"), Some("list.txt")));
    }
}
