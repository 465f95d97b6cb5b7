//! The house as cargo metadata, the manifests and ARCHITECTURE.md describe it.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, Node, Package, PackageId};

use super::house::{Edge, House, Room, Row};
use crate::process::{cargo, output};
use crate::text;

/// The crates of the workspace.
///
/// # Errors
/// A manifest cannot be read, or cargo did not resolve the dependencies.
pub(crate) fn house(metadata: &Metadata) -> Result<House> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata gives no resolved dependencies")?;
    let nodes: HashMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let names: HashMap<_, _> = metadata.packages.iter().map(|p| (&p.id, p.name.to_string())).collect();
    let rooms = metadata.workspace_packages().into_iter().map(|package| {
        let tree = tree(&package.id, &nodes).into_iter().filter_map(|id| names.get(id).cloned()).collect();
        room(metadata, package, tree)
    });
    let mut rooms = rooms.collect::<Result<Vec<_>>>()?;
    rooms.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(House { rooms })
}

fn room(metadata: &Metadata, package: &Package, tree: BTreeSet<String>) -> Result<Room> {
    let manifest = package.manifest_path.as_std_path();
    let folder = package.manifest_path.parent().unwrap_or(&package.manifest_path);
    let folder = folder.strip_prefix(&metadata.workspace_root).unwrap_or(folder);
    let edges = package.dependencies.iter().map(|dependency| Edge {
        to: dependency.name.clone(),
        only_tests: dependency.kind == DependencyKind::Development,
    });
    let is_default = metadata.workspace_default_packages().iter().any(|default| default.id == package.id);
    Ok(Room {
        name: package.name.to_string(),
        folder: folder.to_string(),
        floor: package.metadata.pointer("/aqueduct/layer").and_then(serde_json::Value::as_u64),
        has_lints: has_workspace_lints(&text::read(manifest)?)
            .with_context(|| format!("{}: not a manifest", manifest.display()))?,
        is_default,
        alone: alone(metadata, &package.name)?,
        edges: edges.collect(),
        tree,
    })
}

/// Cargo metadata knows the features of the whole workspace only, so cargo is asked again.
fn alone(metadata: &Metadata, name: &str) -> Result<BTreeSet<String>> {
    let mut tree = cargo(metadata.workspace_root.as_std_path());
    tree.args(["tree", "--package", name, "--edges", "normal,build", "--prefix", "none"]);
    let names = output(&mut tree)?;
    Ok(names.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect())
}

/// Cargo metadata says nothing of lints, so the manifest is asked.
fn has_workspace_lints(manifest: &str) -> Result<bool> {
    let manifest: toml::Table = manifest.parse()?;
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    Ok(lints.and_then(toml::Value::as_bool) == Some(true))
}

/// What is compiled for a package, itself aside.
fn tree<'a>(of: &'a PackageId, nodes: &HashMap<&'a PackageId, &'a Node>) -> BTreeSet<&'a PackageId> {
    let mut seen = BTreeSet::new();
    let mut open = vec![of];
    while let Some(node) = open.pop().and_then(|id| nodes.get(id)) {
        for dependency in &node.deps {
            let compiled = dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development);
            if compiled && seen.insert(&dependency.pkg) {
                open.push(&dependency.pkg);
            }
        }
    }
    seen
}

/// The rows `| 0 | \`name\` | folder | …` of a text; other tables are not looked at.
pub(crate) fn table(text: &str) -> Vec<Row> {
    text.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim().strip_prefix('|')?.split('|').map(str::trim).collect();
    let [floor, name, folder, ..] = cells.as_slice() else { return None };
    let name = name.strip_prefix('`')?.strip_suffix('`')?;
    Some(Row { floor: floor.parse().ok()?, name: name.to_owned(), folder: (*folder).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;

    #[test]
    fn this_house_is_read_with_floors_edges_and_trees() {
        let house = house(&Workspace::find().unwrap().metadata).unwrap();
        let core = house.room("aqueduct-core").unwrap();
        assert_eq!((core.floor, core.folder.as_str(), core.has_lints), (Some(1), "crates/core", true));
        assert!(core.is_default && !house.room("aqueduct-expr").unwrap().is_default);
        assert!(core.edges.contains(&Edge { to: "aqueduct-primitives".into(), only_tests: false }));
        assert!(core.edges.contains(&Edge { to: "proptest".into(), only_tests: true }));
        assert!(core.tree.contains("futures-core"), "what a dependency brings counts");
        assert!(!core.tree.contains("proptest"), "what only tests take does not");
        let sinks = house.room("aqueduct-sinks").unwrap();
        assert!(
            sinks.alone.contains("parquet") && !sinks.alone.contains("aqueduct-expr"),
            "{:?}",
            sinks.alone
        );
    }

    #[test]
    fn only_the_rows_of_floors_are_rows() {
        let text = "| floor | crate | folder |\n|---|---|---|\n| 2 | `aqueduct-net` | crates/net | HTTP |\n| you | go |";
        let row = Row { floor: 2, name: "aqueduct-net".into(), folder: "crates/net".into() };
        assert_eq!(table(text), [row]);
    }

    #[test]
    fn lints_count_only_when_they_are_those_of_the_workspace() {
        assert!(has_workspace_lints("[lints]\nworkspace = true").unwrap());
        assert!(!has_workspace_lints("[lints.rust]\nunsafe_code = \"allow\"").unwrap());
        assert!(!has_workspace_lints("[package]\nname = \"a\"").unwrap());
    }
}
