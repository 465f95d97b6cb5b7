//! Conformance suites, fixtures and faults for tests.
//!
//! - [`source_suite`], [`stage_suite`] and [`sink_suite`]: what every component of a kind promises, as generated
//!   tests over a whole registry list. A component is known to its suite by a row in a table of fixtures.
//! - [`faults`]: a disk that fails when it is told to, one in memory that is crashed at any operation, a clock that
//!   stands still.
//! - [`pdf`]: small documents, good and hostile.
//! - [`ai_service`]: a stand-in for AI services that counts.
//! - [`http`]: a scripted server that counts.
//! - `s3`, with the feature of that name: a server that speaks S3, with faults.

pub mod ai_service;
pub mod faults;
pub mod pdf;
#[cfg(feature = "s3")]
pub mod s3;
pub mod sink_suite;
pub mod source_suite;
pub mod stage_suite;
pub mod suite;
pub mod swarm;

pub use aqueduct_chaos as http;
