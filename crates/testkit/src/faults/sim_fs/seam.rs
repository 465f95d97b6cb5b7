//! [`SimFs`] behind the seam.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aqueduct_core::{Fs, FsEntry, FsFile, FsLock, FsRead, Objects, is_in_store};

use super::disk::Disk;
use super::machine::{Extent, LockId};
use super::tree::{Inode, Tree};
use super::{SimFs, operations};

impl SimFs {
    /// An operation that only changes names.
    fn rearrange(
        &self,
        text: std::fmt::Arguments<'_>,
        changes: impl FnOnce(&Tree) -> operations::Changes,
    ) -> io::Result<()> {
        self.machine().operate(self.process, text, |machine, extent| {
            let changes = changes(&machine.disk.live)?;
            machine.apply(changes, extent);
            Ok(())
        })
    }
}

impl Fs for SimFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        if is_in_store(path) {
            return Ok(self.create_object(path));
        }
        let node = self.machine().operate(
            self.process,
            format_args!("create_new {}", path.display()),
            |machine, _| machine.create_file(path),
        )?;
        Ok(Box::new(SimFile { fs: self.clone(), path: path.to_owned(), node, position: 0, is_lost: false }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if is_in_store(path) {
            return Ok(());
        }
        let text = format_args!("create_dir_all {}", path.display());
        self.machine().operate(self.process, text, |machine, extent| machine.create_dir_all(path, extent))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if is_in_store(path) {
            return Ok(());
        }
        let text = format_args!("sync_dir {}", path.display());
        self.machine().operate(self.process, text, |machine, _| {
            let node = machine.disk.live.find(path)?;
            // A system that is given the path of a file syncs that.
            match machine.disk.live.is_folder(node) {
                true => machine.disk.sync_folder(node),
                false => machine.disk.sync_file(node),
            }
            Ok(())
        })
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let text = format_args!("rename_no_replace {} -> {}", from.display(), to.display());
        self.rearrange(text, |tree| operations::rename_no_replace(tree, from, to))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let text = format_args!("rename {} -> {}", from.display(), to.display());
        self.rearrange(text, |tree| operations::rename(tree, from, to))
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        if !self.machine().can_exchange(self.process)? {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let text = format_args!("exchange {} <-> {}", a.display(), b.display());
        self.rearrange(text, |tree| operations::exchange(tree, a, b))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let text = format_args!("link {} -> {}", from.display(), to.display());
        self.rearrange(text, |tree| operations::link(tree, from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if is_in_store(path) {
            return self.remove_objects(path, false);
        }
        let text = format_args!("remove_file {}", path.display());
        self.rearrange(text, |tree| operations::remove_file(tree, path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        if is_in_store(path) {
            return self.remove_objects(path, true);
        }
        let text = format_args!("remove_dir_all {}", path.display());
        self.rearrange(text, |tree| operations::remove_dir_all(tree, path))
    }

    fn remove_empty_dir(&self, path: &Path) -> io::Result<()> {
        if is_in_store(path) {
            return Ok(());
        }
        let text = format_args!("remove_empty_dir {}", path.display());
        self.rearrange(text, |tree| operations::remove_empty_dir(tree, path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FsEntry>> {
        if is_in_store(path) {
            return self.look_at_store("list", path, |store| Ok(store.list(path)));
        }
        let text = format_args!("list {}", path.display());
        self.machine().look(self.process, text, |disk| {
            let entries = disk.live.entries(disk.live.find(path)?)?;
            Ok(entries.iter().map(|(name, node)| entry(disk, path.join(name), *node)).collect())
        })
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        if is_in_store(path) {
            return self.look_at_store("read", path, |store| store.read(path, max_bytes));
        }
        let text = format_args!("read {}", path.display());
        self.machine().look(self.process, text, |disk| {
            let file = disk.files.get(&disk.live.find(path)?).ok_or(io::ErrorKind::IsADirectory)?;
            match file.live.len() as u64 > max_bytes {
                true => Err(io::ErrorKind::FileTooLarge.into()),
                false => Ok(file.live.to_vec()),
            }
        })
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn FsRead>> {
        if is_in_store(path) {
            return self.open_object(path);
        }
        let text = format_args!("open_read {}", path.display());
        let node = self.machine().look(self.process, text, |disk| {
            let node = disk.live.find(path)?;
            if disk.files.contains_key(&node) { Ok(node) } else { Err(io::ErrorKind::IsADirectory.into()) }
        })?;
        Ok(Box::new(SimRead { fs: self.clone(), path: path.to_owned(), node }))
    }

    fn stat(&self, path: &Path) -> io::Result<Option<FsEntry>> {
        if is_in_store(path) {
            return self.look_at_store("stat", path, |store| Ok(store.stat(path)));
        }
        let text = format_args!("stat {}", path.display());
        self.machine().look(self.process, text, |disk| match disk.live.find(path) {
            Ok(node) => Ok(Some(entry(disk, path.to_owned(), node))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn objects(&self, path: &Path) -> Option<&dyn Objects> {
        is_in_store(path).then_some(self)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn FsLock>>> {
        let text = format_args!("try_lock {}", path.display());
        let taken =
            self.machine().operate(self.process, text, |machine, _| machine.try_lock(self.process, path))?;
        Ok(taken.map(|(node, lock)| {
            Box::new(SimLock { fs: self.clone(), path: path.to_owned(), node, lock }) as Box<dyn FsLock>
        }))
    }
}

fn entry(disk: &Disk, path: PathBuf, node: Inode) -> FsEntry {
    let file = disk.files.get(&node);
    FsEntry { path, is_dir: file.is_none(), n_bytes: file.map_or(0, |file| file.live.len() as u64) }
}

/// An open file: the file itself, whatever becomes of its name.
struct SimFile {
    fs: SimFs,
    path: PathBuf,
    node: Inode,
    /// Where the next bytes go.
    position: usize,
    /// A sync has failed, so what was written never becomes durable.
    is_lost: bool,
}

impl Write for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = format_args!("write {} ({} bytes)", self.path.display(), bytes.len());
        let n_bytes = self.fs.machine().operate(self.fs.process, text, |machine, extent| {
            Ok(machine.write_at(self.node, self.position, bytes, extent))
        })?;
        self.position += n_bytes;
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.fs.machine().living(self.fs.process).map(drop)
    }
}

impl FsFile for SimFile {
    fn sync(&mut self) -> io::Result<()> {
        let text = format_args!("sync {}", self.path.display());
        let synced = self.fs.machine().operate(self.fs.process, text, |machine, _| {
            if !self.is_lost {
                machine.disk.sync_file(self.node);
            }
            Ok(())
        });
        self.is_lost |= synced.is_err();
        synced
    }
}

/// A file that is open for reading, whatever becomes of its name.
struct SimRead {
    fs: SimFs,
    path: PathBuf,
    node: Inode,
}

impl FsRead for SimRead {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let text = format_args!("read {} ({} bytes at {offset})", self.path.display(), buffer.len());
        self.fs.machine().look(self.fs.process, text, |disk| {
            let content = disk.files.get(&self.node).map(|file| file.live.as_slice()).unwrap_or_default();
            let rest = usize::try_from(offset).ok().and_then(|from| content.get(from..));
            let wanted =
                rest.and_then(|rest| rest.get(..buffer.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(wanted);
            Ok(())
        })
    }
}

/// A lock that is held, unless its process was killed.
#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    path: PathBuf,
    node: Inode,
    lock: LockId,
}

impl FsLock for SimLock {
    fn set_content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let text = format_args!("set_content {} ({} bytes)", self.path.display(), bytes.len());
        self.fs.machine().operate(self.fs.process, text, |machine, extent: Extent| {
            machine.rewrite(self.node, bytes, extent);
            Ok(())
        })
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.fs.machine().unlock(self.node, self.lock);
    }
}
