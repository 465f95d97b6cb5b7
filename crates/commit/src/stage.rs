//! The folder in which one opening of a run stages for one output.
//!
//! | in `PARENT/_aqueduct/NAME/stage-RUN.SEQ/` | what |
//! |---|---|
//! | `owner.json` | whose it is |
//! | `parts/` | what the sink is writing; nothing in it counts |
//! | `N/` | the parts that record N commits, under their names |
//! | `parts-N.json` | which those are |
//! | `manifest-N.json` | the manifest that record N makes public; as long as it lies here, that is still to be done |
//! | `next/`, `old/` | the folder that is to be public, and the one that was |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aqueduct_core::{Error, ErrorKind, Objects, Result, Upload, kill_point};
use serde::{Deserialize, Serialize};

use crate::ManifestPart;
use crate::disk::Disk;
use crate::layout::{HIDDEN, Layout, MANIFEST};

const PREFIX: &str = "stage-";
const OWNER: &str = "owner.json";
const MAX_OWNER_BYTES: u64 = 64 << 10;
/// Room for about a million parts.
const MAX_LIST_BYTES: u64 = 256 << 20;

/// A staging folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage(PathBuf);

/// A part that a record commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Staged {
    #[serde(flatten)]
    pub(crate) part: ManifestPart,
    /// How it was sent, if it is to appear in an object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upload: Option<Upload>,
}

/// Whose a staging folder is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// The folder of the flow whose log decides about it.
    pub(crate) flow_dir: PathBuf,
    /// That log's name.
    pub(crate) log_id: String,
}

/// The file that says whose it is.
#[derive(Serialize, Deserialize)]
struct OwnerFile {
    #[serde(flatten)]
    owner: Owner,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_copying: bool,
}

fn encoded(owner: &Owner, is_copying: bool) -> Result<Vec<u8>> {
    let failed = |error| Error::bug("stage", "an owner has no JSON").with_source(error);
    serde_json::to_vec(&OwnerFile { owner: owner.clone(), is_copying }).map_err(failed)
}

impl Stage {
    /// The folder of the opening of a run that is this record.
    pub(crate) fn of(layout: &Layout, run_id: &str, seq: u64) -> Self {
        Self(layout.home().join(format!("{PREFIX}{run_id}.{seq}")))
    }

