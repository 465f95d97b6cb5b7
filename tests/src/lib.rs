//! End-to-end tests that drive the binary.
