//! What a flow is and what there is to make one of: the answers of `check`, `explain`, `components`, `schema`
//! and `new`. They open no connection, read no secret, and write nothing but the text they are asked for.

mod components;
mod explain;
mod new;
mod schema;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::Path;

use aqueduct_core::Registry;
use arrow::datatypes::Schema;

use crate::flow::{Flow, Settings, Step, StepKind, load};
use crate::plan::plan;

pub use components::components;
pub use explain::explain;
pub use new::new;
pub use schema::schema;

/// The exit code of a command that did what it was asked to.
const DONE: u8 = 0;

/// How `explain` shows a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ExplainFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object; an array of them for a matrix.
    Json,
    /// A graph in the language of mermaid.
    Mermaid,
}

/// How `components` shows its list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ListFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON array.
    Json,
}

/// `aqueduct check`: every step of a flow with its columns, as far as they are known without running it.
///
/// # Errors
/// The flow is wrong, or cannot work within its memory: the text to print, one line a mistake.
pub fn check(
    path: &Path,
    settings: &Settings,
    registry: &Registry,
    out: &mut dyn Write,
) -> Result<u8, String> {
    let flows = load(path, settings, registry).map_err(|errors| errors.to_string())?;
    for flow in &flows {
        plan(flow).map_err(|errors| errors.to_string())?;
        print_steps(flow, out).map_err(unwritten)?;
    }
    Ok(DONE)
}

fn print_steps(flow: &Flow, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}: {} steps, nothing wrong", title(flow), flow.steps.len())?;
    for (step, schema) in flow.steps.iter().zip(&flow.schemas) {
        writeln!(out, "  {} ({} {})", step.name, step.component, role(step))?;
        writeln!(out, "    {}", flow.masks.mask(&columns(schema.as_deref())))?;
    }
    for (at, step) in flow.steps.iter().enumerate() {
        if let Some((_, mode)) = flow.output_of(at) {
            writeln!(out, "  {}: {}", step.name, mode.sentence())?;
        }
    }
    Ok(())
}

/// The flow's name, with the values of its matrix entry.
fn title(flow: &Flow) -> String {
    let values: Vec<String> = flow.entry.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let title =
        if values.is_empty() { flow.name.clone() } else { format!("{} [{}]", flow.name, values.join(", ")) };
    flow.masks.mask(&title)
}

fn role(step: &Step) -> &'static str {
    match step.kind {
        StepKind::Source(_) => "source",
        StepKind::Stage(_) => "stage",
        StepKind::Sink(_) => "sink",
    }
}

/// `id: Int64, country: Utf8`, or that nobody knows before a run.
fn columns(schema: Option<&Schema>) -> String {
    let Some(schema) = schema else { return "unknown until run".into() };
    let columns: Vec<String> =
        schema.fields().iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect();
    if columns.is_empty() { "no columns".into() } else { columns.join(", ") }
}

fn unwritten(error: io::Error) -> String {
    format!("cannot write the answer: {error}")
}
