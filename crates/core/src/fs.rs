//! The seam to the disk: every durable write goes through [`Fs`], so that tests can make any of them fail.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::Objects;

/// The operations that durable writes are made of. All block; call them through
/// [`Tasks::block`](aqueduct_primitives::Tasks::block) from async code.
///
/// What is written is durable after [`FsFile::sync`] on the file *and* [`Fs::sync_dir`] on its folder.
pub trait Fs: fmt::Debug + Send + Sync {
    /// Creates a file that is not there yet, for writing.
    ///
    /// # Errors
    /// It is there already, or cannot be made.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// [`Fs::create_new`], for what holds secrets: nobody but its owner may read it, where the system knows owners.
    ///
    /// # Errors
    /// As [`Fs::create_new`].
    fn create_private(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.create_new(path)
    }
    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a folder durable.
    ///
    /// # Errors
    /// As the system says. Never retried: after a failed sync the pages may be marked clean.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Moves a file or folder to a place that is free.
    ///
    /// # Errors
    /// The place is taken ([`io::ErrorKind::AlreadyExists`]), or as the system says.
    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Moves a file over whatever file is there, in one act.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Exchanges two files or folders, in one act.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the file system cannot, or as the system says.
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()>;
    /// Gives a file a second name, unless that name is taken: the first of several writers wins.
    ///
    /// # Errors
    /// The name is taken ([`io::ErrorKind::AlreadyExists`]), or as the system says.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// As the system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and all in it; one that is not there is no error.
    ///
    /// # Errors
    /// As the system says.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder if nothing is in it; one that is not empty, or not there, is left and is no error.
    ///
    /// # Errors
    /// As the system says.
    fn remove_empty_dir(&self, path: &Path) -> io::Result<()>;
    /// The entries of a folder, by name.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, path: &Path) -> io::Result<Vec<FsEntry>>;
    /// A whole file of at most so many bytes.
    ///
    /// # Errors
    /// It is larger ([`io::ErrorKind::FileTooLarge`]), or as the system says.
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>>;
    /// Opens a file to read parts of it.
    ///
    /// # Errors
    /// As the system says.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn FsRead>>;
    /// What is there, if anything.
    ///
    /// # Errors
    /// As the system says; a path with nothing at its end is `None`.
    fn stat(&self, path: &Path) -> io::Result<Option<FsEntry>>;
    /// Takes the lock of a file, which is made if it is not there; `None` when somebody else holds it. Whoever
    /// removes the file while holding the lock leaves no stale file behind: the lock that is given is always
    /// that of the file which is at the path.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`]: there is no such folder, or its holder removed the file at this very moment,
    /// and one may try again; or as the system says.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn FsLock>>>;
    /// What more there is to do where a path is in an object store; none on a file system. There, making and syncing folders
    /// does nothing, locks keep nobody out, and what moves a file is [`io::ErrorKind::Unsupported`].
    fn objects(&self, _path: &Path) -> Option<&dyn Objects> {
        None
    }
}

/// The lock of a file, held until dropped; the system lets go of it when the process ends, however it ends.
/// It keeps out only those who ask for it.
pub trait FsLock: fmt::Debug + Send + Sync {
    /// Writes into the file, in place of what is there: who holds the lock, say. Neither atomic nor durable.
    ///
    /// # Errors
    /// As the system says.
    fn set_content(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// A file being written.
pub trait FsFile: Write + Send {
    /// Makes its bytes durable.
    ///
    /// # Errors
    /// As the system says. The file must not be used again after one.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file being read, whatever becomes of its name. Many may read it at once.
pub trait FsRead: Send + Sync {
    /// Fills the buffer with the bytes from a place on.
    ///
    /// # Errors
    /// The file ends before ([`io::ErrorKind::UnexpectedEof`]), or as the system says.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsEntry {
    /// Where.
    pub path: PathBuf,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// How many bytes; of a folder, nothing useful.
    pub n_bytes: u64,
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdFs;

impl FsFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl FsRead for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl FsLock for File {
    fn set_content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.set_len(0)?;
        self.rewind()?;
        self.write_all(bytes)
    }
}

impl Fs for StdFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn create_private(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(|error| match error {
            rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS => io::ErrorKind::Unsupported.into(),
            other => other.into(),
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        no_error_when_gone(std::fs::remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        no_error_when_gone(std::fs::remove_dir_all(path))
    }

    fn remove_empty_dir(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => no_error_when_gone(other),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FsEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            entries.push(FsEntry { path: entry.path(), is_dir: meta.is_dir(), n_bytes: meta.len() });
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn FsRead>> {
        Ok(Box::new(File::open(path)?))
    }

    fn stat(&self, path: &Path) -> io::Result<Option<FsEntry>> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) => {
                Ok(Some(FsEntry { path: path.to_owned(), is_dir: meta.is_dir(), n_bytes: meta.len() }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn FsLock>>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path)? => Ok(Some(Box::new(file))),
            Ok(()) => Err(io::ErrorKind::NotFound.into()),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Whether an open file is still the one at its path: its name may be gone, or that of another file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (mine, there) = (file.metadata()?, std::fs::metadata(path)?);
    Ok((mine.dev(), mine.ino()) == (there.dev(), there.ino()))
}

fn no_error_when_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
