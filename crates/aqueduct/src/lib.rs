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
pub use aqueduct_orchestrator::{cli_main, cli_main_from};
pub use aqueduct_pdf as pdf;
pub use aqueduct_primitives as primitives;
pub use aqueduct_sinks as sinks;
pub use aqueduct_sources as sources;
pub use aqueduct_spill as spill;
pub use aqueduct_transforms as transforms;

/// Every source, stage and sink that aqueduct comes with.
pub fn registry() -> core::Registry {
    core::Registry::new()
        .with_sources(sources::ALL)
        .with_worker_tasks(sources::WORKER_TASKS)
        .with_stages(transforms::ALL)
        .with_stages(spill::ALL)
        .with_merge(spill::merge_before)
        .with_sinks(sinks::ALL)
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::orchestrator::flow::{Settings, load};
    use super::registry;

    /// A flow with this one step, around it such as take any columns. Every example is `name: options`.
    fn flow_of(kind: &str, example: &str) -> String {
        let step = |role: &str, usual: &str| {
            let text = if role == kind { example } else { usual };
            format!("{role}:\n  {}\n", text.replace('\n', "\n  "))
        };
        let stages = if kind == "stage" {
            format!("stages:\n  - {}\n", example.replace('\n', "\n    "))
        } else {
            String::new()
        };
        let source = step("source", "files: { paths: ['none-here/*.csv'] }");
        format!("name: example\n{source}{stages}{}", step("sink", "discard: {}"))
    }

    // SX: help that does not work is worse than none
    #[test]
    fn every_example_of_a_component_is_a_flow_that_checks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flow.yaml");
        let registry = registry();
        let sources = registry.sources().iter().map(|factory| ("source", factory.info()));
        let stages = registry.stages().iter().map(|factory| ("stage", factory.info()));
        let sinks = registry.sinks().iter().map(|factory| ("sink", factory.info()));
        for (kind, info) in sources.chain(stages).chain(sinks) {
            let flow = flow_of(kind, info.example);
            std::fs::write(&path, &flow).unwrap();
            let loaded = load(&path, &Settings::default(), &registry);
            assert!(loaded.is_ok(), "{kind} `{}`: {}\n{flow}", info.name, loaded.err().unwrap());
        }
    }
}
