//! A swarm of clients of an event stream: some read, some never do, some come and go.
//!
//! Each client that reads checks that it misses no number, also over the moments when it was away. An event that holds
//! `"at_us":N`, microseconds since 1970, tells those that are always there how long it took.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aqueduct_primitives::Tasks;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// What the kernel may hold for a client: ten thousand of them are on one machine.
const RECEIVE_BUFFER_BYTES: usize = 8 << 10;
/// How long a restless client stays.
const STAY: Duration = Duration::from_secs(1);

const READ_BYTES: usize = 4 << 10;

/// Who connects.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Where to.
    pub address: SocketAddr,
    /// The stream.
    pub path: String,
    /// Clients that read all the time.
    pub n_healthy: usize,
    /// Clients that never read.
    pub n_stalled: usize,
    /// Clients that come again each second, with the number of their last event.
    pub n_restless: usize,
    /// The event after which they all ask to begin: what one misses from there on is counted, from its first event on.
    pub after: Option<u64>,
    /// Connections that begin a request and never end it.
    pub n_half_open: usize,
    /// How long a client goes on that misses its last event.
    pub give_up_after: Duration,
}

/// What the clients that read have seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Clients that had the last event.
    pub n_complete: usize,
    /// Events received.
    pub n_events: u64,
    /// Numbers that a client did not get.
    pub n_missed: u64,
    /// Connections that were refused or broken off.
    pub n_errors: u64,
    /// How long events took, in microseconds, from the quickest to the slowest.
    pub latencies_us: Vec<u64>,
}

impl Tally {
    /// The latency that so many of a hundred events do not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let at = (self.latencies_us.len() * percent / 100).min(self.latencies_us.len().saturating_sub(1));
        Duration::from_micros(self.latencies_us.get(at).copied().unwrap_or_default())
    }
}

/// Clients that are connected.
pub struct Flying {
    clients: Vec<aqueduct_primitives::Task<Seen>>,
    /// Those that never read are connected as long as these are open.
    _silent: Vec<TcpStream>,
}

impl Swarm {
    /// Connects all of them. Those that read go on until they have had the event of this number.
    ///
    /// # Errors
    /// One of them could not connect.
    pub async fn start(&self, last_id: u64, tasks: &Tasks) -> io::Result<Flying> {
        let swarm = Arc::new(self.clone());
        let mut silent = Vec::new();
        for _ in 0..self.n_stalled {
            silent.push(self.ask(self.after).await?);
        }
        let mut clients = Vec::new();
        for n in 0..self.n_healthy + self.n_restless {
            let first = self.ask(self.after).await?;
            let stay = (n >= self.n_healthy).then_some(STAY);
            let seen = Seen { last: self.after, is_timed: stay.is_none(), ..Seen::default() };
            let seen = Arc::new(Mutex::new(seen));
            clients.push(tasks.spawn(fly(Arc::clone(&swarm), first, stay, last_id, seen)));
        }
        for _ in 0..self.n_half_open {
            let mut stream = connect(self.address, Some(RECEIVE_BUFFER_BYTES)).await?;
            // One too many is sent away before it has said anything.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: loc").await;
            silent.push(stream);
        }
        Ok(Flying { clients, _silent: silent })
    }

    /// A connection that has sent its request.
    async fn ask(&self, last: Option<u64>) -> io::Result<TcpStream> {
        let mut stream = connect(self.address, Some(RECEIVE_BUFFER_BYTES)).await?;
        let last = last.map_or_else(String::new, |last| format!("Last-Event-ID: {last}\r\n"));
        let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n{last}\r\n", self.path);
        stream.write_all(request.as_bytes()).await?;
        Ok(stream)
    }
}

