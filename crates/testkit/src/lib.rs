//! Conformance suites, fixtures and faults for tests.
