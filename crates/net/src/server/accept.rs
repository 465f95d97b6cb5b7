//! Takes connections in, as many as there may be, and owns them.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aqueduct_primitives::{Budget, ByteCount, Reservation};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection;
use super::event_stream::Shared as Stream;
use super::limits::ServerLimits;
use super::mounts::{Mounts, Pages};
use super::refusal::Refusal;
use super::socket::Socket;
use super::unread::{Ticket, Unread};

/// Before the next try when a connection could not be taken: no file is free, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// When who found no place should come again.
const RETRY_AFTER_SECONDS: u64 = 60;
/// What a connection takes until its request is answered: its task, its head.
const CONNECTION_BYTES: ByteCount = ByteCount::kib(4);

/// What all connections share.
pub(super) struct Shared {
    pub(super) limits: ServerLimits,
    pub(super) mounts: Mounts,
    pub(super) counts: Arc<Counts>,
    pub(super) is_unix: bool,
    pub(super) health: Arc<dyn Pages>,
    pub(super) budget: Budget,
    pub(super) by_address: Mutex<HashMap<IpAddr, usize>>,
    /// One for each stream, which wakes its clients: see [`Shared::wake_clients_of`].
    pub(super) waking: Mutex<JoinSet<()>>,
}

impl Shared {
    /// Has the clients of a stream woken here, on the thread that they run on.
    pub(super) fn wake_clients_of(&self, stream: &Arc<Stream>) {
        if stream.is_first_client() {
            let ring = stream.ring.clone();
            let mut waking = self.waking.lock().unwrap_or_else(PoisonError::into_inner);
            while waking.try_join_next().is_some() {}
            waking.spawn(async move { ring.wake_here().await });
        }
    }

    /// Where there is no place, that of a connection whose request has not come.
    fn memory_of_a_place(&self) -> Option<Reservation> {
        let (limits, counts) = (&self.limits, &self.counts);
        let n_for_health = counts.n_for_health.load(Relaxed);
        let n_others = counts.n_open.load(Relaxed).saturating_sub(n_for_health);
        let is_full = n_others >= limits.max_connections || counts.unread.len() >= limits.max_unread;
        let free = if is_full { None } else { self.budget.try_reserve(CONNECTION_BYTES).ok() };
        free.or_else(|| counts.unread.push_out_oldest())
    }
}

/// Numbers of connections.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) n_open: AtomicUsize,
    /// Those of them that found no place but one for asking whether the server is well.
    pub(super) n_for_health: AtomicUsize,
    /// Those of them whose request has not come.
    pub(super) unread: Unread,
    pub(super) n_streams: AtomicUsize,
    pub(super) n_accepted: AtomicU64,
    pub(super) n_full: AtomicU64,
    pub(super) n_refused: AtomicU64,
    pub(super) n_timed_out: AtomicU64,
}

impl Counts {
    pub(super) fn timed_out(&self) {
        self.n_timed_out.fetch_add(1, Relaxed);
    }
}

/// A listener on the server's runtime.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Socket, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Tcp(stream), Some(peer.ip().to_canonical())))
            }
            Self::Unix(listener) => Ok((Socket::Unix(listener.accept().await?.0), None)),
        }
    }
}

/// Accepts until told to stop; then lets streams end, for a while.
pub(super) async fn accept_all(listener: Listener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let Ok((socket, peer)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let admission = Admission::of(&shared, peer);
        // Who sees it counted sees its place taken.
        shared.counts.n_accepted.fetch_add(1, Relaxed);
        match admission {
            Some(admission) if socket.prepare().is_ok() => {
                connections.spawn(connection::serve(socket, peer, Arc::clone(&shared), admission));
            }
            Some(_) => {}
            None => turn_away(&socket, &shared),
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(shared.limits.close_timeout, ended).await;
    connections.shutdown().await;
}

/// Says that there is no place, if the socket takes that at once.
fn turn_away(socket: &Socket, shared: &Shared) {
    shared.counts.n_full.fetch_add(1, Relaxed);
    let answer = Refusal::busy("Too many connections", RETRY_AFTER_SECONDS).to_bytes();
    let _ = socket.send_now(&[io::IoSlice::new(&answer)]);
}

/// A connection's place. Dropping it gives it to another.
pub(super) struct Admission {
    shared: Arc<Shared>,
    peer: Option<IpAddr>,
    is_for_health: bool,
    is_stream: bool,
    /// Until its request has come.
    ticket: Option<Ticket>,
    memory: Option<Reservation>,
}

impl Admission {
    fn of(shared: &Arc<Shared>, peer: Option<IpAddr>) -> Option<Self> {
        let counts = &shared.counts;
        let peer = peer.filter(|peer| !peer.is_loopback());
        let mut by_address = shared.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let n_of_peer = peer.and_then(|peer| by_address.get(&peer)).map_or(0, |n| *n);
        if n_of_peer >= shared.limits.max_per_address {
            return None;
        }
        let memory = shared.memory_of_a_place();
        let is_for_health = memory.is_none();
        if is_for_health && counts.n_for_health.load(Relaxed) >= shared.limits.reserved_for_health {
            return None;
        }
        if let Some(peer) = peer {
            by_address.insert(peer, n_of_peer + 1);
        }
        counts.n_open.fetch_add(1, Relaxed);
        counts.n_for_health.fetch_add(usize::from(is_for_health), Relaxed);
        let ticket = memory.map(|memory| counts.unread.enter(memory));
        Some(Self { shared: Arc::clone(shared), peer, is_for_health, is_stream: false, ticket, memory: None })
    }

    /// Cancelled when its place is another's: its request took too long to come, and somebody else had none.
    pub(super) fn given_up(&self) -> CancellationToken {
        self.ticket.as_ref().map(|ticket| ticket.given_up.clone()).unwrap_or_default()
    }

    /// Its request has come; whether it still has its place.
    pub(super) fn has_asked(&mut self) -> bool {
        let Some(ticket) = self.ticket.take() else { return true };
        self.memory = self.shared.counts.unread.leave(&ticket);
        self.memory.is_some()
    }

    /// Whether all places are taken, and this one is for asking whether the server is well.
    pub(super) fn is_for_health(&self) -> bool {
        self.is_for_health
    }

    /// It is a stream from now on, whose memory is the stream's.
    pub(super) fn is_stream(&mut self) {
        self.is_stream = true;
        self.memory = None;
        self.shared.counts.n_streams.fetch_add(1, Relaxed);
    }

    pub(super) fn was_refused(&self) {
        self.shared.counts.n_refused.fetch_add(1, Relaxed);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let counts = &self.shared.counts;
        if let Some(ticket) = &self.ticket {
            counts.unread.leave(ticket);
        }
        counts.n_open.fetch_sub(1, Relaxed);
        counts.n_for_health.fetch_sub(usize::from(self.is_for_health), Relaxed);
        if self.is_stream {
            counts.n_streams.fetch_sub(1, Relaxed);
        }
        let Some(peer) = self.peer else { return };
        let mut by_address = self.shared.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = by_address.get_mut(&peer) {
            *n -= 1;
            if *n == 0 {
                by_address.remove(&peer);
            }
        }
    }
}
