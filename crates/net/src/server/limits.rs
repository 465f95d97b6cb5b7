//! How much a server takes.

use std::time::Duration;

/// The limits of a server. Those of a stream are [its options](super::EventStreamOptions).
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Connections at once; one more is answered 503. Fewer, where the process may not have so many files open.
    pub max_connections: usize,
    /// Connections at once from one address that is not of this machine.
    pub max_per_address: usize,
    /// Beside those, so many that ask for `/healthz` only: it must answer when all others are taken.
    pub reserved_for_health: usize,
    /// Connections at once whose request has not come whole. With more, somebody sends none; they are answered 503.
    pub max_unread: usize,
    /// How long the head of a request may take.
    pub head_timeout: Duration,
    /// The most bytes of a head.
    pub max_head_bytes: usize,
    /// The most bytes of a request's body.
    pub max_body_bytes: usize,
    /// How long a request that is no stream may take, from its head to the end of the answer.
    pub page_timeout: Duration,
    /// How long a peer may take nothing of what waits for it.
    pub write_stall: Duration,
    /// How long a stream may last; then the client comes again, with the last event's number.
    pub max_age: Duration,
    /// How long a server that is closed waits for streams to be sent their end.
    pub close_timeout: Duration,
    /// Names by which the server may be called, beside those of this machine and addresses.
    pub hosts: Vec<String>,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_per_address: 1_000,
            reserved_for_health: 16,
            max_unread: 6_000,
            head_timeout: Duration::from_secs(10),
            max_head_bytes: 16 << 10,
            max_body_bytes: 1 << 20,
            page_timeout: Duration::from_secs(30),
            write_stall: Duration::from_secs(20),
            max_age: Duration::from_secs(24 * 3600),
            close_timeout: Duration::from_secs(5),
            hosts: Vec::new(),
        }
    }
}
