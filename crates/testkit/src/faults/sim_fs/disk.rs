//! What is on the disk: all that was done, and what of it a loss of power cannot take back.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::store::Store;
use super::tree::{Change, Inode, ROOT, Tree};

/// A file's bytes. Copies of a disk share them.
pub(super) type Bytes = Arc<Vec<u8>>;

/// A disk, with no one at work on it.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    /// The names that everybody sees.
    pub(super) live: Tree,
    /// The names that are safe.
    pub(super) durable: Tree,
    /// What was done to names and is not safe yet, in order.
    pub(super) pending: Vec<Pending>,
    pub(super) files: BTreeMap<Inode, File>,
    /// Every operation, as text.
    pub(super) log: Vec<String>,
    pub(super) can_exchange: bool,
    pub(super) store: Store,
    last_node: Inode,
}

/// A change that is not durable yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) change: Change,
    /// Which operation made it: its place in the log.
    pub(super) operation: usize,
}

#[derive(Clone, Debug)]
pub(super) struct File {
    /// Its first name, for messages.
    pub(super) path: PathBuf,
    pub(super) live: Bytes,
    /// Its bytes when it was last synced; none, if it never was.
    pub(super) synced: Bytes,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            live: Tree::new(),
            durable: Tree::new(),
            pending: Vec::new(),
            files: BTreeMap::new(),
            log: Vec::new(),
            can_exchange: true,
            store: Store::default(),
            last_node: ROOT,
        }
    }

    /// A new empty file that has no name yet; the path is for messages.
    pub(super) fn new_file(&mut self, path: &Path) -> Inode {
        self.last_node += 1;
        let file = File { path: path.to_owned(), live: Bytes::default(), synced: Bytes::default() };
        self.files.insert(self.last_node, file);
        self.last_node
    }

    /// A new empty folder that has no name yet.
    pub(super) fn new_folder(&mut self) -> Inode {
        self.last_node += 1;
        self.live.add_folder(self.last_node);
        self.durable.add_folder(self.last_node);
        self.last_node
    }

    /// Does what the latest operation in the log asks for.
    pub(super) fn apply(&mut self, change: Change) {
        self.live.apply(&change);
        self.pending.push(Pending { change, operation: self.log.len().saturating_sub(1) });
    }

    pub(super) fn truncate(&mut self, file: Inode) {
        if let Some(file) = self.files.get_mut(&file) {
            file.live = Bytes::default();
        }
    }

    /// Writes over what is there. If anything is written, what lies between the end and the position is zeroes.
    pub(super) fn write_at(&mut self, file: Inode, position: usize, bytes: &[u8]) {
        if let Some(file) = self.files.get_mut(&file).filter(|_| !bytes.is_empty()) {
            let content = Arc::make_mut(&mut file.live);
            let end = position + bytes.len();
            content.resize(content.len().max(end), 0);
            content[position..end].copy_from_slice(bytes);
        }
    }

    pub(super) fn sync_file(&mut self, file: Inode) {
        if let Some(file) = self.files.get_mut(&file) {
            file.synced = Arc::clone(&file.live);
        }
    }

    /// Makes durable what was done in a folder, and what that builds on: what was done earlier to the same names.
    pub(super) fn sync_folder(&mut self, folder: Inode) {
        let mut places = Vec::new();
        let mut becomes_durable = |pending: &Pending| {
            let change = &pending.change;
            let is_wanted = change.touches(folder) || change.places().any(|place| places.contains(place));
            if is_wanted {
                places.extend(change.places().cloned());
            }
            is_wanted
        };
        let backwards = std::mem::take(&mut self.pending).into_iter().rev();
        let (durable, pending): (Vec<_>, Vec<_>) = backwards.partition(|pending| becomes_durable(pending));
        durable.iter().rev().for_each(|pending| self.durable.apply(&pending.change));
        self.pending = pending.into_iter().rev().collect();
    }

    /// Makes all that was done durable.
    pub(super) fn sync_all(&mut self) {
        for pending in self.pending.drain(..) {
            self.durable.apply(&pending.change);
        }
        self.files.values_mut().for_each(|file| file.synced = Arc::clone(&file.live));
    }

    /// All that everybody sees from a node on, by path from there: a file's bytes, or that it is a folder.
    pub(super) fn contents(&self, node: Inode) -> impl Iterator<Item = (PathBuf, Option<&Bytes>)> {
        let nodes = self.live.below(node).into_iter();
        nodes.map(|(path, node)| (path, self.files.get(&node).map(|file| &file.live)))
    }

    /// Adds to what the log says of the latest operation.
    pub(super) fn note(&mut self, outcome: &dyn fmt::Display) {
        if let Some(line) = self.log.last_mut() {
            *line += &format!(": {outcome}");
        }
    }
}
