//! Requests as a server sees them, and answers as tests script them.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
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

    /// The bytes that `Range` asks for, of so many; it may begin behind the last.
    pub fn range(&self, n_bytes: u64) -> Option<Range<u64>> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        if first.is_empty() {
            return Some(n_bytes.saturating_sub(last.parse().ok()?)..n_bytes);
        }
        let end = if last.is_empty() { n_bytes } else { last.parse::<u64>().ok()?.saturating_add(1) };
        Some(first.parse().ok()?..end.min(n_bytes))
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
    /// Else what is sent is no answer of HTTP/1.
    pub(super) has_head: bool,
    pub(super) delay: Option<Duration>,
    pub(super) bytes_per_second: Option<u64>,
}

/// One thing that the server does.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(Bytes),
    SendFile(Arc<File>, Range<u64>),
    /// Again and again, until the client has enough.
    Repeat(Bytes),
    Wait(Duration),
    WaitFor(Gate),
    /// Until the client goes away.
    Hang,
    HangUp,
    Reset,
}

impl Answer {
    /// An answer without headers and body.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            steps: Vec::new(),
            has_head: true,
            delay: None,
            bytes_per_second: None,
        }
    }

    /// Sends these bytes in the place of an answer, and ends the connection.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self { has_head: false, ..Self::new(0) }.send(bytes).hang_up()
    }

    /// No answer: takes the request and says nothing until the client goes away.
    pub fn silence() -> Self {
        Self { has_head: false, ..Self::new(0) }.hang()
    }

    /// What it says that its status is; 0 of what is no answer.
    pub fn status(&self) -> u16 {
        self.status
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

    /// Says no more, and waits until the client goes away.
    #[must_use]
    pub fn hang(mut self) -> Self {
        self.steps.push(Step::Hang);
        self
    }

    /// Sends bytes again and again, until the client goes away.
    #[must_use]
    pub fn repeat(mut self, bytes: impl Into<Bytes>) -> Self {
        self.steps.push(Step::Repeat(bytes.into()));
        self
    }

    /// Waits before it says anything.
    #[must_use]
    pub fn delay(mut self, time: Duration) -> Self {
        self.delay = Some(time);
        self
    }

    /// Sends what follows the head no faster than this.
    #[must_use]
    pub fn bytes_per_second(mut self, n_bytes: u64) -> Self {
        self.bytes_per_second = Some(n_bytes);
        self
    }

    /// Sends a part of a body.
    #[must_use]
    pub fn part(mut self, body: &Body, range: Range<u64>) -> Self {
        self.steps.push(match body {
            Body::Bytes(bytes) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Step::Send(bytes.slice(place(range.start)..place(range.end.max(range.start))))
            }
            Body::File { file, .. } => Step::SendFile(Arc::clone(file), range),
        });
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

    /// Sends so many bytes of what it was to send, then nothing more until the client goes away.
    #[must_use]
    pub fn stall_after(self, n_bytes: usize) -> Self {
        self.stop_after(n_bytes).hang()
    }

    fn stop_after(mut self, n_bytes: usize) -> Self {
        let mut left = n_bytes;
        self.steps.retain(|step| !matches!(step, Step::Repeat(_) | Step::HangUp));
        for step in &mut self.steps {
            match step {
                Step::Send(bytes) => {
                    bytes.truncate(left);
                    left -= bytes.len();
                }
                Step::SendFile(_, range) => {
                    range.end = range.end.min(range.start.saturating_add(left as u64));
                    left -= usize::try_from(range.end - range.start).unwrap_or(left).min(left);
                }
                _ => {}
            }
        }
        self
    }

    /// The answer of a file server that does ETag, Range, If-Range and HEAD.
    pub fn file(request: &Request, body: &Bytes, etag: &str) -> Self {
        Self::of_body(request, &Body::Bytes(body.clone()), etag)
    }

    /// [`Answer::file`] for what may be too large for the memory.
    pub fn of_body(request: &Request, body: &Body, etag: &str) -> Self {
        let n_bytes = body.n_bytes();
        let condition = request.header("if-range").is_none_or(|wanted| wanted == etag);
        let range = request.range(n_bytes).filter(|_| condition);
        let head = |status| Self::new(status).header("ETag", etag).header("Accept-Ranges", "bytes");
        match range {
            None => head(200).header("Content-Length", n_bytes).part(body, 0..n_bytes),
            Some(range) if range.start >= n_bytes => {
                head(416).header("Content-Range", format!("bytes */{n_bytes}")).body("")
            }
            Some(range) => {
                let place = format!("bytes {}-{}/{n_bytes}", range.start, range.end.saturating_sub(1));
                let length = range.end.saturating_sub(range.start);
                head(206).header("Content-Range", place).header("Content-Length", length).part(body, range)
            }
        }
    }
}

/// What is served: all of it in memory, or in a file.
#[derive(Clone, Debug)]
pub enum Body {
    /// In memory.
    Bytes(Bytes),
    /// In a file, which is read while it is sent.
    File {
        /// Open.
        file: Arc<File>,
        /// How long it was when it was opened.
        n_bytes: u64,
    },
}

impl Body {
    /// A file. Blocks.
    ///
    /// # Errors
    /// It is none, or cannot be opened.
    pub fn open(path: &std::path::Path) -> std::io::Result<Self> {
        // Before it is opened: opening a pipe would wait for its writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("no file"));
        }
        let file = File::open(path)?;
        let n_bytes = file.metadata()?.len();
        Ok(Self::File { file: Arc::new(file), n_bytes })
    }

    /// How many bytes.
    pub fn n_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { n_bytes, .. } => *n_bytes,
        }
    }

    /// Some of its bytes, in memory. Blocks.
    ///
    /// # Errors
    /// They are not there, or cannot be read.
    pub fn read(&self, range: Range<u64>) -> std::io::Result<Bytes> {
        let place = |at: u64| usize::try_from(at).map_err(std::io::Error::other);
        let (start, end) = (place(range.start)?, place(range.end)?);
        match self {
            Self::Bytes(bytes) => match bytes.get(start..end) {
                Some(part) => Ok(bytes.slice_ref(part)),
                None => Err(std::io::ErrorKind::UnexpectedEof.into()),
            },
            Self::File { file, .. } => {
                let mut bytes = vec![0; end.saturating_sub(start)];
                file.read_exact_at(&mut bytes, range.start)?;
                Ok(bytes.into())
            }
        }
    }
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
