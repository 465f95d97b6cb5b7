//! What went wrong, for a person and for the code that decides what to do about it.

use std::fmt;

/// The result of everything that can fail in a flow.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failure: what kind, whether trying again can help, in which operation, where, and why.
///
/// `Display` says this layer's part only, in one line: the message, then the context pairs. The cause is in
/// [`source`](std::error::Error::source); [`Error::chain`] prints all of it.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    retry: Retry,
    operation: &'static str,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Source>,
}

/// What kind of failure, for code that must choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The flow file or a component's options are wrong, or do not fit the data's columns.
    Config,
    /// A row, record, page or file holds what it should not.
    Data,
    /// Something that was named is not there.
    NotFound,
    /// Access was refused: credentials, permissions, an address that is not allowed.
    Denied,
    /// A named limit was passed: bytes, depth, redirects, ratio, time.
    Limit,
    /// The disk, the network or a peer failed.
    Io,
    /// The disk is full.
    DiskFull,
    /// What is there was written by somebody else.
    Conflict,
    /// What is there was written by a newer version.
    Newer,
    /// The run is being stopped.
    Cancelled,
    /// A defect of this program.
    Bug,
}

/// Whether the same call may succeed when made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It fails the same way.
    Never,
    /// It may pass.
    Later,
}

/// `EMFILE`, of which the standard library knows no name.
const TOO_MANY_OPEN: i32 = 24;

impl Error {
    /// A failure of `operation` (a word or two: `read`, `open`, `decode csv`). The message says what was
    /// found, what was expected and what to do, in lower case, without a final dot.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        let inner = Inner {
            kind,
            retry: Retry::Never,
            operation,
            message: message.into(),
            context: Vec::new(),
            source: None,
        };
        Self { inner: Box::new(inner) }
    }

    /// A failed I/O call; the kind follows from the cause.
    pub fn io(operation: &'static str, path: impl fmt::Display, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, message) = match source.kind() {
            Io::NotFound => (ErrorKind::NotFound, "no such file or folder"),
            Io::PermissionDenied => (ErrorKind::Denied, "permission denied"),
            Io::ReadOnlyFilesystem => (ErrorKind::Denied, "the disk can only be read; write to another"),
            Io::FileTooLarge => {
                (ErrorKind::DiskFull, "the file may not grow any more; raise the limit (`ulimit -f`)")
            }
            Io::StorageFull | Io::QuotaExceeded => (ErrorKind::DiskFull, "no space left on the disk"),
            Io::NotADirectory => (ErrorKind::Io, "a part of the path is a file, not a folder"),
            Io::AlreadyExists => (ErrorKind::Conflict, "it is there already"),
            _ if source.raw_os_error() == Some(TOO_MANY_OPEN) => {
                (ErrorKind::Io, "no more files may be open; raise the limit (`ulimit -n`), or lower `window`")
            }
            _ => (ErrorKind::Io, "the system call failed"),
        };
        Self::new(kind, operation, message).with("path", path).with_source(source)
    }

    /// A defect of this program.
    pub fn bug(operation: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Bug, operation, message)
    }

    /// The run is being stopped.
    pub fn cancelled(operation: &'static str) -> Self {
        Self::new(ErrorKind::Cancelled, operation, "the run was stopped")
    }

    /// Adds where it happened: `path`, `url`, `row`, `column`, `limit`, `step`. The same pair is told once: a
    /// component that hands an error on without the runner names its `step`, and the runner names it for those that
    /// do not.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        let pair = (key, value.to_string());
        if !self.inner.context.contains(&pair) {
            self.inner.context.push(pair);
        }
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// The same call may pass later.
    #[must_use]
    pub fn retry_later(mut self) -> Self {
        self.inner.retry = Retry::Later;
        self
    }

    /// What kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        self.inner.retry
    }

    /// In which operation.
    pub fn operation(&self) -> &'static str {
        self.inner.operation
    }

    /// The message alone, without context.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The value of a context key, the outermost first.
    pub fn context(&self, key: &str) -> Option<&str> {
        self.inner.context.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    /// The first of its causes that is of this type.
    ///
    /// ```
    /// use aqueduct_core::{Changed, Error, ErrorKind};
    /// let changed = Changed { was: "v1".into(), is: "v2".into() };
    /// let error = Error::new(ErrorKind::Io, "read", "it changed").with_source(changed.clone());
    /// let outer = Error::new(ErrorKind::Io, "run", "a step failed").with_source(error);
    /// assert_eq!(outer.cause::<Changed>(), Some(&changed));
    /// assert_eq!(outer.cause::<std::io::Error>().is_some(), false);
    /// ```
    pub fn cause<E: std::error::Error + 'static>(&self) -> Option<&E> {
        let first = std::error::Error::source(self);
        std::iter::successors(first, |error| error.source()).find_map(|error| error.downcast_ref())
    }

    /// This error and all its causes, in one line, each once.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.inner.operation, self.inner.message)?;
        for (n, (key, value)) in self.inner.context.iter().enumerate() {
            write!(f, "{}{key}: {value}", if n == 0 { " (" } else { ", " })?;
        }
        if self.inner.context.is_empty() { Ok(()) } else { write!(f, ")") }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.inner.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

impl From<aqueduct_primitives::TaskError> for Error {
    fn from(error: aqueduct_primitives::TaskError) -> Self {
        match error {
            aqueduct_primitives::TaskError::Cancelled => Self::cancelled("task"),
            aqueduct_primitives::TaskError::NotStarted(error) => error.into(),
            other => Self::bug("task", other.to_string()),
        }
    }
}

impl From<aqueduct_primitives::ReserveError> for Error {
    fn from(error: aqueduct_primitives::ReserveError) -> Self {
        Self::new(ErrorKind::Limit, "reserve memory", "one item needs more than its share; raise `memory`")
            .with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_primitives::{Budget, ByteCount, TaskError};

    #[tokio::test]
    async fn a_task_that_never_fits_its_share_is_a_limit_and_no_bug() {
        let share = Budget::new("share of files", ByteCount::mib(1));
        let refused = share.reserve(ByteCount::mib(2)).await.unwrap_err();
        let error = Error::from(TaskError::NotStarted(refused));
        assert_eq!(error.kind(), ErrorKind::Limit);
        let told = error.chain();
        for part in ["share of files", "2MiB", "1MiB", "`memory`"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
