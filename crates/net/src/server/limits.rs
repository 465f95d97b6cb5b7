//! How much a server takes.

use std::time::Duration;

/// Of the files that the process may have open, so many are for what it does beside serving: sources, outputs, logs.
const FILES_FOR_FLOWS: usize = 256;

/// The limits of a server. Those of a stream are [its options](super::EventStreamOptions).
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Connections at once; one more is answered 503. Fewer, where the process may not have so many files open.
    pub max_connections: usize,
    /// Connections at once from one address that is not of this machine.
    pub max_per_address: usize,
    /// Beside those, so many that ask for `/healthz` only: it must answer when all others are taken.
    pub reserved_for_health: usize,
    /// Connections at once whose request has not come whole. For one more, the one that has waited longest is closed: as where there is no
    /// memory, or no connection left.
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

impl ServerLimits {
    /// These limits in this process.
    pub(super) fn within_process(self) -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.within_files(files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX)))
    }

    /// These limits where so many files may be open: each connection is one.
    fn within_files(mut self, files: usize) -> Self {
        // Where there are few, they are shared in halves.
        let others = FILES_FOR_FLOWS.saturating_add(self.reserved_for_health);
        let for_connections = files.saturating_sub(others).max(files / 2);
        self.max_connections = self.max_connections.min(for_connections);
        self
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_connections_than_files() {
        let max = |files| ServerLimits::default().within_files(files).max_connections;
        assert_eq!((max(usize::MAX), max(100_000), max(1024), max(64)), (20_000, 20_000, 752, 32));
    }
}
