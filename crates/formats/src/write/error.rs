//! Errors of the format libraries as ours: a full disk stays a full disk, however deep it is wrapped.

use std::error::Error as StdError;
use std::io;

use aqueduct_core::{Error, ErrorKind};

/// The error of an encoder. When its cause is I/O, the kind follows from that.
pub(super) fn encode(
    format: &'static str,
    message: &str,
    error: impl StdError + Send + Sync + 'static,
) -> Error {
    let cause = io_cause(&error).map(|cause| Error::io("write", format, io::Error::from(cause)));
    let (kind, message) = match &cause {
        Some(full) if full.kind() == ErrorKind::DiskFull => (ErrorKind::DiskFull, full.message()),
        Some(other) => (other.kind(), "the file could not be written"),
        None => (ErrorKind::Data, message),
    };
    Error::new(kind, "write", message).with("format", format).with_source(error)
}

fn io_cause(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(here) = cause {
        if let Some(io) = here.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = here.source();
    }
    None
}
