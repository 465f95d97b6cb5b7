//! What a path, glob, folder or prefix stands for.

use chrono::{DateTime, Utc};

use crate::Location;

/// One file or object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub location: Location,
    /// How many bytes it has; unknown for URLs, which are not asked.
    pub n_bytes: Option<u64>,
    /// When it was last changed.
    pub modified: Option<DateTime<Utc>>,
}
