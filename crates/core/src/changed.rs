//! Files that change while they are read.

use std::fmt;

/// Why something could not be read on: it is another version by now, and no bytes of two versions are ever mixed. Stands
/// among the causes of an error: see [`Error::cause`](crate::Error::cause).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// What the version is called of which some was read: an ETag, or when it was changed last and how long it is.
    pub was: String,
    /// The same of the version that is there now.
    pub is: String,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {} became {}", self.was, self.is)
    }
}

impl std::error::Error for Changed {}

/// Why an attempt at a run ends, and the run does not: a file changed while it was read, and is to be read again as it is now.
/// What is not committed is dropped, all of it, as after a crash; then the run goes on from its last commit.
///
/// A source puts it among the causes of the error that it ends with, if its options say so
/// ([`SourceConfig::takes_back`](crate::SourceConfig::takes_back)). To whoever makes no second attempt, it is an error like any
/// other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAgain {
    /// The file, as it may be shown.
    pub file: String,
    /// Which version it was of which some was read, and which it is.
    pub change: Changed,
}

impl fmt::Display for ReadAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.change.fmt(f)
    }
}

impl std::error::Error for ReadAgain {}
