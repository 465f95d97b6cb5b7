//! What went wrong on the way, and whether trying again can help.

use aqueduct_core::{Error, ErrorKind};

const NO_RANGES: &str = "the server does not do ranges; read it from its start instead";

/// Whether this error says that a server gives no parts of a file: read the whole of it instead.
pub fn does_no_ranges(error: &Error) -> bool {
    error.kind() == ErrorKind::Io && error.message() == NO_RANGES
}
