//! A file that takes from what a run may put on the disk.

use std::io::{self, Write};
use std::path::Path;

use aqueduct_core::{Error, FsFile, Scratch};
use aqueduct_primitives::{ByteCount, Reservation};

/// A file whose bytes are taken from the disk's room before they are written.
pub(crate) struct ScratchFile {
    file: Box<dyn FsFile>,
    scratch: Scratch,
    taken: Reservation,
}

impl ScratchFile {
    /// A file that is empty.
    pub(crate) fn new(file: Box<dyn FsFile>, scratch: Scratch) -> Self {
        Self { file, scratch, taken: Reservation::empty() }
    }

    /// Makes its bytes durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    /// Ends the writing; what its bytes take of the disk.
    pub(crate) fn close(self) -> Reservation {
        self.taken
    }
}

impl Write for ScratchFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.scratch.take(ByteCount::of(bytes.len())).map_err(io::Error::other)?;
        self.taken.merge(room);
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What went wrong with it: the error about the disk's room as it is, any other with what was done and where.
pub(crate) fn failed(doing: &'static str, path: &Path, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(no_room) => no_room.with("path", path.display()),
        Err(error) => Error::io(doing, path.display(), error),
    }
}
