//! `cargo xtask docs`: the page of components, written from what the binary says of itself.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::process::{command, output};
use crate::text;
use crate::workspace::{PROFILE, Workspace};

/// The page, from the root of the project.
const PAGE: &str = "docs/components.md";

/// What `docs` is asked to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A binary that is built already; without it one is built
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Writes the page.
///
/// # Errors
/// The binary does not build or answer, or the page cannot be written.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let binary = args.binary.clone().map_or_else(|| workspace.binary(PROFILE), Ok)?;
    text::write(&workspace.root().join(PAGE), &page_of(workspace, &binary)?)?;
    text::say(format_args!("{PAGE} written"));
    Ok(())
}

/// Whether the page is what the binary says.
///
/// # Errors
/// It is not, or cannot be read.
pub(crate) fn check(workspace: &Workspace, binary: &Path) -> Result<()> {
    same(&text::read(&workspace.root().join(PAGE)).unwrap_or_default(), &page_of(workspace, binary)?)
}

fn same(page: &str, fresh: &str) -> Result<()> {
    let differs = page.lines().zip(fresh.lines()).position(|(old, new)| old != new);
    let line = differs.unwrap_or_else(|| page.lines().count().min(fresh.lines().count())) + 1;
    ensure!(page == fresh, "{PAGE}:{line}: not what the binary says; `cargo xtask docs` writes it anew");
    Ok(())
}

fn page_of(workspace: &Workspace, binary: &Path) -> Result<String> {
    let listed = output(command(binary, workspace.root()).args(["components", "--format", "json"]))?;
    let components: Vec<Component> =
        serde_json::from_str(&listed).context("`aqueduct components --format json`")?;
    Ok(page(&components))
}

/// A component, as `aqueduct components --format json` lists it.
#[derive(Debug, Deserialize)]
struct Component {
    kind: String,
    name: String,
    summary: String,
    options: Vec<ComponentOption>,
    example: String,
}

#[derive(Debug, Deserialize)]
struct ComponentOption {
    name: String,
    #[serde(rename = "type")]
    value_type: String,
    #[serde(default)]
    default: Value,
    #[serde(default)]
    help: String,
}

fn page(components: &[Component]) -> String {
    let mut page = String::from("# Components\n\nWritten by `cargo xtask docs`.\n");
    for (kind, title) in [("source", "Sources"), ("stage", "Stages"), ("sink", "Sinks")] {
        page += &format!("\n## {title}\n");
        for component in components.iter().filter(|component| component.kind == kind) {
            page += &section(component);
        }
    }
    page
}

fn section(component: &Component) -> String {
    let mut section = format!("\n### `{}`\n{}.\n", component.name, component.summary.trim_end_matches('.'));
    // Writing to a `String` cannot fail.
    let _ = write!(section, "\n```yaml\n{}\n```\n", component.example.trim());
    if component.options.is_empty() {
        return section;
    }
    section += "\n| option | type | default | |\n|---|---|---|---|\n";
    for option in &component.options {
        section += &row(option);
    }
    section
}

fn row(option: &ComponentOption) -> String {
    let default = match &option.default {
        Value::Null => String::new(),
        Value::String(text) => cell(&format!("`{text}`")),
        value => cell(&format!("`{value}`")),
    };
    format!("| `{}` | {} | {default} | {} |\n", option.name, cell(&option.value_type), cell(&option.help))
}

/// Text that stays within its cell.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = r#"[
        {"kind": "sink", "name": "discard", "summary": "Nothing", "options": [], "example": "discard: {}"},
        {"kind": "source", "name": "files", "summary": "Files.", "example": "files: {paths: [a]}\n",
         "options": [{"name": "order", "type": "any|listed", "default": "any", "help": "In\nwhich order"},
                     {"name": "window", "type": "integer", "default": null, "help": ""}]}]"#;

    #[test]
    fn sources_come_first_and_cells_stay_cells() {
        let components: Vec<Component> = serde_json::from_str(LISTED).unwrap();
        assert_eq!(
            page(&components),
            "# Components\n\nWritten by `cargo xtask docs`.\n\n## Sources\n\n### `files`\nFiles.\n\n\
             ```yaml\nfiles: {paths: [a]}\n```\n\n| option | type | default | |\n|---|---|---|---|\n\
             | `order` | any\\|listed | `any` | In which order |\n| `window` | integer |  |  |\n\
             \n## Stages\n\n## Sinks\n\n### `discard`\nNothing.\n\n```yaml\ndiscard: {}\n```\n"
        );
    }

    #[test]
    fn a_page_that_tells_another_story_is_refused_with_its_line() {
        assert!(same("a\nb\n", "a\nb\n").is_ok());
        assert!(same("a\nb\n", "a\nc\n").unwrap_err().to_string().starts_with("docs/components.md:2:"));
        assert!(same("", "a\n").unwrap_err().to_string().starts_with("docs/components.md:1:"));
    }
}
