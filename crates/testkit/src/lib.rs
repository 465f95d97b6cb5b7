//! Conformance suites, fixtures and faults for tests.

pub mod http;
