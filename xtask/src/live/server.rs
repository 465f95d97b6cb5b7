//! The binary, serving a stream of what it is given on its standard input.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::Bench;

/// How long a server may take to listen, and to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// The most of a page that is read.
const MAX_PAGE_BYTES: u64 = 1 << 20;

/// An address of this machine that was free a moment ago; who finds it taken says so and ends.
///
/// # Errors
/// There is none.
pub(crate) fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// A run that serves. Dropping it ends it.
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    address: String,
}

impl Server {
    /// Starts this flow, and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn start(bench: &Bench, name: &str, flow: &str) -> Result<Self> {
        let address = free_address()?;
        let (mut command, _) = bench.flow(name, flow)?;
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
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it rows.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn give(&mut self, rows: &str) -> Result<()> {
        let input = self.input.as_mut().context("the run has its last row")?;
        input.write_all(rows.as_bytes()).context("the run has ended")
    }

    /// Clients cut off so far; nothing if the server did not say in time.
    pub(crate) fn n_evicted(&self) -> Option<u64> {
        let page = self.page("/metrics").filter(|page| page.starts_with("HTTP/1.1 200"))?;
        Some(evictions(&page))
    }

    /// Gives it no more, and waits for its end.
    ///
    /// # Errors
    /// It failed, or does not end.
    pub(crate) fn end(mut self) -> Result<()> {
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

fn evictions(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("aqueduct_stream_evictions"));
    lines.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evictions_of_all_reasons_count() {
        let metrics = "# TYPE aqueduct_stream_evictions counter\n\
                       aqueduct_stream_evictions_total{stream=\"s\",reason=\"slow\"} 3\n\
                       aqueduct_stream_evictions_total{stream=\"s\",reason=\"age\"} 1\n\
                       aqueduct_stream_clients{stream=\"s\"} 9\n";
        assert_eq!(evictions(metrics), 4);
    }
}
