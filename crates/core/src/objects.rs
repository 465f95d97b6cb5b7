//! The seam to an object store, for what cannot be said in the terms of files: an [`Fs`](crate::Fs) that reaches one has it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::FsEntry;

/// What paths in an object store begin with.
const SCHEMES: [&str; 4] = ["s3://", "gs://", "az://", "memory://"];

/// Whether a path is the URL of an object or a prefix: `s3://bucket/key`.
///
/// ```
/// use std::path::Path;
///
/// assert!(aqueduct_core::is_in_store(Path::new("s3://lake/events")));
/// assert!(!aqueduct_core::is_in_store(Path::new("/lake/events")));
/// ```
pub fn is_in_store(path: &Path) -> bool {
    path.to_str().is_some_and(|path| SCHEMES.iter().any(|scheme| path.starts_with(scheme)))
}

/// A path as a flow names it: a URL of an object store is itself, all else starts from the folder.
pub fn resolve_path(base_dir: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    if is_in_store(path) { path.to_owned() } else { base_dir.join(path) }
}

/// What an object store does that a file system does not. All block, as [`Fs`](crate::Fs) does.
///
/// An object appears whole or not at all, and is durable when it does. There are no folders and nothing is moved. A call that
/// fails with anything but the errors that are named may have been carried out all the same: whoever must know reads back.
pub trait Objects: fmt::Debug + Send + Sync {
    /// Sends a file of this machine to the place of an object, where it does not appear before [`Objects::complete`].
    ///
    /// Costs the memory of a few pieces, however large the file is.
    ///
    /// # Errors
    /// The file cannot be read, or as the store says.
    fn upload(&self, from: &Path, to: &Path) -> io::Result<Upload>;

    /// Lets what was uploaded appear, in the place of whatever object is there.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`]: there is no such upload. It was completed or aborted, or the store has dropped it. Else as
    /// the store says.
    fn complete(&self, to: &Path, upload: &Upload) -> io::Result<()>;

    /// Drops what was uploaded and did not appear; an upload that is not there is no error.
    ///
    /// # Errors
    /// As the store says.
    fn abort(&self, to: &Path, upload: &Upload) -> io::Result<()>;

    /// A whole object of at most so many bytes, and which version of it that is; nothing, where there is none.
    ///
    /// # Errors
    /// It is larger ([`io::ErrorKind::FileTooLarge`]), or as the store says.
    fn read_version(&self, path: &Path, max_bytes: u64) -> io::Result<Option<(Vec<u8>, Version)>>;

    /// Writes an object whole in the place of one version of it, or, without one, where there is none: of several writers the
    /// first wins.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`]: another version is there, this writer's own maybe, when a reply was lost. Else as the
    /// store says.
    fn put_over(&self, path: &Path, bytes: &[u8], over: Option<&Version>) -> io::Result<()>;

    /// Every object whose path continues that of a folder, one after the other.
    ///
    /// # Errors
    /// As the store says, or as whoever is given them.
    fn each_below(&self, folder: &Path, give: &mut dyn FnMut(FsEntry) -> io::Result<()>) -> io::Result<()>;
}

/// A file that was sent to an object store and has not appeared there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The store's name for it.
    pub id: String,
    /// The store's names for its pieces, in order.
    pub pieces: Vec<String>,
}

/// A version of an object, as its store names it: by one of the two, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Of its bytes.
    pub e_tag: Option<String>,
    /// Of the object, where the store counts them.
    pub generation: Option<String>,
}
