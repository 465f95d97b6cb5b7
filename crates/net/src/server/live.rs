//! Writes a stream to its client: straight from the ring, many events a system call, nothing of its own but a cursor.
//!
//! One future a client that is only ever polled when there is news: an event, room in the socket, a timer, the client's
//! leaving. Timers are looked at, not moved, with each event.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use aqueduct_primitives::{Next, Runs};
use tokio::time::{Instant, Sleep, sleep_until};

use super::event_stream::{self, Evicted};
use super::limits::ServerLimits;
use super::socket::Socket;
use super::subscriber::Subscriber;

/// Written to one client before others have their turn.
const BYTES_AT_ONCE: usize = 256 << 10;
/// A client has nothing to say after its request; one that goes on is hung up on.
const MAX_CHATTER_BYTES: usize = 4 << 10;

/// After the end of a stream, a client may take all it has not had yet as long as a peer may take nothing, so many times.
const STALLS_AFTER_END: u32 = 3;

const HEARTBEAT: &[u8] = b":\n";

/// Sends until the end of the stream, or until the client is gone or cut off.
pub(super) async fn send(socket: &Socket, subscriber: Subscriber, limits: &ServerLimits) {
    // A buffer that cannot be set is as large as any other.
    let _ = socket.set_send_buffer(subscriber.send_buffer_bytes);
    let mut sending = Sending::new(subscriber, limits);
    let mut timer = std::pin::pin!(sleep_until(sending.due()));
    let why = poll_fn(|cx| sending.poll(socket, timer.as_mut(), cx)).await;
    if let Some(why) = why {
        sending.subscriber.stream.evicted(why);
    }
}

struct Sending {
    subscriber: Subscriber,
    /// Text that is no event, and how much of it is sent.
    text: Vec<u8>,
    n_sent: usize,
    is_blocked: bool,
    /// When the peer last took something, or nothing waited for it.
    taken_at: Instant,
    ends_at: Instant,
    write_stall: Duration,
    n_chatter: usize,
}

/// What came of sending.
enum Sent {
    Some,
    Blocked,
    Idle,
    Over(Option<Evicted>),
}

impl Sending {
    fn new(mut subscriber: Subscriber, limits: &ServerLimits) -> Self {
        let mut text = head(subscriber.allowed_origin.as_deref());
        text.append(&mut subscriber.first);
        let now = Instant::now();
        let write_stall = limits.write_stall.max(subscriber.write_stall);
        Self {
            subscriber,
            text,
            n_sent: 0,
            is_blocked: false,
            taken_at: now,
            ends_at: now + limits.max_age,
            write_stall,
            n_chatter: 0,
        }
    }

    /// When something is to be done if nothing happens.
    fn due(&self) -> Instant {
        let wait = if self.is_blocked { self.write_stall } else { self.subscriber.heartbeat };
        (self.taken_at + wait).min(self.ends_at)
    }

    /// Over, and why it was cut off if it was.
    fn poll(
        &mut self,
        socket: &Socket,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Evicted>> {
        if self.has_gone(socket, cx) {
            return Poll::Ready(None);
        }
        loop {
            match self.send_some(socket, cx) {
                Sent::Over(why) => return Poll::Ready(why),
                Sent::Some => continue,
                Sent::Blocked | Sent::Idle => {}
            }
            if self.subscriber.reader.poll_news(cx, self.is_blocked).is_ready() {
                continue;
            }
            // Each event moves what is due further off; the timer follows when it goes off.
            if self.due() < timer.deadline() {
                timer.as_mut().reset(self.due());
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if let Some(why) = self.time_is_up(now) {
                return Poll::Ready(Some(why));
            }
            timer.as_mut().reset(self.due().max(now));
        }
    }

    fn time_is_up(&mut self, now: Instant) -> Option<Evicted> {
        let is_closed = self.subscriber.stream.ring.is_closed();
        if is_closed {
            // The timer goes off within the time of a stall, however much is taken; from its first time on, so long.
            self.ends_at = self.ends_at.min(now + self.write_stall * STALLS_AFTER_END);
        }
        if now >= self.ends_at {
            return Some(if is_closed { Evicted::Slow } else { Evicted::Age });
        }
        if self.is_blocked {
            return (now >= self.taken_at + self.write_stall).then_some(Evicted::Stalled);
        }
        if now >= self.due() {
            self.text.extend_from_slice(HEARTBEAT);
        }
        None
    }

    /// Reads away what the client says; whether it has gone.
    fn has_gone(&mut self, socket: &Socket, cx: &mut Context<'_>) -> bool {
        let mut chatter = [0; 256];
        while socket.poll_readable(cx).is_ready() {
            match socket.try_read(&mut chatter) {
                Ok(0) => return true,
                Ok(n) => self.n_chatter += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return true,
            }
            if self.n_chatter > MAX_CHATTER_BYTES {
                return true;
            }
        }
        false
    }

    fn send_some(&mut self, socket: &Socket, cx: &mut Context<'_>) -> Sent {
        let is_asked = self.is_blocked && self.subscriber.reader.is_asked();
        if self.n_sent < self.text.len() {
            // One that is cut off is woken until it goes, whether its text was taken or not.
            if let Some(cut) = self.subscriber.reader.cut() {
                return Sent::Over(Some(cut.into()));
            }
            let sent = attempt(socket, cx, &[IoSlice::new(&self.text[self.n_sent..])], is_asked);
            return self.came_of(sent, Self::has_sent_text);
        }
        let mut runs = Runs::default();
        match self.subscriber.reader.next(BYTES_AT_ONCE, &mut runs) {
            Next::Bytes => {
                let sent = runs.with_slices(|slices| attempt(socket, cx, slices, is_asked));
                self.came_of(sent, |sending, n| sending.subscriber.reader.advance(n))
            }
            Next::Lagged { from, to } => {
                event_stream::lagged(from, to, &mut self.text);
                Sent::Some
            }
            Next::Nothing => Sent::Idle,
            Next::End => Sent::Over(None),
            Next::Cut(cut) => Sent::Over(Some(cut.into())),
        }
    }

    fn came_of(&mut self, sent: io::Result<Option<usize>>, has_sent: impl FnOnce(&mut Self, usize)) -> Sent {
        match sent {
            Ok(Some(n)) => {
                (self.is_blocked, self.taken_at) = (false, Instant::now());
                self.subscriber.stream.bytes_sent.fetch_add(n as u64, Relaxed);
                has_sent(self, n);
                Sent::Some
            }
            Ok(None) => {
                if !std::mem::replace(&mut self.is_blocked, true) {
                    self.taken_at = Instant::now();
                }
                self.subscriber.reader.blocked();
                Sent::Blocked
            }
            Err(_) => Sent::Over(None),
        }
    }

    fn has_sent_text(&mut self, n: usize) {
        self.n_sent += n;
        if self.n_sent == self.text.len() {
            (self.text, self.n_sent) = (Vec::new(), 0);
        }
    }
}

/// Sends as much as the socket takes; nothing if it takes nothing now, and then the task is woken when it does.
fn attempt(
    socket: &Socket,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
    is_asked: bool,
) -> io::Result<Option<usize>> {
    if is_asked {
        // Whether the socket takes more may not have come here yet; who is asked answers for the peer, not for this thread.
        match socket.send_now(slices) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            sent => return sent.map(Some),
        }
    }
    while let Poll::Ready(ready) = socket.poll_writable(cx) {
        ready?;
        match socket.try_send(slices) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            sent => return sent.map(Some),
        }
    }
    Ok(None)
}