    /// All that are there, by run and opening.
    pub(crate) fn all(disk: &Disk, layout: &Layout) -> Result<Vec<Self>> {
        let home = layout.home();
        if !disk.exists(&home)? {
            return Ok(Vec::new());
        }
        let stages = disk.list(&home)?.into_iter().map(|entry| Self(entry.path));
        let mut stages: Vec<_> = stages.filter(|stage| stage.name().starts_with(PREFIX)).collect();
        stages.sort_by_key(|stage| (stage.run_id().to_owned(), stage.seq()));
        Ok(stages)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The run that it belongs to.
    pub(crate) fn run_id(&self) -> &str {
        let name = self.name().strip_prefix(PREFIX).unwrap_or_default();
        name.rsplit_once('.').map_or(name, |(run_id, _)| run_id)
    }

    /// The record with which its run was opened.
    pub(crate) fn seq(&self) -> u64 {
        self.name().rsplit_once('.').and_then(|(_, seq)| seq.parse().ok()).unwrap_or_default()
    }

    pub(crate) fn parts(&self) -> PathBuf {
        self.0.join("parts")
    }

    pub(crate) fn epoch(&self, n: u64) -> PathBuf {
        self.0.join(n.to_string())
    }

    pub(crate) fn list(&self, n: u64) -> PathBuf {
        self.0.join(format!("parts-{n}.json"))
    }

    pub(crate) fn manifest(&self, n: u64) -> PathBuf {
        self.0.join(format!("manifest-{n}.json"))
    }

    pub(crate) fn previous(&self, n: u64) -> PathBuf {
        self.0.join(format!("previous-{n}.json"))
    }

    pub(crate) fn next(&self) -> PathBuf {
        self.0.join("next")
    }

    pub(crate) fn next_manifest(&self) -> PathBuf {
        self.next().join(HIDDEN).join(MANIFEST)
    }

    pub(crate) fn old(&self) -> PathBuf {
        self.0.join("old")
    }

    /// Makes it, with all that a sink needs to begin.
    pub(crate) fn create(&self, disk: &Disk, owner: &Owner) -> Result<()> {
        disk.create_durable_dir(&self.0)?;
        kill_point("commit.stage.made");
        if !disk.exists(&self.0.join(OWNER))? {
            disk.write_durable(&self.0.join(OWNER), &encoded(owner, false)?)?;
        }
        kill_point("commit.stage.owned");
        disk.create_dir_all(&self.parts())?;
        disk.sync_dir(&self.0)
    }

    /// Whose it is; one that a dead process had only begun to make is nobody's.
    pub(crate) fn owner(&self, disk: &Disk) -> Result<Option<Owner>> {
        Ok(self.owner_file(disk)?.map(|file| file.owner))
    }

    fn owner_file(&self, disk: &Disk) -> Result<Option<OwnerFile>> {
        let path = self.0.join(OWNER);
        if !disk.exists(&path)? {
            return Ok(None);
        }
        Ok(serde_json::from_slice(&disk.read(&path, MAX_OWNER_BYTES)?).ok())
    }

    /// Moves it to where nobody finds it who knew it before.
    pub(crate) fn moved_to(&self, disk: &Disk, layout: &Layout, seq: u64) -> Result<Self> {
        let moved = Self::of(layout, self.run_id(), seq);
        match disk.objects(&self.0) {
            Some(objects) => self.copy_to(disk, &moved, objects)?,
            None => {
                disk.rename_no_replace(&self.0, &moved.0)?;
                kill_point("recovery.stage.moved");
                disk.sync_dir(&layout.home())?;
            }
        }
        Ok(moved)
    }

    /// Where nothing can be moved: until all of it is there, the copy says that it is one.
    fn copy_to(&self, disk: &Disk, moved: &Self, objects: &dyn Objects) -> Result<()> {
        let Some(owner) = self.owner(disk)? else { return Ok(()) };
        let path = moved.0.join(OWNER);
        disk.write_durable(&path, &encoded(&owner, true)?)?;
        kill_point("store.stage.copying");
        let files = disk.list(&self.0)?.into_iter().map(|entry| entry.path);
        for file in files.filter(|file| *file != self.0.join(OWNER)) {
            let bytes = disk.read(&file, MAX_LIST_BYTES)?;
            disk.write_durable(&moved.0.join(file.file_name().unwrap_or_default()), &bytes)?;
        }
        let (whole, failed) =
            (encoded(&owner, false)?, |error| Error::io("copy stage", path.display(), error));
        let version =
            objects.read_version(&path, MAX_OWNER_BYTES).map_err(failed)?.map(|(_, version)| version);
        if let Err(error) = objects.put_over(&path, &whole, version.as_ref()) {
            // It may be there all the same.
            let there = objects.read_version(&path, MAX_OWNER_BYTES).map_err(failed)?;
            if there.is_none_or(|(there, _)| there != whole) {
                return Err(failed(error));
            }
        }
        kill_point("store.stage.copied");
        self.remove(disk)
    }

    /// Whether it is a copy of another one, of which something may be missing.
    pub(crate) fn is_copying(&self, disk: &Disk) -> Result<bool> {
        Ok(self.owner_file(disk)?.is_some_and(|file| file.is_copying))
    }

    /// Removes all of it. Lists go first: a writer that was thought dead must not find what waits without what it is; and last
    /// whose it was.
    pub(crate) fn remove(&self, disk: &Disk) -> Result<()> {
        let lists = self.lists(disk)?.into_iter().map(|(_, list)| list);
        let rest = disk.list(&self.0)?.into_iter().map(|entry| entry.path);
        let owner = self.0.join(OWNER);
        let all = lists.chain(rest.filter(|path| *path != owner)).chain([owner.clone()]);
        all.collect::<Vec<_>>().iter().try_for_each(|path| disk.remove_file(path))
    }

    /// Keeps a list of parts, and gives its hash.
    pub(crate) fn keep_list(&self, disk: &Disk, n: u64, parts: &[Staged]) -> Result<String> {
        let failed = |error| Error::bug("stage", "a list of parts has no JSON").with_source(error);
        let bytes = serde_json::to_vec(parts).map_err(failed)?;
        disk.write_durable(&self.list(n), &bytes)?;
        Ok(hash(&bytes))
    }

    /// The parts that record `n` commits.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: the list is not the one that the record names.
    pub(crate) fn read_list(&self, disk: &Disk, n: u64, hashed: &str) -> Result<Vec<Staged>> {
        let path = self.list(n);
        let damaged = |message: &str| {
            Error::new(ErrorKind::Conflict, "read staged parts", message).with("path", path.display())
        };
        if !disk.exists(&path)? {
            return Err(damaged("what a run had staged is gone; begin anew with `--fresh`"));
        }
        let bytes = disk.read(&path, MAX_LIST_BYTES)?;
        let parts = serde_json::from_slice(&bytes).ok().filter(|_| hash(&bytes) == hashed);
        parts.ok_or_else(|| damaged("the list of staged parts is damaged; begin anew with `--fresh`"))
    }

    /// Where the manifest waits that record `n` makes public, if it does.
    pub(crate) fn waiting_manifest(&self, disk: &Disk, n: u64, hashed: &str) -> Result<Option<PathBuf>> {
        for path in [self.manifest(n), self.next_manifest()] {
            if disk.exists(&path)? && hash(&disk.read(&path, MAX_LIST_BYTES)?) == hashed {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// The parts of a list that was kept, whether or not a record names it; none, if it is damaged.
    pub(crate) fn read_any_list(&self, disk: &Disk, n: u64) -> Result<Vec<Staged>> {
        Ok(serde_json::from_slice(&disk.read(&self.list(n), MAX_LIST_BYTES)?).unwrap_or_default())
    }

    /// The manifests that wait here to be public, by the number of their record.
    pub(crate) fn manifests(&self, disk: &Disk) -> Result<Vec<(u64, PathBuf)>> {
        self.numbered(disk, "manifest-")
    }

    /// The lists of parts, by the number of their record.
    pub(crate) fn lists(&self, disk: &Disk) -> Result<Vec<(u64, PathBuf)>> {
        self.numbered(disk, "parts-")
    }

    fn numbered(&self, disk: &Disk, prefix: &str) -> Result<Vec<(u64, PathBuf)>> {
        let number = |path: &Path| {
            let name = path.file_name()?.to_str()?;
            name.strip_prefix(prefix)?.strip_suffix(".json")?.parse().ok()
        };
        let entries = disk.list(&self.0)?.into_iter();
        Ok(entries.filter_map(|entry| Some((number(&entry.path)?, entry.path))).collect())
    }

    /// Removes all that was staged and never committed. `committed` are the records whose parts are still needed.
    pub(crate) fn sweep_but(&self, disk: &Disk, committed: &[u64]) -> Result<()> {
        let kept = |n: &u64| [self.epoch(*n), self.list(*n)];
        let kept: BTreeSet<_> = committed.iter().flat_map(kept).chain([self.0.join(OWNER)]).collect();
        for entry in disk.list(&self.0)? {
            match entry.is_dir {
                _ if kept.contains(&entry.path) => {}
                true => disk.remove_dir_all(&entry.path)?,
                false => disk.remove_file(&entry.path)?,
            }
        }
        Ok(())
    }
}

/// BLAKE3, in hex.
pub(crate) fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
