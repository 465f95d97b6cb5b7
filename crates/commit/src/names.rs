//! Names of parts stay within their output, and each is there once.

use std::path::{Component, Path};

use aqueduct_core::{Error, Part, Result};

use crate::manifest::ManifestPart;

/// Every part is named by plain steps below the output.
pub(crate) fn check_inside(parts: &[Part]) -> Result<()> {
    let is_plain = |step: Component<'_>| matches!(step, Component::Normal(_));
    let is_inside = |part: &&Part| !part.name.is_empty() && Path::new(&part.name).components().all(is_plain);
    match parts.iter().find(|part| !is_inside(part)) {
        Some(part) => {
            Err(Error::bug("commit", "a part's name leads out of the output").with("part", &part.name))
        }
        None => Ok(()),
    }
}

/// The folder of a part within the output, without a slash at its end.
pub(crate) fn folder(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Sorted by name, as manifests have them.
///
/// # Errors
/// Two parts have one name.
pub(crate) fn sorted(mut parts: Vec<ManifestPart>) -> Result<Vec<ManifestPart>> {
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    match parts.windows(2).find(|two| two[0].name == two[1].name) {
        Some(two) => Err(Error::bug("commit", "two parts have one name").with("part", &two[0].name)),
        None => Ok(parts),
    }
}
