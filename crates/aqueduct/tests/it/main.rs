//! The binary from end to end: what it says, what it leaves behind, what it takes.
//!
//! Every test has a folder of its own, runs the binary that is shipped, and looks at its exit code, its words,
//! its files and at what a server was asked. Nothing here reaches into the crates, but for the list of components, the log in an
//! object store, where two writers are raced, and the program of `panicking`, which has components of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]

mod chaos;
mod clean;
mod commands;
mod components;
mod damaged;
mod disks;
mod examples;
mod globals;
mod incremental;
mod inputs;
mod interrupted;
mod job;
mod limited;
mod live;
mod memory;
mod mistakes;
mod object_stores;
mod outputs;
mod panicking;
mod panics;
mod records_in_store;
mod rejects;
mod replay;
mod rereads;
mod resumed;
mod servers;
mod stalled;
mod state;
mod state_in_store;
mod store_points;
mod streams;
mod updated;
mod verify;
mod window;