/// The head of the answer. It has no length: it ends with the connection.
fn head(allowed_origin: Option<&str>) -> Vec<u8> {
    let mut head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-store\r\n\
                    X-Accel-Buffering: no\r\nConnection: close\r\n"
            .to_owned();
    if let Some(origin) = allowed_origin {
        head.push_str(&format!("Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n"));
    }
    (head + "\r\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use aqueduct_primitives::{Budget, ByteCount};
    use http::{HeaderMap, Method};
    use tokio::net::UnixStream;

    use super::super::head::RequestHead;
    use super::super::mounts::Streams;
    use super::super::{Event, EventStream, EventStreamOptions};
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    /// A stream that keeps one event for a client.
    fn stream() -> EventStream {
        let options = EventStreamOptions { queue: 1, put_timeout: PATIENCE, ..EventStreamOptions::default() };
        EventStream::new("news", options, Budget::new("live", ByteCount::mib(64))).unwrap()
    }

    fn client_of(stream: &EventStream) -> Sending {
        let (path, headers) = ("/".to_owned(), HeaderMap::new());
        let head = RequestHead { method: Method::GET, path, query: None, headers, peer: None };
        Sending::new(stream.subscribe(&head).unwrap_or_else(|_| panic!("refused")), &ServerLimits::default())
    }

    /// A socket that takes nothing, and its other end.
    fn full_socket() -> (Socket, UnixStream) {
        let (socket, peer) = UnixStream::pair().unwrap();
        while socket.try_write(&[0; 4096]).is_ok() {}
        (Socket::Unix(socket), peer)
    }

    fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_cut_off_goes_though_its_text_was_not_taken() {
        let (stream, (socket, _peer)) = (stream(), full_socket());
        let mut sending = client_of(&stream);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(matches!(sending.send_some(&socket, cx), Sent::Blocked));
        for _ in 0..2 {
            let mut send = pin!(stream.send(Event { name: "row", data: b"1" }));
            while poll_once(send.as_mut()).is_pending() {
                tokio::time::advance(PATIENCE).await;
                assert!(matches!(sending.send_some(&socket, cx), Sent::Blocked));
            }
        }
        assert!(!sending.text.is_empty());
        assert!(matches!(sending.send_some(&socket, cx), Sent::Over(Some(Evicted::Slow))));
    }

    // reliability.md 59
    #[tokio::test(start_paused = true)]
    async fn after_the_end_a_client_that_takes_a_byte_now_and_then_is_not_waited_for_long() {
        let stream = stream();
        let mut sending = client_of(&stream);
        stream.end();
        let mut seconds = 0;
        let why = loop {
            assert!(seconds < 120, "it is still there");
            tokio::time::advance(Duration::from_secs(10)).await;
            seconds += 10;
            (sending.is_blocked, sending.taken_at) = (true, Instant::now());
            if let Some(why) = sending.time_is_up(Instant::now()) {
                break why;
            }
        };
        assert_eq!((why, seconds), (Evicted::Slow, 10 + 60));
    }
}
