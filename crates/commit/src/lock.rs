//! One writer at a time: an advisory lock on a file beside the output.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aqueduct_core::{Error, ErrorKind, Result};

/// How often the lock file may vanish between being opened and being locked, because its holder just left.
/// More only delays an error that says something is wrong with the folder.
const MAX_TRIES: usize = 16;

/// Held until dropped; the system lets go of it when the process dies.
#[derive(Debug)]
pub(crate) struct OutputLock {
    path: PathBuf,
    _file: File,
}

impl OutputLock {
    /// Takes the lock, making its folder.
    ///
    /// # Errors
    /// Somebody else has it ([`ErrorKind::Conflict`]), or the file cannot be made.
    pub(crate) fn take(path: &Path, output: &Path, make_folder: impl Fn() -> Result<()>) -> Result<Self> {
        for _ in 0..MAX_TRIES {
            make_folder()?;
            if let Some(file) = try_take(path, output)? {
                return Ok(Self { path: path.to_owned(), _file: file });
            }
        }
        let message = "the lock file vanishes again and again; is something else cleaning this folder?";
        Err(Error::new(ErrorKind::Io, "lock output", message).with("path", path.display()))
    }
}

impl Drop for OutputLock {
    /// Removed while still locked, so that nobody ever locks a file that is no longer there.
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "lock file not removed");
        }
    }
}

fn try_take(path: &Path, output: &Path) -> Result<Option<File>> {
    let failed = |error| Error::io("lock output", path.display(), error);
    let file = match OpenOptions::new().create(true).truncate(false).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let message = "another run is writing this output; wait for it, or choose another path";
            return Err(
                Error::new(ErrorKind::Conflict, "lock output", message).with("path", output.display())
            );
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    Ok(is_still_there(&file, path).then_some(file))
}

fn is_still_there(file: &File, path: &Path) -> bool {
    let (Ok(mine), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (mine.dev(), mine.ino()) == (there.dev(), there.ino())
}
