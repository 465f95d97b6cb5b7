//! Requests as a server sees them, and answers as tests script them.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

/// One request as the server saw it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method: `GET`, `HEAD`.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The query, undecoded.
    pub query: String,
    /// The headers; names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Bytes,
    /// Which request of this path and method it is, from 1.
    pub nth: usize,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    /// The first byte that `Range: bytes=FIRST-` asks for, if it is there.
    pub fn range_start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }
}

/// What the server does about a request: a head, and steps.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) steps: Vec<Step>,
}

/// One thing that the server does.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(Bytes),
    Wait(Duration),
    WaitFor(Gate),
    HangUp,
    Reset,
}

impl Answer {
    /// An answer without headers and body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), steps: Vec::new() }
    }

    /// 200 with a body and its length.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::new(200).body(body)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sends a body, with its `Content-Length` unless one is set already.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        if self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            return self.send(body);
        }
        let length = body.len();
        self.header("Content-Length", length).send(body)
    }

    /// Sends a body in chunks, without the last, empty one: see [`Answer::last_chunk`].
    #[must_use]
    pub fn chunks<B: AsRef<[u8]>>(mut self, chunks: impl IntoIterator<Item = B>) -> Self {
        self = self.header("Transfer-Encoding", "chunked");
        for chunk in chunks {
            let chunk = chunk.as_ref();
            let mut bytes = format!("{:x}\r\n", chunk.len()).into_bytes();
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
            self = self.send(bytes);
        }
        self
    }

    /// Ends a chunked body.
    #[must_use]
    pub fn last_chunk(self) -> Self {
        self.send("0\r\n\r\n")
    }

    /// Sends bytes as they are.
    #[must_use]
    pub fn send(mut self, bytes: impl Into<Bytes>) -> Self {
        self.steps.push(Step::Send(bytes.into()));
        self
    }

    /// Waits before it goes on.
    #[must_use]
    pub fn wait(mut self, time: Duration) -> Self {
        self.steps.push(Step::Wait(time));
        self
    }

    /// Waits until the gate is open.
    #[must_use]
    pub fn wait_for(mut self, gate: &Gate) -> Self {
        self.steps.push(Step::WaitFor(gate.clone()));
        self
    }

    /// Ends the connection politely, whatever was promised.
    #[must_use]
    pub fn hang_up(mut self) -> Self {
        self.steps.push(Step::HangUp);
        self
    }

    /// Breaks the connection with a TCP reset.
    #[must_use]
    pub fn reset(mut self) -> Self {
        self.steps.push(Step::Reset);
        self
    }

    /// Sends so many bytes of what it was to send, then ends the connection.
    #[must_use]
    pub fn cut_after(self, n_bytes: usize) -> Self {
        self.stop_after(n_bytes).hang_up()
    }

    /// Sends so many bytes of what it was to send, then resets the connection.
    #[must_use]
    pub fn reset_after(self, n_bytes: usize) -> Self {
        self.stop_after(n_bytes).reset()
    }

    fn stop_after(mut self, n_bytes: usize) -> Self {
        let mut left = n_bytes;
        for step in &mut self.steps {
            if let Step::Send(bytes) = step {
                bytes.truncate(left);
                left -= bytes.len();
            }
        }
        self
    }

    /// The answer of a file server that does ETag, Range, If-Range and HEAD.
    pub fn file(request: &Request, body: &Bytes, etag: &str) -> Self {
        let condition = request.header("if-range").is_none_or(|wanted| wanted == etag);
        let range = request.header("range").filter(|_| condition).and_then(|text| range_of(text, body.len()));
        let head = |status| Self::new(status).header("ETag", etag).header("Accept-Ranges", "bytes");
        match range {
            None => head(200).body(body.clone()),
            Some(range) if range.start >= body.len() => {
                head(416).header("Content-Range", format!("bytes */{}", body.len())).body("")
            }
            Some(range) => {
                let place = format!("bytes {}-{}/{}", range.start, range.end - 1, body.len());
                head(206).header("Content-Range", place).body(body.slice(range))
            }
        }
    }
}

/// The range of a `Range` header within so many bytes.
fn range_of(text: &str, n_bytes: usize) -> Option<std::ops::Range<usize>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        return Some(n_bytes.saturating_sub(last.parse().ok()?)..n_bytes);
    }
    let end = if last.is_empty() { n_bytes } else { last.parse::<usize>().ok()?.saturating_add(1) };
    Some(first.parse().ok()?..end.min(n_bytes))
}

/// Something that answers wait for until a test opens it.
#[derive(Clone, Debug)]
pub struct Gate {
    open: watch::Sender<bool>,
}

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self { open: watch::Sender::new(false) }
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    pub(super) async fn wait(&self) {
        // The sender is in `self`, so waiting cannot fail.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

/// Reads the lines of a request's head.
pub(super) fn parse_head(head: &str) -> Request {
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Request { method, path: path.to_owned(), query: query.to_owned(), headers, body: Bytes::new(), nth: 0 }
}
