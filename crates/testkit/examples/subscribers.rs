//! Subscribers of any event stream that only count, as a process of their own: `cargo xtask bench sse` puts the same ones before
//! each server.
//!
//! `subscribers ADDRESS PATH READING STALLED EVENTS GIVE_UP_SECONDS` says `ready` when all that read have the head of their answer,
//! and in one line of JSON what they had, when each has had so many events or the time is over.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aqueduct_testkit::swarm::connect;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// What the kernel may hold for those that never read.
const STALLED_BUFFER_BYTES: usize = 4 << 10;

const READ_BYTES: usize = 64 << 10;

const MAX_HEAD_BYTES: usize = 4 << 10;

/// Where the data of an event begins. So much of it may have come with the bytes before.
const DATA: &[u8] = b"\ndata:";

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let address = next(&mut words, "ADDRESS")?;
    let path: String = next(&mut words, "PATH")?;
    let n_reading = next(&mut words, "READING")?;
    let n_stalled = next(&mut words, "STALLED")?;
    let n_wanted = next(&mut words, "EVENTS")?;
    let give_up_after = Duration::from_secs(next(&mut words, "GIVE_UP_SECONDS")?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut stalled = Vec::new();
        for _ in 0..n_stalled {
            stalled.push(ask(address, &path, Some(STALLED_BUFFER_BYTES)).await?);
        }
        let mut reading = Vec::new();
        for _ in 0..n_reading {
            reading.push(Subscriber::new(ask(address, &path, None).await?));
        }
        for subscriber in &mut reading {
            subscriber.take_head().await?;
        }
        say("ready");
        say(&told(reading, n_wanted, Instant::now() + give_up_after).await.to_string());
        Ok(())
    })
}

fn next<T: FromStr<Err: Error + 'static>>(
    words: &mut impl Iterator<Item = String>,
    name: &str,
) -> Result<T, Box<dyn Error>> {
    Ok(words.next().ok_or_else(|| format!("{name} is missing"))?.parse()?)
}

async fn ask(address: SocketAddr, path: &str, receive_buffer: Option<usize>) -> io::Result<TcpStream> {
    let mut stream = connect(address, receive_buffer).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// One that reads.
struct Subscriber {
    stream: TcpStream,
    n_events: u64,
    /// The last bytes that came: an event's data may begin within them.
    tail: Vec<u8>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Subscriber {
    fn new(stream: TcpStream) -> Self {
        Self { stream, n_events: 0, tail: Vec::new(), first: None, last: None }
    }

    async fn take_head(&mut self) -> Result<(), Box<dyn Error>> {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            self.stream.readable().await?;
            let mut bytes = [0; 1];
            match self.stream.try_read(&mut bytes) {
                Ok(0) => return Err("a connection was closed before its answer".into()),
                Ok(_) => head.push(bytes[0]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if head.len() > MAX_HEAD_BYTES {
                return Err("the head of an answer has no end".into());
            }
        }
        let status = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        if status.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(status.into()) }
    }

    /// Reads until it has had so many; whether it has.
    async fn read(&mut self, n_wanted: u64, buffer: &Mutex<Vec<u8>>) -> bool {
        while self.n_events < n_wanted {
            if self.stream.readable().await.is_err() {
                return false;
            }
            let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
            let n_tail = self.tail.len();
            buffer[..n_tail].copy_from_slice(&self.tail);
            match self.stream.try_read(&mut buffer[n_tail..]) {
                Ok(0) => return false,
                Ok(n) => self.count(&buffer[..n_tail + n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn count(&mut self, bytes: &[u8]) {
        let n = memchr::memmem::find_iter(bytes, DATA).count();
        if n > 0 {
            let now = Instant::now();
            self.first.get_or_insert(now);
            self.last = Some(now);
            self.n_events += n as u64;
        }
        self.tail.clear();
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(DATA.len() - 1)..]);
    }
}

async fn told(mut reading: Vec<Subscriber>, n_wanted: u64, until: Instant) -> serde_json::Value {
    let buffer = Mutex::new(vec![0; READ_BYTES]);
    let mut n_complete = 0u64;
    {
        let read = reading.iter_mut().map(|subscriber| subscriber.read(n_wanted, &buffer));
        let mut reads: FuturesUnordered<_> = read.collect();
        while let Ok(Some(is_complete)) = timeout_at(until, reads.next()).await {
            n_complete += u64::from(is_complete);
        }
    }
    let first = reading.iter().filter_map(|subscriber| subscriber.first).min();
    let last = reading.iter().filter_map(|subscriber| subscriber.last).max();
    let took = last.zip(first).map_or(Duration::ZERO, |(last, first)| last - first);
    json!({
        "n_complete": n_complete,
        "n_events": reading.iter().map(|subscriber| subscriber.n_events).sum::<u64>(),
        "took_us": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    })
}

#[expect(clippy::print_stdout, reason = "whoever started it reads this")]
fn say(line: &str) {
    println!("{line}");
}
