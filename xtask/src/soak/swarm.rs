//! `cargo xtask soak swarm`: a flow that is given ten rows a second, and thousands of clients of its stream in two processes.
//! A tenth never reads, a tenth leaves and comes again each second; others may begin a request and never end it. Whoever reads
//! must miss no event, whatever the others do, and the run must stay within its memory.

mod clients;
mod server;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bench::memory_ladder::BESIDE_BYTES;
use crate::bench::{Bench, Promise, judge, megabytes};
use crate::text::say;
use crate::workspace::Workspace;
use clients::{Clients, Flock, Seen};
use server::Server;

/// The flow's memory: for each client a few KiB and the kernel's buffer.
const MEMORY_MB: u64 = 256;

/// Between two rows.
const PERIOD: Duration = Duration::from_millis(100);

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
    let clients = Clients::of(options.clients, options.half_open);
    let program = clients::program(workspace)?;
    let mut server = Server::start(bench, options.clients)?;
    let n_rows = options.seconds * 1000 / PERIOD.as_millis() as u64;
    let sockets_before = sockets_bytes()?;
    let mut flocks = Vec::new();
    for part in clients.halves() {
        flocks.push(Flock::start(&program, server.address(), part, n_rows, options.seconds)?);
    }
    for flock in &mut flocks {
        flock.wait_until_ready()?;
    }
    say(format_args!("{clients} are connected"));
    let watched = feed(&mut server, n_rows, clients.n_stalled)?;
    let mut seen = Seen::default();
    for flock in flocks {
        seen.add(&flock.seen()?);
    }
    server.end()?;
    say(told(&watched, sockets_before));
    judge(&promises(&clients, &watched, &seen))
}

/// Gives the rows, and looks at the server meanwhile.
fn feed(server: &mut Server, n_rows: u64, n_stalled: u64) -> Result<Watched> {
    let mut watched = Watched::default();
    let started = Instant::now();
    for n in 0..n_rows {
        let due = PERIOD * u32::try_from(n)?;
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        server.give(n)?;
        if n % ROWS_A_LOOK == 0 {
            watched.look(server, n_stalled, started)?;
        }
    }
    watched.look(server, n_stalled, started)?;
    Ok(watched)
}

impl Watched {
    fn look(&mut self, server: &Server, n_stalled: u64, started: Instant) -> Result<()> {
        self.rss_bytes = self.rss_bytes.max(server.rss_bytes()?);
        self.sockets_bytes = self.sockets_bytes.max(sockets_bytes()?);
        // Where the server is too busy for the page, the next look tells.
        self.n_evicted = server.n_evicted().unwrap_or(self.n_evicted);
        if self.n_evicted >= n_stalled {
            self.all_evicted.get_or_insert(started.elapsed());
        }
        Ok(())
    }
}

/// What the kernel holds for all TCP sockets of the machine (proc(5), `/proc/net/sockstat`).
fn sockets_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").context("/proc/net/sockstat")?;
    Ok(tcp_pages(&text).context("/proc/net/sockstat: no `mem` of TCP")? * PAGE_BYTES)
}

/// Of Linux on x86 and most of ARM.
const PAGE_BYTES: u64 = 4096;

fn tcp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find(|line| line.starts_with("TCP:"))?;
    line.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()
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

fn promises(clients: &Clients, watched: &Watched, seen: &Seen) -> Vec<Promise> {
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
        Promise::goal(
            format!(
                "half of the events within 250 ms: p50 {} ms, p99 {} ms",
                milliseconds(seen.p50_us),
                milliseconds(seen.p99_us)
            ),
            seen.p50_us <= 250_000,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_those_of_tcp() {
        let text = "sockets: used 29\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 149\nUDP: inuse 0 mem 256\n";
        assert_eq!((tcp_pages(text), tcp_pages("UDP: inuse 0 mem 256")), (Some(149), None));
    }

    #[test]
    fn each_promise_can_be_missed() {
        let clients = Clients::of(100, 0);
        let right = Seen { n_complete: 90, n_events: 900, ..Seen::default() };
        let holds = |rss_bytes, seen: Seen| -> Vec<bool> {
            let watched = Watched { rss_bytes, ..Watched::default() };
            promises(&clients, &watched, &seen).iter().map(|promise| promise.holds).collect()
        };
        assert_eq!(holds(1, right.clone()), [true; 5]);
        assert_eq!(holds(u64::MAX, right.clone()), [true, true, true, false, true]);
        let wrong = Seen { n_complete: 89, n_missed: 1, n_errors: 1, p50_us: 300_000, ..right };
        assert_eq!(holds(1, wrong), [false, false, false, true, false]);
    }
}
