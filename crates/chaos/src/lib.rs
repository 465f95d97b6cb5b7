//! A scripted HTTP server that counts what it is asked and can misbehave.
//!
//! Routes are closures from a [`Request`] to an [`Answer`]; an answer is written out step by step, so that it
//! can stop, break off or wait wherever a script wants. [`Server::start`] is for tests; [`Server::bind`] is the same within
//! [`Limits`].
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use aqueduct_chaos::{Answer, Server};
//! let server = Server::start().await;
//! server.file("/good.txt", "all of it");
//! server.route("/short.txt", |_| Answer::ok("all of it").cut_after(3));
//! assert!(server.url("/good.txt").starts_with("http://127.0.0.1:"));
//! assert_eq!(server.asked("/good.txt").len(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aqueduct_primitives::{Task, Tasks};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use self::answer::{Answer, Body, Gate, Request};
use self::answer::{Step, parse_head};

/// What a request has at most, where nothing large is sent.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Large bodies are written in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// Bodies that are sent slowly go out in so many pieces a second, or byte by byte.
const PIECES_PER_SECOND: u64 = 10;

/// Before the next try when a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long the waits of this module wait at most: a test that hangs is a test that fails.
const DEADLINE: Duration = Duration::from_secs(90);

type Route = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// How much a server takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. Who comes when there are so many waits until one ends.
    pub max_connections: usize,
    /// A request's head, and its body, are read up to this size; who sends more is hung up on.
    pub max_request_bytes: usize,
    /// Whether [`Server::asked`] and [`Server::n_requests`] are to be answered: the server then keeps every request.
    pub keeps_requests: bool,
}

impl Limits {
    /// As many connections as any test opens, and every request kept.
    const OF_TESTS: Self =
        Self { max_connections: 100_000, max_request_bytes: MAX_REQUEST_BYTES, keeps_requests: true };
}

/// A running server. Dropping it ends it and breaks its connections.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: Task<()>,
}

struct Shared {
    limits: Limits,
    slots: Arc<Semaphore>,
    tasks: Tasks,
    routes: Mutex<HashMap<String, Route>>,
    requests: Mutex<Vec<Request>>,
    connections: watch::Sender<usize>,
    n_accepted: AtomicUsize,
    bodies: watch::Sender<usize>,
    peak_bodies: AtomicUsize,
}

impl Server {
    /// Starts a server on a free port of the loopback interface, for a test.
    ///
    /// # Panics
    /// There is none.
    #[expect(clippy::expect_used, reason = "a test whose server cannot start has failed")]
    pub async fn start() -> Self {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        Self::bind(address, Limits::OF_TESTS).await.expect("a free port")
    }

    /// Starts a server at an address; port 0 stands for a free one.
    ///
    /// # Errors
    /// The address is taken, or not of this machine.
    pub async fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let tasks = Tasks::new(1);
        let shared = Arc::new(Shared {
            limits,
            slots: Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS))),
            tasks: tasks.clone(),
            routes: Mutex::default(),
            requests: Mutex::default(),
            connections: watch::Sender::new(0),
            n_accepted: AtomicUsize::new(0),
            bodies: watch::Sender::new(0),
            peak_bodies: AtomicUsize::new(0),
        });
        let accepting = tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _accepting: accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
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

#[expect(clippy::expect_used, reason = "a test whose count is not reached has failed")]
async fn until(count: &watch::Sender<usize>, n: usize) {
    let mut changes = count.subscribe();
    let reached = tokio::time::timeout(DEADLINE, changes.wait_for(|count| *count == n)).await;
    reached.expect("the count is reached in time").expect("the server lives");
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&shared.slots).acquire_owned().await else { return };
        // One connection that broke before it was taken, or too many open files: the next may do.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        shared.n_accepted.fetch_add(1, SeqCst);
        let open = Counted::one_of(&shared, |shared| &shared.connections);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let _held = (slot, open);
            // A client that goes away is part of the game.
            let _ = serve(stream, &shared).await;
        });
    }
}

async fn serve(mut stream: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    // Who sends a byte a second means that, and not whenever the system has collected some.
    stream.set_nodelay(true)?;
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
        if received.len() > shared.limits.max_request_bytes || stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&received.split_to(head_end)).into_owned();
    let mut request = parse_head(&head);
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while received.len() < length {
        if length > shared.limits.max_request_bytes || stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
    request.body = received.split_to(length).freeze();
    Ok(Some(shared.note(request)))
}

