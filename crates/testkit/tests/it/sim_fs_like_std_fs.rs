//! The disk in memory does what the system's does: the same operations give the same results and the same tree.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aqueduct_core::{Fs, FsEntry, FsFile, FsLock, StdFs};
use aqueduct_testkit::faults::SimFs;
use proptest::prelude::*;
use proptest::sample::select;

/// A call of the seam. Paths begin at a folder of the test's own.
#[derive(Clone, Debug)]
enum Call {
    CreateNew(PathBuf),
    /// To one of the files that were made, whatever has become of its name.
    Write(usize, Vec<u8>),
    Sync(usize),
    CreateDirAll(PathBuf),
    SyncDir(PathBuf),
    RenameNoReplace(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    RemoveFile(PathBuf),
    RemoveDirAll(PathBuf),
    RemoveEmptyDir(PathBuf),
    List(PathBuf),
    Read(PathBuf, u64),
    Stat(PathBuf),
    TryLock(PathBuf),
    SetContent(usize, Vec<u8>),
    /// Lets go of one of the locks that are held.
    Unlock(usize),
}

/// Few names, so that they often meet.
fn path() -> impl Strategy<Value = PathBuf> {
    proptest::collection::vec(select(vec!["a", "b", "c"]), 1..4).prop_map(|names| names.iter().collect())
}

fn call() -> impl Strategy<Value = Call> {
    let one = |call: fn(PathBuf) -> Call| path().prop_map(call);
    let two = |call: fn(PathBuf, PathBuf) -> Call| (path(), path()).prop_map(move |(a, b)| call(a, b));
    let bytes = || proptest::collection::vec(any::<u8>(), 0..6);
    prop_oneof![
        6 => one(Call::CreateNew),
        3 => (0..8_usize, bytes()).prop_map(|(file, bytes)| Call::Write(file, bytes)),
        1 => (0..8_usize).prop_map(Call::Sync),
        6 => one(Call::CreateDirAll),
        1 => one(Call::SyncDir),
        4 => two(Call::RenameNoReplace),
        6 => two(Call::Rename),
        6 => two(Call::Exchange),
        3 => two(Call::Link),
        2 => one(Call::RemoveFile),
        1 => one(Call::RemoveDirAll),
        1 => one(Call::RemoveEmptyDir),
        2 => one(Call::List),
        2 => (path(), 0..8_u64).prop_map(|(path, max_bytes)| Call::Read(path, max_bytes)),
        2 => one(Call::Stat),
        3 => one(Call::TryLock),
        1 => (0..4_usize, bytes()).prop_map(|(lock, bytes)| Call::SetContent(lock, bytes)),
        1 => (0..4_usize).prop_map(Call::Unlock),
    ]
}

/// What a call gives, as far as it is the same everywhere: a folder's size is not.
type Outcome = Result<String, io::ErrorKind>;

/// A disk, and what a process has open on it.
struct Trial<'a> {
    fs: &'a dyn Fs,
    root: &'a Path,
    files: Vec<Box<dyn FsFile>>,
    locks: Vec<Box<dyn FsLock>>,
}

