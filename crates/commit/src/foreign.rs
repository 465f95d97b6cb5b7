//! Files that aqueduct did not write are never replaced: finds the first one in an output's place. And where rows stay that
//! are there, all that its manifest lists must be there.

use std::path::Path;

use aqueduct_core::{Error, ErrorKind, FsEntry, Result};

use crate::Manifest;
use crate::disk::Disk;
use crate::layout::{DOCUMENTS, HIDDEN, Layout, MANIFEST};

/// Folders in folders of an output. Partitions nest as deep as there are `partition_by` columns.
const MAX_DEPTH: usize = 64;

/// Whatever stands at the output's path must be what its manifest lists, name by name and size by size.
///
/// # Errors
/// [`ErrorKind::Conflict`], naming the first file that is not.
pub(crate) fn check(disk: &Disk, layout: &Layout, manifest: Option<&Manifest>) -> Result<()> {
    let Some(entry) = disk.stat(&layout.path)? else { return Ok(()) };
    let listed = Listed { disk, manifest };
    match (layout.is_file, entry.is_dir) {
        (true, true) => Err(in_the_way(&layout.path, "a folder stands where one file is to be written")),
        (true, false) => listed.check_file(&entry, &layout.name),
        (false, false) => Err(in_the_way(&layout.path, "a file stands where a folder is to be written")),
        (false, true) => listed.check_folder(&layout.path, "", 0),
    }
}

/// Every part that the manifest lists must be there. For outputs of which something stays: the next manifest would list
/// what is gone once more, and readers would take what is left for all there is.
///
/// # Errors
/// [`ErrorKind::Conflict`], naming the first part that is missing.
pub(crate) fn check_missing(disk: &Disk, layout: &Layout, manifest: &Manifest) -> Result<()> {
    for part in &manifest.parts {
        let path = if layout.is_file { layout.path.clone() } else { layout.path.join(&part.name) };
        if !disk.exists(&path)? {
            return Err(missing(&path, part.rows));
        }
    }
    Ok(())
}

/// The same of a folder that was public until another took its place; one without a manifest never was.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_replaced(disk: &Disk, folder: &Path) -> Result<()> {
    match Manifest::load(disk, &folder.join(HIDDEN).join(MANIFEST))? {
        Some(manifest) => Listed { disk, manifest: Some(&manifest) }.check_folder(folder, "", 0),
        None => Ok(()),
    }
}

struct Listed<'a> {
    disk: &'a Disk,
    manifest: Option<&'a Manifest>,
}

impl Listed<'_> {
    fn check_folder(&self, folder: &Path, prefix: &str, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(in_the_way(folder, "folders nest deeper than any that aqueduct writes"));
        }
        for entry in self.disk.list(folder)? {
            let Some(name) = entry.path.file_name().and_then(|name| name.to_str()) else {
                return Err(not_ours(&entry.path));
            };
            let name = format!("{prefix}{name}");
            match entry.is_dir {
                true if name == HIDDEN => self.check_hidden(&entry.path)?,
                true => self.check_folder(&entry.path, &format!("{name}/"), depth + 1)?,
                false => self.check_file(&entry, &name)?,
            }
        }
        Ok(())
    }

    fn check_file(&self, entry: &FsEntry, name: &str) -> Result<()> {
        let part = self.manifest.and_then(|manifest| manifest.part(name));
        match part {
            Some(part) if part.bytes == entry.n_bytes => Ok(()),
            Some(_) => Err(in_the_way(&entry.path, "this file was changed after aqueduct wrote it")),
            None => Err(not_ours(&entry.path)),
        }
    }

    /// Of an output's own hidden folder, only the manifest and what follows from it are known; more belongs to an output
    /// further down.
    fn check_hidden(&self, hidden: &Path) -> Result<()> {
        let ours: Vec<_> = DOCUMENTS.iter().chain([&MANIFEST]).map(|name| hidden.join(name)).collect();
        match self.disk.list(hidden)?.into_iter().find(|entry| !ours.contains(&entry.path)) {
            Some(entry) => Err(in_the_way(&entry.path, "the files of another output are in this folder")),
            None => Ok(()),
        }
    }
}

fn missing(path: &Path, n_rows: u64) -> Error {
    let message =
        "a part that aqueduct wrote is gone; put it back, or begin the output anew with `--full-refresh`";
    Error::new(ErrorKind::Conflict, "check output", message).with("path", path.display()).with("rows", n_rows)
}

fn not_ours(path: &Path) -> Error {
    in_the_way(path, "a file that no run of aqueduct wrote is in the way")
}

fn in_the_way(path: &Path, found: &str) -> Error {
    let message = format!("{found}; move it, or choose another path for the output");
    Error::new(ErrorKind::Conflict, "check output", message).with("path", path.display())
}
