//! The binary, serving a stream of what it is given on its standard input.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::MEMORY_MB;
use crate::bench::Bench;

/// How long the run may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// The most of a page that is read.
const MAX_PAGE_BYTES: u64 = 1 << 20;

/// How long rows are, as JSON.
const ROW_BYTES: usize = 200;

/// A run that serves the stream `swarm`. Dropping it ends it.
pub(super) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    address: String,
}

impl Server {
    /// Starts one for so many clients, and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn start(bench: &Bench, n_clients: u64) -> Result<Self> {
        // Free a moment ago; if it is not any more, the run says so and ends.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (mut command, _) = bench.flow("swarm", &flow(n_clients))?;
        command.args(["--listen", &address]).stdin(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        let mut server = Self { child, input, address };
        let started = Instant::now();
        while server.page("/healthz").is_none_or(|page| !page.starts_with("HTTP/1.1 200")) {
            if let Some(status) = server.child.try_wait()? {
                bail!("the run has ended before it served anything: {status}");
            }
            ensure!(started.elapsed() < PATIENCE, "the run does not serve after {PATIENCE:?}");
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(server)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Gives it a row, with the time.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn give(&mut self, n: u64) -> Result<()> {
        let input = self.input.as_mut().context("the run has its last row")?;
        input.write_all(row(n, SystemTime::now()).as_bytes()).context("the run has ended")
    }

    /// What is resident now.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn rss_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).context("the run has ended")?;
        rss_of(&status).with_context(|| format!("{path}: no VmRSS"))
    }

    /// Clients cut off so far; nothing if the server did not say in time.
    pub(super) fn n_evicted(&self) -> Option<u64> {
        let page = self.page("/metrics").filter(|page| page.starts_with("HTTP/1.1 200"))?;
        Some(evictions(&page))
    }

    /// Gives it no more, and waits for its end.
    ///
    /// # Errors
    /// It failed, or does not end.
    pub(super) fn end(mut self) -> Result<()> {
        self.input = None;
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the run failed: {status}");
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "the run has not ended {PATIENCE:?} after its last row");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn page(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(PAGE_TIMEOUT)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.take(MAX_PAGE_BYTES).read_to_string(&mut page).ok()?;
        Some(page)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Clients that come again are there twice for a moment.
fn flow(n_clients: u64) -> String {
    let max_clients = n_clients + n_clients / 5 + 16;
    format!(
        "name: swarm\nmemory: {MEMORY_MB}MB\n\
         source: {{ stdin: {{ format: ndjson, schema: {{ n: int64, at_us: int64, text: string }} }} }}\n\
         sink: {{ sse: {{ max_clients: {max_clients}, replay: none }} }}\n"
    )
}

fn row(n: u64, now: SystemTime) -> String {
    let at_us = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let head = format!("{{\"n\":{n},\"at_us\":{at_us},\"text\":\"");
    let text = "x".repeat(ROW_BYTES.saturating_sub(head.len() + 2));
    format!("{head}{text}\"}}\n")
}

/// proc(5): in units of 1024 bytes.
fn rss_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn evictions(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("aqueduct_stream_evictions"));
    lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum()
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
    fn what_the_system_and_the_server_say_is_read() {
        assert_eq!(rss_of("Name:\ta\nVmRSS:\t   2 kB\n"), Some(2048));
        let metrics = "# TYPE aqueduct_stream_evictions counter\n\
                       aqueduct_stream_evictions_total{stream=\"s\",reason=\"slow\"} 3\n\
                       aqueduct_stream_evictions_total{stream=\"s\",reason=\"age\"} 1\n\
                       aqueduct_stream_clients{stream=\"s\"} 9\n";
        assert_eq!(evictions(metrics), 4);
    }
}
