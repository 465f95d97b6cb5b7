//! One writer at a time: an advisory lock on a file beside the output.

use std::io;
use std::path::PathBuf;

use aqueduct_core::{Error, ErrorKind, FsLock, Result};

use crate::disk::Disk;
use crate::layout::Layout;

/// How often the lock file may vanish between being opened and being locked, because its holder just left.
/// More only delays an error that says something is wrong with the folder.
const MAX_TRIES: usize = 16;

/// Held until dropped; the system lets go of it when the process dies.
#[derive(Debug)]
pub(crate) struct OutputLock {
    disk: Disk,
    path: PathBuf,
    _held: Box<dyn FsLock>,
}

impl OutputLock {
    /// Takes the lock of an output, making its folder.
    ///
    /// # Errors
    /// Somebody else has it ([`ErrorKind::Conflict`]), or the file cannot be made.
    pub(crate) fn take(disk: &Disk, layout: &Layout) -> Result<Self> {
        let path = layout.lock();
        for _ in 0..MAX_TRIES {
            disk.create_durable_dir(&layout.home())?;
            match disk.0.try_lock(&path) {
                Ok(Some(held)) => return Ok(Self { disk: disk.clone(), path, _held: held }),
                Ok(None) => return Err(held(layout)),
                // Its holder has just left, and has taken the file with it, the folder maybe.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("lock output", path.display(), error)),
            }
        }
        let message = "the lock file vanishes again and again; is something else cleaning this folder?";
        Err(Error::new(ErrorKind::Io, "lock output", message).with("path", path.display()))
    }
}

/// Somebody else writes the output.
pub(crate) fn held(layout: &Layout) -> Error {
    let message = "another run is writing this output; wait for it, or choose another path";
    Error::new(ErrorKind::Conflict, "lock output", message).with("path", layout.path.display())
}

/// Whether somebody writes an output now. Leaves the lock file as it is.
///
/// # Errors
/// The file cannot be looked at.
pub(crate) fn is_held(disk: &Disk, layout: &Layout) -> Result<bool> {
    let path = layout.lock();
    if !disk.exists(&path)? {
        return Ok(false);
    }
    match disk.0.try_lock(&path) {
        Ok(lock) => Ok(lock.is_none()),
        // Its holder has just left.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("lock output", path.display(), error)),
    }
}

impl Drop for OutputLock {
    /// Removed while still locked, so that nobody ever locks a file that is no longer there.
    fn drop(&mut self) {
        if let Err(error) = self.disk.0.remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "lock file not removed");
        }
    }
}
