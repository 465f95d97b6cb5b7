//! What an operation changes, and when it is refused: the errors of Linux, in its order.

use std::io;
use std::path::{Path, PathBuf};

use super::tree::{Change, Inode, Place, Tree};

/// Changes, each an atomic act of its own, in order. None: the operation succeeds, and nothing has to be done.
pub(super) type Changes = io::Result<Vec<Change>>;

/// A place that is free.
pub(super) fn free_place(tree: &Tree, path: &Path) -> io::Result<Place> {
    let place = tree.place(path)?;
    match tree.at(&place) {
        Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        None => Ok(place),
    }
}

/// The folders on a path that are not there yet, from the top down.
pub(super) fn missing_folders(tree: &Tree, path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
        match tree.find(folder) {
            Ok(node) if tree.is_folder(node) => break,
            Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(folder.to_owned()),
            Err(error) => return Err(error),
        }
    }
    missing.reverse();
    Ok(missing)
}

pub(super) fn rename_no_replace(tree: &Tree, from: &Path, to: &Path) -> Changes {
    let (from, to) = (tree.place(from)?, tree.place(to)?);
    let node = tree.at(&from).ok_or(io::ErrorKind::NotFound)?;
    if tree.at(&to).is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    if tree.is_within(to.folder, node) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(vec![Change::rename(node, from, to)])
}

pub(super) fn rename(tree: &Tree, from: &Path, to: &Path) -> Changes {
    let (from, to) = (tree.place(from)?, tree.place(to)?);
    let node = tree.at(&from).ok_or(io::ErrorKind::NotFound)?;
    if tree.is_within(to.folder, node) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if let Some(replaced) = tree.at(&to) {
        if tree.is_within(from.folder, replaced) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if replaced == node {
            return Ok(Vec::new());
        }
        check_replaceable(tree, node, replaced)?;
    }
    Ok(vec![Change::rename(node, from, to)])
}

/// A file replaces a file, and a folder an empty folder.
fn check_replaceable(tree: &Tree, node: Inode, replaced: Inode) -> io::Result<()> {
    match (tree.is_folder(node), tree.is_folder(replaced)) {
        (true, false) => Err(io::ErrorKind::NotADirectory.into()),
        (false, true) => Err(io::ErrorKind::IsADirectory.into()),
        (true, true) if !tree.entries(replaced)?.is_empty() => Err(io::ErrorKind::DirectoryNotEmpty.into()),
        _ => Ok(()),
    }
}

pub(super) fn exchange(tree: &Tree, a: &Path, b: &Path) -> Changes {
    let (a, b) = (tree.place(a)?, tree.place(b)?);
    let at_a = tree.at(&a).ok_or(io::ErrorKind::NotFound)?;
    let at_b = tree.at(&b).ok_or(io::ErrorKind::NotFound)?;
    if tree.is_within(b.folder, at_a) || tree.is_within(a.folder, at_b) {
        // What `StdFs` makes of EINVAL, which is also how a file system says that it cannot exchange at all.
        return Err(io::ErrorKind::Unsupported.into());
    }
    if at_a == at_b {
        return Ok(Vec::new());
    }
    Ok(vec![Change::exchange((at_a, a), (at_b, b))])
}

pub(super) fn link(tree: &Tree, from: &Path, to: &Path) -> Changes {
    let node = tree.find(from)?;
    let to = free_place(tree, to)?;
    if tree.is_folder(node) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(vec![Change::add(to, node)])
}

pub(super) fn remove_file(tree: &Tree, path: &Path) -> Changes {
    match taken(tree, path)? {
        Some((_, node)) if tree.is_folder(node) => Err(io::ErrorKind::IsADirectory.into()),
        Some((place, _)) => Ok(vec![Change::remove(place)]),
        None => Ok(Vec::new()),
    }
}

pub(super) fn remove_empty_dir(tree: &Tree, path: &Path) -> Changes {
    match taken(tree, path)? {
        Some((place, node)) if tree.entries(node)?.is_empty() => Ok(vec![Change::remove(place)]),
        _ => Ok(Vec::new()),
    }
}

/// One change an entry, a folder after what is in it.
pub(super) fn remove_dir_all(tree: &Tree, path: &Path) -> Changes {
    let mut changes = Vec::new();
    if let Some((place, node)) = taken(tree, path)? {
        tree.entries(node)?;
        remove_with_contents(tree, place, node, &mut changes);
    }
    Ok(changes)
}

fn remove_with_contents(tree: &Tree, place: Place, node: Inode, changes: &mut Vec<Change>) {
    for (name, inner) in tree.entries(node).into_iter().flatten() {
        remove_with_contents(tree, Place { folder: node, name: name.clone() }, *inner, changes);
    }
    changes.push(Change::remove(place));
}

/// What is at a path, if anything.
fn taken(tree: &Tree, path: &Path) -> io::Result<Option<(Place, Inode)>> {
    match tree.place(path) {
        Ok(place) => Ok(tree.at(&place).map(|node| (place, node))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
