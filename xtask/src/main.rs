//! The tasks of continuous integration and development: `cargo xtask TASK`. One file a task.

mod bench;
mod ci;
mod corpus;
mod docs;
mod layers;
mod live;
mod measure;
mod new;
mod page;
mod process;
mod soak;
mod text;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::text::complain;
use crate::workspace::Workspace;

/// Tasks of continuous integration and development.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// All that must pass before a change goes on, cheap checks first
    Ci(ci::Args),
    /// Fails on a dependency that points up or sideways, and on a table that tells another story
    CheckLayers,
    /// Writes a component that compiles, and the two lines that make it known
    New(new::Args),
    /// Measures aqueduct and its peers on the same input, in turn
    Bench(bench::Args),
    /// Reads every file of a folder of real files
    Corpus(corpus::Args),
    /// Long proofs, taken up where they stopped
    Soak(soak::Args),
    /// Tries the page of `aqueduct serve` in a browser
    Page(page::Args),
    /// Writes docs/components.md from what the binary says of itself
    Docs(docs::Args),
}

fn main() -> ExitCode {
    match run(&Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Ci(args) => ci::run(&workspace, args),
        Task::CheckLayers => layers::run(&workspace),
        Task::New(args) => new::run(&workspace, args),
        Task::Bench(args) => bench::run(&workspace, args),
        Task::Corpus(args) => corpus::run(&workspace, args),
        Task::Soak(args) => soak::run(&workspace, args),
        Task::Page(args) => page::run(&workspace, args),
        Task::Docs(args) => docs::run(&workspace, args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
