//! A scripted HTTP server on the loopback interface that counts what it is asked and can misbehave.
//!
//! Routes are closures from a [`Request`] to an [`Answer`]; an answer is written out step by step, so that it
//! can stop, break off or wait wherever a test wants.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use aqueduct_testkit::http::{Answer, Server};
//! let server = Server::start().await;
//! server.file("/good.txt", "all of it");
//! server.route("/short.txt", |_| Answer::ok("all of it").cut_after(3));
//! assert!(server.url("/good.txt").starts_with("http://127.0.0.1:"));
//! assert_eq!(server.asked("/good.txt").len(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![expect(clippy::expect_used, reason = "a test whose server cannot start has failed")]

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aqueduct_primitives::{Task, Tasks};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A request's head and body are read up to this size; no test sends more.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Large bodies are written in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// How long the waits of this module wait at most: a test that hangs is a test that fails.
const DEADLINE: Duration = Duration::from_secs(20);

type Route = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// A running server. Dropping it ends it and breaks its connections.
pub struct Server {
    port: u16,
    shared: Arc<Shared>,
    _accepting: Task<()>,
}

struct Shared {
    routes: Mutex<HashMap<String, Route>>,
    requests: Mutex<Vec<Request>>,
    connections: watch::Sender<usize>,
    n_accepted: AtomicUsize,
    bodies: watch::Sender<usize>,
    peak_bodies: AtomicUsize,
}

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
    status: u16,
    headers: Vec<(String, String)>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
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

    async fn wait(&self) {
        // The sender is in `self`, so waiting cannot fail.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

impl Server {
    /// Starts a server on a free port.
    ///
    /// # Panics
    /// There is none.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            routes: Mutex::default(),
            requests: Mutex::default(),
            connections: watch::Sender::new(0),
            n_accepted: AtomicUsize::new(0),
            bodies: watch::Sender::new(0),
            peak_bodies: AtomicUsize::new(0),
        });
        let accepting = Tasks::new(1).spawn(accept(listener, Arc::clone(&shared)));
        Self { port, shared, _accepting: accepting }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Answers a path, or with `*` all that have no route of their own.
    pub fn route(&self, path: &str, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> String {
        lock(&self.shared.routes).insert(path.to_owned(), Arc::new(answer));
        self.url(path)
    }

    /// Serves bytes at a path, with ETag, Range and HEAD.
    pub fn file(&self, path: &str, body: impl Into<Bytes>) -> String {
        let body = body.into();
        self.route(path, move |request| Answer::file(request, &body, "\"v1\""))
    }

    /// The requests for a path so far, in order.
    pub fn asked(&self, path: &str) -> Vec<Request> {
        lock(&self.shared.requests).iter().filter(|request| request.path == path).cloned().collect()
    }

    /// How many requests there were.
    pub fn n_requests(&self) -> usize {
        lock(&self.shared.requests).len()
    }

    /// How many connections were ever made.
    pub fn n_accepted(&self) -> usize {
        self.shared.n_accepted.load(SeqCst)
    }

    /// How many connections are open.
    pub fn n_connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// How many bodies are being sent.
    pub fn n_bodies(&self) -> usize {
        *self.shared.bodies.borrow()
    }

    /// The most bodies that were being sent at one moment.
    pub fn peak_bodies(&self) -> usize {
        self.shared.peak_bodies.load(SeqCst)
    }

    /// Waits until so many connections are open.
    ///
    /// # Panics
    /// That does not happen within 20 seconds.
    pub async fn until_connections(&self, n: usize) {
        until(&self.shared.connections, n).await;
    }

    /// Waits until so many bodies are being sent.
    ///
    /// # Panics
    /// That does not happen within 20 seconds.
    pub async fn until_bodies(&self, n: usize) {
        until(&self.shared.bodies, n).await;
    }
}

