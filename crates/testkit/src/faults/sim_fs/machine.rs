//! A disk with the processes that are at work on it: their operations one by one, their faults, their locks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;

use super::disk::Disk;
use super::operations::{free_place, missing_folders};
use super::tree::{Change, Inode};
use super::{Fault, SimFs};

/// How much of an operation is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    Half,
}

pub(super) type ProcessId = usize;
pub(super) type Watcher = Box<dyn Fn(&SimFs) + Send + Sync>;

pub(super) struct Machine {
    pub(super) disk: Disk,
    processes: Vec<Process>,
    /// Which files are locked, by whom.
    locks: BTreeMap<Inode, LockId>,
    n_locks: u64,
    watchers: Vec<Watcher>,
}

/// A process and its script.
#[derive(Default)]
pub(super) struct Process {
    pub(super) n_operations: u64,
    pub(super) n_reads: u64,
    pub(super) faults: BTreeMap<u64, Fault>,
    pub(super) read_errors: BTreeSet<u64>,
    pub(super) is_killed: bool,
}

/// One taking of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LockId {
    process: ProcessId,
    nth: u64,
}

impl Machine {
    /// One process, number 0, on this disk.
    pub(super) fn booted(disk: Disk) -> Self {
        let processes = vec![Process::default()];
        Self { disk, processes, locks: BTreeMap::new(), n_locks: 0, watchers: Vec::new() }
    }

    pub(super) fn start_process(&mut self) -> ProcessId {
        self.processes.push(Process::default());
        self.processes.len() - 1
    }

    pub(super) fn process(&self, process: ProcessId) -> &Process {
        &self.processes[process]
    }

    pub(super) fn process_mut(&mut self, process: ProcessId) -> &mut Process {
        &mut self.processes[process]
    }

    pub(super) fn add_watcher(&mut self, watcher: Watcher) {
        self.watchers.push(watcher);
    }

    /// The next operation of a process, unless its script says something else.
    pub(super) fn operate<T>(
        &mut self,
        process: ProcessId,
        text: fmt::Arguments<'_>,
        act: impl FnOnce(&mut Self, Extent) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(fault) = self.begin(process, text)? else {
            return act(self, Extent::Whole).inspect_err(|error| self.disk.note(error));
        };
        self.disk.note(&format_args!("{fault:?}"));
        if let Some(error) = fault.error() {
            if fault == Fault::ReplyLost {
                let _ = act(self, Extent::Whole);
            }
            return Err(error);
        }
        // Whether it worked, a dead process is not told.
        let _ = match fault {
            Fault::KillBefore => None,
            Fault::ShortWrite => Some(act(self, Extent::Half)),
            _ => Some(act(self, Extent::Whole)),
        };
        self.kill(process, fault);
        Err(killed())
    }

    /// Counts an operation and writes it down. Which fault it meets.
    fn begin(&mut self, process: ProcessId, text: fmt::Arguments<'_>) -> io::Result<Option<Fault>> {
        let state = self.living(process)?;
        let nth = state.n_operations;
        state.n_operations += 1;
        let fault = state.faults.get(&nth).copied();
        self.disk.log.push(match process {
            0 => format!("{nth} {text}"),
            _ => format!("process {process}: {nth} {text}"),
        });
        Ok(fault)
    }

    /// The next look of a process at the disk.
    pub(super) fn look<T>(
        &mut self,
        process: ProcessId,
        text: fmt::Arguments<'_>,
        look: impl FnOnce(&Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        let state = self.living(process)?;
        let nth = state.n_reads;
        state.n_reads += 1;
        let fault = state.read_errors.contains(&nth).then_some(Fault::EIO);
        let Some(error) = fault.and_then(Fault::error) else { return look(&self.disk) };
        self.disk.log.push(format!("read {nth} {text}: {error}"));
        Err(error)
    }

    /// A process that has not been killed.
    pub(super) fn living(&mut self, process: ProcessId) -> io::Result<&mut Process> {
        let state = self.process_mut(process);
        if state.is_killed { Err(killed()) } else { Ok(state) }
    }

    /// Whether a process can exchange two names, which is a matter of the disk.
    pub(super) fn can_exchange(&mut self, process: ProcessId) -> io::Result<bool> {
        self.living(process)?;
        Ok(self.disk.can_exchange)
    }

    fn kill(&mut self, process: ProcessId, fault: Fault) {
        let dies = |other| other == process || fault == Fault::PowerLoss;
        for (other, state) in self.processes.iter_mut().enumerate() {
            state.is_killed |= dies(other);
        }
        self.locks.retain(|_, lock| !dies(lock.process));
    }

    /// Does one change after the other.
    pub(super) fn apply(&mut self, changes: Vec<Change>, extent: Extent) {
        let n_steps = extent.of_steps(changes.len());
        for change in changes.into_iter().take(n_steps) {
            self.step(|disk| disk.apply(change));
        }
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Inode> {
        let place = free_place(&self.disk.live, path)?;
        let node = self.disk.new_file(path);
        self.step(|disk| disk.apply(Change::add(place, node)));
        Ok(node)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path, extent: Extent) -> io::Result<()> {
        let missing = missing_folders(&self.disk.live, path)?;
        for folder in missing.iter().take(extent.of_steps(missing.len())) {
            let place = free_place(&self.disk.live, folder)?;
            let node = self.disk.new_folder();
            self.step(|disk| disk.apply(Change::add(place, node)));
        }
        Ok(())
    }

    /// How many bytes were written.
    pub(super) fn write_at(&mut self, file: Inode, position: usize, bytes: &[u8], extent: Extent) -> usize {
        let n_bytes = if extent == Extent::Half { bytes.len() / 2 } else { bytes.len() };
        self.step(|disk| disk.write_at(file, position, &bytes[..n_bytes]));
        n_bytes
    }

    pub(super) fn rewrite(&mut self, file: Inode, bytes: &[u8], extent: Extent) {
        self.step(|disk| disk.truncate(file));
        self.write_at(file, 0, bytes, extent);
    }

    /// The lock of a file, which is made if it is not there; none, if somebody has it.
    pub(super) fn try_lock(
        &mut self,
        process: ProcessId,
        path: &Path,
    ) -> io::Result<Option<(Inode, LockId)>> {
        let place = self.disk.live.place(path)?;
        let file = match self.disk.live.at(&place) {
            Some(node) if self.disk.live.is_folder(node) => return Err(io::ErrorKind::IsADirectory.into()),
            Some(node) => node,
            None => self.create_file(path)?,
        };
        if self.locks.contains_key(&file) {
            self.disk.note(&"somebody else holds it");
            return Ok(None);
        }
        self.n_locks += 1;
        let lock = LockId { process, nth: self.n_locks };
        self.locks.insert(file, lock);
        Ok(Some((file, lock)))
    }

    /// Lets go of a lock, unless its holder has died and somebody else has taken it.
    pub(super) fn unlock(&mut self, file: Inode, lock: LockId) {
        if self.locks.get(&file) == Some(&lock) {
            self.locks.remove(&file);
        }
    }

    /// Everything that changes what is seen on the disk comes through here, one atomic step at a time.
    pub(super) fn step(&mut self, change: impl FnOnce(&mut Disk)) {
        change(&mut self.disk);
        for watcher in &self.watchers {
            watcher(&SimFs::booted(self.disk.clone()));
        }
    }
}

impl Extent {
    fn of_steps(self, n_steps: usize) -> usize {
        if self == Self::Half { n_steps.div_ceil(2) } else { n_steps }
    }
}

/// What a dead process is told, so to say.
fn killed() -> io::Error {
    io::Error::other("the process was killed")
}
