//! Staged parts become public in one act.
