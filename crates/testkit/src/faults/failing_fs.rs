//! A disk that fails at a change of one's choice.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use aqueduct_core::{Fs, FsEntry, FsFile, FsLock, FsRead, StdFs};

/// The operating system's disk, with changes that fail: all from one on, as a crash does; one alone, as a bad
/// moment does; or every write of bytes, as a full disk does.
///
/// A *change* is a call that writes, syncs, makes, locks, moves or removes something. They are counted from 0 in
/// the order in which they come. A change that fails leaves the disk as it was. Reading always works.
///
/// ```
/// use aqueduct_core::Fs;
/// use aqueduct_testkit::faults::FailingFs;
///
/// let folder = tempfile::tempdir()?;
/// let fs = FailingFs::dead_after(1);
/// let mut file = fs.create_new(&folder.path().join("a"))?;
/// assert!(file.sync().is_err(), "the second change and all after it fail");
/// assert_eq!(fs.n_changes(), 2);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct FailingFs {
    script: Arc<Script>,
    can_exchange: bool,
}

#[derive(Debug)]
struct Script {
    n_changes: AtomicU64,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Never,
    After(u64),
    Only(u64),
    Writes,
}

impl FailingFs {
    /// Never fails; counts only. How many changes there are says how many can be made to fail.
    pub fn counting() -> Self {
        Self::with(Fault::Never)
    }

    /// The first `n_good` changes work, and none after them.
    pub fn dead_after(n_good: u64) -> Self {
        Self::with(Fault::After(n_good))
    }

    /// The change after the first `n_good` fails, alone.
    pub fn fails_once_after(n_good: u64) -> Self {
        Self::with(Fault::Only(n_good))
    }

    /// Files can be made, and no byte can be written into them: [`io::ErrorKind::StorageFull`].
    pub fn full() -> Self {
        Self::with(Fault::Writes)
    }

    fn with(fault: Fault) -> Self {
        let script = Arc::new(Script { n_changes: AtomicU64::new(0), fault });
        Self { script, can_exchange: true }
    }

    /// A file system that cannot exchange two names in one act.
    #[must_use]
    pub fn without_exchange(self) -> Self {
        Self { can_exchange: false, ..self }
    }

    /// How many changes were asked for so far, those that failed among them.
    pub fn n_changes(&self) -> u64 {
        self.script.n_changes.load(SeqCst)
    }
}

impl Script {
    fn change(&self) -> io::Result<()> {
        let nth = self.n_changes.fetch_add(1, SeqCst);
        let fails = match self.fault {
            Fault::Never | Fault::Writes => false,
            Fault::After(n_good) => nth >= n_good,
            Fault::Only(n_good) => nth == n_good,
        };
        if fails { Err(io::Error::other("the disk is gone")) } else { Ok(()) }
    }

    fn write(&self) -> io::Result<()> {
        self.change()?;
        if matches!(self.fault, Fault::Writes) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

struct FailingFile(Box<dyn FsFile>, Arc<Script>);

impl Write for FailingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.write()?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl FsFile for FailingFile {
    fn sync(&mut self) -> io::Result<()> {
        self.1.change()?;
        self.0.sync()
    }
}

#[derive(Debug)]
struct FailingLock(Box<dyn FsLock>, Arc<Script>);

impl FsLock for FailingLock {
    fn set_content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.1.write()?;
        self.0.set_content(bytes)
    }
}

impl Fs for FailingFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.script.change()?;
        Ok(Box::new(FailingFile(StdFs.create_new(path)?, Arc::clone(&self.script))))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.script.change()?;
        StdFs.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.script.change()?;
        StdFs.sync_dir(path)
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.script.change()?;
        StdFs.rename_no_replace(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.script.change()?;
        StdFs.rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        if !self.can_exchange {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.script.change()?;
        StdFs.exchange(a, b)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.script.change()?;
        StdFs.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.script.change()?;
        StdFs.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.script.change()?;
        StdFs.remove_dir_all(path)
    }

    fn remove_empty_dir(&self, path: &Path) -> io::Result<()> {
        self.script.change()?;
        StdFs.remove_empty_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FsEntry>> {
        StdFs.list(path)
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        StdFs.read(path, max_bytes)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn FsRead>> {
        StdFs.open_read(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<FsEntry>> {
        StdFs.stat(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn FsLock>>> {
        self.script.change()?;
        let lock = StdFs.try_lock(path)?;
        Ok(lock.map(|lock| Box::new(FailingLock(lock, Arc::clone(&self.script))) as Box<dyn FsLock>))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of three changes work: make a file, write to it, remove it.
    fn working(fs: &FailingFs) -> [bool; 3] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let file = fs.create_new(&path);
        let is_made = file.is_ok();
        let mut file =
            file.unwrap_or_else(|_| Box::new(FailingFile(fallback(&path), Arc::clone(&fs.script))));
        [is_made, file.write(b"x").is_ok(), fs.remove_file(&path).is_ok()]
    }

    fn fallback(path: &Path) -> Box<dyn FsFile> {
        StdFs.create_new(path).unwrap()
    }

    #[test]
    fn each_fault_fails_where_it_says() {
        assert_eq!(working(&FailingFs::counting()), [true; 3]);
        assert_eq!(working(&FailingFs::dead_after(1)), [true, false, false]);
        assert_eq!(working(&FailingFs::fails_once_after(0)), [false, true, true]);
        assert_eq!(working(&FailingFs::fails_once_after(1)), [true, false, true]);
        assert_eq!(working(&FailingFs::full()), [true, false, true]);
    }

    #[test]
    fn a_lock_is_taken_by_a_change_and_written_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert!(FailingFs::dead_after(0).try_lock(&path).is_err());
        assert!(!path.exists());
        let fs = FailingFs::full();
        let mut lock = fs.try_lock(&path).unwrap().unwrap();
        assert!(lock.set_content(b"x").is_err());
        assert!(FailingFs::counting().try_lock(&path).unwrap().is_none());
        assert_eq!(fs.n_changes(), 2);
    }

    #[test]
    fn changes_are_counted_and_looks_are_not() {
        let fs = FailingFs::counting();
        working(&fs);
        fs.stat(Path::new("/")).unwrap();
        assert_eq!(fs.n_changes(), 3);
        let error = FailingFs::counting().without_exchange().exchange(Path::new("a"), Path::new("b"));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
