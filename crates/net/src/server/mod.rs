//! The server: streams of events to thousands of clients, and pages beside them, whoever connects.
//!
//! One thread of its own, HTTP/1.1. The head of each request is read here, within a time and a size; a stream is written
//! straight from its ring from there on, everything else is `hyper`'s. Who is slow, silent or one too many costs its own
//! place and nobody else's. Memory: [`Server`] takes a few KiB for each connection whose request is not answered yet, a stream
//! what [`EventStream`] says.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use aqueduct_net::server::{Event, EventStream, EventStreamOptions, Server, ServerLimits};
//! use aqueduct_primitives::{Budget, ByteCount};
//!
//! let memory = Budget::new("live", ByteCount::mib(64));
//! let server = Server::bind(&"127.0.0.1:0".parse()?, ServerLimits::default(), memory.carve("server", ByteCount::mib(8))?)?;
//! let stream = EventStream::new("news", EventStreamOptions::default(), memory)?;
//! let _mounted = stream.mount(&server.mounts(), "/streams/news")?;
//!
//! assert_eq!(stream.send(Event { name: "row", data: br#"{"id":1}"# }).await?, 1);
//! stream.end();
//! server.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod accept;
mod connection;
mod event;
mod event_stream;
mod guard;
mod head;
mod limits;
mod listen;
mod live;
mod mounts;
mod page;
mod refusal;
mod socket;
mod subscriber;
#[cfg(test)]
mod tests;
mod unread;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use aqueduct_core::{Error, Result};
use aqueduct_primitives::Budget;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use self::event::Event;
pub use self::event_stream::{
    CLIENT_BYTES, EventStream, EventStreamOptions, MIN_SEND_BUFFER, Replay, SlowClient, StreamStats,
};
pub use self::head::RequestHead;
pub use self::limits::ServerLimits;
pub use self::listen::{Listen, ParseListenError};
pub use self::mounts::{Mounted, Mounts, Pages, Streams};
pub use self::refusal::Refusal;
pub use self::subscriber::Subscriber;

use self::accept::{Counts, Listener, Shared};
use self::listen::Bound;

/// A running server. Dropping it closes all connections at once.
#[derive(Debug)]
pub struct Server {
    address: String,
    mounts: Mounts,
    counts: Arc<Counts>,
    stop: CancellationToken,
    abort: CancellationToken,
    ended: Option<oneshot::Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What can be seen of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Connections now.
    pub n_connections: usize,
    /// Those of them whose request has not come whole.
    pub n_unread: usize,
    /// Those of them that are streams.
    pub n_streams: usize,
    /// Connections in all.
    pub n_accepted: u64,
    /// Connections turned away because there were too many.
    pub n_full: u64,
    /// Requests answered with an error before anybody looked at them.
    pub n_refused: u64,
    /// Requests that did not come in time.
    pub n_timed_out: u64,
}

/// Sees a server, as long as it is there and after. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ServerMeter {
    counts: Arc<Counts>,
}

impl ServerMeter {
    /// What can be seen of it now.
    pub fn stats(&self) -> ServerStats {
        let counts = &self.counts;
        ServerStats {
            n_connections: counts.n_open.load(Relaxed),
            n_unread: counts.unread.len(),
            n_streams: counts.n_streams.load(Relaxed),
            n_accepted: counts.n_accepted.load(Relaxed),
            n_full: counts.n_full.load(Relaxed),
            n_refused: counts.n_refused.load(Relaxed),
            n_timed_out: counts.n_timed_out.load(Relaxed),
        }
    }
}

impl Server {
    /// Listens, and serves what is mounted from now on.
    ///
    /// # Errors
    /// The address cannot be had: the error names it and says what to do.
    pub fn bind(listen: &Listen, limits: ServerLimits, budget: Budget) -> Result<Self> {
        Self::bind_with(Mounts::default(), listen, limits, budget)
    }

    /// Listens, and has who asks for what is not there wait until all is mounted: until [`Mounts::set_starting`] says so.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub fn bind_starting(listen: &Listen, limits: ServerLimits, budget: Budget) -> Result<Self> {
        let mounts = Mounts::default();
        mounts.set_starting(true);
        Self::bind_with(mounts, listen, limits, budget)
    }

    fn bind_with(mounts: Mounts, listen: &Listen, limits: ServerLimits, budget: Budget) -> Result<Self> {
        let bound = listen.bind()?;
        let address = bound.address();
        let counts = Arc::<Counts>::default();
        let shared = Arc::new(Shared {
            limits: limits.within_process(),
            mounts: mounts.clone(),
            counts: Arc::clone(&counts),
            is_unix: matches!(bound, Bound::Unix(..)),
            health: Arc::new(connection::Health),
            budget,
            by_address: std::sync::Mutex::default(),
            waking: std::sync::Mutex::default(),
        });
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let (sender, ended) = oneshot::channel();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::io("start server", &address, error))?;
        let (stop_there, abort_there) = (stop.clone(), abort.clone());
        let work = move || {
            runtime.block_on(async {
                let serving = serve(bound, shared, stop_there);
                tokio::select! {
                    () = abort_there.cancelled() => {}
                    () = serving => {}
                }
            });
            drop(runtime);
            // Nobody may wait any more.
            let _ = sender.send(());
        };
        let thread = std::thread::Builder::new().name("server".into()).spawn(work);
        let thread = thread.map_err(|error| Error::io("start server", &address, error))?;
        Ok(Self { address, mounts, counts, stop, abort, ended: Some(ended), thread: Some(thread) })
    }

    /// Where it listens, as bound: with the port that 0 became.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it serves where.
    pub fn mounts(&self) -> Mounts {
        self.mounts.clone()
    }

    /// What can be seen of it now.
    pub fn stats(&self) -> ServerStats {
        self.meter().stats()
    }

    /// For who looks at it again and again.
    pub fn meter(&self) -> ServerMeter {
        ServerMeter { counts: Arc::clone(&self.counts) }
    }

    /// Takes no more connections, waits for those that are there, for [`ServerLimits::close_timeout`] at most, and closes
    /// them. Streams should have been [ended](EventStream::end) before.
    pub async fn close(mut self) {
        self.mounts.set_starting(false);
        self.stop.cancel();
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.abort.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the server's thread panicked");
        }
    }
}

async fn serve(bound: Bound, shared: Arc<Shared>, stop: CancellationToken) {
    let (listener, path) = match bound {
        Bound::Tcp(listener) => (tokio::net::TcpListener::from_std(listener).map(Listener::Tcp), None),
        Bound::Unix(listener, path) => {
            (tokio::net::UnixListener::from_std(listener).map(Listener::Unix), Some(path))
        }
    };
    match listener {
        Ok(listener) => Box::pin(accept::accept_all(listener, shared, stop)).await,
        Err(error) => tracing::error!(%error, "the server cannot listen"),
    }
    if let Some(path) = path {
        // Left there, it is replaced by who listens next.
        let _ = std::fs::remove_file(path);
    }
}
