//! What can go wrong at an operation.

use std::io;

/// What happens at one operation of a [`SimFs`](super::SimFs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before the operation.
    KillBefore,
    /// The process is killed after the operation, before it is told how it went.
    KillAfter,
    /// The process is killed half-way: half of the bytes are written; of an operation that takes several steps on
    /// the disk, [`create_dir_all`](aqueduct_core::Fs::create_dir_all) and
    /// [`remove_dir_all`](aqueduct_core::Fs::remove_dir_all), half of the steps are done. Else as
    /// [`Fault::KillAfter`].
    ShortWrite,
    /// The power goes right after the operation, for all processes on the disk. What was not durable may be lost:
    /// go on with [`SimFs::power_losses`](super::SimFs::power_losses).
    PowerLoss,
    /// The disk is full, for this operation alone, which changes nothing.
    Full,
    /// The operation is done, and the process is told that it timed out: what a store does whose reply is lost.
    ReplyLost,
    /// The operation fails with this error number of the operating system, and changes nothing.
    Error(i32),
}

impl Fault {
    /// The disk itself fails: `EIO`. A file whose sync has failed is lost: syncing it again succeeds, and makes
    /// nothing durable, because the system holds its pages for clean.
    pub const EIO: Self = Self::Error(5);

    /// One of each kind, to be tried in turn at every operation.
    pub const ALL: [Self; 6] =
        [Self::KillBefore, Self::KillAfter, Self::ShortWrite, Self::PowerLoss, Self::Full, Self::EIO];

    /// Whether nothing more is heard of the process.
    pub fn is_deadly(self) -> bool {
        self.error().is_none()
    }

    /// What the operation gives, if the process lives to hear of it.
    pub(super) fn error(self) -> Option<io::Error> {
        match self {
            Self::Full => Some(io::ErrorKind::StorageFull.into()),
            Self::ReplyLost => Some(io::ErrorKind::TimedOut.into()),
            Self::Error(number) => Some(io::Error::from_raw_os_error(number)),
            Self::KillBefore | Self::KillAfter | Self::ShortWrite | Self::PowerLoss => None,
        }
    }
}
