//! Bounded downloads with nothing but a sliding window and a socket.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use aqueduct_primitives::{Tasks, Window, WindowLimit, window};
use futures::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest answer that is read, in bytes; the memory that all of it takes is this times the window.
pub const MAX_ANSWER_BYTES: u64 = 50_000_000;

/// How long one download may take.
pub const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Downloads any list of URLs, at most `n_at_once` of them running or not yet dropped by the caller.
pub fn download(
    urls: impl Iterator<Item = String> + Send + 'static,
    n_at_once: usize,
    tasks: &Tasks,
) -> Window<(String, Result<Vec<u8>>)> {
    window(stream::iter(urls), WindowLimit::tasks(n_at_once), tasks, |url| async move {
        let body = timeout(DOWNLOAD_TIMEOUT, get(&url)).await.unwrap_or_else(|late| Err(late.into()));
        (url, body)
    })
}

/// The body of an `http://` URL, by HTTP/1.0 (RFC 1945).
///
/// # Errors
/// It cannot be reached, does not answer `200`, or answers with more than [`MAX_ANSWER_BYTES`].
pub async fn get(url: &str) -> Result<Vec<u8>> {
    let (host, path) = host_and_path(url)?;
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut server = TcpStream::connect(address).await?;
    server.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    server.take(MAX_ANSWER_BYTES + 1).read_to_end(&mut answer).await?;
    if u64::try_from(answer.len()).is_ok_and(|len| len > MAX_ANSWER_BYTES) {
        let message = format!("the answer is longer than {MAX_ANSWER_BYTES} bytes");
        return Err(Error::new(ErrorKind::FileTooLarge, message));
    }
    body_of(answer)
}

fn host_and_path(url: &str) -> Result<(&str, &str)> {
    let rest = url.strip_prefix("http://").ok_or_else(|| invalid("not an http:// URL"))?;
    Ok(match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    })
}

fn body_of(mut answer: Vec<u8>) -> Result<Vec<u8>> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.ok_or_else(|| invalid("the answer has no end of its head"))?;
    let status = answer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if status != b"200" {
        return Err(Error::other(format!("status {}", String::from_utf8_lossy(status))));
    }
    answer.drain(..end + 4);
    Ok(answer)
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}
