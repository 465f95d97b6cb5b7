//! What the allocator and the kernel say about this process's memory, and what its runs do about it together.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use aqueduct_primitives::ByteCount;

/// The memory of a process, as all runs in it see it: one, or those of a server.
#[derive(Debug)]
pub(crate) struct ProcessMemory {
    /// What all runs together may reserve.
    pub(crate) limit: ByteCount,
    /// How many runs want unused pages given back at once.
    n_giving_back: AtomicUsize,
}

impl ProcessMemory {
    /// Of a process whose runs may reserve so much together.
    pub(crate) fn new(limit: ByteCount) -> Self {
        Self { limit, n_giving_back: AtomicUsize::new(0) }
    }

    /// From now on, until what is returned is dropped, unused pages are given back at once.
    pub(crate) fn give_back(&self) -> GivingBack<'_> {
        if self.n_giving_back.fetch_add(1, Relaxed) == 0 {
            keep_unused_pages(false);
        }
        GivingBack(self)
    }
}

/// As long as any of these is there, the allocator keeps no unused page.
pub(crate) struct GivingBack<'a>(&'a ProcessMemory);

impl Drop for GivingBack<'_> {
    fn drop(&mut self) {
        if self.0.n_giving_back.fetch_sub(1, Relaxed) == 1 {
            keep_unused_pages(true);
        }
    }
}

/// The most bytes that were resident at one moment, as the kernel counts (`VmHWM`); 0 where it does not say.
pub(crate) fn rss_peak_bytes() -> u64 {
    status_kib("VmHWM:") * 1024
}

/// The bytes resident now (`VmRSS`); 0 where the kernel does not say.
pub(crate) fn rss_bytes() -> u64 {
    status_kib("VmRSS:") * 1024
}

/// The bytes that the allocator has given out and not got back; 0 where it is not jemalloc.
pub(crate) fn allocated_bytes() -> u64 {
    if tikv_jemalloc_ctl::epoch::advance().is_err() {
        return 0;
    }
    tikv_jemalloc_ctl::stats::allocated::read().map_or(0, |bytes| bytes as u64)
}

/// How long the allocator keeps pages that nothing lies in, for they are soon wanted again. There is one arena.
const DIRTY_DECAY_MS: &[u8] = b"arena.0.dirty_decay_ms\0";

/// Has the allocator give every page back to the kernel as soon as nothing lies in it, or keep it for a moment, as it was
/// built to. Nothing, where it is not jemalloc.
fn keep_unused_pages(is_kept: bool) {
    use tikv_jemalloc_ctl::{Access, AsName};
    let default = b"arenas.dirty_decay_ms\0".name();
    let default: Result<isize, _> = default.read();
    let Ok(default) = default else { return };
    if let Err(error) = DIRTY_DECAY_MS.name().write(if is_kept { default } else { 0 }) {
        tracing::debug!(%error, "the allocator's decay was not set");
    }
}

fn status_kib(key: &str) -> u64 {
    use std::io::Read;
    /// The kernel's own text is about 1.5 KB.
    const MAX_STATUS_BYTES: u64 = 16 * 1024;
    let mut text = String::new();
    let read = std::fs::File::open("/proc/self/status")
        .and_then(|file| file.take(MAX_STATUS_BYTES).read_to_string(&mut text));
    if read.is_err() {
        return 0;
    }
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_says_how_much_is_resident() {
        let now = super::rss_bytes();
        assert!(now > 0);
        assert!(super::rss_peak_bytes() >= now / 2);
    }
}
