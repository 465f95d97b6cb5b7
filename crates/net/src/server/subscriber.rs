//! A client's place in a stream.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_primitives::{Reader, Reservation};

use super::event_stream::Shared;

/// A client's place in a stream, and all that it takes to send to it. Dropping it gives the place to another.
pub struct Subscriber {
    pub(super) stream: Arc<Shared>,
    pub(super) reader: Reader,
    /// What is sent after the head, before any event.
    pub(super) first: Vec<u8>,
    /// A site whose pages may read the answer.
    pub(super) allowed_origin: Option<String>,
    pub(super) heartbeat: Duration,
    /// The most that the kernel is to hold.
    pub(super) send_buffer_bytes: usize,
    /// How long its peer may take nothing, if longer than others.
    pub(super) write_stall: Duration,
    /// For its task, its socket, and what the kernel holds.
    pub(super) _memory: Reservation,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stream.has_left();
    }
}
