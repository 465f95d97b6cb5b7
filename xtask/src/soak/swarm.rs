//! `cargo xtask soak swarm`: a flow that is given ten rows a second, and thousands of clients of its stream in two processes.
//! A tenth never reads, a tenth leaves and comes again each second; others may begin a request and never end it. Whoever reads
//! must miss no event, whatever the others do, and the run must stay within its memory.

mod clients;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::bench::memory_ladder::BESIDE_BYTES;
use crate::bench::{Bench, Promise, judge, megabytes};
use crate::live::kernel::{rss_bytes, sockets_bytes};
use crate::live::{Clients, Server, program};
use crate::text::say;
use crate::workspace::Workspace;
use clients::{Seen, Swarm};

/// The flow's memory: for each client a few KiB and the kernel's buffer.
const MEMORY_MB: u64 = 256;

/// How often a row comes.
const ROWS_PER_SECOND: u32 = 10;

/// How long rows are, as JSON.
const ROW_BYTES: usize = 200;

/// Seconds that thousands of clients may take to connect, and then to have the last event.
const SECONDS_BESIDE: u64 = 60;

/// Within this, 99 of 100 events are with those that read all the time.
const MAX_P99: Duration = Duration::from_millis(250);

/// Rows between two looks at memory.
const ROWS_A_LOOK: u64 = 5;

