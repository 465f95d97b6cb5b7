//! Requests to servers of this machine: HTTP/1.1 (RFC 9112), a connection each, JSON both ways.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Screenshots are the largest answers.
const MAX_BODY_BYTES: u64 = 32 * 1024 * 1024;

/// The head of an answer has no more.
const MAX_HEAD_BYTES: u64 = 64 * 1024;

/// A browser that starts, or draws, on a machine with other work to do.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a server at a port of this machine answers.
///
/// # Errors
/// It does not answer, or with a status other than 2xx, or with no JSON.
pub(super) fn ask(port: u16, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let what = || format!("{method} http://127.0.0.1:{port}{path}");
    let body = body.map(Value::to_string).unwrap_or_default();
    let (status, text) = exchange(port, method, path, &body).with_context(what)?;
    ensure!((200..300).contains(&status), "{} {body}: status {status}: {text}", what());
    serde_json::from_str(&text).with_context(|| format!("{}: found no JSON: {text}", what()))
}

fn exchange(port: u16, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut reader = open(port, method, path, body)?;
    let (status, n_bytes) = head(&mut reader)?;
    let n_bytes = n_bytes.unwrap_or(MAX_BODY_BYTES);
    ensure!(n_bytes <= MAX_BODY_BYTES, "an answer of {n_bytes} bytes; at most {MAX_BODY_BYTES} are read");
    let mut text = String::new();
    reader.take(n_bytes).read_to_string(&mut text)?;
    Ok((status, text))
}

/// A stream of events that is read no further than its head: its client stays until this is dropped.
///
/// # Errors
/// The server refuses it.
pub(super) fn listen(port: u16, path: &str) -> Result<BufReader<TcpStream>> {
    let mut reader = open(port, "GET", path, "")?;
    let (status, _) = head(&mut reader)?;
    ensure!(status == 200, "GET {path}: status {status}, expected 200");
    Ok(reader)
}

fn open(port: u16, method: &str, path: &str, body: &str) -> Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let n_bytes = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {n_bytes}\r\n\r\n{body}"
    )?;
    Ok(BufReader::new(stream))
}

/// The status, and how many bytes follow where that is told.
fn head(reader: &mut impl BufRead) -> Result<(u16, Option<u64>)> {
    let mut lines = Vec::new();
    let mut reader = reader.take(MAX_HEAD_BYTES);
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "the answer ends, or is too long, within its head");
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let n_bytes = lines.iter().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Ok((status.context("an answer without a status")?, n_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_its_status_and_length() {
        let answer = "HTTP/1.1 404 Not Found\r\ncontent-LENGTH: 12\r\n\r\nbody";
        let mut reader = answer.as_bytes();
        assert_eq!(head(&mut reader).unwrap(), (404, Some(12)));
        assert_eq!(reader, b"body");
        assert!(head(&mut "HTTP/1.1 200 OK\r\n".as_bytes()).is_err());
    }
}
