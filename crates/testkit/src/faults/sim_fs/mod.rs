//! A disk in memory that can be crashed at any operation, and then loses what was not durable.

mod disk;
mod fault;
mod machine;
mod operations;
mod power_loss;
mod seam;
mod store;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_core::is_in_store;
use disk::Disk;
pub use fault::Fault;
use machine::{Machine, ProcessId};

/// A disk in memory, for tests that crash a program at every one of its operations.
///
/// It does what [`StdFs`](aqueduct_core::StdFs) does, with the same kinds of errors, and knows which of it is
/// durable. A value is one process at work on the disk; its clones are the same process.
///
/// **Operations** are the calls that change something or could: all of [`Fs`](aqueduct_core::Fs) but `list`,
/// `read`, `open_read` and `stat`, and every write, sync and `set_content` of an open file or lock. A process's operations are
/// numbered from 0, those that are refused among them, in the order in which they come, which is always the same
/// only if one thread makes them. A [`Fault`] strikes at a number. After a deadly one every call of the process
/// fails and changes nothing, and its locks are gone.
///
/// **Durable** are the bytes of a file as of its last sync, and the entries of a folder as of its last
/// `sync_dir`, each for itself: a synced file can lose its name, and a name that is safe can be that of an empty
/// file. Renaming, linking and exchanging are each one act, durable as soon as one of its folders is synced.
/// [`SimFs::reboot`] is what a killed process leaves, [`SimFs::power_losses`] what a loss of power may leave.
///
/// **In an object store** is every path that is a URL: see [`Objects`](aqueduct_core::Objects). What is done there is durable at
/// once, and [`Fault::ReplyLost`] does it and does not say so.
///
/// Paths begin at the root, with a leading `/` or without. `..` is refused; there are no symbolic links.
///
/// ```
/// use std::io::Write;
/// use std::path::Path;
///
/// use aqueduct_core::Fs;
/// use aqueduct_testkit::faults::{Fault, SimFs};
///
/// let [next, greeting] = ["next", "greeting"].map(Path::new);
/// let publish = |fs: &SimFs, text: &[u8]| {
///     fs.remove_file(next)?;
///     let mut file = fs.create_new(next)?;
///     file.write_all(text)?;
///     file.sync()?;
///     fs.rename(next, greeting)?;
///     fs.sync_dir(Path::new("/"))
/// };
///
/// let disk = SimFs::new();
/// publish(&disk, b"old")?;
/// let unharmed = disk.reboot();
/// publish(&unharmed, b"new")?;
/// for nth in 0..unharmed.n_operations() {
///     let fs = disk.reboot().with_fault(nth, Fault::PowerLoss);
///     assert!(publish(&fs, b"new").is_err());
///     for after in fs.power_losses(1, 100) {
///         let seen = after.read(greeting, 10)?;
///         assert!(seen == b"old" || seen == b"new", "{:#?}", after.names());
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct SimFs {
    machine: Arc<Mutex<Machine>>,
    process: ProcessId,
}

impl SimFs {
    /// An empty disk, on which nothing goes wrong.
    pub fn new() -> Self {
        Self::booted(Disk::new())
    }

    fn booted(disk: Disk) -> Self {
        Self { machine: Arc::new(Mutex::new(Machine::booted(disk))), process: 0 }
    }

    /// Something goes wrong at this process's operation of this number. May be called for several.
    #[must_use]
    pub fn with_fault(self, nth_operation: u64, fault: Fault) -> Self {
        self.machine().process_mut(self.process).faults.insert(nth_operation, fault);
        self
    }

    /// This process's `list`, `read`, `open_read`, `stat` or read of an open file of this number, counted from 0, fails with [`Fault::EIO`]. May be
    /// called for several.
    #[must_use]
    pub fn with_read_error(self, nth_read: u64) -> Self {
        self.machine().process_mut(self.process).read_errors.insert(nth_read);
        self
    }

    /// A disk that cannot exchange two names in one act. What asks for it is no operation.
    #[must_use]
    pub fn without_exchange(self) -> Self {
        self.machine().disk.can_exchange = false;
        self
    }