async fn until(count: &watch::Sender<usize>, n: usize) {
    let mut changes = count.subscribe();
    let reached = tokio::time::timeout(DEADLINE, changes.wait_for(|count| *count == n)).await;
    reached.expect("the count is reached in time").expect("the server lives");
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        shared.n_accepted.fetch_add(1, SeqCst);
        let open = Counted::one_of(&shared, |shared| &shared.connections);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let _open = open;
            // A client that goes away is part of the game.
            let _ = serve(stream, &shared).await;
        });
    }
}

async fn serve(mut stream: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let mut received = BytesMut::new();
    while let Some(request) = read_request(&mut stream, &mut received, shared).await? {
        let answer = shared.answer(&request);
        if !write_answer(&mut stream, &request, answer, shared).await? {
            return Ok(());
        }
    }
    Ok(())
}

async fn read_request(
    stream: &mut TcpStream,
    received: &mut BytesMut,
    shared: &Shared,
) -> io::Result<Option<Request>> {
    let head_end = loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if received.len() > MAX_REQUEST_BYTES || stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&received.split_to(head_end)).into_owned();
    let mut request = parse_head(&head);
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while received.len() < length {
        if length > MAX_REQUEST_BYTES || stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
    request.body = received.split_to(length).freeze();
    Ok(Some(shared.note(request)))
}

fn parse_head(head: &str) -> Request {
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

impl Shared {
    fn note(&self, mut request: Request) -> Request {
        let mut requests = lock(&self.requests);
        let same = |other: &&Request| other.path == request.path && other.method == request.method;
        request.nth = requests.iter().filter(same).count() + 1;
        requests.push(request.clone());
        request
    }

    fn answer(&self, request: &Request) -> Answer {
        let route = {
            let routes = lock(&self.routes);
            routes.get(&request.path).or_else(|| routes.get("*")).cloned()
        };
        route.map_or_else(|| Answer::new(404).body("no such path\n"), |route| route(request))
    }
}

/// Writes an answer; says whether the connection goes on.
async fn write_answer(
    stream: &mut TcpStream,
    request: &Request,
    answer: Answer,
    shared: &Arc<Shared>,
) -> io::Result<bool> {
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let is_framed = answer.headers.iter().any(|(name, _)| {
        name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
    });
    head.push_str("\r\n");
    let mut body = Some(Counted::one_of(shared, |shared| &shared.bodies));
    shared.peak_bodies.fetch_max(*shared.bodies.borrow(), SeqCst);
    stream.write_all(head.as_bytes()).await?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    let n_steps = answer.steps.len();
    for (n, step) in answer.steps.into_iter().enumerate() {
        match step {
            Step::Send(bytes) => send(stream, &bytes, &mut body, n + 1 == n_steps).await?,
            Step::Wait(time) => unless_gone(stream, tokio::time::sleep(time)).await?,
            Step::WaitFor(gate) => unless_gone(stream, gate.wait()).await?,
            Step::HangUp => return Ok(false),
            Step::Reset => {
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
        }
    }
    Ok(is_framed)
}

/// Waits for something, unless the client goes away before.
async fn unless_gone(stream: &TcpStream, work: impl Future<Output = ()>) -> io::Result<()> {
    let gone = async {
        if stream.peek(&mut [0]).await.unwrap_or(0) > 0 {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = work => Ok(()),
        () = gone => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// Sends bytes in pieces. The body stops counting before its last piece goes out: after that the client may
/// ask again.
async fn send(
    stream: &mut TcpStream,
    bytes: &Bytes,
    body: &mut Option<Counted>,
    is_last: bool,
) -> io::Result<()> {
    let n_pieces = bytes.len().div_ceil(PIECE_BYTES);
    for (n, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        if is_last && n + 1 == n_pieces {
            body.take();
        }
        stream.write_all(piece).await?;
    }
    Ok(())
}

/// One more of something, as long as it lives.
struct Counted {
    shared: Arc<Shared>,
    which: fn(&Shared) -> &watch::Sender<usize>,
}

impl Counted {
    fn one_of(shared: &Arc<Shared>, which: fn(&Shared) -> &watch::Sender<usize>) -> Self {
        which(shared).send_modify(|count| *count += 1);
        Self { shared: Arc::clone(shared), which }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.which)(&self.shared).send_modify(|count| *count -= 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