impl Shared {
    fn note(&self, mut request: Request) -> Request {
        if !self.limits.keeps_requests {
            return request;
        }
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
    if let Some(time) = answer.delay {
        unless_gone(stream, tokio::time::sleep(time)).await?;
    }
    let is_framed = answer.headers.iter().any(|(name, _)| {
        name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
    });
    let mut body = Some(Counted::body(shared));
    if answer.has_head {
        stream.write_all(head_of(&answer).as_bytes()).await?;
    }
    if request.method == "HEAD" {
        return Ok(true);
    }
    let n_steps = answer.steps.len();
    let pace = answer.bytes_per_second;
    for (n, step) in answer.steps.into_iter().enumerate() {
        match step {
            Step::Send(bytes) => send(stream, &bytes, &mut body, n + 1 == n_steps, pace).await?,
            Step::SendFile(file, range) => send_file(stream, &file, range, shared, pace).await?,
            Step::Repeat(bytes) => loop {
                send(stream, &bytes, &mut body, false, pace).await?;
            },
            Step::Wait(time) => unless_gone(stream, tokio::time::sleep(time)).await?,
            Step::WaitFor(gate) => unless_gone(stream, gate.wait()).await?,
            Step::Hang => unless_gone(stream, std::future::pending()).await?,
            Step::HangUp => return Ok(false),
            Step::Reset => {
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
        }
    }
    Ok(is_framed)
}

fn head_of(answer: &Answer) -> String {
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head
}

/// Sends a part of a file, which may have become shorter: then the connection ends.
async fn send_file(
    stream: &mut TcpStream,
    file: &Arc<std::fs::File>,
    mut range: std::ops::Range<u64>,
    shared: &Shared,
    pace: Option<u64>,
) -> io::Result<()> {
    while range.start < range.end {
        let n_wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let (file, start) = (Arc::clone(file), range.start);
        let read = move || {
            let mut piece = vec![0; n_wanted];
            let n = file.read_at(&mut piece, start)?;
            piece.truncate(n);
            io::Result::Ok(piece)
        };
        let piece = shared.tasks.block(read).await.map_err(io::Error::other)??;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        range.start += piece.len() as u64;
        send(stream, &piece.into(), &mut None, false, pace).await?;
    }
    Ok(())
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
    pace: Option<u64>,
) -> io::Result<()> {
    let piece_bytes = pace.map_or(PIECE_BYTES, |pace| {
        usize::try_from(pace / PIECES_PER_SECOND).unwrap_or(PIECE_BYTES).clamp(1, PIECE_BYTES)
    });
    let n_pieces = bytes.len().div_ceil(piece_bytes);
    for (n, piece) in bytes.chunks(piece_bytes).enumerate() {
        if is_last && n + 1 == n_pieces {
            body.take();
        }
        stream.write_all(piece).await?;
        if let Some(pace) = pace {
            let time = Duration::from_secs(1).mul_f64(to_f64(piece.len()) / to_f64(pace.max(1)));
            unless_gone(stream, tokio::time::sleep(time)).await?;
        }
    }
    Ok(())
}

/// For the time that a piece takes, of which nobody sees the last digits.
fn to_f64(n: impl TryInto<u32>) -> f64 {
    n.try_into().map_or(f64::from(u32::MAX), f64::from)
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

    /// A body, for the peak too: noted with the count, so that whoever waits for the count finds it there.
    fn body(shared: &Arc<Shared>) -> Self {
        shared.bodies.send_modify(|count| {
            *count += 1;
            shared.peak_bodies.fetch_max(*count, SeqCst);
        });
        Self { shared: Arc::clone(shared), which: |shared| &shared.bodies }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// All that a server says to one request, until it ends the connection.
    async fn ask(server: &Server, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        let mut said = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut said).await;
        said
    }

    fn body(said: &[u8]) -> &[u8] {
        let end = said.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        &said[end + 4..]
    }

    #[tokio::test]
    async fn files_are_sent_from_the_disk_whole_cut_or_slowly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n.to_le_bytes()[0]).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = Body::open(&path).unwrap();
        let server = Server::start().await;
        let served = file.clone();
        server.route("/whole", move |request| Answer::of_body(request, &served, "\"v1\"").hang_up());
        let served = file.clone();
        server.route("/cut", move |request| Answer::of_body(request, &served, "\"v1\"").cut_after(100_001));
        server.route("/slow", move |_| Answer::new(200).part(&file, 5..105).bytes_per_second(2000).hang_up());
        server.route("/endless", |_| Answer::new(200).repeat("ab").cut_after(10));
        assert_eq!(body(&ask(&server, "/whole").await), &bytes[..]);
        assert_eq!(body(&ask(&server, "/cut").await), &bytes[..100_001]);
        assert_eq!(body(&ask(&server, "/slow").await), &bytes[5..105]);
        assert_eq!(body(&ask(&server, "/endless").await), b"");
    }

    #[tokio::test]
    async fn who_comes_when_there_are_too_many_waits_and_nothing_is_kept() {
        let limits =
            Limits { max_connections: 1, max_request_bytes: MAX_REQUEST_BYTES, keeps_requests: false };
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), limits).await.unwrap();
        let gate = Gate::closed();
        let waits = gate.clone();
        server.route("/first", move |_| Answer::new(200).wait_for(&waits).send("first").hang_up());
        server.route("/second", |_| Answer::new(200).send("second").hang_up());
        let first = ask(&server, "/first");
        let second = async {
            server.until_bodies(1).await;
            ask(&server, "/second").await
        };
        let opening = async {
            server.until_bodies(1).await;
            // Whoever is let in though there is no room is counted by now, or the next time this is tried.
            tokio::task::yield_now().await;
            assert_eq!(server.n_accepted(), 1);
            gate.open();
        };
        let (first, second, ()) = tokio::join!(first, second, opening);
        assert_eq!((body(&first), body(&second)), (&b"first"[..], &b"second"[..]));
        assert_eq!(server.n_accepted(), 2);
        assert_eq!(server.n_requests(), 0);
    }
}
