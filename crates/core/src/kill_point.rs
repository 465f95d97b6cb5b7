//! Named places at which a test ends the process, between two operations that last.

use std::env;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use rustix::process::{Signal, getpid, kill_process};

/// Says at which point the process ends: `NAME`, or `NAME:N` for the Nth time that it is passed.
const VARIABLE: &str = "AQUEDUCT_KILL_AT";

/// A point between two operations that change what is on a disk or in an object store. What was written before it must be
/// of use to whoever comes next, or be swept by them: a test ends the process here and looks.
///
/// Does nothing, unless the environment says `AQUEDUCT_KILL_AT=NAME` or `AQUEDUCT_KILL_AT=NAME:N`: then the process kills
/// itself the Nth time that it passes the point of this name, counted from 1. It does so with SIGKILL: nothing is dropped,
/// nothing is flushed, nobody is told. A build without `debug_assertions`, which is what is published, never looks.
///
/// The name is written out in the call, and in no other call: `cargo xtask ci` finds all names in the sources, and fails if
/// one is there twice or if no run dies at it. They read `WHOSE.WHAT.DONE`; points whose names begin with `store.` are
/// passed where something is in an object store, and a test of such runs finds those.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// std::fs::rename(folder.path(), folder.path().with_extension("moved"))?;
/// aqueduct_core::kill_point("example.folder.moved");
/// # std::fs::rename(folder.path().with_extension("moved"), folder.path())?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[inline]
pub fn kill_point(name: &'static str) {
    if cfg!(debug_assertions) && armed().is_some_and(|armed| armed.is_hit_by(name)) {
        die();
    }
}

/// The point at which this process ends.
struct Armed {
    name: String,
    /// Which time it is passed.
    nth: u64,
    n_passed: AtomicU64,
}

/// Looked up once: some points are passed as often as something is written.
fn armed() -> Option<&'static Armed> {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    ARMED.get_or_init(|| Some(Armed::parse(env::var_os(VARIABLE)?.to_str()?))).as_ref()
}

impl Armed {
    /// What is behind the colon and no number from 1 on belongs to the name, which no point has then.
    fn parse(text: &str) -> Self {
        let nth = |nth: &str| nth.parse().ok().filter(|nth| *nth > 0);
        let counted = text.rsplit_once(':').and_then(|(name, behind)| Some((name, nth(behind)?)));
        let (name, nth) = counted.unwrap_or((text, 1));
        Self { name: name.to_owned(), nth, n_passed: AtomicU64::new(0) }
    }

    fn is_hit_by(&self, name: &str) -> bool {
        self.name == name && self.n_passed.fetch_add(1, Relaxed) + 1 == self.nth
    }
}

fn die() -> ! {
    // One's own process may always be killed; were it not so, standing still is as much as can be done.
    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(text: &str, names: &[&str]) -> Vec<bool> {
        let armed = Armed::parse(text);
        names.iter().map(|name| armed.is_hit_by(name)).collect()
    }

    #[test]
    fn a_point_is_hit_the_nth_time_that_it_is_passed_and_only_then() {
        assert_eq!(hits("a.b", &["a", "a.b", "a.b"]), [false, true, false]);
        assert_eq!(hits("a.b:1", &["a.b"]), [true]);
        assert_eq!(hits("a.b:2", &["a.b", "c", "a.b", "a.b"]), [false, false, true, false]);
        assert!(!hits("a.b:0", &["a.b", "a.b"]).contains(&true));
        assert!(!hits("a.b:x", &["a.b", "a.b"]).contains(&true));
        assert!(!hits("", &["a.b"]).contains(&true));
    }
}
