//! What the kernel says of processes and sockets that live (proc(5)).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::text;

/// Of Linux on x86 and most of ARM.
const PAGE_BYTES: u64 = 4096;

/// Clock ticks of a second, as Linux has them for programs whatever its own clock does.
const TICKS_PER_SECOND: u64 = 100;

/// What a process has resident now; what it shares with others whole.
///
/// # Errors
/// It has ended.
pub(crate) fn rss_bytes(pid: u32) -> Result<u64> {
    kibibytes(pid, "status", "VmRSS:")
}

/// What a process has resident now; of what it shares with others, its part.
///
/// # Errors
/// It has ended.
pub(crate) fn pss_bytes(pid: u32) -> Result<u64> {
    kibibytes(pid, "smaps_rollup", "Pss:")
}

fn kibibytes(pid: u32, file: &str, key: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/{file}");
    let told = text::read(Path::new(&path)).context("the process has ended")?;
    kibibytes_of(&told, key).with_context(|| format!("{path}: no {key}"))
}

fn kibibytes_of(told: &str, key: &str) -> Option<u64> {
    let line = told.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The processor time that a process took so far, its own and the kernel's for it.
///
/// # Errors
/// It has ended.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let told = text::read(Path::new(&path)).context("the process has ended")?;
    let ticks = ticks(&told).with_context(|| format!("{path}: no times"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// The fields are counted from the end of the name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// The children of a process.
///
/// # Errors
/// It has ended.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>> {
    let told = text::read(Path::new(&format!("/proc/{pid}/task/{pid}/children")))?;
    Ok(told.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// What the kernel holds for all TCP sockets of the machine (`/proc/net/sockstat`).
///
/// # Errors
/// It does not say.
pub(crate) fn sockets_bytes() -> Result<u64> {
    let told = text::read(Path::new("/proc/net/sockstat"))?;
    Ok(tcp_pages(&told).context("/proc/net/sockstat: no `mem` of TCP")? * PAGE_BYTES)
}

fn tcp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find(|line| line.starts_with("TCP:"))?;
    line.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let sockets = "sockets: used 29\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 149\nUDP: inuse 0 mem 256\n";
        assert_eq!((tcp_pages(sockets), tcp_pages("UDP: inuse 0 mem 256")), (Some(149), None));
        assert_eq!(kibibytes_of("Name:\ta\nVmRSS:\t   2 kB\n", "VmRSS:"), Some(2048));
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 1 0";
        assert_eq!((ticks(stat), ticks("7 (a) S 1")), (Some(42), None));
    }

    #[test]
    fn this_process_is_there() {
        let pid = std::process::id();
        assert!(rss_bytes(pid).unwrap() > 1 << 20 && pss_bytes(pid).unwrap() > 1 << 20);
        assert!(cpu(pid).is_ok() && children(pid).is_ok() && rss_bytes(u32::MAX).is_err());
    }
}
