//! An object store beside the disk: paths that are URLs. What is done there is safe at once.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aqueduct_core::{FsEntry, FsFile, FsRead, Objects, Upload, Version};

use super::SimFs;
use super::disk::Bytes;
use super::machine::Extent;

/// The objects of a store, and what was sent and has not appeared.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) objects: BTreeMap<String, Object>,
    uploads: BTreeMap<u64, (String, Bytes)>,
    n_made: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) bytes: Bytes,
    version: u64,
}

impl Store {
    fn put(&mut self, key: String, bytes: Bytes) {
        self.n_made += 1;
        self.objects.insert(key, Object { bytes, version: self.n_made });
    }

    fn get(&self, path: &Path) -> io::Result<&Object> {
        self.objects.get(&key(path)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The objects below a folder, by the rest of their keys.
    pub(super) fn below(&self, folder: &Path) -> impl Iterator<Item = (&str, &Object)> {
        let prefix = format!("{}/", key(folder));
        let from = self.objects.range(prefix.clone()..);
        from.map_while(move |(key, object)| Some((key.strip_prefix(&prefix)?, object)))
    }

    pub(super) fn stat(&self, path: &Path) -> Option<FsEntry> {
        let is_folder = self.below(path).next().is_some();
        let object = self.get(path).ok();
        (is_folder || object.is_some()).then(|| FsEntry {
            path: path.to_owned(),
            is_dir: object.is_none(),
            n_bytes: object.map_or(0, |object| object.bytes.len() as u64),
        })
    }

    pub(super) fn list(&self, folder: &Path) -> Vec<FsEntry> {
        let first = |rest: &str| folder.join(rest.split('/').next().unwrap_or_default());
        let mut paths: Vec<_> = self.below(folder).map(|(rest, _)| first(rest)).collect();
        paths.dedup();
        paths.iter().filter_map(|path| self.stat(path)).collect()
    }

    pub(super) fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        let bytes = &self.get(path)?.bytes;
        if bytes.len() as u64 > max_bytes {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            Ok(bytes.to_vec())
        }
    }
}

fn key(path: &Path) -> String {
    path.to_string_lossy().trim_end_matches('/').to_owned()
}

fn named(version: u64) -> Version {
    Version { e_tag: None, generation: Some(version.to_string()) }
}

impl SimFs {
    /// An object that is put when it is synced.
    pub(super) fn create_object(&self, path: &Path) -> Box<dyn FsFile> {
        Box::new(SimObject { fs: self.clone(), path: path.to_owned(), bytes: Vec::new() })
    }

    pub(super) fn remove_objects(&self, path: &Path, is_whole_folder: bool) -> io::Result<()> {
        let text = format_args!("remove {}", path.display());
        self.machine().operate(self.process, text, |machine, extent| {
            let keys: Vec<_> = match is_whole_folder {
                false => vec![key(path)],
                true => {
                    machine.disk.store.below(path).map(|(rest, _)| format!("{}/{rest}", key(path))).collect()
                }
            };
            let n_keys = if extent == Extent::Half { keys.len() / 2 } else { keys.len() };
            for key in keys.iter().take(n_keys) {
                machine.step(|disk| drop(disk.store.objects.remove(key)));
            }
            Ok(())
        })
    }

    pub(super) fn look_at_store<T>(
        &self,
        what: &str,
        path: &Path,
        look: impl FnOnce(&Store) -> io::Result<T>,
    ) -> io::Result<T> {
        let text = format_args!("{what} {}", path.display());
        self.machine().look(self.process, text, |disk| look(&disk.store))
    }

    pub(super) fn open_object(&self, path: &Path) -> io::Result<Box<dyn FsRead>> {
        let bytes =
            self.look_at_store("open_read", path, |store| Ok(Bytes::clone(&store.get(path)?.bytes)))?;
        Ok(Box::new(Pinned(bytes)))
    }
}

impl Objects for SimFs {
    fn upload(&self, from: &Path, to: &Path) -> io::Result<Upload> {
        let bytes = Bytes::new(aqueduct_core::Fs::read(self, from, u64::MAX)?);
        let text = format_args!("upload {} -> {}", from.display(), to.display());
        self.machine().operate(self.process, text, |machine, extent| {
            machine.disk.store.n_made += u64::from(extent == Extent::Whole);
            let id = machine.disk.store.n_made;
            machine.disk.store.uploads.insert(id, (key(to), bytes));
            Ok(Upload { id: id.to_string(), pieces: Vec::new() })
        })
    }

    fn complete(&self, to: &Path, upload: &Upload) -> io::Result<()> {
        let text = format_args!("complete {}", to.display());
        self.machine().operate(self.process, text, |machine, _| {
            let id = upload.id.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
            let (key, bytes) = machine.disk.store.uploads.remove(&id).ok_or(io::ErrorKind::NotFound)?;
            machine.step(|disk| disk.store.put(key, bytes));
            Ok(())
        })
    }

    fn abort(&self, to: &Path, upload: &Upload) -> io::Result<()> {
        let text = format_args!("abort {}", to.display());
        self.machine().operate(self.process, text, |machine, _| {
            let id = upload.id.parse::<u64>().map_err(|_| io::ErrorKind::InvalidInput)?;
            machine.disk.store.uploads.remove(&id);
            Ok(())
        })
    }

    fn read_version(&self, path: &Path, max_bytes: u64) -> io::Result<Option<(Vec<u8>, Version)>> {
        self.look_at_store("read_version", path, |store| {
            let Ok(object) = store.get(path) else { return Ok(None) };
            Ok(Some((store.read(path, max_bytes)?, named(object.version))))
        })
    }

    fn put_over(&self, path: &Path, bytes: &[u8], over: Option<&Version>) -> io::Result<()> {
        let text = format_args!("put {}", path.display());
        self.machine().operate(self.process, text, |machine, extent| {
            let there = machine.disk.store.get(path).ok().map(|object| named(object.version));
            match (there.as_ref() == over, extent) {
                (false, _) => Err(io::ErrorKind::AlreadyExists.into()),
                // Half of an object is none.
                (true, Extent::Half) => Err(io::ErrorKind::ConnectionReset.into()),
                (true, Extent::Whole) => {
                    machine.step(|disk| disk.store.put(key(path), Bytes::new(bytes.to_vec())));
                    Ok(())
                }
            }
        })
    }

    fn each_below(&self, folder: &Path, give: &mut dyn FnMut(FsEntry) -> io::Result<()>) -> io::Result<()> {
        let found = self.look_at_store("list", folder, |store| {
            let entry = |(rest, object): (&str, &Object)| FsEntry {
                path: folder.join(rest),
                is_dir: false,
                n_bytes: object.bytes.len() as u64,
            };
            Ok(store.below(folder).map(entry).collect::<Vec<_>>())
        })?;
        found.into_iter().try_for_each(give)
    }
}

struct SimObject {
    fs: SimFs,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Write for SimObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FsFile for SimObject {
    fn sync(&mut self) -> io::Result<()> {
        self.fs.put_over(&self.path, &self.bytes, None)
    }
}

/// The bytes of an object as they were when it was opened.
struct Pinned(Bytes);

impl FsRead for Pinned {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let piece = self.0.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(piece.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
