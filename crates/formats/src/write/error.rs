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
    let kind = match io_cause(&error) {
        Some(cause) => Error::io("write", format, io::Error::from(cause)).kind(),
        None => ErrorKind::Data,
    };
    let message = match kind {
        ErrorKind::DiskFull => "no space left on the disk",
        ErrorKind::Data => message,
        _ => "the file could not be written",
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