    /// Another process on the same disk, with faults, numbers and locks of its own.
    #[must_use]
    pub fn another_process(&self) -> Self {
        let process = self.machine().start_process();
        Self { machine: Arc::clone(&self.machine), process }
    }

    /// Shows every state of the disk that anybody could see to a watcher, at once: after each step of each
    /// operation of any process, with a copy of the disk, to do with as it likes. It must not use the `SimFs` that
    /// it watches, which waits for it.
    pub fn watch(&self, watcher: impl Fn(&Self) + Send + Sync + 'static) {
        self.machine().add_watcher(Box::new(watcher));
    }

    /// Makes all that was done durable, as the command `sync` does. No operation.
    pub fn sync(&self) {
        self.machine().disk.sync_all();
    }

    /// A copy of the disk as it is when all processes are gone, with a new one: all that was done is there, and
    /// what was not durable still is not. Nobody watches it.
    #[must_use]
    pub fn reboot(&self) -> Self {
        let mut disk = self.machine().disk.clone();
        disk.log.push("reboot".to_owned());
        Self::booted(disk)
    }

    /// What may be left if the power goes now, each with a new process: up to `max_disks` distinct disks, the same
    /// for the same seed.
    ///
    /// First those where nothing is left but what was durable, everything is left, or all names and no unsynced
    /// byte; then those where a single change of names is lost, or a single one is left, or the first so many;
    /// then any. Each change is lost for itself: one that builds on a lost one still gives its file or folder the
    /// name that it says. A folder has one name, the latest. What no path leads to is gone. Of a file that was not
    /// synced there may be what was, any more of its bytes from the beginning on, or zeroes in their place.
    pub fn power_losses(&self, seed: u64, max_disks: usize) -> impl Iterator<Item = Self> + use<> {
        let disk = self.machine().disk.clone();
        power_loss::after_power_loss(disk, seed).take(max_disks).map(Self::booted)
    }

    /// How many operations this process has begun, a deadly one among them.
    pub fn n_operations(&self) -> u64 {
        self.machine().process(self.process).n_operations
    }

    /// How many times this process has looked at the disk.
    pub fn n_reads(&self) -> u64 {
        self.machine().process(self.process).n_reads
    }

    /// Whether a fault has killed this process.
    pub fn is_killed(&self) -> bool {
        self.machine().process(self.process).is_killed
    }

    /// All operations on this disk since it was new, crashes among them, for messages: `17 rename a -> b`, or
    /// `process 1: 17 rename a -> b`, then what went wrong. After a loss of power, what was lost.
    pub fn names(&self) -> Vec<String> {
        self.machine().disk.log.clone()
    }

    /// The files below a folder, by their paths from there; a file itself has the empty path. Of a path with
    /// nothing at its end, none. Neither counted nor ever refused, because it is not the process that looks.
    pub fn files_below(&self, path: impl AsRef<Path>) -> BTreeMap<PathBuf, Vec<u8>> {
        let machine = self.machine();
        if is_in_store(path.as_ref()) {
            let (below, own) =
                (machine.disk.store.below(path.as_ref()), machine.disk.store.read(path.as_ref(), u64::MAX));
            let below = below.map(|(rest, object)| (rest.into(), object.bytes.to_vec()));
            return below.chain(own.ok().map(|bytes| (PathBuf::new(), bytes))).collect();
        }
        let Ok(node) = machine.disk.live.find(path.as_ref()) else { return BTreeMap::new() };
        let contents = machine.disk.contents(node);
        contents.filter_map(|(path, bytes)| Some((path, bytes?.to_vec()))).collect()
    }

    /// The folders below a folder, by their paths from there, as [`SimFs::files_below`] its files.
    pub fn folders_below(&self, path: impl AsRef<Path>) -> BTreeSet<PathBuf> {
        let machine = self.machine();
        let Ok(node) = machine.disk.live.find(path.as_ref()) else { return BTreeSet::new() };
        let contents = machine.disk.contents(node).skip(1);
        contents.filter_map(|(path, bytes)| bytes.is_none().then_some(path)).collect()
    }

    /// A watcher that panics, as one does that finds something wrong, leaves a disk that can still be told of.
    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimFs {
    /// Without the disk, which would fill pages, and may be locked by whoever prints this.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs").field("process", &self.process).finish_non_exhaustive()
    }
}
