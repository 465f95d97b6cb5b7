//! Folders and what they hold, by number; and the changes that are made to them, each in one act.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

/// A file or folder, whatever its name.
pub(super) type Inode = u64;

/// The folder that all paths begin at.
pub(super) const ROOT: Inode = 0;

/// The names in a folder.
pub(super) type Entries = BTreeMap<OsString, Inode>;

/// A name in a folder, taken or free.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) folder: Inode,
    pub(super) name: OsString,
}

/// One atomic act: what each of these places holds from now on.
#[derive(Clone, Debug)]
pub(super) struct Change(BTreeMap<Place, Option<Inode>>);

impl Change {
    pub(super) fn add(place: Place, node: Inode) -> Self {
        Self(BTreeMap::from([(place, Some(node))]))
    }

    pub(super) fn remove(place: Place) -> Self {
        Self(BTreeMap::from([(place, None)]))
    }

    pub(super) fn rename(node: Inode, from: Place, to: Place) -> Self {
        Self(BTreeMap::from([(from, None), (to, Some(node))]))
    }

    pub(super) fn exchange(a: (Inode, Place), b: (Inode, Place)) -> Self {
        Self(BTreeMap::from([(a.1, Some(b.0)), (b.1, Some(a.0))]))
    }

    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.0.keys()
    }

    pub(super) fn touches(&self, folder: Inode) -> bool {
        self.places().any(|place| place.folder == folder)
    }
}

/// Which names are in which folder. What is no folder is a file.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    folders: BTreeMap<Inode, Entries>,
}

impl Tree {
    /// An empty root.
    pub(super) fn new() -> Self {
        Self { folders: BTreeMap::from([(ROOT, Entries::new())]) }
    }

    /// Adds an empty folder that has no name yet.
    pub(super) fn add_folder(&mut self, node: Inode) {
        self.folders.insert(node, Entries::new());
    }

    pub(super) fn is_folder(&self, node: Inode) -> bool {
        self.folders.contains_key(&node)
    }

    /// What is in a folder.
    ///
    /// # Errors
    /// It is a file.
    pub(super) fn entries(&self, node: Inode) -> io::Result<&Entries> {
        self.folders.get(&node).ok_or_else(|| io::ErrorKind::NotADirectory.into())
    }

    /// What is at a path.
    ///
    /// # Errors
    /// Nothing is, or a file is on the way.
    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        self.follow(&names(path)?)
    }

    /// Where a path leads: the folder must be there, the name in it need not.
    ///
    /// # Errors
    /// The folder is not there, or is a file.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        let names = names(path)?;
        let (name, above) = names.split_last().ok_or(io::ErrorKind::ResourceBusy)?;
        let folder = self.follow(above)?;
        self.entries(folder)?;
        Ok(Place { folder, name: (*name).to_owned() })
    }

    /// What a place holds.
    pub(super) fn at(&self, place: &Place) -> Option<Inode> {
        self.folders.get(&place.folder)?.get(&place.name).copied()
    }

    fn follow(&self, names: &[&OsStr]) -> io::Result<Inode> {
        let mut node = ROOT;
        for name in names {
            node = *self.entries(node)?.get(*name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    /// A node, with an empty path, and all that is in it, folders before what they hold.
    pub(super) fn below(&self, node: Inode) -> Vec<(PathBuf, Inode)> {
        let mut found = vec![(PathBuf::new(), node)];
        let mut n_seen = 0;
        while let Some((path, folder)) = found.get(n_seen).cloned() {
            let entries = self.folders.get(&folder).into_iter().flatten();
            found.extend(entries.map(|(name, node)| (path.join(name), *node)));
            n_seen += 1;
        }
        found
    }

    /// Whether a node is this folder, or somewhere in it.
    pub(super) fn is_within(&self, node: Inode, folder: Inode) -> bool {
        self.below(folder).iter().any(|(_, other)| *other == node)
    }

    /// Does what a journal does that is read again after a crash: each place then holds what the change says,
    /// whatever was there, and a folder that gets a name loses the one it had.
    pub(super) fn apply(&mut self, change: &Change) {
        for (place, node) in &change.0 {
            if let Some(node) = node.filter(|node| self.is_folder(*node)) {
                self.folders.values_mut().for_each(|entries| entries.retain(|_, other| *other != node));
            }
            let Some(entries) = self.folders.get_mut(&place.folder) else { continue };
            match node {
                Some(node) => entries.insert(place.name.clone(), *node),
                None => entries.remove(&place.name),
            };
        }
    }
}

/// The steps of a path from the root, which a path without a leading `/` begins at, too.
fn names(path: &Path) -> io::Result<Vec<&OsStr>> {
    if path.as_os_str().is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let name = |component| match component {
        Component::Normal(name) => Some(Ok(name)),
        Component::RootDir | Component::CurDir => None,
        Component::ParentDir | Component::Prefix(_) => Some(Err(io::ErrorKind::InvalidInput.into())),
    };
    path.components().filter_map(name).collect()
}