/// A connection; the kernel holds no more than so much for who does not read from it.
///
/// # Errors
/// There is none to be had.
pub async fn connect(address: SocketAddr, receive_buffer_bytes: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(n_bytes) = receive_buffer_bytes {
        socket.set_recv_buffer_size(n_bytes)?;
    }
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error)
            if error.kind() != io::ErrorKind::WouldBlock && error.raw_os_error() != Some(IN_PROGRESS) =>
        {
            return Err(error);
        }
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    Ok(stream)
}

/// `EINPROGRESS`, of which the standard library knows no name.
const IN_PROGRESS: i32 = 115;

impl Flying {
    /// Waits until all that read have had the last event, or gave up.
    ///
    /// # Panics
    /// A client panicked.
    #[expect(clippy::expect_used, reason = "a test whose client panics has failed")]
    pub async fn tally(self) -> Tally {
        let mut tally = Tally::default();
        for client in self.clients {
            let seen = client.await.expect("a client");
            tally.n_complete += usize::from(seen.is_complete);
            tally.n_events += seen.n_events;
            tally.n_missed += seen.n_missed;
            tally.n_errors += seen.n_errors;
            tally.latencies_us.extend(seen.latencies_us);
        }
        tally.latencies_us.sort_unstable();
        tally
    }
}

/// What one client has seen.
#[derive(Clone, Default)]
struct Seen {
    last: Option<u64>,
    /// Who was away has events later than they came.
    is_timed: bool,
    is_complete: bool,
    n_events: u64,
    n_missed: u64,
    n_errors: u64,
    latencies_us: Vec<u64>,
    line: Vec<u8>,
}

async fn fly(
    swarm: Arc<Swarm>,
    first: TcpStream,
    stay: Option<Duration>,
    last_id: u64,
    seen: Arc<Mutex<Seen>>,
) -> Seen {
    let give_up = Instant::now() + swarm.give_up_after;
    let mut stream = first;
    loop {
        let leave = stay.map_or(give_up, |stay| (Instant::now() + stay).min(give_up));
        let was_broken = listen(&stream, leave, last_id, &seen).await;
        let last = {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.line = Vec::new();
            seen.n_errors += u64::from(was_broken);
            if seen.is_complete || was_broken || Instant::now() >= give_up {
                return seen.clone();
            }
            seen.last
        };
        match swarm.ask(last).await {
            Ok(again) => stream = again,
            Err(_) => {
                seen.lock().unwrap_or_else(PoisonError::into_inner).n_errors += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Reads until it is time to leave, or the last event was there; whether the connection broke before.
async fn listen(stream: &TcpStream, leave: Instant, last_id: u64, seen: &Mutex<Seen>) -> bool {
    let mut buffer = [0; READ_BYTES];
    loop {
        tokio::select! {
            () = sleep_until(leave) => return false,
            ready = stream.readable() => if ready.is_err() { return true },
        }
        match stream.try_read(&mut buffer) {
            Ok(0) => return true,
            Ok(n) => {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.take(&buffer[..n], last_id);
                if seen.is_complete {
                    return false;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
    }
}

impl Seen {
    fn take(&mut self, bytes: &[u8], last_id: u64) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take_line(&String::from_utf8_lossy(&line), last_id);
            }
        }
    }

    fn take_line(&mut self, line: &str, last_id: u64) {
        if let Some(id) = line.strip_prefix("id: ").and_then(|id| id.trim().parse::<u64>().ok()) {
            self.n_events += 1;
            self.n_missed += self.last.map_or(0, |last| id.abs_diff(last + 1));
            self.last = Some(id);
        }
        if line.starts_with("data: ") {
            let sent =
                line.split("\"at_us\":").nth(1).map(|rest| rest.split([',', '}']).next().unwrap_or(""));
            if let Some(sent) =
                sent.filter(|_| self.is_timed).and_then(|sent| sent.trim().parse::<u64>().ok())
            {
                self.latencies_us.push(now_us().saturating_sub(sent));
            }
            self.is_complete |= self.last.is_some_and(|last| last >= last_id);
        }
    }
}

/// Microseconds since 1970.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
