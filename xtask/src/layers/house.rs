//! The house, as small as its rules need it.

use std::collections::BTreeSet;

/// All crates of the workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct House {
    /// In the order of their names.
    pub(crate) rooms: Vec<Room>,
}

impl House {
    /// The crate of this name.
    pub(crate) fn room(&self, name: &str) -> Option<&Room> {
        self.rooms.iter().find(|room| room.name == name)
    }
}

/// One crate of the workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    /// The package's name.
    pub(crate) name: String,
    /// The folder of its manifest, from the root of the project.
    pub(crate) folder: String,
    /// `package.metadata.aqueduct.layer`.
    pub(crate) floor: Option<u64>,
    /// Whether its manifest says `lints.workspace = true`.
    pub(crate) has_lints: bool,
    /// Whether a plain `cargo check` compiles it: it is one of the `default-members`.
    pub(crate) is_default: bool,
    /// What its manifest names, ours and foreign.
    pub(crate) edges: Vec<Edge>,
    /// Every crate that is compiled for it outside tests, with all features that the workspace asks for.
    pub(crate) tree: BTreeSet<String>,
    /// The same for the crate alone, with its default features.
    pub(crate) alone: BTreeSet<String>,
}

/// A dependency that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    /// The package it leads to.
    pub(crate) to: String,
    /// Whether only tests, examples and benches take it.
    pub(crate) only_tests: bool,
}

/// A row of the table in ARCHITECTURE.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The floor.
    pub(crate) floor: u64,
    /// The package's name.
    pub(crate) name: String,
    /// The folder of its manifest.
    pub(crate) folder: String,
}
