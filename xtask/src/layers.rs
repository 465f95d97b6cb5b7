//! `cargo xtask check-layers`: a crate depends on strictly lower floors only, as ARCHITECTURE.md tells.

mod house;
mod read;
mod rules;

use std::path::Path;

use anyhow::{Result, bail};

use crate::text::say;
use crate::workspace::Workspace;

/// The file that tells people which crate stands where.
const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// Checks the house as cargo and ARCHITECTURE.md describe it.
///
/// # Errors
/// A manifest cannot be read, or a rule is broken; all broken rules are told at once.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let house = read::house(&workspace.metadata)?;
    let mut broken = rules::check(&house);
    broken.extend(check_table(workspace.root(), &house)?);
    if broken.is_empty() {
        say(format_args!(
            "{} crates, each on a strictly higher floor than what it stands on",
            house.rooms.len()
        ));
        return Ok(());
    }
    bail!("{} rules of the house are broken\n  {}", broken.len(), broken.join("\n  "))
}

fn check_table(root: &Path, house: &house::House) -> Result<Vec<String>> {
    let path = root.join(ARCHITECTURE);
    if !path.exists() {
        return Ok(vec![format!("{ARCHITECTURE} is missing; it tells which crate stands on which floor")]);
    }
    Ok(rules::check_table(house, &read::table(&crate::text::read(&path)?)))
}