/// What `soak swarm` is asked to do beside what every soak is.
#[derive(Debug, clap::Args)]
#[group(id = "swarm")]
pub(super) struct Options {
    /// Swarm: clients of the stream
    #[arg(long, default_value_t = 9000)]
    clients: u64,
    /// Swarm: connections beside them that begin a request and never end it
    #[arg(long, default_value_t = 0)]
    half_open: u64,
    /// Swarm: for how long rows come
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// What was seen of the server while rows came.
#[derive(Debug, Default)]
struct Watched {
    /// The most that was resident.
    rss_bytes: u64,
    /// The most that the kernel held for sockets of the machine.
    sockets_bytes: u64,
    /// Clients that were cut off.
    n_evicted: u64,
    /// When as many were as never read, since the first row.
    all_evicted: Option<Duration>,
}

/// Runs it once.
///
/// # Errors
/// A client that reads missed an event, was sent away or broken off; the run failed, or took more than its memory.
pub(super) fn run(workspace: &Workspace, bench: &Bench, options: &Options) -> Result<()> {
    let swarm = Swarm::of(options.clients, options.half_open);
    let program = program(workspace, "swarm")?;
    let mut server = Server::start(bench, "swarm", &flow(options.clients))?;
    let n_rows = options.seconds * u64::from(ROWS_PER_SECOND);
    let sockets_before = sockets_bytes()?;
    let mut processes = Vec::new();
    for part in swarm.halves() {
        let args = part.args(server.address(), n_rows, options.seconds + SECONDS_BESIDE);
        processes.push(Clients::start(&program, &args)?);
    }
    for clients in &mut processes {
        clients.wait_until_ready()?;
    }
    say(format_args!("{swarm} are connected"));
    let watched = feed(&mut server, n_rows, swarm.n_stalled)?;
    let mut seen = Seen::default();
    for clients in processes {
        seen.add(&clients.seen()?);
    }
    server.end()?;
    say(told(&watched, sockets_before));
    judge(&promises(&swarm, &watched, &seen))
}

/// Clients that come again are there twice for a moment.
fn flow(n_clients: u64) -> String {
    let max_clients = n_clients + n_clients / 5 + 16;
    format!(
        "name: swarm\nmemory: {MEMORY_MB}MB\n\
         source: {{ stdin: {{ format: ndjson, schema: {{ n: int64, at_us: int64, text: string }} }} }}\n\
         sink: {{ sse: {{ max_clients: {max_clients} }} }}\n"
    )
}

fn row(n: u64, now: SystemTime) -> String {
    let at_us = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let head = format!("{{\"n\":{n},\"at_us\":{at_us},\"text\":\"");
    let text = "x".repeat(ROW_BYTES.saturating_sub(head.len() + 2));
    format!("{head}{text}\"}}\n")
}

/// Gives the rows, and looks at the server meanwhile.
fn feed(server: &mut Server, n_rows: u64, n_stalled: u64) -> Result<Watched> {
    let mut watched = Watched::default();
    let started = Instant::now();
    for n in 0..n_rows {
        let due = Duration::from_secs(1) / ROWS_PER_SECOND * u32::try_from(n)?;
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        server.give(&row(n, SystemTime::now()))?;
        if n % ROWS_A_LOOK == 0 {
            watched.look(server, n_stalled, started)?;
        }
    }
    watched.look(server, n_stalled, started)?;
    Ok(watched)
}

impl Watched {
    fn look(&mut self, server: &Server, n_stalled: u64, started: Instant) -> Result<()> {
        self.rss_bytes = self.rss_bytes.max(rss_bytes(server.pid())?);
        self.sockets_bytes = self.sockets_bytes.max(sockets_bytes()?);
        // Where the server is too busy for the page, the next look tells.
        self.n_evicted = server.n_evicted().unwrap_or(self.n_evicted);
        if self.n_evicted >= n_stalled {
            self.all_evicted.get_or_insert(started.elapsed());
        }
        Ok(())
    }
}

fn told(watched: &Watched, sockets_before: u64) -> String {
    let gone = match watched.all_evicted {
        Some(after) => format!("all who never read were gone after {:.1} s", after.as_secs_f64()),
        None => format!("{} clients were cut off by the last row", watched.n_evicted),
    };
    format!(
        "sockets of the kernel: {} MB before, {} MB at most; {gone}",
        megabytes(sockets_before),
        megabytes(watched.sockets_bytes)
    )
}

fn promises(clients: &Swarm, watched: &Watched, seen: &Seen) -> Vec<Promise> {
    let (n_reading, limit) = (clients.n_reading(), MEMORY_MB * 1_000_000 + BESIDE_BYTES);
    let milliseconds = |us: u64| us.div_ceil(1000);
    vec![
        Promise::must(
            format!("all who read had the last event: {} of {n_reading}", seen.n_complete),
            seen.n_complete == n_reading,
        ),
        Promise::must(
            format!("no event missed: {} of {}", seen.n_missed, seen.n_events),
            seen.n_missed == 0 && seen.n_events > 0,
        ),
        Promise::must(format!("nobody who read was sent away: {} were", seen.n_errors), seen.n_errors == 0),
        Promise::must(
            format!(
                "peak RSS at most memory + 64 MiB: {} of {} MB",
                megabytes(watched.rss_bytes),
                megabytes(limit)
            ),
            watched.rss_bytes <= limit,
        ),
        Promise::must(
            format!(
                "99 of 100 events within {} ms: p50 {} ms, p99 {} ms",
                MAX_P99.as_millis(),
                milliseconds(seen.p50_us),
                milliseconds(seen.p99_us)
            ),
            u128::from(seen.p99_us) <= MAX_P99.as_micros(),
        ),
        Promise::must(
            format!("all {} who never read were cut off: {}", clients.n_stalled, watched.n_evicted),
            watched.n_evicted >= clients.n_stalled,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_length_and_the_time() {
        let row = row(7, UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(row.len(), ROW_BYTES + 1);
        assert!(row.starts_with("{\"n\":7,\"at_us\":1000000,\"text\":\"xxx") && row.ends_with("x\"}\n"));
    }

    #[test]
    fn each_promise_can_be_missed() {
        let clients = Swarm::of(100, 0);
        let right = Seen { n_complete: 90, n_events: 900, ..Seen::default() };
        let holds = |rss_bytes, n_evicted, seen: Seen| -> Vec<bool> {
            let watched = Watched { rss_bytes, n_evicted, ..Watched::default() };
            promises(&clients, &watched, &seen).iter().map(|promise| promise.holds).collect()
        };
        assert_eq!(holds(1, 10, right.clone()), [true; 6]);
        assert_eq!(holds(u64::MAX, 9, right.clone()), [true, true, true, false, true, false]);
        let wrong = Seen { n_complete: 89, n_missed: 1, n_errors: 1, p99_us: 300_000, ..right };
        assert_eq!(holds(1, 10, wrong), [false, false, false, true, false, true]);
    }
}
