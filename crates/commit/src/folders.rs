//! Many folders made durable: side by side, because a disk confirms many at once as fast as one.

use std::path::{Path, PathBuf};

use aqueduct_core::{Error, Result};

use crate::disk::Disk;

/// Folders that wait for their turn together. More take memory, fewer leave the disk waiting.
const MAX_WAITING: usize = 1024;
/// Folders synced at once. Eight make it ten times as fast as one after the other; more, hardly faster.
const N_THREADS: usize = 8;
/// Fewer folders than this are synced sooner than threads are started.
const MIN_FOR_THREADS: usize = 32;

/// The folders below a root that have changed.
pub(crate) struct Folders<'a> {
    disk: &'a Disk,
    root: &'a Path,
    waiting: Vec<PathBuf>,
}

impl<'a> Folders<'a> {
    pub(crate) fn below(disk: &'a Disk, root: &'a Path) -> Self {
        Self { disk, root, waiting: Vec::new() }
    }

    /// A folder to which nothing will be added any more; those above it, up to the root, have changed, too.
    pub(crate) fn add(&mut self, folder: &Path) -> Result<()> {
        let above = folder.ancestors().take_while(|above| *above != self.root);
        self.waiting.extend(above.map(Path::to_owned));
        if self.waiting.len() < MAX_WAITING { Ok(()) } else { self.sync_waiting() }
    }

    /// Makes all of them durable, the root last.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.sync_waiting()?;
        self.disk.sync_dir(self.root)
    }

    fn sync_waiting(&mut self) -> Result<()> {
        let mut folders = std::mem::take(&mut self.waiting);
        folders.sort();
        folders.dedup();
        let sync = |folders: &[PathBuf]| folders.iter().try_for_each(|folder| self.disk.sync_dir(folder));
        if folders.len() < MIN_FOR_THREADS {
            return sync(&folders);
        }
        std::thread::scope(|scope| {
            let chunks = folders.chunks(folders.len().div_ceil(N_THREADS));
            let threads: Vec<_> = chunks.map(|chunk| scope.spawn(move || sync(chunk))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                thread.join().unwrap_or_else(|_| Err(Error::bug("sync folder", "a thread panicked")))
            };
            // All are joined before the first error counts.
            threads.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
        })
    }
}
