//! Any amount of data through a fixed amount of memory.
//!
//! This crate is the facade: it names the crates that aqueduct is made of, puts every component into one
//! [`registry`], and, with the feature `cli`, is the command line. Each crate is useful alone; who wants
//! bounded downloads and nothing else depends on `aqueduct-primitives`.
//!
//! A program of your own with a source of your own is the command line and a longer registry:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     let registry = aqueduct::registry(); // .with_sources(&[&my_source::FACTORY])
//!     aqueduct::cli_main(registry)
//! }
//! ```

pub use aqueduct_commit as commit;
pub use aqueduct_core as core;
pub use aqueduct_formats as formats;
pub use aqueduct_net as net;
#[cfg(feature = "cli")]
pub use aqueduct_orchestrator as orchestrator;
#[cfg(feature = "cli")]
pub use aqueduct_orchestrator::cli_main;
pub use aqueduct_primitives as primitives;
pub use aqueduct_sinks as sinks;
pub use aqueduct_sources as sources;
pub use aqueduct_transforms as transforms;

/// Every source, stage and sink that aqueduct comes with.
pub fn registry() -> core::Registry {
    core::Registry::new().with_sources(sources::ALL).with_stages(transforms::ALL).with_sinks(sinks::ALL)
}
