//! What takes a process of its own to see.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod kill_point;
