//! The numbers of a stream's events, over runs and crashes.
//!
//! A commit keeps the number of the next event. What is sent after it may have been seen, and may never be committed: no later
//! event may have its number. Numbers are therefore taken in blocks. A file is named by the end of the block before any
//! number of it goes out; a commit gives the rest of the block back. So a run goes on with the number after that of the last
//! event, unless the process was killed: then with the next block.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aqueduct_core::{Context, Fs, Result};

use super::folder::Folder;
use super::kept::Kept;

/// Numbers that are taken at once: each time the disk is waited for.
const BLOCK: u64 = 1 << 20;

const NUMBERING: &str = "number events";

/// Where the numbers of a run begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) first_id: u64,
    /// So many before it may have been of events that were not committed.
    pub(super) n_uncommitted: u64,
}

/// The numbers of a stream, and the end of the block that they come from.
pub(super) struct Ids {
    /// Nothing where nothing is kept.
    folder: Option<Folder>,
    end: AtomicU64,
}

impl Start {
    /// After what a commit kept, and the end of the last block.
    pub(super) fn after(kept: Option<u64>, taken: Option<u64>) -> Self {
        let committed = kept.unwrap_or(1);
        let first_id = taken.unwrap_or(committed).max(committed);
        Self { first_id, n_uncommitted: first_id - committed }
    }

    /// Where so many committed events have their numbers yet to be given, or are given them again. If numbers after theirs
    /// are gone, they get new ones.
    pub(super) fn with_again(self, n_events: u64) -> Self {
        match self.n_uncommitted {
            0 => Self { first_id: self.first_id.saturating_sub(n_events).max(1), ..self },
            _ => self,
        }
    }
}

impl Default for Start {
    fn default() -> Self {
        Self::after(None, None)
    }
}

impl Ids {
    /// Goes on where earlier runs ended, however they did.
    pub(super) async fn open(cx: &Context) -> Result<(Self, Start)> {
        let kept = Kept::of(cx).map(|kept| kept.next_id);
        let folder = Folder::of(cx);
        let taken = match &folder {
            Some(folder) => folder.work(NUMBERING, last_end).await?,
            None => None,
        };
        let start = Start::after(kept, taken);
        let end = AtomicU64::new(taken.unwrap_or_default());
        Ok((Self { folder, end }, start))
    }

    /// To be called before an event goes out whose number is below this. One call at a time.
    pub(super) async fn reach(&self, id: u64) -> Result<()> {
        if id <= self.end.load(Relaxed) { Ok(()) } else { self.end_at(id.saturating_add(BLOCK)).await }
    }

    /// Numbers from here on are nobody's: what is left of a block is given back. One call at a time.
    pub(super) async fn end_at(&self, end: u64) -> Result<()> {
        let before = self.end.load(Relaxed);
        if let Some(folder) = self.folder.as_ref().filter(|_| before != end) {
            folder.work(NUMBERING, move |fs, dir| put_end(fs, dir, before, end)).await?;
        }
        self.end.store(end, Relaxed);
        Ok(())
    }
}

/// The furthest end that a file is named by.
fn last_end(fs: &dyn Fs, dir: &Path) -> io::Result<Option<u64>> {
    if fs.stat(dir)?.is_none() {
        return Ok(None);
    }
    let paths = fs.list(dir)?.into_iter().map(|entry| entry.path);
    Ok(paths.filter_map(|path| path.file_name()?.to_str()?.parse().ok()).max())
}

fn put_end(fs: &dyn Fs, dir: &Path, before: u64, end: u64) -> io::Result<()> {
    fs.create_dir_all(dir)?;
    let path = |end: u64| dir.join(end.to_string());
    match fs.create_new(&path(end)) {
        Ok(mut file) => file.sync()?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    fs.sync_dir(dir)?;
    fs.remove_file(&path(before))
}

#[cfg(test)]
mod tests {
    use aqueduct_core::StdFs;

    use super::*;

    // reliability.md 27: killed at any moment, no number is given twice
    #[test]
    fn the_end_of_a_block_is_known_whatever_was_done_of_a_change() {
        let room = tempfile::tempdir().unwrap();
        let dir = room.path().join("steps/live");
        assert_eq!(last_end(&StdFs, &dir).unwrap(), None);
        put_end(&StdFs, &dir, 1, 100).unwrap();
        assert_eq!(last_end(&StdFs, &dir).unwrap(), Some(100));
        // Killed before the earlier one was removed.
        std::fs::write(dir.join("7"), "").unwrap();
        assert_eq!(last_end(&StdFs, &dir).unwrap(), Some(100));
        put_end(&StdFs, &dir, 100, 7).unwrap();
        assert_eq!(last_end(&StdFs, &dir).unwrap(), Some(7));
    }

    #[test]
    fn a_run_goes_on_with_the_next_number_and_after_a_kill_with_the_next_block() {
        let start = |kept, taken| Start::after(kept, taken);
        let at = |first_id, n_uncommitted| Start { first_id, n_uncommitted };
        assert_eq!(start(None, None), at(1, 0));
        assert_eq!(start(Some(400), Some(400)), at(400, 0));
        assert_eq!(start(Some(400), Some(1000)), at(1000, 600));
        assert_eq!(start(None, Some(1000)), at(1000, 999), "with `--fresh`");
        assert_eq!(start(Some(400), None), at(400, 0), "kept by an earlier version");
    }
}