impl<'a> Trial<'a> {
    fn new(fs: &'a dyn Fs, root: &'a Path) -> Self {
        Self { fs, root, files: Vec::new(), locks: Vec::new() }
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    fn call(&mut self, call: &Call) -> Outcome {
        let outcome = match call {
            Call::CreateNew(_) | Call::Write(..) | Call::Sync(_) => self.call_file(call),
            Call::TryLock(_) | Call::SetContent(..) | Call::Unlock(_) => self.call_lock(call),
            Call::List(_) | Call::Read(..) | Call::Stat(_) => self.look(call),
            _ => self.rearrange(call).map(|()| String::new()),
        };
        outcome.map_err(|error| error.kind())
    }

    fn call_file(&mut self, call: &Call) -> io::Result<String> {
        let n_files = self.files.len().max(1);
        match call {
            Call::CreateNew(path) => self.files.push(self.fs.create_new(&self.at(path))?),
            Call::Write(nth, bytes) => {
                return self
                    .files
                    .get_mut(nth % n_files)
                    .map_or(Ok(String::new()), |file| file.write(bytes).map(|n_bytes| n_bytes.to_string()));
            }
            Call::Sync(nth) => self.files.get_mut(nth % n_files).map_or(Ok(()), |file| file.sync())?,
            _ => unreachable!("no call of a file"),
        }
        Ok(String::new())
    }

    fn call_lock(&mut self, call: &Call) -> io::Result<String> {
        let n_locks = self.locks.len().max(1);
        match call {
            Call::TryLock(path) => {
                let lock = self.fs.try_lock(&self.at(path))?;
                let told = format!("taken: {}", lock.is_some());
                self.locks.extend(lock);
                return Ok(told);
            }
            Call::SetContent(nth, bytes) => {
                self.locks.get_mut(nth % n_locks).map_or(Ok(()), |lock| lock.set_content(bytes))?;
            }
            Call::Unlock(nth) if !self.locks.is_empty() => drop(self.locks.remove(nth % n_locks)),
            _ => {}
        }
        Ok(String::new())
    }

    fn look(&self, call: &Call) -> io::Result<String> {
        let told = |entry: &FsEntry| {
            let path = entry.path.strip_prefix(self.root).unwrap().to_owned();
            (path, entry.is_dir, if entry.is_dir { 0 } else { entry.n_bytes })
        };
        Ok(match call {
            Call::List(path) => {
                format!("{:?}", self.fs.list(&self.at(path))?.iter().map(told).collect::<Vec<_>>())
            }
            Call::Read(path, max_bytes) => format!("{:?}", self.fs.read(&self.at(path), *max_bytes)?),
            Call::Stat(path) => format!("{:?}", self.fs.stat(&self.at(path))?.as_ref().map(told)),
            _ => unreachable!("no look"),
        })
    }

    fn rearrange(&self, call: &Call) -> io::Result<()> {
        match call {
            Call::CreateDirAll(path) => self.fs.create_dir_all(&self.at(path)),
            Call::SyncDir(path) => self.fs.sync_dir(&self.at(path)),
            Call::RenameNoReplace(from, to) => self.fs.rename_no_replace(&self.at(from), &self.at(to)),
            Call::Rename(from, to) => self.fs.rename(&self.at(from), &self.at(to)),
            Call::Exchange(a, b) => self.fs.exchange(&self.at(a), &self.at(b)),
            Call::Link(from, to) => self.fs.link(&self.at(from), &self.at(to)),
            Call::RemoveFile(path) => self.fs.remove_file(&self.at(path)),
            Call::RemoveDirAll(path) => self.fs.remove_dir_all(&self.at(path)),
            Call::RemoveEmptyDir(path) => self.fs.remove_empty_dir(&self.at(path)),
            _ => unreachable!("changes no names"),
        }
    }

    /// All that is there: the bytes of files, nothing for folders.
    fn tree(&self, folder: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
        for entry in self.fs.list(folder).unwrap() {
            let bytes = (!entry.is_dir).then(|| self.fs.read(&entry.path, 1 << 20).unwrap());
            if entry.is_dir {
                self.tree(&entry.path, found);
            }
            found.insert(entry.path.strip_prefix(self.root).unwrap().to_owned(), bytes);
        }
    }
}

proptest! {
    // Most of the time goes to the syncs of the real disk.
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_same_calls_give_the_same_results(calls in proptest::collection::vec(call(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let sim = SimFs::new();
        let mut real = Trial::new(&StdFs, folder.path());
        let mut simulated = Trial::new(&sim, Path::new("/"));
        for (nth, call) in calls.iter().enumerate() {
            prop_assert_eq!(real.call(call), simulated.call(call), "call {}, {:?}", nth, call);
        }
        let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
        real.tree(folder.path(), &mut expected);
        simulated.tree(Path::new("/"), &mut found);
        prop_assert_eq!(&expected, &found);

        let files = expected.iter().filter_map(|(path, bytes)| Some((path.clone(), bytes.clone()?)));
        prop_assert_eq!(sim.files_below("/"), files.collect());
        let folders = expected.iter().filter(|(_, bytes)| bytes.is_none()).map(|(path, _)| path.clone());
        prop_assert_eq!(sim.folders_below("/"), folders.collect());
        // Without a fault a crash of the process changes nothing, and after a sync neither does a loss of power.
        prop_assert_eq!(sim.reboot().files_below("/"), sim.files_below("/"));
        sim.sync();
        let left: Vec<_> = sim.power_losses(0, 100).collect();
        prop_assert_eq!(left.len(), 1);
        prop_assert_eq!(left[0].files_below("/"), sim.files_below("/"));
        prop_assert_eq!(left[0].folders_below("/"), sim.folders_below("/"));
    }
}

/// A path that has no name at its end, an empty one, a file taken for a folder.
#[test]
fn odd_paths_are_refused_alike() {
    let folder = tempfile::tempdir().unwrap();
    let sim = SimFs::new();
    for (fs, root) in [(&StdFs as &dyn Fs, folder.path()), (&sim, Path::new("/folder"))] {
        fs.create_dir_all(root).unwrap();
        fs.create_new(&root.join("file")).unwrap().write_all(b"bytes").unwrap();
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(fs.sync_dir(Path::new(""))), io::ErrorKind::NotFound);
        assert_eq!(kind(fs.create_dir_all(&root.join("file/x"))), io::ErrorKind::NotADirectory);
        assert_eq!(kind(fs.create_dir_all(&root.join("file/x/y"))), io::ErrorKind::NotADirectory);
        assert_eq!(kind(fs.create_dir_all(&root.join("file"))), io::ErrorKind::AlreadyExists);
        assert_eq!(kind(fs.read(root, 10).map(drop)), io::ErrorKind::IsADirectory);
        assert_eq!(kind(fs.read(&root.join("file"), 4).map(drop)), io::ErrorKind::FileTooLarge);
        assert_eq!(kind(fs.create_new(root).map(drop)), io::ErrorKind::AlreadyExists);
        fs.create_dir_all(Path::new("")).unwrap();
        fs.sync_dir(&root.join("file")).unwrap();
        assert_eq!(fs.stat(Path::new("")).unwrap(), None);
    }
}
