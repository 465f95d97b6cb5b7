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

mod answer;

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

pub use self::answer::{Answer, Gate, Request};
use self::answer::{Step, parse_head};

/// A request's head and body are read up to this size; no test sends more.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Large bodies are written in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// How long the waits of this module wait at most: a test that hangs is a test that fails.
const DEADLINE: Duration = Duration::from_secs(90);

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
    let mut body = Some(Counted::body(shared));
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
