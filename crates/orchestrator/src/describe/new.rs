//! `aqueduct new`: a commented flow to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use aqueduct_core::nearest;

/// A flow to start from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    /// What it is called on the command line.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) summary: &'static str,
    /// The flow file.
    pub(super) text: &'static str,
}

/// All flows to start from; the first is the one that `new` writes when it is not told which.
pub(super) const TEMPLATES: &[Template] = &[
    Template {
        name: "files",
        summary: "files in, one Parquet dataset out",
        text: include_str!("templates/files.yaml"),
    },
    Template {
        name: "gdelt",
        summary: "GDELT events of some days",
        text: include_str!("templates/gdelt.yaml"),
    },
    Template {
        name: "graph",
        summary: "two sources, a shared stage, two sinks",
        text: include_str!("templates/graph.yaml"),
    },
];

/// Where a flow is written when no place is named.
const DEFAULT_FILE: &str = "flow.yaml";

/// Writes a template to a file that is not there yet; the line that says so, which is no data.
///
/// # Errors
/// There is no such template, or the file is there already or cannot be written.
pub fn new(template: Option<&str>, file: Option<&Path>) -> Result<String, String> {
    let [default, ..] = TEMPLATES else { return Err("error: no templates".into()) };
    let template = match template {
        None => default,
        Some(name) => TEMPLATES.iter().find(|one| one.name == name).ok_or_else(|| unknown(name))?,
    };
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let told = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => format!(
            "error: {} is there already; name another file: aqueduct new {} FILE",
            path.display(),
            template.name
        ),
        _ => format!("error: cannot write {}: {error}", path.display()),
    };
    let mut created = OpenOptions::new().write(true).create_new(true).open(path).map_err(told)?;
    created.write_all(template.text.as_bytes()).map_err(told)?;
    Ok(format!("wrote {}: {}; next: aqueduct check {}", path.display(), template.summary, path.display()))
}

fn unknown(name: &str) -> String {
    let names = || TEMPLATES.iter().map(|one| one.name);
    let hint = nearest(name, names()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    format!(
        "error: no template is called `{name}`; expected one of {}{hint}",
        names().collect::<Vec<_>>().join(", ")
    )
}
