//! What takes a process of its own to see.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]

mod kill_point;
mod worker;
