//! One output: what is public, what waits to be, and the one act between them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aqueduct_core::{Error, ErrorKind, Output, Part, Result, kill_point};

use crate::disk::Disk;
use crate::folders::Folders;
use crate::foreign;
use crate::history::{Epoch, Pending};
use crate::in_store::{InStore, Publishing};
use crate::layout::{DOCUMENTS, HIDDEN, Layout};
use crate::lock::{self, OutputLock};
use crate::manifest::{Manifest, ManifestPart};
use crate::names;
use crate::record::{Change, OutputRef};
use crate::stage::{Owner, Stage, Staged};
use crate::{Mode, Published};

/// How often an output may change between two looks at it.
const MAX_LOOKS: usize = 5;

/// An output that nobody else writes while this is held.
#[derive(Debug)]
pub(crate) struct Dataset {
    disk: Disk,
    layout: Layout,
    mode: Mode,
    /// Folders above the output that were made for it, the deepest first.
    made: Vec<PathBuf>,
    lock: Option<OutputLock>,
}

impl Dataset {
    /// Locks an output.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: another run is writing it.
    pub(crate) fn claim(disk: &Disk, output: &OutputRef) -> Result<Self> {
        let layout = Self::layout_of(output)?;
        let made = disk.missing_above(layout.parent())?;
        let mut claimed = Self { disk: disk.clone(), layout, mode: output.mode, made, lock: None };
        if claimed.in_store().is_some() {
            return Ok(claimed);
        }
        match OutputLock::take(disk, &claimed.layout) {
            Ok(lock) => claimed.lock = Some(lock),
            Err(error) => {
                claimed.remove_empty_folders();
                return Err(error);
            }
        }
        Ok(claimed)
    }

    /// An output to look at, not locked: nothing on the disk is changed.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: another run is writing it.
    pub(crate) fn look(disk: &Disk, output: &OutputRef) -> Result<Self> {
        let layout = Self::layout_of(output)?;
        if disk.objects(&layout.path).is_none() && lock::is_held(disk, &layout)? {
            return Err(lock::held(&layout));
        }
        Ok(Self { disk: disk.clone(), layout, mode: output.mode, made: Vec::new(), lock: None })
    }

    /// Whether somebody has left something staged for an output.
    pub(crate) fn has_staged(disk: &Disk, output: &OutputRef) -> Result<bool> {
        Ok(!Stage::all(disk, &Self::layout_of(output)?)?.is_empty())
    }

    /// The paths of an output.
    pub(crate) fn layout_of(output: &OutputRef) -> Result<Layout> {
        let at = Output { path: output.path.clone(), is_file: output.is_file, allow_empty: true, mode: None };
        Layout::of(&at)
    }

    /// What is different, if the output is in an object store. There no lock keeps others out: who writes second finds the
    /// manifest changed.
    fn in_store(&self) -> Option<InStore<'_>> {
        let objects = self.disk.objects(&self.layout.path)?;
        Some(InStore { disk: &self.disk, objects, layout: &self.layout })
    }

    /// Whether parts are written on this machine and sent from there.
    pub(crate) fn is_in_store(&self) -> bool {
        self.in_store().is_some()
    }

    /// Whether nothing of a run is public before its end.
    pub(crate) fn waits_for_end(&self) -> bool {
        self.layout.is_file || self.mode != Mode::Append
    }

    pub(crate) fn path(&self) -> &Path {
        &self.layout.path
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What is public, if aqueduct wrote it.
    pub(crate) fn manifest(&self) -> Result<Option<Manifest>> {
        Manifest::load(&self.disk, &self.layout.manifest())
    }

    /// What is public, and nothing else stands in its place.
    pub(crate) fn checked_manifest(&self) -> Result<Option<Manifest>> {
        let mut manifest = self.manifest()?;
        for _ in 0..MAX_LOOKS {
            let checked = self.check_foreign(manifest.as_ref());
            let now =
                if self.is_in_store() && checked.is_err() { self.manifest()? } else { manifest.clone() };
            // What another flow made public between the two looks is not foreign.
            if now == manifest {
                return checked.map(|()| manifest);
            }
            manifest = now;
        }
        let message = "other runs change the output again and again";
        Err(Error::new(ErrorKind::Conflict, "check output", message).with("path", self.layout.path.display()))
    }

    /// The same flow's log was deleted and begun anew: what the old one had staged is nobody's. In an object store a folder
    /// of the same name may be on another machine.
    fn is_same_log_begun_anew(&self, other: &Owner, owner: &Owner) -> bool {
        !self.is_in_store() && other.flow_dir == owner.flow_dir && other.log_id != owner.log_id
    }

    /// Makes sure that nothing stands in its place but what its manifest lists.
    pub(crate) fn check_foreign(&self, manifest: Option<&Manifest>) -> Result<()> {
        match self.in_store() {
            Some(store) => store.check_foreign(manifest),
            None => foreign::check(&self.disk, &self.layout, manifest),
        }
    }

    /// Makes sure that all of it is there, unless all of it is to be replaced.
    pub(crate) fn check_missing(&self, manifest: Option<&Manifest>) -> Result<()> {
        match manifest {
            Some(manifest) if self.mode != Mode::Replace => match self.in_store() {
                Some(store) if store.has_all(manifest)? => Ok(()),
                // One look at each finds the first that is gone.
                _ => foreign::check_missing(&self.disk, &self.layout, manifest),
            },
            _ => Ok(()),
        }
    }

    /// The staging folders of one log, by run and opening, after those of dead openings were brought under this one's
    /// name: a writer that was thought dead finds nothing where it left it.
    pub(crate) fn fence(&self, owner: &Owner, seq: u64) -> Result<Vec<Stage>> {
        let mut fenced: Vec<Stage> = Vec::new();
        // Of several openings of one run the last has everything; the others were about to be removed.
        for stage in Stage::all(&self.disk, &self.layout)?.into_iter().rev() {
            match stage.owner(&self.disk)? {
                Some(other) if other != *owner && !self.is_same_log_begun_anew(&other, owner) => {}
                Some(_) if stage.is_copying(&self.disk)? => stage.remove(&self.disk)?,
                None => {
                    self.disk.remove_dir_all(stage.path())?;
                    kill_point("recovery.ownerless.removed");
                }
                Some(_) if fenced.iter().any(|kept| kept.run_id() == stage.run_id()) => {
                    self.disk.remove_dir_all(stage.path())?;
                }
                Some(other) => {
                    if other.log_id != owner.log_id {
                        self.complete_without_log(&stage)?;
                    }
                    fenced.push(stage.moved_to(&self.disk, &self.layout, seq)?);
                }
            }
        }
        Ok(fenced)
    }

    /// The log that knew this staging folder was deleted. What was in the middle of being published was committed: of one
    /// file, its manifest follows it; a folder that had made way is put back.
    fn complete_without_log(&self, stage: &Stage) -> Result<()> {
        if self.is_in_store() {
            return Ok(());
        }
        let public = self.disk.stat(&self.layout.path)?;
        if public.is_none() && self.disk.exists(&stage.old())? {
            self.disk.rename_no_replace(&stage.old(), &self.layout.path)?;
            return self.disk.sync_dir(self.layout.parent());
        }
        let Some(public) = public.filter(|public| self.layout.is_file && !public.is_dir) else {
            return Ok(());
        };
        for (n, waiting) in stage.manifests(&self.disk)? {
            // One that is cut off was not durable yet: nothing had begun.
            let Ok(Some(manifest)) = Manifest::load(&self.disk, &waiting) else { continue };
            let [part] = manifest.parts.as_slice() else { continue };
            let has_moved = !self.disk.exists(&stage.epoch(n).join(&part.name))?;
            if has_moved && part.bytes == public.n_bytes {
                self.place_document(stage, &waiting, &|name| self.layout.described_in(name))?;
                self.disk.rename(&waiting, &self.layout.manifest())?;
                self.disk.sync_dir(&self.layout.hidden())?;
            }
        }
        Ok(())
    }

    /// All that was staged for it.
    pub(crate) fn stages(&self) -> Result<Vec<Stage>> {
        Stage::all(&self.disk, &self.layout)
    }

    /// Whether the newest commit of a log has something staged there that is not public yet.
    pub(crate) fn has_to_publish(&self, stage: &Stage, newest: &Pending<'_>) -> Result<bool> {
        let at = newest.outputs.iter().position(|output| output.path == self.layout.path);
        let change = at.and_then(|at| newest.epochs.last()?.outputs.get(at));
        match change.and_then(|change| change.manifest.as_ref()) {
            Some(hashed) => Ok(stage.waiting_manifest(&self.disk, newest.n, hashed)?.is_some()),
            None => Ok(false),
        }
    }

    /// Staging folders that the log of another flow decides about.
    pub(crate) fn of_others(&self, owner: &Owner) -> Result<Vec<(Stage, Owner)>> {
        let mut others = Vec::new();
        for stage in Stage::all(&self.disk, &self.layout)? {
            let is_other = |other: &Owner| other != owner && !self.is_same_log_begun_anew(other, owner);
            if let Some(other) = stage.owner(&self.disk)?.filter(is_other) {
                others.push((stage, other));
            }
        }
        Ok(others)
    }

    /// Makes parts durable under the number of the record that will commit them, not yet public.
    pub(crate) fn keep_parts(&self, stage: &Stage, n: u64, parts: &[Part]) -> Result<Option<String>> {
        if parts.is_empty() {
            return Ok(None);
        }
        let listed = match self.in_store() {
            Some(store) => store.upload(parts)?,
            None => {
                self.bring(&parts.iter().map(Waiting::staged).collect::<Vec<_>>(), &stage.epoch(n))?;
                kill_point("commit.parts.staged");
                let staged = |part: &Part| Staged { part: part.clone().into(), upload: None };
                parts.iter().map(staged).collect()
            }
        };
        let kept = stage.keep_list(&self.disk, n, &listed);
        if let (Err(_), Some(store)) = (&kept, self.in_store()) {
            // Without the list nobody knows of them.
            store.abort(&listed);
        }
        let hashed = kept?;
        self.disk.sync_dir(stage.path())?;
        match self.is_in_store() {
            true => kill_point("store.list.put"),
            false => kill_point("commit.list.synced"),
        }
        Ok(Some(hashed))
    }

    /// Keeps the manifest that the record of this number will make public.
    pub(crate) fn keep_manifest(&self, stage: &Stage, n: u64, manifest: &Manifest) -> Result<String> {
        let hashed = manifest.store(&self.disk, &stage.manifest(n))?;
        self.disk.sync_dir(stage.path())?;
        kill_point("commit.manifest.synced");
        Ok(hashed)
    }

    /// Brings parts into a folder, under their names, and makes that durable: those that an earlier try brought there,
    /// too.
    fn bring(&self, parts: &[Waiting<'_>], to: &Path) -> Result<()> {
        self.disk.create_durable_dir(to)?;
        self.make_folders(parts.iter().map(|part| part.name), to)?;
        let mut changed = Folders::below(&self.disk, to);
        let mut open: Option<PathBuf> = None;
        for part in parts {
            let place = to.join(part.name);
            let folder = place.parent().unwrap_or(to).to_owned();
            match self.disk.exists(&part.path)? {
                true => {
                    self.disk.rename_no_replace(&part.path, &place)?;
                    kill_point("commit.part.moved");
                }
                false => self.check_there(&place, part.n_bytes)?,
            }
            if open.as_ref() != Some(&folder)
                && let Some(left) = open.replace(folder)
            {
                changed.add(&left)?;
            }
        }
        if let Some(last) = open {
            changed.add(&last)?;
        }
        changed.finish()
    }

    /// Makes the folders that parts are to stand in, durable before the first part leaves the place where it is safe.
    fn make_folders<'p>(&self, names: impl Iterator<Item = &'p str>, to: &Path) -> Result<()> {
        let folders = names.filter_map(|name| Path::new(name).parent());
        let folders: BTreeSet<_> = folders.filter(|folder| !folder.as_os_str().is_empty()).collect();
        let mut changed = BTreeSet::new();
        for folder in folders {
            let missing = self.disk.missing_above(&to.join(folder))?;
            if !missing.is_empty() {
                self.disk.create_dir_all(&to.join(folder))?;
                changed.extend(missing.iter().filter_map(|made| made.parent()).map(Path::to_owned));
            }
        }
        changed.iter().try_for_each(|folder| self.disk.sync_dir(folder))
    }

    fn check_there(&self, path: &Path, n_bytes: u64) -> Result<()> {
        match self.disk.stat(path)? {
            Some(entry) if entry.n_bytes == n_bytes => Ok(()),
            _ => {
                let message = "a part that was committed is gone: it is neither staged nor public";
                Err(Error::new(ErrorKind::Conflict, "publish", message).with("path", path.display()))
            }
        }
    }

    /// Makes public what a record committed for this output, unless that was done: each step is done at most once,
    /// and none is skipped, however often this is begun.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: something foreign is in the way, or a part is gone. Then, or when the disk fails, it
    /// is still to be done.
    pub(crate) fn publish(&self, stage: &Stage, pending: &Pending<'_>, index: usize) -> Result<()> {
        let Some(change) = pending.epochs.last().and_then(|epoch| epoch.outputs.get(index)) else {
            return Ok(());
        };
        let Some(hashed) = &change.manifest else { return Ok(()) };
        if let Some(store) = self.in_store() {
            return store.publish(&self.publishing(stage, pending, index, hashed)?);
        }
        let Some(waiting) = stage.waiting_manifest(&self.disk, pending.n, hashed)? else { return Ok(()) };
        let mode = pending.outputs.get(index).map_or(self.mode, |output| output.mode);
        match (self.layout.is_file, mode) {
            (false, Mode::Replace | Mode::ReplacePartitions | Mode::Merge) => {
                self.publish_folder(stage, pending, index, &waiting)
            }
            (true, _) => self.publish_parts(stage, pending.n, change, &waiting, self.layout.parent()),
            (false, Mode::Append) => {
                self.disk.create_durable_dir(&self.layout.path)?;
                self.publish_parts(stage, pending.n, change, &waiting, &self.layout.path)
            }
        }
    }

    /// In an object store, what a record makes public.
    fn publishing<'p>(
        &self,
        stage: &'p Stage,
        pending: &Pending<'p>,
        index: usize,
        hashed: &'p str,
    ) -> Result<Publishing<'p>> {
        let mode = pending.outputs.get(index).map_or(self.mode, |output| output.mode);
        let epochs = match (self.layout.is_file, mode) {
            (false, Mode::Append) | (true, _) => {
                pending.epochs.last().map(std::slice::from_ref).unwrap_or_default()
            }
            (false, _) => pending.epochs,
        };
        let n = pending.n;
        let is_waiting = stage.waiting_manifest(&self.disk, n, hashed)?.is_some();
        let mut publishing = Publishing { stage, mode, n, hashed, epochs: Vec::new(), parts: Vec::new() };
        if self.layout.is_file {
            publishing.mode = Mode::Replace;
        }
        for epoch in epochs.iter().filter(|_| is_waiting) {
            if let Some(change) = epoch.outputs.get(index) {
                publishing.parts.extend(self.sent(stage, epoch.n, change)?);
            }
            publishing.epochs.push(epoch.n);
        }
        Ok(publishing)
    }

    /// The parts first, then the manifest: whoever reads by the manifest finds all that it lists.
    fn publish_parts(
        &self,
        stage: &Stage,
        n: u64,
        change: &Change,
        waiting: &Path,
        folder: &Path,
    ) -> Result<()> {
        let parts = self.listed(stage, n, change)?;
        if self.layout.is_file {
            parts.iter().try_for_each(|part| self.publish_file(&stage.epoch(n).join(&part.name), part))?;
        } else {
            self.bring(&waiting_in(&stage.epoch(n), &parts), folder)?;
            kill_point("commit.publish.parts.added");
        }
        let manifest = self.layout.manifest();
        let hidden = manifest.parent().unwrap_or(folder);
        self.disk.create_durable_dir(hidden)?;
        if self.place_document(stage, waiting, &|name| self.layout.described_in(name))? {
            self.disk.sync_dir(hidden)?;
        }
        self.disk.rename(waiting, &manifest)?;
        kill_point("commit.publish.manifest.renamed");
        self.disk.sync_dir(manifest.parent().unwrap_or(folder))?;
        kill_point("commit.publish.manifest.synced");
        Ok(())
    }

    /// Puts the document that follows from a manifest beside its place, before it: as long as the manifest waits, this is
    /// done again. Whether anything has changed there.
    fn place_document(&self, stage: &Stage, waiting: &Path, place: &dyn Fn(&str) -> PathBuf) -> Result<bool> {
        let document = Manifest::load(&self.disk, waiting)?.and_then(|manifest| manifest.document());
        let mut has_changed = false;
        for name in DOCUMENTS {
            let to = place(name);
            match document.as_ref().filter(|(wanted, _)| *wanted == name) {
                Some((_, text)) => {
                    let fresh = stage.path().join(name);
                    self.disk.remove_file(&fresh)?;
                    self.disk.write_durable(&fresh, text)?;
                    self.disk.rename(&fresh, &to)?;
                    has_changed = true;
                }
                None if self.disk.exists(&to)? => {
                    self.disk.remove_file(&to)?;
                    has_changed = true;
                }
                None => {}
            }
        }
        Ok(has_changed)
    }

    fn publish_file(&self, staged: &Path, part: &ManifestPart) -> Result<()> {
        match self.disk.exists(staged)? {
            false => self.check_there(&self.layout.path, part.bytes)?,
            true => {
                self.check_foreign(self.manifest()?.as_ref())?;
                self.publish_over(staged)?;
            }
        }
        self.disk.sync_dir(self.layout.parent())?;
        kill_point("commit.publish.file.synced");
        Ok(())
    }

    /// Moves the file to its place, whether or not it is taken by the one that it replaces.
    fn publish_over(&self, staged: &Path) -> Result<()> {
        match self.disk.exists(&self.layout.path)? {
            true => {
                self.disk.rename(staged, &self.layout.path)?;
                kill_point("commit.publish.file.renamed");
            }
            false => {
                self.disk.rename_no_replace(staged, &self.layout.path)?;
                kill_point("commit.publish.file.placed");
            }
        }
        Ok(())
    }

    fn listed(&self, stage: &Stage, n: u64, change: &Change) -> Result<Vec<ManifestPart>> {
        Ok(self.sent(stage, n, change)?.into_iter().map(|staged| staged.part).collect())
    }

    fn sent(&self, stage: &Stage, n: u64, change: &Change) -> Result<Vec<Staged>> {
        match &change.parts {
            Some(hashed) => stage.read_list(&self.disk, n, hashed),
            None => Ok(Vec::new()),
        }
    }

    /// All parts that a run has staged for this output, in order.
    pub(crate) fn staged_parts(
        &self,
        stage: &Stage,
        epochs: &[Epoch],
        index: usize,
    ) -> Result<Vec<(u64, Vec<ManifestPart>)>> {
        let changes = epochs.iter().filter_map(|epoch| Some((epoch.n, epoch.outputs.get(index)?)));
        changes.map(|(n, change)| Ok((n, self.listed(stage, n, change)?))).collect()
    }

    /// The staged folder is completed, its manifest last, and then exchanged with the public one.
    fn publish_folder(
        &self,
        stage: &Stage,
        pending: &Pending<'_>,
        index: usize,
        waiting: &Path,
    ) -> Result<()> {
        let next = stage.next();
        if waiting != stage.next_manifest() {
            let staged = self.staged_parts(stage, pending.epochs, index)?;
            for (n, parts) in &staged {
                self.bring(&waiting_in(&stage.epoch(*n), parts), &next)?;
            }
            self.carry_over(waiting, &staged, &next)?;
            self.disk.create_durable_dir(&next.join(HIDDEN))?;
            self.place_document(stage, waiting, &|name| next.join(HIDDEN).join(name))?;
            self.disk.rename(waiting, &stage.next_manifest())?;
            self.disk.sync_dir(&next.join(HIDDEN))?;
            self.disk.sync_dir(&next)?;
            self.disk.sync_dir(stage.path())?;
            kill_point("commit.publish.folder.completed");
        }
        self.check_foreign(self.manifest()?.as_ref())?;
        self.publish_instead(stage)?;
        self.disk.sync_dir(self.layout.parent())?;
        kill_point("commit.publish.folder.synced");
        self.disk.sync_dir(stage.path())
    }

    /// The folder that is complete takes the place of the public one.
    fn publish_instead(&self, stage: &Stage) -> Result<()> {
        let next = stage.next();
        if !self.disk.exists(&self.layout.path)? {
            self.disk.rename_no_replace(&next, &self.layout.path)?;
            kill_point("commit.publish.folder.placed");
        } else if self.disk.exchange(&next, &self.layout.path)? {
            kill_point("commit.publish.folder.exchanged");
        } else {
            // No points: CI's file system can exchange. `publish.rs` of the tests fails each of these steps.
            self.disk.rename_no_replace(&self.layout.path, &stage.old())?;
            self.disk.sync_dir(stage.path())?;
            self.disk.sync_dir(self.layout.parent())?;
            self.disk.rename_no_replace(&next, &self.layout.path)?;
        }
        Ok(())
    }

    /// Gives the public parts that stay a second name in the folder that is to be public.
    fn carry_over(&self, waiting: &Path, staged: &[(u64, Vec<ManifestPart>)], next: &Path) -> Result<()> {
        let Some(manifest) = Manifest::load(&self.disk, waiting)? else { return Ok(()) };
        let staged: BTreeSet<_> = staged.iter().flat_map(|(_, parts)| parts).map(|part| &part.name).collect();
        let stay: Vec<_> = manifest.parts.iter().filter(|part| !staged.contains(&part.name)).collect();
        if stay.is_empty() {
            return Ok(());
        }
        self.disk.create_durable_dir(next)?;
        self.make_folders(stay.iter().map(|part| part.name.as_str()), next)?;
        let mut changed = Folders::below(&self.disk, next);
        // Sorted by name, the parts of a folder stand together.
        for folder in stay.chunk_by(|a, b| names::folder(&a.name) == names::folder(&b.name)) {
            folder.iter().try_for_each(|part| self.carry_over_one(part, next))?;
            let name = folder.first().map_or("", |part| names::folder(&part.name));
            changed.add(&next.join(name))?;
        }
        changed.finish()?;
        kill_point("commit.update.carried");
        Ok(())
    }

    fn carry_over_one(&self, part: &ManifestPart, next: &Path) -> Result<()> {
        let (public, place) = (self.layout.path.join(&part.name), next.join(&part.name));
        self.check_there(&public, part.bytes)?;
        match self.disk.exists(&place)? {
            true => self.check_there(&place, part.bytes),
            false => {
                self.disk.link(&public, &place)?;
                kill_point("commit.update.linked");
                Ok(())
            }
        }
    }

    /// Removes a staging folder, and with it the output that was replaced, unless somebody put a file there at the last
    /// moment.
    pub(crate) fn discard(&self, stage: &Stage) -> Result<()> {
        if let Some(store) = self.in_store() {
            return store.discard(stage, &[]);
        }
        for replaced in [stage.next(), stage.old()] {
            if self.disk.exists(&replaced)? {
                foreign::check_replaced(&self.disk, &replaced)?;
            }
        }
        self.disk.remove_dir_all(stage.path())
    }

    /// Removes all that was staged and never committed. `committed` are the records whose parts are still needed.
    pub(crate) fn sweep_but(&self, stage: &Stage, committed: &[u64]) -> Result<()> {
        match self.in_store() {
            Some(store) => store.discard(stage, committed),
            None => stage.sweep_but(&self.disk, committed),
        }
    }

    /// What is public now, as the report tells it.
    pub(crate) fn published(&self, manifest: &Manifest) -> Published {
        Published {
            path: self.layout.path.clone(),
            rows: manifest.rows,
            n_bytes: manifest.n_bytes(),
            n_parts: manifest.parts.len(),
        }
    }

    /// Lets go of the output and of folders that nothing is in.
    pub(crate) fn release(mut self) {
        self.lock = None;
        self.remove_empty_folders();
    }

    fn remove_empty_folders(&self) {
        let ours = [self.layout.home(), self.layout.hidden()];
        for folder in ours.iter().chain(&self.made) {
            if let Err(error) = self.disk.remove_empty_dir(folder) {
                tracing::debug!(error = error.chain(), "an empty folder was not removed");
            }
        }
    }
}

/// A part on its way from where it is staged.
struct Waiting<'a> {
    path: PathBuf,
    name: &'a str,
    n_bytes: u64,
}

impl<'a> Waiting<'a> {
    fn staged(part: &'a Part) -> Self {
        Self { path: part.staged.clone(), name: &part.name, n_bytes: part.n_bytes }
    }
}

/// Parts as they lie in the folder of their record.
fn waiting_in<'a>(folder: &Path, parts: &'a [ManifestPart]) -> Vec<Waiting<'a>> {
    let waiting = |part: &'a ManifestPart| Waiting {
        path: folder.join(&part.name),
        name: &part.name,
        n_bytes: part.bytes,
    };
    parts.iter().map(waiting).collect()
}
